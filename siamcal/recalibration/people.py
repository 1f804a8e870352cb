"""A table as it is calibrated: its readings, which rows can be used, and whose they are."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from siamcal.errors import ConfigError, DataNotFoundError
from siamcal.files import check_file, read_json
from siamcal.recalibration.text_table import TextTable
from siamcal.recalibration.tools import (
    NAME_COLUMNS,
    SIAMCAL,
    SIAMCAL_FIRST,
    SIAMCAL_MORE,
    Layout,
    layout_of,
)

if TYPE_CHECKING:
    from siamcal.recalibration.parquet_table import ParquetTable

__all__ = ["PersonTable", "load_table"]


@dataclass(frozen=True, eq=False)
class PersonTable:
    """N rows with A readings each.

    Attributes:
        source: The file.
        layout: What its columns mean.
        columns: Column -> (N,) numbers or texts.
        values: (N, A) readings, NaN where there is none.
        valid: (N,) rows in which a face was read.
        failures: Why the others are not valid -> number of rows.
        people: (N,) whose row, "" in all where one person is there, whose name isn't known.
        named: `people` are names that mean the same person in another table.
        thresholds: (A,) reading from which an AU counts as present.
    """

    source: TextTable | ParquetTable
    layout: Layout
    columns: dict[str, np.ndarray]
    values: np.ndarray
    valid: np.ndarray
    failures: dict[str, int]
    people: np.ndarray
    named: bool
    thresholds: np.ndarray

    @property
    def everyone(self) -> list[str]:
        """People with a valid row, in the order of their first."""
        return list(dict.fromkeys(self.people[self.valid].tolist()))


def load_table(
    path: Path,
    *,
    tool: str | None = None,
    person: str | None = None,
    min_confidence: float = 0.5,
    check_span: bool = True,
    selected_by: str = "",
) -> PersonTable:
    """Read and check a table.

    Args:
        path: CSV or Parquet, told by content.
        tool: Whose table it is, or None to recognise it.
        person: Column that tells people apart, "none" or None; see `layout_of`.
        min_confidence: Rows with a lower score of the face aren't valid.
        check_span: Refuse values that the tool doesn't write.
        selected_by: "frames" or "time", if rows are to be selected by them.

    Raises:
        DataNotFoundError: The file isn't there.
        ConfigError: It isn't a table that is known, or something in it is wrong; says where.
    """
    if not path.exists():
        raise DataNotFoundError(f"The table {path} doesn't exist.")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name one table in it.")
    check_file(path)
    source = _open(path)
    layout = layout_of(source.columns, str(path), tool, person)
    numeric = layout.numeric(selected_by)
    texts = {*layout.people, *filter(None, [layout.frame])} - set(numeric)
    columns = source.read(numeric, texts)
    values = np.stack([columns[name] for name in layout.readings], axis=1)
    if not len(values):
        raise ConfigError(f"{path} has a header and no rows; there is nothing to read.")
    valid, failures = _valid(layout, columns, values, min_confidence)
    people, named = _people(layout, columns, valid, source)
    table = PersonTable(
        source, layout, columns, values, valid, failures, people, named,
        np.full(len(layout.readings), layout.tool.threshold),
    )  # fmt: skip
    _check_presences(table)
    table = _told_apart(table, path, tool)
    if check_span:
        _check_span(table)
    if person != "none":
        _check_frames(table)
    return table


def _open(path: Path) -> TextTable | ParquetTable:
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise ConfigError(f"{path} can't be read ({error.strerror or error}).") from error
    if start == b"PAR1":
        # pyarrow costs a second, which CSV doesn't need.
        from siamcal.recalibration.parquet_table import ParquetTable

        return ParquetTable(path)
    return TextTable(path)


def _valid(
    layout: Layout, columns: dict[str, np.ndarray], values: np.ndarray, min_confidence: float
) -> tuple[np.ndarray, dict[str, int]]:
    """(N,) bool, and why the others aren't; a row is counted under the first reason."""
    valid = np.ones(len(values), dtype=bool)
    failures = {}
    reasons = {"no reading": np.isnan(values).all(axis=1)}
    if layout.success:
        success = columns[layout.success]
        reasons = {"success 0": ~(success > 0)} | reasons
    if layout.confidence:
        score = columns[layout.confidence]
        reasons[f"{layout.confidence} under {min_confidence:g}"] = ~(score >= min_confidence)
    for reason, failed in reasons.items():
        if count := int((valid & failed).sum()):
            failures[reason] = count
        valid &= ~failed
    return valid, failures


def _people(
    layout: Layout,
    columns: dict[str, np.ndarray],
    valid: np.ndarray,
    source: TextTable | ParquetTable,
) -> tuple[np.ndarray, bool]:
    """(N,) whose row, and whether these are names; see `PersonTable`."""
    told = {
        column: np.array([_plain(text) for text in columns[column].tolist()], dtype=str)
        for column in layout.people
    }
    varied = [column for column, people in told.items() if len(set(people[valid].tolist())) > 1]
    if len(varied) > 1:
        raise ConfigError(
            f"{source.path}: both {' and '.join(varied)} vary; name the column that tells people "
            f"apart: --person {varied[0]} (or --person none: it is one person)."
        )
    column = next(iter([*varied, *(name for name in layout.names if name in told)]), None)
    if column is None:
        return np.full(len(valid), "", dtype=str), False
    blank = np.flatnonzero(valid & (told[column] == ""))
    if blank.size:
        raise ConfigError(f"{source.place(int(blank[0]))}: {column} is empty; whose row is it?")
    return told[column], column in layout.names


def _plain(text: str) -> str:
    """0, 0.0 and 00 are one person."""
    return f"{float(text):g}" if re.fullmatch(r"\d{1,9}(\.0*)?", text, re.ASCII) else text


def _check_presences(table: PersonTable) -> None:
    for name in table.layout.presences.values():
        column = table.columns[name]
        odd = np.flatnonzero(table.valid & ~np.isnan(column) & (column != 0) & (column != 1))
        if odd.size:
            row = int(odd[0])
            raise ConfigError(
                f"{table.source.place(row)}, column {name}: {column[row]:g} is neither 0 nor 1, so "
                f"this isn't {table.layout.tool.title}'s table. Name its tool with --tool, or "
                f"rename the column."
            )


def _told_apart(table: PersonTable, path: Path, tool: str | None) -> PersonTable:
    """Know siamcal's tables, which have OpenFace's columns, by their columns and their AU.._c.

    The AU.._c of OpenFace are a classifier's of their own; siamcal's are 1 exactly where AU.._r
    reaches a threshold, which the file beside the table tells.
    """
    layout = table.layout
    if layout.tool.name not in ("openface", "siamcal") or tool == "openface":
        return table
    thresholds = np.array([_told_threshold(path, name) for name in layout.readings])
    known = replace(table, layout=replace(layout, tool=SIAMCAL), thresholds=thresholds)
    if tool == "siamcal":
        return known
    if not _has_own_columns(table):
        return table
    present = np.stack([table.columns[name] for name in layout.presences.values()], axis=1)
    same = (present == 1) == (table.values >= thresholds)
    return known if same[table.valid].all() else table


def _has_own_columns(table: PersonTable) -> bool:
    """Whether the columns are siamcal's, in its order; a user may have added who is seen."""
    layout, columns = table.layout, table.source.columns
    own = [*SIAMCAL_FIRST, *layout.readings, *layout.presences.values()]
    added = {name for name in columns if not SIAMCAL_MORE.fullmatch(name)}.difference(own)
    return (
        len(layout.presences) == len(layout.readings)
        and [name for name in columns if name in own] == own
        and added <= {*NAME_COLUMNS, *layout.people}
    )


def _told_threshold(path: Path, reading: str) -> float:
    au = int(reading[2:4])
    try:
        aus = read_json(path.with_suffix(".json"))["calibrator"]["aus"]
        told = float(next(each["threshold"] for each in aus if each["au"] == au))
        if not 0 <= told <= SIAMCAL.span[1]:
            raise ValueError(told)
        return told
    except (ValueError, KeyError, TypeError, OverflowError, StopIteration):
        # No sidecar, or somebody else's: what `CalibratorConfig` takes by default.
        return 1.0 if au == 43 else 2.0


def _check_span(table: PersonTable) -> None:
    tool = table.layout.tool
    low, high = tool.span[0] - tool.beyond, tool.span[1] + tool.beyond
    values = np.where(table.valid[:, None], table.values, np.nan)
    found = np.argwhere((values < low) | (values > high))
    if len(found):
        row, column = (int(each) for each in found[0])
        raise ConfigError(
            f"{table.source.place(row)}, column {table.layout.readings[column]}: "
            f"{values[row, column]:g}, but {tool.title} writes {tool.span[0]:g} to "
            f"{tool.span[1]:g}. Is it another tool's table (--tool), or another scale? --no-clip "
            f"takes the values as they are and clips nothing."
        )


def _check_frames(table: PersonTable) -> None:
    """Two rows of one frame are two people, of whom nothing tells which is which."""
    if not table.layout.frame:
        return
    frames = [_plain(str(frame)) for frame in table.columns[table.layout.frame].tolist()]
    seen: dict[tuple[str, str], int] = {}
    for row in np.flatnonzero(table.valid).tolist():
        key = (str(table.people[row]), frames[row])
        first = seen.setdefault(key, row)
        if first != row and frames[row] not in ("", "nan"):
            raise ConfigError(
                f"{table.source.place(first)} and {table.source.place(row)} are both "
                f"{table.layout.frame} {key[1]}: several people or recordings that can't be told "
                f"apart. Name the column that does: --person COLUMN (or --person none: all are one "
                f"person)."
            )
