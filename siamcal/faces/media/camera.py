"""Cameras of this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from siamcal.errors import MediaError
from siamcal.faces.media.frames import Frame, FrameStream

__all__ = ["open_camera"]


def open_camera(number: int = 0) -> FrameStream:
    """Frames of a camera until it ends or the iteration is stopped.

    Raises:
        MediaError: There is no such camera.
    """
    name = f"camera:{number}"
    with _quiet() as cv2:
        camera = cv2.VideoCapture(number)
    if not camera.isOpened():
        raise MediaError(
            f"Camera {number} can't be opened: it isn't there, or another program uses it. "
            f"The first camera is camera:0."
        )

    def frames() -> Iterator[Frame]:
        start, index = time.monotonic(), 0
        try:
            while True:
                there, bgr = camera.read()
                if not there:
                    return
                rgb = np.ascontiguousarray(bgr[..., ::-1])
                yield Frame(index, time.monotonic() - start, rgb, name)
                index += 1
        finally:
            camera.release()

    return FrameStream("camera", (name,), None, None, frames())


@contextmanager
def _quiet() -> Iterator[Any]:
    """OpenCV without its own messages: it prints each way it tried to open a camera."""
    import cv2

    logging = cv2.utils.logging
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield cv2
    finally:
        logging.setLogLevel(level)
