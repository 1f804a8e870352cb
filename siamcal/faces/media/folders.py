"""The images in a folder, in the order in which people count."""

from __future__ import annotations

import re
from pathlib import Path

from siamcal.errors import MediaError
from siamcal.faces.media.files import refuse_odd
from siamcal.faces.media.pictures import kind_of

__all__ = ["IMAGE_SUFFIXES", "images_in"]

IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".tif", ".tiff", ".webp", ".avif"),
    *(".heic", ".heif", ".hif", ".pgm", ".ppm", ".pnm", ".gif", ".jp2", ".tga"),
}
VIDEO_SUFFIXES = {
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
    *(".wmv", ".asf", ".flv", ".3gp", ".ogv", ".dv", ".mjpeg", ".mjpg", ".mxf", ".vob", ".h264"),
}
LISTED = 3


def images_in(folder: Path, notes: list[str]) -> list[Path]:
    """Image files in natural order (img2 before img10); hidden files are left out.

    Args:
        folder: Further folders in it aren't opened.
        notes: Takes a sentence on videos and folders that were passed over.

    Raises:
        MediaError: There are no images, the folder may not be read, or it holds a pipe, a socket or
            a device.
    """
    try:
        # What begins with a dot is hidden; so macOS marks its notes beside each file (._img1.jpg).
        inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise MediaError(f"The folder {folder} can't be read ({error.strerror}).") from error
    for path in inside:
        refuse_odd(path)
    # A link to nothing is an image that can't be read.
    images = [path for path in inside if not path.is_dir() and _is_image(path)]
    videos = [path for path in inside if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()]
    folders = [path for path in inside if path.is_dir()]
    passed = _counted(videos, "video") + _counted(folders, "folder")
    if not images:
        raise MediaError(
            f"The folder {folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})"
            + (f", but {' and '.join(passed)}. Name one of them." if passed else ".")
        )
    if passed:
        notes.append(f"{folder} also holds {' and '.join(passed)}, which were not read.")
    return sorted(images, key=lambda p: [_natural(part) for part in re.split(r"(\d+)", p.name)])


def _is_image(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in IMAGE_SUFFIXES or (suffix not in VIDEO_SUFFIXES and kind_of(path) is not None)


def _counted(paths: list[Path], what: str) -> list[str]:
    if not paths:
        return []
    names = [path.name for path in sorted(paths)]
    shown = ", ".join(names[:LISTED] + ["…"] * (len(names) > LISTED))
    return [f"{len(names)} {what}{'s' * (len(names) > 1)} ({shown})"]


def _natural(part: str) -> tuple[int, int, str]:
    # Not isdigit: "²" is a digit that int() refuses.
    return (0, int(part), "") if part.isdecimal() else (1, 0, part)
