"""dlib's face recognition network, from the package: what a face looks like, in 128 numbers.

Davis E. King trained it on about three million real faces of 7,485 people. By his measure it tells
99.4 % of the pairs of Labeled Faces in the Wild rightly apart, where two descriptors farther than
.6 from one another are two people's. Its weights (CC0 1.0) are kept in eight bits
(`scripts/build_face_descriptor.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from siamcal.faces.alignment import close_crop
from siamcal.faces.detection import Face
from siamcal.files import asset
from siamcal.model.create import create_backbone
from siamcal.model.dlib_file import MEAN, SIZE
from siamcal.model.weights_file import read_tensors

__all__ = ["ASSET", "LENGTH", "SCALE", "DescriptorReader", "descriptor_crop", "unpacked"]

ASSET = "face_descriptor.safetensors"
SCALE = ".scale"  # behind the name of a weight: the factor of each of its output channels
LENGTH = 128
WHOLE = 256.0  # dlib divides by it where others have 255


def descriptor_crop(rgb: np.ndarray, face: Face) -> np.ndarray:
    """What is read of a face, (150, 150, 3) uint8, as close as dlib's own crops.

    Args:
        rgb: (H, W, 3) uint8, the whole frame.
        face: The face in it.
    """
    return close_crop(rgb, face, SIZE)[0]


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in single precision by the names of the backbone `dlib_descriptor`."""
    state = {}
    for name, value in tensors.items():
        factor = tensors.get(name + SCALE)
        if factor is not None:
            state[name] = value.float() * factor.view(-1, *[1] * (value.dim() - 1))
        elif not name.endswith(SCALE):
            state[name] = value
    return state


@contextmanager
def _one_thread() -> Iterator[None]:
    """Layers of a few milliseconds: sharing one out costs more processor time than it saves."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)


class DescriptorReader:
    """Descriptors of faces, on one thread of the processor.

    Raises:
        DataNotFoundError: The package lacks the weights.
    """

    @_one_thread()
    def __init__(self) -> None:
        with torch.device("meta"):  # start values of five million weights would take longer
            network = create_backbone("dlib_descriptor")
        network.load_state_dict(unpacked(read_tensors(asset(ASSET))), assign=True)
        # With channels last a face takes two thirds of the time.
        self._network = network.eval()
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @_one_thread()
    @torch.inference_mode()
    def __call__(self, crop: np.ndarray) -> np.ndarray:
        """The descriptor of a `descriptor_crop`, (128,) float32."""
        values = (crop - np.array(MEAN, np.float32)) / WHOLE
        image = torch.from_numpy(values)[None].permute(0, 3, 1, 2)  # channels last already
        found: np.ndarray = self._network(image)[0].numpy()
        return found
