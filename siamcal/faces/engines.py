"""What finds faces and reads their landmarks: LiteRT (the default) or MediaPipe's own runtime."""

from __future__ import annotations

from importlib.metadata import version
from typing import Protocol

import numpy as np

from siamcal.errors import ConfigError
from siamcal.faces.blazeface import BlazeFace
from siamcal.faces.boxes import Box, overlap
from siamcal.faces.face_mesh import Blendshapes, FaceMesh, Mesh
from siamcal.faces.head_pose import pose_matrix

__all__ = [
    "DEFAULT",
    "ENGINES",
    "Engine",
    "LiteRTEngine",
    "check_engine",
    "engine_version",
    "make_engine",
]

# Name -> what it is, and whom it tells.
ENGINES = {
    "litert": "MediaPipe's networks run by LiteRT, which opens no connection",
    "mediapipe": "the same networks in MediaPipe, which contacts a server of its maker",
}
DEFAULT = "litert"
_PACKAGES = {"litert": "ai-edge-litert", "mediapipe": "mediapipe"}
# Boxes in a window that share more than this are one face (MediaPipe's own value for landmarks).
SAME_BOX = 0.5


class Engine(Protocol):
    """Both engines. Each belongs to the process, and at any time to the thread, that uses it."""

    def boxes(self, rgb: np.ndarray) -> list[Box]:
        """Boxes of the faces in `rgb`, (H, W, 3) uint8."""

    def mesh(self, rgb: np.ndarray, box: Box, *, details: bool = True) -> Mesh | None:
        """The face at `box` in a square window, (S, S, 3) uint8; None where there is none.

        Args:
            rgb: The window.
            box: In the window's pixels; of several faces the one that overlaps it most is meant.
            details: Also read expression and pose.
        """

    def close(self) -> object:
        """Free the models."""


class LiteRTEngine:
    """BlazeFace, landmarks and blendshapes by LiteRT, pose by the canonical mesh."""

    def __init__(self) -> None:
        self._detector = BlazeFace()
        self._mesh = FaceMesh()
        self._blendshapes = Blendshapes()

    def boxes(self, rgb: np.ndarray) -> list[Box]:
        """See `Engine.boxes`."""
        return [found.box(*rgb.shape[:2]) for found in self._detector(rgb)]

    def mesh(self, rgb: np.ndarray, box: Box, *, details: bool = True) -> Mesh | None:
        """See `Engine.mesh`."""
        side = rgb.shape[0]
        found = [(overlap(box, d.box(side, side)), d) for d in self._detector(rgb, SAME_BOX)]
        for share, detection in sorted(found, key=lambda pair: -pair[0]):
            landmarks = self._mesh(rgb, detection) if share > 0 else None
            if landmarks is None:
                continue
            return self.described(landmarks, side) if details else Mesh(landmarks)
        return None

    def described(self, landmarks: np.ndarray, side: int, *, expression: bool = True) -> Mesh:
        """Expression and pose of a face whose landmarks are known.

        Args:
            landmarks: (478, 3) in pixels of the square window around the face.
            side: Of the window.
            expression: Read the coefficients, too.
        """
        coefficients = self._blendshapes(landmarks) if expression else {}
        return Mesh(landmarks, coefficients, pose_matrix(landmarks / side))

    def close(self) -> None:
        """Nothing is held beyond the object itself."""


def check_engine(name: str) -> None:
    """Refuse a name that no engine has.

    Raises:
        ConfigError: With the names there are.
    """
    if name not in ENGINES:
        known = "; ".join(f"{n!r} ({what})" for n, what in ENGINES.items())
        raise ConfigError(f"The face engine takes {known}; {name!r} was given.")


def engine_version(name: str) -> str:
    """An engine and the version of its package, such as "litert 2.3.0"."""
    return f"{name} {version(_PACKAGES[name])}"


def make_engine(name: str) -> Engine:
    """An engine by its name.

    Raises:
        ConfigError: There is none of that name.
        MissingDependencyError: Its package or a system library is missing.
    """
    check_engine(name)
    if name == "mediapipe":
        from siamcal.faces._mediapipe import MediaPipeEngine

        return MediaPipeEngine()
    return LiteRTEngine()
