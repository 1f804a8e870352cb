"""What a person looks like within one recording: colours and proportions, not who they are.

Enough to tell the people of one video apart while they cross or leave and come back, in one light
and one set of clothes. It is no face recognition: across recordings it means little.
"""

from __future__ import annotations

import cv2
import numpy as np

from siamcal.faces.alignment import rigid_placement
from siamcal.faces.detection import Face

__all__ = ["LENGTH", "describe_appearance"]

# Patches in units of the distance of the outer eye corners, from the midpoint between the eyes:
# right, down, half a side, and the spreads of lightness and of a* and b* (CIELAB) there in one
# person's frames of one recording, over turns, expressions and light: about twice what rendered
# people show, as real cameras add to it. Skin moves little with expression; the parting does.
PATCHES = (
    (0.0, -0.45, 0.12, 4.0, 2.0),  # forehead
    (-0.42, 0.55, 0.10, 4.0, 2.0),  # cheeks
    (0.42, 0.55, 0.10, 4.0, 2.0),
    (0.0, 0.38, 0.08, 4.0, 2.0),  # nose
    (0.0, -1.15, 0.15, 4.0, 2.0),  # hair above the forehead
    (-0.85, -0.45, 0.12, 10.0, 4.0),  # temples and the hair beside them
    (0.85, -0.45, 0.12, 10.0, 4.0),
    (-0.75, 2.3, 0.25, 4.0, 2.0),  # shoulders
    (0.75, 2.3, 0.25, 4.0, 2.0),
    (0.0, 2.3, 0.20, 4.0, 2.0),  # chest
)
# Pairs of points whose distance an expression changes little, over the eye distance.
LENGTHS = (
    (133, 362),  # between the inner eye corners
    (33, 133),  # widths of the eyes
    (263, 362),
    (168, 4),  # length of the nose
    (98, 327),  # its width
    (127, 356),  # width of the head at the temples
    (10, 168),  # height of the forehead
)
LENGTH_SPREAD = 0.015
LENGTH = 3 * len(PATCHES) + len(LENGTHS)


def describe_appearance(rgb: np.ndarray, face: Face) -> np.ndarray:
    """Colours of skin, hair and clothes, and proportions of the head, (37,) float32.

    Every entry is in units of its spread within a person, so that differences can be averaged.
    Patches outside the frame are NaN.

    Args:
        rgb: (H, W, 3) uint8, the whole frame.
        face: The face in it.
    """
    place = rigid_placement(face.landmarks)
    cos, sin = np.cos(place.angle), np.sin(place.angle)
    colours = []
    for right, down, half, light, hue in PATCHES:
        x = place.centre[0] + (right * cos - down * sin) * place.eye_distance
        y = place.centre[1] + (right * sin + down * cos) * place.eye_distance
        colours.append(_colour(rgb, x, y, half * place.eye_distance) / (light, hue, hue))
    points = face.landmarks
    lengths = [np.linalg.norm(points[a] - points[b]) for a, b in LENGTHS]
    scaled = np.array(lengths) / place.eye_distance / LENGTH_SPREAD
    return np.concatenate([np.ravel(colours), scaled]).astype(np.float32)


def _colour(rgb: np.ndarray, x: float, y: float, half: float) -> np.ndarray:
    """Mean of CIELAB in a square, (3,); NaN where less than half of it lies in the frame."""
    left, right = round(x - half), round(x + half) + 1
    top, bottom = round(y - half), round(y + half) + 1
    patch = rgb[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if patch.size < 3 * 0.5 * (right - left) * (bottom - top):
        return np.full(3, np.nan)
    mean = np.array(cv2.mean(patch)[:3], np.float32) / 255
    return cv2.cvtColor(mean.reshape(1, 1, 3), cv2.COLOR_RGB2LAB).ravel()
