"""Files that a run will write, checked before its first frame: nothing of others is overwritten.

A file counts as siamcal's own where something in it says so: a sidecar by `WRITTEN_BY`, a table by
the sidecar beside it that names it with its checksum, a profile by its metadata. Own files are
replaced only when that is asked for; all other files never.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from siamcal.errors import ConfigError
from siamcal.files import checksum_of_file, make_folder

__all__ = [
    "WRITTEN_BY",
    "Output",
    "check_outputs",
    "is_stream",
    "own_profile",
    "own_sidecar",
    "own_table",
    "read_sidecar",
]

#: A file that will be written, and whether an existing file of that name is siamcal's own.
Output = tuple[Path, Callable[[Path], bool]]
#: The key of a sidecar that says who wrote it.
WRITTEN_BY = "written_by"
# A sidecar lists up to 1,000 frames; a larger JSON file is somebody else's.
MOST_SIDECAR_BYTES = 4_000_000


def check_outputs(
    outputs: Iterable[Output],
    inputs: Iterable[str | Path],
    *,
    replace: bool = False,
) -> None:
    """Refuse outputs that can't be written or would destroy something; make their folders.

    Args:
        outputs: Files, each with whether an existing one is siamcal's own (`own_table`, ...).
        inputs: All files that the run reads.
        replace: Files that siamcal wrote before may be replaced.

    Raises:
        ConfigError: An output is an input (by another name or link too), another output, a folder,
            a file that siamcal didn't write, one that it wrote while `replace` is off, or lies
            where nothing can be written.
    """
    read = [Path(path) for path in inputs]
    seen: list[Path] = []
    for path, is_own in outputs:
        if path.is_dir():
            raise ConfigError(f"{path} is a folder; name a file in it.")
        for other in read:
            if _same(path, other):
                raise ConfigError(
                    f"{path} is an input ({other}); it would be overwritten. Choose another output."
                )
        for other in seen:
            if _same(path, other) or path.absolute() == other.absolute():
                raise ConfigError(f"Two outputs would share the file {path}: name another.")
        seen.append(path)
        if not is_stream(path):
            _check_existing(path, is_own, replace)
            _check_writable(path)


def is_stream(path: Path) -> bool:
    """Whether a path is a pipe or device, which nothing is replaced in and nothing lies beside."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def own_sidecar(path: Path) -> bool:
    """Whether a JSON file was written by siamcal beside a table."""
    return read_sidecar(path) is not None


def own_table(path: Path, sidecar: Path) -> bool:
    """Whether a table is as siamcal left it: its sidecar names it and knows its checksum.

    Of a run that was cut off the checksum isn't known; then the name counts.
    """
    told = read_sidecar(sidecar)
    table = told.get("table") if told else None
    if not isinstance(table, dict) or table.get("file") != path.name:
        return False
    checksum = table.get("sha256")
    return checksum is None or checksum == checksum_of_file(path)


def own_profile(path: Path) -> bool:
    """Whether a file is a person's profile."""
    try:
        with safe_open(path, framework="pt") as file:
            return {"calibrator", "facts"} <= set(file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """What a sidecar holds; None where there is none, or it isn't siamcal's."""
    try:
        if path.stat().st_size > MOST_SIDECAR_BYTES:
            return None
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) and WRITTEN_BY in told else None


def _check_existing(path: Path, is_own: Callable[[Path], bool], replace: bool) -> None:
    # An empty file holds nothing to lose: mktemp and many programs make one first.
    if not path.exists() or not path.stat().st_size:
        return
    if not is_own(path):
        raise ConfigError(
            f"{path} is there already, and siamcal didn't write it (or it was changed since): it "
            "is left as it is. Name another output, or move that file away."
        )
    if not replace:
        raise ConfigError(
            f"{path} is there already, from an earlier run. --overwrite replaces it, --resume "
            "keeps what is complete."
        )


def _check_writable(path: Path) -> None:
    make_folder(path.parent)
    place = path if path.exists() else path.parent
    if not os.access(place, os.W_OK):
        raise ConfigError(f"{place} may not be written to (file permissions).")


def _same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False
