"""Boxes around faces, and windows cut out of a frame."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

__all__ = ["LARGEST", "Box", "cut_window", "distinct", "overlap"]

# OpenCV counts the pixels of a picture that it warps in 16 bits.
LARGEST = 32_000


@dataclass(frozen=True)
class Box:
    """An upright rectangle in pixels.

    Attributes:
        left: Its left edge.
        top: Its upper edge.
        width: To the right.
        height: Downwards.
        score: How sure the detector is that it holds a face, in [0, 1].
    """

    left: float
    top: float
    width: float
    height: float
    score: float = 1.0

    def moved(self, x: float, y: float) -> Box:
        """The same box, seen from a frame whose origin lies (x, y) before."""
        return Box(self.left + x, self.top + y, self.width, self.height, self.score)

    @classmethod
    def around(cls, points: np.ndarray) -> Box:
        """The smallest box that holds the points, (N, 2 or more)."""
        left, top = points[:, :2].min(0)
        right, bottom = points[:, :2].max(0)
        return cls(float(left), float(top), float(right - left), float(bottom - top))


def overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width = min(a.left + a.width, b.left + b.width) - max(a.left, b.left)
    height = min(a.top + a.height, b.top + b.height) - max(a.top, b.top)
    shared = max(width, 0.0) * max(height, 0.0)
    union = a.width * a.height + b.width * b.height - shared
    return shared / union if union > 0 else 0.0


def distinct(boxes: Iterable[Box], most_shared: float) -> list[Box]:
    """The boxes by falling score, without those that share more with a better one."""
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda b: -b.score):
        if all(overlap(box, other) < most_shared for other in kept):
            kept.append(box)
    return kept


def cut_window(rgb: np.ndarray, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """The part of `rgb` between the edges; black where they leave the frame."""
    height, width = rgb.shape[:2]
    inside = rgb[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if left >= 0 and top >= 0 and right <= width and bottom <= height:
        return inside
    return cv2.copyMakeBorder(
        inside,
        min(max(-top, 0), bottom - top),
        max(bottom - max(height, top), 0),
        min(max(-left, 0), right - left),
        max(right - max(width, left), 0),
        cv2.BORDER_CONSTANT,
        value=(0, 0, 0),
    )
