"""DISFA as its users have it: two views, as videos or as extracted frames."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from siamcal.datasets.base import DatasetSource
from siamcal.datasets.reading import (
    IMAGE_PATTERN,
    Holder,
    Problems,
    examples,
    frame_table,
    keep_first,
    last_number,
    read_label_text,
    read_metadata,
    reduced,
    report_gaps,
    walk_files,
)
from siamcal.datasets.references import Wanted, choose_references
from siamcal.errors import ConfigError
from siamcal.paper import protocol
from siamcal.registry import datasets

logger = logging.getLogger(__name__)

HOLDER = Holder(
    "disfa",
    "DISFA",
    "free for research after a signed agreement with Mohammad Mahoor, University of Denver "
    "(mohammadmahoor.com, Databases, DISFA).",
    (
        "DIR/ActionUnit_Labels/SN001/SN001_au1.txt          frame,intensity a line",
        "DIR/Videos_LeftCamera/LeftVideoSN001_comp.avi      and/or",
        "DIR/Images_LeftCamera/SN001/1.jpg                  extracted frames, from 1",
        "DIR/Video_RightCamera/RightVideoSN001_comp.avi     (Images_RightCamera alike)",
    ),
)

_LABEL = re.compile(r"(SN\d{3})_au0*(\d{1,2})\.txt", re.IGNORECASE)
_VIDEO = re.compile(r".*\.(?:avi|mp4|mov|mkv)", re.IGNORECASE)
_IMAGE = re.compile(rf".*?\d+{IMAGE_PATTERN}", re.IGNORECASE)
_PERSON = re.compile(r"SN\d{3}", re.IGNORECASE)
_VIEW = re.compile(r"left|right", re.IGNORECASE)
_MAX_INTENSITY = 5


@dataclass
class _Files:
    """What was found, by participant (upper case)."""

    labels: dict[tuple[str, int], Path] = field(default_factory=dict)
    videos: dict[tuple[str, str], Path] = field(default_factory=dict)
    images: dict[tuple[str, str], dict[int, Path]] = field(default_factory=dict)


@datasets.register("disfa")
def disfa(
    data_root: Path | None,
    *,
    references: str = "protocol",
    views: str = "both",
    prefer: str = "images",
    metadata: str | None = None,
    problems: Problems | None = None,
) -> DatasetSource:
    """DISFA: 27 people watching films, both views, 12 AUs with intensity (licence needed).

    Args:
        data_root: Folder that holds the videos or frames and the labels.
        references: "protocol", "auto", "first" or a file.
        views: "both" (the paper), "left" or "right".
        prefer: What to read where both are there: "images" or "videos".
        metadata: CSV with a column "participant" and columns to group by.
        problems: Collects findings instead of raising the first (`siamcal data check`).

    Raises:
        DataNotFoundError: No labels or no pictures were found.
        LabelError: A label file is broken.
    """
    problems = problems or Problems()
    for option, value, allowed in (
        ("views", views, ("both", "left", "right")),
        ("prefer", prefer, ("images", "videos")),
    ):
        if value not in allowed:
            raise ConfigError(f"{option} is {value!r}; allowed: {', '.join(allowed)}.")
    root = HOLDER.folder(data_root)
    facts = protocol()["DISFA"]
    aus = tuple(facts["aus_intensity"])
    files = _find(root, problems)
    if not files.labels:
        raise HOLDER.missing(root, f"{root} holds no label file like SN001_au1.txt.")
    if not files.videos and not files.images:
        raise HOLDER.missing(root, f"{root} holds labels, but neither videos nor frames.")
    folds = HOLDER.folds({p for p, _ in files.labels}, root, problems)
    parts = []
    for participant in sorted(p for fold in folds for p in fold):
        labels = _read_participant(participant, files, aus, root, problems)
        if labels is None:
            continue
        for view in ("left", "right") if views == "both" else (views,):
            part = _frames(participant, view, labels, files, prefer, aus, problems)
            if part is not None:
                parts.append(part)
    if not parts:
        raise HOLDER.missing(root, f"No participant in {root} has both labels and pictures.")
    table = pd.concat(parts, ignore_index=True)
    frames = facts["reference_frames_1based"]
    wanted = {p: Wanted(p, int(frame)) for p, frame in frames.items()}
    table["is_reference"] = choose_references(table, references, wanted, problems)
    return DatasetSource(
        name="disfa",
        intensity_aus=aus,
        detection_aus=tuple(facts["aus_detection"]),
        folds=reduced(folds, set(table["participant"])),
        table=table,
        participants_table=read_metadata(metadata),
        description="27 people watching films, two views, 12 AUs with intensity",
        licence=HOLDER.licence,
        references=references,
        fps=float(facts["fps"]),
    )


def _find(root: Path, problems: Problems) -> _Files:
    files = _Files()
    for folder, names in walk_files(root):
        inside = str(folder.relative_to(root))
        frames: dict[tuple[str, str], dict[int, Path]] = {}
        for name in names:
            if found := _LABEL.fullmatch(name):
                key = (found.group(1).upper(), int(found.group(2)))
                keep_first(files.labels, key, folder / name, problems)
            elif _VIDEO.fullmatch(name):
                place = (_last(_PERSON, name, inside).upper(), _last(_VIEW, name, inside).lower())
                if place[0]:
                    # Shallow folders come first: a nested copy doesn't replace the original.
                    files.videos.setdefault(place, folder / name)
            elif _IMAGE.fullmatch(name):
                place = (_last(_PERSON, inside, name).upper(), _last(_VIEW, inside, name).lower())
                number = last_number(Path(name).stem)
                if place[0] and number is not None:
                    frames.setdefault(place, {}).setdefault(number, folder / name)
        for place, numbers in frames.items():
            if place not in files.images:
                files.images[place] = _from_one(numbers, folder, problems)
    _name_views(files, root, problems)
    return files


def _last(pattern: re.Pattern[str], *texts: str) -> str:
    """What the first text that says it says last, or ""."""
    for text in texts:
        if found := pattern.findall(text):
            return str(found[-1])
    return ""


def _name_views(files: _Files, root: Path, problems: Problems) -> None:
    """Pictures whose path names no camera are the left one's, unless that has pictures too."""
    nameless = {p for p, view in [*files.images, *files.videos] if not view}
    for participant in nameless:
        known = {v for p, v in [*files.images, *files.videos] if p == participant and v}
        images = files.images.pop((participant, ""), None)
        video = files.videos.pop((participant, ""), None)
        if known:
            continue
        if images is not None:
            files.images[participant, "left"] = images
        if video is not None:
            files.videos[participant, "left"] = video
    if nameless:
        problems.warning(
            root,
            f"the paths of {examples(sorted(nameless))} name neither left nor right: taken as the "
            f"left camera's where there are no others.",
        )


def _from_one(numbers: dict[int, Path], folder: Path, problems: Problems) -> dict[int, Path]:
    """Frames counted from 1, as the labels are."""
    if 0 not in numbers:
        return numbers
    problems.warning(
        folder, "the frames are counted from 0; they are taken as one lower than the labels'."
    )
    return {number + 1: path for number, path in numbers.items()}


def _read_participant(
    participant: str, files: _Files, aus: tuple[int, ...], root: Path, problems: Problems
) -> np.ndarray | None:
    """Labels (frames, A) of a participant; None where a file is missing or broken."""
    columns: dict[int, np.ndarray] = {}
    for au in aus:
        path = files.labels.get((participant, au))
        if path is None:
            folder = next(p for (person, _), p in files.labels.items() if person == participant)
            problems.error(
                folder.parent,
                f"{participant}_au{au}.txt is missing; the protocol needs AUs "
                f"{', '.join(map(str, aus))}.",
            )
            continue
        values = _read_labels(path, problems)
        if values is not None:
            columns[au] = values
    if len(columns) < len(aus):
        return None
    lengths = {au: len(values) for au, values in columns.items()}
    usual = max(set(lengths.values()), key=list(lengths.values()).count)
    for au, length in lengths.items():
        if length != usual:
            problems.error(
                files.labels[participant, au],
                f"the file ends after {length} frames, but the other AUs of {participant} have "
                f"{usual}. Copy it again.",
                length,
            )
            return None
    return np.stack([columns[au] for au in aus], axis=1)


def _read_labels(path: Path, problems: Problems) -> np.ndarray | None:
    """Intensities (frames,) of one file of lines `frame,intensity`."""
    lines = read_label_text(path, problems)
    if lines is None:
        return None
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        problems.error(path, "the file is empty; expected a line frame,intensity a frame.", 1)
        return None
    values = _quickly(lines)
    if values is not None:
        return values
    values = np.empty(len(lines), dtype=np.float64)
    for number, line in enumerate(lines, 1):
        fields = line.replace(",", " ").replace(";", " ").split()
        fault = _fault(fields, number, line)
        if fault:
            problems.error(path, fault, number)
            return None
        values[number - 1] = float(fields[1])
    return values


def _quickly(lines: list[str]) -> np.ndarray | None:
    """Intensities of faultless lines; None where something must be looked at line by line."""
    try:
        numbers = np.array(",".join(lines).split(","), dtype=np.float64)
    except ValueError:
        return None
    if len(numbers) != 2 * len(lines):
        return None
    frames, values = numbers[0::2], numbers[1::2]
    allowed = np.isin(values, np.arange(_MAX_INTENSITY + 1)).all()
    return values if allowed and (frames == np.arange(1, len(lines) + 1)).all() else None


def _fault(fields: list[str], number: int, line: str) -> str:
    """What is wrong with a label line, or ""."""
    try:
        frame, intensity = (float(field) for field in fields)
    except ValueError:
        return f"{line!r} isn't frame,intensity (such as {number},0)."
    if frame != number:
        return (
            f"the frame is {fields[0]}, but line {number} must hold frame {number}: "
            f"a line is missing, doubled or out of order."
        )
    if intensity not in range(_MAX_INTENSITY + 1):
        return f"the intensity is {fields[1]}; allowed: 0 to {_MAX_INTENSITY}."
    return ""


def _frames(
    participant: str,
    view: str,
    labels: np.ndarray,
    files: _Files,
    prefer: str,
    aus: tuple[int, ...],
    problems: Problems,
) -> pd.DataFrame | None:
    """Rows of one view of one participant; every labelled frame has one."""
    images, video = files.images.get((participant, view)), files.videos.get((participant, view))
    if images is None and video is None:
        problems.warning(f"{participant} ({view})", "there is neither a video nor a frame folder.")
        return None
    count = len(labels)
    if images is not None and (video is None or prefer == "images"):
        # A missing frame keeps its row: preparing the faces reports it with the others left out.
        sample = next(iter(images.values()))
        sources = [
            str(images.get(n, sample.with_name(f"{n}{sample.suffix}"))) for n in range(1, count + 1)
        ]
        indices = np.full(count, -1)
        beyond = [str(n) for n in sorted(images) if n > count]
        lost = [str(n) for n in range(1, count + 1) if n not in images]
        report_gaps(sample.parent, beyond, lost, problems)
    else:
        sources, indices = [str(video)] * count, np.arange(count)
    numbers, values = np.arange(1, count + 1), dict(zip(aus, labels.T, strict=True))
    return frame_table(participant, view, participant, numbers, sources, indices, values)
