"""Compiled geometry kernels: morph, normals, z-buffer. Deterministic: no fastmath, no threads.

Vertices are snapped to 1/256 of a subsample before they are rasterised, so that a last-bit
difference between two processors' floating point can't move an edge to another pixel.
"""

from __future__ import annotations

import numpy as np
from numba import njit

SNAP = 256.0


@njit(cache=True)
def add_shapes(neutral: np.ndarray, shapes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return neutral (V, 3) + sum of weights (K,) x shapes (K, V, 3); zero weights cost nothing."""
    out = neutral.copy()
    for k in range(weights.shape[0]):
        w = weights[k]
        if w == 0.0:
            continue
        for i in range(out.shape[0]):
            out[i, 0] += w * shapes[k, i, 0]
            out[i, 1] += w * shapes[k, i, 1]
            out[i, 2] += w * shapes[k, i, 2]
    return out


@njit(cache=True)
def vertex_normals(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return unit normals (V, 3) float32, each the area-weighted mean of its triangles'."""
    total = np.zeros(points.shape)
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ux = points[b, 0] - points[a, 0]
        uy = points[b, 1] - points[a, 1]
        uz = points[b, 2] - points[a, 2]
        vx = points[c, 0] - points[a, 0]
        vy = points[c, 1] - points[a, 1]
        vz = points[c, 2] - points[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for i in (a, b, c):
            total[i, 0] += nx
            total[i, 1] += ny
            total[i, 2] += nz
    out = np.empty(points.shape, np.float32)
    for i in range(points.shape[0]):
        x, y, z = total[i, 0], total[i, 1], total[i, 2]
        length = np.sqrt(x * x + y * y + z * z) + 1e-12
        out[i, 0], out[i, 1], out[i, 2] = x / length, y / length, z / length
    return out


@njit(cache=True)
def project(
    points: np.ndarray, scale: float, distance: float, centre_x: float, centre_y: float
) -> tuple[np.ndarray, np.ndarray]:
    """Perspective view of camera-space points (V, 3), the camera on +z at `distance` dm.

    Args:
        points: Camera-space vertices, decimetres, y up.
        scale: Pixels a decimetre at z = 0.
        distance: From the camera to z = 0.
        centre_x: Image x of the optical axis, pixels.
        centre_y: Image y of the optical axis, pixels.

    Returns:
        (V, 2) snapped image points with y down, and (V,) nearness (larger is nearer).
    """
    xy = np.empty((points.shape[0], 2))
    near = np.empty(points.shape[0])
    for i in range(points.shape[0]):
        f = distance / max(distance - points[i, 2], 0.5)
        xy[i, 0] = np.round((centre_x + points[i, 0] * scale * f) * SNAP) / SNAP
        xy[i, 1] = np.round((centre_y - points[i, 1] * scale * f) * SNAP) / SNAP
        near[i] = f
    return xy, near


@njit(cache=True)
def rasterise(
    xy: np.ndarray,
    near: np.ndarray,
    triangles: np.ndarray,
    material: np.ndarray,
    cutout: int,
    stipple: int,
    uv: np.ndarray,
    coverage: np.ndarray,
    hits: np.ndarray,
    depth: np.ndarray,
) -> None:
    """Write the nearest front-facing triangle of each sample into `hits`, its depth into `depth`.

    Args:
        xy: (V, 2) sample coordinates, y down; sample (i, j) has its centre at (j + .5, i + .5).
        near: (V,) nearness.
        triangles: (T, 3).
        material: (T,) material numbers.
        cutout: Triangles of this material are cut by `coverage`.
        stipple: Triangles of this material cover every other sample only (half transparent).
        uv: (V, 2) texture coordinates in texels, used for the cut only.
        coverage: (h, w) float32; a fragment below .5 is no fragment.
        hits: (S, S) int32 output, filled with -1 by the caller.
        depth: (S, S) float32 output, filled with 0 by the caller.
    """
    height, width = hits.shape
    rows, columns = coverage.shape
    for t in range(triangles.shape[0]):
        ia, ib, ic = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay = xy[ia, 0], xy[ia, 1]
        bx, by = xy[ib, 0], xy[ib, 1]
        cx, cy = xy[ic, 0], xy[ic, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area >= 0.0:  # y points down, so faces towards the camera have negative area
            continue
        x0 = max(int(np.ceil(min(ax, bx, cx) - 0.5)), 0)
        x1 = min(int(np.floor(max(ax, bx, cx) - 0.5)), width - 1)
        y0 = max(int(np.ceil(min(ay, by, cy) - 0.5)), 0)
        y1 = min(int(np.floor(max(ay, by, cy) - 0.5)), height - 1)
        if x1 < x0 or y1 < y0:
            continue
        inverse = 1.0 / area
        za, zb, zc = near[ia], near[ib], near[ic]
        cut = material[t] == cutout
        sparse = material[t] == stipple
        # Barycentric weights are linear in x and y: start value and step of each.
        wa_x, wa_y = -(cy - by) * inverse, (cx - bx) * inverse
        wb_x, wb_y = -(ay - cy) * inverse, (ax - cx) * inverse
        for y in range(y0, y1 + 1):
            py = y + 0.5
            wa = wa_y * (py - by) + wa_x * (x0 + 0.5 - bx)
            wb = wb_y * (py - cy) + wb_x * (x0 + 0.5 - cx)
            for x in range(x0, x1 + 1):
                wc = 1.0 - wa - wb
                if wa >= 0.0 and wb >= 0.0 and wc >= 0.0:
                    z = np.float32(wa * za + wb * zb + wc * zc)
                    if z > depth[y, x]:
                        inside = not (sparse and (x + y) % 2 == 0)
                        if cut:
                            u = wa * uv[ia, 0] + wb * uv[ib, 0] + wc * uv[ic, 0]
                            v = wa * uv[ia, 1] + wb * uv[ib, 1] + wc * uv[ic, 1]
                            j = min(max(int(u), 0), columns - 1)
                            i = min(max(int(v), 0), rows - 1)
                            inside = coverage[i, j] >= 0.5
                        if inside:
                            depth[y, x] = z
                            hits[y, x] = t
                wa += wa_x
                wb += wb_x


@njit(cache=True)
def depth_map(
    points: np.ndarray, triangles: np.ndarray, skip: np.ndarray, size: int, scale: float
) -> np.ndarray:
    """Orthographic depth (size, size) float32 along +z, for shadows; -1e9 where nothing is.

    Args:
        points: (V, 3) in the light's frame, centred, decimetres.
        triangles: (T, 3).
        skip: (T,) bool, triangles that throw no shadow.
        size: Side of the map in texels.
        scale: Texels a decimetre.
    """
    out = np.full((size, size), np.float32(-1e9))
    half = size / 2.0
    for t in range(triangles.shape[0]):
        if skip[t]:
            continue
        ia, ib, ic = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay = half + points[ia, 0] * scale, half - points[ia, 1] * scale
        bx, by = half + points[ib, 0] * scale, half - points[ib, 1] * scale
        cx, cy = half + points[ic, 0] * scale, half - points[ic, 1] * scale
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area >= -1e-9:
            continue
        x0 = max(int(np.ceil(min(ax, bx, cx) - 0.5)), 0)
        x1 = min(int(np.floor(max(ax, bx, cx) - 0.5)), size - 1)
        y0 = max(int(np.ceil(min(ay, by, cy) - 0.5)), 0)
        y1 = min(int(np.floor(max(ay, by, cy) - 0.5)), size - 1)
        za, zb, zc = points[ia, 2], points[ib, 2], points[ic, 2]
        inverse = 1.0 / area
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                px, py = x + 0.5, y + 0.5
                wa = ((bx - px) * (cy - py) - (by - py) * (cx - px)) * inverse
                wb = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) * inverse
                wc = 1.0 - wa - wb
                if wa >= 0.0 and wb >= 0.0 and wc >= 0.0:
                    z = np.float32(wa * za + wb * zb + wc * zc)
                    if z > out[y, x]:
                        out[y, x] = z
    return out
