"""The landmark network read twice: by its features, and by the points and coefficients it finds.

Pixels tell wrinkles and bulges, points tell how far a brow or a lid has gone: on real faces each
reads other action units better, and both together read better than either
(`siamcal bench robustness`, docs/calibrator.md). Points and coefficients come out of the same
network, so `CalibratingSiamese` wraps it as any other: map and geometry cross the merge point.
"""

from __future__ import annotations

import torch
from siamcal.backbones._landmark_network import (
    INPUT_SIZE,
    WIDTHS,
    Alignment,
    Blendshapes,
    Landmarks,
    Trunk,
)
from siamcal.backbones.face_trunk import Head
from torch import Tensor, nn

from siamcal.errors import ConfigError
from siamcal.graph.inputs import InputSpec
from siamcal.registry import backbones

__all__ = ["POINTS", "RIGID", "FaceLandmarks"]

# fmt: off
#: The points that are found, of MediaPipe's 478: those that its coefficients' network reads, and
#: two more that no action moves. Written out, as `siamcal.faces` has them too, because a backbone
#: is built without the packages that find faces; a test holds both together.
READ = (
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66,
    67, 70, 78, 80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144,
    145, 146, 148, 149, 150, 152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173,
    176, 178, 181, 185, 191, 195, 197, 234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283, 284,
    285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318, 321, 323, 324, 332,
    334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385, 386,
    387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466, 468, 469, 470, 471, 472, 473,
    474, 475, 476, 477,
)
POINTS = (*READ, 98, 327)
#: Of these, what no action moves: corners of the eyes, bridge and tip of the nose, temples.
RIGID = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 1, 98, 327, 10, 127, 356, 234, 454)
# Where they lie in MediaPipe's canonical face, in distances of the outer eye corners; x to the
# right, y down, z away from the camera.
PLACES = (
    (-0.5000, -0.1202, 0.0578),
    (-0.2088, -0.1113, -0.0080),
    (0.2088, -0.1113, -0.0080),
    (0.5000, -0.1202, 0.0578),
    (0.0000, -0.1885, -0.1742),
    (0.0000, -0.0987, -0.2364),
    (0.0000, -0.0150, -0.2958),
    (0.0000, 0.0603, -0.3472),
    (0.0000, 0.1383, -0.3999),
    (0.0000, 0.2315, -0.4386),
    (0.0000, 0.3061, -0.4261),
    (-0.1581, 0.3722, -0.1748),
    (0.1581, 0.3722, -0.1748),
    (0.0000, -0.7497, -0.0894),
    (-0.8708, -0.0866, 0.6402),
    (0.8708, -0.0866, 0.6402),
    (-0.8619, 0.1037, 0.6886),
    (0.8619, 0.1037, 0.6886),
)
# fmt: on


#: Directions in which faces move, of those that the aligned points could go (`motions`).
MOTIONS = 80
REST = 52 + 9  # coefficients and the turn


class Geometry(nn.Module):
    """Points in pixels -> what they tell of the face: where they lie, coefficients, turn.

    Args:
        motions: Tell the aligned points by how far they went in each of `MOTIONS` directions, in
            which people's faces differ from their rest equally far (`scripts/fit_motions.py`);
            False tells all coordinates. Those of neighbours are nearly the same, and what a small
            action moves is lost among them.

    Attributes:
        width: Of what it tells.
    """

    def __init__(self, motions: bool = False) -> None:
        super().__init__()
        self.blendshapes = Blendshapes(len(READ))
        self.align = Alignment([POINTS.index(p) for p in RIGID], torch.tensor(PLACES))
        shape = 3 * len(READ)
        self.motions = nn.Linear(shape, MOTIONS, bias=False) if motions else nn.Identity()
        self.width = (MOTIONS if motions else shape) + REST

    def forward(self, points: Tensor) -> Tensor:
        """Points (B, P, 3) -> (B, width)."""
        return self.told(points, self.blendshapes(points[:, : len(READ), :2]))

    def told(self, points: Tensor, coefficients: Tensor) -> Tensor:
        """The same with coefficients (B, 52) that are known."""
        shape, turn = self.shape(points)
        return torch.cat([self.motions(shape), 4 * coefficients, turn.flatten(1)], 1)

    def shape(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Aligned points (B, 3 * len(READ)) in tenths of the eye distance, turn (B, 3, 3)."""
        aligned, turn = self.align(points)
        return 10 * aligned[:, : len(READ)].flatten(1), turn


class GeometryHead(nn.Sequential):
    """Three linear layers on the geometry.

    Args:
        width: Values that come in.
        hidden: Width of the second layer; the first is twice as wide.
        num_outputs: Size of the output.
        dropout: Probability of dropping a value behind the first layer, half of it the second.
    """

    def __init__(self, width: int, hidden: int, num_outputs: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.fc1 = nn.Linear(width, 2 * hidden)
        self.bn1 = nn.BatchNorm1d(2 * hidden)
        self.prelu1 = nn.PReLU(2 * hidden)
        self.dropout1 = nn.Dropout(dropout)
        self.fc2 = nn.Linear(2 * hidden, hidden)
        self.bn2 = nn.BatchNorm1d(hidden)
        self.prelu2 = nn.PReLU(hidden)
        self.dropout2 = nn.Dropout(dropout / 2)
        self.fc = nn.Linear(hidden, num_outputs)


class BothHead(nn.Module):
    """The mean of what a head on the map and a head on the geometry read.

    In training one of them reads alone at times, so that each learns to: always together, the
    geometry becomes a mere correction of the map.

    Args:
        width: Channels of the head on the map.
        told: Width of the geometry.
        hidden: Of the head on the geometry.
        num_outputs: Size of the output.
        dropout: Of both heads.
        left_out: Probability of leaving out the one, and as much of leaving out the other.
    """

    def __init__(
        self,
        width: int,
        told: int,
        hidden: int,
        num_outputs: int,
        dropout: float,
        left_out: float,
    ) -> None:
        super().__init__()
        self.map = Head(WIDTHS[3], width, INPUT_SIZE // 32, num_outputs, dropout)
        self.geometry = GeometryHead(told, hidden, num_outputs, dropout)
        self.mix = LeftOut(left_out)

    def forward(self, features: Tensor, geometry: Tensor) -> Tensor:
        """Map (B, 128, 8, 8) and geometry (B, told) -> outputs (B, num_outputs)."""
        return self.mix(self.map(features), self.geometry(geometry))


class LeftOut(nn.Module):
    """The mean of two readings; in training, sample by sample, one of them alone.

    Args:
        probability: Of the first alone, and of the second alone; at most .5.

    Raises:
        ConfigError: It is another number.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0 <= probability <= 0.5:
            raise ConfigError(f"left_out is {probability}; allowed: 0 to 0.5.")
        self.probability = probability

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two of (B, N) -> (B, N)."""
        if not self.training:
            return (first + second) / 2
        drawn = torch.rand_like(first[:, :1])
        alone = (drawn < self.probability).to(first) - (drawn > 1 - self.probability).to(first)
        return (first + second + alone * (first - second)) / 2


class FaceLandmarks(Trunk):
    """MediaPipe's landmark and coefficient networks, and a head on the map and the geometry.

    Images are those of `FaceTrunk`: RGB in [0, 1], (B, 3, 256, 256). The usual place to merge is
    `head`, where two tensors cross: the map (B, 128, 8, 8), and (B, 499) with 146 aligned points
    (x, y, z), 52 expression coefficients and the turn of the head; with `motions` (B, 141).

    Args:
        num_outputs: Size of the output.
        width: Channels of the head on the map.
        hidden: Of the head on the geometry.
        dropout: Of both heads.
        left_out: Probability in training of leaving out the reading of the one, and as much of the
            other, 0 to 0.5.
        motions: Tell the points by the directions in which faces move; see `Geometry`.
    """

    siamcal_sweep = ("head", "output")
    siamcal_input = InputSpec((3, INPUT_SIZE, INPUT_SIZE))
    siamcal_asset = "face_landmarks.safetensors"
    siamcal_head = "head"  # new in every task: start weights hold the rest
    reads_coefficients = True

    def __init__(
        self,
        num_outputs: int = 72,
        width: int = 96,
        hidden: int = 128,
        dropout: float = 0.4,
        left_out: float = 0.2,
        motions: bool = False,
    ) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2)
        self.landmarks = Landmarks(len(POINTS))
        self.geometry = Geometry(motions)
        told = self.geometry.width
        self.head = BothHead(width, told, hidden, num_outputs, dropout, left_out)

    def forward(self, x: Tensor) -> Tensor:
        """Image (B, 3, 256, 256) -> outputs (B, num_outputs)."""
        features = self.trunk(x)
        return self.head(self.pool(features), self.geometry(self.landmarks(features)))

    def crossing(
        self, features: Tensor, points: Tensor, coefficients: Tensor | None
    ) -> tuple[Tensor, ...]:
        """See `Trunk.crossing`."""
        assert coefficients is not None
        return self.pool(features), self.geometry.told(points[:, POINTS], coefficients)


@backbones.register("face_landmarks")
def face_landmarks(
    num_outputs: int = 72,
    width: int = 96,
    hidden: int = 128,
    dropout: float = 0.4,
    left_out: float = 0.2,
    motions: bool = False,
) -> FaceLandmarks:
    """MediaPipe's landmark network read by its features, points and coefficients, 256 px."""
    return FaceLandmarks(num_outputs, width, hidden, dropout, left_out, motions)
