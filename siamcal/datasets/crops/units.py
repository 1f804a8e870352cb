"""Crops the faces of units of work: a video each, or some images of one sequence.

A unit writes its crops and one status line a frame as it goes, so that a killed run goes on where
it stopped. A video is decoded once, in order, and never held in memory.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from siamcal.errors import FaceNotFoundError, MediaError, SiamcalError
from siamcal.parallel import in_processes
from siamcal.preprocessing import Preprocessing

if TYPE_CHECKING:
    from siamcal.faces import FacePipeline

OK = "ok"

# Frames between two writes to disk, so that a killed run loses a second or two.
_FLUSH = 64

# Mean brightness below which a frame shows nothing; such frames stand in UNBC-McMaster.
_BLACK = 4.0


@dataclass(frozen=True)
class Unit:
    """Frames cropped by one worker, in this order.

    Attributes:
        key: Name of its files.
        frames: (source, source_index) of each frame: one video with ascending indices, or image
            files with index -1.
    """

    key: str
    frames: tuple[tuple[str, int], ...]

    @property
    def is_video(self) -> bool:
        """True where the frames belong to a video."""
        return self.frames[0][1] >= 0


def crop_units(
    units: Sequence[Unit], preprocessing: Preprocessing, folder: Path, workers: int
) -> Generator[int, None, None]:
    """Crop units and yield the position of each as it is done; they end roughly in order.

    Raises:
        SiamcalError: A worker died or met an error; finished work stays.
    """
    from siamcal.faces import FacePipeline

    if workers <= 1:
        with FacePipeline(preprocessing) as pipeline:
            for position, unit in enumerate(units):
                crop_unit(unit, pipeline, folder)
                yield position
        return
    work = functools.partial(_crop_in_worker, preprocessing=preprocessing, folder=folder)
    yield from in_processes(work, enumerate(units), workers, "crops faces")


@functools.lru_cache(maxsize=1)
def _pipeline(preprocessing: Preprocessing) -> FacePipeline:
    """The worker's pipeline: made once, not for each unit."""
    from siamcal.faces import FacePipeline

    return FacePipeline(preprocessing)


def _crop_in_worker(numbered: tuple[int, Unit], preprocessing: Preprocessing, folder: Path) -> int:
    position, unit = numbered
    try:
        crop_unit(unit, _pipeline(preprocessing), folder)
    except SiamcalError:
        raise
    except Exception as error:
        raise SiamcalError(f"Cropping {unit.frames[0][0]} failed: {error!r}") from error
    return position


def crop_unit(unit: Unit, pipeline: FacePipeline, folder: Path) -> None:
    """Write `<key>.u8` (the crops of frames with a face) and `<key>.txt` (a line a frame).

    A line is "ok" or the reason why the frame is left out. The text file gets its name when all is
    written; until then it is `<key>.txt.part`.

    Args:
        unit: What to crop.
        pipeline: Cuts the face out of a frame.
        folder: Where to.
    """
    crops_path, part = folder / f"{unit.key}.u8", folder / f"{unit.key}.txt.part"
    with part.open("a", encoding="utf-8") as lines, _alone(lines), crops_path.open("ab") as crops:
        if not part.exists():  # while this one waited, the other finished it
            return
        done = _restart(crops_path, part, pipeline.preprocessing.size**2 * 3)
        for number, (rgb, problem) in enumerate(_frames(unit, done), 1):
            crop, status = _crop(pipeline, rgb, problem)
            if crop is not None:
                crops.write(crop.tobytes())
            lines.write(status + "\n")
            if number % _FLUSH == 0:
                # Crops first: a line without its crop would shift all that follow.
                crops.flush()
                lines.flush()
        crops.flush()
        lines.flush()
        os.fsync(crops.fileno())
        os.fsync(lines.fileno())
    try:
        os.replace(part, folder / f"{unit.key}.txt")
    except FileNotFoundError:
        if not (folder / f"{unit.key}.txt").exists():
            raise


def read_status(unit: Unit, folder: Path) -> list[str] | None:
    """The finished unit's line of each frame, or None where it isn't finished or is damaged."""
    try:
        return (folder / f"{unit.key}.txt").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        return None


@contextlib.contextmanager
def _alone(stream: IO[str]) -> Iterator[None]:
    """Wait for whoever writes the unit: a worker outlives a run that was killed for a moment."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    fcntl.flock(stream, fcntl.LOCK_EX)  # let go when the file is closed, or its process has died
    yield


def _restart(crops_path: Path, part: Path, crop_bytes: int) -> int:
    """Cut both files back to what belongs together; number of frames that are done."""
    lines = part.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    lines = [line for line in lines if line.endswith("\n")]
    whole = crops_path.stat().st_size // crop_bytes
    good = 0
    for number, line in enumerate(lines):
        good += line == f"{OK}\n"
        if good > whole:
            lines, good = lines[:number], whole
            break
    part.write_text("".join(lines), encoding="utf-8")
    os.truncate(crops_path, good * crop_bytes)
    return len(lines)


def _crop(
    pipeline: FacePipeline, rgb: np.ndarray | None, problem: str
) -> tuple[np.ndarray | None, str]:
    import cv2

    if rgb is None:
        return None, " ".join(problem.split()) or "unreadable"
    if rgb.mean() < _BLACK:
        return None, "black frame"
    try:
        return pipeline.crop(rgb), OK
    except FaceNotFoundError:
        return None, "no face found"
    except SiamcalError:
        raise  # a missing library or model is no fault of this frame
    except (ArithmeticError, IndexError, ValueError, cv2.error) as error:
        # One freak picture must not end a run over hundreds of thousands.
        return None, f"cropping failed: {' '.join(str(error).split())[:200]}"


def _frames(unit: Unit, skip: int) -> Iterator[tuple[np.ndarray | None, str]]:
    """(picture or None, what is wrong) of each frame of the unit from number `skip` on."""
    todo = unit.frames[skip:]
    if not todo:
        return
    yield from _video_frames(todo) if unit.is_video else _image_frames(todo)


def _image_frames(todo: tuple[tuple[str, int], ...]) -> Iterator[tuple[np.ndarray | None, str]]:
    from siamcal.faces.media import read_image

    for source, _ in todo:
        if not os.path.exists(source):
            yield None, "file missing"
            continue
        try:
            yield read_image(source), ""
        except MediaError as error:
            # The path differs between two copies of the data; the reason stays short without it.
            yield None, f"unreadable: {error}".replace(source, Path(source).name)


def _video_frames(todo: tuple[tuple[str, int], ...]) -> Iterator[tuple[np.ndarray | None, str]]:
    from siamcal.faces.media import open_media

    source, position, total = todo[0][0], 0, 0
    if not os.path.exists(source):
        yield from ((None, "file missing") for _ in todo)
        return
    reason = ""
    try:
        for frame in open_media([Path(source)]):  # in a list, where no pipe is waited for
            total = frame.index + 1
            while position < len(todo) and todo[position][1] == frame.index:
                # Damaged pictures (a problem, but pixels too) are left out like undecodable ones.
                yield (None, f"unreadable: {frame.problem}") if frame.problem else (frame.rgb, "")
                position += 1
            if position == len(todo):
                return
    except MediaError as error:
        reason = f"unreadable: {error}".replace(source, Path(source).name)
    for _ in todo[position:]:
        yield None, reason or f"the video ends after {total} frames"
