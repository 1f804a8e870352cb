"""Which rows of two tables are the same moment of one recording."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from siamcal.errors import ConfigError
from siamcal.recalibration.people import PersonTable
from siamcal.recalibration.selection import seconds_of

__all__ = ["WAYS", "Matching", "Timeline", "match", "one_each", "timeline_of"]

WAYS = ("auto", "frame", "time")
# Tables hold times in milliseconds.
_ROUNDING = 0.001
# Frames whose times drift apart by more than so many frames are other frames.
_MOST_DRIFT = 1.5


@dataclass(frozen=True, eq=False)
class Timeline:
    """When the rows of a table are.

    Attributes:
        place: The table, for messages.
        frames: (N,) numbers, 0 the recording's first frame; None where they aren't known.
        seconds: (N,) times; None where they aren't known.
    """

    place: str
    frames: np.ndarray | None = None
    seconds: np.ndarray | None = None

    @property
    def fps(self) -> float | None:
        """Frames a second of the recording, or of the rows where frames have no numbers."""
        if self.seconds is None:
            return None
        frames = np.arange(len(self.seconds)) if self.frames is None else self.frames
        steps, times = np.diff(frames), np.diff(self.seconds)
        known = (steps > 0) & (times > 0)
        return 1 / _usual(times[known] / steps[known]) if known.any() else None


@dataclass(frozen=True, eq=False)
class Matching:
    """Rows of A and B that are one moment, also with B moved against A.

    Attributes:
        by: "frame" or "time".
        a: (N,) frame numbers or seconds of A's rows.
        b: (M,) of B's.
        step: From row to row of the table that has more of them, in the same unit.
        fps: Frames a second where that is known.
        notes: What a reader should know, in words.
    """

    by: str
    a: np.ndarray
    b: np.ndarray
    step: float
    fps: float | None
    notes: tuple[str, ...] = field(default=())

    @property
    def seconds_per_step(self) -> float | None:
        """Length of `step`."""
        if self.by == "time":
            return self.step
        return self.step / self.fps if self.fps else None

    def rows(self, lag: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """(K,) rows of A and (K,) of B, `lag` steps after A's."""
        if _step(self.a) >= _step(self.b):
            return _nearest(self.a, self.b, lag * self.step, self._slack)
        b, a = _nearest(self.b, self.a, -lag * self.step, self._slack)
        return a, b

    @property
    def _slack(self) -> float:
        return self.step / 2 + _ROUNDING if self.by == "time" else 0.25


def timeline_of(table: PersonTable, rows: np.ndarray) -> Timeline:
    """Numbers and times of some rows of a table that was read with `selected_by="time"`.

    Args:
        table: The table.
        rows: (N,) bool, those of one person.
    """
    layout, place = table.layout, str(table.source.path)
    frames: np.ndarray | None = None
    seconds: np.ndarray | None = None
    if layout.frame:
        numbers = np.array([_number(text) for text in table.columns[layout.frame][rows].tolist()])
        if not np.isnan(numbers[table.valid[rows]]).any() and len(numbers):
            low = float(np.nanmin(numbers))
            frames = numbers - min(layout.tool.first_frame, low if low == 0 else np.inf)
    try:
        seconds = seconds_of(layout, table.columns, place)[0][rows] if layout.time else None
    except ConfigError:  # all the same, or of a unit that can't be told: no times
        seconds = None
    if seconds is not None and np.isnan(seconds[table.valid[rows]]).any():
        seconds = None
    return Timeline(place, frames, seconds)


def _number(text: str) -> float:
    """NaN of what isn't one: names of pictures stand in such columns, too."""
    try:
        number = float(text)
    except ValueError:
        return np.nan
    return number if np.isfinite(number) else np.nan


def one_each(table: PersonTable, rows: np.ndarray) -> np.ndarray:
    """Rows of one person without failed rows of a frame that has a sound one: of other faces.

    Args:
        table: The table.
        rows: (N,) bool.
    """
    column = table.layout.frame or table.layout.time
    if not column:
        return rows
    told = table.columns[column].tolist()
    sound = {told[row] for row in np.flatnonzero(rows & table.valid)}
    return rows & (table.valid | np.array([frame not in sound for frame in told]))


def match(a: Timeline, b: Timeline, by: str = "auto", fps: float | None = None) -> Matching:
    """Match the rows of two tables of one recording.

    Args:
        a: Of one table.
        b: Of the other.
        by: "frame": equal numbers; "time": the nearest row within half of a step; "auto": by frame
            where both have numbers, else by time.
        fps: Frames a second, for a table that has no times.

    Raises:
        ConfigError: There is nothing to match by, the numbers are of frames at other times, or no
            row is in both.
    """
    if by not in WAYS:
        raise ConfigError(f"--match takes {', '.join(WAYS)}, but got {by!r}.")
    if fps is not None and not fps > 0:
        raise ConfigError(f"--fps takes frames a second above 0, but got {fps:g}.")
    a, b = _timed(a, fps), _timed(b, fps)
    way = _way(a, b) if by == "auto" else by
    notes = [*_check_frames(a, b, forced=by == "frame")] if way == "frame" else _rates(a, b)
    mine, theirs = (_places(line, way) for line in (a, b))
    step = min(_step(mine), _step(theirs))
    matching = Matching(way, mine, theirs, step, a.fps or b.fps or fps)
    shared = len(matching.rows()[0])
    if not shared:
        raise ConfigError(
            f"{a.place} and {b.place} have no {way} in common: {_reach(mine, way)} against "
            f"{_reach(theirs, way)}. Are they of one recording?"
        )
    notes += _lengths(a, b, len(mine), len(theirs), shared)
    return replace(matching, notes=tuple(notes))


def _timed(line: Timeline, fps: float | None) -> Timeline:
    if line.seconds is None and line.frames is not None and fps:
        return replace(line, seconds=line.frames / fps)
    return line


def _way(a: Timeline, b: Timeline) -> str:
    if a.frames is not None and b.frames is not None:
        return "frame"
    if a.seconds is not None and b.seconds is not None:
        return "time"
    told = "; ".join(f"{line.place} has {_has(line)}" for line in (a, b))
    raise ConfigError(
        f"The rows can't be matched: {told}. Both need frame numbers (frame, frame_idx) or times "
        f"(timestamp, timestamp_ms, frame_time_in_ms); --fps gives times to a table of numbers."
    )


def _has(line: Timeline) -> str:
    if line.frames is not None:
        return "frame numbers" + (" and times" if line.seconds is not None else " only")
    return "times only" if line.seconds is not None else "neither numbers nor times of frames"


def _places(line: Timeline, way: str) -> np.ndarray:
    """(N,) where the rows are."""
    places = line.frames if way == "frame" else line.seconds
    if places is None:
        what = "frame numbers" if way == "frame" else "times; --fps gives them"
        raise ConfigError(f"{line.place} has no {what}, so --match {way} doesn't go.")
    return places


def _check_frames(a: Timeline, b: Timeline, *, forced: bool) -> list[str]:
    """Frames of one number must be of one moment, as far as times tell."""
    if a.frames is None or b.frames is None or a.seconds is None or b.seconds is None:
        return []
    here, there = _nearest(a.frames, b.frames, 0, 0.25)
    apart = a.seconds[here] - b.seconds[there]
    rate = min(a.fps or np.inf, b.fps or np.inf)
    if not len(apart) or not np.isfinite(rate):
        return []
    if np.nanmax(apart) - np.nanmin(apart) > _MOST_DRIFT / rate:
        told = (
            f"the times of frames with one number drift apart by "
            f"{np.nanmax(apart) - np.nanmin(apart):.2f} s ({a.place} has {a.fps:.4g} frames a "
            f"second, {b.place} {b.fps:.4g})"
        )
        if not forced:
            raise ConfigError(
                f"The tables aren't of the same frames: {told}. Match by --match time, or by "
                f"--match frame if the times are wrong."
            )
        return [told]
    offset = float(np.nanmedian(apart))
    if abs(offset) > _MOST_DRIFT / rate:
        return [f"by their times A is {offset:+.2f} s after B throughout; frame numbers count"]
    return []


def _rates(a: Timeline, b: Timeline) -> list[str]:
    if a.fps is None or b.fps is None or abs(a.fps - b.fps) <= 0.01 * max(a.fps, b.fps):
        return []
    return [
        f"A has {a.fps:.4g} rows a second and B {b.fps:.4g}: each row of the coarser table is held "
        f"against the nearest of the other"
    ]


def _lengths(a: Timeline, b: Timeline, mine: int, theirs: int, shared: int) -> list[str]:
    if mine == theirs == shared:
        return []
    return [f"A has {mine} rows and B {theirs}; {shared} are in both"]


def _reach(places: np.ndarray, way: str) -> str:
    unit = "s" if way == "time" else ""
    return f"{np.nanmin(places):g} to {np.nanmax(places):g} {unit}".strip()


def _step(places: np.ndarray) -> float:
    steps = np.diff(np.unique(places[~np.isnan(places)]))
    return _usual(steps) if steps.size else 1.0


def _usual(steps: np.ndarray) -> float:
    """Mean of the steps that are no gaps: the median of rounded times is rounded, too."""
    return float(steps[steps <= 1.5 * np.median(steps)].mean())


def _nearest(
    places: np.ndarray, others: np.ndarray, shift: float, slack: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `places`, and for each the row of `others` nearest to place + shift, within slack."""
    left, right = (
        pd.DataFrame({"place": places + shift}).rename_axis("left").reset_index(),
        pd.DataFrame({"place": others}).rename_axis("right").reset_index(),
    )
    found = pd.merge_asof(
        left.dropna().sort_values("place"),
        right.dropna().sort_values("place"),
        on="place",
        direction="nearest",
        tolerance=slack,  # type: ignore[arg-type]  # pandas takes floats of float keys
    ).dropna()
    return found["left"].to_numpy(dtype=int), found["right"].to_numpy(dtype=int)
