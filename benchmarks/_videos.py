"""What reading a video costs, beside MediaPipe's landmarker alone, and one picture's cold start."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from siamcal.errors import SiamcalError
from siamcal.faces import FaceDetector
from siamcal.faces._litert import TASK
from siamcal.faces._mediapipe import import_vision
from siamcal.faces._quiet import quiet_stderr
from siamcal.faces.boxes import cut_window
from siamcal.faces.media import open_media
from siamcal.files import asset
from siamcal.inference import Predictor, load_model, predict_to_table, read_reference

__all__ = ["SIZES", "cold_start", "one_core", "video_parts"]

SIZES = {"480p": (480, 854), "1080p": (1080, 1920)}  # height, width
FPS = 25


def write_clip(pictures: list[np.ndarray], size: tuple[int, int], path: Path) -> None:
    """An H.264 clip of faces as wide as half of the frame's height, in its middle.

    MediaPipe finds them in the whole frame, without the tiles that smaller ones take.
    """
    height, width = size
    with FaceDetector() as detector:
        left, top, side, _ = map(int, detector.detect(pictures[0], details=False)[0].box)
    edges = (left - side // 2, top - side // 2, left + side * 3 // 2, top + side * 3 // 2)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for picture in pictures:
            frame = np.full((height, width, 3), 90, np.uint8)
            start = (width - height) // 2
            head = cut_window(picture, *edges)
            frame[:, start : start + height] = cv2.resize(head, (height, height))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def video_parts(
    pictures: list[np.ndarray], name: str, folder: Path
) -> dict[str, Callable[[], Any]]:
    """Work on one clip: MediaPipe on decoded frames, decoding, and all that `predict` does.

    Args:
        pictures: Of one person, (S, S, 3) uint8; the first is the reference, too.
        name: Of the frame's size, one of `SIZES`.
        folder: For the clip.
    """
    clip = folder / f"{name}.mp4"
    write_clip(pictures, SIZES[name], clip)
    frames = [frame.rgb for frame in open_media(clip)]
    predictor = Predictor(load_model())
    reference = read_reference(frames[0], predictor)

    def predict() -> None:
        predict_to_table(open_media(clip), io.BytesIO(), predictor=predictor, reference=reference)

    return {
        f"{name}: MediaPipe's FaceLandmarker alone, video mode": landmarker(frames),
        f"{name}: decoding alone": lambda: sum(1 for _ in open_media(clip)),
        f"{name}: faces and crops, found anew in each frame": lambda: [
            predictor.pipeline.crop(frame) for frame in frames
        ],
        f"{name}: siamcal predict, from the file to the table": predict,
    }


def landmarker(frames: list[np.ndarray]) -> Callable[[], None]:
    """MediaPipe's own way through the frames, with all it can tell of a face."""
    mediapipe, vision = import_vision()
    options = vision.FaceLandmarkerOptions(
        base_options=mediapipe.tasks.BaseOptions(model_asset_buffer=asset(TASK).read_bytes()),
        running_mode=vision.RunningMode.VIDEO,
        output_face_blendshapes=True,
        output_facial_transformation_matrixes=True,
    )
    with quiet_stderr():
        model = vision.FaceLandmarker.create_from_options(options)
    srgb, whole = mediapipe.ImageFormat.SRGB, np.ascontiguousarray
    images = [mediapipe.Image(image_format=srgb, data=whole(frame)) for frame in frames]
    time = iter(range(0, 1 << 62, 1000 // FPS))

    def run() -> None:
        found = [model.detect_for_video(image, next(time)).face_landmarks for image in images]
        if not all(found):
            raise SiamcalError("MediaPipe finds no face in some frame, so its time means nothing.")

    # MediaPipe's own destructor fails at the interpreter's exit.
    weakref.finalize(run, model.close)
    return run


def cold_start(picture: np.ndarray) -> float:
    """Milliseconds of processor time of `siamcal predict` for one picture, all threads."""
    import resource

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "picture.png"
        cv2.imwrite(str(place), picture[..., ::-1])
        command = [sys.executable, "-m", "siamcal", "predict", str(place)]
        command += ["--reference", str(place), "-o", str(Path(folder) / "aus.csv")]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


@contextmanager
def one_core() -> Iterator[None]:
    """Everything started inside, MediaPipe's threads as well, shares one core."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
