"""A user's labels of frames of clips: which clip, which frame, how strong each AU is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from siamcal.errors import ConfigError
from siamcal.inference.recordings import Recording
from siamcal.table_files import read_table

__all__ = ["ClipLabels", "labels_of", "read_labels"]

_AU = re.compile(r"AU0*(\d{1,2})", re.ASCII)
HIGHEST = 5.0
Value = TypeVar("Value", int, str)


@dataclass
class ClipLabels:
    """Labels of one clip.

    Attributes:
        aus: AU -> {frame number, from 1 on: intensity}.
        reference: Number of its reference frame; 0 where none is named.
        person: Whom it shows, where a column says so.
    """

    aus: dict[int, dict[int, float]] = field(default_factory=dict)
    reference: int = 0
    person: str = ""

    def of_frames(self, numbers: np.ndarray) -> dict[int, np.ndarray]:
        """AU -> (N,) labels of frames by number, NaN where there is none."""
        return {
            au: np.array([told.get(int(n), np.nan) for n in numbers])
            for au, told in self.aus.items()
        }


def read_labels(path: Path) -> dict[str, ClipLabels]:
    """Clip -> its labels, from a CSV or Parquet table.

    Columns: `clip`; `frame`, from 1 on; `AU01`, `AU02`, ... from 0 to 5, empty where not labelled;
    and, if wanted, `reference`, the number of the clip's neutral frame, and `person`.

    Raises:
        ConfigError: A column is missing, a cell is wrong (with its row), or a frame is there twice.
    """
    table = read_table(path)
    aus = {name: int(found[1]) for name in table.columns if (found := _AU.fullmatch(str(name)))}
    unknown = [n for n in table.columns if n not in {*aus, "clip", "frame", "reference", "person"}]
    if not {"clip", "frame"} <= set(table.columns) or not aus or unknown:
        raise ConfigError(
            f"{path} needs the columns clip, frame and AU01, AU02, ... and may have reference and "
            f"person, but has {', '.join(map(str, table.columns[:20]))}."
        )
    found: dict[str, ClipLabels] = {}
    for row, cells in enumerate(table.to_dict("records"), 1):
        place = f"{path}, row {row} of data"
        clip = str(cells["clip"]).strip()
        if not clip:
            raise ConfigError(f"{place}: the cell of clip is empty.")
        own = found.setdefault(clip, ClipLabels())
        frame = _whole(cells["frame"], f"{place}, frame")
        own.reference = _same(own.reference, _reference(cells, place), f"{place}: reference", clip)
        person = str(cells.get("person") or "").strip()
        own.person = _same(own.person, person, f"{place}: person", clip)
        for name, au in aus.items():
            value = _intensity(cells[name], f"{place}, {name}")
            told = own.aus.setdefault(au, {})
            if frame in told:
                raise ConfigError(f"{place}: frame {frame} of {clip} is labelled twice.")
            told[frame] = value
    return found


def labels_of(
    labels: Mapping[str, ClipLabels], recordings: Sequence[Recording], path: Path
) -> dict[str, ClipLabels]:
    """Name of a recording -> its labels; recordings without any are left out.

    A clip is named as its table would be (`siamcal predict`), by its file or its file's stem.

    Raises:
        ConfigError: A labelled clip is none of the recordings.
    """
    found = {}
    for clip, own in labels.items():
        fitting = [one.name for one in recordings if clip in _names(one)]
        exact = [one.name for one in recordings if clip == one.name]
        if len(exact or fitting) != 1:
            what = "none" if not fitting else f"several ({', '.join(fitting[:3])})"
            known = ", ".join(one.name for one in recordings[:8])
            raise ConfigError(f"{path} labels the clip {clip!r}, which is {what} of: {known}.")
        found[(exact or fitting)[0]] = own
    return found


def _names(recording: Recording) -> set[str]:
    path = Path(recording.inputs[0])
    return {recording.name, recording.inputs[0], path.name, path.stem}


def _number(value: object) -> float:
    """NaN of what isn't one."""
    try:
        return float(str(value).strip())
    except ValueError:
        return np.nan


def _whole(value: object, place: str) -> int:
    number = _number(value)
    if not 1 <= number < np.inf or number != int(number):
        raise ConfigError(f"{place}: {str(value)[:40]!r}; frames are counted from 1.")
    return int(number)


def _reference(cells: Mapping[str, object], place: str) -> int:
    value = cells.get("reference")
    if value is None or pd.isna(value) or not str(value).strip():
        return 0
    return _whole(value, f"{place}, reference")


def _intensity(value: object, place: str) -> float:
    if value is None or pd.isna(value) or not str(value).strip():
        return np.nan
    number = _number(value)
    if not 0 <= number <= HIGHEST:
        raise ConfigError(
            f"{place}: {str(value)[:40]!r}; an intensity from 0 to 5 is meant, or an empty cell "
            f"where the frame isn't labelled."
        )
    return number


def _same(known: Value, told: Value, place: str, clip: str) -> Value:
    if known and told and known != told:
        raise ConfigError(f"{place} is {told} here, but {known} in an earlier row of {clip}.")
    return known or told
