"""Our input normalisation: the face's oval, and contrast relative to the skin around a point."""

from __future__ import annotations

import cv2
import numpy as np

from siamcal.faces.alignment import rigid_placement

# The mesh's outline from ear to ear over the forehead. It lies on the skull; the rest of the
# outline hangs on the jaw and is left out on purpose (see `face_oval`).
SKULL_OUTLINE = (234, 127, 162, 21, 54, 103, 67, 109, 10, 338, 297, 332, 284, 251, 389, 356, 454)
# Depth of the oval below the eyes in distances of the outer eye corners: a dropped jaw is inside.
OVAL_DEPTH = 1.62
# Everything outside the oval, and the mean inside it, has this grey.
GREY = 128
# Side of the neighbourhood that counts as "around a point", in units of the crop's side: larger
# than a wrinkle or a lip, smaller than the shadow of a nose.
NEIGHBOURHOOD = 0.16
# Grey levels of contrast below which skin counts as flat, so that noise isn't blown up.
FLAT = 6.0
# Grey levels for one local standard deviation.
GAIN = 42.0


def face_oval(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Mask of the face in an aligned crop.

    Above the ears it follows the mesh's outline, which lies on the skull. Below the ears it does
    **not** follow the detected jaw: it is half an ellipse whose width comes from the ears and whose
    depth is fixed, deep enough for a dropped jaw. A mask that followed the chin would draw AU26
    (and AU17, AU20, AU25) as a hard edge, measured by another network, into every input; here the
    edge is the same for an open and a closed mouth and only the pixels inside tell.

    Args:
        landmarks: (478, 3), in pixels of the crop.
        size: The crop's side.

    Returns:
        (size, size) uint8: 255 inside, 0 outside.
    """
    outline = landmarks[list(SKULL_OUTLINE), :2].astype(np.float64)  # (17, 2)
    left, right = outline[0], outline[-1]
    middle, across = (left + right) / 2, (right - left) / 2
    placement = rigid_placement(landmarks)
    down = np.array([-np.sin(placement.angle), np.cos(placement.angle)])
    below_ears = float((middle - placement.centre) @ down)
    depth = max(OVAL_DEPTH * placement.eye_distance - below_ears, 1.0)
    # From the right ear over the chin to the left ear.
    turn = np.linspace(0, np.pi, 25)[1:-1, None]
    lower = middle + np.cos(turn) * across + np.sin(turn) * depth * down
    polygon = np.concatenate([outline, lower])
    mask = np.zeros((size, size), np.uint8)
    # Four bits of fraction: the edge moves smoothly with the face.
    cv2.fillPoly(mask, [np.round((polygon - 0.5) * 16).astype(np.int32)], 255, shift=4)
    return mask


def local_contrast(rgb: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Luma relative to the mean and the standard deviation of its neighbourhood.

    Skin tone, make-up, exposure and shadows wider than the neighbourhood disappear; edges and
    wrinkles remain. With a mask the neighbourhood holds masked pixels only, so that the background
    can't reach the face.

    Args:
        rgb: (H, W, 3) uint8.
        mask: (H, W) uint8, 0 outside; None counts everything.

    Returns:
        (H, W, 3) uint8, three equal channels; grey 128 is the local mean.
    """
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    weight = np.ones_like(luma) if mask is None else (mask > 0).astype(np.float32)
    side = max(round(NEIGHBOURHOOD * rgb.shape[0]) | 1, 3)
    inverse = 1.0 / np.maximum(_smooth(weight, side), 1e-6)
    mean = _smooth(luma * weight, side) * inverse
    centred = (luma - mean) * weight
    variance = _smooth(centred * centred, side) * inverse
    result = GREY + GAIN * centred / np.sqrt(variance + FLAT**2)
    grey = np.clip(np.round(result), 0, 255).astype(np.uint8)
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)


def _smooth(image: np.ndarray, side: int) -> np.ndarray:
    # Two box filters make a tent: nearly a Gaussian, at a cost that doesn't grow with the side.
    once = cv2.blur(image, (side, side), borderType=cv2.BORDER_CONSTANT)
    return cv2.blur(once, (side, side), borderType=cv2.BORDER_CONSTANT)
