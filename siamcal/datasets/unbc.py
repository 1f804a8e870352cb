"""UNBC-McMaster Shoulder Pain Archive as its users have it: a picture and a FACS file a frame."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from siamcal.datasets.base import DatasetSource
from siamcal.datasets.pictures import (
    Series,
    best_series,
    is_derived,
    mismatch,
    shifts,
    unclear_numbering,
)
from siamcal.datasets.reading import (
    IMAGE_PATTERN,
    Holder,
    Problems,
    examples,
    frame_table,
    keep_first,
    read_label_text,
    read_metadata,
    walk_files,
)
from siamcal.datasets.references import Wanted, choose_references
from siamcal.paper import protocol
from siamcal.progress import progress_bar
from siamcal.registry import datasets

HOLDER = Holder(
    "unbc",
    "UNBC-McMaster",
    "free for research after a signed agreement; ask Jeffrey Cohn, University of Pittsburgh "
    "(jeffcohn.net, Resources, UNBC-McMaster Shoulder Pain Expression Archive).",
    (
        "DIR/Images/042-ll042/ll042t1aaaff/ll042t1aaaff001.png",
        "DIR/Frame_Labels/FACS/042-ll042/ll042t1aaaff/ll042t1aaaff001_facs.txt",
        "                                       AU intensity onset offset a line; empty: no AU",
    ),
)

_PERSON = re.compile(r"\d{3}-[a-z]{2}\d{3}", re.IGNORECASE)
# Frame number = last three digits, from 1.
_IMAGE = re.compile(rf"(.+?)(\d{{3}}){IMAGE_PATTERN}", re.IGNORECASE)
_LABEL = re.compile(r"(.+?)(\d{3})_facs\.txt", re.IGNORECASE)
_MAX_INTENSITY = 5

# (participant, sequence, frame), lower case.
_Key = tuple[str, str, int]


@datasets.register("unbc")
def unbc(
    data_root: Path | None,
    *,
    references: str = "protocol",
    allow_mismatch: bool = False,
    metadata: str | None = None,
    problems: Problems | None = None,
) -> DatasetSource:
    """UNBC-McMaster: 25 people with shoulder pain, 9 AUs with intensity, AU43 (licence needed).

    Args:
        data_root: Folder that holds Images and Frame_Labels.
        references: "protocol", "auto", "first" or a file.
        allow_mismatch: Read sequences whose numbers of frames and labels differ by over 1 %.
        metadata: CSV with a column "participant" and columns to group by.
        problems: Collects findings instead of raising the first (`siamcal data check`).

    Raises:
        DataNotFoundError: No labels or no pictures were found.
        LabelError: A label file is broken.
    """
    problems = problems or Problems()
    root = HOLDER.folder(data_root)
    facts = protocol()["UNBC-McMaster"]
    aus = tuple(facts["aus_detection"])
    images, labels = _find(root, problems)
    if not labels:
        raise HOLDER.missing(root, f"{root} holds no label file like ll042t1aaaff001_facs.txt.")
    if not images:
        raise HOLDER.missing(root, f"{root} holds labels, but no frames.")
    folds = HOLDER.folds({k[0] for k in images.keys() & labels}, root, problems)
    known = {p for fold in folds for p in fold}
    keys = sorted(k for k in labels if k[0] in known)
    refused = _refused(images, labels, known, allow_mismatch, problems)
    keys = [k for k in keys if k[:2] not in refused]
    _report_gaps(images, labels, known, problems)
    table = _table(keys, images, labels, aus, problems)
    if table.empty:
        raise HOLDER.missing(root, f"No frame in {root} has both a label and a picture.")
    wanted = {}
    for participant, reference in facts["reference_frames"].items():
        sequence, _, stem = reference.rpartition("/")
        wanted[participant] = Wanted(participant, int(stem[-3:]), sequence)
    table["is_reference"] = choose_references(table, references, wanted, problems)
    return DatasetSource(
        name="unbc",
        intensity_aus=tuple(facts["aus_intensity"]),
        detection_aus=aus,
        folds=folds,
        table=table,
        # Closed eyes are coded 0 or 1 only.
        detection_thresholds={43: 1},
        participants_table=read_metadata(metadata),
        description="25 people with shoulder pain, 9 AUs with intensity, 10 for detection",
        licence=HOLDER.licence,
        references=references,
    )


def _find(root: Path, problems: Problems) -> tuple[dict[_Key, Path], dict[_Key, Path]]:
    pictures: dict[tuple[str, str], list[Series]] = {}
    labels: dict[_Key, Path] = {}
    for folder, names in walk_files(root):
        inside = folder.relative_to(root)
        people = _PERSON.findall(str(inside))
        # Pain scores lie beside the FACS files and end in _facs.txt too.
        if not people or any("pspi" in part.lower() for part in inside.parts):
            continue
        participant = people[-1].lower()
        found: dict[str, dict[int, Path]] = {}
        for name in names:
            if match := _LABEL.fullmatch(name):
                key = (participant, match.group(1).lower(), int(match.group(2)))
                keep_first(labels, key, folder / name, problems)
            elif match := _IMAGE.fullmatch(name):
                # Shallow folders come first: a nested copy doesn't replace the original.
                of_sequence = found.setdefault(match.group(1).lower(), {})
                of_sequence.setdefault(int(match.group(2)), folder / name)
        for sequence, files in found.items():
            series = Series(folder, files, is_derived(inside))
            pictures.setdefault((participant, sequence), []).append(series)
    counts = Counter(key[:2] for key in labels)
    images: dict[_Key, Path] = {}
    for place, candidates in pictures.items():
        best = best_series(candidates, counts[place], "/".join(place), problems)
        if best is not None:
            images |= {(*place, number): path for number, path in best.files.items()}
    return images, labels


def _refused(
    images: dict[_Key, Path],
    labels: dict[_Key, Path],
    known: set[str],
    allow: bool,
    problems: Problems,
) -> set[tuple[str, str]]:
    """Sequences whose pictures and labels don't fit each other (errors)."""
    pictures, scored = (_numbers(side, known) for side in (images, labels))
    both = pictures.keys() & scored.keys()
    ranges = {key: range(min(scored[key]), max(scored[key]) + 1) for key in both}
    found = shifts({key: pictures[key] for key in both}, ranges, (0, -1, 1))
    refused = set()
    for key in sorted(both):
        folder = images[(*key, pictures[key][0])].parent
        of_labels = len(scored[key])
        if mismatch(folder, len(pictures[key]), of_labels, problems, allow):
            refused.add(key)
        # Numbers of pictures and FACS files are the same by name: another count is a fault.
        elif found[key] and not allow:
            unclear_numbering(folder, pictures[key], ranges[key], problems, False)
            refused.add(key)
    return refused


def _numbers(side: dict[_Key, Path], known: set[str]) -> dict[tuple[str, str], list[int]]:
    numbers: dict[tuple[str, str], list[int]] = {}
    for participant, sequence, frame in sorted(side):
        if participant in known:
            numbers.setdefault((participant, sequence), []).append(frame)
    return numbers


def _report_gaps(
    images: dict[_Key, Path], labels: dict[_Key, Path], known: set[str], problems: Problems
) -> None:
    """Frames that have only a picture or only labels, by sequence."""
    for here, there, text in (
        (images, labels, "frames have no FACS file: left out"),
        (labels, images, "labelled frames are missing"),
    ):
        lone = [key for key in here if key not in there and key[0] in known]
        for (participant, sequence), count in sorted(Counter(k[:2] for k in lone).items()):
            numbers = sorted(k[2] for k in lone if k[:2] == (participant, sequence))
            problems.warning(
                f"{participant}/{sequence}",
                f"{count} {text} ({examples([f'{n:03d}' for n in numbers])}).",
            )


def _table(
    keys: list[_Key],
    images: dict[_Key, Path],
    labels: dict[_Key, Path],
    aus: tuple[int, ...],
    problems: Problems,
) -> pd.DataFrame:
    folders = {key[:2]: path for key, path in images.items()}
    rows: list[tuple[str, str, int, str]] = []
    values: list[np.ndarray] = []
    for key in progress_bar(keys, description="read FACS files", unit="file"):
        participant, sequence, frame = key
        if (participant, sequence) not in folders:
            continue  # reported as missing already
        intensities = _read_facs(labels[key], aus, problems)
        if intensities is None:
            continue
        sample = folders[participant, sequence]
        # A missing frame keeps its row: preparing the faces reports it with the others left out.
        lost = sample.with_name(f"{sequence}{frame:03d}{sample.suffix}")
        rows.append((*key, str(images.get(key, lost))))
        values.append(intensities)
    if not rows:
        return pd.DataFrame()
    people, sequences, numbers, sources = zip(*rows, strict=True)
    of_aus = dict(zip(aus, np.stack(values, axis=1), strict=True))
    return frame_table(people, "front", sequences, numbers, sources, -1, of_aus)


def _read_facs(path: Path, aus: tuple[int, ...], problems: Problems) -> np.ndarray | None:
    """Intensities (A,) of one frame; an AU that isn't listed is 0, other AUs are passed over."""
    lines = read_label_text(path, problems)
    if lines is None:
        return None
    values = np.zeros(len(aus))
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        fault, au, intensity = _facs_line(line, aus)
        if fault:
            problems.error(path, fault, number)
            return None
        if au in aus:
            position = aus.index(au)
            values[position] = max(values[position], intensity)
    return values


def _facs_line(line: str, aus: tuple[int, ...]) -> tuple[str, int, float]:
    """(what is wrong or "", AU, intensity) of a line `AU intensity onset offset`."""
    try:
        numbers = [float(field) for field in line.replace(",", " ").split()]
    except ValueError:
        return f"{line.strip()!r} isn't a row of numbers: AU intensity onset offset.", 0, 0.0
    if len(numbers) < 2 or not numbers[0].is_integer():  # neither is infinity
        return f"{line.strip()!r} isn't AU intensity onset offset.", 0, 0.0
    if numbers[0] in aus and numbers[1] not in range(_MAX_INTENSITY + 1):
        text = f"AU{numbers[0]:.0f} has intensity {numbers[1]:g}; allowed: 0 to {_MAX_INTENSITY}."
        return text, 0, 0.0
    return "", int(numbers[0]), numbers[1]
