"""Faces and their 478 landmarks in a frame, by BlazeFace and the face mesh network."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from siamcal.errors import ConfigError
from siamcal.faces.boxes import Box, cut_window, distinct, overlap
from siamcal.faces.engines import DEFAULT, Engine, LiteRTEngine, check_engine, make_engine
from siamcal.faces.face_mesh import Mesh
from siamcal.faces.hands import REACHES, HandFinder, hand_strength
from siamcal.faces.head_pose import angles

# The landmark network reads a square of this many box sides around a detected box; its own region
# is 1.5 times the face, so 2 leaves room for a head that is turned or has its mouth open.
WINDOW = 2.0
# Wider windows are reduced by a whole number to about this; the landmark network reads 256 px.
USUAL_WINDOW = 512
# BlazeFace's short-range model finds faces down to about an eighth of the picture's longer side:
# in smaller pieces it finds smaller faces. Pieces under this side would only add faces of less than
# 60 px, too coarse for an AU network.
MIN_TILE = 320
# Two boxes that share more than this of their union are the same face, seen in two tiles.
SAME_FACE = 0.3
# Meshes that share more than this are the same face, read from two boxes.
SAME_MESH = 0.5


@dataclass(frozen=True, eq=False)
class Face:
    """One face in a frame.

    Attributes:
        landmarks: (478, 3) float32: x (right), y (down) and z (away from the camera) in pixels of
            the frame, MediaPipe's face mesh with both irises.
        box: BlazeFace's box (left, top, width, height) in pixels; it spans brows to chin.
        score: BlazeFace's score in [0, 1].
        blendshapes: 51 of ARKit's expression coefficients in [0, 1], from MediaPipe's own network;
            empty where `detect` was told to leave out details.
        pose: (yaw, pitch, roll) of the head in degrees, 0 seen from the front; yaw is positive
            where the nose points to the right of the picture, pitch where it points down, roll
            where the head leans to the right of the picture. NaN without details.
    """

    landmarks: np.ndarray
    box: tuple[float, float, float, float]
    score: float
    blendshapes: dict[str, float] = field(default_factory=dict)
    pose: tuple[float, float, float] = (math.nan, math.nan, math.nan)


def check_rgb(rgb: np.ndarray) -> None:
    """Refuse anything but a non-empty (H, W, 3) uint8 array.

    Raises:
        ConfigError: Shape or dtype is another; the message names the reader that converts.
    """
    if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.ndim != 3:
        given = f"{rgb.dtype} {rgb.shape}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
    elif rgb.shape[2] != 3 or not rgb.size:
        given = f"shape {rgb.shape}"
    else:
        return
    raise ConfigError(
        f"A frame must be an RGB array (H, W, 3) of uint8, but got {given}. "
        f"siamcal.faces.media.read_image(path) makes one from any image file."
    )


class FaceDetector:
    """Finds faces in single frames; the same frame always gives the same faces.

    BlazeFace (short range) gives boxes and scores, first on the whole frame, then, only where it
    found nothing, on the frame with a black border (a face that fills the picture) and on
    overlapping tiles (a face that is small in a wide picture). In a window around each box it then
    places the face more exactly for the landmark network.

    The models don't survive a fork: each process loads its own, which happens by itself at the
    first `detect` in a new process.

    Args:
        engine: "litert", which opens no connection, or "mediapipe", whose version 1.2.2 contacts a
            server of its maker; both run the same networks (`siamcal.faces.engines`).

    Raises:
        ConfigError: There is no such engine.
    """

    def __init__(self, engine: str = DEFAULT) -> None:
        check_engine(engine)
        self.engine = engine
        self._process: int | None = None
        self._models: Engine | None = None
        self._hands: HandFinder | None = None

    def __enter__(self) -> FaceDetector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return FaceDetector, (self.engine,)  # a copy loads its own models

    def close(self) -> None:
        """Free the models; the next `detect` loads them again."""
        if self._models is not None and self._process == os.getpid():
            self._models.close()
        self._models = self._hands = self._process = None

    def detect(
        self,
        rgb: np.ndarray,
        *,
        max_faces: int | None = None,
        once: bool = False,
        everyone: bool = False,
        details: bool = True,
    ) -> list[Face]:
        """All faces in `rgb`, the widest box first.

        Args:
            rgb: (H, W, 3) uint8.
            max_faces: Stop after so many faces; None means all.
            once: Look at the whole frame only.
            everyone: Look into all tiles too where the whole frame shows some faces already: beside
                a wide face a small one may be missed there.
            details: Also read expression and pose, which a crop doesn't need.

        Returns:
            An empty list where no face was found.

        Raises:
            ConfigError: `rgb` isn't an RGB frame.
            MissingDependencyError: The engine's package or a system library is missing.
        """
        check_rgb(rgb)
        models = self._loaded()
        faces: list[Face] = []
        for box in sorted(_find_boxes(models, rgb, once, everyone), key=lambda b: -b.width):
            face = _read(models, rgb, box, details)
            if face is not None and not _found_before(face, faces):
                faces.append(face)
            if max_faces is not None and len(faces) >= max_faces:
                break
        return faces

    def boxes(self, rgb: np.ndarray) -> list[Box]:
        """Boxes of the faces that the whole frame shows, without a look into tiles."""
        check_rgb(rgb)
        return _find_boxes(self._loaded(), rgb, once=True, everyone=False)

    def described(self, landmarks: np.ndarray, box: Box, *, expression: bool = True) -> Face:
        """A face with expression and pose, from landmarks that are known already.

        Args:
            landmarks: (478, 3) in pixels of the frame.
            box: BlazeFace's box of it.
            expression: Read the coefficients, too, which takes three times as long as the pose.

        Raises:
            ConfigError: The engine is "mediapipe", whose task finds the landmarks itself.
        """
        engine = self._loaded()
        if not isinstance(engine, LiteRTEngine):
            raise ConfigError("Only the engine 'litert' describes landmarks that are known.")
        left, top, side, scale = _window(box)
        shift = np.array([left, top, 0], np.float32)
        inside = (landmarks - shift) / np.float32(scale)
        mesh = engine.described(inside, side // scale, expression=expression)
        return _face(landmarks, box, mesh)

    def mirrored(self, rgb: np.ndarray, face: Face) -> Face | None:
        """A face that was found, read once more from the mirrored picture, without details.

        Args:
            rgb: (H, W, 3) uint8, the frame as it is.
            face: The face in it.

        Returns:
            The face in coordinates of the frame's mirror image; None where there is none.
        """
        left, top, width, height = map(round, face.box)
        reach = math.ceil(WINDOW / 2 * max(width, height))  # the window around the box lies within
        edges = (left - reach, top - reach, left + width + reach, top + height + reach)
        piece = np.ascontiguousarray(cut_window(rgb, *edges)[:, ::-1])
        box = Box(reach, reach, width, height, face.score)
        found = _read(self._loaded(), piece, box, details=False)
        if found is None:
            return None
        shift = np.array([rgb.shape[1] - edges[2], edges[1], 0], np.float32)
        moved = box.moved(float(shift[0]), float(shift[1]))
        place = (moved.left, moved.top, moved.width, moved.height)
        return Face(found.landmarks + shift, place, face.score)

    def hand(self, rgb: np.ndarray, face: Face) -> float:
        """How strongly a hand shows before a face that was found, 0 to 2; from 1 on it does.

        Args:
            rgb: (H, W, 3) uint8, the frame.
            face: The face in it.

        Raises:
            MissingDependencyError: LiteRT isn't installed.
        """
        return hand_strength([self.hand_odds(rgb, face, reach) for reach in REACHES])

    def hand_odds(self, rgb: np.ndarray, face: Face, reach: float) -> float:
        """The same of one window, for `siamcal.faces.hands.hand_strength`."""
        self._loaded()  # a new process forgets the old one's
        if self._hands is None:
            self._hands = HandFinder()
        return self._hands(rgb, face.landmarks, reach)

    def _loaded(self) -> Engine:
        if self._models is None or self._process != os.getpid():
            self._models, self._hands = make_engine(self.engine), None
            self._process = os.getpid()
        return self._models


def _find_boxes(models: Engine, rgb: np.ndarray, once: bool, everyone: bool) -> list[Box]:
    found: list[Box] = []
    for windows in itertools.islice(_search_windows(*rgb.shape[:2]), 1 if once else None):
        for left, top, right, bottom in windows:
            piece = cut_window(rgb, left, top, right, bottom)
            found += [box.moved(left, top) for box in models.boxes(piece)]
        if found and not everyone:
            break
    return distinct(found, SAME_FACE)


def _found_before(face: Face, faces: list[Face]) -> bool:
    """Whether two boxes led to one face, as where one head stands half behind another."""
    own = Box.around(face.landmarks)
    return any(overlap(own, Box.around(other.landmarks)) > SAME_MESH for other in faces)


def _read(models: Engine, rgb: np.ndarray, box: Box, details: bool) -> Face | None:
    """Landmarks of the face at a box, from a window around it."""
    left, top, side, scale = _window(box)
    window = cut_window(rgb, left, top, left + side, top + side)
    if scale > 1:
        size = (side // scale, side // scale)
        window = cv2.resize(window, size, interpolation=cv2.INTER_AREA)
    inside = Box(*(v / scale for v in (box.left - left, box.top - top, box.width, box.height)))
    mesh = models.mesh(window, inside, details=details)
    if mesh is None:
        return None
    landmarks = mesh.landmarks * np.float32(scale) + np.array([left, top, 0], np.float32)
    return _face(landmarks, box, mesh)


def _window(box: Box) -> tuple[int, int, int, int]:
    """Left, top and side of the window around a box; by how much it is reduced."""
    side = max(round(WINDOW * max(box.width, box.height)), 16)
    scale = max(round(side / USUAL_WINDOW), 1)
    side -= side % scale
    left = round(box.left + (box.width - side) / 2)
    return left, round(box.top + (box.height - side) / 2), side, scale


def _face(landmarks: np.ndarray, box: Box, mesh: Mesh) -> Face:
    place = (box.left, box.top, box.width, box.height)
    if mesh.pose is None:
        return Face(landmarks, place, box.score)
    return Face(landmarks, place, box.score, mesh.blendshapes, angles(mesh.pose))


def _search_windows(height: int, width: int) -> Iterator[list[tuple[int, int, int, int]]]:
    """Groups of (left, top, right, bottom) to look into, until one group holds a face."""
    yield [(0, 0, width, height)]
    border, side = max(height, width) // 4, min(height, width)
    # Of a long, narrow picture a border along its length as wide as itself is enough.
    x, y = (border, min(border, side)) if width > height else (min(border, side), border)
    yield [(-x, -y, width + x, height + y)]
    if max(height, width) < 1.2 * side:
        side //= 2
    for _ in range(2):
        if side < MIN_TILE:
            return
        yield [
            (left, top, left + side, top + side)
            for top in _starts(height, side)
            for left in _starts(width, side)
        ]
        side //= 2


def _starts(length: int, side: int) -> list[int]:
    """Starts of windows of `side` that cover `length` and overlap by at least a third."""
    count = 1 + int(np.ceil((length - side) / (side * 2 / 3)))
    return [round(start) for start in np.linspace(0, length - side, count)]
