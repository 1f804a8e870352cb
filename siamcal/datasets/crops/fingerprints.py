"""What is in the files of a data set, in a few bytes each, so that changed ones are cropped anew.

Hashing a large data set takes minutes, so digests are remembered by path, size and time of change.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from siamcal.environment import usable_cores
from siamcal.errors import ConfigError
from siamcal.files import kind_of_file
from siamcal.progress import progress_bar
from siamcal.table_files import read_table, write_parquet

logger = logging.getLogger(__name__)

MISSING = "missing"

# Files up to this size are hashed wholly; of longer ones this much at each of 16 places, and the
# size. A video that differs only between those places would have to be made on purpose.
_WHOLE = 4 << 20
_PLACES = 16


def fingerprints(files: Sequence[str], memory: Path) -> dict[str, str]:
    """Digest of each file's content; "missing" for one that isn't there.

    Args:
        files: Paths.
        memory: Parquet file that remembers digests between runs; made where it doesn't exist.
    """
    known = _remembered(memory)
    stats = {file: _stat(file) for file in files}
    fresh = [f for f, stat in stats.items() if stat is not None and (f, *stat) not in known]
    if fresh:
        with ThreadPoolExecutor(min(8, usable_cores() + 2)) as pool:
            digests = progress_bar(
                pool.map(_digest, fresh), total=len(fresh), description="check files", unit="file"
            )
            for file, digest in zip(fresh, digests, strict=True):
                known[(file, *(stats[file] or (0, 0)))] = digest
        _remember(memory, known)
    return {file: MISSING if stat is None else known[(file, *stat)] for file, stat in stats.items()}


def _stat(file: str) -> tuple[int, int] | None:
    try:
        stat = os.stat(file)
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def _digest(file: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    try:
        if kind := kind_of_file(file):
            return f"unreadable ({kind})"
        size = os.path.getsize(file)
        digest.update(str(size).encode())
        with open(file, "rb") as stream:
            if size <= _WHOLE:
                digest.update(stream.read())
            else:
                length = _WHOLE // _PLACES
                for place in range(_PLACES):
                    stream.seek((size - length) * place // (_PLACES - 1))
                    digest.update(stream.read(length))
    except OSError as error:
        return f"unreadable {error.errno}"
    return digest.hexdigest()


def _remembered(memory: Path) -> dict[tuple[str, int, int], str]:
    if not memory.exists():
        return {}
    try:
        table = read_table(memory)
        rows = zip(table["path"], table["size"], table["changed"], table["digest"], strict=True)
        return {(str(p), int(s), int(c)): str(d) for p, s, c, d in rows}
    except (ConfigError, KeyError, TypeError, ValueError) as error:  # it only costs time
        logger.warning("%s can't be read (%s); files are checked anew", memory, error)
        return {}


def _remember(memory: Path, known: dict[tuple[str, int, int], str]) -> None:
    rows = [(path, size, changed, digest) for (path, size, changed), digest in known.items()]
    table = pd.DataFrame(rows, columns=["path", "size", "changed", "digest"])
    # Only the newest entry of a path is of use.
    table = table.drop_duplicates("path", keep="last")
    write_parquet(table, memory)
