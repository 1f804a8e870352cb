"""Intensities whose rest is taken off by `OutputCalibration`, behind a network of any kind."""

from __future__ import annotations

import numpy as np

from siamcal.recalibration.calibration import OutputCalibration

__all__ = ["rest_to_zero"]

SPAN = (0.0, 5.0)


def rest_to_zero(readings: np.ndarray, rest: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Readings by the monotone map: what is read at rest becomes 0, the top of the range stays.

    Where an AU rests at the top, nothing is left to stretch, and it is shifted.

    Args:
        readings: (V, A) intensities.
        rest: (R, A) the same network's readings of the references.
        index: (V,) which of the references belongs to each frame.

    Returns:
        (V, A) intensities from 0 to 5.
    """
    stretched = OutputCalibration(mode="monotone", span=SPAN)
    shifted = OutputCalibration(mode="shift", span=SPAN)
    found = np.empty_like(readings)
    for number, neutral in enumerate(rest):
        mine, high = index == number, neutral >= SPAN[1]
        own = readings[mine]
        own[:, ~high] = stretched(own[:, ~high], neutral[~high])
        own[:, high] = shifted(own[:, high], neutral[high])
        found[mine] = own
    return found
