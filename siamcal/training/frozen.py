"""Training behind a frozen first part: each frame's features are computed once and kept on disk.

What lies before the merge point keeps its start weights, so a frame's features there never change.
They are computed once for the frame as it is and for a few augmented copies of it, and the rest of
the network trains from there, in a small part of the time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from siamcal.datasets.base import FaceSet
from siamcal.errors import ConfigError, MergePointError
from siamcal.files import cache_dir
from siamcal.graph import BatchLayout, Features, Split, split_network
from siamcal.graph.state import in_mode
from siamcal.inference.landmark_pass import LandmarkPass, landmark_pass
from siamcal.model.places import joined
from siamcal.model.reference import Reference
from siamcal.model.siamese import CalibratingSiamese
from siamcal.model.weights_file import checksum_of_tensors
from siamcal.settings import to_dict
from siamcal.training.augmentation import REFERENCES, TARGETS, copies_of
from siamcal.training.kept import kept_rows
from siamcal.training.networks import not_yet_proved, proved
from siamcal.training.noise import StandIns
from siamcal.training.recipe import Noise, Recipe

__all__ = ["Behind", "KeptFeatures", "keep_features", "keep_reference_features"]

logger = logging.getLogger(__name__)

_FORMAT = 2
# Images at a time: small maps of few images stay in the processor's cache.
_BATCH = {"cpu": 8, "cuda": 128}
_WORTH_FUSING = 400  # images; fusing takes about a second


class Behind(nn.Module):
    """The part of a network behind its merge point, which reads packed features.

    Features are packed as one row a frame, whatever crosses the merge point. Everything before it
    is frozen for good: `requires_grad` is switched off there.

    Args:
        network: From `build_network`: plain or calibrated.
        recipe: Names the merge point, also of a plain network, and the size of the images.

    Attributes:
        split: The cut.
        width: Length of a row.

    Raises:
        ConfigError: The network can't be cut in two graphs there, or parameters act on both sides.
    """

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.network = network
        self._size = recipe.preprocessing.size
        self.split = self._cut(recipe)
        self._passed: dict[int, Features] = {}
        self.layouts = _known(self.split)
        self.widths = [shape.numel() for shape in self.split.shapes]
        self.width = sum(self.widths)
        self.frozen = self._freeze()

    def forward(
        self,
        targets: Tensor,
        references: Tensor | Reference | None = None,
        index: Tensor | None = None,
        dropped: Tensor | None = None,
    ) -> Any:
        """Head output for a batch, as `TrainingStep` gives it for images.

        Args:
            targets: (B, width) packed features.
            references: (R, width), or encoded; a plain network ignores them.
            index: (B,) row of `references` that belongs to each target; None: one each.
            dropped: (B,) bool, targets that are read without theirs.
        """
        features = self._unpacked(targets)
        if not isinstance(self.network, CalibratingSiamese):
            return self.network.head(self.split.post(features))  # type: ignore[operator]
        if isinstance(references, Tensor):
            references = self.encode(references)
        if self.network.null_reference is None:
            dropped = None
        return self.network.from_features(features, references, index, dropped=dropped)

    def encode(self, rows: Tensor) -> Reference:
        """Packed features (R, width) of reference frames -> what `model.encode` makes of them."""
        return Reference(self._tensors(rows), self.split.layouts, self.split.merge_at)

    @torch.inference_mode()
    def pack(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) -> their packed features (B, width), in evaluation mode."""
        with in_mode(self.network, False):
            return self.rows(images)

    def rows(self, images: Tensor) -> Tensor:
        """`pack`, in the mode that the network is in."""
        tensors = self.split.pre(images).tensors
        rows = [lay.to_rows(t) for lay, t in zip(self.layouts, tensors, strict=True)]
        return torch.cat(rows, 1).float()

    def packer(self, count: int) -> Callable[[Tensor], Tensor]:
        """`pack` for many batches of `count` images, with fused layers where that works.

        Twice as fast for many a network; the landmark network is run by LiteRT, which is faster
        still. Either is held against `pack` on random images first.
        """
        device = next(self.network.parameters()).device
        if device.type != "cpu":
            return self.pack
        with in_mode(self.network, False):
            known = landmark_pass(self.split.network, self.split.merge_at, self.split.pre)
        if known is not None:
            return partial(self._pack_landmarks, known)
        images = torch.rand(count, 3, self._size, self._size)
        try:
            with warnings.catch_warnings(), torch.no_grad(), in_mode(self.network, False):
                warnings.simplefilter("ignore")
                traced = torch.jit.trace(_Pack(self).eval(), images, check_trace=False)
                fused = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
                same = torch.allclose(fused(images), self.pack(images), rtol=1e-4, atol=1e-4)
        except Exception as error:  # whatever a network does that can't be traced
            logger.info("features are computed without fused layers (%s)", str(error)[:100])
            return self.pack
        if not same:
            return self.pack

        @torch.inference_mode()
        def packed(batch: Tensor) -> Tensor:
            return fused(batch) if len(batch) == count else self.pack(batch)

        return packed

    @torch.inference_mode()
    def _pack_landmarks(self, known: LandmarkPass, images: Tensor) -> Tensor:
        tensors = known(images.permute(0, 2, 3, 1).numpy(), 1.0)
        rows = [lay.to_rows(t) for lay, t in zip(self.layouts, tensors, strict=True)]
        return torch.cat(rows, 1).float()

    def _cut(self, recipe: Recipe) -> Split:
        network, merge_at = self.network, joined(recipe.merge_at)
        try:
            if isinstance(network, CalibratingSiamese):
                split = network.split
            else:
                example = torch.zeros(2, 3, self._size, self._size)
                example = example.to(next(network.parameters()).device)
                split = split_network(
                    network.backbone,  # type: ignore[arg-type]
                    merge_at,
                    example_inputs=example,
                    verify=not_yet_proved(recipe),
                    mechanism="fx",
                )
                proved(recipe)
        except MergePointError as error:
            raise ConfigError(f"freeze_pre needs a cut by torch.fx: {error}") from error
        if split.mechanism in ("hook", "output"):
            raise ConfigError(
                f"freeze_pre needs a cut by torch.fx inside the network, but {merge_at!r} was cut "
                f"by {split.mechanism!r}. Choose another merge point or freeze_pre=0."
            )
        return split

    def _freeze(self) -> list[str]:
        """Switch off the gradients of all parameters that act before the merge only; their names.

        Which they are is asked of autograd, so that it holds for parameters outside modules too.
        """
        named = dict(self.network.named_parameters())
        images = torch.rand(2, 3, self._size, self._size, device=next(iter(named.values())).device)
        index = torch.arange(2, device=images.device)
        asked = {name: parameter.requires_grad for name, parameter in named.items()}
        self.network.requires_grad_(True)  # what was frozen before belongs to a part all the same
        try:
            with in_mode(self.network, False), torch.enable_grad():
                before = _reached(self.split.pre(images).tensors, named)
                rows = self.pack(images).clone()
                after = _reached(self(rows, rows, index), named)
        finally:
            for name, parameter in named.items():
                parameter.requires_grad_(asked[name])
        both = sorted(before & after)
        if both:
            raise ConfigError(
                f"freeze_pre keeps what lies before {self.split.merge_at!r}, but "
                f"{', '.join(both[:3])} acts on both sides of it; use freeze_pre=0."
            )
        if not after:
            raise ConfigError(f"Nothing is left to train behind {self.split.merge_at!r}.")
        for name in before:
            named[name].requires_grad_(False)
        return sorted(before)

    def _unpacked(self, rows: Tensor) -> Features:
        # What else crosses, sizes and constants, doesn't depend on the images, but on their number.
        count = len(rows) if self.split.passed else 1
        if count not in self._passed:
            images = torch.zeros(count, 3, self._size, self._size, device=rows.device)
            with torch.no_grad(), in_mode(self.network, False):
                self._passed[count] = self.split.pre(images).with_tensors(())
        return self._passed[count].with_tensors(self._tensors(rows))

    def _tensors(self, rows: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            layout.from_rows(part, shape)
            for layout, part, shape in zip(
                self.layouts, rows.split(self.widths, 1), self.split.shapes, strict=True
            )
        )


class _Pack(nn.Module):
    """`Behind.pack` as a module of its own, whose parts a trace can see."""

    def __init__(self, behind: Behind) -> None:
        super().__init__()
        self.network = behind.network
        self._behind = [behind]

    def forward(self, images: Tensor) -> Tensor:
        (behind,) = self._behind
        return behind.rows(images)


@dataclass(frozen=True)
class KeptFeatures:
    """Features of the frames of a face set, memory-mapped.

    Attributes:
        values: (1 + K, N, width) float32: of the frames as they are, then of K augmented copies.
            With `rows` (K, R, width): of the copies of those frames only.
        rows: (R,) rows of the face set, ascending; None is all.
    """

    values: np.ndarray
    rows: np.ndarray | None = None

    def take(self, rows: np.ndarray, copies: np.ndarray | int = 0) -> Tensor:
        """(B, width) of some frames; copy 0 is the frame itself."""
        if self.rows is None:
            return torch.from_numpy(self.values[copies, rows])
        return torch.from_numpy(self.values[copies - 1, np.searchsorted(self.rows, rows)])


def keep_features(behind: Behind, faces: FaceSet, recipe: Recipe, copies: int) -> KeptFeatures:
    """Features of all frames and of their augmented copies, from the cache or computed now.

    An interrupted computation goes on where it stopped. The cache is named by what is in it: the
    crops, the frozen weights and what they make of a test image, the merge point, the augmentation.

    Args:
        behind: The network.
        faces: The face set.
        recipe: Its augmentation and target noise are those of the copies.
        copies: K; 0 keeps the frames as they are only.
    """
    every = np.arange(len(faces))
    wanted = np.repeat(np.arange(1 + copies), len(every)), np.tile(every, 1 + copies)
    noise = recipe.target_noise if copies and recipe.target_noise.changes_images else None
    facts = [copies, *([to_dict(noise)] if noise else [])]
    values = _kept(behind, faces, recipe, wanted, facts, noise, TARGETS if noise else 0)
    return KeptFeatures(values.reshape(1 + copies, len(every), behind.width))


def keep_reference_features(
    behind: Behind, faces: FaceSet, recipe: Recipe, rows: np.ndarray
) -> KeptFeatures:
    """Features of K copies with reference noise, of every frame that serves as a reference.

    Args:
        behind: The network.
        faces: The face set.
        recipe: K (`freeze_pre`), augmentation and noise.
        rows: Training rows; theirs are the references and what stands in for them.
    """
    how, copies = recipe.reference_noise, recipe.freeze_pre
    own = np.unique(faces.reference_rows[rows])
    if how.active:
        own = np.union1d(own, StandIns(how, faces, rows).rows)
    wanted = np.repeat(np.arange(1, 1 + copies), len(own)), np.tile(own, copies)
    facts = [copies, to_dict(how), own.tolist()]
    noise = how if how.changes_images else None
    values = _kept(behind, faces, recipe, wanted, facts, noise, REFERENCES)
    return KeptFeatures(values.reshape(copies, len(own), behind.width), own)


def _kept(
    behind: Behind,
    faces: FaceSet,
    recipe: Recipe,
    wanted: tuple[np.ndarray, np.ndarray],
    facts: list[Any],
    noise: Noise | None,
    stream: int,
) -> np.memmap:
    """(M, width) features of copies and rows, from the cache named by `facts` or computed now."""
    folder = cache_dir() / "features" / _key(behind, faces, recipe, facts)
    images = partial(copies_of, faces, how=recipe.augmentation, noise=noise, stream=stream)
    device = next(behind.parameters()).device
    step = _BATCH.get(device.type, _BATCH["cuda"])
    total = len(wanted[0])

    @cache  # made when the first rows are missing
    def pack() -> Callable[[Tensor], Tensor]:
        return behind.packer(step) if total > _WORTH_FUSING else behind.pack

    def compute(places: np.ndarray) -> np.ndarray:
        copies, rows = (part[places] for part in wanted)
        return pack()(images(rows=rows, copies=copies).to(device)).cpu().numpy()

    return kept_rows(folder, (total, behind.width), step, compute)


def _key(behind: Behind, faces: FaceSet, recipe: Recipe, told: list[Any]) -> str:
    state = behind.network.state_dict()
    test = torch.rand(1, 3, behind._size, behind._size, generator=torch.Generator().manual_seed(0))
    seen = behind.pack(test.to(next(behind.parameters()).device)).cpu()
    facts = [
        _FORMAT,
        [faces.crops_digest, len(faces)],
        to_dict(faces.preprocessing),
        behind.split.merge_at,
        # Rounded: threads and libraries add in another order.
        checksum_of_tensors({name: state[name] for name in behind.frozen}),
        [round(float(v), 2) for v in (seen.mean(), seen.std())],
        [told[0], to_dict(recipe.augmentation) if told[0] else None, *told[1:]],
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]


def _known(split: Split) -> list[BatchLayout]:
    layouts = [layout for layout in split.layouts if layout is not None]
    if len(layouts) != len(split.layouts):
        raise ConfigError(
            f"At {split.merge_at!r} the samples of a batch can't be told apart in the features, so "
            "they can't be kept; use freeze_pre=0."
        )
    return layouts


def _reached(output: Any, named: dict[str, nn.Parameter]) -> set[str]:
    """Names of the parameters that the output depends on."""
    tensors = [t for t in pytree.tree_leaves(output) if isinstance(t, Tensor) and t.requires_grad]
    if not tensors:
        return set()
    total = sum(t.float().sum() for t in tensors)
    grads = torch.autograd.grad(total, list(named.values()), allow_unused=True)  # type: ignore[arg-type]
    return {n for n, grad in zip(named, grads, strict=True) if grad is not None}
