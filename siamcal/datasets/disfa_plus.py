"""DISFA+ as its users have it: extracted frames and a label file for each trial and AU."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from siamcal.datasets.base import INVALID, DatasetSource, MaskedLabel
from siamcal.datasets.pictures import (
    Series,
    best_series,
    first_number,
    mismatch,
    series_in,
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
    last_number,
    mask_foreign,
    read_label_text,
    read_metadata,
    reduced,
    report_gaps,
    walk_files,
)
from siamcal.datasets.references import Wanted, choose_references
from siamcal.paper import protocol
from siamcal.registry import datasets

HOLDER = Holder(
    "disfa-plus",
    "DISFA+",
    "free for research after a signed agreement with Mohammad Mahoor, University of Denver "
    "(mohammadmahoor.com, Databases, DISFA+).",
    (
        "DIR/Images/SN001/A1_AU1_TrailNo_1/000.jpg",
        "DIR/Labels/SN001/A1_AU1_TrailNo_1/AU1.txt          000.jpg     0 a line, two header lines",
    ),
)

_PERSON = re.compile(r"SN\d{3}", re.IGNORECASE)
_LABEL = re.compile(r"AU0*(\d{1,2})\.txt", re.IGNORECASE)
_LINE = re.compile(rf"(\S+{IMAGE_PATTERN})\s+(-?\d+)", re.IGNORECASE)
_NAMES_IMAGE = re.compile(rf"\S+{IMAGE_PATTERN}\b", re.IGNORECASE)
# Lines that may stand before the first frame; the distributed files have two.
_HEADER_LINES = 2
_MAX_INTENSITY = 5
_EXPECTED = "a file name and an intensity of 0 to 5 (000.jpg  0)."


@dataclass
class _Trial:
    """Files of one trial; the name is as the folder spells it."""

    participant: str
    name: str
    labels: dict[int, Path] = field(default_factory=dict)
    images: list[Series] = field(default_factory=list)


@datasets.register("disfa-plus")
def disfa_plus(
    data_root: Path | None,
    *,
    references: str = "protocol",
    allow_mismatch: bool = False,
    first_frame: int | str = "auto",
    metadata: str | None = None,
    problems: Problems | None = None,
) -> DatasetSource:
    """DISFA+: 9 people posing and smiling, 12 AUs with intensity (licence needed).

    All nine also appear in DISFA: training on one and testing on the other isn't identity-disjoint.

    Args:
        data_root: Folder that holds Images and Labels.
        references: "protocol", "auto", "first" or a file.
        allow_mismatch: Read trials whose numbers of frames and labels differ by over 1 %.
        first_frame: Number in the name of the picture that belongs to the first label, or "auto":
            told from both ends and the other trials.
        metadata: CSV with a column "participant" and columns to group by.
        problems: Collects findings instead of raising the first (`siamcal data check`).

    Raises:
        DataNotFoundError: No labels or no pictures were found.
        LabelError: A label file is broken.
    """
    problems = problems or Problems()
    root = HOLDER.folder(data_root)
    start = first_number(first_frame)
    facts = protocol()["DISFA+"]
    aus = tuple(facts["aus"])
    trials = _find(root, problems)
    if not any(t.labels for t in trials):
        raise HOLDER.missing(root, f"{root} holds no label file like SN001/.../AU1.txt.")
    if not any(t.images for t in trials):
        raise HOLDER.missing(root, f"{root} holds labels, but no frames.")
    folds = HOLDER.folds({t.participant for t in trials}, root, problems)
    known = {p for fold in folds for p in fold}
    tables = _tables(
        [t for t in trials if t.participant in known], aus, allow_mismatch, start, problems
    )
    if not tables:
        raise HOLDER.missing(root, f"No trial in {root} has both labels and pictures.")
    table = pd.concat(tables, ignore_index=True)
    # References are matched with the table's own spelling of the trial.
    spelling = {(t.participant, _plain(t.name)): t.name for t in trials}
    wanted = {}
    for participant, reference in facts["reference_frames"].items():
        trial, _, number = reference.rpartition("/")
        trial = spelling.get((participant, _plain(trial)), trial)
        wanted[participant] = Wanted(participant, int(number), trial)
    table["is_reference"] = choose_references(table, references, wanted, problems)
    return DatasetSource(
        name="disfa-plus",
        intensity_aus=aus,
        detection_aus=aus,
        folds=reduced(folds, set(table["participant"])),
        table=table,
        participants_table=read_metadata(metadata),
        description="9 people, posed and spontaneous, 12 AUs with intensity",
        licence=HOLDER.licence,
        references=references,
        fps=20.0,
        masked_labels=problems.masked_below(root),
    )


def _find(root: Path, problems: Problems) -> list[_Trial]:
    trials: dict[tuple[str, str], _Trial] = {}
    for folder, names in walk_files(root):
        people = _PERSON.findall(str(folder.relative_to(root)))
        if not people:
            continue
        participant = people[-1].upper()
        key = (participant, _plain(folder.name))
        trial = trials.get(key) or _Trial(participant, folder.name)
        labels = {int(m.group(1)): folder / m.group() for m in map(_LABEL.fullmatch, names) if m}
        images = series_in(folder, names, root)
        for au, path in labels.items():
            keep_first(trial.labels, au, path, problems)
        trial.images += images
        if labels or images:
            trials[key] = trial
    return [trials[key] for key in sorted(trials)]


def _plain(trial: str) -> str:
    """One spelling of a trial's name: the distributed "TrailNo" and "TrialNo" are the same."""
    return trial.lower().replace("trial", "trail")


def _tables(
    trials: list[_Trial], aus: tuple[int, ...], allow: bool, first: int | None, problems: Problems
) -> list[pd.DataFrame]:
    """Rows of every trial with sound labels and pictures."""
    read = []
    for trial in trials:
        columns = _labels(trial, aus, problems)
        if columns is None:
            continue
        labelled = sorted(columns[aus[0]])
        place = f"{trial.participant}/{trial.name}"
        series = best_series(trial.images, len(labelled), place, problems, labelled[0])
        if series is None:
            continue
        if not mismatch(series.folder, len(series.files), len(labelled), problems, allow):
            read.append((trial, columns, labelled, series))
    numbers = {(t.participant, t.name): list(series.files) for t, _, _, series in read}
    ranges = {
        (t.participant, t.name): range(labelled[0], labelled[-1] + 1) for t, _, labelled, _ in read
    }
    found = shifts(numbers, ranges, (0, 1))
    tables = []
    for trial, columns, labelled, series in read:
        key = (trial.participant, trial.name)
        shift = found[key] if first is None else first - labelled[0]
        if shift is None:
            unclear_numbering(series.folder, numbers[key], ranges[key], problems)
            continue
        if shift:
            problems.warning(
                series.folder,
                f"picture {labelled[0] + shift:03d} is taken as label {labelled[0]:03d}: the "
                f"pictures are counted from another number than the labels.",
            )
        images = {number - shift: path for number, path in series.files.items()}
        tables.append(_table(trial, labelled, columns, images, problems))
    return tables


def _labels(
    trial: _Trial, aus: tuple[int, ...], problems: Problems
) -> dict[int, dict[int, float]] | None:
    """AU -> frame -> intensity; None where labels are broken or one side is missing."""
    place = f"{trial.participant}/{trial.name}"
    if not trial.labels or not trial.images:
        side = "label files" if not trial.labels else "frames"
        problems.warning(place, f"the trial has no {side}: left out.")
        return None
    columns: dict[int, dict[int, float]] = {}
    for au in aus:
        path = trial.labels.get(au)
        if path is None:
            folder = next(iter(trial.labels.values())).parent
            problems.error(folder, f"AU{au}.txt is missing; the protocol needs all 12 AUs.")
            return None
        values = _read_labels(path, au, problems)
        if values is None:
            return None
        columns[au] = values
    numbers = sorted(columns[aus[0]])
    for au in aus[1:]:
        other = set(columns[au]) ^ set(numbers)
        if other:
            problems.error(
                trial.labels[au],
                f"the file has {len(columns[au])} frames, but AU{aus[0]}.txt has {len(numbers)} "
                f"(they differ at {examples([f'{n:03d}' for n in sorted(other)])}). Copy it again.",
                len(columns[au]) + _HEADER_LINES,
            )
            return None
    return columns


def _table(
    trial: _Trial,
    numbers: list[int],
    columns: dict[int, dict[int, float]],
    images: dict[int, Path],
    problems: Problems,
) -> pd.DataFrame:
    unlabelled = [f"{n:03d}" for n in sorted(set(images) - set(numbers))]
    lost = [f"{n:03d}" for n in numbers if n not in images]
    report_gaps(f"{trial.participant}/{trial.name}", unlabelled, lost, problems)
    # A missing frame keeps its row: preparing the faces reports it with the others left out.
    sample = next(iter(images.values()))
    sources = [str(images.get(n, sample.with_name(f"{n:03d}.jpg"))) for n in numbers]
    values = {au: [of_frame[n] for n in numbers] for au, of_frame in columns.items()}
    return frame_table(trial.participant, "front", trial.name, numbers, sources, -1, values)


def _read_labels(path: Path, au: int, problems: Problems) -> dict[int, float] | None:
    """Frame number -> intensity of a file of lines `000.jpg     0` after two header lines."""
    lines = read_label_text(path, problems)
    if lines is None:
        return None
    values: dict[int, float] = {}
    foreign: list[MaskedLabel] = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        found = _LINE.fullmatch(text)
        if found is None:
            header = not values and not _NAMES_IMAGE.match(text) and number <= _HEADER_LINES + 3
            if not text or header:
                continue
            problems.error(path, f"{text!r} isn't {_EXPECTED}", number)
            return None
        frame = last_number(Path(found.group(1)).stem)
        if frame is None or frame in values:
            problems.error(path, f"{found.group(1)} has no number or stands here twice.", number)
            return None
        values[frame] = float(found.group(2))
        if not 0 <= values[frame] <= _MAX_INTENSITY:
            foreign.append(MaskedLabel(str(path), number, au, values[frame]))
            values[frame] = INVALID
    if not values:
        problems.error(path, "no line holds a frame and its intensity.", max(len(lines), 1))
        return None
    text = f"{lines[foreign[0].line - 1].strip()!r} isn't {_EXPECTED}" if foreign else ""
    return values if mask_foreign(foreign, len(values), problems, text=text) else None
