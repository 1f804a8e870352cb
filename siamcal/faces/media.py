"""Pictures, videos and cameras as a stream of RGB frames; broken ones are flagged, never fatal.

Kinds are told by content, not by extension. Nothing here holds more than one frame of a video.
"""

from __future__ import annotations

import heapq
import logging
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from siamcal.errors import MediaError
from siamcal.files import kind_of_file

__all__ = ["Frame", "FrameStream", "open_camera", "open_media", "read_frame", "read_image"]

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".avif", ".pgm", ".ppm"),
    *(".gif", ".jp2"),
}


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a stream.

    Attributes:
        index: 0-based position in the stream; every frame of a video has one, broken ones too.
        timestamp: Seconds from the start of the video; 0 for image files.
        rgb: (H, W, 3) uint8, or None where the frame couldn't be decoded.
        source: File the frame comes from.
        problem: Why `rgb` is None or not to be trusted; "" for a sound frame.
    """

    index: int
    timestamp: float
    rgb: np.ndarray | None
    source: str
    problem: str = ""


@dataclass(frozen=True, eq=False)
class FrameStream:
    """Frames to iterate over once.

    Attributes:
        kind: "video", "images" or "camera".
        sources: The files, in the order of the frames.
        total: Number of frames where it is known (an estimate for some videos), else None.
        fps: Mean frame rate, for videos.
        frames: The frames.
    """

    kind: str
    sources: tuple[str, ...]
    total: int | None
    fps: float | None
    frames: Iterator[Frame]

    def __iter__(self) -> Iterator[Frame]:
        return self.frames


def read_image(path: str | Path) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB.

    EXIF rotation is applied; grey and palette images become RGB; 16 bit are reduced to 8;
    transparent parts become black. Of an animation the first picture is read.

    Raises:
        MediaError: Missing, empty, not an image, or broken.
    """
    from PIL import Image, ImageOps

    path = _checked(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                image.load()
                # Also returns a copy in memory, so that the file can be closed.
                return _to_rgb(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombError, MemoryError) as error:
        raise MediaError(f"{path} is too large a picture ({error}). Reduce it first.") from error
    except Exception as error:  # Pillow's plug-ins raise nearly everything on broken files
        raise MediaError(
            f"{path} can't be read as an image ({_reason(error)}). It is damaged or of another "
            f"kind; open and save it again with an image editor."
        ) from error


def open_media(paths: str | Path | Iterable[str | Path]) -> FrameStream:
    """One video, or any number of images and folders of images, as a stream of frames.

    Image files that turn out to be broken later in the list give a flagged frame; a single file
    that is neither image nor video is an error at once.

    Args:
        paths: A video; or images and folders, whose images are taken in natural order (img2 before
            img10), not descending into further folders.

    Raises:
        MediaError: Nothing there, nothing readable, several videos, or videos mixed with images.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    files: list[Path] = []
    for path in given:
        files += _images_in(Path(path)) if Path(path).is_dir() else [_checked(path)]
    if not files:
        raise MediaError("No input was given: name a video, images, or a folder of images.")
    if len(files) == 1:
        return _open_single(files[0])
    videos = [file for file in files if _looks_like_video(file)]
    if videos:
        raise MediaError(
            f"{videos[0].name} is a video among {len(files)} inputs. A table holds one video, or "
            f"images: run once for each video (a saved profile spares reading the reference again)."
        )
    names = tuple(str(file) for file in files)
    return FrameStream("images", names, len(files), None, _image_frames(files))


def open_camera(number: int = 0) -> FrameStream:
    """Frames of a camera until it ends or the iteration is stopped.

    Raises:
        MediaError: There is no such camera.
    """
    import time

    import cv2

    camera = cv2.VideoCapture(number)
    if not camera.isOpened():
        raise MediaError(
            f"Camera {number} can't be opened: it isn't there, or another program uses it. "
            f"The first camera is camera:0."
        )

    def frames() -> Iterator[Frame]:
        start, index = time.monotonic(), 0
        try:
            while True:
                there, bgr = camera.read()
                if not there:
                    return
                rgb = np.ascontiguousarray(bgr[..., ::-1])
                yield Frame(index, time.monotonic() - start, rgb, f"camera:{number}")
                index += 1
        finally:
            camera.release()

    return FrameStream("camera", (f"camera:{number}",), None, None, frames())


def read_frame(path: str | Path, index: int) -> np.ndarray:
    """(H, W, 3) uint8, frame `index` (0-based) of a video or of an image, which has only frame 0.

    Raises:
        MediaError: The stream is shorter, the frame is broken, or the file can't be read.
    """
    last = -1
    for frame in open_media(path):
        last = frame.index
        if frame.index == index:
            if frame.rgb is None or frame.problem:
                raise MediaError(f"Frame {index + 1} of {path} is broken ({frame.problem}).")
            return frame.rgb
    raise MediaError(f"{path} has {last + 1} frames; frame {index + 1} was asked for.")


# --- images --------------------------------------------------------------------------------------


def _checked(path: str | Path) -> Path:
    path = Path(path)
    if "\0" in str(path) or not path.exists():
        raise MediaError(f"{path} doesn't exist. Check the name; relative names start at {Path()}.")
    if kind := kind_of_file(path):
        raise MediaError(f"{path} is {kind}, but one ordinary file is needed here.")
    if not os.access(path, os.R_OK):
        raise MediaError(f"{path} may not be read (file permissions).")
    if path.stat().st_size == 0:
        raise MediaError(f"{path} is empty (0 bytes); it was probably never written completely.")
    return path


def _to_rgb(image: Any) -> np.ndarray:
    if image.mode.startswith(("I;16", "I", "F")):
        return _deep_grey(np.asarray(image))
    if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        image = image.convert("RGBA")
        colours = np.asarray(image, np.uint16)  # (H, W, 4)
        opaque = colours[..., :3] * colours[..., 3:] // 255
        return opaque.astype(np.uint8)
    return np.array(image.convert("RGB"))


def _deep_grey(values: np.ndarray) -> np.ndarray:
    """(H, W) of 16 or 32 bit, whole or float, as (H, W, 3) uint8 without clipping."""
    finite = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    largest = finite.max(initial=0.0)
    # A float image up to 1, an 8-bit image in a wider type, a 16-bit one, or anything else.
    ceilings = [1.0] if np.issubdtype(values.dtype, np.floating) else []
    ceiling = next((c for c in [*ceilings, 255.0, 65535.0] if largest <= c), largest)
    if values.dtype == np.uint16:
        ceiling = 65535.0
    grey = np.clip(np.round(finite * (255.0 / ceiling)), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _image_frames(files: list[Path]) -> Iterator[Frame]:
    for index, file in enumerate(files):
        try:
            yield Frame(index, 0.0, read_image(file), str(file))
        except MediaError as error:
            yield Frame(index, 0.0, None, str(file), str(error))


def _images_in(folder: Path) -> list[Path]:
    images = [p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise MediaError(
            f"The folder {folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}). "
            f"Videos are named one by one."
        )
    return sorted(images, key=lambda p: [_natural(part) for part in re.split(r"(\d+)", p.name)])


def _natural(part: str) -> tuple[int, int, str]:
    return (0, int(part), "") if part.isdigit() else (1, 0, part)


def _reason(error: BaseException) -> str:
    text = str(error).split("\n")[0].strip()
    return text[:200] or type(error).__name__


# --- videos --------------------------------------------------------------------------------------


def _image_format(path: Path) -> str | None:
    """Pillow's name of the format, or None where the file isn't an image."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                return image.format
    except Image.DecompressionBombError:
        return "too large"
    except Exception:
        return None


def _looks_like_video(path: Path) -> bool:
    if _image_format(path) is not None or path.suffix.lower() in IMAGE_SUFFIXES:
        return False
    try:
        _open_container(path).close()
    except MediaError:
        return False
    return True


def _open_single(path: Path) -> FrameStream:
    form = _image_format(path)
    if form is not None and form != "GIF":
        return FrameStream("images", (str(path),), 1, None, _whole(path))
    try:
        container = _open_container(path)
    except MediaError:
        if form is None and path.suffix.lower() in IMAGE_SUFFIXES:
            read_image(path)  # says what is wrong with the image
        raise
    stream = container.streams.video[0]
    fps = float(stream.average_rate) if stream.average_rate else None
    total = stream.frames or None
    if total is None and fps and stream.duration and stream.time_base:
        total = round(float(stream.duration * stream.time_base) * fps)
    elif total is None and fps and container.duration:
        total = round(container.duration / 1e6 * fps)
    return FrameStream("video", (str(path),), total, fps, _video_frames(path, container))


def _whole(path: Path) -> Iterator[Frame]:
    # A single image that can't be read is an error, not a flagged frame.
    yield Frame(0, 0.0, read_image(path), str(path))


def _open_container(path: Path) -> Any:
    import av

    av.logging.set_level(av.logging.PANIC)  # decoders' complaints become flagged frames
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise MediaError(
            f"{path} is neither an image nor a video that can be read ({_reason(error)}). "
            f"Check that it was copied completely; ffmpeg -i FILE out.mp4 repairs many videos."
        ) from error
    kinds = {stream.type for stream in container.streams}
    if "video" not in kinds:
        container.close()
        raise MediaError(f"{path} holds no pictures, only {' and '.join(sorted(kinds))}.")
    if container.format.name.endswith("_pipe") or container.format.name == "image2":
        # FFmpeg takes a damaged image by its extension alone; here images are Pillow's.
        container.close()
        read_image(path)
    return container


def _video_frames(path: Path, container: Any) -> Iterator[Frame]:
    """Frames in order of presentation; a packet that can't be decoded leaves a flagged frame."""
    import av

    stream = container.streams.video[0]
    # Frame threads report an error packets later, and the wrong frame would be flagged.
    stream.thread_type = "SLICE"
    start = (container.start_time or 0) / av.time_base
    step = 1.0 / float(stream.average_rate) if stream.average_rate else 1.0 / 30
    broken: list[tuple[float, str]] = []  # heap of (time, why), waiting for their turn
    index, last = 0, -step
    try:
        for event in _decoded(container, stream):
            if isinstance(event, tuple):
                when = last + step if event[0] is None else event[0] - start
                heapq.heappush(broken, (when, event[1]))
                continue
            time = last + step if event.time is None else event.time - start
            problem = "the decoder marks it as damaged" if event.is_corrupt else ""
            while broken and broken[0][0] <= time:
                lost, why = heapq.heappop(broken)
                if lost == time:  # an error was reported, and the frame came all the same
                    problem = why
                    continue
                yield Frame(index, max(lost, 0.0), None, str(path), why)
                index += 1
            yield Frame(index, max(time, 0.0), _pixels(event), str(path), problem)
            index, last = index + 1, time
        for lost, why in sorted(broken):
            yield Frame(index, max(lost, 0.0), None, str(path), why)
            index += 1
    finally:
        container.close()
    if index == 0:
        raise MediaError(f"{path} is a video without a single frame that can be decoded.")


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Decoded frames, or (time in seconds or None, reason) for packets that fail."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, OSError, ValueError) as error:
            # The file ends in the middle: what was read before stays valid.
            yield None, f"the file breaks off here ({_reason(error)})"
            return
        try:
            yield from packet.decode()
        except (av.error.FFmpegError, ValueError) as error:
            if packet.size:
                when = None if packet.pts is None else float(packet.pts * packet.time_base)
                yield when, f"it can't be decoded ({_reason(error)})"


def _pixels(frame: Any) -> np.ndarray:
    rgb = frame.to_ndarray(format="rgb24")  # (H, W, 3)
    # Phones film sideways and note the turn, in degrees counter-clockwise.
    turns = round((frame.rotation or 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb
