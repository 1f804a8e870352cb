"""iResNet, the network of InsightFace's face recognition, in its names and shapes.

Source: github.com/deepinsight/insightface, recognition/arcface_torch/backbones/iresnet.py (names
and shapes of the state dict only). For action units the last BatchNorm1d (`features`) is dropped
and `fc` reads the flattened map into the outputs, as in arXiv:2409.00240.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from siamcal.errors import ConfigError
from siamcal.graph.inputs import InputSpec
from siamcal.registry import backbones

__all__ = ["IResNet"]


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class Block(nn.Module):
    """Pre-activated residual block: bn-conv-bn-prelu-conv-bn + identity, nothing after the sum.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        stride: Stride of the second convolution and of the projected shortcut.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs, eps=1e-5)
        self.conv1 = _conv(inputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs, eps=1e-5)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = _conv(outputs, outputs, 3, stride)
        self.bn3 = nn.BatchNorm2d(outputs, eps=1e-5)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                _conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs, eps=1e-5)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        out = self.conv1(self.bn1(x))
        out = self.bn3(self.conv2(self.prelu(self.bn2(out))))
        identity = x if self.downsample is None else self.downsample(x)
        return out + identity


class IResNet(nn.Module):
    """iResNet with one linear layer on its flattened last map.

    Args:
        layers: Blocks of the four stages.
        widths: Channels of the stem and of the four stages.
        stem_stride: Stride of the first convolution; InsightFace's networks have 1.
        input_size: Side of the square input in pixels.
        num_outputs: Outputs of `fc`.
        dropout: Probability of dropping a value before `fc`.

    Raises:
        ConfigError: Wrong number of stages, or an input that is smaller than the strides.
    """

    # The paper's merge points, for `siamcal bench --merge-at all`.
    siamcal_sweep = ("layer1", "layer2", "layer3", "layer4", "fc", "output")

    def __init__(
        self,
        layers: Sequence[int],
        widths: Sequence[int] = (64, 64, 128, 256, 512),
        stem_stride: int = 1,
        input_size: int = 112,
        num_outputs: int = 512,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if len(layers) != 4 or len(widths) != 5:
            raise ConfigError(
                f"IResNet has a stem and four stages, but got layers={tuple(layers)} and "
                f"widths={tuple(widths)}; give four layers and five widths."
            )
        side = _halved(input_size if stem_stride == 1 else -(-input_size // stem_stride))
        self.siamcal_input = InputSpec((3, input_size, input_size))
        self.conv1 = _conv(3, widths[0], 3, stem_stride)
        self.bn1 = nn.BatchNorm2d(widths[0], eps=1e-5)
        self.prelu = nn.PReLU(widths[0])
        self.layer1 = _stage(widths[0], widths[1], layers[0])
        self.layer2 = _stage(widths[1], widths[2], layers[1])
        self.layer3 = _stage(widths[2], widths[3], layers[2])
        self.layer4 = _stage(widths[3], widths[4], layers[3])
        self.bn2 = nn.BatchNorm2d(widths[4], eps=1e-5)
        self.dropout = nn.Dropout(p=dropout)
        self.fc = nn.Linear(widths[4] * side * side, num_outputs)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Image (B, 3, S, S) -> outputs (B, num_outputs)."""
        x = self.prelu(self.bn1(self.conv1(x)))  # (B, 64, S, S)
        x = self.layer1(x)  # (B, 64, S/2, S/2)
        x = self.layer2(x)  # (B, 128, S/4, S/4)
        x = self.layer3(x)  # (B, 256, S/8, S/8)
        x = self.layer4(x)  # (B, 512, S/16, S/16)
        x = torch.flatten(self.bn2(x), 1)  # (B, 512 * (S/16)^2)
        return self.fc(self.dropout(x))


def _halved(size: int) -> int:
    for _ in range(4):
        size = -(-size // 2)
    return size


def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(
        Block(inputs, outputs, 2), *(Block(outputs, outputs) for _ in range(blocks - 1))
    )


def _initialise(network: nn.Module) -> None:
    """InsightFace's start: convolutions from N(0, 0.1); BatchNorm is the identity."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0, 0.1)


@backbones.register("ir18")
def ir18(num_outputs: int = 512, **options: Any) -> IResNet:
    """IResNet-18 of InsightFace, 112 px."""
    return IResNet((2, 2, 2, 2), num_outputs=num_outputs, **options)


@backbones.register("ir34")
def ir34(num_outputs: int = 512, **options: Any) -> IResNet:
    """IResNet-34 of InsightFace, 112 px."""
    return IResNet((3, 4, 6, 3), num_outputs=num_outputs, **options)


@backbones.register("ir50")
def ir50(num_outputs: int = 512, **options: Any) -> IResNet:
    """IResNet-50 of InsightFace, 112 px: the paper's backbone."""
    return IResNet((3, 4, 14, 3), num_outputs=num_outputs, **options)


@backbones.register("ir100")
def ir100(num_outputs: int = 512, **options: Any) -> IResNet:
    """IResNet-100 of InsightFace, 112 px."""
    return IResNet((3, 13, 30, 3), num_outputs=num_outputs, **options)


@backbones.register("ir_tiny")
def ir_tiny(num_outputs: int = 512, **options: Any) -> IResNet:
    """Small iResNet for the embedded job, 112 px: trains on a CPU in minutes."""
    settings: dict[str, Any] = {"widths": (12, 16, 32, 64, 128), "stem_stride": 2}
    return IResNet((1, 1, 1, 1), num_outputs=num_outputs, **{**settings, **options})
