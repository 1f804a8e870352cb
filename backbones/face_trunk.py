"""A small network that knows faces and no action unit: the trunk of MediaPipe's landmark network.

Face Mesh was trained on real faces to find 478 points; its convolutions up to 16 x 16 x 128 are
taken unchanged (`scripts/build_face_trunk.py`, weights `asset:face_trunk`, Apache-2.0). It is the
small counterpart of ir50 with glint360k's face recognition: what the paper starts from, too, is a
network that knows faces (arXiv:2409.00240, section IV).
"""

from __future__ import annotations

from siamcal.backbones._landmark_network import INPUT_SIZE, WIDTHS, Trunk
from torch import Tensor, nn

from siamcal.graph.inputs import InputSpec
from siamcal.registry import backbones

__all__ = ["FaceTrunk", "Head"]


class Head(nn.Sequential):
    """Two convolutions and a linear layer: what is trained for action units.

    The map is normalised first, so that it may be features or differences of features.

    Args:
        channels: Of the map.
        width: Channels of both convolutions.
        side: Side of the map.
        num_outputs: Size of the output.
        dropout: Probability of dropping a value before the linear layer.
    """

    def __init__(
        self, channels: int, width: int, side: int, num_outputs: int, dropout: float
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.prelu1 = nn.PReLU(width)
        self.dropout1 = nn.Dropout2d(dropout / 4)
        self.conv2 = nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.prelu2 = nn.PReLU(width)
        self.flatten = nn.Flatten()
        self.dropout2 = nn.Dropout(dropout)
        self.fc = nn.Linear(width * (side // 2) ** 2, num_outputs)


class FaceTrunk(Trunk):
    """Stem and four stages of the landmark network, and a small head of its own.

    Images hold RGB in [0, 1], (B, 3, 256, 256), cut by `recipes/face_trunk.py`'s preprocessing.
    Stages lead to 128 x 128 x 16, 64 x 64 x 32, 32 x 32 x 64 and 16 x 16 x 128; `pool` to
    8 x 8 x 128, which `head` reads: the usual place to merge.

    Args:
        num_outputs: Size of the output.
        width: Channels of the head.
        dropout: Probability of dropping a value before the last layer.
    """

    siamcal_sweep = ("stage3", "stage4", "pool", "head", "head.conv2", "head.fc", "output")
    siamcal_input = InputSpec((3, INPUT_SIZE, INPUT_SIZE))
    siamcal_asset = "face_trunk.safetensors"
    siamcal_head = "head"  # new in every task: start weights hold the trunk

    def __init__(self, num_outputs: int = 72, width: int = 96, dropout: float = 0.4) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2)
        self.head = Head(WIDTHS[3], width, INPUT_SIZE // 32, num_outputs, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Image (B, 3, 256, 256) -> outputs (B, num_outputs)."""
        return self.head(self.pool(self.trunk(x)))

    def crossing(
        self, features: Tensor, points: Tensor, coefficients: Tensor | None
    ) -> tuple[Tensor, ...]:
        """See `Trunk.crossing`; only the features are used."""
        return (self.pool(features),)


@backbones.register("face_trunk")
def face_trunk(num_outputs: int = 72, width: int = 96, dropout: float = 0.4) -> FaceTrunk:
    """Trunk of MediaPipe's landmark network (trained on real faces) and a small head, 256 px."""
    return FaceTrunk(num_outputs, width, dropout)
