"""Decoded frames as players show them: RGB of the right colours, square pixels, turned upright."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from siamcal.faces.media.aspect import believed, square_size

__all__ = ["Upright"]

# ITU-T H.273: matrix and transfer curves.
BT709, BT601, UNSPECIFIED = 1, 5, 2
PQ, HLG, SRGB = 16, 18, 13
# A display matrix whose entries are this close to whole numbers turns by 90 degrees.
WHOLE = 0.02


class Upright:
    """Turns the decoded frames of one video track into arrays.

    Args:
        aspect: Width of a pixel by its height; None or 0 where the file doesn't say.
        name: The file, for the notes.
        notes: Takes a sentence, once, on what a viewer of the raw pixels wouldn't expect.
    """

    def __init__(self, aspect: Fraction | None, name: str, notes: list[str]) -> None:
        from av.video.reformatter import VideoReformatter

        self.name, self.notes = name, notes
        self._told: set[str] = set()
        self.aspect = self._plausible(aspect)
        self._reformatter = VideoReformatter()
        self._matrices: dict[int, np.ndarray | None] = {}

    def rgb(self, frame: Any) -> np.ndarray:
        """A frame of PyAV as (H, W, 3) uint8 RGB."""
        if frame.interlaced_frame:
            self._tell(
                "is interlaced: fast movements look combed. It is read as it is; ffmpeg -i FILE "
                "-vf bwdif out.mp4 takes the fields apart"
            )
        # Asking a frame for its side data makes a circle that keeps the frame in memory.
        if frame.rotation not in self._matrices:
            self._matrices[frame.rotation] = _display_matrix(frame)
        return self._turned(self._square(frame), self._matrices[frame.rotation])

    def _square(self, frame: Any) -> np.ndarray:
        width, height = square_size(frame.width, frame.height, self.aspect)
        made: dict[str, Any] = {"width": width, "height": height, "format": "rgb24"}
        if self.aspect != 1:
            made["interpolation"] = "BICUBIC"
        if frame.colorspace == UNSPECIFIED:
            made["src_colorspace"] = _usual_matrix(frame)
        if frame.color_trc in (PQ, HLG):
            # Takes seconds, once a stream. Without it everything is dark and pale.
            made |= {"dst_color_trc": SRGB, "dst_color_primaries": BT709}
            self._tell("is HDR; its brightness and colours were turned into standard ones")
        return self._reformatter.reformat(frame, threads=1, **made).to_ndarray()  # (H, W, 3)

    def _turned(self, rgb: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
        if matrix is None:
            return rgb
        whole = np.round(matrix)
        if np.abs(matrix - whole).max() < WHOLE:
            return _flipped(rgb, whole)
        angle = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
        self._tell(
            f"asks to be turned by {angle:.1f} degrees, which was done; the corners are black"
        )
        return _warped(rgb, matrix)

    def _plausible(self, aspect: Fraction | None) -> Fraction:
        if not aspect or aspect == 1:
            return Fraction(1)
        if not believed(aspect):
            self._tell(f"notes pixels of {aspect}, which can't be; they are taken for square")
            return Fraction(1)
        return Fraction(aspect)

    def _tell(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self.notes.append(f"{self.name} {what}.")


def _usual_matrix(frame: Any) -> int:
    """What players take where nothing is said: BT.601 for small pictures and JPEG, else BT.709."""
    large = frame.width >= 1280 or frame.height > 576
    return BT709 if large and not frame.format.name.startswith("yuvj") else BT601


def _display_matrix(frame: Any) -> np.ndarray | None:
    """(2, 2) that takes (x, y) of the stored picture to the shown one, of determinant 1 or -1.

    None where there is none, or none that can be followed.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    entries = np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2].T / 65536  # (2, 2)
    size = abs(np.linalg.det(entries))
    return entries / np.sqrt(size) if size > 1e-6 else None


def _flipped(rgb: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The picture under a (2, 2) matrix of 0, 1 and -1: one of the eight ways to lay it down."""
    swapped = whole[0, 0] == 0
    across, down = (whole[0, 1], whole[1, 0]) if swapped else (whole[0, 0], whole[1, 1])
    laid = rgb.transpose(1, 0, 2) if swapped else rgb
    return np.ascontiguousarray(laid[:: int(down), :: int(across)])


def _warped(rgb: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The picture under any (2, 2) matrix, whole, with black corners."""
    import cv2

    height, width = rgb.shape[:2]
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]]) @ matrix.T  # (4, 2)
    low, size = corners.min(0), np.ceil(np.ptp(corners, axis=0)).astype(int)
    # Pixel centres lie at halves.
    shift = matrix @ np.array([0.5, 0.5]) - low - 0.5
    return cv2.warpAffine(rgb, np.column_stack([matrix, shift]), tuple(size.tolist()))
