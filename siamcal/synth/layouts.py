"""Rendered people in the on-disk layouts of DISFA, DISFA+ and UNBC-McMaster.

Folder names, numbering and label files are those in which the licensed sets are distributed
(docs/datasets.md), so the parsers, checks and commands for them run end to end without a licensed
file. The people are rendered; nobody of the original data is shown.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from siamcal.errors import ConfigError
from siamcal.files import make_folder
from siamcal.paper import protocol
from siamcal.parallel import check_workers, in_processes
from siamcal.progress import progress_bar
from siamcal.synth.actions import AUS
from siamcal.synth.dynamics import Track, pose_trial, rest_around, unlabelled_curve
from siamcal.synth.frames import picture
from siamcal.synth.plan import Plan, Recording, Task, draw_recording
from siamcal.synth.render import encode_picture
from siamcal.synth.traits import stream

__all__ = ["LAYOUTS", "Export", "export"]

LAYOUTS = ("disfa", "disfa-plus", "unbc")

# DISFA+ names trials A<number>_AU<units>_TrailNo_<repeat>, "Trail" included.
_TRIALS = (
    "A1_AU1",
    "A3_AU1_2",
    "A5_AU1_4b",
    "A7_AU4",
    "A9_AU4_5x",
    "A11_AU6_12",
    "A13_AU9_17",
    "A15_AU15",
    "A17_AU20_25",
    "A19_AU25_26",
)
_UNBC_EXTRA = (7, 10, 43)


@dataclass(frozen=True)
class Export:
    """What to write.

    Attributes:
        layout: One of :data:`LAYOUTS`.
        folder: Where; it may exist, equal files are overwritten.
        participants: How many of the layout's participants, in order.
        frames: Frames of each recording.
        sequences: Recordings of a participant (DISFA+ and UNBC).
        videos: Whether DISFA's videos are written.
        images: Whether single frames are written (always, but for DISFA).
        plan: Population, picture size and bias of what is rendered.
    """

    layout: str
    folder: Path
    participants: int
    frames: int
    sequences: int = 2
    videos: bool = True
    images: bool = True
    plan: Plan = field(default_factory=Plan)

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ConfigError(f"layout is {self.layout!r}; allowed: {', '.join(LAYOUTS)}.")
        most = len(_participants(self.layout))
        if not 1 <= self.participants <= most:
            raise ConfigError(
                f"{self.layout} has {most} participants; {self.participants} were asked for."
            )
        if self.frames < 2 or self.sequences < 1:
            raise ConfigError("At least 2 frames and 1 sequence a participant are needed.")
        if self.layout == "unbc" and self.frames > 999:
            raise ConfigError("UNBC numbers frames with three digits: at most 999 a sequence.")
        if self.layout == "disfa" and not (self.videos or self.images):
            raise ConfigError("Neither videos nor images were asked for: choose at least one.")


def _participants(layout: str) -> list[str]:
    name = {"disfa": "DISFA", "disfa-plus": "DISFA+", "unbc": "UNBC-McMaster"}[layout]
    return sorted(p for fold in protocol()[name]["folds_val"] for p in fold)


def _plan(job: Export, sequences: int) -> Plan:
    views = ("left", "right") if job.layout == "disfa" else ("front",)
    length = job.frames * sequences
    return dataclasses.replace(
        job.plan,
        participants=job.participants,
        frames=length,
        length=length,
        clips=sequences,
        views=views,
    )


def _recording(plan: Plan, person: int, clip: int, neutral: int | None) -> Recording:
    """Return a clip whose frame `neutral` (0-based, or None) lies in a resting stretch."""
    recording = draw_recording(plan, person, clip)
    if neutral is None:
        return recording
    return dataclasses.replace(recording, track=rest_around(recording.track, neutral))


def _write(path: Path, data: bytes) -> None:
    make_folder(path.parent)
    path.write_bytes(data)


def _labels(track: Track, neutral: int | None) -> np.ndarray:
    """Return integer intensities (N, 12)."""
    values = np.round(track.intensity).astype(int)
    if neutral is not None:
        values[neutral] = 0
    return values


def _disfa(job: Export, index: int) -> int:
    """Write one participant of DISFA; returns the number of frames."""
    plan, name = _plan(job, 1), _participants("disfa")[index]
    facts, person = protocol()["DISFA"], plan.people[index]
    # The real SN010 has one frame less than all others.
    count = min(job.frames, facts["label_rows"][name])
    wanted = int(facts["reference_frames_1based"][name]) - 1
    neutral = wanted if wanted < count else 0
    recording = _recording(plan, person, 0, neutral)
    for column, au in enumerate(AUS):
        lines = [
            f"{k + 1},{v}\n"
            for k, v in enumerate(_labels(recording.track, neutral)[:count, column])
        ]
        path = job.folder / "ActionUnit_Labels" / name / f"{name}_au{au}.txt"
        _write(path, "".join(lines).encode())
    for view, videos, stem in (
        ("left", "Videos_LeftCamera", "LeftVideo"),
        ("right", "Video_RightCamera", "RightVideo"),
    ):
        writer = None
        if job.videos:
            path = job.folder / videos / f"{stem}{name}_comp.avi"
            make_folder(path.parent)
            size = (plan.image_size, plan.image_size)
            codec = cv2.VideoWriter.fourcc(*"MJPG")
            writer = cv2.VideoWriter(str(path), codec, float(facts["fps"]), size)
            if not writer.isOpened():
                raise ConfigError(f"{path} can't be written: OpenCV has no MJPG encoder here.")
        for frame in range(count):
            task = Task(person, view, 0, 0, 1)
            image, quality, _ = picture(plan, task, frame, recording, frame == neutral)
            if writer is not None:
                writer.write(np.ascontiguousarray(image[..., ::-1]))
            if job.images:
                folder = f"Images_{view.capitalize()}Camera"
                _write(
                    job.folder / folder / name / f"{frame + 1}.jpg",
                    encode_picture(image, ".jpg", quality),
                )
        if writer is not None:
            writer.release()
    return 2 * count


def _trials(job: Export, name: str, number: int) -> list[str]:
    """Return the names of a participant's trials; the protocol's reference trial comes first."""
    reference = protocol()["DISFA+"]["reference_frames"][name].rpartition("/")[0]
    rng = stream(job.plan.seed, number, 40)
    others = [f"{stem}_TrailNo_{k}" for k in (1, 2, 3) for stem in rng.permutation(_TRIALS)]
    others = [trial for trial in others if trial != reference]
    return [reference, *others[: job.sequences - 1]]


def _disfa_plus(job: Export, index: int) -> int:
    plan, name = _plan(job, job.sequences), _participants("disfa-plus")[index]
    person = plan.people[index]
    wanted = int(protocol()["DISFA+"]["reference_frames"][name].rpartition("/")[2])
    for clip, trial in enumerate(_trials(job, name, person)):
        neutral = min(wanted, job.frames - 1) if clip == 0 else None
        recording = draw_recording(plan, person, clip)
        units = [int(u.rstrip("bx")) for u in trial.split("_AU")[1].split("_Trail")[0].split("_")]
        posed = pose_trial(recording.track, units, stream(plan.seed, person, 41, clip))
        recording = dataclasses.replace(recording, track=posed)
        labels = _labels(posed, neutral)
        for column, au in enumerate(AUS):
            head = f"Intensity labels of AU{au}\nFrame\tIntensity\n"
            lines = [f"{k:03d}.jpg     {v}\n" for k, v in enumerate(labels[:, column])]
            path = job.folder / "Labels" / name / trial / f"AU{au}.txt"
            _write(path, (head + "".join(lines)).encode())
        for frame in range(job.frames):
            task = Task(person, "front", clip, 0, 1)
            image, quality, _ = picture(plan, task, frame, recording, frame == neutral)
            _write(
                job.folder / "Images" / name / trial / f"{frame:03d}.jpg",
                encode_picture(image, ".jpg", quality),
            )
    return job.frames * job.sequences


def _facs_lines(values: dict[int, float]) -> str:
    """Return a FACS file: a row `AU intensity onset offset` for each action, empty if none."""
    rows = [(au, value, 0.0, 0.0) for au, value in values.items() if value > 0]
    return "".join("".join(f"   {number:.7e}" for number in row) + "\n" for row in rows)


def _unbc(job: Export, index: int) -> int:
    plan, name = _plan(job, job.sequences), _participants("unbc")[index]
    person, facts = plan.people[index], protocol()["UNBC-McMaster"]
    place, _, stem = facts["reference_frames"][name].rpartition("/")
    wanted = int(stem[-3:]) - 1
    code = name.split("-")[1]
    for clip in range(job.sequences):
        sequence = place if clip == 0 else f"{code}t{1 + clip % 2}{chr(97 + clip)}zaff"
        neutral = min(wanted, job.frames - 1) if clip == 0 else None
        recording = _recording(plan, person, clip, neutral)
        rng = stream(plan.seed, person, 42, clip)
        extra = {
            au: unlabelled_curve(rng, len(recording.track), recording.track.fps)
            for au in _UNBC_EXTRA
        }
        if neutral is not None:
            for curve in extra.values():
                curve[neutral] = 0.0
        moves = dict(recording.track.nuisance)
        moves |= {"lid_tightener": extra[7] / 5, "lip_raiser": extra[10] / 5}
        blink = np.maximum(recording.track.blink, np.clip(extra[43] - 1.0, 0, 1))
        track = dataclasses.replace(recording.track, nuisance=moves, blink=blink)
        recording = dataclasses.replace(recording, track=track)
        labels = _labels(track, neutral)
        for frame in range(job.frames):
            values: dict[int, float] = dict(zip(AUS, labels[frame].tolist(), strict=True))
            values |= {au: round(float(extra[au][frame])) for au in (7, 10)}
            values[43] = float(blink[frame] > 0.75 and frame != neutral)
            coded = {au: values[au] for au in sorted(values) if au in facts["aus_detection"]}
            file = f"{sequence}{frame + 1:03d}"
            facs = job.folder / "Frame_Labels" / "FACS" / name / sequence / f"{file}_facs.txt"
            _write(facs, _facs_lines(coded).encode())
            task = Task(person, "front", clip, 0, 1)
            image, _, _ = picture(plan, task, frame, recording, frame == neutral)
            _write(
                job.folder / "Images" / name / sequence / f"{file}.png",
                encode_picture(image, ".png"),
            )
    return job.frames * job.sequences


_WRITERS: dict[str, Callable[[Export, int], int]] = {
    "disfa": _disfa,
    "disfa-plus": _disfa_plus,
    "unbc": _unbc,
}


def export(job: Export, workers: int = 1) -> Path:
    """Write rendered people in a licensed data set's layout.

    The reference frames of the protocol show the neutral face wherever the recording is long
    enough to reach them; otherwise the first frame does.

    Args:
        job: What to write and where.
        workers: Processes.

    Returns:
        The folder, as `--data-root` takes it.
    """
    check_workers(workers)
    total = job.participants * job.frames * (2 if job.layout == "disfa" else job.sequences)
    make_folder(job.folder)
    work, people = functools.partial(_WRITERS[job.layout], job), range(job.participants)
    workers = min(workers, job.participants)
    with (
        progress_bar(total=total, description=f"Writing {job.layout}", unit="frame") as bar,
        contextlib.closing(in_processes(work, people, workers, "renders people")) as counts,
    ):
        for count in counts:
            bar.update(count)
    return job.folder
