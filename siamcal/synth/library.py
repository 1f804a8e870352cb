"""Rendered data on disk: made once in parallel, resumed where it was interrupted, checked."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from siamcal.environment import usable_cores
from siamcal.errors import ConfigError, DataNotFoundError
from siamcal.files import cache_dir, check_disk_space, make_folder, read_json, write_json
from siamcal.parallel import check_workers, in_processes
from siamcal.progress import progress_bar
from siamcal.synth.plan import RENDERER_VERSION, Plan, Task, draw_person, tasks
from siamcal.table_files import read_table, write_parquet

__all__ = ["ensure_rendered", "manifest", "read_tables", "rendered_folder", "verify"]

logger = logging.getLogger(__name__)


def rendered_folder(plan: Plan, root: Path | None = None) -> Path:
    """Return the folder of a plan: below `root`, or the user's cache."""
    return (root or cache_dir() / "synth") / plan.key()


def _is_done(folder: Path, task: Task) -> bool:
    return (folder / "parts" / f"{task.name}.json").exists()


def _render_all(plan: Plan, todo: list[Task], folder: Path, workers: int) -> None:
    from siamcal.synth.frames import run_task

    done = plan.total - sum(task.stop - task.start for task in todo)
    work = functools.partial(run_task, plan, folder=str(folder))
    with (
        progress_bar(
            total=plan.total, description="Rendering people", unit="frame", initial=done
        ) as bar,
        contextlib.closing(in_processes(work, todo, workers, "renders people")) as counts,
    ):
        for count in counts:
            bar.update(count)


def ensure_rendered(plan: Plan, root: Path | None = None, workers: int | None = None) -> Path:
    """Render what is missing of a plan and return its folder.

    Args:
        plan: What to render.
        root: Folder to render into instead of the user's cache.
        workers: Processes; default one for each core this process may use.

    Raises:
        ConfigError: The disk is too full.
    """
    check_workers(workers)
    folder = rendered_folder(plan, root)
    if (folder / "manifest.json").exists():
        return folder
    make_folder(folder)
    pieces = tasks(plan)
    todo = [task for task in pieces if not _is_done(folder, task)]
    check_disk_space(folder, plan.disk_bytes() * len(todo) / len(pieces), "Rendering needs about")
    # Two workers at least only where the work is worth their start (numba, two seconds).
    frames = sum(task.stop - task.start for task in todo)
    count = min(workers or usable_cores(), len(todo)) if frames > 150 else 1
    _render_all(plan, todo, folder, count)
    _finish(plan, pieces, folder)
    return folder


def _finish(plan: Plan, pieces: list[Task], folder: Path) -> None:
    """Join the tables and write the manifest, which says that all is there."""
    parts = folder / "parts"
    try:
        table = pd.concat([read_table(parts / f"{t.name}.parquet") for t in pieces])
        sums = {t.name: str(read_json(parts / f"{t.name}.json")["sha256"]) for t in pieces}
    except (ConfigError, KeyError, TypeError) as error:
        raise ConfigError(f"{error} Delete {parts}: what is missing is rendered again.") from None
    write_parquet(table, folder / "frames.parquet")
    people = pd.DataFrame([draw_person(plan, n).row() for n in plan.people])
    write_parquet(people, folder / "participants.parquet")
    whole = hashlib.sha256("".join(sums[name] for name in sorted(sums)).encode()).hexdigest()
    contents = {
        "renderer": RENDERER_VERSION,
        "plan": asdict(plan),
        "frames": len(table),
        "sha256": whole,
        "parts": sums,
    }
    write_json(folder / "manifest.json", contents)


def manifest(folder: Path) -> dict[str, Any]:
    """Return what a rendered folder holds: renderer, plan, number of frames, checksums."""
    found = read_json(folder / "manifest.json")
    parts = found.get("parts") if isinstance(found, dict) else None
    if not isinstance(parts, dict) or not isinstance(found.get("sha256"), str):
        raise ConfigError(f"{folder / 'manifest.json'} is no manifest; delete {folder}.")
    return dict(found)


def read_tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the frames table, its sources as absolute paths, and the participants table.

    Raises:
        DataNotFoundError: One of them is missing or damaged.
    """
    table, people = (_read_table(folder, name) for name in ("frames", "participants"))
    if "source" not in table or "participant" not in people:
        raise DataNotFoundError(f"The tables in {folder} aren't siamcal's; delete the folder.")
    table["source"] = [str(folder / source) for source in table["source"]]
    return table, people


def _read_table(folder: Path, name: str) -> pd.DataFrame:
    try:
        return read_table(folder / f"{name}.parquet")
    except ConfigError as error:
        raise DataNotFoundError(
            f"{error} Delete {folder / 'manifest.json'}: the tables are made again from what is "
            "rendered."
        ) from None


def _sources(folder: Path, part: str) -> list[str]:
    """Pictures of a part, as its table names them; none where the table is lost."""
    if Path(part).name != part:
        return [""]
    try:
        return [
            str(source) for source in read_table(folder / "parts" / f"{part}.parquet")["source"]
        ]
    except (ConfigError, KeyError):
        return []


def verify(folder: Path) -> str:
    """Read every picture and compare with the manifest; returns the checksum of the whole.

    Raises:
        DataNotFoundError: A picture is missing or was changed.
    """
    contents = manifest(folder)
    for name, expected in contents["parts"].items():
        digest = hashlib.sha256()
        for source in _sources(folder, name):
            path = folder / source
            digest.update(path.read_bytes() if path.exists() else b"missing")
        if digest.hexdigest() != expected:
            raise DataNotFoundError(
                f"Pictures of {name} in {folder} were changed or deleted. Delete the folder; it is "
                "rendered again at the next use."
            )
    return str(contents["sha256"])
