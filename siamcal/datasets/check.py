"""Checks a data set on disk: what is there, what is missing or broken, and where."""

from __future__ import annotations

import inspect
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from siamcal.datasets.base import (
    MaskedLabel,
    canonical_name,
    check_options,
    load_dataset,
    root_variable,
)
from siamcal.datasets.pictures import count_frames
from siamcal.datasets.reading import Problem, Problems, examples
from siamcal.environment import usable_cores
from siamcal.errors import DataNotFoundError, MediaError
from siamcal.paper import protocol
from siamcal.progress import progress_bar
from siamcal.registry import datasets

__all__ = ["CheckReport", "check_dataset"]


@dataclass(frozen=True, eq=False)
class CheckReport:
    """Findings about a data set.

    Attributes:
        name: Data set.
        counts: Rows (what, found, expected); expected is None where nothing is known.
        people: One row a participant and view: sequences, frames, missing, unreadable, reference.
        problems: Findings in the order they were met.
        masked: Labels outside 0-5 that count as not known; each is a finding too.
    """

    name: str
    counts: tuple[tuple[str, int, int | None], ...]
    people: pd.DataFrame
    problems: tuple[Problem, ...]
    masked: tuple[MaskedLabel, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing was found that makes training refuse."""
        return not any(problem.level == "error" for problem in self.problems)

    @property
    def complete(self) -> bool:
        """Whether every count is the expected one, where one is known."""
        return all(expected is None or found == expected for _, found, expected in self.counts)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "dataset": self.name,
            "ok": self.ok,
            "complete": self.complete,
            "counts": [
                {"what": what, "found": found, "expected": expected}
                for what, found, expected in self.counts
            ],
            "participants": self.people.to_dict("records"),
            "problems": [vars(problem) for problem in self.problems],
            "masked_labels": [vars(label) for label in self.masked],
        }


def check_dataset(
    name: str,
    data_root: str | os.PathLike[str] | None = None,
    *,
    quick: bool = False,
    **options: Any,
) -> CheckReport:
    """Read all labels and open all pictures of a data set; go on after faults.

    Args:
        name: Registered name.
        data_root: Its folder, else from the environment.
        quick: Look for the files, but don't open them.
        **options: Options of the data set.

    Raises:
        DataNotFoundError: There is nothing to check.
    """
    key, problems = canonical_name(name), Problems(strict=False)
    reader = datasets.get(key)
    if "problems" not in inspect.signature(reader).parameters:
        source = load_dataset(key, data_root, **options)
    else:
        check_options(key, options)
        root = data_root or os.environ.get(root_variable(key)) or None
        folder = None if root is None else Path(root).expanduser()
        try:  # such a reader goes on after a broken label and collects what it finds
            source = reader(folder, problems=problems, **options)
        except DataNotFoundError as missing:
            if not problems.found:
                raise
            # Broken labels left nobody over: what is broken says more than that nobody is there.
            if not any(p.level == "error" for p in problems.found):
                problems.found.append(Problem("error", str(folder), str(missing)))
            broken = sum(p.level == "error" for p in problems.found)
            counts = (("participants", 0, None), ("broken label files", broken, 0))
            return CheckReport(key, counts, pd.DataFrame(), tuple(problems.found))
    faults = _picture_faults(source.table, quick)
    _report_faults(source.table, faults, problems)
    _compare_labels(key, source.table, problems)
    return CheckReport(
        key,
        _counts(key, source.table, faults, problems),
        _people(source.table, faults),
        tuple(problems.found),
        source.masked_labels,
    )


def _picture_faults(table: pd.DataFrame, quick: bool) -> dict[tuple[str, int], str]:
    """(source, source_index) -> what is wrong, for the frames that can't be read."""
    sources = table.groupby("source", sort=False)["source_index"].max()
    names = [str(name) for name in sources.index]

    def look(name: str) -> tuple[int, str]:
        return _look(name, int(sources[name]) >= 0, quick)

    faults: dict[tuple[str, int], str] = {}
    readable: dict[str, tuple[int, str]] = {}
    with ThreadPoolExecutor(usable_cores()) as pool:
        found = pool.map(look, names)
        bar = progress_bar(found, total=len(names), description="open pictures", unit="file")
        readable.update(zip(names, bar, strict=True))
    pairs = zip(table["source"], table["source_index"], strict=True)
    for name, index in pairs:
        frames, fault = readable[str(name)]
        if fault:
            faults[str(name), int(index)] = fault
        elif 0 <= frames <= index:
            faults[str(name), int(index)] = f"the video ends after {frames} frames"
    return faults


def _look(name: str, is_video: bool, quick: bool) -> tuple[int, str]:
    """Number of frames of a video (-1: not counted), and what is wrong with the file or ""."""
    from siamcal.faces.media import read_image

    if not os.path.exists(name):
        return -1, "missing"
    if os.path.getsize(name) == 0:
        return -1, "empty (0 bytes)"
    if quick:
        return -1, ""
    if is_video:
        return count_frames(name)
    try:
        picture = read_image(name)
    except MediaError as error:
        return -1, f"unreadable: {error}".replace(name, Path(name).name)
    return -1, "black" if picture.max() < 16 else ""


def _report_faults(
    table: pd.DataFrame, faults: dict[tuple[str, int], str], problems: Problems
) -> None:
    """One finding a folder (or video) and kind of fault."""
    by_place: dict[tuple[str, str], list[str]] = {}
    reported = {p.place for p in problems.found}
    for (name, index), fault in faults.items():
        path = Path(name)
        kind = fault.split(":")[0]
        place = str(path if index >= 0 else path.parent)
        by_place.setdefault((place, kind), []).append(str(index + 1) if index >= 0 else path.name)
    for (place, kind), names in sorted(by_place.items()):
        if kind == "missing" and place in reported:
            continue  # the reader said so already
        problems.warning(place, f"{len(names)} frames: {kind} ({examples(names)}).")


def _compare_labels(key: str, table: pd.DataFrame, problems: Problems) -> None:
    """DISFA's numbers of label lines are known: tell a label file that was cut short."""
    if key != "disfa":
        return
    expected = protocol()["DISFA"]["label_rows"]
    for participant, count in table.groupby("participant")["frame"].max().items():
        if count != expected.get(str(participant), count):
            problems.warning(
                str(participant),
                f"the label files have {count} lines; the distributed ones have "
                f"{expected[str(participant)]}.",
            )


def _counts(
    key: str, table: pd.DataFrame, faults: dict[tuple[str, int], str], problems: Problems
) -> tuple[tuple[str, int, int | None], ...]:
    expected: dict[str, int | None] = {}
    if key == "disfa":
        rows = protocol()["DISFA"]["label_rows"]
        expected = {
            "participants": len(rows),
            "views": 2,
            "labelled frames": 2 * sum(rows.values()),
        }
    elif key == "disfa-plus":
        expected = {"participants": 9}
    elif key == "unbc":
        # Lucey et al. 2011: 200 sequences of 25 people, 48,398 frames.
        expected = {"participants": 25, "sequences": 200, "labelled frames": 48398}
    kinds = Counter("missing" if f == "missing" else "unreadable" for f in faults.values())
    found = {
        "participants": table["participant"].nunique(),
        "views": table["view"].nunique(),
        "sequences": len(table[["participant", "sequence"]].drop_duplicates()),
        "labelled frames": len(table),
        "masked labels": len(problems.masked),
        "missing pictures": kinds["missing"],
        "unreadable, black or beyond the end": kinds["unreadable"],
        "references": int(table["is_reference"].sum()),
        "broken label files": sum(p.level == "error" for p in problems.found),
    }
    zero = {"missing pictures", "unreadable, black or beyond the end", "broken label files"}
    return tuple(
        (what, int(count), 0 if what in zero else expected.get(what))
        for what, count in found.items()
    )


def _people(table: pd.DataFrame, faults: dict[tuple[str, int], str]) -> pd.DataFrame:
    fault = [
        faults.get((str(s), int(i)), "")
        for s, i in zip(table["source"], table["source_index"], strict=True)
    ]
    marked = table.assign(
        missing=[f == "missing" for f in fault],
        unreadable=[bool(f) and f != "missing" for f in fault],
    )
    grouped = marked.groupby(["participant", "view"], sort=True)
    people = grouped.agg(
        sequences=("sequence", "nunique"),
        frames=("frame", "size"),
        missing=("missing", "sum"),
        unreadable=("unreadable", "sum"),
    ).reset_index()
    references = table[table["is_reference"]].drop_duplicates(["participant", "view"])
    names = {
        (r.participant, r.view): f"{r.sequence}/{r.frame}"
        for r in references[["participant", "view", "sequence", "frame"]].itertuples()
    }
    pairs = zip(people["participant"], people["view"], strict=True)
    people["reference"] = [names.get(pair, "none") for pair in pairs]
    return people
