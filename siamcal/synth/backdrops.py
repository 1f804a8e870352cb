"""Backgrounds of the shifted look: no rooms, but foliage, brickwork, stripes, lamps at night."""

from __future__ import annotations

import cv2
import numpy as np

from siamcal.synth.texture import linear

__all__ = ["BACKDROPS", "draw_backdrop"]

_SIDE = 192


def _cloud(rng: np.random.Generator, grains: int) -> np.ndarray:
    """Return smooth noise (side, side), standard deviation about 1."""
    small = rng.standard_normal((grains, grains), np.float32)
    return cv2.resize(small, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC)


def _foliage(rng: np.random.Generator) -> np.ndarray:
    level = sum(_cloud(rng, n) for n in (6, 20, 60)) / 3
    colour = np.array([rng.uniform(40, 110), rng.uniform(80, 140), rng.uniform(20, 60)])
    picture = colour * np.clip(1 + 0.8 * level, 0.1, 2.4)[..., None]
    gaps = np.clip(_cloud(rng, 24) - 1.3, 0, 1)[..., None]  # sky between the leaves
    return picture + gaps * (np.array([200, 220, 240]) - picture)


def _bricks(rng: np.random.Generator) -> np.ndarray:
    mortar = rng.uniform(90, 190)
    picture = np.full((_SIDE, _SIDE, 3), mortar)
    # Painted: red bricks come so near to skin that faces before them aren't found.
    colour = mortar + rng.normal(0, 16, 3) + np.array([-6, 0, 10])
    height, width = int(rng.integers(9, 18)), int(rng.integers(24, 44))
    for row, y in enumerate(range(0, _SIDE, height)):
        for x in range(-(row % 2) * width // 2, _SIDE, width):
            tone = (colour * rng.uniform(0.72, 1.0)).clip(0, 255).tolist()
            cv2.rectangle(picture, (x + 1, y + 1), (x + width - 2, y + height - 2), tone, -1)
    return picture


def _stripes(rng: np.random.Generator) -> np.ndarray:
    across, down = np.meshgrid(np.arange(_SIDE), np.arange(_SIDE))
    turn = rng.uniform(0, np.pi)
    wave = np.sin((across * np.cos(turn) + down * np.sin(turn)) * rng.uniform(0.2, 0.7))
    first = rng.uniform(60, 190) + rng.normal(0, 24, 3)
    second = first + rng.choice([-1, 1]) * rng.uniform(30, 60) + rng.normal(0, 12, 3)
    return first + (0.5 + 0.5 * np.clip(3 * wave, -1, 1))[..., None] * (second - first)


def _night(rng: np.random.Generator) -> np.ndarray:
    picture = np.ones((_SIDE, _SIDE, 3)) * rng.uniform(4, 24, 3)
    for _ in range(int(rng.integers(12, 40))):
        centre = tuple(int(v) for v in rng.integers(0, _SIDE, 2))
        lamp = np.array([255, rng.uniform(120, 240), rng.uniform(30, 230)]) * rng.uniform(0.4, 1)
        disc = np.zeros((_SIDE, _SIDE), np.float32)
        cv2.circle(disc, centre, int(rng.integers(3, 11)), 1.0, -1, cv2.LINE_AA)
        picture += disc[..., None] * (lamp - picture) * rng.uniform(0.5, 1)
    return picture


#: Kind -> painter of 8-bit sRGB (side, side, 3); the last number of a kind's blur is the widest.
BACKDROPS = {
    "foliage": (_foliage, 0.6, 3.0),
    "bricks": (_bricks, 0.4, 1.2),
    "stripes": (_stripes, 0.4, 2.0),
    "night": (_night, 0.6, 1.5),
}


def draw_backdrop(rng: np.random.Generator, size: int) -> np.ndarray:
    """Paint one of :data:`BACKDROPS`; returns linear light (size, size, 3) float32."""
    paint, least, most = BACKDROPS[str(rng.choice(list(BACKDROPS)))]
    picture = paint(rng).clip(0, 255).astype(np.float32)
    blurred = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(least, most)))
    large = cv2.resize(blurred, (size, size), interpolation=cv2.INTER_LINEAR)
    return linear(large.clip(0, 255)).astype(np.float32)
