"""The networks of MediaPipe's task file as torch modules: landmarks and expression coefficients.

Weights are taken over unchanged (`scripts/build_face_trunk.py`; Google, Apache-2.0). Modules are
declared in the order in which the originals run, which is how the script names their weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["INPUT_SIZE", "WIDTHS", "Alignment", "Blendshapes", "Landmarks", "Trunk"]

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
    """The block at a stage's entrance: half the resolution, twice the channels or as many.

    Args:
        inputs: Channels in.
        outputs: Channels out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = outputs // 2
        self.new = outputs - inputs
        self.reduce = nn.Conv2d(inputs, middle, 2, stride=2)
        self.prelu1 = nn.PReLU(middle)
        self.depthwise = nn.Conv2d(middle, middle, 3, padding=1, groups=middle)
        self.expand = nn.Conv2d(middle, outputs, 1)
        self.pool = nn.MaxPool2d(2)
        self.prelu2 = nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H/2, W/2)."""
        out = self.expand(self.depthwise(self.prelu1(self.reduce(x))))
        identity = self.pool(x)
        if self.new:  # these channels are zero
            identity = F.pad(identity, (0, 0, 0, 0, 0, self.new))
        return self.prelu2(out + identity)


class Stem(nn.Module):
    """3x3 with stride 2, padded at the right and below only, as TensorFlow's "same" does."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, stride=2)
        self.prelu = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, C, S/2, S/2)."""
        return self.prelu(self.conv(F.pad(x, (0, 1, 0, 1))))


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(Halving(inputs, outputs), *(Bottleneck(outputs) for _ in range(BLOCKS)))


class Trunk(nn.Module):
    """The landmark network up to its map of 16 x 16 x 128; a base class.

    Attributes:
        reads_coefficients: Whether `crossing` asks for expression coefficients.
    """

    reads_coefficients = False

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem(WIDTHS[0])
        self.stage1 = nn.Sequential(*(Bottleneck(WIDTHS[0]) for _ in range(BLOCKS)))
        self.stage2 = _stage(WIDTHS[0], WIDTHS[1])
        self.stage3 = _stage(WIDTHS[1], WIDTHS[2])
        self.stage4 = _stage(WIDTHS[2], WIDTHS[3])

    def trunk(self, x: Tensor) -> Tensor:
        """Image (B, 3, 256, 256), RGB in [0, 1] -> the landmark network's map (B, 128, 16, 16)."""
        x = self.stage1(self.stem(x))  # (B, 16, 128, 128)
        x = self.stage2(x)  # (B, 32, 64, 64)
        x = self.stage3(x)  # (B, 64, 32, 32)
        return self.stage4(x)  # (B, 128, 16, 16)

    def crossing(
        self, features: Tensor, points: Tensor, coefficients: Tensor | None
    ) -> tuple[Tensor, ...]:
        """What enters `head`, where another engine has run the landmark network.

        Args:
            features: (B, 128, 16, 16), see `trunk`.
            points: (B, 478, 3), all points in pixels of the image.
            coefficients: (B, 52) of these points, see `Blendshapes`, where it
                `reads_coefficients`.
        """
        raise NotImplementedError


class Landmarks(nn.Module):
    """The rest of the landmark network: from the trunk's map to points.

    Args:
        count: Points; all are 478.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        width = WIDTHS[-1]
        self.stage5, self.stage6, self.stage7 = (_stage(width, width) for _ in range(3))
        self.points = nn.Conv2d(width, 3 * count, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 128, 16, 16) -> points (B, count, 3) in pixels of the image."""
        return (
            self.points(self.stage7(self.stage6(self.stage5(x)))).flatten(1).unflatten(1, (-1, 3))
        )


class Mixer(nn.Module):
    """One block of the coefficients' network: mixes tokens, then channels."""

    def __init__(self, tokens: int, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6, bias=False)
        self.token1, self.token2 = nn.Linear(tokens, 384), nn.Linear(384, tokens)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6, bias=False)
        self.channel1, self.channel2 = nn.Linear(channels, 256), nn.Linear(256, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, tokens, channels), shape kept."""
        x = x + self.token2(F.relu(self.token1(self.norm1(x).mT))).mT
        return x + self.channel2(F.relu(self.channel1(self.norm2(x))))


class Blendshapes(nn.Module):
    """Expression coefficients from points, as MediaPipe's second network reads them.

    Args:
        points: How many it reads.
    """

    def __init__(self, points: int = 146) -> None:
        super().__init__()
        self.tokens, self.embed = nn.Linear(points, 96), nn.Linear(2, 64)
        self.extra = nn.Embedding(1, 64)  # the token that the coefficients are read from
        self.blocks = nn.Sequential(*(Mixer(97, 64) for _ in range(4)))
        self.read = nn.Linear(64, 52)

    def forward(self, points: Tensor) -> Tensor:
        """Points (B, 146, 2); place and size don't matter -> 52 coefficients in [0, 1]."""
        points = points - points.mean(1, keepdim=True)
        points = points / (2 * points.norm(dim=2, keepdim=True).mean(1, keepdim=True))
        x = self.embed(self.tokens(points.mT).mT)  # (B, 96, 64)
        x = self.blocks(torch.cat([self.extra.weight.expand(len(x), 1, -1), x], 1))
        return torch.sigmoid(self.read(x[:, 0]))


class Alignment(nn.Module):
    """Turns, scales and shifts points so that those no action moves lie where they always do.

    Orthogonal Procrustes analysis in three dimensions; the turn is the polar factor of the points'
    covariance, by Newton-Schulz steps (N. J. Higham, Functions of Matrices, 2008, section 8.3):
    products of small matrices only, which any exporter and compiler knows.

    Args:
        rigid: Places of the points that no action moves.
        goal: (len(rigid), 3), where they belong.
    """

    STEPS = 16  # from singular values of a thousandth on

    def __init__(self, rigid: Sequence[int], goal: Tensor) -> None:
        super().__init__()
        self.register_buffer("rigid", torch.tensor(rigid), persistent=False)
        self.register_buffer("goal", goal - goal.mean(0), persistent=False)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Points (B, N, 3) in any unit -> aligned, in the goal's unit; and the turn (B, 3, 3)."""
        still = points.index_select(1, self.rigid)
        middle = still.mean(1, keepdim=True)
        still = still - middle
        size = still.square().sum((1, 2), keepdim=True)
        covariance = still.mT @ self.goal.to(points.dtype)  # (B, 3, 3)
        turn = covariance / covariance.square().sum((1, 2), keepdim=True).sqrt()
        for _ in range(self.STEPS):
            turn = 1.5 * turn - 0.5 * turn @ turn.mT @ turn
        scale = (covariance * turn).sum((1, 2), keepdim=True) / size
        return (points - middle) @ turn * scale, turn
