"""Where files lie, and how they are written: whole or not at all, and known by their checksum."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import platformdirs

from siamcal.errors import ConfigError, DataNotFoundError

__all__ = [
    "absent",
    "append_line",
    "asset",
    "bytes_of_folder",
    "cache_dir",
    "cache_place",
    "check_disk_space",
    "check_file",
    "checksum_of_file",
    "kept_lines",
    "kind_of_file",
    "make_folder",
    "read_json",
    "read_text",
    "remove_leftovers",
    "replacing",
    "write_atomically",
    "write_json",
]

logger = logging.getLogger(__name__)

# No table, label file or recipe of text is longer; a hundred hours of frames have 50 MB of labels.
MAX_TEXT_BYTES = 512 << 20

_SUM = "checksum"  # of a line
_MARK = ".siamcal-"  # in the hidden names of files that aren't whole yet
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def cache_dir() -> Path:
    """The folder for rendered and preprocessed data: `$SIAMCAL_CACHE` or the user's cache folder.

    It is made where it doesn't exist. Everything in it can be deleted and is made again on demand.
    """
    return make_folder(cache_place())


def cache_place() -> Path:
    """Where `cache_dir` is or would be made."""
    return Path(os.environ.get("SIAMCAL_CACHE") or platformdirs.user_cache_dir("siamcal"))


def bytes_of_folder(folder: str | Path) -> int:
    """Bytes of all files in a folder and below it, links not followed; 0 where there is none."""
    total = 0
    for here, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # deleted meanwhile
                total += os.lstat(os.path.join(here, name)).st_size
    return total


def make_folder(folder: str | Path) -> Path:
    """Make a folder where it doesn't exist, with those above it; every output's folder is so made.

    Raises:
        ConfigError: A file is in the way, or nothing may be written there.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"The folder {folder} can't be made ({error.strerror}), so its files can't be written; "
            "name another place."
        ) from None
    return folder


def asset(name: str) -> Path:
    """Path of a file or folder in `siamcal/assets`.

    Raises:
        DataNotFoundError: The package doesn't hold it (a broken installation).
    """
    path = Path(__file__).parent / "assets" / name
    if not path.exists():
        raise DataNotFoundError(
            f"The installed siamcal package holds no '{name}' (looked at {path}). "
            f"Install siamcal again: pip install --force-reinstall siamcal"
        )
    return path


@contextmanager
def replacing(path: str | Path, *, private: bool = False) -> Iterator[Path]:
    """Yield a new file beside `path`, which takes its place when the block ends without an error.

    So a reader, and a run that goes on after a kill, sees the old file or the new one, whole.

    Args:
        path: What is replaced, or made.
        private: Only its owner may read it (mode 600), from its first byte on.

    Raises:
        ConfigError: Nothing may be written there.
    """
    path = Path(path)
    make_folder(path.parent)
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a file in it.")
    try:
        # The suffix stays: some writers choose the format by it.
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.stem[:100]}{_MARK}", suffix=path.suffix
        )
    except OSError as error:
        raise ConfigError(f"{path} can't be written ({error.strerror}).") from None
    os.close(handle)
    try:
        yield Path(name)
        with open(name, "rb") as file:
            os.fsync(file.fileno())
        # mkstemp makes files for the owner only; what is kept is an ordinary file, mostly.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o600 if private else 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Delete what runs that were killed left of files that they were `replacing`.

    Only where no other run writes them now.

    Args:
        paths: The files; other files' leftovers stay.
    """
    by_folder: dict[Path, set[tuple[str, str]]] = {}
    for path in paths:
        by_folder.setdefault(path.parent, set()).add((path.stem[:100], path.suffix))
    for folder, names in by_folder.items():
        for entry in folder.iterdir() if folder.is_dir() else ():
            stem, mark, rest = entry.name[1:].rpartition(_MARK)
            if mark and entry.name[0] == "." and (stem, Path(rest).suffix) in names:
                entry.unlink(missing_ok=True)


def write_atomically(path: str | Path, data: bytes | str) -> None:
    """Write a whole file, text as UTF-8; see `replacing`."""
    with replacing(path) as place:
        place.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: str | Path, values: Any) -> None:
    """Write JSON with indentation; see `replacing`."""
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    # A file's name may hold bytes that are no UTF-8; as \udcfc they are valid JSON, and come back.
    write_atomically(path, text.encode(errors="backslashreplace"))


def kind_of_file(path: str | Path) -> str:
    """What lies there if it is no ordinary file: "a folder", "a pipe", "a device"; "" if it is one.

    Opening a pipe waits for ever and reading a device may never end, so this is asked before.

    Raises:
        OSError: Nothing is there, or it may not be looked at.
    """
    mode = os.stat(path).st_mode
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), "")


def absent(path: str | Path) -> str:
    """What is said of a file that isn't there."""
    return f"{path} doesn't exist (relative names start at {Path.cwd()}). Check the name."


def check_file(path: str | Path, max_bytes: int | None = None) -> None:
    """Refuse what isn't an ordinary file, or is too large, before it is opened.

    Raises:
        ConfigError: The message says what it is.
    """
    try:
        kind, size = kind_of_file(path), os.path.getsize(path)
    except (OSError, ValueError) as error:  # a zero byte in a path is a ValueError
        raise ConfigError(f"Can't read {path}: {getattr(error, 'strerror', error)}.") from None
    if kind:
        raise ConfigError(f"{path} is {kind}; name an ordinary file.")
    if max_bytes is not None and size > max_bytes:
        raise ConfigError(f"{path} has {size:,} bytes; at most {max_bytes:,} are read.")


def read_text(path: str | Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """A whole text file in UTF-8, with or without a byte order mark.

    Raises:
        ConfigError: It can't be read, is no ordinary file or too large, or no text (says where).
    """
    check_file(path, max_bytes)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"Can't read {path}: {error.strerror}.") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path} is no text in UTF-8 (line {line}, byte {error.start}): it is damaged, or was "
            "saved in another encoding."
        ) from None


def read_json(path: str | Path, max_bytes: int = MAX_TEXT_BYTES) -> Any:
    """What a JSON file holds.

    Raises:
        ConfigError: It can't be read, holds no JSON (with line and column), or one table in it has
            a key twice, of which JSON's reader would take the last.
    """
    text = read_text(path, max_bytes)
    try:
        values = json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, path))
        if "\\u" in text:  # half a character, which no file and no terminal takes
            json.dumps(values, ensure_ascii=False).encode()
        return values
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path} isn't JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except RecursionError:
        raise ConfigError(f"{path} isn't read: its tables lie too deep in one another.") from None
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        raise ConfigError(f"{path} holds half a character ({half}): it is damaged.") from None
    except ValueError as error:  # a number of thousands of digits
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} isn't read: {str(error)[:100]}.") from None


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Add a JSON table to a file of one a line, with a checksum; `kept_lines` reads them."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**row, _SUM: _sum_of(row)}) + "\n")


def kept_lines(path: Path) -> list[dict[str, Any]]:
    """What a run appended by `append_line`; nothing where there is no file.

    A line that isn't as it was written, such as the last one of a killed run, is named in the log
    and left out: what it held is made again.

    Raises:
        ConfigError: The file can't be read at all.
    """
    if not path.exists():
        return []
    check_file(path, MAX_TEXT_BYTES)
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = json.loads(line)
            whole = row.pop(_SUM) == _sum_of(row)
        except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
            whole = False
        if whole:
            rows.append(row)
        else:
            logger.warning("%s, line %d isn't as it was written: made again", path, number)
    return rows


def _sum_of(row: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(row, sort_keys=True).encode(), digest_size=8).hexdigest()


def _unique(pairs: list[tuple[str, Any]], path: str | Path) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        twice = sorted(n for n, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ConfigError(f"{path} has {', '.join(twice)[:200]} twice in one table; keep one.")
    return table


def checksum_of_file(path: str | Path) -> str:
    """SHA-256 of a file, as 64 hex digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_disk_space(
    folder: Path,
    needed: float,
    what: str,
    remedy: str = "set SIAMCAL_CACHE to a folder on a larger disk",
) -> None:
    """Refuse to begin what the disk can't hold.

    Args:
        folder: An existing folder on the disk that is written to.
        needed: Bytes still to be written.
        what: What needs them, at the start of a sentence ("The crops of 9 frames need").
        remedy: What else helps, at the end of one.

    Raises:
        ConfigError: Less than a twentieth of the disk's free space would be left.
    """
    free = shutil.disk_usage(folder).free
    if needed > 0.95 * free:
        raise ConfigError(
            f"{what} {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free. Make "
            f"room, choose less, or {remedy}."
        )
