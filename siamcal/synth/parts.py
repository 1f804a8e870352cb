"""The parts a person's mesh is put together from: head, hair, garment, falling hair, worn props."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from siamcal.synth import shading
from siamcal.synth.hair import Hair, curtain
from siamcal.synth.mesh import PARTS, HeadMesh
from siamcal.synth.props import Prop
from siamcal.synth.texture import ease, linear, vertex_uv

# Hair styles that fall below the ears, and the heights where they may end (decimetres).
_CURTAINS = {"long": (4.4, 5.8), "bob": (6.05, 6.5)}

_MATERIALS = {
    "skin": shading.SKIN,
    "left_eye": shading.EYE,
    "right_eye": shading.EYE,
    "upper_teeth": shading.TEETH,
    "lower_teeth": shading.TEETH,
    "tongue": shading.MOUTH,
    "lashes": shading.LASH,
}


@dataclass(frozen=True)
class Part:
    """Vertices (n) and the triangles between them, numbered from 0.

    Attributes:
        triangles: (t, 3).
        material: Number of :mod:`siamcal.synth.shading`, or (t,) of them.
        attributes: (n, 6) see shading.
        uv: (n, 2) skin texture coordinates, or one for all.
        hair_uv: (n, 2) strand coordinates, or one for all.
        bend: (n,) 1 where a vertex follows the head, 0 where it follows the chest, or one for all.
    """

    triangles: np.ndarray
    material: np.ndarray | int
    attributes: np.ndarray
    uv: np.ndarray | float = 0.0
    hair_uv: np.ndarray | float = 0.0
    bend: np.ndarray | float = 1.0


@dataclass(frozen=True)
class Garment:
    """A garment of n vertices, cut at a neckline.

    Attributes:
        vertices: (n,) mesh vertices it stands on.
        triangles: (t, 3) numbered 0..n-1.
        moves: (n, 3) from the skin, decimetres.
        colour: (3,) linear RGB.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    moves: np.ndarray
    colour: np.ndarray


def draw_garment(rng: np.random.Generator, mesh: HeadMesh, normals: np.ndarray) -> Garment:
    """Draw a garment over the resting mesh, whose normals are (V, 3)."""
    deep = rng.uniform(0.1, 0.5) if rng.random() < 0.4 else 0.0
    base = mesh.base
    neckline = 5.80 + rng.uniform(-0.06, 0.10) - 0.28 * (base[:, 2] - 0.2)
    neckline -= deep * np.clip(1 - np.abs(base[:, 0]) / 0.5, 0, 1) * (base[:, 2] > 0.3)
    # The shoulders are covered however low the neckline is.
    neckline += 0.5 * np.clip((np.abs(base[:, 0]) - 0.7) / 0.4, 0, 1)
    level = np.where(mesh.part == 0, neckline - base[:, 1], -1.0)
    keep = (level > -0.25)[mesh.triangles].all(1) & (level > 0)[mesh.triangles].any(1)
    vertices, local = np.unique(mesh.triangles[keep], return_inverse=True)
    tint = rng.uniform(0, 1, 3) ** 1.5
    grey = rng.uniform(0.03, 0.6)
    colour = linear(255 * np.clip(0.25 * tint + 0.75 * grey + 0.35 * (tint - tint.mean()), 0.03, 1))
    # Above the neckline the cloth runs below the skin, so its edge is where the two meet.
    moves = normals[vertices] * np.clip(0.4 * level[vertices], -0.06, 0.06)[:, None]
    return Garment(vertices, local.reshape(-1, 3).astype(np.int32), moves, colour)


def _attributes(
    occlusion: np.ndarray,
    lip: np.ndarray | float = 0.0,
    inside: np.ndarray | float = 0.0,
    colour: np.ndarray | float = 0.0,
) -> np.ndarray:
    columns = np.empty((len(occlusion), 6), np.float32)
    columns[:, shading.AO], columns[:, shading.LIP] = occlusion, lip
    columns[:, shading.INSIDE], columns[:, shading.RED :] = inside, colour
    return columns


def _follow(height: np.ndarray) -> np.ndarray:
    return ease((height - 5.55) / 0.95)


def body_parts(
    mesh: HeadMesh, hidden: np.ndarray, occlusion: np.ndarray, hair: Hair, garment: Garment
) -> list[Part]:
    """Return the mesh, and hair and garment, which stand on its vertices and move with them.

    Args:
        mesh: The head.
        hidden: (V,) bool, skin that isn't drawn; nor are lower lashes and guides of hair.
        occlusion: (V,) share of ambient light that arrives.
        hair: Of the person.
        garment: From :func:`draw_garment`.
    """
    hidden = hidden | ((mesh.part == PARTS["lashes"]) & (mesh.base[:, 1] < 7.281))
    shown = ~hidden[mesh.triangles].all(1)
    shown &= (mesh.part[mesh.triangles] != PARTS["hair_guide"]).all(1)
    triangles = mesh.triangles[shown]
    material = np.zeros(max(PARTS.values()) + 1, np.uint8)
    for name, number in _MATERIALS.items():
        material[PARTS[name]] = number
    uv, bend = vertex_uv(mesh.base), _follow(mesh.base[:, 1])
    look = _attributes(occlusion, mesh.masks["lips"], mesh.masks["inside-mouth"])
    head = Part(triangles, material[mesh.part[triangles[:, 0]]], look, uv, bend=bend)
    root, below = hair.vertices, garment.vertices
    look = _attributes(np.clip(occlusion[root] + 0.1, 0, 1))
    shell = Part(hair.triangles, shading.HAIR, look, uv[root], hair.uv, bend[root])
    look = _attributes(occlusion[below], colour=garment.colour)
    return [head, shell, Part(garment.triangles, shading.CLOTH, look, bend=bend[below])]


def curtain_part(
    rng: np.random.Generator, style: str, hair: Hair, skin: np.ndarray
) -> tuple[np.ndarray, list[Part]]:
    """Return hair that falls below the ears, where the style has it: vertices (n, 3) and part.

    Args:
        rng: Source of randomness.
        style: A key of :data:`siamcal.synth.hair.STYLES`.
        hair: Of the person.
        skin: (n, 3) skin vertices of the neutral face.
    """
    if style not in _CURTAINS:
        return np.zeros((0, 3)), []
    vertices, triangles, hair_uv = curtain(rng, float(rng.uniform(*_CURTAINS[style])), skin)
    row, column = np.unravel_index(np.argmax(hair.coverage), hair.coverage.shape)
    part = Part(
        triangles,
        shading.HAIR,
        # The inner side of falling hair is in the dark.
        _attributes(np.repeat([0.9, 0.3], len(vertices) // 2)),
        uv=np.array([column + 0.5, row + 0.5]),  # any texel the cut-out lets through
        hair_uv=hair_uv,
        bend=_follow(vertices[:, 1] - 0.1),
    )
    return vertices, [part]


def prop_part(prop: Prop) -> Part:
    """Return a worn prop."""
    occlusion = np.full(len(prop.vertices), 0.9)
    return Part(prop.triangles, shading.PROP, _attributes(occlusion, prop.gloss, 0.0, prop.colour))


def join_parts(parts: list[Part]) -> dict[str, np.ndarray]:
    """Return the arrays of all parts in a row, by name, the triangles renumbered."""
    counts = [len(part.attributes) for part in parts]
    starts = np.cumsum([0, *counts[:-1]])

    def each(name: str, width: tuple[int, ...], kind: type) -> np.ndarray:
        sized = zip(parts, counts, strict=True)
        rows = [np.broadcast_to(getattr(part, name), (n, *width)) for part, n in sized]
        return np.concatenate(rows).astype(kind)

    numbered = [part.triangles + start for part, start in zip(parts, starts, strict=True)]
    material = [np.broadcast_to(part.material, len(part.triangles)) for part in parts]
    return {
        "triangles": np.ascontiguousarray(np.concatenate(numbered), np.int32),
        "material": np.concatenate(material).astype(np.uint8),
        "attributes": each("attributes", (6,), np.float32),
        "uv": each("uv", (2,), np.float32),
        "hair_uv": each("hair_uv", (2,), np.float32),
        "bend": each("bend", (), np.float64),
    }
