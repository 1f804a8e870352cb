"""How the head is turned: the canonical face, laid onto landmarks.

After MediaPipe's `geometry_pipeline.cc` and `procrustes_solver.cc` (Google, Apache-2.0), with the
canonical mesh and the weights of its points that lie in the task file.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from siamcal.faces._litert import task_member

__all__ = ["angles", "pose_matrix"]

MESH_POINTS = 468  # the face mesh without its irises
FIELD_OF_VIEW = math.radians(63)  # upright, of the camera that MediaPipe supposes
NEAR = 1.0  # centimetres from the camera to the plane of projection


def pose_matrix(points: np.ndarray) -> np.ndarray:
    """The transform from the canonical face to a face in a square picture.

    Args:
        points: (478, 3) landmarks in shares of the picture's side.

    Returns:
        (4, 4) float64, in centimetres: x to the right, y up, z towards the camera.
    """
    canonical = _canonical()
    side = 2 * NEAR * math.tan(FIELD_OF_VIEW / 2)
    screen = side * (points[:MESH_POINTS].astype(np.float64) * (1, -1, 1) + (-0.5, 0.5, 0))
    depth = screen[:, 2].mean()
    screen = screen[canonical.chosen]

    def in_space(scale: float) -> np.ndarray:
        z = (screen[:, 2] - depth + NEAR) / scale
        return np.stack([screen[:, 0] * z / NEAR, screen[:, 1] * z / NEAR, -z], axis=1)

    # The points' depth is relative, so the face's size has to be found before they can be
    # unprojected: once on the plane, once in space.
    scale, _ = _fit(canonical, screen * (1, 1, -1))
    scale *= _fit(canonical, in_space(scale))[0]
    target = in_space(scale)
    size, turn = _fit(canonical, target)
    matrix = np.eye(4)
    matrix[:3, :3] = size * turn
    matrix[:3, 3] = canonical.share @ target - size * turn @ canonical.middle
    return matrix


def angles(matrix: np.ndarray) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees of a pose matrix (y up, z towards the camera)."""
    x_axis, forward = matrix[:3, 0], matrix[:3, 2]
    yaw = math.atan2(forward[0], forward[2])
    pitch = math.atan2(-forward[1], math.hypot(forward[0], forward[2]))
    roll = math.atan2(-x_axis[1], x_axis[0])
    return math.degrees(yaw), math.degrees(pitch), math.degrees(roll)


class _Canonical(NamedTuple):
    """What places the face: N points, in centimetres.

    Attributes:
        chosen: (N,) their indices.
        share: (N,) their weights, which sum to 1.
        middle: (3,) their weighted mean.
        weighted: (N, 3) how far they lie from it, times their weight.
        spread: Their weighted variance, of all axes together.
    """

    chosen: np.ndarray
    share: np.ndarray
    middle: np.ndarray
    weighted: np.ndarray
    spread: float


def _fit(canonical: _Canonical, target: np.ndarray) -> tuple[float, np.ndarray]:
    """Scale and rotation (3, 3) that bring the points nearest to (N, 3) others, in least squares.

    Weighted orthogonal Procrustes analysis (D. Akca, 2003, section 2.4).
    """
    u, stretch, vt = np.linalg.svd(target.T @ canonical.weighted)
    if np.linalg.det(u @ vt) < 0:
        u[:, 2] *= -1  # a turned face, never a mirrored one
        stretch[2] *= -1
    return float(stretch.sum()) / canonical.spread, u @ vt


@lru_cache(maxsize=1)
def _canonical() -> _Canonical:
    metadata = _message(task_member("geometry_pipeline_metadata_landmarks.binarypb"))
    (mesh,) = map(_message, metadata[1])
    vertices = np.frombuffer(b"".join(mesh[3]), "<f4").reshape(MESH_POINTS, 5)  # x, y, z, u, v
    basis = [_message(entry) for entry in metadata[2]]
    chosen = np.array([point.get(1, [0])[0] for point in basis])
    weights = np.frombuffer(b"".join(point[2][0] for point in basis), "<f4").astype(np.float64)
    points, share = vertices[chosen, :3].astype(np.float64), weights / weights.sum()
    middle = share @ points
    weighted = share[:, None] * (points - middle)
    return _Canonical(chosen, share, middle, weighted, float((weighted * points).sum()))


def _message(data: bytes) -> dict[int, list[Any]]:
    """The fields of a protobuf message by their numbers: whole numbers, or bytes of all others."""
    fields: dict[int, list[Any]] = {}
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            value |= (byte & 0x7F) << shift
            place, shift = place + 1, shift + 7
            if byte < 0x80:
                return value

    while place < len(data):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            value: Any = varint()
        else:
            length = varint() if kind == 2 else {1: 8, 5: 4}[kind]
            value, place = data[place : place + length], place + length
        fields.setdefault(number, []).append(value)
    return fields
