"""The files of a crop cache: written unit by unit, and held against the checksum of each unit."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

from siamcal.datasets.crops.units import OK, Unit, read_status
from siamcal.errors import SiamcalError
from siamcal.files import check_file, make_folder, read_json, write_json

__all__ = ["Store"]

logger = logging.getLogger(__name__)

_PIECE = 4 << 20  # bytes at once: a unit may be an hour's video


@dataclass(frozen=True)
class _Record:
    """What of both files belongs to one unit."""

    crops: int  # bytes
    status: int  # bytes
    digest: str

    def __str__(self) -> str:
        return f"{self.crops} {self.status} {self.digest}"

    @classmethod
    def read(cls, text: Any) -> _Record:
        crops, status, digest = str(text).split()
        if int(crops) < 0 or int(status) < 0:
            raise ValueError(text)
        return cls(int(crops), int(status), digest)


class Store:
    """The cache of one data set: crops and a status line a frame, appended unit by unit.

    `progress.json` has a line for each unit that is taken over: how much of both files is its own,
    and a checksum of that. What lies beyond is cut off when a killed run resumes.

    Args:
        folder: Where the files lie.
        size: Side of a crop in pixels.

    Raises:
        ConfigError: Something else lies in a file's place.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.crop_bytes = size * size * 3
        self.images = folder / "images.u8"
        self.status = folder / "status.txt"
        self.units_folder = folder / "units"
        self._progress = folder / "progress.json"
        for path in (self.images, self.status):
            if path.exists():
                check_file(path)
        self.records = self._read()

    def lines(self) -> list[str]:
        """Status of each frame done so far."""
        return self.status.read_text(encoding="utf-8").splitlines() if self.records else []

    def complete(self, units: list[Unit]) -> bool:
        """Whether all units are there and the files hold nothing else."""
        sizes = [path.stat().st_size if path.exists() else 0 for path in (self.images, self.status)]
        return len(self.records) == len(units) and sizes == [
            sum(r.crops for r in self.records),
            sum(r.status for r in self.records),
        ]

    def damaged(self) -> list[int]:
        """Numbers of units whose bytes aren't those that were written; reads both files once."""
        if not self.records:
            return []
        self.images.touch()
        self.status.touch()
        wrong: list[int] = []
        with self.images.open("rb") as images, self.status.open("rb") as status:
            for number, record in enumerate(self.records):
                digest = hashlib.blake2b(digest_size=16)
                whole = _add(images, record.crops, digest) and _add(status, record.status, digest)
                if not whole:  # cut short: nothing that follows is there either
                    return [*wrong, *range(number, len(self.records))]
                if digest.hexdigest() != record.digest:
                    wrong.append(number)
        return wrong

    def resume(self) -> int:
        """Cut both files to what the records cover; number of units that are done."""
        make_folder(self.units_folder)
        self.images.touch()
        self.status.touch()
        os.truncate(self.images, sum(r.crops for r in self.records))
        os.truncate(self.status, sum(r.status for r in self.records))
        return len(self.records)

    def forget(self, number: int) -> None:
        """Take unit `number` and all behind it for not done."""
        self.records = self.records[:number]
        self._write()

    def replace(self, number: int, unit: Unit) -> bool:
        """Put a unit that was cropped again in its old place; False where its length differs."""
        crops, lines = self._finished(unit)
        old = self.records[number]
        if crops.stat().st_size != old.crops or len(lines) != old.status:
            return False
        starts = [
            [0, *accumulate(getattr(r, name) for r in self.records)][number]
            for name in ("crops", "status")
        ]
        with self.images.open("r+b") as images, self.status.open("r+b") as status:
            images.seek(starts[0])
            status.seek(starts[1])
            self.records[number] = self._copy(crops, lines, images, status)
        self._write()
        self._delete(unit)
        return True

    def append(self, unit: Unit) -> None:
        """Take over a finished unit's files and delete them."""
        crops, lines = self._finished(unit)
        with self.images.open("ab") as images, self.status.open("ab") as status:
            record = self._copy(crops, lines, images, status)
        self.records.append(record)
        self._write()
        self._delete(unit)

    def finished(self, unit: Unit) -> bool:
        """Whether a unit's own files are there and whole; what isn't is deleted."""
        if not (self.units_folder / f"{unit.key}.txt").exists():
            return False
        lines, crops = read_status(unit, self.units_folder), self.units_folder / f"{unit.key}.u8"
        whole = (
            lines is not None
            and len(lines) == len(unit.frames)
            and crops.exists()
            and crops.stat().st_size == lines.count(OK) * self.crop_bytes
        )
        if not whole:
            logger.warning("%s is damaged and cropped again", self.units_folder / unit.key)
            self._delete(unit)
        return whole

    def _finished(self, unit: Unit) -> tuple[Path, bytes]:
        lines = read_status(unit, self.units_folder)
        if lines is None or not self.finished(unit):
            raise SiamcalError(
                f"{self.units_folder / unit.key} is incomplete, though it was just cropped; is "
                "another program writing there? Start again: what is done stays."
            )
        text = "".join(f"{line}\n" for line in lines).encode("utf-8")
        return self.units_folder / f"{unit.key}.u8", text

    def _copy(self, crops: Path, lines: bytes, images: IO[bytes], status: IO[bytes]) -> _Record:
        digest, length = hashlib.blake2b(digest_size=16), 0
        with crops.open("rb") as stream:
            while piece := stream.read(_PIECE):
                images.write(piece)
                digest.update(piece)
                length += len(piece)
        status.write(lines)
        digest.update(lines)
        for file in (images, status):
            file.flush()
            os.fsync(file.fileno())
        return _Record(length, len(lines), digest.hexdigest())

    def _delete(self, unit: Unit) -> None:
        for ending in ("txt", "u8"):
            (self.units_folder / f"{unit.key}.{ending}").unlink(missing_ok=True)

    def _read(self) -> list[_Record]:
        if not self._progress.exists():
            return []
        try:
            values = read_json(self._progress)
            return [_Record.read(text) for text in values["units"]]
        except (ValueError, KeyError, TypeError) as error:  # a ConfigError is a ValueError
            logger.warning("%s can't be read (%r): all is cropped anew", self._progress, error)
            return []

    def _write(self) -> None:
        write_json(self._progress, {"units": list(map(str, self.records))})


def _add(stream: IO[bytes], length: int, digest: Any) -> bool:
    """Feed the next bytes to a checksum; False where the file ends before."""
    while length:
        piece = stream.read(min(length, _PIECE))
        if not piece:
            return False
        digest.update(piece)
        length -= len(piece)
    return True
