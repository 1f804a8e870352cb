"""The engine "mediapipe": the same networks in Google's own runtime.

It is kept as the reference for the default engine. MediaPipe 1.2.2 contacts a server of its maker
when it starts and has no switch for that. It needs system libraries that may be missing.
"""

from __future__ import annotations

import contextlib
import importlib
import weakref
from typing import Any

import numpy as np

from siamcal.extras import needed_for
from siamcal.faces._litert import TASK, task_member
from siamcal.faces._quiet import quiet_stderr
from siamcal.faces.blazeface import MIN_SCORE
from siamcal.faces.boxes import Box, overlap
from siamcal.faces.face_mesh import Mesh
from siamcal.files import asset

# MediaPipe's last log line (about memory alignment, once a process) comes with one of the first
# calls, by chance.
QUIET_CALLS = 20


def import_vision(importer: Any = importlib.import_module) -> tuple[Any, Any]:
    """`mediapipe` and `mediapipe.tasks.python.vision`, or an error that says what to install.

    Args:
        importer: Stands for `importlib.import_module` in tests.

    Raises:
        MissingDependencyError: The package or a system library it loads is missing.
    """
    with needed_for("The face engine 'mediapipe'", otherwise="take the engine 'litert'"):
        return importer("mediapipe"), importer("mediapipe.tasks.python.vision")


class MediaPipeEngine:
    """MediaPipe's FaceDetector and FaceLandmarker for single pictures."""

    def __init__(self) -> None:
        self._mediapipe, vision = import_vision()
        options, image_mode = self._mediapipe.tasks.BaseOptions, vision.RunningMode.IMAGE
        self._calls = 0
        with quiet_stderr():
            self._boxes = vision.FaceDetector.create_from_options(
                vision.FaceDetectorOptions(
                    base_options=options(model_asset_buffer=task_member("face_detector.tflite")),
                    running_mode=image_mode,
                    min_detection_confidence=MIN_SCORE,
                )
            )
            self._landmarker = vision.FaceLandmarker.create_from_options(
                vision.FaceLandmarkerOptions(
                    base_options=options(model_asset_buffer=asset(TASK).read_bytes()),
                    running_mode=image_mode,
                    # A neighbour may look into the window: the right one is picked by overlap.
                    num_faces=3,
                    output_face_blendshapes=True,
                    output_facial_transformation_matrixes=True,
                )
            )
        # Also runs at interpreter exit, where MediaPipe's own destructor would fail.
        self.close = weakref.finalize(self, _close_all, self._boxes, self._landmarker)

    def boxes(self, rgb: np.ndarray) -> list[Box]:
        """Boxes of the faces in `rgb`, (H, W, 3) uint8."""
        with self._quiet():
            result = self._boxes.detect(self._image(rgb))
        found = [(d.bounding_box, float(d.categories[0].score)) for d in result.detections]
        return [Box(b.origin_x, b.origin_y, b.width, b.height, score) for b, score in found]

    def mesh(self, rgb: np.ndarray, box: Box, *, details: bool = True) -> Mesh | None:
        """The face at `box` in a square window; see `siamcal.faces.engines.Engine.mesh`."""
        with self._quiet():
            result = self._landmarker.detect(self._image(rgb))
        side = rgb.shape[0]
        faces = [
            np.array([(p.x, p.y, p.z) for p in points], np.float32) * side
            for points in result.face_landmarks
        ]
        shares = [overlap(box, Box.around(face)) for face in faces]
        if not shares or max(shares) == 0:
            return None
        best = int(np.argmax(shares))
        if not details:
            return Mesh(faces[best])
        shapes = {s.category_name: float(s.score) for s in result.face_blendshapes[best]}
        shapes.pop("_neutral", None)
        return Mesh(faces[best], shapes, result.facial_transformation_matrixes[best])

    def _image(self, rgb: np.ndarray) -> Any:
        return self._mediapipe.Image(
            image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(rgb)
        )

    def _quiet(self) -> contextlib.AbstractContextManager[None]:
        self._calls += 1
        return quiet_stderr() if self._calls <= QUIET_CALLS else contextlib.nullcontext()


def _close_all(*models: Any) -> None:
    with quiet_stderr():
        for model in models:
            try:
                model.close()
            except (RuntimeError, TypeError):
                # The interpreter is ending and MediaPipe's threads are gone: the system frees the
                # memory. Without its handle the model's destructor doesn't try again.
                model._handle = None
