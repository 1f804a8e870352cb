"""A face's landmarks found once more, in the crop of the whole head that they place.

The first time the landmark network reads a region around BlazeFace's box, which moves with jaw and
noise. In a crop that is placed by rigid points it sees the face always alike: its placement then
varies a third as much, and is the one that a video follows from frame to frame.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np

from siamcal.faces._litert import Network
from siamcal.faces.alignment import from_crop, wide_crop
from siamcal.faces.detection import Face
from siamcal.faces.face_mesh import SIDE

__all__ = ["Refiner"]


class Refiner:
    """Refines landmarks by LiteRT; each process loads the network anew, as with `FaceDetector`."""

    def __init__(self) -> None:
        self._process: int | None = None
        self._network: Network | None = None

    def __reduce__(self) -> tuple[type[Refiner], tuple[()]]:
        return Refiner, ()  # a copy loads its own network

    def __call__(self, rgb: np.ndarray, face: Face) -> Face:
        """The face with landmarks that are found in its wide crop.

        Args:
            rgb: (H, W, 3) uint8.
            face: A face in it, whose expression and pose are kept as they are.
        """
        if self._network is None or self._process != os.getpid():
            self._network = Network("face_landmarks_detector.tflite")
            self._process = os.getpid()
        crop, matrix = wide_crop(rgb, face, SIDE)
        points, *_ = self._network(crop[None], 1 / 255)
        return replace(face, landmarks=from_crop(points.reshape(-1, 3), matrix))
