"""The paper's crop as its authors' released code makes it, pixel for pixel from the same landmarks.

Facts of that code (it has no licence; none of it is here): where it rounds, how it resamples, and
what it measures. `ffhq_quad` is the same rectangle with the chin's full distance, without aliasing.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from PIL import Image

from siamcal.faces.alignment import JAW_ENDS, LEFT_EYE, MOUTH_CORNERS, RIGHT_EYE
from siamcal.faces.detection import Face, cut_window

# Point 9 of the 68, counted from 0: the first beside the tip of the chin, to the right.
JAW_9 = 377


def released_quad(rgb: np.ndarray, face: Face, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The paper's oriented rectangle, cut out by Pillow as in the released code.

    x runs along eye_to_eye - rot90(eye_to_mouth), y across it. From the middle of the eyes the
    rectangle reaches along x to jaw points 0 and 16, along y 1.05 times as far as jaw point 9 down
    and half as far (unscaled) up: extents along the axes, not distances. What lies outside
    BlazeFace's box with its margins (cut to whole pixels towards 0) is black. Where the rectangle
    is four times as long as the crop or more, the picture is first reduced (Lanczos) by half that
    ratio, a whole number. It is then read by Pillow's QUAD transform, bilinear, half a pixel to the
    right and down. The crop's shorter side is cut to whole pixels.

    Args:
        rgb: (H, W, 3) uint8.
        face: The face to cut out.
        size: Length of the longer side.

    Returns:
        The crop, (h, w, 3) uint8 with max(h, w) == size, and the (2, 3) matrix from frame to crop
        coordinates.
    """
    window, origin = _window(rgb, face.box)
    points = face.landmarks[:, :2].astype(np.float64) - origin
    corners, width, height = _rectangle(points)
    longer = max(width, height)
    shape = max(int(size * (width / longer)), 1), max(int(size * (height / longer)), 1)
    picture = Image.fromarray(window)
    reduction = max(int(longer / size * 0.5), 1)
    if reduction > 1:
        reduced = tuple(round(side / reduction) for side in picture.size)
        picture = picture.resize(reduced, Image.Resampling.LANCZOS)  # type: ignore[arg-type]
    quad = corners / reduction
    low = np.maximum(np.floor(quad.min(0)), 0)
    high = np.minimum(np.ceil(quad.max(0)), picture.size)
    picture = picture.crop((int(low[0]), int(low[1]), int(high[0]), int(high[1])))
    data = (quad - low + 0.5).ravel().tolist()
    crop = picture.transform(shape, Image.Transform.QUAD, data, Image.Resampling.BILINEAR)
    axes = (corners[3] - corners[0]) / width, (corners[1] - corners[0]) / height
    matrix = np.empty((2, 3))
    matrix[:, :2] = np.array([shape[0] / width * axes[0], shape[1] / height * axes[1]])
    matrix[:, 2] = -matrix[:, :2] @ (corners[0] + 0.5 * reduction + origin)
    return np.array(crop), matrix


def _window(rgb: np.ndarray, box: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """BlazeFace's box with the released margins, black outside the frame, and its corner."""
    left, top, width, height = map(int, box)
    edges = (
        left + int(-0.125 * width),
        top + int(-0.2 * height),
        left + width + int(0.125 * width),
        top + height + int(0.05 * height),
    )
    return cut_window(rgb, *edges), np.array(edges[:2], float)


def face_axes(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Middle of the eyes, and the directions across and down the face, of points (478, 2)."""
    left, right = points[list(LEFT_EYE)].mean(0), points[list(RIGHT_EYE)].mean(0)
    eyes = (left + right) / 2
    to_mouth = points[list(MOUTH_CORNERS)].mean(0) - eyes
    x = (right - left) - np.array([-to_mouth[1], to_mouth[0]])
    x /= max(math.hypot(*x), 1e-6)
    return eyes, x, np.array([-x[1], x[0]])


def _rectangle(points: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Corners (top left, bottom left, bottom right, top right), width and height."""
    eyes, x, y = face_axes(points)
    jaw = (points[list(JAW_ENDS)] - eyes) @ x
    to_left, to_right = max(float(-jaw[0]), 1.0), max(float(jaw[1]), 1.0)
    down = max(float((points[JAW_9] - eyes) @ y), 1.0)
    up, down = down / 2, down * 1.05
    corners = [
        eyes - to_left * x - up * y,
        eyes - to_left * x + down * y,
        eyes + to_right * x + down * y,
        eyes + to_right * x - up * y,
    ]
    return np.stack(corners), to_left + to_right, up + down


def through_jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    """The picture as it comes back from a JPEG file that OpenCV wrote."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]), options)
    stored = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert stored is not None
    return np.ascontiguousarray(stored[..., ::-1])
