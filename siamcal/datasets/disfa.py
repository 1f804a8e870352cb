"""DISFA as its users have it: two views, as videos or as extracted frames."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from siamcal.datasets.base import INVALID, DatasetSource, MaskedLabel
from siamcal.datasets.pictures import (
    Series,
    best_series,
    count_frames,
    first_number,
    is_derived,
    joined_parts,
    mismatch,
    series_in,
    shifts,
    tolerance,
    unclear_numbering,
)
from siamcal.datasets.reading import (
    Holder,
    Problems,
    examples,
    frame_table,
    keep_first,
    mask_foreign,
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
_PERSON = re.compile(r"SN\d{3}", re.IGNORECASE)
# A word of its own (left_camera), part of a compound (LeftVideoSN001, VideosLeft), never of
# another word (upright, bright, cleft, leftover).
_VIEW = re.compile(
    r"(?:(?<![A-Za-z])(?i:left|right)|(?<=[a-z])(?:Left|Right)"
    r"|(?<=camera)(?i:left|right)|(?<=video)(?i:left|right))"
    r"(?=(?i:cam|video|view|frame|image|img|side|sn\d)|[A-Z_\W\d]|$)"
)
_MAX_INTENSITY = 5


@dataclass
class _Files:
    """What was found, by participant (upper case)."""

    labels: dict[tuple[str, int], Path] = field(default_factory=dict)
    videos: dict[tuple[str, str], list[Path]] = field(default_factory=dict)
    images: dict[tuple[str, str], list[Series]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Options:
    root: Path
    views: tuple[str, ...]
    prefer: str
    allow_mismatch: bool
    first_frame: int | None


# What a view of a participant is read from.
_Pictures = dict[tuple[str, str], Series | Path]


@datasets.register("disfa")
def disfa(
    data_root: Path | None,
    *,
    references: str = "protocol",
    views: str = "both",
    prefer: str = "images",
    allow_mismatch: bool = False,
    first_frame: int | str = "auto",
    metadata: str | None = None,
    problems: Problems | None = None,
) -> DatasetSource:
    """DISFA: 27 people watching films, both views, 12 AUs with intensity (licence needed).

    Args:
        data_root: Folder that holds the videos or frames and the labels.
        references: "protocol", "auto", "first" or a file.
        views: "both" (the paper), "left" or "right".
        prefer: What to read where both are there and complete: "images" or "videos".
        allow_mismatch: Read recordings whose numbers of frames and labels differ by over 1 %.
        first_frame: Number in the name of the picture that belongs to label 1, or "auto": told
            from both ends, the other view and the other people.
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
    options = _Options(
        root,
        ("left", "right") if views == "both" else (views,),
        prefer,
        allow_mismatch,
        first_number(first_frame),
    )
    facts = protocol()["DISFA"]
    aus = tuple(facts["aus_intensity"])
    files = _find(root, problems)
    if not files.labels:
        raise HOLDER.missing(root, f"{root} holds no label file like SN001_au1.txt.")
    if not files.videos and not files.images:
        raise HOLDER.missing(root, f"{root} holds labels, but neither videos nor frames.")
    folds = HOLDER.folds({p for p, _ in files.labels}, root, problems)
    labels = {}
    for participant in sorted(p for fold in folds for p in fold):
        values = _read_participant(participant, files, aus, root, problems)
        if values is not None:
            labels[participant] = values
    pictures = _choose(labels, files, options, problems)
    parts = _rows(pictures, labels, aus, options, problems)
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
        masked_labels=problems.masked_below(root),
    )


def _find(root: Path, problems: Problems) -> _Files:
    files = _Files()
    for folder, names in walk_files(root):
        inside = str(folder.relative_to(root))
        for name in names:
            if found := _LABEL.fullmatch(name):
                key = (found.group(1).upper(), int(found.group(2)))
                keep_first(files.labels, key, folder / name, problems)
            elif _VIDEO.fullmatch(name):
                person = _last(_PERSON, name, inside).upper()
                if person:
                    view = _view(folder.relative_to(root) / Path(name).stem, folder, problems)
                    files.videos.setdefault((person, view), []).append(folder / name)
        _add_images(files, folder, names, root, problems)
    files.images = {place: joined_parts(found) for place, found in files.images.items()}
    _name_views(files, root, problems)
    return files


def _add_images(
    files: _Files, folder: Path, names: list[str], root: Path, problems: Problems
) -> None:
    """The numberings of a folder, by the person and camera that its path or their names say."""
    inside = folder.relative_to(root)
    for series in series_in(folder, names, root):
        stem = next(iter(series.files.values())).stem
        person = _last(_PERSON, str(inside), stem).upper()
        if person and not _PERSON.fullmatch(stem):
            of_person = {n: p for n, p in series.files.items()
                         if _last(_PERSON, str(inside), p.stem).upper() == person}  # fmt: skip
            view = _view(inside / stem.rstrip("0123456789"), folder, problems)
            found = files.images.setdefault((person, view), [])
            found.append(Series(folder, of_person, series.derived))


def _view(inside: Path, place: Path, problems: Problems) -> str:
    """The camera that a path names; a path that names both is refused."""
    named = [set(map(str.lower, _VIEW.findall(part))) for part in inside.parts]
    single = {next(iter(views)) for views in named if len(views) == 1}
    if len(single) > 1:
        problems.error(
            place,
            f"'{inside}' names the left and the right camera; rename the folder or the file so "
            f"that the path names the camera whose pictures they are.",
        )
    return single.pop() if len(single) == 1 else ""


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
        values = _read_labels(path, au, problems)
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


def _read_labels(path: Path, au: int, problems: Problems) -> np.ndarray | None:
    """Intensities (frames,) of one file of lines `frame,intensity`."""
    lines = read_label_text(path, problems)
    if lines is None:
        return None
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        problems.error(path, "the file is empty; expected a line frame,intensity a frame.", 1)
        return None
    whole = _quickly(lines)
    if whole is not None:
        return whole
    foreign: list[MaskedLabel] = []
    values = np.empty(len(lines), dtype=np.float64)
    for number, line in enumerate(lines, 1):
        fields = line.replace(",", " ").replace(";", " ").split()
        fault = _fault(fields, number, line)
        if fault:
            problems.error(path, fault, number)
            return None
        values[number - 1] = float(fields[1])
        if not 0 <= values[number - 1] <= _MAX_INTENSITY:
            foreign.append(MaskedLabel(str(path), number, au, float(values[number - 1])))
            values[number - 1] = INVALID
    return values if mask_foreign(foreign, len(lines), problems) else None


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
    if not intensity.is_integer():  # neither is infinity
        return f"the intensity is {fields[1]}; allowed: 0 to {_MAX_INTENSITY}."
    return ""


def _choose(
    labels: dict[str, np.ndarray], files: _Files, options: _Options, problems: Problems
) -> _Pictures:
    """The pictures of each participant and view: one video or one numbering of frames."""
    chosen: _Pictures = {}
    for participant, values in labels.items():
        for view in options.views:
            key, place = (participant, view), f"{participant} ({view})"
            series = best_series(files.images.get(key, []), len(values), place, problems)
            video = _best_video(files.videos.get(key, []), options.root, place, problems)
            if series is None and video is None:
                problems.warning(place, "there is neither a video nor a frame folder.")
                continue
            used = series if video is None else _better(series, video, len(values), options)
            if series is not None and video is not None and used is not None:
                other = str(video) if used is series else str(series)
                wanted = series if options.prefer == "images" else video
                if used is not wanted:
                    problems.warning(place, f"{used} is used; passed over: {other}.")
            if used is not None:
                chosen[key] = used
    return chosen


def _best_video(found: list[Path], root: Path, place: str, problems: Problems) -> Path | None:
    """The distributed video rather than one that a program wrote; else the less deep one."""
    if not found:
        return None
    best = min(found, key=lambda path: is_derived(path.relative_to(root)))
    others = [str(path) for path in found if path is not best]
    if others:
        problems.warning(place, f"{best} is used; passed over: {examples(others)}.")
    elif is_derived(best.relative_to(root)):
        problems.warning(place, f"{best} is used, though the path says that a program wrote it.")
    return best


def _better(series: Series | None, video: Path, count: int, options: _Options) -> Series | Path:
    """Frames or video: the original one, the complete one, then the preferred one."""
    if series is None:
        return video

    def faults(derived: bool, frames: int) -> tuple[bool, bool]:
        return derived, abs(frames - count) > tolerance(count)

    of_series = faults(series.derived, len(series.files))
    # The video is opened only where it may decide.
    if options.prefer == "images" and not any(of_series):
        return series
    frames, _ = count_frames(video)
    of_video = faults(is_derived(video.relative_to(options.root)), count if frames < 0 else frames)
    if of_series == of_video:
        return series if options.prefer == "images" else video
    return series if of_series < of_video else video


def _rows(
    pictures: _Pictures,
    labels: dict[str, np.ndarray],
    aus: tuple[int, ...],
    options: _Options,
    problems: Problems,
) -> list[pd.DataFrame]:
    """Rows of each view of each participant; every labelled frame has one."""
    numbers = {k: list(s.files) for k, s in pictures.items() if isinstance(s, Series)}
    labelled = {key: range(1, len(labels[key[0]]) + 1) for key in numbers}
    found = shifts(numbers, labelled, (0, -1))
    parts = []
    for key, used in pictures.items():
        participant, view = key
        count, allow = len(labels[participant]), options.allow_mismatch
        if isinstance(used, Series):
            if mismatch(used.folder, len(used.files), count, problems, allow):
                continue
            first = options.first_frame
            shift = found[key] if first is None else first - 1
            if shift is None:
                unclear_numbering(used.folder, numbers[key], labelled[key], problems)
                continue
            sources, indices = _of_series(used, shift, count, problems), np.full(count, -1)
        else:
            frames, fault = count_frames(used)
            # An unreadable video is reported when its faces are prepared, and by the check.
            if not fault and mismatch(used, frames, count, problems, allow):
                continue
            sources, indices = [str(used)] * count, np.arange(count)
        order, values = np.arange(1, count + 1), labels[participant].T
        of_aus = dict(zip(aus, values, strict=True))
        parts.append(frame_table(participant, view, participant, order, sources, indices, of_aus))
    return parts


def _of_series(series: Series, shift: int, count: int, problems: Problems) -> list[str]:
    """Picture of each label; a missing frame keeps its row: preparing the faces reports it."""
    if shift:
        problems.warning(
            series.folder,
            f"the frames are counted from {1 + shift}: picture {1 + shift} is taken as label 1.",
        )
    images = {number - shift: path for number, path in series.files.items()}
    sample = next(iter(images.values()))
    beyond = [str(n) for n in sorted(images) if not 1 <= n <= count]
    lost = [str(n) for n in range(1, count + 1) if n not in images]
    report_gaps(sample.parent, beyond, lost, problems)
    empty = [sample.with_name(f"{n + shift}{sample.suffix}") for n in range(1, count + 1)]
    return [str(images.get(n, path)) for n, path in enumerate(empty, 1)]
