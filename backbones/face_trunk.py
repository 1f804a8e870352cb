"""A small network that knows faces and no action unit: the trunk of MediaPipe's landmark network.

Face Mesh was trained on real faces to find 478 points; its convolutions up to 16 x 16 x 128 are
taken unchanged (`scripts/build_face_trunk.py`, weights `asset:face_trunk`, Apache-2.0). It is the
small counterpart of ir50 with glint360k's face recognition: what the paper starts from, too, is a
network that knows faces (arXiv:2409.00240, section IV).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from siamcal.graph.inputs import InputSpec
from siamcal.registry import backbones

__all__ = ["FaceTrunk"]

INPUT_SIZE = 256  # the landmark network's
WIDTHS = (16, 32, 64, 128)
BLOCKS = 4  # of each stage, beside the one that halves the resolution


class Bottleneck(nn.Module):
    """1x1 down to half the channels, 3x3 for each channel, 1x1 up again, beside the identity.

    Args:
        channels: In and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // 2, 1)
        self.prelu1 = nn.PReLU(channels // 2)
        self.depthwise = nn.Conv2d(channels // 2, channels // 2, 3, padding=1, groups=channels // 2)
        self.expand = nn.Conv2d(channels // 2, channels, 1)
        self.prelu2 = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return self.prelu2(x + self.expand(self.depthwise(self.prelu1(self.reduce(x)))))


class Halving(nn.Module):
    """The block at a stage's entrance: half the resolution, twice the channels.

    Args:
        inputs: Channels in; 2 * inputs come out.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(inputs, inputs, 2, stride=2)
        self.prelu1 = nn.PReLU(inputs)
        self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs)
        self.expand = nn.Conv2d(inputs, 2 * inputs, 1)
        self.pool = nn.MaxPool2d(2)
        self.prelu2 = nn.PReLU(2 * inputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 2C, H/2, W/2)."""
        out = self.expand(self.depthwise(self.prelu1(self.reduce(x))))
        identity = self.pool(x)  # its new channels are zero
        return self.prelu2(out + F.pad(identity, (0, 0, 0, 0, 0, identity.shape[1])))


class Stem(nn.Module):
    """3x3 with stride 2, padded at the right and below only, as TensorFlow's "same" does."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, stride=2)
        self.prelu = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, C, S/2, S/2)."""
        return self.prelu(self.conv(F.pad(x, (0, 1, 0, 1))))


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


class FaceTrunk(nn.Module):
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
    siamcal_head = "head"  # new in every task: start weights hold the trunk

    def __init__(self, num_outputs: int = 72, width: int = 96, dropout: float = 0.4) -> None:
        super().__init__()
        self.stem = Stem(WIDTHS[0])
        self.stage1 = nn.Sequential(*(Bottleneck(WIDTHS[0]) for _ in range(BLOCKS)))
        self.stage2 = _stage(WIDTHS[0])
        self.stage3 = _stage(WIDTHS[1])
        self.stage4 = _stage(WIDTHS[2])
        self.pool = nn.AvgPool2d(2)
        self.head = Head(WIDTHS[3], width, INPUT_SIZE // 32, num_outputs, dropout)

    def trunk(self, x: Tensor) -> Tensor:
        """Image (B, 3, 256, 256) -> the landmark network's map (B, 128, 16, 16)."""
        x = self.stage1(self.stem(x))  # (B, 16, 128, 128)
        x = self.stage2(x)  # (B, 32, 64, 64)
        x = self.stage3(x)  # (B, 64, 32, 32)
        return self.stage4(x)  # (B, 128, 16, 16)

    def forward(self, x: Tensor) -> Tensor:
        """Image (B, 3, 256, 256) -> outputs (B, num_outputs)."""
        return self.head(self.pool(self.trunk(x)))


def _stage(inputs: int) -> nn.Sequential:
    return nn.Sequential(Halving(inputs), *(Bottleneck(2 * inputs) for _ in range(BLOCKS)))


@backbones.register("face_trunk")
def face_trunk(num_outputs: int = 72, width: int = 96, dropout: float = 0.4) -> FaceTrunk:
    """Trunk of MediaPipe's landmark network (trained on real faces) and a small head, 256 px."""
    return FaceTrunk(num_outputs, width, dropout)
