"""Crops the faces of a data set once and keeps them in the cache, memory-mapped.

The cache is named by what is in the files, by the preprocessing and by the code that crops, so a
changed file, another setting or a new version makes another cache and never reads a stale one. A
killed run goes on where it stopped; each unit has a checksum, and a damaged one is cropped anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from siamcal.datasets.base import DatasetSource, FaceSet
from siamcal.datasets.crops.fingerprints import fingerprints
from siamcal.datasets.crops.store import Store
from siamcal.datasets.crops.units import OK, Unit, crop_units
from siamcal.datasets.reference_rows import reference_rows
from siamcal.environment import usable_cores
from siamcal.errors import DataNotFoundError
from siamcal.files import asset, cache_dir, check_disk_space, make_folder
from siamcal.parallel import check_workers
from siamcal.preprocessing import Preprocessing
from siamcal.progress import progress_bar

__all__ = ["drop_report", "missing_bytes", "prepare"]

logger = logging.getLogger(__name__)

_FORMAT = 1
# Images in a unit of work: large enough that starting one costs nothing, small enough to share out.
_UNIT_IMAGES = 128
# Fewer frames than this aren't worth the second a worker takes to start.
_FRAMES_PER_WORKER = 150
# Seconds between two looks at what the workers have written.
_LOOK = 1.0


def prepare(
    source: DatasetSource,
    preprocessing: Preprocessing,
    *,
    cache: str | os.PathLike[str] | None = None,
    workers: int | None = None,
) -> FaceSet:
    """Crop the face of every frame, or read the crops from the cache.

    Frames without a face, black, unreadable or missing ones are left out and listed with the
    reason in `FaceSet.dropped`.

    Args:
        source: The data set.
        preprocessing: How a frame becomes a crop.
        cache: Folder of the cache. Default: `siamcal.files.cache_dir()` / "faces".
        workers: Number of processes. Default: one for each core, fewer for little work.

    Raises:
        DataNotFoundError: No frame has a face, or a participant has no usable reference.
        SiamcalError: The disk is too small, or cropping failed; finished work stays.
    """
    check_workers(workers)
    order, units, folder = _planned(source, preprocessing, cache)
    make_folder(folder)
    with _locked(folder / "lock"):
        store = Store(folder, preprocessing.size)
        count = _worker_count(workers, len(order), len(units))
        _mend(store, units, preprocessing, count)
        if not store.complete(units):
            left = _bytes_left(folder, len(order), preprocessing.size)
            check_disk_space(folder, left, f"The crops of {len(order)} frames need")
            _fill(store, units, preprocessing, count)
    return _face_set(source, preprocessing, store, order)


def missing_bytes(
    source: DatasetSource,
    preprocessing: Preprocessing,
    cache: str | os.PathLike[str] | None = None,
) -> tuple[Path, int]:
    """Folder of a data set's crops, and how many bytes at most are still to be written there."""
    order, _, folder = _planned(source, preprocessing, cache)
    return folder, max(0, _bytes_left(folder, len(order), preprocessing.size))


def drop_report(dropped: pd.DataFrame, total: int) -> str:
    """One line: how many frames were left out and why."""
    if dropped.empty:
        return f"All {total} frames have a face."
    # Reasons that end in details of one file count as one.
    kinds = Counter(str(reason).split(":")[0] for reason in dropped["reason"])
    parts = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
    return f"Left out {len(dropped)} of {total} frames: {parts}."


def _mend(store: Store, units: list[Unit], preprocessing: Preprocessing, workers: int) -> None:
    """Crop units anew whose bytes in the cache aren't those that were written."""
    if len(store.records) > len(units):
        store.forget(len(units))
    damaged = store.damaged()
    if not damaged:
        return
    logger.warning(
        "%s: %d of %d units are damaged (their checksums differ) and cropped anew",
        store.folder,
        len(damaged),
        len(store.records),
    )
    make_folder(store.units_folder)
    for _ in crop_units([units[i] for i in damaged], preprocessing, store.units_folder, workers):
        pass
    for number in damaged:
        if not store.replace(number, units[number]):
            store.forget(number)  # and what is cropped again is appended
            return


def _fill(store: Store, units: list[Unit], preprocessing: Preprocessing, workers: int) -> None:
    """Crop what isn't done yet."""
    first = store.resume()
    finished = [i >= first and store.finished(unit) for i, unit in enumerate(units)]
    todo = [i for i in range(first, len(units)) if not finished[i]]
    settings = {"format": _FORMAT, "preprocessing": dataclasses.asdict(preprocessing)}
    (store.folder / "settings.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    ahead = first
    done = [len(unit.frames) * (i < first or finished[i]) for i, unit in enumerate(units)]
    positions = crop_units([units[i] for i in todo], preprocessing, store.units_folder, workers)
    total = sum(len(unit.frames) for unit in units)
    with _bar(done, store.units_folder, total), contextlib.closing(positions):
        for number in (todo[position] for position in positions):
            finished[number] = True
            done[number] = len(units[number].frames)
            # Appended in order, so that rows of the cache follow the rows of the table.
            while ahead < len(units) and finished[ahead]:
                store.append(units[ahead])
                ahead += 1
    while ahead < len(units):  # units that were finished but not taken over when a run was killed
        store.append(units[ahead])
        ahead += 1
    shutil.rmtree(store.units_folder, ignore_errors=True)


@contextlib.contextmanager
def _bar(done: list[int], units_folder: Path, total: int) -> Iterator[None]:
    """A bar of frames that moves while a long video is cropped, too.

    Args:
        done: Frames of each finished unit, 0 of others; read again and again.
        units_folder: Where unfinished units write a line a frame.
        total: Number of frames.
    """

    def frames() -> int:
        lines = 0
        for part in units_folder.glob("*.part"):
            with contextlib.suppress(OSError):  # finished meanwhile
                lines += part.read_bytes().count(b"\n")
        return sum(done) + lines

    def follow() -> None:
        while not stop.wait(_LOOK):
            bar.update(max(0, frames() - bar.n))

    stop = threading.Event()
    follower = threading.Thread(target=follow, daemon=True)
    with progress_bar(total=total, initial=frames(), description="crop faces", unit="frame") as bar:
        follower.start()
        try:
            yield
        finally:
            stop.set()
            follower.join()
            bar.update(max(0, frames() - bar.n))


def _face_set(
    source: DatasetSource, preprocessing: Preprocessing, store: Store, order: np.ndarray
) -> FaceSet:
    """Rows with a face in the order of the cache, and the others with their reasons."""
    status = np.array(store.lines(), dtype=object)
    table = source.table.iloc[order].reset_index(drop=True)
    good = status == OK
    kept = table[good].reset_index(drop=True)
    dropped = table[~good].assign(reason=status[~good]).reset_index(drop=True)
    report = drop_report(dropped, len(table))
    if kept.empty:
        raise DataNotFoundError(
            f"No frame of data set '{source.name}' can be used. {report} "
            f"First: {dropped['source'].iloc[0]}: {dropped['reason'].iloc[0]}."
        )
    if not dropped.empty:
        logger.warning("%s: %s", source.name, report)
    rows, replaced = reference_rows(kept, table, source.name)
    return FaceSet(source, preprocessing, store.images, kept, rows, dropped, replaced)


def _planned(
    source: DatasetSource, preprocessing: Preprocessing, cache: str | os.PathLike[str] | None
) -> tuple[np.ndarray, list[Unit], Path]:
    """Order of the frames, units of work, and the folder that is named by what will be in it."""
    root = Path(cache) if cache is not None else cache_dir() / "faces"
    make_folder(root)
    if source.table.empty:
        raise DataNotFoundError(f"Data set '{source.name}' has no frames to prepare.")
    order, units = _units(source.table)
    digests = fingerprints(
        sorted(set(source.table["source"])), root / f"known-files-{_short(source.name)}.parquet"
    )
    return order, units, root / f"{source.name}-{_key(units, digests, preprocessing)}"


def _units(table: pd.DataFrame) -> tuple[np.ndarray, list[Unit]]:
    """Order in which the table's rows are cropped, and the units of work in that order.

    The table's order is kept, save that the frames of a video come together and ascending.
    """
    sources = table["source"].to_numpy(dtype=object)
    indices = table["source_index"].to_numpy(dtype=np.int64)
    is_video = indices >= 0
    first_row = pd.Series(np.arange(len(table))).groupby(sources).transform("min").to_numpy()
    place = np.where(is_video, first_row, np.arange(len(table)))
    order = np.lexsort((indices, place))
    groups: list[list[int]] = []
    for row in order:
        last = groups[-1] if groups else None
        joins = last is not None and (
            sources[last[-1]] == sources[row] and is_video[last[-1]]
            if is_video[row]
            else not is_video[last[-1]] and len(last) < _UNIT_IMAGES
        )
        if last is not None and joins:
            last.append(int(row))
        else:
            groups.append([int(row)])
    units = [
        Unit(f"{number:06d}", tuple((str(sources[r]), int(indices[r])) for r in rows))
        for number, rows in enumerate(groups)
    ]
    return order, units


def _key(units: list[Unit], digests: dict[str, str], preprocessing: Preprocessing) -> str:
    digest = hashlib.blake2b(digest_size=10)
    settings = [_FORMAT, _code_version(), dataclasses.asdict(preprocessing)]
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for unit in units:
        for source, index in unit.frames:
            digest.update(f"{digests[source]}:{index};".encode())
        digest.update(b"|")
    return digest.hexdigest()


@functools.lru_cache(maxsize=1)
def _code_version() -> str:
    """Digest of the code and the models that crop: crops of another version are no use.

    The code also names the engine that finds the faces.
    """
    digest = hashlib.blake2b(digest_size=8)
    package = Path(__file__).parents[2]
    for path in sorted((package / "faces").rglob("*.py")):
        digest.update(path.read_bytes())
    with contextlib.suppress(DataNotFoundError):
        digest.update(asset("face_landmarker.task").read_bytes())
    return digest.hexdigest()


def _worker_count(workers: int | None, frames: int, units: int) -> int:
    if workers is None:
        workers = min(usable_cores(), -(-frames // _FRAMES_PER_WORKER))
    return max(1, min(workers, units))


def _bytes_left(folder: Path, frames: int, size: int) -> int:
    used = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    return frames * size * size * 3 - used


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process fills a cache; others wait and then read it."""
    try:
        import fcntl
    except ImportError:  # Windows: two runs at once would do the work twice in one folder
        yield
        return
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            logger.info("another process prepares %s; waiting", path.parent)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _short(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)
