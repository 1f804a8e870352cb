"""Image files: upright, as 8-bit RGB; all pages and all pictures of an animation."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from siamcal.errors import MediaError
from siamcal.faces.media.aspect import believed, square_size
from siamcal.faces.media.boxes import missing_bytes
from siamcal.faces.media.files import checked, reason
from siamcal.faces.media.frames import Frame

__all__ = ["Kind", "kind_of", "pictures_in", "read_image"]

# Formats whose further pictures are pages or moments. Others hold previews, depth maps, layers or
# other sizes of the one picture that is meant.
PAGES = {"TIFF"}
ANIMATIONS = {"GIF", "PNG", "WEBP", "AVIF", "FLI"}
# Browsers, too, show a picture without a duration for so long.
USUAL_DURATION = 0.1
# Bits of TIFF's NewSubfileType: a smaller copy, and a transparency mask, of another page.
NEW_SUBFILE_TYPE, NO_PAGE = 254, 0b101
ORIENTATION = 0x0112


@dataclass(frozen=True)
class Kind:
    """What an image file is.

    Attributes:
        form: Pillow's name of the format.
        total: Number of pages or pictures; 1 for formats in which only one is meant.
        aspect: Width of a pixel by its height.
    """

    form: str
    total: int = 1
    aspect: float = 1.0

    @property
    def moving(self) -> bool:
        """Whether it is an animation."""
        return self.form in ANIMATIONS and self.total > 1


def read_image(path: str | Path) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB.

    EXIF rotation is applied; pixels become square; grey and palette images become RGB; 16 bit are
    reduced to 8; transparent parts become black. Of several pages or pictures the first is read.

    Raises:
        MediaError: Missing, empty, not an image, or broken.
    """
    path = checked(Path(path))
    with _words(path), _opened(path) as image:
        image.seek(next(_numbers(image)))
        return _upright(image)


def kind_of(file: Path | io.BytesIO) -> Kind | None:
    """What an image file is, or None where it isn't one."""
    try:
        with _opened(file) as image:
            info, form, total = image.info, image.format, sum(1 for _ in _numbers(image))
    except _pillow().DecompressionBombError:
        return Kind("too large")
    except Exception:  # Pillow's plug-ins raise nearly everything on broken files
        return None
    return Kind(form, total, _aspect(info))


def _aspect(info: dict[str, Any]) -> float:
    """Width of a pixel by its height, by an image's header."""
    across, down = info.get("dpi", (1, 1))[::-1]  # more dots an inch are narrower ones
    if "aspect" in info:  # PNG without a unit: width by height, as FFmpeg writes and reads it
        across, down = info["aspect"]
    elif info.get("jfif_unit") == 0:
        across, down = info["jfif_density"]
    if not across > 0 or not down > 0:
        return 1.0
    aspect = float(across) / float(down)
    return aspect if believed(aspect) and abs(aspect - 1) > 0.01 else 1.0


def pictures_in(
    file: Path | io.BytesIO, name: str, *, first: int = 0, moving: bool = False
) -> Iterator[Frame]:
    """All pages or pictures of an image file; those that can't be read are flagged.

    Args:
        file: Where it is.
        name: What it is called in the frames.
        first: Index of its first frame.
        moving: Whether the frames get the timestamps of the animation.
    """
    index, seconds = first, 0.0
    try:
        if isinstance(file, Path):
            checked(file)
        with _words(name), _opened(file) as image:
            for number in _numbers(image):
                try:
                    with _words(name):
                        image.seek(number)
                        rgb = _upright(image)
                except MediaError as error:
                    yield Frame(index, seconds, None, name, str(error))
                else:
                    yield Frame(index, seconds, rgb, name)
                index += 1
                if moving:
                    seconds += (image.info.get("duration") or 0) / 1000 or USUAL_DURATION
    except MediaError as error:
        yield Frame(index, seconds, None, name, str(error))


def _numbers(image: Any) -> Iterator[int]:
    """The numbers that `seek` takes for the pictures that are meant."""
    if image.format not in PAGES | ANIMATIONS:
        yield image.tell()  # HEIC's main picture need not be its first
        return
    count = getattr(image, "n_frames", 1)
    if image.format == "TIFF":
        for number in range(count):
            image.seek(number)
            if not number or not image.tag_v2.get(NEW_SUBFILE_TYPE, 0) & NO_PAGE:
                yield number
    else:
        # A PNG's stand-in, for programs that know no animations, is no part of the animation.
        yield from range(int(count > 1 and image.info.get("default_image", False)), count)


@cache
def _pillow() -> Any:
    import pi_heif
    from PIL import Image

    # Phones cut their pictures into tiles that FFmpeg knows as tracks: libheif joins them.
    pi_heif.register_heif_opener()
    return Image


@contextmanager
def _opened(file: Path | io.BytesIO) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _pillow().open(file) as image:
            # libheif would fill what is missing with black, without a word.
            if image.format == "HEIF" and missing_bytes(file):
                raise ValueError(f"it breaks off: {missing_bytes(file)} bytes are missing")
            yield image


@contextmanager
def _words(path: str | Path) -> Iterator[None]:
    """Pillow's many kinds of error as one, in words."""
    try:
        yield
    except MediaError:
        raise
    except (_pillow().DecompressionBombError, MemoryError) as error:
        raise MediaError(f"{path} is too large a picture ({error}). Reduce it first.") from error
    except Exception as error:  # Pillow's plug-ins raise nearly everything on broken files
        raise MediaError(
            f"{path} can't be read as an image ({reason(error)}). It is damaged or of another "
            f"kind; open and save it again with an image editor."
        ) from error


def _upright(image: Any) -> np.ndarray:
    import cv2
    from PIL import ImageOps

    aspect = _aspect(image.info)
    on_its_side = image.getexif().get(ORIENTATION) in (5, 6, 7, 8)
    image.load()
    # Also returns a copy in memory, so that the file can be closed.
    rgb = _to_rgb(ImageOps.exif_transpose(image))
    if aspect == 1:
        return rgb
    size = square_size(rgb.shape[1], rgb.shape[0], 1 / aspect if on_its_side else aspect)
    return cv2.resize(rgb, size, interpolation=cv2.INTER_CUBIC)


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
