"""dlib's face recognition network: a second start that knows faces and no action unit.

29 convolutions after ResNet-34 with half the filters, trained by Davis E. King to tell 7,485 people
apart. The architecture follows dlib's example program dnn_face_recognition_ex.cpp. The weights are
CC0 1.0 and come with siamcal in eight bits, by which faces are compared
(`siamcal/faces/descriptor.py`); to train on, they are read from dlib's own file
(`siamcal/model/dlib_file.py`).
"""

from __future__ import annotations

import torch.nn.functional as F
from siamcal.backbones.face_trunk import Head
from torch import Tensor, nn

from siamcal.graph.inputs import InputSpec
from siamcal.model.dlib_file import BLOCKS, MEAN, SIZE, found_file
from siamcal.model.weights import load_face_weights
from siamcal.registry import backbones

__all__ = ["DlibDescriptor", "DlibTrunk"]

STEM = 32
WIDTHS = (32, 64, 128, 256, 256)
# dlib subtracts the mean from 0-255 and divides by 256.
INPUT = InputSpec((3, SIZE, SIZE), tuple(m / 255 for m in MEAN), (256 / 255,) * 3)


class Block(nn.Module):
    """Two convolutions beside the identity, or at half the resolution beside its mean of 2 x 2.

    dlib adds maps of different sizes as if the smaller one went on with zeros: new channels of the
    identity are zero, and where the side is even the convolutions lack a last row and column.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        halved: Half the resolution.
    """

    def __init__(self, inputs: int, outputs: int, halved: bool = False) -> None:
        super().__init__()
        self.new, self.halved = outputs - inputs, halved
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 2 if halved else 1, padding=0 if halved else 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W), or H/2, W/2."""
        out = self.conv2(F.relu(self.conv1(x)))
        if self.halved:
            x = F.pad(F.avg_pool2d(x, 2), (0, 0, 0, 0, 0, self.new))
            out = F.pad(out, (0, x.shape[3] - out.shape[3], 0, x.shape[2] - out.shape[2]))
        return F.relu(out + x)


def _stages(network: nn.Module, count: int) -> None:
    """Give a network the first convolution and `layer1` to `layer<count>`."""
    network.conv1 = nn.Conv2d(3, STEM, 7, 2)
    inputs = STEM
    for number in range(count):
        outputs = WIDTHS[number]
        first = Block(inputs, outputs, halved=number > 0)
        others = (Block(outputs, outputs) for _ in range(BLOCKS[number] - 1))
        setattr(network, f"layer{number + 1}", nn.Sequential(first, *others))
        inputs = outputs


class DlibTrunk(nn.Module):
    """The first three stages and a small head: what is trained for action units.

    Images are (B, 3, 150, 150), normalised as `siamcal_input` says. The map behind `layer3` has as
    many places and channels as face_trunk's, and the head is the same.

    Args:
        num_outputs: Size of the output.
        width: Channels of the head.
        dropout: Probability of dropping a value before the last layer.
    """

    siamcal_sweep = ("layer2", "layer3", "head", "head.conv2", "head.fc", "output")
    siamcal_input = INPUT
    siamcal_head = "head"  # new in every task: start weights hold the stages

    def __init__(self, num_outputs: int = 72, width: int = 96, dropout: float = 0.4) -> None:
        super().__init__()
        _stages(self, 3)
        self.head = Head(WIDTHS[2], width, 8, num_outputs, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Image (B, 3, 150, 150) -> outputs (B, num_outputs)."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 3, 2)  # (B, 32, 35, 35)
        x = self.layer1(x)  # (B, 32, 35, 35)
        x = self.layer2(x)  # (B, 64, 17, 17)
        x = self.layer3(x)  # (B, 128, 8, 8)
        return self.head(x)


class DlibDescriptor(nn.Module):
    """The whole network; with dlib's weights its 128 outputs are dlib's face descriptor.

    Two faces are one person's where their descriptors lie nearer than .6 (dlib's documentation).

    Args:
        num_outputs: Size of the output.
    """

    siamcal_sweep = ("layer2", "layer3", "layer4", "layer5", "fc", "output")
    siamcal_input = INPUT
    siamcal_head = "fc"

    def __init__(self, num_outputs: int = 128) -> None:
        super().__init__()
        _stages(self, 5)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(WIDTHS[4], num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Image (B, 3, 150, 150) -> outputs (B, num_outputs)."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 3, 2)  # (B, 32, 35, 35)
        x = self.layer3(self.layer2(self.layer1(x)))  # (B, 128, 8, 8)
        x = self.layer5(self.layer4(x))  # (B, 256, 2, 2), between them 4 x 4
        return self.fc(self.pool(x).flatten(1))


@backbones.register("dlib_trunk")
def dlib_trunk(
    num_outputs: int = 72, width: int = 96, dropout: float = 0.4, pretrained: bool = False
) -> DlibTrunk:
    """Three stages of dlib's face recognition network (CC0) and a small head, 150 px."""
    network = DlibTrunk(num_outputs, width, dropout)
    if pretrained:
        load_face_weights(network, found_file())
    return network


@backbones.register("dlib_descriptor")
def dlib_descriptor(num_outputs: int = 128, pretrained: bool = False) -> DlibDescriptor:
    """The whole of dlib's face recognition network (CC0; 128 outputs: its descriptor), 150 px."""
    network = DlibDescriptor(num_outputs)
    if pretrained:
        load_face_weights(network, found_file())
    return network
