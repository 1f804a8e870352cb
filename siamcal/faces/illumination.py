"""The paper's illumination step (Kuo, Lai and Sarkis 2018, as released with arXiv:2409.00240)."""

from __future__ import annotations

import cv2
import numpy as np

# The released code hands RGB arrays to the conversion for BGR, which swaps the luma weights of red
# and blue; "csn_rgb" converts correctly.
_CONVERSIONS = {
    "csn_released": (cv2.COLOR_BGR2YCrCb, cv2.COLOR_YCrCb2BGR),
    "csn_rgb": (cv2.COLOR_RGB2YCrCb, cv2.COLOR_YCrCb2RGB),
}


def normalise_illumination(rgb: np.ndarray, kind: str = "csn_released") -> np.ndarray:
    """Half histogram equalisation, half linear stretch of the luma; the chroma is kept.

    Y' = 0.5 equalizeHist(Y) + 0.5 * 255 (Y - min) / (max - min), truncated to whole numbers.

    Args:
        rgb: (H, W, 3) uint8.
        kind: "csn_released" (as the authors' code does it) or "csn_rgb" (correct channel order).

    Returns:
        (H, W, 3) uint8. A picture of one luma comes back as it is: the stretch has no range.
    """
    there, back = _CONVERSIONS[kind]
    converted = cv2.cvtColor(rgb, there)
    luma = converted[..., 0]
    low, high = int(luma.min()), int(luma.max())
    if low == high:
        return rgb.copy()
    stretched = 255.0 * (luma.astype(np.float64) - low) / (high - low)
    equalised = cv2.equalizeHist(np.ascontiguousarray(luma)).astype(np.float64)
    converted[..., 0] = (0.5 * equalised + 0.5 * stretched).astype(np.uint8)
    return cv2.cvtColor(converted, back)
