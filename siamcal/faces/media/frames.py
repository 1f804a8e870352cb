"""What a stream of frames is, and how raw arrays become one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from siamcal.errors import MediaError

__all__ = ["Frame", "FrameStream", "frames_of"]


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a stream.

    Attributes:
        index: 0-based position in the stream; every frame of a video has one, broken ones too.
        timestamp: Seconds from the start of the video; 0 for image files.
        rgb: (H, W, 3) uint8, upright and with square pixels, or None where the frame couldn't be
            decoded.
        source: File the frame comes from.
        problem: Why `rgb` is None or not to be trusted; "" for a sound frame.
    """

    index: int
    timestamp: float
    rgb: np.ndarray | None
    source: str
    problem: str = ""


@dataclass(frozen=True, eq=False)
class FrameStream:
    """Frames to iterate over once.

    Attributes:
        kind: "video", "images", "camera" or "live" (a pipe or a network address).
        sources: The files, in the order of the frames.
        total: Number of frames where it is known, else None.
        fps: Mean frame rate, for videos that tell it.
        frames: The frames; iterate over the stream itself.
        notes: What was done to the frames and what is to be known about them, in whole sentences.
            Complete only after the last frame.
        estimated: Whether `total` is what a header says or suggests: good for a progress bar.

    Raises:
        MediaError: When it is iterated over a second time, or ends without a single frame.
    """

    kind: str
    sources: tuple[str, ...]
    total: int | None
    fps: float | None
    frames: Iterator[Frame]
    notes: list[str] = field(default_factory=list)
    estimated: bool = False
    _begun: list[bool] = field(default_factory=list, init=False, repr=False)

    @property
    def live(self) -> bool:
        """Whether frames come as they happen, and can't be had a second time."""
        return self.kind in {"camera", "live"}

    def __iter__(self) -> Iterator[Frame]:
        if self._begun:
            raise MediaError(
                f"The frames of {self.sources[0]} were read already; a stream is read once. "
                f"Open it again: siamcal.faces.media.open_media(...)."
            )
        self._begun.append(True)
        return self._some()

    def _some(self) -> Iterator[Frame]:
        empty = True
        for frame in self.frames:
            empty = False
            yield frame
        if empty:
            raise MediaError(f"{', '.join(self.sources[:1])} gave not a single frame.")


def frames_of(given: Iterable[Any]) -> Iterator[Frame]:
    """Frames as they are; raw arrays, (H, W, 3) uint8 RGB, numbered and with timestamp 0.

    Args:
        given: Frames or arrays, one array (H, W, 3), or many as (N, H, W, 3).

    Raises:
        MediaError: Something else is among them.
    """
    items = [given] if isinstance(given, np.ndarray) and given.ndim < 4 else given
    for index, item in enumerate(items):
        if isinstance(item, Frame):
            yield item
        elif isinstance(item, np.ndarray):
            yield Frame(index, 0.0, item, "array")
        else:
            raise MediaError(
                f"A frame is an RGB array (H, W, 3) of uint8 or siamcal.faces.media.Frame, but "
                f"number {index + 1} is of type {type(item).__name__}. Files are opened by "
                f"siamcal.faces.media.open_media(path)."
            )
