"""What the AU columns and frame numbers of a stranger's table mean, or why it can't be told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from siamcal.datasets.base import au_column
from siamcal.datasets.pictures import count_frames, first_number, mismatch
from siamcal.datasets.reading import Problems, examples, option
from siamcal.errors import ConfigError

__all__ = [
    "from_zero",
    "in_steps",
    "letters_among",
    "occurrence_aus",
    "one_side",
    "report_drift",
    "report_duplicates",
]

# AU12L, AU12_left, AUL12, L12; OpenFace's AU12_r alone is an intensity.
_SIDE = re.compile(
    r"au_?0*(\d{1,2})[ _-]?(left|right|l|r)|(?:au_?)?(l|r)0*(\d{1,2})", re.IGNORECASE
)
_UNREAD = re.compile(r"au[ _-]?\d.*|aus|aucodes?|facs.*|action.?units?", re.IGNORECASE)
_READ = re.compile(r"au_?0*\d{1,2}(?:_r|_c)?", re.IGNORECASE)
_SIDES = ("max", "mean", "left", "right")


def one_side(raw: pd.DataFrame, sides: str, path: Path) -> pd.DataFrame:
    """The table with one column for both sides of an AU; AU columns that aren't read are named.

    Raises:
        ConfigError: Columns of sides without the option, or AU columns with an unknown name.
    """
    if sides not in ("", *_SIDES):
        raise ConfigError(f"sides is {sides!r}; allowed: {', '.join(_SIDES)}.")
    found = _sides(raw)
    both = {au: of_au for au, of_au in found.items() if len(of_au) == 2}
    lone = [c for of_au in found.values() for c in of_au.values() if not _READ.fullmatch(c)]
    named = sorted({c for of_au in both.values() for c in of_au.values()} | set(lone))
    if named and not sides:
        raise ConfigError(
            f"{path} has columns of one side of the face ({examples(named, 6)}). Say how they "
            f"become one AU, {option('sides=max')} (or mean, left, right), or write one column."
        )
    for au, of_au in found.items() if sides else ():
        columns = [of_au[s] for s in ("l", "r") if s in of_au and sides in ("max", "mean", *_of(s))]
        if not columns or (len(of_au) == 1 and _READ.fullmatch(columns[0])):
            continue
        numbers = raw[columns].apply(pd.to_numeric, errors="coerce")
        numbers = numbers.where(numbers >= 0)  # of one unknown side the other says all
        raw = raw.drop(columns=list(of_au.values()))
        raw[au_column(au)] = numbers.mean(axis=1) if sides == "mean" else numbers.max(axis=1)
    others = [c for c in raw.columns if _UNREAD.fullmatch(c) and not _READ.fullmatch(c)]
    if others:
        raise ConfigError(
            f"{path} has columns that look like action units but aren't read: "
            f"{examples(others, 6)}. Write a column AU01, AU12, ... for each AU (codes such as 4+7 "
            f"or L12: 1 in the column of each AU that they name, else 0), or rename them."
        )
    return raw


def _of(side: str) -> tuple[str, ...]:
    return ("left",) if side == "l" else ("right",)


def _sides(raw: pd.DataFrame) -> dict[int, dict[str, str]]:
    """AU -> "l" or "r" -> column."""
    found: dict[int, dict[str, str]] = {}
    for column in raw.columns:
        if match := _SIDE.fullmatch(column):
            au, side = int(match[1] or match[4]), (match[2] or match[3])[0].lower()
            found.setdefault(au, {})[side] = column
    return found


def in_steps(raw: pd.DataFrame, columns: Mapping[int, str], scale: str | float) -> pd.DataFrame:
    """The table with its AU columns on the scale of 0 to 5.

    Raises:
        ConfigError: The scale is neither a positive number nor "A-E".
    """
    if str(scale) in ("5", "5.0"):
        return raw
    raw = raw.copy()
    if str(scale).upper() == "A-E":
        letters = dict(zip("ABCDE", "12345", strict=True))
        for column in columns.values():
            text = raw[column].astype(str).str.strip()
            raw[column] = text.map(lambda value: letters.get(value.upper(), value))
        return raw
    try:
        most = float(scale)
    except ValueError:
        most = 0.0
    if not 0 < most < np.inf:
        raise ConfigError(f"scale is {scale!r}; allowed: A-E, or a positive number such as 1, 100.")
    for column in columns.values():
        numbers = pd.to_numeric(raw[column], errors="coerce") * (5 / most)
        raw[column] = numbers.where(numbers.notna(), raw[column])
    return raw


def letters_among(text: pd.Series) -> str:
    """What to do where a column of AU labels holds the letters of FACS; empty where it doesn't."""
    if not text.str.fullmatch(r"[A-Ea-e]").any():
        return ""
    return f" Where A to E are the intensities of FACS: {option('scale=A-E')}."


def occurrence_aus(
    values: Mapping[int, np.ndarray],
    columns: Mapping[int, str],
    labels: str,
    unscaled: bool,
    path: Path,
) -> set[int]:
    """AUs whose labels are occurrence (0 or 1).

    Raises:
        ConfigError: It can't be told: values between 0 and 1, or 0/1 beside intensities.
    """
    most = {au: float(np.nanmax(v, initial=0)) for au, v in values.items()}
    known = np.concatenate([v[v >= 0] for v in values.values()])
    broken = known[known != np.floor(known)]
    if unscaled and len(broken) and (labels == "occurrence" or max(most.values()) <= 1):
        raise ConfigError(
            f"{path} has values such as {broken[0]:g} and none above {max(most.values()):g}: "
            f"neither occurrence (0 or 1) nor intensity (0 to 5). Where 1 is the strongest "
            f"intensity: {option('scale=1')}; otherwise write 0 or 1."
        )
    if labels == "intensity" or not unscaled:
        return set()
    if labels == "occurrence" or (labels == "auto" and max(most.values()) <= 1):
        return set(values)
    low = {au for au, value in most.items() if value <= 1 and not np.any(values[au] % 1 > 0)}
    marked = {au for au, column in columns.items() if column.lower().endswith("_c")}
    if labels == "mixed":
        return low | marked
    unclear = sorted(au for au in low - marked
                     if most[au] == 1 and not columns[au].lower().endswith("_r"))  # fmt: skip
    if unclear:
        raise ConfigError(
            f"{path}: {examples([columns[au] for au in unclear], 6)} hold only 0 and 1, but other "
            f"AUs go up to {max(most.values()):g}. Where 1 means present: "
            f"{option('labels=mixed')}; where it is the weakest intensity: labels=intensity."
        )
    return marked


def report_duplicates(table: pd.DataFrame, path: Path, problems: Problems) -> None:
    """Rows of one frame and participant that contradict each other are an error."""
    keys = ["source", "source_index", "participant", "view"]
    aus = [c for c in table.columns if re.fullmatch(r"AU\d+", c)]
    twice = table[table.duplicated(keys, keep=False)]
    for _, rows in twice.groupby(keys, sort=False):
        lines = examples([str(int(row) + 2) for row in rows.index])
        differ = [au for au in aus if rows[au].nunique(dropna=False) > 1]
        what = f"the frame {Path(rows['source'].iloc[0]).name}"
        if differ:
            text = f"{what} has other labels in lines {lines} ({examples(differ)}); keep one row."
            problems.error(path, text, int(rows.index[1]) + 2)
    if len(twice):
        problems.warning(path, f"{len(twice)} rows describe a frame that stands here twice.")


def from_zero(
    table: pd.DataFrame, path: Path, first_frame: int | str, problems: Problems
) -> np.ndarray:
    """Index within its video of each row, from 0; -1 of images.

    Where no video has a frame 0, the numbers may count from 1: the ends of the videos tell.
    """
    index = table["source_index"].to_numpy(np.int64)
    first = first_number(first_frame)
    videos = table[index >= 0].groupby("source")["source_index"].agg(["min", "max"])
    if first is not None or not len(videos) or (videos["min"] != 1).any():
        shift = first or 0
    else:
        frames = {name: count_frames(str(name))[0] for name in videos.index}
        past = [name for name, most in videos["max"].items() if most == frames[name]]
        ends = [name for name, most in videos["max"].items() if most == frames[name] - 1]
        if not past or ends:
            problems.error(
                path,
                "the frames of every video begin at 1, and the ends don't tell whether the first "
                f"frame is 0 or 1. Say it: {option('first_frame=0')}, or 1.",
            )
        shift = 1
        problems.warning(path, "the frames of the videos are counted from 1: 1 is the first.")
    result = np.where(index >= 0, index - shift, -1)
    if (result[index >= 0] < 0).any():
        raise ConfigError(f"{path} has a frame below first_frame={shift}; set first_frame=0.")
    return result


def report_drift(table: pd.DataFrame, problems: Problems, allow: bool) -> None:
    """Name videos that don't fit the frame numbers of their rows: another frame rate, likely.

    Rows may be every frame or every k-th, of the whole video; a table may also describe some parts
    of it, and then the last row only says how long it must be.
    """
    videos = table[table["source_index"] >= 0].groupby("source", sort=False)["source_index"]
    for name, index in videos:
        frames, fault = count_frames(str(name))
        if fault:
            continue  # reported when its faces are prepared, and by the check
        rows = np.unique(index.to_numpy())
        step = int(np.median(np.diff(rows))) if len(rows) > 1 else 1
        last, after = int(rows[-1]), int(rows[-1]) + step
        whole = rows[0] <= step and len(rows) * step >= 0.9 * after
        fitting = max(last + 1, min(frames, after)) if whole else max(last + 1, frames)
        mismatch(str(name), frames, fitting, problems, allow, "described by the table")
