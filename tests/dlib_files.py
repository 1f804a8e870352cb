"""Writes small networks in dlib's format, for tests of its reader.

With dlib's own widths, (32, 32, 64, 128, 256, 256) and 128 outputs, dlib 20.0.1 reads them.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

__all__ = ["BLOCKS", "MEAN", "SmallNetwork", "whole"]

BLOCKS = (3, 4, 3, 3, 1)
MEAN = (122.782, 117.001, 104.298)
EMPTY = b"\1\2" + b"\1\0" * 4  # a tensor of version 2 without a value
TRAINING = b"\1\1\1\0" * 4  # four numbers, each 1 = 1 * 2^0


def whole(value: int) -> bytes:
    """A byte with the number of bytes and the sign, then the absolute value, lowest byte first."""
    size = max(1, (abs(value).bit_length() + 7) // 8)
    return bytes([size | (0x80 if value < 0 else 0)]) + abs(value).to_bytes(size, "little")


def wholes(*values: int) -> bytes:
    return b"".join(map(whole, values))


def real(value: float) -> bytes:
    """Mantissa of 24 bits and exponent, as of a float."""
    mantissa, exponent = math.frexp(np.float32(value))
    return wholes(int(mantissa * 2**24), exponent - 24)


def text(value: str) -> bytes:
    return whole(len(value)) + value.encode()


def tensor(values: np.ndarray) -> bytes:
    sizes = (1, values.size, 1, 1)
    return wholes(2, *sizes) + struct.pack(f"<{values.size}f", *values.ravel())


def behind() -> bytes:
    return b"110" + 3 * EMPTY


@dataclass
class SmallNetwork:
    """dlib's face recognition network with few channels and random values.

    Attributes:
        widths: Channels of the first convolution and of the five stages.
        outputs: Of the last layer.
        values: Name -> values as dlib has them, filled by `write`: weight, bias, factor and shift
            of each convolution, and the last layer's (inputs, outputs).
    """

    widths: tuple[int, ...] = (2, 2, 3, 4, 5, 5)
    outputs: int = 6
    values: dict[str, tuple[np.ndarray, ...]] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        self.generator = np.random.default_rng(self.seed)

    def write(self, path: Path) -> Path:
        """Write the file."""
        layers = [self.convolution("conv1", 3, self.widths[0], 7, 2, 0)]
        layers += [text("relu_") + behind(), self.pool("max_pool_2", 3, 3, 2, 2, 0, 0)]
        for stage, blocks in enumerate(BLOCKS, 1):
            for block in range(blocks):
                layers.append(self.block(stage, block))
        layers += [self.pool("avg_pool_2", 0, 0, 1, 1, 0, 0), self.linear()]
        path.write_bytes(self.head() + b"".join(layers))
        return path

    def head(self) -> bytes:
        """Loss, versions of all layers from the outermost on, the image."""
        image = text("input_rgb_image_sized") + b"".join(map(real, MEAN)) + wholes(150, 150)
        loss = whole(1) + text("loss_metric_2") + real(0.04) + real(0.6)
        versions = [2, 2]  # the last layer and the mean over the map
        for stage, blocks in reversed([*enumerate(BLOCKS, 1)]):
            for block in reversed(range(blocks)):
                halved = stage > 1 and block == 0
                versions += [2, 2, *([2, 1, 1] if halved else []), 2, 2, 2, 2, 2, 1]  # tags: 1
        return loss + wholes(*versions, 2, 2, 2, 3) + image

    def random(self, *shape: int) -> np.ndarray:
        return self.generator.normal(0, 0.5, shape).astype(np.float32)

    def convolution(
        self, name: str, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 1
    ) -> bytes:
        weight, bias = self.random(outputs, inputs, kernel, kernel), self.random(outputs)
        factor, shift = 1 + self.random(outputs), self.random(outputs)
        self.values[name] = (weight, bias, factor, shift)
        content = text("con_4") + tensor(np.concatenate([weight.ravel(), bias]))
        content += wholes(outputs, kernel, kernel, stride, stride, padding, padding)
        content += wholes(1, *weight.shape) + wholes(1, 1, outputs, 1, 1) + TRAINING + behind()
        if name == "conv1":
            content += whole(1)  # images become as many samples
        content += text("affine_") + tensor(np.concatenate([factor, shift]))
        return content + 2 * wholes(1, 1, outputs, 1, 1) + whole(0) + behind()

    def pool(self, name: str, *settings: int) -> bytes:
        return text(name) + wholes(*settings) + behind()

    def block(self, stage: int, block: int) -> bytes:
        outputs, name = self.widths[stage], f"layer{stage}.{block}"
        halved = stage > 1 and block == 0
        inputs = self.widths[stage - 1] if block == 0 else outputs
        first = (2, 0) if halved else (1, 1)
        content = self.convolution(f"{name}.conv1", inputs, outputs, 3, *first)
        content += text("relu_") + behind()
        content += self.convolution(f"{name}.conv2", outputs, outputs, 3)
        if halved:
            content += self.pool("avg_pool_2", 2, 2, 2, 2, 0, 0)
        return content + text("add_prev_") + behind() + text("relu_") + behind()

    def linear(self) -> bytes:
        inputs = self.widths[5]
        weight = self.random(inputs, self.outputs)
        self.values["fc"] = (weight,)
        content = text("fc_2") + wholes(self.outputs, inputs) + tensor(weight)
        content += wholes(1, inputs, self.outputs, 1, 1) + wholes(1, 0, 0, 0, 0) + whole(1)
        return content + TRAINING + behind()
