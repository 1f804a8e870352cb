"""Faces and their 478 landmarks in a frame, by MediaPipe's BlazeFace and FaceLandmarker."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import weakref
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from siamcal.errors import ConfigError
from siamcal.faces._mediapipe import import_vision, quiet_stderr
from siamcal.files import asset

# The landmarker reads a square of this many box sides around a detected box; its own region is
# 1.5 times the face, so 2 leaves room for a head that is turned or has its mouth open.
WINDOW = 2.0
# Wider windows are reduced to this before landmarks are sought; the network itself reads 256 px.
MAX_WINDOW = 512
# BlazeFace's short-range model finds faces down to about an eighth of the picture's longer side:
# in smaller pieces it finds smaller faces. Pieces under this side would only add faces of less than
# 60 px, too coarse for an AU network.
MIN_TILE = 320
# MediaPipe's last log line (about memory alignment, once a process) comes with one of the first
# calls, by chance.
QUIET_CALLS = 20
# BlazeFace boxes that score less are no faces.
MIN_SCORE = 0.5
# Two boxes that share more than this of their union are the same face, seen in two tiles.
SAME_FACE = 0.3


@dataclass(frozen=True, eq=False)
class Face:
    """One face in a frame.

    Attributes:
        landmarks: (478, 3) float32: x (right), y (down) and z (away from the camera) in pixels of
            the frame, MediaPipe's face mesh with both irises.
        box: BlazeFace's box (left, top, width, height) in pixels; it spans brows to chin.
        score: BlazeFace's score in [0, 1].
        blendshapes: 51 of ARKit's expression coefficients in [0, 1], from MediaPipe's own network.
        pose: (yaw, pitch, roll) of the head in degrees, 0 seen from the front; yaw is positive
            where the nose points to the right of the picture, pitch where it points down, roll
            where the head leans to the right of the picture.
    """

    landmarks: np.ndarray
    box: tuple[float, float, float, float]
    score: float
    blendshapes: dict[str, float] = field(default_factory=dict)
    pose: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    width: float
    height: float
    score: float

    def moved(self, x: float, y: float) -> _Box:
        return _Box(self.left + x, self.top + y, self.width, self.height, self.score)


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
    overlapping tiles (a face that is small in a wide picture). FaceLandmarker then reads a window
    around each box.

    MediaPipe's objects don't survive a fork: each process makes its own, which happens by itself
    at the first `detect` in a new process.
    """

    def __init__(self) -> None:
        self._process: int | None = None
        self._calls = 0
        self._mediapipe: Any = None
        self._boxes: Any = None
        self._landmarker: Any = None
        self._finalizer: weakref.finalize | None = None

    def __enter__(self) -> FaceDetector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return FaceDetector, ()  # a copy loads its own models

    def close(self) -> None:
        """Free MediaPipe's models; the next `detect` loads them again."""
        if self._finalizer is not None and self._process == os.getpid():
            self._finalizer()
        self._boxes = self._landmarker = self._finalizer = self._process = None

    def detect(
        self, rgb: np.ndarray, *, max_faces: int | None = None, once: bool = False
    ) -> list[Face]:
        """All faces in `rgb`, the widest box first.

        Args:
            rgb: (H, W, 3) uint8.
            max_faces: Stop after so many faces; None means all.
            once: Look at the whole frame only.

        Returns:
            An empty list where no face was found.

        Raises:
            ConfigError: `rgb` isn't an RGB frame.
            MissingDependencyError: mediapipe or a system library is missing.
        """
        check_rgb(rgb)
        self._load()
        self._calls += 1
        with quiet_stderr() if self._calls <= QUIET_CALLS else contextlib.nullcontext():
            return self._faces(rgb, max_faces, once)

    def _faces(self, rgb: np.ndarray, max_faces: int | None, once: bool) -> list[Face]:
        faces: list[Face] = []
        for box in sorted(self._find_boxes(rgb, once), key=lambda b: -b.width):
            face = self._landmarks(rgb, box)
            if face is not None:
                faces.append(face)
            if max_faces is not None and len(faces) >= max_faces:
                break
        return faces

    def _load(self) -> None:
        if self._process == os.getpid():
            return
        self._mediapipe, vision = import_vision()
        with zipfile.ZipFile(asset("face_landmarker.task")) as bundle:
            detector = bundle.read("face_detector.tflite")
        options = self._mediapipe.tasks.BaseOptions
        image_mode = vision.RunningMode.IMAGE
        with quiet_stderr():
            boxes = vision.FaceDetector.create_from_options(
                vision.FaceDetectorOptions(
                    base_options=options(model_asset_buffer=detector),
                    running_mode=image_mode,
                    min_detection_confidence=MIN_SCORE,
                )
            )
            landmarker = vision.FaceLandmarker.create_from_options(
                vision.FaceLandmarkerOptions(
                    base_options=options(
                        model_asset_buffer=asset("face_landmarker.task").read_bytes()
                    ),
                    running_mode=image_mode,
                    # A neighbour may look into the window: the right one is picked by overlap.
                    num_faces=3,
                    output_face_blendshapes=True,
                    output_facial_transformation_matrixes=True,
                )
            )
            # The first inference logs too.
            blank = self._image(np.zeros((64, 64, 3), np.uint8))
            boxes.detect(blank)
            landmarker.detect(blank)
        self._boxes, self._landmarker = boxes, landmarker
        # Also runs at interpreter exit, where MediaPipe's own destructor would fail.
        self._finalizer = weakref.finalize(self, _close_all, boxes, landmarker)
        self._process = os.getpid()

    def _image(self, rgb: np.ndarray) -> Any:
        return self._mediapipe.Image(
            image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(rgb)
        )

    def _find_boxes(self, rgb: np.ndarray, once: bool) -> list[_Box]:
        for windows in itertools.islice(_search_windows(*rgb.shape[:2]), 1 if once else None):
            found: list[_Box] = []
            for left, top, right, bottom in windows:
                piece = cut_window(rgb, left, top, right, bottom)
                found += [box.moved(left, top) for box in self._boxes_in(piece)]
            if found:
                return _distinct(found)
        return []

    def _boxes_in(self, rgb: np.ndarray) -> list[_Box]:
        result = self._boxes.detect(self._image(rgb))
        return [
            _Box(
                found.bounding_box.origin_x,
                found.bounding_box.origin_y,
                found.bounding_box.width,
                found.bounding_box.height,
                float(found.categories[0].score),
            )
            for found in result.detections
        ]

    def _landmarks(self, rgb: np.ndarray, box: _Box) -> Face | None:
        side = max(round(WINDOW * max(box.width, box.height)), 16)
        left = round(box.left + (box.width - side) / 2)
        top = round(box.top + (box.height - side) / 2)
        window = cut_window(rgb, left, top, left + side, top + side)
        if side > MAX_WINDOW:
            window = cv2.resize(window, (MAX_WINDOW, MAX_WINDOW), interpolation=cv2.INTER_AREA)
        result = self._landmarker.detect(self._image(window))
        best: Face | None = None
        best_overlap = 0.0
        for index, points in enumerate(result.face_landmarks):
            landmarks = np.array([(p.x, p.y, p.z) for p in points], np.float32) * side
            landmarks += np.array([left, top, 0], np.float32)
            overlap = _overlap(box, _box_of(landmarks))
            if overlap > best_overlap:
                shapes = {s.category_name: float(s.score) for s in result.face_blendshapes[index]}
                shapes.pop("_neutral", None)
                best_overlap = overlap
                best = Face(
                    landmarks,
                    (box.left, box.top, box.width, box.height),
                    box.score,
                    shapes,
                    _angles(result.facial_transformation_matrixes[index]),
                )
        return best


def _close_all(*models: Any) -> None:
    with quiet_stderr():
        for model in models:
            try:
                model.close()
            except (RuntimeError, TypeError):
                # The interpreter is ending and MediaPipe's threads are gone: the system frees the
                # memory. Without its handle the model's destructor doesn't try again.
                model._handle = None


def _search_windows(height: int, width: int) -> Iterator[list[tuple[int, int, int, int]]]:
    """Groups of (left, top, right, bottom) to look into, until one group holds a face."""
    yield [(0, 0, width, height)]
    border = max(height, width) // 4
    yield [(-border, -border, width + border, height + border)]
    side = min(height, width)
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


def cut_window(rgb: np.ndarray, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """The part of `rgb` between the edges; black where they leave the frame."""
    height, width = rgb.shape[:2]
    inside = rgb[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if left >= 0 and top >= 0 and right <= width and bottom <= height:
        return inside
    return cv2.copyMakeBorder(
        inside,
        min(max(-top, 0), bottom - top),
        max(bottom - max(height, top), 0),
        min(max(-left, 0), right - left),
        max(right - max(width, left), 0),
        cv2.BORDER_CONSTANT,
        value=(0, 0, 0),
    )


def _angles(matrix: np.ndarray) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees of MediaPipe's pose matrix (y up, z towards the camera)."""
    x_axis, forward = matrix[:3, 0], matrix[:3, 2]
    yaw = math.atan2(forward[0], forward[2])
    pitch = math.atan2(-forward[1], math.hypot(forward[0], forward[2]))
    roll = math.atan2(-x_axis[1], x_axis[0])
    return math.degrees(yaw), math.degrees(pitch), math.degrees(roll)


def _box_of(landmarks: np.ndarray) -> _Box:
    low, high = landmarks[:, :2].min(0), landmarks[:, :2].max(0)
    left, top = (float(v) for v in low)
    width, height = (float(v) for v in high - low)
    return _Box(left, top, width, height, score=1.0)


def _overlap(a: _Box, b: _Box) -> float:
    """Intersection over union."""
    width = min(a.left + a.width, b.left + b.width) - max(a.left, b.left)
    height = min(a.top + a.height, b.top + b.height) - max(a.top, b.top)
    shared = max(width, 0.0) * max(height, 0.0)
    union = a.width * a.height + b.width * b.height - shared
    return shared / union if union > 0 else 0.0


def _distinct(boxes: list[_Box]) -> list[_Box]:
    kept: list[_Box] = []
    for box in sorted(boxes, key=lambda b: -b.score):
        if all(_overlap(box, other) < SAME_FACE for other in kept):
            kept.append(box)
    return kept
