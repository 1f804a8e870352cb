"""The trained networks in a run's folder: which files they are, and a run without them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from siamcal.files import read_json, write_json
from siamcal.training.resume import CHECKPOINT

__all__ = ["drop_checkpoints", "files_of", "is_finished"]

# Notes of what a run without its networks holds the results.
_DROPPED = "networks_dropped.json"


def files_of(folder: Path) -> list[Path]:
    """Checkpoints of the trainings of a comparison; not that of `siamcal train`, beside them."""
    return [path for path in folder.rglob(CHECKPOINT) if path.parent.name.startswith("fold")]


def drop_checkpoints(folder: Path, done: Mapping[str, Any]) -> None:
    """Delete the trained networks of a finished comparison, and note what it was.

    Without the note the same command would train all of them again.
    """
    write_json(folder / _DROPPED, dict(done))
    for path in files_of(folder):
        path.unlink()


def is_finished(folder: Path, asked: Mapping[str, Any]) -> bool:
    """Whether a run whose networks were deleted holds the results of just what is asked."""
    note = folder / _DROPPED
    if not note.exists():
        return False
    if read_json(note) == dict(asked) and (folder / "results.json").exists():
        return True
    note.unlink()  # it is trained again, and isn't finished until then
    return False
