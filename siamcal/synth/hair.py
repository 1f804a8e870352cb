"""Hair and beards: shells that stand off the skin, cut strand by strand at their edges."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from siamcal.synth import texture as tex
from siamcal.synth.mesh import load_mesh
from siamcal.synth.props import grid_triangles
from siamcal.synth.texture import ease, noise, places

#: Style -> thickness on top, at the sides, behind (decimetres), how far strands waver, and how
#: ragged the hairline is (decimetres).
STYLES: dict[str, tuple[float, float, float, float, float]] = {
    "bald": (0.0, 0.0, 0.0, 0.0, 0.0),
    "buzz": (0.03, 0.02, 0.02, 0.3, 0.010),
    "short": (0.13, 0.05, 0.06, 0.25, 0.030),
    "fringe": (0.15, 0.06, 0.07, 0.2, 0.055),
    "side_part": (0.19, 0.07, 0.08, 0.15, 0.014),
    "curly": (0.24, 0.15, 0.16, 1.0, 0.030),
    "afro": (0.42, 0.36, 0.38, 1.6, 0.015),
    "tied_back": (0.07, 0.04, 0.06, 0.1, 0.010),
    "long": (0.16, 0.14, 0.20, 0.12, 0.012),
    "bob": (0.18, 0.16, 0.22, 0.12, 0.030),
    # In the shifted look alone (siamcal.synth.looks).
    "undercut": (0.24, 0.012, 0.015, 0.2, 0.012),
    "mop": (0.32, 0.22, 0.26, 0.6, 0.050),
    "frizz": (0.30, 0.26, 0.30, 2.2, 0.040),
}

BEARDS = ("none", "stubble", "moustache", "goatee", "full")


@dataclass(frozen=True)
class Hair:
    """A person's hair and beard.

    Attributes:
        vertices: (n,) mesh vertices the shell stands on.
        triangles: (t, 3) triangles of the shell, numbered 0..n-1.
        offset: (n,) distance from the skin, decimetres.
        coverage: (h, w) float32, the shell exists where it is at least .5.
        scalp: (h, w) float32, how far the skin below takes the hair's colour.
        uv: (n, 2) strand coordinates in tiles.
        strands: (p, q) float32 tone of the strands, mean about 1.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    offset: np.ndarray
    coverage: np.ndarray
    scalp: np.ndarray
    uv: np.ndarray
    strands: np.ndarray


def _smooth(value: np.ndarray, low: float, high: float) -> np.ndarray:
    return ease((value - low) / (high - low))


def _hairline(angle: np.ndarray, front: float, recession: float, long: bool) -> np.ndarray:
    """Return the height of the hairline by angle round the head, decimetres."""
    at = [0.0, 0.25, 0.55, 0.85, 1.0, 1.12, 1.3, 1.75, 2.1, 2.6, 3.15]
    side = 6.9 if long else 7.12
    low = 6.3 if long else 6.62
    temple = front + 0.25 * recession
    heights = [
        front,
        front + 0.06 * recession,
        temple - 0.05,
        7.62 + 0.2 * recession,
        7.42,
        side,
        7.36,
        7.40,
        6.95,
        low,
        low,
    ]
    return np.interp(np.abs(angle), at, heights)


def beard_level(kind: str, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return beard density in [0, 1] at mean-head places; lips stay free."""
    ax = np.abs(x)
    moustache = np.exp(-(((y - 6.79 + 0.10 * ax) / 0.062) ** 4)) * np.exp(-((x / 0.27) ** 8))
    chin = np.exp(-((x / 0.22) ** 4)) * _smooth(6.50 - y, 0.0, 0.08)
    cheek = 6.56 + 0.75 * np.clip(ax - 0.34, 0, 1)
    jaw = _smooth(cheek - y, -0.02, 0.06) * _smooth(ax, 0.10, 0.30)
    sides = _smooth(cheek + 0.25 - y, 0, 0.1) * _smooth(ax, 0.60, 0.66)
    full = np.maximum.reduce([moustache, chin, jaw, sides])
    chosen = {
        "none": 0 * x,
        "stubble": full,
        "moustache": moustache,
        "full": full,
        "goatee": np.maximum(moustache, chin),
    }[kind]
    lips = np.exp(-((x / 0.29) ** 6)) * np.exp(-(((y - 6.635) / 0.09) ** 6))
    neck = _smooth(y + 0.28 * np.clip(1.1 - z, 0, 1), 6.08, 6.22)
    return chosen * (1 - lips) * neck * (z > 0.35)


@lru_cache(maxsize=len(BEARDS))
def beard_texture(kind: str) -> np.ndarray:
    """Return :func:`beard_level` of every texel (h, w), the same for everybody; don't change it."""
    at = places()
    return beard_level(kind, at.x, at.y, at.z)


@lru_cache(maxsize=1)
def _strand_uv() -> np.ndarray:
    """Return strand coordinates (V, 2): tiles across and along strands that leave the crown."""
    points = load_mesh().base - np.array([0.0, 7.65, 0.4])
    pole = np.array([0.0, 0.85, -0.53])
    side = np.array([1.0, 0.0, 0.0])
    front = np.cross(side, pole)
    direction = points / (np.linalg.norm(points, axis=1, keepdims=True) + 1e-9)
    across = np.arctan2(direction @ side, direction @ front)
    along = np.arccos(np.clip(direction @ pole, -1, 1))
    return np.stack([across / (2 * np.pi) * 4.0, along / np.pi * 2.0], 1)


def _strand_texture(rng: np.random.Generator, waver: float) -> np.ndarray:
    """Return the tone of strands (256, 512): fine across, long along, the more curl the shorter."""
    rows = int(np.clip(5 + 70 * max(0.0, waver - 0.2), 5, 120))
    grains = [rng.standard_normal(n, np.float32) for n in ((rows, 300), (max(3, rows // 3), 70))]
    fine, locks = (cv2.resize(g, (512, 256), interpolation=cv2.INTER_CUBIC) for g in grains)
    shift = waver * 14 * np.sin(np.linspace(0, 2 * np.pi * 3, 256))[:, None]
    column = (np.arange(512)[None] + shift).astype(np.float32) % 511
    row = np.repeat(np.arange(256, dtype=np.float32)[:, None], 512, 1)
    mixed = cv2.remap(0.7 * fine + 0.6 * locks, column, row, cv2.INTER_LINEAR)
    return np.clip(1 + 0.18 * mixed, 0.25, 2.2).astype(np.float32)


def _without_islands(level: np.ndarray) -> np.ndarray:
    """Return the level with tufts cleared that the fraying has cut off from the hair."""
    _, numbers, sizes, _ = cv2.connectedComponentsWithStats((level > -0.02).astype(np.uint8))
    small = sizes[:, cv2.CC_STAT_AREA] < level.size // 100
    whole = (~small[numbers] & (numbers > 0)).astype(np.uint8)
    cleared = cv2.dilate(small[numbers].astype(np.uint8), np.ones((15, 15), np.uint8))
    near = cv2.dilate(whole, np.ones((5, 5), np.uint8))
    return np.where((cleared > 0) & (near == 0), -1.0, level)


def draw_hair(
    rng: np.random.Generator,
    style: str,
    front: float,
    recession: float,
    beard: str,
    beard_length: float,
) -> Hair:
    """Make the shell of a style.

    Args:
        rng: Source of randomness.
        style: A key of :data:`STYLES`.
        front: Height of the hairline at the middle of the forehead, decimetres (7.8-8.1).
        recession: 0 to 1, how far the temples are bare.
        beard: One of :data:`BEARDS`.
        beard_length: Decimetres a full beard or goatee stands off.
    """
    mesh, at = load_mesh(), places()
    top, sides, back, waver, ragged = STYLES[style]
    base = mesh.base
    angle = np.arctan2(base[:, 0], base[:, 2] - tex.AXIS_Z)
    long = style in ("long", "bob")
    level = base[:, 1] - _hairline(angle, front, recession, long)
    ears = mesh.masks["ears"] > 0.3
    upper = _smooth(base[:, 1], 7.6, 8.2)
    behind = _smooth(-base[:, 2], -0.3, 0.2)
    thick = upper * top + (1 - upper) * ((1 - behind) * sides + behind * back)
    if style == "side_part":
        thick = thick * (1 + 0.35 * np.tanh(base[:, 0] * 5) * upper)
    offset = np.where(level > 0, thick * _smooth(level, 0, 0.3), 0.0) + 0.012
    lumps = 0.18 * np.sin(9 * base[:, 0] + rng.uniform(0, 6)) * np.sin(8 * base[:, 1])
    offset = offset * (1 + lumps)

    # Hair and beard lie flat round the ears, which they don't cover.
    ear = base[ears]
    distance = np.sqrt(((base[:, None] - ear[None, ::6]) ** 2).sum(2)).min(1)
    free = _smooth(distance, 0.0, 0.25)
    offset = np.where(level > 0, 0.012 + (offset - 0.012) * free, offset)

    density = beard_level(beard, base[:, 0], base[:, 1], base[:, 2])
    bearded = beard in ("moustache", "goatee", "full")
    offset = np.where((density > 0.02) & bearded, 0.006 + beard_length * density * free, offset)

    shown = (level > -0.12) & (style != "bald") & ~ears
    shown |= (density > 0.02) & bearded
    keep = (mesh.part[mesh.triangles] == 0).all(1) & shown[mesh.triangles].any(1)
    keep &= ~ears[mesh.triangles].any(1)
    triangles = mesh.triangles[keep]
    vertices, local = np.unique(triangles, return_inverse=True)

    line = at.height - _hairline(at.angle, front, recession, long)
    # Where the head's outline shows the hairline from the side, holes would let the room through.
    frontal = 0.15 + 0.85 * _smooth(-np.abs(at.angle), -0.95, -0.6)
    fray = ragged * noise(rng, 0.016, 5.0) + 0.5 * ragged * noise(rng, 0.06)
    frayed = _without_islands(line + frontal * fray)
    head = np.zeros_like(line) if style == "bald" else _smooth(frayed, -0.02, 0.02)
    scalp = np.zeros_like(line) if style == "bald" else _smooth(frayed, -0.07, 0.05)
    field = beard_texture(beard) * bearded
    hairs = 0.30 * noise(rng, 0.014, 4.0) + 0.08 * noise(rng, 0.05)
    chin = _smooth(field + frontal * hairs * (field > 0.02), 0.25, 0.6)
    return Hair(
        vertices=vertices,
        triangles=local.reshape(-1, 3).astype(np.int32),
        offset=offset[vertices],
        coverage=np.maximum(head, chin).astype(np.float32),
        scalp=np.maximum(scalp, 0.6 * chin).astype(np.float32),
        uv=_strand_uv()[vertices],
        strands=_strand_texture(rng, waver),
    )


def curtain(
    rng: np.random.Generator, end: float, skin: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return hair that falls round head and neck: vertices, triangles, strand coordinates.

    Args:
        rng: Source of randomness.
        end: Height at which it ends, decimetres.
        skin: (n, 3) skin vertices of the neutral face, which it has to clear.
    """
    middle = skin[(skin[:, 1] > 6.9) & (skin[:, 1] < 7.8)]
    half = float(np.abs(middle[:, 0]).max()) + 0.05
    behind = float(-middle[:, 2].min()) + 0.16
    opening, swing = rng.uniform(1.0, 1.2), rng.uniform(0.0, 0.12)
    rows, columns = 18, 44
    along = np.linspace(0, 1, rows)[:, None]
    turn = np.linspace(opening, 2 * np.pi - opening, columns)[None]
    y = 8.12 + along * (end - 8.12) + 0 * turn
    crown = 1 - 0.30 * (1 - _smooth(8.12 - y, 0.0, 0.45))
    neck = 1 - 0.16 * _smooth(6.9 - y, 0.0, 0.7) + 0.42 * _smooth(6.0 - y, 0.0, 0.8)
    wave = 1 + 0.018 * np.sin(turn * 17 + rng.uniform(0, 6)) + swing * np.sin(y * 5) * 0.15
    x = half * crown * neck * wave * np.sin(turn)
    depth = np.where(np.cos(turn) > 0, 0.85, behind + 0.35)
    z = 0.35 + depth * crown * (0.6 + 0.4 * neck) * wave * np.cos(turn)
    # In front of the shoulders rather than through them.
    z = z + 0.42 * _smooth(6.1 - y, 0.0, 0.6) * _smooth(np.cos(turn), -0.2, 0.4)
    outer = np.stack([x, y, z], 2).reshape(-1, 3)
    faces = grid_triangles(rows, columns)
    inner = outer * np.array([0.97, 1.0, 0.97])
    triangles = np.concatenate([faces, faces[:, ::-1] + len(outer)]).astype(np.int32)
    across = np.broadcast_to(turn / (2 * np.pi) * 5.0, (rows, columns))
    uv = np.stack([across, along * 1.5 + 0 * turn], 2).reshape(-1, 2)
    return np.concatenate([outer, inner]), triangles, np.concatenate([uv, uv])
