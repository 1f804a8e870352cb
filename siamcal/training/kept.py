"""Rows that are costly to compute, kept in a file, resumed and held against their checksums."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from siamcal.files import check_disk_space, check_file, make_folder, read_json, write_json
from siamcal.progress import progress_bar

__all__ = ["kept_rows"]

logger = logging.getLogger(__name__)

_SAVE_SECONDS = 10.0


def kept_rows(
    folder: Path, shape: tuple[int, int], step: int, compute: Callable[[np.ndarray], np.ndarray]
) -> np.memmap:
    """(M, width) float32 rows from a folder's cache, computed where they aren't there or damaged.

    `progress.json` has [rows done, checksum] for each part that was written at once; the parts are
    read once before they are trusted.

    Args:
        folder: Of the cache; named by all that the rows depend on.
        shape: (M, width).
        step: Rows computed at once.
        compute: Numbers of rows -> their values.

    Raises:
        ConfigError: The disk is too full, or something else lies in the file's place.
    """
    make_folder(folder)
    place, progress = folder / "features.f32", folder / "progress.json"
    needed = 4 * shape[0] * shape[1]
    if place.exists():
        check_file(place)
    # Of the size that is wanted, or of no use: a map would lengthen it with zeros.
    exists = place.exists() and place.stat().st_size == needed
    if place.exists() and not exists:
        logger.warning("%s has another length than it should: computed anew", place)
    parts = _read(progress) if exists else []
    if parts:
        good = _sound(np.memmap(place, np.float32, "r", shape=shape), parts)
        if len(good) < len(parts):
            logger.warning("%s is damaged: computed anew from row %d on", place, _end(good))
        parts = good
    if _end(parts) < shape[0]:
        if not exists:
            check_disk_space(folder, needed, f"The features of {shape[0]} frames and copies need")
        values = np.memmap(place, np.float32, "r+" if exists else "w+", shape=shape)
        _fill(values, parts, progress, step, compute)
    return np.memmap(place, np.float32, "r", shape=shape)


def _fill(
    values: np.memmap,
    parts: list[tuple[int, str]],
    progress: Path,
    step: int,
    compute: Callable[[np.ndarray], np.ndarray],
) -> None:
    total, saved = len(values), time.monotonic()
    starts = range(_end(parts), total, step)
    for start in progress_bar(starts, description="features", unit="batch"):
        places = np.arange(start, min(start + step, total))
        values[places] = compute(places)
        end = int(places[-1]) + 1
        if time.monotonic() - saved > _SAVE_SECONDS or end == total:
            values.flush()
            parts.append((end, _digest(values[_end(parts) : end])))
            write_json(progress, {"parts": parts})
            saved = time.monotonic()


def _read(progress: Path) -> list[tuple[int, str]]:
    if not progress.exists():
        return []
    try:
        return [(int(end), str(digest)) for end, digest in read_json(progress)["parts"]]
    except (ValueError, KeyError, TypeError, OverflowError) as error:  # ConfigError among them
        logger.warning("%s can't be read (%r): all is computed anew", progress, error)
        return []


def _sound(values: np.ndarray, parts: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """The parts from the start on that are as they were written."""
    begin = 0
    for number, (end, digest) in enumerate(parts):
        if not begin < end <= len(values) or _digest(values[begin:end]) != digest:
            return parts[:number]
        begin = end
    return parts


def _end(parts: list[tuple[int, str]]) -> int:
    return parts[-1][0] if parts else 0


def _digest(rows: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(rows).tobytes(), digest_size=16).hexdigest()
