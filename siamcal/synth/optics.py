"""What poor lenses and sensors add to a picture: vignetting, white balance, gamma, colour noise."""

from __future__ import annotations

import cv2
import numpy as np

from siamcal.synth.scene import Sensor

__all__ = ["add_chroma_noise", "balance", "bend"]


def balance(picture: np.ndarray, sensor: Sensor) -> np.ndarray:
    """Return linear light (S, S, 3) with the sensor's white balance and vignetting."""
    if sensor.vignette:
        side = picture.shape[0]
        place = (2 * np.arange(side, dtype=np.float32) + 1) / side - 1
        # Share of light that is lost: none in the middle, `vignette` in the corners.
        lost = sensor.vignette * (place[:, None] ** 2 + place[None] ** 2) / 2
        picture = picture * (1 - lost)[..., None].astype(np.float32)
    if sensor.balance != (1.0, 1.0, 1.0):
        picture = picture * np.array(sensor.balance, np.float32)
    return picture


def bend(grey: np.ndarray, gamma: float) -> np.ndarray:
    """Return sRGB values (0-255) with another tone curve: over 1 darkens the middle."""
    if gamma == 1:
        return grey
    return np.float32(255) * (grey / np.float32(255)) ** np.float32(gamma)


def add_chroma_noise(grey: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Return sRGB values (S, S, 3) with blotches of colour.

    Args:
        grey: sRGB values, 0-255.
        strength: Standard deviation of red and blue in grey levels.
        rng: Source of randomness.
    """
    if not strength:
        return grey
    side = grey.shape[0]
    # Coarser than a pixel, as demosaicking leaves it; the resize takes about a third of it away.
    grains = rng.standard_normal((side // 2, side // 2, 2), np.float32)
    red, blue = np.moveaxis(cv2.resize(grains, (side, side)), 2, 0) / np.float32(0.63)
    # Brightness stays: green gives what red and blue take (Rec. 601).
    green = -(np.float32(0.299) * red + np.float32(0.114) * blue) / np.float32(0.587)
    return grey + np.float32(strength) * np.stack([red, green, blue], 2)
