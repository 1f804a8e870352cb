"""Feeds damaged files to a reader and counts what comes of them."""

from __future__ import annotations

import logging
import random
import resource
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz.mutate import mutate
from siamcal.errors import SiamcalError

__all__ = ["MEMORY", "PATIENCE", "Found", "Reader", "exchanged", "fuzz"]

# Seconds after which a reader counts as hanging; the slowest takes a tenth of it.
PATIENCE = 10.0
# A disk that waits for each of a cache's writes makes it ten times as long.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


@dataclass(frozen=True)
class Reader:
    """One place at which siamcal opens a file.

    Attributes:
        name: In the table.
        kind: Of the file; see `fuzz.mutate`.
        make: Makes sound files in an empty folder and returns the one that is damaged.
        read: Reads it as a user's command does; the result can be compared by ==.
        exact: The file is siamcal's own and knows what was written: a value that is read must be
            the sound one. Of others, any value is right that the damaged file does say.
        named: An error must name the file.
        made_again: What isn't read is made again, done without or only counted.
        waits: Why it waits for whoever writes into a pipe of that name; "": it must refuse one.
        before: Raw exceptions in 1,200 inputs before, where that was counted.
    """

    name: str
    kind: str
    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    exact: bool = False
    named: bool = True
    made_again: bool = False
    waits: str = ""
    before: int | None = None


@dataclass
class Found:
    """What came of the inputs of one reader."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    raw: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    nameless: list[str] = field(default_factory=list)
    slowest: float = 0.0
    megabytes: float = 0.0

    @property
    def sound(self) -> bool:
        """Nothing raw, wrong or without a place."""
        return not (self.raw or self.wrong or self.nameless)


class _Hangs(BaseException):
    pass


def _ring(*_: object) -> None:
    raise _Hangs


def fuzz(reader: Reader, folder: Path, inputs: int, seed: int = 0, first: int = 0) -> Found:
    """Damage a reader's file so many times, each in its own way.

    Args:
        reader: The reader.
        folder: An empty folder.
        inputs: How many.
        seed: Of the damage: (reader, seed, number) tells an input again.
        first: Number of the first.
    """
    quiet = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    alarm = signal.signal(signal.SIGALRM, _ring)
    found = Found()
    try:
        path = reader.make(folder)
        sound = path.read_bytes()
        expected = reader.read(path)
        before = _megabytes()
        for number in range(first, first + inputs):
            rng = random.Random(f"{reader.name} {seed} {number}")
            path.write_bytes(mutate(sound, reader.kind, rng))
            _one(reader, path, expected, number, found)
        found.megabytes = _megabytes() - before
    finally:
        signal.signal(signal.SIGALRM, alarm)
        logging.disable(quiet)
    return found


def exchanged(reader: Reader, exchanges: Sequence[Callable[[Path], None]], folder: Path) -> Found:
    """Read what each of `exchanges` puts in the place of a reader's file."""
    quiet, alarm = logging.root.manager.disable, signal.signal(signal.SIGALRM, _ring)
    logging.disable(logging.CRITICAL)
    found = Found()
    try:
        path = reader.make(folder)
        sound, expected, before = path.read_bytes(), reader.read(path), _megabytes()
        for number, exchange in enumerate(exchanges):
            path.unlink()
            exchange(path)
            _one(reader, path, expected, number, found)
            if path.is_dir():
                path.rmdir()
            path.unlink(missing_ok=True)
            path.write_bytes(sound)
        found.megabytes = _megabytes() - before
    finally:
        signal.signal(signal.SIGALRM, alarm)
        logging.disable(quiet)
    return found


def _one(reader: Reader, path: Path, expected: Any, number: int, found: Found) -> None:
    found.inputs += 1
    started = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = reader.read(path)
        found.accepted += 1
        if reader.exact and value != expected:
            found.wrong.append(f"{number}: {value!r:.300}")
    except SiamcalError as error:
        found.refused += 1
        if reader.named and path.name not in str(error):
            found.nameless.append(f"{number}: {error!s:.300}")
    except (_Hangs, Exception) as error:
        found.raw.append(f"{number}: {type(error).__name__}: {error!s:.300} {_place(error)}")
    except BaseException as error:  # a panic of Rust's, but not the user's Ctrl-C
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        found.raw.append(f"{number}: {type(error).__name__}: {error!s:.300}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    found.slowest = max(found.slowest, time.perf_counter() - started)


def _place(error: BaseException) -> str:
    trace, places = error.__traceback__, []
    while trace:
        places.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " < ".join(reversed(places[-4:]))


def _megabytes() -> float:
    """Highest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
