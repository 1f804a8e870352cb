"""How the head is turned: the canonical face, laid onto landmarks.

After MediaPipe's `geometry_pipeline.cc` and `procrustes_solver.cc` (Google, Apache-2.0), with the
canonical mesh and the weights of its points that lie in the task file.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

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
    canonical, chosen, weights = _canonical()
    side = 2 * NEAR * math.tan(FIELD_OF_VIEW / 2)
    screen = side * (points[:MESH_POINTS].astype(np.float64) * (1, -1, 1) + (-0.5, 0.5, 0))
    depth = screen[:, 2].mean()
    screen = screen[chosen]

    def in_space(scale: float) -> np.ndarray:
        z = (screen[:, 2] - depth + NEAR) / scale
        return np.stack([screen[:, 0] * z / NEAR, screen[:, 1] * z / NEAR, -z], axis=1)

    # The points' depth is relative, so the face's size has to be found before they can be
    # unprojected: once on the plane, once in space.
    scale = _scale(_fit(canonical, screen * (1, 1, -1), weights))
    scale *= _scale(_fit(canonical, in_space(scale), weights))
    return _fit(canonical, in_space(scale), weights)


def angles(matrix: np.ndarray) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees of a pose matrix (y up, z towards the camera)."""
    x_axis, forward = matrix[:3, 0], matrix[:3, 2]
    yaw = math.atan2(forward[0], forward[2])
    pitch = math.atan2(-forward[1], math.hypot(forward[0], forward[2]))
    roll = math.atan2(-x_axis[1], x_axis[0])
    return math.degrees(yaw), math.degrees(pitch), math.degrees(roll)


def _scale(matrix: np.ndarray) -> float:
    return float(np.linalg.norm(matrix[:3, 0]))


def _fit(source: np.ndarray, target: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rotation, scale and shift that bring (N, 3) points nearest to others, in the least squares.

    Weighted orthogonal Procrustes analysis (D. Akca, 2003, section 2.4).
    """
    share = (weights / weights.sum())[:, None]
    middle, goal = (share * source).sum(0), (share * target).sum(0)
    centred = source - middle
    u, _, vt = np.linalg.svd((share * (target - goal)).T @ centred)
    if np.linalg.det(u) * np.linalg.det(vt) < 0:
        u[:, 2] *= -1  # a turned face, never a mirrored one
    turn = u @ vt
    size = float((share * (centred @ turn.T) * target).sum() / (share * centred * source).sum())
    matrix = np.eye(4)
    matrix[:3, :3] = size * turn
    matrix[:3, 3] = goal - size * turn @ middle
    return matrix


@lru_cache(maxsize=1)
def _canonical() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points that place the face, (N, 3) in centimetres; their indices and weights, (N,)."""
    metadata = _message(task_member("geometry_pipeline_metadata_landmarks.binarypb"))
    (mesh,) = map(_message, metadata[1])
    vertices = np.frombuffer(b"".join(mesh[3]), "<f4").reshape(MESH_POINTS, 5)  # x, y, z, u, v
    basis = [_message(entry) for entry in metadata[2]]
    chosen = np.array([point.get(1, [0])[0] for point in basis])
    weights = np.frombuffer(b"".join(point[2][0] for point in basis), "<f4")
    return vertices[chosen, :3].astype(np.float64), chosen, weights.astype(np.float64)


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
