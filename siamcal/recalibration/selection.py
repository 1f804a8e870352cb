"""Which rows of a table are a person's reference: by number, by frame, or by time."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from siamcal.errors import ConfigError
from siamcal.recalibration.tools import Layout

__all__ = ["EVERY_ROW", "Selection", "parse_selection", "seconds_of"]

# Steps between frames: no camera takes 4 s a frame, nor more than 1000 frames a second. Times in
# milliseconds and in seconds can't be mistaken for each other so.
LONGEST_STEP, SHORTEST_STEP = 4.0, 1.0
_RANGE = re.compile(r"\s*([\d.]+)\s*(?::\s*([\d.]+)\s*)?", re.ASCII)


@dataclass(frozen=True)
class Selection:
    """Rows from `first` to `last`, both included.

    Attributes:
        kind: "rows" (1-based rows of data), "frames" (the table's own numbers), "time" (seconds).
        first: Beginning.
        last: End.
        text: As the user wrote it.
    """

    kind: str
    first: float
    last: float
    text: str = ""

    def mask(self, layout: Layout, columns: dict[str, np.ndarray], place: str) -> np.ndarray:
        """(N,) bool.

        Raises:
            ConfigError: The table has no such column, or the range lies outside of it.
        """
        count = len(columns[layout.readings[0]])
        if self is EVERY_ROW:
            return np.ones(count, dtype=bool)
        if self.kind == "rows":
            values, slack = np.arange(1, count + 1, dtype=float), 0.0
        elif self.kind == "frames":
            values, slack = self._frames(layout, columns, place), 0.0
        else:
            # A last frame shorter than a step before the end of the range is its end.
            values, slack = seconds_of(layout, columns, place)
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        if self.first < low or self.last > high + slack:
            raise ConfigError(
                f"{self.text} lies outside of {place}, whose {self.kind} go from {low:g} to "
                f"{high:g}. Name a range inside."
            )
        found: np.ndarray = (values >= self.first) & (values <= self.last)
        return found

    def _frames(self, layout: Layout, columns: dict[str, np.ndarray], place: str) -> np.ndarray:
        if not layout.frame:
            raise ConfigError(f"{place} has no column frame; name rows: --reference-rows 1:30.")
        frames = columns[layout.frame]
        if np.isnan(frames).all():
            raise ConfigError(f"{place} has no number in its column {layout.frame}.")
        return frames


EVERY_ROW = Selection("rows", 1, np.inf, "all rows")


def parse_selection(kind: str, text: str) -> Selection:
    """`1:30` or `5`; for rows also `all`.

    Args:
        kind: "rows", "frames" or "time".
        text: What the user wrote.

    Raises:
        ConfigError: It isn't a range.
    """
    option = f"--reference-{kind} {text}"
    if kind == "rows" and text.strip() == "all":
        return EVERY_ROW
    found = _RANGE.fullmatch(text)
    example = "0:2.5" if kind == "time" else "1:30"
    try:
        ends = [float(each) for each in (found.groups() if found else ()) if each]
    except ValueError:
        ends = []
    if not ends or (kind == "time" and len(ends) == 1):
        raise ConfigError(f"{option} isn't a range; write it like {example}, both ends included.")
    first, last = ends[0], ends[-1]
    if kind != "time" and not (first.is_integer() and last.is_integer()):
        raise ConfigError(f"{option}: {kind} are whole numbers, like {example}.")
    if kind == "rows" and first < 1:
        raise ConfigError(f"{option}: rows are counted from 1; the header isn't counted.")
    if first > last:
        raise ConfigError(f"{option} ends before it begins; write it like {example}.")
    return Selection(kind, first, last, option)


def seconds_of(
    layout: Layout, columns: dict[str, np.ndarray], place: str
) -> tuple[np.ndarray, float]:
    """(N,) seconds, and the step between frames; the unit is told by the step.

    Raises:
        ConfigError: There is no column of times, they don't move, or their unit can't be told.
    """
    instead = "name rows instead: --reference-rows 1:30"
    if not layout.time:
        raise ConfigError(f"{place} has no column timestamp or frame_time_in_ms; {instead}.")
    times = columns[layout.time]
    steps = np.diff(np.unique(times[~np.isnan(times)]))
    if not steps.size:
        raise ConfigError(f"{place} has one time in all rows of {layout.time}; {instead}.")
    step = float(np.median(steps))
    milliseconds = layout.time != "timestamp"
    if layout.time == "frame_time_in_ms" and step < SHORTEST_STEP:
        # LibreFace 0.2 writes seconds under this name (frame / fps in its utils.py).
        milliseconds = False
    elif step >= LONGEST_STEP and not milliseconds:
        raise ConfigError(
            f"{place}: {layout.time} goes in steps of {step:g}, which can't be seconds from frame "
            f"to frame; {instead}."
        )
    elif layout.time == "frame_time_in_ms" and step < LONGEST_STEP:
        raise ConfigError(
            f"{place}: {layout.time} goes in steps of {step:g}; whether these are seconds or "
            f"milliseconds can't be told; {instead}."
        )
    scale = 1000.0 if milliseconds else 1.0
    return times / scale, step / scale
