"""What a comparison will do, take and need: told, or refused, before anything is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from siamcal.datasets.base import DatasetSource
from siamcal.environment import usable_cores
from siamcal.errors import ConfigError
from siamcal.evaluation.checkpoints import files_of
from siamcal.evaluation.compare import Job, tasks_of
from siamcal.evaluation.methods import AUTO, parse
from siamcal.evaluation.trial import recipe_of, trainings
from siamcal.files import check_disk_space
from siamcal.model.places import joined
from siamcal.settings import to_dict
from siamcal.training.duration import estimate_seconds
from siamcal.training.loop import accelerator_of
from siamcal.training.networks import build_network
from siamcal.training.resume import checkpoint_bytes
from siamcal.training.start import start_note

__all__ = [
    "FRAMES_A_SECOND",
    "check_folds",
    "check_networks",
    "check_room",
    "check_task",
    "outlook",
    "size_text",
]

# Frames that one core finds, aligns and crops in a second (benchmarks/speed.py); rendering takes
# about as long.
FRAMES_A_SECOND = 60.0


def outlook(
    job: Job,
    participants: int,
    frames: int,
    num_folds: int,
    num_aus: int,
    rate: float = FRAMES_A_SECOND,
    room: int = 0,
) -> str:
    """What a comparison will do and about how long it takes on this machine, in a few lines.

    The numbers are the data set's; one core prepares `rate` of its frames in a second; `room` is
    what `check_networks` says.
    """
    of_a_fold = trainings(job.recipe, job.methods)
    folds_run = len(job.folds or range(num_folds))
    repeats = len(tasks_of(job)) * len(job.seeds or [0])
    preparing = f"{_minutes(frames / rate / usable_cores())} to prepare the faces, the first time"
    lasting = f"Nothing is trained. On this machine about {preparing}."
    if of_a_fold:
        training = repeats * estimate_seconds(
            of_a_fold, frames, num_folds, num_aus=num_aus, folds_run=folds_run
        )
        lasting = (
            f"On this machine about {_minutes(training)} of training ({_device(job)}), and before "
            f"it {preparing}."
        )
    points = [m.partition("@")[2] for m in job.methods if "@" in m]
    lines = [
        start_note(to_dict(job.recipe)),
        f"{job.recipe.dataset}: {participants} participants, {frames} frames, "
        f"{folds_run} folds; {job.recipe.backbone}, "
        f"merge at {', '.join(dict.fromkeys(points)) or joined(job.recipe.merge_at)}; "
        f"{', '.join(tasks_of(job))}; {repeats * folds_run * len(of_a_fold)} trainings.",
        lasting,
        _of_room(job, room),
        f"Run folder: {job.folder} (the same command goes on where it was interrupted).",
    ]
    return "\n".join(line for line in lines if line)


def _of_room(job: Job, room: int) -> str:
    if not room:
        return ""
    after = "deleted when the results are written" if job.drop_checkpoints else (
        "--drop-checkpoints deletes them when the results are written"
    )  # fmt: skip
    return f"Trained networks: up to {size_text(room)} in the run folder; {after}."


def size_text(size: int) -> str:
    """Bytes as people read them: "4.7 GB", "12 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{max(1, round(size / 1e6))} MB"


def _device(job: Job) -> str:
    import torch

    device = accelerator_of(job.recipe).device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()


def _minutes(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    if minutes >= 180:
        return f"{minutes / 60:.0f} hours"
    return f"{minutes} minute{'s' * (minutes != 1)}"


def check_folds(job: Job, num_folds: int, may_grow: bool = False) -> None:
    """Refuse numbers of folds that the data set doesn't have, and one named twice.

    Args:
        job: Its `folds`.
        num_folds: The data set's.
        may_grow: A checkpoint also tests whoever is in no fold, as one fold more.

    Raises:
        ConfigError: The message says which there are.
    """
    folds = list(job.folds) if job.folds is not None else list(range(num_folds))
    wrong = [n for n in folds if not 0 <= n < num_folds + may_grow]
    twice = sorted({n for n in folds if folds.count(n) > 1})
    if wrong or twice or not folds:
        got = f"{wrong[0]}" if wrong else f"{twice[0]} twice" if twice else "none"
        raise ConfigError(
            f"--folds of {job.recipe.dataset}: the folds are 0 to {num_folds - 1}, each once, but "
            f"got {got}. Leave --folds out for all."
        )


def check_task(job: Job, source: DatasetSource) -> None:
    """Refuse a task of which the data set has no labels.

    Raises:
        ConfigError: The message says which it has.
    """
    for task in tasks_of(job):
        if not source.task_aus(task):
            other = "detection" if task == "intensity" else "intensity"
            raise ConfigError(
                f"Data set '{source.name}' has no labels of AU {task}; give --task {other}."
            )


def check_networks(job: Job, num_aus: int, num_folds: int) -> int:
    """Build each network of a comparison once: a wrong backbone, start or merge point is refused.

    Args:
        job: Each of its methods is tried at its merge point.
        num_aus: Number of AUs.
        num_folds: The data set's folds.

    Returns:
        Bytes that the checkpoints of the trainings will take beyond those that are there.

    Raises:
        SiamcalError: Whatever `build_network` refuses.
    """
    trained = trainings(job.recipe, job.methods)
    frozen = [p for p in map(parse, job.methods) if p.kind == "frozen" and p.merge_at != AUTO]
    for parsed in frozen:
        build_network(recipe_of(parsed, job.recipe), num_aus, calibrated=True)
    sizes = [checkpoint_bytes(build_network(r, num_aus, calibrated=c)) for r, c in trained]
    if not sizes:
        return 0
    repeats = len(job.folds or range(num_folds)) * len(tasks_of(job)) * len(job.seeds or [0])
    finished, running = zip(*sizes, strict=True)
    there = sum(path.stat().st_size for path in files_of(job.folder))
    return max(0, repeats * sum(finished) + max(running) - there)


def check_room(folders: Sequence[Path], needed: Sequence[int], what: str) -> None:
    """Refuse what the disks can't hold; folders on one disk are counted together.

    Args:
        folders: Where is written; they need not exist yet.
        needed: Bytes to be written to each.
        what: What needs them, at the start of a sentence ("The trained networks need").

    Raises:
        ConfigError: A disk is too small.
    """
    disks: dict[int, tuple[Path, int]] = {}
    for folder, size in zip(folders, needed, strict=True):
        there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
        disk = there.stat().st_dev
        disks[disk] = disks.get(disk, (there, 0))[0], disks.get(disk, (there, 0))[1] + size
    remedy = "give a folder on a larger disk (--runs; of crops: SIAMCAL_CACHE)"
    for folder, size in disks.values():
        check_disk_space(folder, size, what, remedy)
