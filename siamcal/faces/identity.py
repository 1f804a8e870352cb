"""Whether two faces are one person's, by the landmark network's features: a warning, no proof.

Features are projected to where people differ most against how far one person's differ over
expressions, turns, lights, cameras, hair and glasses. Two are compared by how much likelier they
are of one person than of two: probabilistic linear discriminant analysis (S. Ioffe, ECCV 2006). It
was learnt on rendered people (`scripts/fit_identity.py`): enough to notice a reference that is
somebody else's (`siamcal bench stranger`), not to recognise anybody.
"""

from __future__ import annotations

import numpy as np

from siamcal.faces._litert import Network
from siamcal.faces.alignment import wide_crop
from siamcal.faces.detection import Face
from siamcal.files import asset, checksum_of_file
from siamcal.model.weights_file import read_tensors

__all__ = ["ASSET", "LENGTH", "IdentityReader", "MapReader", "identity_crop"]

ASSET = "identity.safetensors"
SIDE = 256  # pixels of the network's input
MAP = (1, 16, 16, 128)
CELLS = 4  # along each side: the map is averaged in them
LENGTH = CELLS * CELLS * MAP[-1]


def identity_crop(rgb: np.ndarray, face: Face) -> np.ndarray:
    """What is read of a face, (256, 256, 3) uint8: the whole head, placed by rigid points.

    Args:
        rgb: (H, W, 3) uint8, the whole frame.
        face: The face in it.
    """
    return wide_crop(rgb, face, SIDE)[0]


class MapReader:
    """The landmark network's last map, averaged in cells. It belongs to one thread at a time.

    Raises:
        MissingDependencyError: LiteRT isn't installed.
    """

    def __init__(self) -> None:
        self._network = Network("face_landmarks_detector.tflite", beside=MAP)

    def __call__(self, crop: np.ndarray) -> np.ndarray:
        """Features of an `identity_crop`, (LENGTH,) float32."""
        return self.averaged(self._network(crop[None], 1 / 255)[-1][0])

    @staticmethod
    def averaged(features: np.ndarray) -> np.ndarray:
        """The map (16, 16, 128) in cells, (LENGTH,)."""
        step = MAP[1] // CELLS
        return features.reshape(CELLS, step, CELLS, step, -1).mean((1, 3)).ravel()


class IdentityReader:
    """Where faces lie among people. It belongs to one thread at a time.

    Raises:
        MissingDependencyError: LiteRT isn't installed.
        DataNotFoundError: The package lacks what was learnt.
    """

    def __init__(self) -> None:
        kept = {name: tensor.float().numpy() for name, tensor in read_tensors(asset(ASSET)).items()}
        self._mean, self._axes, self._between = kept["mean"], kept["axes"], kept["between"]
        #: Known by its axes: places on others mean nothing to it.
        self.key = checksum_of_file(asset(ASSET))
        self._map = MapReader()

    def __call__(self, crop: np.ndarray) -> np.ndarray:
        """The place of an `identity_crop`, (D,) float32, 0 the mean of all people.

        Along each axis one person's spread is 1.
        """
        return (self._map(crop) - self._mean) @ self._axes

    def place_of(self, features: np.ndarray) -> np.ndarray:
        """The same where the landmark network ran already: its last map, (16, 16, 128)."""
        return (self._map.averaged(features) - self._mean) @ self._axes

    def likeness(self, one: np.ndarray, other: np.ndarray) -> float:
        """How much likelier two places are of one person than of two, as a logarithm.

        Args:
            one: (D,), of a frame or the mean of several.
            other: Likewise. However many frames of one recording it is the mean of, it counts as
                one: they share light, camera, hair.
        """
        alone = self._between + 1  # variance of any one place
        shared = alone**2 - self._between**2
        together = (alone * (one**2 + other**2) - 2 * self._between * one * other) / shared
        apart = (one**2 + other**2) / alone
        return float(0.5 * (apart - together + 2 * np.log(alone) - np.log(shared)).sum())
