"""Texture space of the skin, and the drawing tools everything painted on the head uses.

The texture is a cylinder round the head: u runs with the angle, v down. Features are placed by the
mean head's coordinates (decimetres), so they follow each person's own shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from siamcal.synth.mesh import HeadMesh, load_mesh
from siamcal.synth.raster import rasterise

DENSITY = 200.0  # texels a decimetre
RADIUS, AXIS_Z, REACH = 0.95, 0.35, 2.0  # of the cylinder: dm, dm, radians to either side
TOP, BOTTOM = 8.6, 5.6
WIDTH = int(2 * REACH * RADIUS * DENSITY)
HEIGHT = int((TOP - BOTTOM) * DENSITY)

#: Points (n, 2) of the front view, decimetres.
Line = np.ndarray | Sequence[tuple[float, float]]

# Planar canvas for strokes: front view of the mean face, x in [-1, 1].
CANVAS_X0, CANVAS_DENSITY = -1.0, 240.0


@dataclass(frozen=True)
class Places:
    """Where each texel lies on the mean head.

    Attributes:
        x: (h, w) float32 decimetres, likewise y and z.
        y: Height.
        z: Depth.
        angle: (1, w) radians round the head, 0 in front.
        height: (h, 1) texture row's height, equal to y on the head.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    angle: np.ndarray
    height: np.ndarray


def vertex_uv(points: np.ndarray) -> np.ndarray:
    """Return texture coordinates (V, 2) in texels of mean-head points (V, 3)."""
    angle = np.arctan2(points[:, 0], points[:, 2] - AXIS_Z)
    u = (angle + REACH) * RADIUS * DENSITY
    return np.stack([u, (TOP - points[:, 1]) * DENSITY], 1)


@lru_cache(maxsize=1)
def places() -> Places:
    """Return the mean head's coordinates of every texel."""
    mesh: HeadMesh = load_mesh()
    uv = vertex_uv(mesh.base)
    skin = (mesh.part[mesh.triangles] == 0).all(1)
    span = np.ptp(uv[mesh.triangles][:, :, 0], axis=1)
    visible = mesh.masks["inside-mouth"][mesh.triangles].max(1) < 0.5
    triangles = mesh.triangles[skin & visible & (span < WIDTH / 2)]
    radius = np.hypot(mesh.base[:, 0], mesh.base[:, 2] - AXIS_Z)
    hits = np.full((HEIGHT, WIDTH), -1, np.int32)
    depth = np.zeros((HEIGHT, WIDTH), np.float32)
    material = np.zeros(len(triangles), np.uint8)
    empty = np.zeros((1, 1), np.float32)
    rasterise(uv, radius, triangles, material, 255, 255, uv, empty, hits, depth)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    angle = columns / (RADIUS * DENSITY) - REACH
    z = AXIS_Z + np.where(hits >= 0, depth, RADIUS) * np.cos(angle)
    x = np.where(hits >= 0, depth, RADIUS) * np.sin(angle)
    height = TOP - rows / DENSITY
    return Places(
        x=x.astype(np.float32),
        y=height.astype(np.float32),
        z=z.astype(np.float32),
        angle=angle[:1].astype(np.float32),
        height=height[:, :1].astype(np.float32),
    )


def ease(t: np.ndarray) -> np.ndarray:
    """Return a smooth step: 0 up to t = 0, 1 from t = 1 on."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def linear(srgb: np.ndarray | tuple[float, ...]) -> np.ndarray:
    """Return linear light in [0, 1] of 8-bit sRGB values."""
    value = np.asarray(srgb, np.float64) / 255.0
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def noise(rng: np.random.Generator, scale: float, stretch: float = 1.0) -> np.ndarray:
    """Return smooth noise (h, w), standard deviation about 1, with grains of `scale` dm.

    Args:
        rng: Source of randomness.
        scale: Size of a grain.
        stretch: Grains are this many times taller than wide.
    """
    columns = max(2, round(WIDTH / DENSITY / scale))
    rows = max(2, round(HEIGHT / DENSITY / (scale * stretch)))
    grains = rng.standard_normal((rows, columns), np.float32)
    return cv2.resize(grains, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def patch(x: float, y: float, width: float, height: float) -> np.ndarray:
    """Return a soft patch (h, w) of the face, 1 at its middle; with its mirror image unless x is 0.

    Args:
        x: Middle on the mean head, decimetres.
        y: Likewise.
        width: Decimetres at which it has fallen to 1/e.
        height: Likewise.
    """
    at = places()
    both = np.zeros_like(at.x)
    for side in (1.0, -1.0) if x else (1.0,):
        both += np.exp(-(((at.x - side * x) / width) ** 2 + ((at.y - y) / height) ** 2))
    return both * (at.z > 0.6)


def strokes(lines: Sequence[Line], width: float, blur: float) -> np.ndarray:
    """Draw polylines of front-view points (dm) and return them as a texture (h, w) in [0, ~1]."""
    size = (round((TOP - BOTTOM) * CANVAS_DENSITY), round(2 * CANVAS_DENSITY))
    canvas = np.zeros(size, np.float32)
    for line in lines:
        points = np.asarray(line, np.float64)
        pixels = np.stack([points[:, 0] - CANVAS_X0, TOP - points[:, 1]], 1) * CANVAS_DENSITY
        thickness = max(1, round(width * CANVAS_DENSITY))
        fixed = np.round(pixels * 16).astype(np.int32)
        cv2.polylines(canvas, [fixed], False, 1.0, thickness, cv2.LINE_8, 4)
    if blur:
        canvas = cv2.GaussianBlur(canvas, (0, 0), blur * CANVAS_DENSITY)
    return to_texture(canvas)


def to_texture(canvas: np.ndarray) -> np.ndarray:
    """Project a front-view canvas onto the face; nothing reaches the sides of the head."""
    where = places()
    x = (where.x - CANVAS_X0) * CANVAS_DENSITY
    y = (TOP - where.y) * CANVAS_DENSITY
    out = cv2.remap(canvas, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return out * (where.z > AXIS_Z)
