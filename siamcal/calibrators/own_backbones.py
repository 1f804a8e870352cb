"""Remember which Python files of the user's own made the networks they saved.

A saved calibrator may say that its network comes from `./my_net.py:build`. Running a file because
a config names it would let any config run code. So the file that was really used is remembered on
this machine when the user saves; a load runs it only if the same weights were saved here, by the
same file, and the file hasn't changed since.
"""

from __future__ import annotations

import json
from pathlib import Path

from siamcal.files import cache_dir, checksum_of_file, write_atomically

__all__ = ["is_file_name", "portable_name", "recall", "remember"]


def is_file_name(backbone: str) -> bool:
    """Whether a backbone's name has the form FILE.py:FUNCTION."""
    return backbone.rpartition(":")[0].endswith(".py")


def portable_name(backbone: str) -> str:
    """The name as it is saved: an own file without its folders, which concern nobody else."""
    if not is_file_name(backbone):
        return backbone
    path, _, function = backbone.rpartition(":")
    return f"./{Path(path).name}:{function}"


def remember(weights_checksum: str, backbone: str) -> None:
    """Note that this user's file made the network of these weights."""
    path, _, function = backbone.rpartition(":")
    file = Path(path).expanduser().resolve()
    if file.is_file():
        note = {"file": str(file), "function": function, "sha256": checksum_of_file(file)}
        write_atomically(_place(weights_checksum), json.dumps(note))


def recall(weights_checksum: str, backbone: str) -> str | None:
    """FILE.py:FUNCTION to build with, or None where this machine doesn't vouch for it."""
    try:
        note = json.loads(_place(weights_checksum).read_text())
        file = Path(note["file"])
        unchanged = file.is_file() and checksum_of_file(file) == note["sha256"]
        found = f"{file}:{note['function']}"
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if unchanged and portable_name(found) == portable_name(backbone) else None


def _place(weights_checksum: str) -> Path:
    return cache_dir() / "own_backbones" / f"{weights_checksum or 'none'}.json"
