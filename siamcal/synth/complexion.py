"""Skin beyond the usual look's: mottling, pores, freckles, blemishes and make-up."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from siamcal.synth.texture import HEIGHT, WIDTH, linear, noise, patch

__all__ = ["Complexion", "coloured_lip", "complexion_albedo"]

#: sRGB.
Colour = tuple[float, float, float]

# How much of each channel a freckle or blemish leaves.
_FRECKLE, _BLEMISH = (0.66, 0.50, 0.40), (1.02, 0.58, 0.52)


@dataclass(frozen=True)
class Complexion:
    """What a person's skin has besides the usual tone and mottling.

    Attributes:
        mottle: Standard deviation of the tone, as a share of it.
        grain: Size of its grains, decimetres.
        pores: Likewise of grains of .016 dm.
        freckles: Number on the face.
        blemishes: Number on the face.
        gloss: Factor.
        lids: Colour of make-up; likewise cheeks, lips.
        cheeks: Colour.
        lips: Colour.
        make_up: Share of the skin's colour that it takes, 0 none.
    """

    mottle: float
    grain: float
    pores: float
    freckles: int
    blemishes: int
    gloss: float
    lids: Colour
    cheeks: Colour
    lips: Colour
    make_up: float


def _dots(rng: np.random.Generator, count: int, size: float) -> np.ndarray:
    """Return `count` soft dots (h, w) in [0, 1] over the face, `size` texels wide."""
    rows = rng.normal(0.5, 0.14, count).clip(0.2, 0.8)
    columns = rng.normal(0.5, 0.1, count).clip(0.28, 0.72)
    strength = rng.uniform(0.35, 1.0, count)
    canvas = np.zeros((HEIGHT, WIDTH), np.float32)
    place = (rows * HEIGHT).astype(int), (columns * WIDTH).astype(int)
    np.maximum.at(canvas, place, strength.astype(np.float32))
    spread = cv2.GaussianBlur(canvas, (0, 0), size)
    return np.clip(spread * np.float32(2 * np.pi * size**2), 0, 1)


def _blend(skin: np.ndarray, colour: Colour, cover: np.ndarray) -> None:
    skin += cover[..., None] * (linear(colour).astype(np.float32) - skin)


def complexion_albedo(
    rng: np.random.Generator, albedo: np.ndarray, complexion: Complexion
) -> np.ndarray:
    """Return the skin's linear albedo (h, w, 3) float32 from its mean (3,)."""
    tone = complexion.mottle * noise(rng, complexion.grain) + complexion.pores * noise(rng, 0.016)
    skin = np.clip(1 + tone, 0.5, 1.5)[..., None] * albedo.astype(np.float32)
    for count, size, left in (
        (complexion.freckles, 2.2, _FRECKLE),
        (complexion.blemishes, 4.5, _BLEMISH),
    ):
        skin *= 1 - _dots(rng, count, size)[..., None] * (1 - np.array(left, np.float32))
    lids = np.minimum(patch(0.33, 7.385, 0.17, 0.06), 1)
    _blend(skin, complexion.lids, complexion.make_up * lids)
    _blend(skin, complexion.cheeks, 0.5 * complexion.make_up * patch(0.43, 6.97, 0.17, 0.12))
    return skin


def coloured_lip(lip: np.ndarray, complexion: Complexion) -> np.ndarray:
    """Return the lips' linear colour (3,) under make-up."""
    return lip + complexion.make_up * (linear(complexion.lips) - lip)
