"""The landmark network run by LiteRT: features as torch computes them, in a third of the time."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from siamcal.errors import MissingDependencyError
from siamcal.faces._litert import Network
from siamcal.faces.face_mesh import Blendshapes
from siamcal.files import asset
from siamcal.graph import Features
from siamcal.model.weights_file import read_tensors

__all__ = ["SIDE", "LandmarkPass", "LandmarkRun", "landmark_pass"]

_LOG = logging.getLogger(__name__)

SIDE = 256  # of the images, pixels
MAP = (1, 16, 16, 128)
TOLERANCE = 1e-2  # of features of several units; LiteRT adds in another order


@dataclass(frozen=True, eq=False)
class LandmarkRun:
    """What the landmark network tells of one image.

    Attributes:
        points: (478, 3) landmarks in pixels of the image.
        presence: How sure it is that there is a face, in [0, 1].
        features: (16, 16, 128), the end of its trunk.
    """

    points: np.ndarray
    presence: float
    features: np.ndarray


class LandmarkPass:
    """What enters `head` of a backbone that is made of the landmark network.

    `landmark_pass` makes one where nothing else comes out than of the backbone itself.

    Args:
        backbone: `face_trunk` or `face_landmarks`.
    """

    def __init__(self, backbone: nn.Module) -> None:
        self.backbone = cast(Any, backbone)
        self.network = Network("face_landmarks_detector.tflite", beside=MAP)

    def __call__(self, images: np.ndarray, scale: float) -> tuple[Tensor, ...]:
        """Features of images.

        Args:
            images: (B, 256, 256, 3) RGB.
            scale: What makes them [0, 1].
        """
        return self.features([self.run(image, scale) for image in images])

    def run(self, image: np.ndarray, scale: float = 1 / 255) -> LandmarkRun:
        """The network on one image; see `__call__`."""
        points, presence, *_, trunk = self.network(image[None], scale)
        sure = 1 / (1 + math.exp(-float(presence.item())))
        return LandmarkRun(points.reshape(-1, 3), sure, trunk[0])

    def features(self, runs: Sequence[LandmarkRun]) -> tuple[Tensor, ...]:
        """What enters the head, of several runs."""
        maps = torch.from_numpy(np.stack([run.features for run in runs])).permute(0, 3, 1, 2)
        points = torch.from_numpy(np.stack([run.points for run in runs]))
        coefficients = None
        if self.backbone.reads_coefficients:
            read = [self._blendshapes.coefficients(run.points) for run in runs]
            coefficients = torch.from_numpy(np.stack(read))
        return self.backbone.crossing(maps, points, coefficients)

    @cached_property
    def _blendshapes(self) -> Blendshapes:
        """Loaded where features are asked for, not where a face is only followed."""
        return Blendshapes()

    def head(self, tensors: tuple[Tensor, ...]) -> Any:
        """The backbone's output for (merged) features."""
        return self.backbone.head(*tensors)


@torch.inference_mode()
def landmark_pass(
    backbone: nn.Module, merge_at: str, pre: Callable[[Tensor], Features]
) -> LandmarkPass | None:
    """The pass of a backbone, held against it on a random image.

    Args:
        backbone: Any network, on a processor and in evaluation mode.
        merge_at: Its merge point.
        pre: Its first part: images (B, 3, 256, 256), RGB in [0, 1] -> what crosses.

    Returns:
        None where the backbone isn't made of the landmark network, was trained on before the merge
        point, or LiteRT is missing.
    """
    device = next((p.device.type for p in backbone.parameters()), "")
    if not hasattr(backbone, "crossing") or merge_at != "head" or device != "cpu":
        return None
    if not _is_original(backbone):
        _LOG.info("features are computed by torch: the landmark network was trained on")
        return None
    try:
        found = LandmarkPass(backbone)
    except MissingDependencyError:
        return None
    image = np.random.default_rng(0).random((1, SIDE, SIDE, 3), np.float32)
    expected = pre(torch.from_numpy(image).permute(0, 3, 1, 2))
    pairs = zip(found(image, 1.0), expected.tensors, strict=True)
    if expected.passed or not all(torch.allclose(a, b, atol=TOLERANCE) for a, b in pairs):
        _LOG.warning("LiteRT gives other features than torch on this machine; torch is used")
        return None
    return found


def _is_original(backbone: nn.Module) -> bool:
    """Whether all weights before the head are those of the package, to the bit."""
    kept = read_tensors(asset(cast(Any, backbone).siamcal_asset))
    own = {n: p for n, p in backbone.named_parameters() if not n.startswith("head.")}
    return own.keys() <= kept.keys() and all(torch.equal(own[n], kept[n].float()) for n in own)
