"""Whether two faces are one person's, by dlib's face descriptor: a warning, no proof.

The descriptor was learnt on real people (`siamcal/faces/descriptor.py`). Directions in which one
person's differ over expressions, turns, lights, cameras, hair and glasses count less than others;
these, and where the middle of all faces lies, are from rendered people (`scripts/fit_identity.py`),
so that rendered faces and real ones are told apart by the same limit. Enough to notice a reference
that is somebody else's (`siamcal bench stranger`), not to prove who anybody is.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from siamcal.faces import descriptor
from siamcal.faces.descriptor import DescriptorReader
from siamcal.faces.descriptor import descriptor_crop as identity_crop
from siamcal.files import asset, checksum_of_file
from siamcal.model.weights_file import read_tensors

__all__ = ["ASSET", "IdentityReader", "identity_crop"]

ASSET = "identity.safetensors"


class IdentityReader:
    """Where faces lie among people.

    Raises:
        DataNotFoundError: The package lacks what was learnt.
    """

    def __init__(self) -> None:
        kept = {name: tensor.numpy() for name, tensor in read_tensors(asset(ASSET)).items()}
        self._mean, self._axes = kept["mean"], kept["axes"]
        self._describe = DescriptorReader()

    @cached_property
    def key(self) -> str:
        """Known by what was learnt: places of another network or on other axes mean nothing."""
        return " ".join(checksum_of_file(asset(name)) for name in (descriptor.ASSET, ASSET))

    def __call__(self, crop: np.ndarray) -> np.ndarray:
        """The place of an `identity_crop`, (D,) float32 of length 1."""
        place: np.ndarray = (self._describe(crop) - self._mean) @ self._axes
        return place / np.linalg.norm(place)

    @staticmethod
    def likeness(one: np.ndarray, other: np.ndarray) -> float:
        """How alike two places are: the cosine between them, 1 where they are the same.

        Args:
            one: (D,), of a face or the mean of several.
            other: Likewise.
        """
        return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
