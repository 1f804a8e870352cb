"""Opening whatever was named: a file, a folder, a list, a pipe, an address, arrays."""

from __future__ import annotations

import io
import itertools
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from siamcal.errors import MediaError
from siamcal.faces.media.boxes import recordings
from siamcal.faces.media.files import checked, is_live, local, without_password
from siamcal.faces.media.folders import IMAGE_SUFFIXES, images_in
from siamcal.faces.media.frames import Frame, FrameStream, frames_of
from siamcal.faces.media.pictures import kind_of, pictures_in, read_image
from siamcal.faces.media.piped import Recorded, opened_pipe
from siamcal.faces.media.videos import is_picture, open_container, video_stream

__all__ = ["open_media", "read_frame", "sound_frame"]

# JPEGs one after the other, as simple cameras send them: an image by its first bytes.
RAW_MJPEG = {".mjpeg", ".mjpg"}


def open_media(given: Any) -> FrameStream:
    """One video, or any number of images and folders of images, as a stream of frames.

    Image files that turn out to be broken later in the list give a flagged frame; a single file
    that is neither image nor video is an error at once. An animation is a video; each page of a
    TIFF is a frame.

    Args:
        given: A video; or images and folders, whose images are taken in natural order (img2 before
            img10), not descending into further folders; "-" for stdin; an address (rtsp://...); a
            named pipe, by itself and in no list, which may be one of found files; or RGB arrays,
            one (H, W, 3) of uint8 or many, which get timestamp 0.

    Raises:
        MediaError: Nothing there, nothing readable, several videos, or videos mixed with images.
    """
    if isinstance(given, FrameStream):
        return given
    if isinstance(given, np.ndarray):
        given = given if given.ndim == 4 else [given]
    elif isinstance(given, str | os.PathLike) or not hasattr(given, "__iter__"):
        name = local(given)
        return _open_live(name) if is_live(name) else _open_files([Path(name)])
    items = iter(given)
    for first in items:
        items = itertools.chain([first], items)
        if isinstance(first, np.ndarray | Frame):
            total = len(given) if hasattr(given, "__len__") else None
            return FrameStream("images", ("arrays",), total, None, frames_of(items))
        return _open_named([local(item) for item in items])
    raise MediaError("No input was given: name a video, images, or a folder of images.")


def read_frame(path: Any, index: int) -> np.ndarray:
    """(H, W, 3) uint8, frame `index` (0-based) of whatever `open_media` takes.

    Raises:
        MediaError: The stream is shorter, the frame is broken, or the file can't be read.
    """
    return sound_frame(open_media(path), index).rgb


def sound_frame(stream: FrameStream, index: int) -> Any:
    """Frame `index` (0-based) of a stream; its `rgb` is there.

    Raises:
        MediaError: The stream is shorter, or the frame is broken.
    """
    name, last = stream.sources[0], -1
    for frame in stream:
        last = frame.index
        if frame.index == index:
            if frame.rgb is None or frame.problem:
                raise MediaError(f"Frame {index + 1} of {name} is broken ({frame.problem}).")
            return frame
    if len(stream.sources) > 1:
        raise MediaError(f"There are {last + 1} images; {index + 1} was asked for.")
    raise MediaError(
        f"{name} has {last + 1} frame{'s' * (last > 0)}; frame {index + 1} was asked for."
    )


def _open_named(names: list[Path | str]) -> FrameStream:
    for name in names:
        if isinstance(name, str):
            if len(names) > 1:
                shown = without_password(name)
                raise MediaError(f"{shown} is a stream and is read alone, not with other inputs.")
            return _open_live(name)
    return _open_files([Path(name) for name in names])


def _open_files(paths: list[Path]) -> FrameStream:
    notes: list[str] = []
    files: list[Path] = []
    for path in paths:
        files += images_in(path, notes) if os.path.isdir(path) else [checked(path)]
    stream = _open_single(files[0]) if len(files) == 1 else _open_list(files)
    stream.notes[:0] = notes
    return stream


def _open_list(files: list[Path]) -> FrameStream:
    videos = [file for file in files if _looks_like_video(file)]
    if videos:
        raise MediaError(
            f"{videos[0].name} is a video among {len(files)} inputs. A table holds one video, or "
            f"images; siamcal predict ... -o FOLDER/ makes a table for each."
        )

    def frames() -> Iterator[Frame]:
        index = 0
        for file in files:
            for frame in pictures_in(file, str(file), first=index):
                yield frame
                index += 1

    names = tuple(str(file) for file in files)
    # A file may hold several pages.
    stream = FrameStream("images", names, len(files), None, frames(), estimated=True)
    first = kind_of(files[0])
    if first and first.aspect != 1:
        stream.notes.append(_stretched(names[0], first.aspect))
    return stream


def _looks_like_video(path: Path) -> bool:
    if path.suffix.lower() in IMAGE_SUFFIXES or kind_of(path) is not None:
        return False
    try:
        open_container(path, str(path)).close()
    except MediaError:
        return False
    return True


def _open_single(path: Path) -> FrameStream:
    if path.suffix.lower() not in RAW_MJPEG and kind_of(path) is not None:
        return _picture_stream(path, str(path))
    try:
        container = open_container(path, str(path))
    except MediaError:
        if path.suffix.lower() in IMAGE_SUFFIXES:
            read_image(path)  # says what is wrong with the image
        raise
    if is_picture(container):
        # FFmpeg takes a damaged image by its extension alone; here images are Pillow's.
        container.close()
        read_image(path)
    stream = video_stream(container, str(path))
    if "mp4" in container.format.name and recordings(path) > 1:
        stream.notes.append(
            f"{path} holds {recordings(path)} recordings, joined by copying bytes: only the first "
            f"is read, as by players. Cut it apart or join the originals with ffmpeg -f concat."
        )
    return stream


def _picture_stream(file: Path | io.BytesIO, name: str) -> FrameStream:
    kind = kind_of(file)
    total, moving = (kind.total, kind.moving) if kind else (1, False)
    frames = pictures_in(file, name, moving=moving)
    stream = FrameStream("video" if moving else "images", (name,), total, None, frames)
    if kind and kind.aspect != 1:
        stream.notes.append(_stretched(name, kind.aspect))
    return stream if total > 1 else replace(stream, frames=_whole(frames))


def _stretched(name: str, aspect: float) -> str:
    return (
        f"{name} notes pixels {aspect:.2f} times as wide as high and was stretched accordingly. If "
        f"that is wrong, and the face looks too broad or too narrow, save it without a resolution."
    )


def _whole(frames: Iterator[Frame]) -> Iterator[Frame]:
    # A single image that can't be read is an error, not a flagged frame.
    for frame in frames:
        if frame.rgb is None:
            raise MediaError(frame.problem)
        yield frame


def _open_live(where: Path | str) -> FrameStream:
    if isinstance(where, str) and where != "-":
        name = without_password(where)
        return video_stream(open_container(where, name), name, live=True)
    name = "stdin" if where == "-" else str(where)
    if where == "-" and (sys.stdin is None or sys.stdin.isatty()):
        raise MediaError("Nothing is sent to stdin: ffmpeg -i FILE -f matroska - | siamcal ... -")
    piped = Recorded(sys.stdin.buffer if where == "-" else opened_pipe(Path(where)))
    try:
        container = open_container(piped, name)
    except MediaError:
        content = io.BytesIO(piped.everything())
        if kind_of(content) is None:
            raise
        return _picture_stream(content, name)
    if is_picture(container):
        container.close()
        return _picture_stream(io.BytesIO(piped.everything()), name)
    piped.forget()
    return video_stream(container, name, live=True)
