"""What a user may name as an input: files, pipes and network addresses."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from siamcal.errors import MediaError
from siamcal.files import absent, kind_of_file

__all__ = ["checked", "local", "reason", "refuse_live", "refuse_odd", "without_password"]

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# What macOS writes beside each file on foreign disks; it holds no picture.
_APPLE_DOUBLE = b"\x00\x05\x16\x07"


def local(given: str | Path) -> Path | str:
    """A file as a Path; "-" (stdin) and addresses like rtsp://... as they are.

    Raises:
        MediaError: The name is empty, or no name at all.
    """
    if not isinstance(given, str | os.PathLike):
        raise MediaError(
            f"An input is a file's name, a Path or an RGB array (H, W, 3) of uint8, but got "
            f"{type(given).__name__}."
        )
    name = os.fspath(given)
    if not name:
        raise MediaError("An input's name is empty. Is a variable of the shell unset?")
    if isinstance(given, str) and name.startswith("file://"):
        return Path(url2pathname(urlsplit(name).path))
    if isinstance(given, str) and (name == "-" or _ADDRESS.match(name)):
        return name
    return Path(name)


def is_pipe(path: Path) -> bool:
    """Whether it is a named pipe, or one that the shell made: <(...)."""
    try:
        return kind_of_file(path) == "a pipe"
    except (OSError, ValueError):
        return False


def is_live(given: str | Path) -> bool:
    """Whether it can be read only once: a pipe, stdin or an address."""
    there = local(given)
    return isinstance(there, str) or is_pipe(there)


def refuse_live(given: Any, what: str) -> None:
    """Refuse inputs that can't be read twice.

    Args:
        given: One input or several, as `open_media` takes them.
        what: What would need to read them before.

    Raises:
        MediaError: One of them is a pipe, stdin or an address.
    """
    for name in given if isinstance(given, list | tuple) else [given]:
        if isinstance(name, str | Path) and is_live(name):
            raise MediaError(
                f"{without_password(str(name))} can be read only once, but {what} reads it "
                f"beforehand. Name a neutral picture of the person, or write the stream to a file."
            )


def refuse_odd(path: Path) -> None:
    """Refuse a pipe, a socket or a device among files: its reader might wait for ever.

    Raises:
        MediaError: It is one.
    """
    try:
        kind = kind_of_file(path)
    except (OSError, ValueError):  # what isn't there is named by whoever opens it
        return
    if kind == "a pipe":
        raise MediaError(
            f"{path} is a pipe. One is read only where it is named alone, as the input of "
            f"siamcal predict PIPE -o FILE.csv; here, write it to a file first: cat PIPE > FILE."
        )
    if kind not in ("", "a folder"):
        raise MediaError(f"{path} is {kind}, not a file. Cameras are named camera:0, camera:1.")


def checked(path: Path) -> Path:
    """The path of a file that is there, may be read and isn't empty.

    Raises:
        MediaError: It isn't.
    """
    try:
        kind, size = kind_of_file(path), path.stat().st_size
    except (OSError, ValueError) as error:
        if isinstance(error, PermissionError):
            raise MediaError(f"{path} may not be read (file permissions).") from error
        raise MediaError(absent(path)) from error
    if kind == "a folder":
        raise MediaError(f"{path} is a folder, but one file is needed here.")
    if not os.access(path, os.R_OK):
        raise MediaError(f"{path} may not be read (file permissions).")
    refuse_odd(path)
    if size == 0:
        raise MediaError(f"{path} is empty (0 bytes); it was probably never written completely.")
    with path.open("rb") as file:
        if file.read(4) == _APPLE_DOUBLE:
            raise MediaError(
                f"{path} holds only what macOS notes beside a file; the recording itself is "
                f"named {path.name.removeprefix('._')}."
            )
    return path


def without_password(address: str) -> str:
    """An address without user and password, which belong into no table and no message."""
    return re.sub(r"(://)[^/@]*@", r"\1", address)


def reason(error: BaseException) -> str:
    """The first line of a library's message, or the kind of error."""
    # FFmpeg's errors: without numbers, with what the part that failed says.
    text, log = getattr(error, "strerror", None) or str(error), getattr(error, "log", None)
    text += f": {log[2]}" if log else ""
    text = without_password(text).strip().split("\n")[0]
    return text[:200] or type(error).__name__
