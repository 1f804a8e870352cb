"""Things worn or held before the face: eyeglasses, fingers, a face mask, a lock of hair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FRAMES = ("round", "oval", "square", "wide")
# Frame -> half width and half height of a lens (decimetres), superellipse power.
_LENSES = {
    "round": (0.19, 0.165, 2.0),
    "oval": (0.215, 0.13, 2.2),
    "square": (0.21, 0.145, 4.5),
    "wide": (0.235, 0.135, 3.2),
}


@dataclass(frozen=True)
class Prop:
    """A coloured mesh in head space.

    Attributes:
        vertices: (n, 3) decimetres.
        triangles: (t, 3).
        colour: (n, 3) linear albedo.
        gloss: (n,) strength of the highlight.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    colour: np.ndarray
    gloss: np.ndarray


def _tube(path: np.ndarray, radius: np.ndarray | float, closed: bool, sides: int = 8) -> tuple:
    """Return vertices and triangles of a tube round a path (n, 3)."""
    count = len(path)
    radii = np.broadcast_to(np.asarray(radius, float), (count,))
    along = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    along = along / (np.linalg.norm(along, axis=1, keepdims=True) + 1e-9)
    helper = np.where(np.abs(along[:, 2:3]) > 0.9, [[1.0, 0, 0]], [[0, 0, 1.0]])
    first = np.cross(along, helper)
    first /= np.linalg.norm(first, axis=1, keepdims=True) + 1e-9
    second = np.cross(along, first)
    turn = np.arange(sides) * 2 * np.pi / sides
    ring = (
        np.cos(turn)[None, :, None] * first[:, None] + np.sin(turn)[None, :, None] * second[:, None]
    )
    vertices = (path[:, None] + radii[:, None, None] * ring).reshape(-1, 3)
    triangles = []
    for i in range(count if closed else count - 1):
        j = (i + 1) % count
        for a in range(sides):
            b = (a + 1) % sides
            triangles += [
                (i * sides + a, j * sides + a, j * sides + b),
                (i * sides + a, j * sides + b, i * sides + b),
            ]
    return vertices, np.array(triangles, np.int32)


def grid_triangles(rows: int, columns: int) -> np.ndarray:
    """Return triangles (t, 3) between vertices that are numbered row by row."""
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b = index[:-1, :-1].ravel(), index[:-1, 1:].ravel()
    c, d = index[1:, :-1].ravel(), index[1:, 1:].ravel()
    return np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])


def join(parts: list[tuple[np.ndarray, np.ndarray]], colour: np.ndarray, gloss: float) -> Prop:
    """Join meshes into one prop of one colour."""
    vertices = np.concatenate([points for points, _ in parts])
    starts = np.cumsum([0] + [len(points) for points, _ in parts[:-1]])
    triangles = [corners + start for (_, corners), start in zip(parts, starts, strict=True)]
    return Prop(
        vertices,
        np.concatenate(triangles).astype(np.int32),
        np.tile(np.asarray(colour, float), (len(vertices), 1)),
        np.full(len(vertices), gloss),
    )


def glasses(
    rng: np.random.Generator, frame: str, eyes: np.ndarray, skin: np.ndarray, colour: np.ndarray
) -> Prop:
    """Return eyeglasses that sit on this person's nose.

    Args:
        rng: Source of randomness.
        frame: One of :data:`FRAMES`.
        eyes: (2, 3) eye centres.
        skin: (n, 3) skin vertices of the neutral face.
        colour: (3,) linear RGB of the frame.
    """
    width, height, power = _LENSES[frame]
    size = rng.uniform(0.95, 1.08)
    rx, ry, radius = width * size, height * size, rng.uniform(0.009, 0.02)
    middle = float(np.abs(eyes[:, 0]).mean()) + 0.01
    # The upper rim ends below the brow, as opticians fit it: brows stay visible.
    y = float(eyes[:, 1].mean()) - 0.045
    bridge = skin[(np.abs(skin[:, 0]) < 0.1) & (np.abs(skin[:, 1] - y - 0.05) < 0.08)]
    brow = skin[
        (np.abs(np.abs(skin[:, 0]) - 0.3) < 0.25)
        & (skin[:, 1] > y)
        & (skin[:, 2] > 0.5)
        & (skin[:, 1] < y + 0.28)
    ]
    front = max(bridge[:, 2].max() + 0.02, (brow[:, 2] + 0.16 * brow[:, 0] ** 2).max() + 0.03)
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)

    def outline(value: np.ndarray) -> np.ndarray:
        return np.sign(value) * np.abs(value) ** (2 / power)

    parts = []
    for side in (1, -1):
        x = side * middle + rx * outline(np.cos(turn))
        rim = np.stack([x, y + ry * outline(np.sin(turn)), front - 0.16 * x**2], 1)
        parts.append(_tube(rim, radius, True))
    gap = max(middle - rx, 0.02)
    x = np.linspace(-gap, gap, 8)
    arch = np.stack([x, y + 0.05 + 0.04 * np.cos(x / gap * np.pi / 2), np.full(8, front + 0.01)], 1)
    parts.append(_tube(arch, radius, False))
    widest = (
        float(
            np.abs(
                skin[(skin[:, 1] > y - 0.1) & (skin[:, 1] < y + 0.15) & (skin[:, 2] > 0.35)][:, 0]
            ).max()
        )
        + 0.03
    )
    t = np.linspace(0, 1, 8)
    for side in (1, -1):
        x = side * ((middle + rx) + (max(widest, middle + rx) - middle - rx) * t**0.4)
        parts.append(
            _tube(np.stack([x, y + 0.06 + 0 * t, front - 0.09 - 1.0 * t], 1), radius * 0.8, False)
        )
    return join(parts, colour, 0.5)


def fingers(rng: np.random.Generator, albedo: np.ndarray, anchor: np.ndarray) -> Prop:
    """Return a hand held before the face, its finger tips near `anchor` (3,), from one side."""
    side = 1.0 if rng.random() < 0.5 else -1.0
    lean, parts = rng.uniform(0.1, 1.1), []
    along = np.array([side * np.cos(lean), -np.sin(lean), 0.0])
    over = np.array([side * np.sin(lean), np.cos(lean), 0.0])
    for k in range(4):
        t = np.linspace(0, 1, 12)[:, None]
        length = (0.72, 0.86, 0.82, 0.66)[k]
        spread = 0.175 * (k - 1.5)
        start = anchor + over * spread * 1.15 + along * (0.86 - length)
        path = start + t * length * along - over * spread * 0.15 * t
        path[:, 2] += 0.30 + 0.10 * np.sin(np.pi * t[:, 0]) - 0.02 * abs(k - 1.5)
        tip = np.sqrt(np.clip(1 - (1 - np.clip(t[:, 0] * 8, 0, 1)) ** 2, 0.03, 1))
        knuckle = 1 + 0.08 * np.cos(t[:, 0] * 4 * np.pi)
        parts.append(_tube(path, 0.088 * tip * knuckle, False, 12))
    t = np.linspace(0, 1, 14)
    palm = anchor + along * 0.78 + t[:, None] * 2.6 * along + np.array([0, 0, 0.26])
    width = 0.36 - 0.16 * np.clip((t - 0.25) * 4, 0, 1)  # palm, then wrist and arm
    width = width * np.sqrt(np.clip(1 - (1 - np.clip(t * 9, 0, 1)) ** 2, 0.05, 1))
    points, corners = _tube(palm, width, False, 14)
    flat = (points - palm.mean(0)) @ np.array([0, 0, 1.0])
    points[:, 2] -= 0.45 * flat  # a palm is flatter than a tube
    parts.append((points, corners))
    return join(parts, albedo, 0.04)


def lock_of_hair(rng: np.random.Generator, colour: np.ndarray, anchor: np.ndarray) -> Prop:
    """Return strands that fall from the forehead across one eye (anchor (3,): the brow)."""
    parts = []
    side = np.sign(anchor[0]) or 1.0
    for _ in range(int(rng.integers(10, 18))):
        t = np.linspace(0, 1, 10)
        x = anchor[0] + rng.normal(0, 0.13) + side * rng.uniform(0, 0.25) * t**2
        y = anchor[1] + 0.5 - t * rng.uniform(0.5, 0.95)
        z = anchor[2] + 0.05 + 0.09 * np.sin(t * np.pi * 0.8) + rng.normal(0, 0.01)
        parts.append(_tube(np.stack([x, y, z + 0 * t], 1), 0.010 * (1 - 0.7 * t), False, 5))
    return join(parts, colour, 0.15)
