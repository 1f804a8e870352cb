"""Where files lie, and how they are written: whole or not at all, and known by their checksum."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs

from siamcal.errors import ConfigError, DataNotFoundError

__all__ = [
    "asset",
    "cache_dir",
    "check_disk_space",
    "checksum_of_file",
    "read_json",
    "replacing",
    "write_atomically",
    "write_json",
]


def cache_dir() -> Path:
    """The folder for rendered and preprocessed data: `$SIAMCAL_CACHE` or the user's cache folder.

    It is made where it doesn't exist. Everything in it can be deleted and is made again on demand.
    """
    folder = Path(os.environ.get("SIAMCAL_CACHE") or platformdirs.user_cache_dir("siamcal"))
    folder.mkdir(parents=True, exist_ok=True)
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
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays: some writers choose the format by it.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
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


def write_atomically(path: str | Path, data: bytes | str) -> None:
    """Write a whole file, text as UTF-8; see `replacing`."""
    with replacing(path) as place:
        place.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: str | Path, values: Any) -> None:
    """Write JSON with indentation; see `replacing`."""
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    try:
        data = text.encode()
    except UnicodeEncodeError:  # file names that are no UTF-8 hold lone surrogates
        data = (json.dumps(values, indent=2) + "\n").encode()
    write_atomically(path, data)


def read_json(path: str | Path) -> Any:
    """What a JSON file holds.

    Raises:
        ConfigError: It can't be read, holds no JSON (with line and column), or one table in it has
            a key twice, of which JSON's reader would take the last.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text (byte {error.start}): it is damaged.") from None
    except OSError as error:
        raise ConfigError(f"Can't read {path}: {error.strerror}.") from None
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, path))
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path} isn't JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except RecursionError:
        raise ConfigError(f"{path} isn't read: its tables lie too deep in one another.") from None


def _unique(pairs: list[tuple[str, Any]], path: str | Path) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({n for n in names if names.count(n) > 1})
        raise ConfigError(f"{path} has {', '.join(twice)[:200]} twice in one table; keep one.")
    return table


def checksum_of_file(path: str | Path) -> str:
    """SHA-256 of a file, as 64 hex digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_disk_space(folder: Path, needed: float, what: str) -> None:
    """Refuse to begin what the disk can't hold.

    Args:
        folder: An existing folder on the disk that is written to.
        needed: Bytes still to be written.
        what: What needs them, at the start of a sentence ("The crops of 9 frames need").

    Raises:
        ConfigError: Less than a twentieth of the disk's free space would be left.
    """
    free = shutil.disk_usage(folder).free
    if needed > 0.95 * free:
        raise ConfigError(
            f"{what} {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free. Make "
            "room, choose less, or set SIAMCAL_CACHE to a folder on a larger disk."
        )
