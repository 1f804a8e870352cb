"""Where the crop lies in the frame: by rigid points (ours) or by the paper's oriented quad."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from siamcal.faces.boxes import cut_window
from siamcal.faces.detection import Face

# Indices into MediaPipe's 478-point mesh; left and right as in the picture.
LEFT_EYE_CORNERS = (33, 133)  # outer, inner
RIGHT_EYE_CORNERS = (263, 362)
NOSE_BRIDGE = (168, 6, 197, 195)  # from between the eyes down to the end of the bone
# The points of the usual 68-point mark-up that the paper's quad reads.
LEFT_EYE = (33, 160, 158, 133, 153, 144)
RIGHT_EYE = (362, 385, 387, 263, 373, 380)
MOUTH_CORNERS = (61, 291)
JAW_ENDS = (127, 356)  # jaw points 0 and 16, at the height of the eyes
CHIN = 152

# The rigid crop, in units of the crop's side. Its side is 2.3 times the distance of the outer eye
# corners: .28 above the eyes hold raised brows, .72 below hold a chin (about 1.25 eye distances
# down) that drops by a third of a face.
EYE_LINE = 0.28
EYE_DISTANCE = 1 / 2.3
# The wide crop, for networks made for whole heads, such as MediaPipe's landmark network.
WIDE_EYE_LINE = 0.40
WIDE_EYE_DISTANCE = 1 / 3.0
# Finer frames than so many pixels a pixel of the crop are halved first. On 180 rendered frames of
# 2.3 to 3.4 pixels (eye distances of 200 to 290) readings agreed with the truth as well as by
# sampling each pixel: ICC .8961 and .8959.
DENSEST = 2.5
# The close crop, for networks trained on dlib's face chips (padding .25, five points): on 12
# rendered neutral faces their side was 1.94 eye distances (standard deviation .03), and the eyes'
# height .313 (.002).
CLOSE_EYE_LINE = 0.313
CLOSE_EYE_DISTANCE = 1 / 1.94
_RIGID = [*LEFT_EYE_CORNERS, *RIGHT_EYE_CORNERS, *NOSE_BRIDGE]
# Spread of the rigid points over the distance of the outer eye corners: mean of 56 frontal faces
# of LFW (standard deviation .004).
SPREAD_PER_EYE_DISTANCE = 0.313


@dataclass(frozen=True)
class Placement:
    """Where a face lies in a frame: a similarity transform.

    Attributes:
        centre: (x, y) in the frame of the midpoint between the eyes.
        angle: Roll of the eye line, radians, positive clockwise in the picture.
        eye_distance: Distance of the outer eye corners in pixels, as if seen from the front.
    """

    centre: tuple[float, float]
    angle: float
    eye_distance: float

    def matrix(
        self, size: int, eye_line: float = EYE_LINE, eye_distance: float = EYE_DISTANCE
    ) -> np.ndarray:
        """(2, 3) float64: frame coordinates -> crop coordinates, both with pixel centres at .5.

        Args:
            size: The crop's side in pixels.
            eye_line: Height of the eyes in the crop, in units of its side.
            eye_distance: Distance of the outer eye corners in the crop, in units of its side.
        """
        scale = size * eye_distance / self.eye_distance
        cos, sin = scale * math.cos(self.angle), scale * math.sin(self.angle)
        x, y = self.centre
        return np.array(
            [
                [cos, sin, size * 0.5 - cos * x - sin * y],
                [-sin, cos, size * eye_line + sin * x - cos * y],
            ]
        )


def rigid_placement(landmarks: np.ndarray) -> Placement:
    """Place the crop by points that no action unit moves: eye corners and the bridge of the nose.

    The roll is the eye line's. The scale is the spread of the points in three dimensions, so that
    a turned head isn't enlarged; jaw and mouth have no say in it, because AU26 moves them.

    Args:
        landmarks: (478, 3) in pixels.
    """
    rigid = landmarks[_RIGID].astype(np.float64)  # (8, 3)
    left, right = (rigid[0] + rigid[1]) / 2, (rigid[2] + rigid[3]) / 2
    centre = (left + right) / 2
    spread = math.sqrt(float(rigid.var(0).sum()))
    return Placement(
        centre=(float(centre[0]), float(centre[1])),
        angle=math.atan2(right[1] - left[1], right[0] - left[0]),
        eye_distance=max(spread / SPREAD_PER_EYE_DISTANCE, 1.0),
    )


def rigid_crop(rgb: np.ndarray, face: Face, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Our crop, placed by `rigid_placement`; black where it leaves the frame.

    Returns:
        The crop, (size, size, 3) uint8, and the (2, 3) matrix from frame to crop coordinates.
    """
    matrix = rigid_placement(face.landmarks).matrix(size)
    return warp(rgb, matrix, size, size), matrix


def wide_crop(rgb: np.ndarray, face: Face, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Placed by the same points, with the whole head: its side is three times the eye distance.

    Where it leaves the frame, the frame's edge goes on: the networks it is for have seen faces, not
    black borders.

    Returns:
        The crop, (size, size, 3) uint8, and the (2, 3) matrix from frame to crop coordinates.
    """
    return wide_crop_at(rgb, rigid_placement(face.landmarks), size)


def wide_crop_at(rgb: np.ndarray, placement: Placement, size: int) -> tuple[np.ndarray, np.ndarray]:
    """`wide_crop` where a face is supposed."""
    matrix = placement.matrix(size, WIDE_EYE_LINE, WIDE_EYE_DISTANCE)
    return warp(rgb, matrix, size, size, cv2.BORDER_REPLICATE), matrix


def close_crop(rgb: np.ndarray, face: Face, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Placed by the same points as `rigid_crop`, as close as dlib's face chips; black outside.

    Returns:
        The crop, (size, size, 3) uint8, and the (2, 3) matrix from frame to crop coordinates.
    """
    matrix = rigid_placement(face.landmarks).matrix(size, CLOSE_EYE_LINE, CLOSE_EYE_DISTANCE)
    return warp(rgb, matrix, size, size), matrix


def from_crop(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Landmarks that a network found in a crop -> a detector's, in pixels of the frame.

    Both have pixel centres at whole numbers, the matrix has them at .5.

    Args:
        points: (N, 3).
        matrix: (2, 3), from frame to crop coordinates: a similarity.

    Returns:
        (N, 3) float32.
    """
    back = _inverse(matrix)
    landmarks = points.astype(np.float64)
    landmarks[:, :2] = (landmarks[:, :2] + 0.5) @ back[:, :2].T + (back[:, 2] - 0.5)
    landmarks[:, 2] *= math.hypot(back[0, 0], back[1, 0])
    return landmarks.astype(np.float32)


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Of a (2, 3) affine matrix, itself (2, 3); by hand in a third of the time."""
    (a, b, x), (c, d, y) = matrix.tolist()
    size = a * d - b * c
    return np.array([[d, -b, b * y - d * x], [-c, a, c * x - a * y]]) / size


def ffhq_quad(rgb: np.ndarray, face: Face, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The paper's crop, as in its authors' code: FFHQ's oriented rectangle with the jaw's extents.

    x runs along eye_to_eye - rot90(eye_to_mouth), y across it. From the middle of the eyes the
    rectangle reaches to jaw points 0 and 16 sideways, 1.05 times the distance to the chin down and
    half that distance (unscaled) up. What lies outside BlazeFace's box with its margins (top .2,
    bottom .05 of the height; left and right .125 of the width) is black, as in the released code,
    where the landmarks are sought in that crop.

    Args:
        rgb: (H, W, 3) uint8.
        face: The face to cut out.
        size: Length of the longer side.

    Returns:
        The crop, (h, w, 3) uint8 with max(h, w) == size (the aspect is kept, padding comes later),
        and the (2, 3) matrix from frame to crop coordinates.
    """
    points = face.landmarks[:, :2].astype(np.float64)
    left, right = points[list(LEFT_EYE)].mean(0), points[list(RIGHT_EYE)].mean(0)
    eyes = (left + right) / 2
    to_mouth = points[list(MOUTH_CORNERS)].mean(0) - eyes
    x = (right - left) - np.array([-to_mouth[1], to_mouth[0]])
    x /= max(float(np.hypot(*x)), 1e-6)
    y = np.array([-x[1], x[0]])
    jaw = (points[list(JAW_ENDS)] - eyes) @ x
    to_left, to_right = max(float(-jaw[0]), 1.0), max(float(jaw[1]), 1.0)
    to_chin = max(float(np.hypot(*(points[CHIN] - eyes))), 1.0)
    width, height = to_left + to_right, 1.5 * to_chin + 0.05 * to_chin
    corner = eyes - to_left * x - 0.5 * to_chin * y
    scale = size / max(width, height)
    matrix = np.empty((2, 3))
    matrix[:, :2] = scale * np.stack([x, y])
    matrix[:, 2] = -matrix[:, :2] @ corner
    crop_shape = (max(round(scale * width), 1), max(round(scale * height), 1))
    box_left, box_top, box_width, box_height = face.box
    left_edge = math.floor(box_left - 0.125 * box_width)
    top_edge = math.floor(box_top - 0.2 * box_height)
    right_edge = math.ceil(box_left + 1.125 * box_width)
    bottom_edge = math.ceil(box_top + 1.05 * box_height)
    inside = cut_window(rgb, left_edge, top_edge, right_edge, bottom_edge)
    from_inside = matrix.copy()
    from_inside[:, 2] += matrix[:, :2] @ np.array([left_edge, top_edge], float)
    return warp(inside, from_inside, *crop_shape), matrix


def pad_to_square(rgb: np.ndarray, matrix: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Centre (h, w, 3) with h, w <= size on black: (size, size, 3) and the shifted matrix."""
    height, width = rgb.shape[:2]
    top, left = (size - height) // 2, (size - width) // 2
    padded = np.zeros((size, size, 3), np.uint8)
    padded[top : top + height, left : left + width] = rgb
    shifted = matrix + np.array([[0, 0, left], [0, 0, top]])
    return padded, shifted


def transform_landmarks(landmarks: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(N, 3) frame landmarks in crop coordinates; z is scaled along with x and y."""
    scale = math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))
    moved = landmarks[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    return np.concatenate([moved, landmarks[:, 2:] * scale], axis=1)


def warp(
    rgb: np.ndarray,
    matrix: np.ndarray,
    width: int,
    height: int,
    border: int = cv2.BORDER_CONSTANT,
) -> np.ndarray:
    """Resample `rgb` by `matrix`, coordinates with pixel centres at .5, without aliasing.

    Where the frame is finer than the crop, squares of its pixels are averaged first, and the crop
    is sampled twice as finely and averaged: reading single pixels would let fine skin texture
    flicker with the smallest motion.
    """
    back = _inverse(matrix)
    # Frame pixels a crop pixel.
    density = math.sqrt(abs(float(back[0, 0] * back[1, 1] - back[0, 1] * back[1, 0])))
    step = 2 ** max(math.ceil(math.log2(density / DENSEST)), 0)
    rgb, matrix = _around(rgb, matrix, width, height, step)
    if step > 1:
        rgb, matrix = _reduced(rgb, matrix, step, border)
    factor = max(round(density / step), 1)
    fine = matrix * factor
    # OpenCV puts pixel centres at whole numbers.
    fine[:, 2] += fine[:, :2] @ np.array([0.5, 0.5]) - 0.5
    warped = cv2.warpAffine(
        # OpenCV takes half as long for pixels of four values, with the same result.
        cv2.cvtColor(rgb, cv2.COLOR_RGB2RGBA),
        fine,
        (width * factor, height * factor),
        flags=cv2.INTER_LINEAR,
        borderMode=border,
        borderValue=(0, 0, 0),
    )
    if factor > 1:
        warped = cv2.resize(warped, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB)


def _around(
    rgb: np.ndarray, matrix: np.ndarray, width: int, height: int, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """The part of the frame that a crop is read from, and the matrix from there.

    It is never empty, and inside the frame its sides are multiples of `step`.
    """
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]])
    places = corners @ _inverse(matrix).T  # (4, 2)
    ends = rgb.shape[1::-1]
    # Pixels at the edge are blended with their neighbours.
    low, high = np.floor(places.min(0)) - 2 * step, np.ceil(places.max(0)) + 2 * step
    start = np.clip(low, 0, np.subtract(ends, 1)).astype(int)
    sides = step * np.ceil((high - start) / step).astype(int)
    left, top = start
    right, bottom = np.clip(start + sides, start + 1, ends)
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2] @ start
    return rgb[top:bottom, left:right], moved


def _reduced(
    rgb: np.ndarray, matrix: np.ndarray, step: int, border: int
) -> tuple[np.ndarray, np.ndarray]:
    """The means of squares of `step` x `step` pixels, and the matrix from there."""
    height, width = rgb.shape[:2]
    if height % step or width % step:
        rgb = cv2.copyMakeBorder(rgb, 0, -height % step, 0, -width % step, border)
    size = (rgb.shape[1] // step, rgb.shape[0] // step)
    scaled = matrix * (step, step, 1)
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), scaled
