"""Which frames of a stream are read, what time they have, and smoothing over time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from siamcal.errors import ConfigError
from siamcal.faces.media import Frame, FrameStream
from siamcal.inference.prediction import FrameResult

__all__ = ["Selection", "check_width", "frame_by_frame", "smoothed"]


@dataclass(frozen=True)
class Selection:
    """Which frames of a stream are read; the others aren't looked at and have no rows.

    Attributes:
        every: Every n-th frame, from the first that is read on.
        start: Seconds; frames before aren't read.
        end: Seconds; frames from there on aren't read.
        fps: Pictures follow one another at this rate; without it they have no time.

    Raises:
        ConfigError: A number out of range.
    """

    every: int = 1
    start: float | None = None
    end: float | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ConfigError(f"every takes a whole number from 1 on, but got {self.every}.")
        for name in ("start", "end", "fps"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} takes a number from 0 on, but got {value}.")
        if self.fps == 0:
            raise ConfigError("fps takes a rate above 0, but got 0.")
        if None not in (self.start, self.end) and self.start >= self.end:  # type: ignore[operator]
            raise ConfigError(f"end ({self.end}) must lie behind start ({self.start}), in seconds.")

    @property
    def whole(self) -> bool:
        """Whether every frame is read."""
        return self.every == 1 and self.start is None and self.end is None

    def of(self, stream: FrameStream) -> FrameStream:
        """The chosen frames of a stream, numbered as in the stream.

        Raises:
            ConfigError: Times of pictures without a rate, or a rate for what has its own.
        """
        if self.fps is not None and stream.kind != "images":
            raise ConfigError(
                f"fps is for picture sequences; a {stream.kind} has times of its own. Leave it out."
            )
        timed = stream.kind != "images" or self.fps is not None
        if not timed and (self.start is not None or self.end is not None):
            raise ConfigError("Pictures have no times: give fps with start or end.")
        total = None if self.end is not None or self.start else stream.total
        if total is not None:
            total = math.ceil(total / self.every)
        fps = self.fps if stream.kind == "images" else stream.fps
        return replace(stream, frames=self._frames(stream), total=total, fps=fps)

    def _frames(self, stream: FrameStream) -> Iterator[Frame]:
        taken = 0
        for frame in stream:
            time = frame.index / self.fps if self.fps else frame.timestamp
            if self.start is not None and time < self.start:
                continue
            if self.end is not None and time >= self.end:
                return
            if taken % self.every == 0:
                yield replace(frame, timestamp=time)
            taken += 1


def check_width(width: int) -> None:
    """Refuse a window that has no middle.

    Raises:
        ConfigError: It is even or below 1.
    """
    if width < 1 or width % 2 == 0:
        raise ConfigError(f"smooth takes an odd number of frames (1, 3, 5, ...), but got {width}.")


def smoothed(results: Iterable[FrameResult], width: int) -> Iterator[FrameResult]:
    """Values replaced by their median over a window of frames around each, person by person.

    Frames without values stay so and aren't counted in. An error in `results` is passed on after
    what came before it.

    Args:
        results: In the order of time; of several people those of one frame follow one another.
        width: Frames of the window, odd; 1 changes nothing.

    Raises:
        ConfigError: The width is even or below 1.
    """
    check_width(width)
    if width == 1:
        yield from results
        return
    half = width // 2
    window: list[list[FrameResult]] = []  # `width` frames at most
    error: BaseException | None = None
    source = frame_by_frame(results)
    seen = 0
    while True:
        try:
            frame = next(source)
        except StopIteration:
            break
        except (KeyboardInterrupt, Exception) as stopped:
            error = stopped
            break
        window.append(frame)
        del window[:-width]
        seen += 1
        if seen > half:
            yield from _medians(window, len(window) - 1 - half, half)
    for position in range(len(window) - min(half, seen), len(window)):
        yield from _medians(window, position, half)
    if error is not None:
        raise error


def frame_by_frame(results: Iterable[FrameResult]) -> Iterator[list[FrameResult]]:
    """The results of each frame together, one for each face.

    An error in `results` is passed on after the frame before it.
    """
    together: list[FrameResult] = []
    try:
        for result in results:
            if together and result.index != together[-1].index:
                yield together
                together = []
            together.append(result)
    except (KeyboardInterrupt, Exception):
        if together:
            yield together
        raise
    if together:
        yield together


def _medians(window: list[list[FrameResult]], position: int, half: int) -> Iterator[FrameResult]:
    near = window[max(position - half, 0) : position + half + 1]
    for own in window[position]:
        values = [
            one.values
            for frame in near
            for one in frame
            if one.values is not None and one.face_id == own.face_id
        ]
        yield own if own.values is None else replace(own, values=np.median(values, axis=0))
