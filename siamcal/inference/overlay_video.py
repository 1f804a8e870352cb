"""The video that an overlay is: H.264, frame by frame, the same file of the same pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from siamcal.errors import ConfigError
from siamcal.inference.overlay_picture import OverlayPicture
from siamcal.inference.prediction import FrameResult

__all__ = ["OverlayVideo", "is_own"]

#: The comment in the file by which siamcal knows its own.
COMMENT = "siamcal predict --overlay"
CLOCK = 90_000  # ticks a second, as most recordings count
QUALITY = "20"  # x264's constant rate factor; letters stay sharp
# One thread, and no bits shared out over time (the "macroblock tree"): with them x264 made up to 17
# files of the same pictures in twenty runs, without one of them in sixty.
ALWAYS_ALIKE = {"threads": "1", "x264-params": "mbtree=0"}


def is_own(path: Path) -> bool:
    """Whether a video was drawn by siamcal."""
    problems = (av.FFmpegError, OSError, ValueError)
    # Opened as what it would be: a playlist may lead to a pipe.
    with suppress(*problems), av.open(str(path), format="mp4") as container:
        return bool(container.metadata.get("comment", "") == COMMENT)
    return False


class OverlayVideo:
    """An MP4 that grows frame by frame; the first picture gives its size."""

    def __init__(self, place: Path, path: Path, picture: OverlayPicture, fps: float) -> None:
        self.path, self.picture, self.fps = path, picture, fps
        self._container: Any = av.open(str(place), "w", format="mp4")
        self._container.metadata["comment"] = COMMENT
        self._stream: Any = None
        self._last = -1
        # Frames before the first picture: they wait until the size is known.
        self._waiting: list[tuple[Sequence[FrameResult], float]] = []

    def __enter__(self) -> OverlayVideo:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        try:
            if kind is None:
                with self._told():
                    self._flush()
                    self._mux(self._stream.encode() if self._stream else ())
        finally:
            # Without an error before, this writes the index.
            with self._told() if kind is None else suppress(OSError, av.FFmpegError):
                self._container.close()

    def write(self, rgb: np.ndarray | None, results: Sequence[FrameResult], seconds: float) -> None:
        """Add a frame at its time."""
        with self._told():
            if rgb is None and self._stream is None:
                self._waiting.append((results, seconds))
                return
            waiting, self._waiting = self._waiting, []
            drawn = self.picture.draw(rgb, results)
            for earlier, time in waiting:
                self._encode(self.picture.draw(None, earlier), time)
            self._encode(drawn, seconds)

    def _flush(self) -> None:
        for results, seconds in self._waiting:
            self._encode(self.picture.draw(None, results), seconds)

    def _encode(self, drawn: np.ndarray, seconds: float) -> None:
        if self._stream is None:
            self._stream = self._open_stream(*drawn.shape[:2])
        frame = av.VideoFrame.from_ndarray(drawn, format="rgb24")
        # Two frames at one time, as damaged files have them, still follow each other.
        self._last = max(round(seconds * CLOCK), self._last + 1)
        frame.pts, frame.time_base = self._last, Fraction(1, CLOCK)
        self._mux(self._stream.encode(frame))

    def _open_stream(self, height: int, width: int) -> Any:
        rate = Fraction(self.fps).limit_denominator(1001)
        options = {"crf": QUALITY, "preset": "veryfast", **ALWAYS_ALIKE}
        stream: Any = self._container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, CLOCK)
        return stream

    def _mux(self, packets: Iterable[Any]) -> None:
        for packet in packets:
            self._container.mux(packet)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, av.FFmpegError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"{self.path} can't be written ({reason}).") from error
