"""Choosing each participant's neutral reference frame: by the protocol, a rule, or a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from siamcal.datasets.reading import Problems, examples
from siamcal.errors import ConfigError, DataNotFoundError
from siamcal.files import read_json
from siamcal.table_files import read_table

_MOST_FRAMES = 10**12  # more than any recording has


@dataclass(frozen=True)
class Wanted:
    """A frame named by someone.

    Attributes:
        participant: Who.
        frame: Number as the data set counts.
        sequence: Which recording; None for any.
        view: Which camera; None for each camera's own picture of that frame.
    """

    participant: str
    frame: int
    sequence: str | None = None
    view: str | None = None


def choose_references(
    table: pd.DataFrame, references: str, protocol: Mapping[str, Wanted], problems: Problems
) -> np.ndarray:
    """Mark one reference frame for each participant and view.

    Args:
        table: Frames, as `DatasetSource.table` (column is_reference is ignored).
        references: "protocol" (hand-picked by the paper's authors), "first" (first frame), "auto"
            (middle of the longest stretch of frames without any labelled AU; this reads the labels,
            as a person who picks a frame would), or the path of a CSV or JSON file.
        protocol: Participant -> the protocol's frame.
        problems: Takes warnings about references that aren't there.

    Returns:
        (N,) bool.

    Raises:
        DataNotFoundError: The file isn't there.
        ConfigError: The file names an unknown participant or leaves one out.
    """
    if references == "protocol":
        wanted = [protocol[p] for p in sorted(set(table["participant"])) if p in protocol]
        return _marked(table, wanted, problems)
    if references in ("auto", "first"):
        chosen = _by_rule(table, references)
        warn_of_active(table, chosen, problems)
        return chosen
    return _marked(table, _from_file(Path(references).expanduser(), table), problems)


def _marked(table: pd.DataFrame, wanted: list[Wanted], problems: Problems) -> np.ndarray:
    """Rows of the named frames; where one isn't there, the "auto" rule takes over."""
    marked = np.zeros(len(table), dtype=bool)
    for item in wanted:
        own = (table["participant"] == item.participant).to_numpy()
        named = own & (table["frame"] == item.frame).to_numpy()
        if item.view is not None:
            named &= (table["view"] == item.view).to_numpy()
        if item.sequence is not None:
            named &= (table["sequence"] == item.sequence).to_numpy()
        marked |= named
    chosen = np.zeros(len(table), dtype=bool)
    lost: list[str] = []
    for (participant, view), rows in _groups(table).items():
        named_rows = rows[marked[rows]]
        if len(named_rows):
            chosen[named_rows[0]] = True
        else:
            chosen[rows[_neutral(table.iloc[rows])]] = True
            lost.append(f"{participant} ({view})")
    if lost:
        problems.warning(
            "references",
            f"the named frame isn't there of {examples(lost, 6)}; the middle of the longest "
            f"stretch without labelled AUs is used.",
        )
    return chosen


def warn_of_active(table: pd.DataFrame, chosen: np.ndarray, problems: Problems) -> None:
    """Name the people whose reference shows labelled AUs: it isn't a neutral face."""
    aus = [c for c in table.columns if re.fullmatch(r"AU\d+", c)]
    active = []
    for row in table[chosen].itertuples():
        shown = [au for au in aus if getattr(row, au) > 0]
        if shown:
            active.append(f"{row.participant} ({row.view}): {examples(shown, 4)}")
    if active:
        problems.warning(
            "references",
            f"{len(active)} references show labelled AUs, so they aren't neutral: "
            f"{examples(sorted(active), 6)}. Name other frames in a file: --references FILE.",
        )


def _by_rule(table: pd.DataFrame, rule: str) -> np.ndarray:
    chosen = np.zeros(len(table), dtype=bool)
    for rows in _groups(table).values():
        chosen[rows[0 if rule == "first" else _neutral(table.iloc[rows])]] = True
    return chosen


def _groups(table: pd.DataFrame) -> dict[tuple[str, str], np.ndarray]:
    """Rows of each participant and view in the order of sequence and frame."""
    order = table.reset_index(drop=True).sort_values(["sequence", "frame"], kind="stable")
    grouped = order.groupby(["participant", "view"], sort=True)
    return {(str(p), str(v)): part.index.to_numpy() for (p, v), part in grouped}


def _neutral(frames: pd.DataFrame) -> int:
    """Position of the middle of the longest stretch with the least activity in one sequence."""
    aus = [c for c in frames.columns if re.fullmatch(r"AU\d+", c)]
    values = frames[aus].to_numpy(np.float64)
    # A frame without any valid label may show anything.
    known = (values >= 0).any(axis=1)
    activity = np.where(known, np.where(values >= 0, values, 0.0).sum(axis=1), np.inf)
    calm: np.ndarray = activity == activity.min()
    best, start = (0, 0), None
    sequences = frames["sequence"].to_numpy(dtype=object)
    for i in range(len(calm) + 1):
        goes_on = i < len(calm) and calm[i] and (start is None or sequences[i] == sequences[start])
        if goes_on:
            start = i if start is None else start
        elif start is not None:
            best = max(best, (i - start, -start))
            start = i if i < len(calm) and calm[i] else None
    length, first = best[0], -best[1]
    return first + (length - 1) // 2 if length else 0


def _from_file(path: Path, table: pd.DataFrame) -> list[Wanted]:
    if not path.exists():
        raise DataNotFoundError(
            f"--references is {str(path)!r}: neither 'protocol', 'auto' or 'first' nor a file. A "
            f"file is a CSV with the columns participant, frame and, where needed, sequence and "
            f'view, or a JSON object {{"SN001": 440, "SN002": "sequence/5"}}.'
        )
    rows = _json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path)
    wanted = []
    for place, row in rows:
        number = _frame_number(row["frame"])
        if number is None:
            raise ConfigError(
                f"{place}: the frame is {row['frame']!r:.80}, but must be a whole number from 0 "
                "on, or the name of a picture that ends in one."
            )
        sequence, view = row.get("sequence"), row.get("view")
        wanted.append(
            Wanted(
                str(row["participant"]).strip(),
                number,
                None if sequence in (None, "") else str(sequence),
                None if view in (None, "") else str(view),
            )
        )
    people = set(table["participant"])
    unknown = sorted({w.participant for w in wanted} - people)
    absent = sorted(people - {w.participant for w in wanted})
    if unknown:
        raise ConfigError(f"{path} names {', '.join(unknown)}, who isn't in the data.")
    if absent:
        raise ConfigError(
            f"{path} names no reference of {', '.join(absent[:10])}; each participant needs one."
        )
    return wanted


def _frame_number(text: str) -> int | None:
    """A whole number, or that at the end of a picture's name; None for anything else."""
    try:
        number = float(text)
    except ValueError:
        found = re.search(r"(\d{1,12})(?:\.\w+)?$", text.strip())
        return int(found.group(1)) if found else None
    return int(number) if 0 <= number < _MOST_FRAMES and number.is_integer() else None


def _csv_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    table = read_table(path).astype(str).fillna("")
    missing = {"participant", "frame"} - set(table.columns)
    if missing:
        raise ConfigError(
            f"{path} has the columns {', '.join(map(str, table.columns))}; it needs participant "
            f"and frame, and may have sequence and view."
        )
    return [
        (f"{path}, line {i}", {str(k): v for k, v in row.items()})
        for i, row in enumerate(table.to_dict("records"), 2)
    ]


def _json_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    entries = read_json(path)
    if not isinstance(entries, dict):
        raise ConfigError(f"{path} must hold a JSON object: participant -> frame.")
    rows = []
    for participant, frame in entries.items():
        sequence, _, number = str(frame).rpartition("/")
        row = {"participant": participant, "sequence": sequence, "frame": number}
        rows.append((f"{path}, {participant}", row))
    return rows
