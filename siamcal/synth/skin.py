"""The painted skin: tone, mottling, brows, stubble, moles, the scalp under the hair."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from siamcal.synth import texture as tex
from siamcal.synth.texture import linear, noise, patch, strokes

#: sRGB of skin from dark to light.
_TONES = linear(
    np.array([(58, 37, 28), (104, 68, 50), (158, 112, 82), (205, 158, 128), (232, 192, 168)])
)


@dataclass(frozen=True)
class Brows:
    """How a person's brows are drawn (decimetres where lengths)."""

    lift: float
    thickness: float
    density: float
    slant: float
    arch: float
    inner: float


def skin_albedo(tone: float, redness: float) -> np.ndarray:
    """Return linear RGB of a tone in [0, 1] (dark to light), `redness` about 0 +- .1."""
    steps = np.linspace(0, 1, len(_TONES))
    colour = np.array([np.interp(tone, steps, _TONES[:, k]) for k in range(3)])
    return colour * np.array([1 + 0.6 * redness, 1 - 0.3 * redness, 1 - 0.6 * redness])


def draw_brows(rng: np.random.Generator, brows: Brows) -> np.ndarray:
    """Draw both brows hair by hair; returns coverage (h, w) in [0, 1]."""
    hairs: list[tex.Line] = []
    outer = 0.57
    count = int(230 * brows.density * (0.6 + brows.thickness / 0.045))
    for side in (1.0, -1.0):
        u = rng.beta(1.1, 1.25, count)
        across = rng.normal(0, 0.42, count).clip(-1, 1)
        x = brows.inner + u * (outer - brows.inner)
        middle = (
            7.445
            + brows.lift
            + brows.arch * np.sin(np.pi * u)
            + brows.slant * 0.15 * (u - 0.5)
            - 0.05 * np.clip(u - 0.65, 0, 1)
        )
        y = middle + across * brows.thickness * (1 - 0.65 * u**2)
        # Hairs stand up at the inner end and lie down along the brow further out.
        lean = np.clip(1.25 - 1.6 * u, -0.35, 1.25) + rng.normal(0, 0.15, count)
        length = rng.uniform(0.05, 0.085, count)
        x1, y1 = x + np.cos(lean) * length, y + np.sin(lean) * length * 0.75
        hairs += [[(side * a, b), (side * c, d)] for a, b, c, d in zip(x, y, x1, y1, strict=True)]
    fine = np.clip(strokes(hairs, 0.004, 0.0035) * 1.1, 0, 1)
    soft = cv2.GaussianBlur(fine, (0, 0), 4.0)
    return np.clip(fine * 0.75 + soft * 0.8, 0, 1) * (0.55 + 0.45 * brows.density)


def _blend(skin: np.ndarray, colour: np.ndarray, cover: np.ndarray) -> None:
    skin[..., :3] += cover[..., None] * (colour.astype(np.float32) - skin[..., :3])


def _brow_colour(hair: np.ndarray, albedo: np.ndarray) -> np.ndarray:
    """Return the hair's colour, darkened until it stands out: brows turn grey last."""
    return hair * min(1.0, 0.35 * float(albedo.mean() / hair.mean()))


def _spots(rng: np.random.Generator, skin: np.ndarray, count: int) -> None:
    """Paint moles."""
    for _ in range(count):
        row = rng.integers(int(0.12 * tex.HEIGHT), int(0.8 * tex.HEIGHT))
        column = rng.integers(int(0.25 * tex.WIDTH), int(0.75 * tex.WIDTH))
        box = skin[row - 8 : row + 9, column - 8 : column + 9, :3]
        y, x = np.mgrid[-8:9, -8:9][:, : box.shape[0], : box.shape[1]]
        dark = 0.65 * np.exp(-(x**2 + y**2) / rng.uniform(1.5, 7.0))
        box *= 1 - dark[..., None].astype(np.float32)


def paint_skin(
    rng: np.random.Generator,
    albedo: np.ndarray,
    age: float,
    hair: np.ndarray,
    brow_cover: np.ndarray,
    scalp: np.ndarray,
    stubble: np.ndarray,
) -> np.ndarray:
    """Return the skin texture (h, w, 4) float32: linear albedo and gloss.

    Args:
        rng: Source of randomness.
        albedo: (3,) mean linear RGB, or (h, w, 3) where it differs by place.
        age: 0 (young adult) to 1 (old).
        hair: (3,) linear RGB of hair; brows are darker where it is as light as the skin.
        brow_cover: (h, w) coverage of the brows.
        scalp: (h, w) share of hair-covered skin, darkened with the hair's colour.
        stubble: (h, w) density of shaved beard.
    """
    skin = np.empty((tex.HEIGHT, tex.WIDTH, 4), np.float32)
    skin[..., :3] = albedo
    mottle = (
        0.045 * noise(rng, 0.14)
        + 0.035 * noise(rng, 0.035)
        + 0.03 * (0.6 + 0.8 * age) * noise(rng, 0.012)
    )
    skin[..., :3] *= 1 + mottle[..., None]
    redder = 0.05 * noise(rng, 0.08)
    skin[..., 0] *= 1 + 0.4 * redder
    skin[..., 1:3] *= (1 - redder)[..., None]

    blush = (
        patch(0.38, 6.95, 0.17, 0.14)
        + 0.8 * patch(0, 6.96, 0.13, 0.1)
        + 0.4 * patch(0, 6.3, 0.16, 0.1)
    ) * rng.uniform(0.3, 1.0)
    skin[..., 1:3] *= (1 - 0.17 * blush)[..., None]
    rings = patch(0.31, 7.17, 0.19, 0.07) * rng.uniform(0.1, 1.0) * (0.35 + 0.65 * age)
    skin[..., :3] *= 1 - rings[..., None] * np.array([0.22, 0.27, 0.22], np.float32)
    lids = patch(0.32, 7.37, 0.17, 0.04) * rng.uniform(0.0, 0.5)
    skin[..., :3] *= 1 - lids[..., None] * np.array([0.18, 0.25, 0.22], np.float32)
    _spots(rng, skin, int(rng.integers(0, 7)))
    _blend(skin, hair * 0.8 + 0.01, np.clip(stubble, 0, 0.9))
    _blend(skin, hair * 0.6, np.clip(scalp, 0, 1) * 0.9)
    _blend(skin, _brow_colour(hair, albedo), brow_cover)
    shine = 0.05 + 0.05 * patch(0, 7.75, 0.4, 0.2) + 0.07 * patch(0, 7.0, 0.09, 0.2)
    skin[..., 3] = shine * (1 - np.clip(scalp + brow_cover, 0, 1)) * rng.uniform(0.5, 1.3)
    return np.clip(skin, 0.0, 1.0)
