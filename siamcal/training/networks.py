"""The network of a recipe: plain or calibrated, with the start weights that both share."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from torch import nn

from siamcal.datasets.base import FaceSet
from siamcal.model.create import create_backbone, is_file_name
from siamcal.model.heads import make_head
from siamcal.model.siamese import CalibratingSiamese
from siamcal.model.weights import load_face_weights
from siamcal.training.checkpoint import load_trained
from siamcal.training.recipe import Recipe
from siamcal.training.start import weights_path

__all__ = [
    "NonCalibrated",
    "TrainingStep",
    "build_network",
    "fit_merge",
    "not_yet_proved",
    "proved",
    "synchronize_batchnorm",
    "wrap",
]

# Images that are read and encoded at once.
FITTED_AT_ONCE = 64

_PROVED: set[str] = set()  # architectures whose cut was proved in this process


class NonCalibrated(nn.Module):
    """A backbone and its head: judges each frame alone (NCG), `(B, 3, S, S) -> head output`."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, target: torch.Tensor) -> Any:
        """Head output of the target frames."""
        return self.head(self.backbone(target))


class TrainingStep(nn.Module):
    """Forward of one training step; the one module that is distributed and compiled.

    Args:
        network: From `build_network`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        targets: torch.Tensor,
        references: torch.Tensor,
        index: torch.Tensor,
        dropped: torch.Tensor | None = None,
    ) -> Any:
        """Head output for a batch.

        Args:
            targets: (B, 3, S, S).
            references: (R, 3, S, S), each encoded once; a plain network ignores them.
            index: (B,) row of `references` that belongs to each target.
            dropped: (B,) bool, targets that are read without theirs, by a network that has a null
                reference.
        """
        if not isinstance(self.network, CalibratingSiamese):
            return self.network(targets)
        if self.network.null_reference is None:
            dropped = None
        if len(references) == len(targets):  # each target has its own, whatever their order
            return self.network(targets, references[index], dropped=dropped)
        return self.network(targets, references, index, dropped=dropped)


def build_network(recipe: Recipe, num_aus: int, *, calibrated: bool) -> nn.Module:
    """The network of a recipe with its start weights: the same backbone for NCG and CSN.

    Args:
        recipe: Names backbone, start weights or checkpoint, merge point and task.
        num_aus: Number of AUs.
        calibrated: True wraps the backbone in `CalibratingSiamese`.

    Raises:
        WeightsError: The start weights fit nowhere, or the checkpoint not everywhere.
    """
    if recipe.checkpoint:
        trained = NonCalibrated(*load_trained(recipe, num_aus)).eval()
        return wrap(trained, recipe) if calibrated else trained
    head = make_head(recipe.task, num_aus)
    torch.manual_seed(recipe.seed)  # the parts that have no start weights
    backbone = create_backbone(
        recipe.backbone,
        num_outputs=head.num_outputs,
        pretrained=recipe.weights == "pretrained",
        **recipe.backbone_options,
    )
    if recipe.weights not in ("", "pretrained"):
        load_face_weights(backbone, weights_path(recipe.weights))
    plain = NonCalibrated(backbone, head)
    return wrap(plain, recipe) if calibrated else plain


def wrap(network: NonCalibrated, recipe: Recipe) -> CalibratingSiamese:
    """The same backbone and head, calibrated as the recipe says; nothing is copied."""
    size = recipe.preprocessing.size
    in_two = recipe.compile or recipe.freeze_pre
    calibrated = CalibratingSiamese(
        network.backbone,
        merge_at=recipe.merge_at,
        merge=recipe.merge,
        merge_options=recipe.merge_options,
        head=network.head,
        branches=recipe.branches,
        freeze_pre_batchnorm=recipe.freeze_pre_batchnorm,
        null_reference=recipe.reference_dropout > 0,
        example_inputs=torch.zeros(2, 3, size, size, device=_device(network)),
        verify=not_yet_proved(recipe),
        # A hook's forward is cut in pieces by torch.compile, and has no second half of its own that
        # kept features could enter; at "output" there is none.
        mechanism="fx" if in_two and recipe.merge_at != "output" else "auto",
    )
    proved(recipe)
    return calibrated


def _device(network: nn.Module) -> torch.device | None:
    return next((p.device for p in network.parameters()), None)


def not_yet_proved(recipe: Recipe) -> bool:
    """Whether the cut of this architecture is to be proved; once in a process is enough.

    A comparison cuts the same network for each fold, seed and method; weights don't matter to the
    proof. A user's own file may have changed since, so its networks are proved each time.
    """
    return is_file_name(recipe.backbone) or _architecture(recipe) not in _PROVED


def proved(recipe: Recipe) -> None:
    """Remember that the cut of this architecture passed its proof."""
    _PROVED.add(_architecture(recipe))


def _architecture(recipe: Recipe) -> str:
    facts = recipe.backbone, recipe.backbone_options, recipe.merge_at, recipe.preprocessing.size
    return repr((*facts, recipe.task, bool(recipe.compile or recipe.freeze_pre)))


def fit_merge(
    network: nn.Module, faces: FaceSet, rows: np.ndarray, frames: np.ndarray | None = None
) -> None:
    """Fit merge form and null reference to the reference frames of the given rows, if need be.

    Args:
        network: From `build_network`, with its start weights.
        faces: The face set.
        rows: Training rows: nothing of the other people may get in.
        frames: Rows of resting frames to take instead, of some people several: a shrinkage can
            then be estimated.
    """
    if not isinstance(network, CalibratingSiamese) or network.fitted:
        return
    references = np.unique(faces.reference_rows[rows]) if frames is None else frames
    device = next(network.parameters()).device
    parts = np.split(references, range(FITTED_AT_ONCE, len(references), FITTED_AT_ONCE))
    images = (faces.preprocessing.to_tensor(faces.images[part]).to(device) for part in parts)
    network.fit_anchor(images, faces.participants[references], batch_size=FITTED_AT_ONCE)


def synchronize_batchnorm(network: nn.Module) -> None:
    """Let BatchNorm see the samples of all processes, in place; parameters and names stay.

    A network of timm has layers of its own with an activation inside, which only timm's converter
    keeps. Torch synchronises on accelerators only, so on the CPU the layers must not train.
    """
    timm_layers = sys.modules.get("timm.layers")  # loaded where the network has any of them
    convert = nn.SyncBatchNorm.convert_sync_batchnorm
    if timm_layers is not None:
        convert = timm_layers.convert_sync_batchnorm
    convert(network)
