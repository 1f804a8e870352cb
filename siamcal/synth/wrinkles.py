"""Wrinkle maps: one per AU, used both while the AU acts and as a person's permanent lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from siamcal.synth.texture import HEIGHT, WIDTH, Line, strokes

WRINKLE_AUS = (1, 2, 4, 6, 9, 12, 15, 17, 20)

# The lines beside the mouth are shallow in life.
_STRENGTH = {1: 1.1, 2: 1.1, 4: 1.1, 15: 0.5, 20: 0.45, 17: 0.8}


@dataclass(frozen=True)
class WrinkleMap:
    """A map cut to its own box of the skin texture."""

    row: int
    column: int
    depth: np.ndarray


def _cut(texture: np.ndarray) -> WrinkleMap:
    rows = np.flatnonzero(texture.max(1) > 0.01)
    columns = np.flatnonzero(texture.max(0) > 0.01)
    r0, r1, c0, c1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    return WrinkleMap(int(r0), int(c0), np.ascontiguousarray(texture[r0:r1, c0:c1], np.float32))


def draw_wrinkles(rng: np.random.Generator) -> dict[int, WrinkleMap]:
    """Draw one person's own version of every wrinkle map."""

    def jitter(spread: float = 0.01) -> float:
        return float(rng.normal(0, spread))

    def arcs(heights: tuple[float, ...], reach: float, bend: float, waves: float) -> list[Line]:
        lines: list[Line] = []
        for y in heights:
            a, b, r = y + jitter(0.02), jitter(3.0), reach * (1 + jitter(0.12))
            x = np.linspace(-r, r + jitter(0.03), 24)
            lines.append(np.stack([x, a + bend * np.cos(x * 4) + waves * np.sin(x * 17 + b)], 1))
        return lines

    def mirrored(points: list[tuple[float, float]]) -> list[Line]:
        shift = [(jitter(), jitter()) for _ in points]
        return [
            [(s * (x + dx), y + dy) for (x, y), (dx, dy) in zip(points, shift, strict=True)]
            for s in (1, -1)
        ]

    frown: list[Line] = [
        [(0.055 + jitter(), 7.36), (0.07 + jitter(), 7.45), (0.06 + jitter(), 7.57)],
        [(-0.055 + jitter(), 7.36), (-0.075 + jitter(), 7.45), (-0.06 + jitter(), 7.56)],
        [(jitter(0.005), 7.40), (jitter(0.005), 7.5)],
    ]
    across = np.linspace(-0.09, 0.09, 24)
    nose: list[Line] = [np.stack([across, y - 2 * across**2], 1) for y in (7.33, 7.28, 7.23)]
    nose += [[(s * 0.08, 7.25), (s * 0.15, 7.12)] for s in (1, -1)]
    crow: list[Line] = [
        [(s * 0.50, 7.27 + d), (s * 0.61, 7.27 + d * 2.6)]
        for s in (1, -1)
        for d in (0.03, -0.01, -0.05)
    ]
    crow += [[(s * 0.2, 7.17), (s * 0.33, 7.12), (s * 0.45, 7.16)] for s in (1, -1)]
    across = np.linspace(-0.14, 0.14, 24)
    chin: list[Line] = [np.stack([across, 6.41 + 0.25 * across**2], 1)]
    chin += [
        [(x, y), (x + jitter(0.03), y + jitter(0.03))]
        for x, y in rng.uniform((-0.13, 6.25), (0.13, 6.37), (8, 2))
    ]
    drawn = {
        1: strokes(arcs((7.62, 7.70, 7.78), 0.24, 0.06, 0.006), 0.011, 0.010),
        2: strokes(arcs((7.66, 7.76, 7.86), 0.44, 0.05, 0.008), 0.011, 0.010),
        4: strokes(frown, 0.015, 0.011),
        6: strokes(crow, 0.010, 0.009),
        9: strokes(nose, 0.011, 0.009),
        12: strokes(
            mirrored([(0.18, 6.92), (0.27, 6.78), (0.335, 6.62), (0.33, 6.52)]), 0.016, 0.015
        ),
        15: strokes(mirrored([(0.28, 6.60), (0.31, 6.5), (0.29, 6.40)]), 0.013, 0.013),
        17: strokes(chin, 0.015, 0.014),
        20: strokes(mirrored([(0.36, 6.68), (0.40, 6.58), (0.36, 6.46)]), 0.013, 0.013),
    }
    return {au: _cut(texture) for au, texture in drawn.items()}


def wrinkle_depth(maps: dict[int, WrinkleMap], weights: dict[int, float]) -> np.ndarray:
    """Add the weighted maps up to the wrinkle depth (h, w) of one frame.

    Args:
        maps: From :func:`draw_wrinkles`.
        weights: Strength by AU; what is missing or 0 is skipped.
    """
    total = np.zeros((HEIGHT, WIDTH), np.float32)
    for au, weight in weights.items():
        if weight > 0.0:
            m = maps[au]
            h, w = m.depth.shape
            strength = np.float32(min(1.25, weight) * _STRENGTH.get(au, 1.0))
            total[m.row : m.row + h, m.column : m.column + w] += strength * m.depth
    return total
