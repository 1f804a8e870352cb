"""A person, ready to be rendered: geometry, topology, textures and material colours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from siamcal.synth import props as prop_shapes
from siamcal.synth import shading
from siamcal.synth.actions import AUS, NUISANCES, action_shapes, nuisance_shapes
from siamcal.synth.hair import Hair, beard_texture, curtain, draw_hair
from siamcal.synth.mesh import PARTS, HeadMesh, load_mesh
from siamcal.synth.props import Prop
from siamcal.synth.raster import depth_map, vertex_normals
from siamcal.synth.skin import draw_brows, paint_skin, skin_albedo
from siamcal.synth.texture import linear, places, vertex_uv
from siamcal.synth.traits import Traits, stream
from siamcal.synth.wrinkles import WrinkleMap, draw_wrinkles

__all__ = ["Person", "build_person"]

# Eyes of every person are brought to this point (decimetres), so that cameras can aim.
_EYES_AT = np.array([0.0, 7.284, 1.245])

# Heights of the brow above the eyes: where it stops below, its median at rest over people, where it
# stops above (decimetres).
_LOWEST_BROW, _USUAL_BROW, _HIGHEST_BROW = 0.04, 0.12, 0.33

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


@dataclass
class Person:
    """Static arrays of one person; V counts mesh, hair, cloth and worn props together.

    Attributes:
        traits: Who it is.
        neutral: (M, 3) resting mesh.
        triangles: (T, 3) over all V vertices.
        material: (T,) numbers of :mod:`siamcal.synth.shading`.
        casts: (T,) bool, triangle is left out of the shadow map.
        shell: (n,) mesh vertex below each hair and cloth vertex.
        shell_move: (n, 3) its offset from that vertex.
        props: (p, 3) vertices of worn props in head space.
        uv: (V, 2) skin texture coordinates.
        hair_uv: (V, 2) strand coordinates.
        attributes: (V, 6) see shading.
        bend: (V,) 1 where a vertex follows the head, 0 where it follows the chest.
        skin: (h, w, 4) texture.
        coverage: (h, w) hair and beard.
        strands: Tone of hair.
        wrinkles: The person's wrinkle maps.
        colours: (8, 5) material constants.
        eye_centres: (2, 3).
        blink_gain: Strength of the blink shape at which this person's lids meet, left and right.
        reach: (12,) how far each AU goes on this resting face, as a share of its usual way.
    """

    traits: Traits
    neutral: np.ndarray
    triangles: np.ndarray
    material: np.ndarray
    casts: np.ndarray
    shell: np.ndarray
    shell_move: np.ndarray
    props: np.ndarray
    uv: np.ndarray
    hair_uv: np.ndarray
    attributes: np.ndarray
    bend: np.ndarray
    skin: np.ndarray
    coverage: np.ndarray
    strands: np.ndarray
    wrinkles: dict[int, WrinkleMap]
    colours: np.ndarray
    eye_centres: np.ndarray
    blink_gain: tuple[float, float]
    reach: np.ndarray


@lru_cache(maxsize=1)
def _vertex_materials() -> np.ndarray:
    part = load_mesh().part
    table = np.zeros(max(PARTS.values()) + 1, np.uint8)
    for name, material in _MATERIALS.items():
        table[PARTS[name]] = material
    return table[part]


def _lower_arms(points: np.ndarray) -> np.ndarray:
    """Let the arms of the mesh, which stand off, hang down."""
    out = points.copy()
    for side in (1.0, -1.0):
        x = side * points[:, 0]
        share = np.clip((x - 1.35) / 0.9, 0, 1)
        share = share * share * (3 - 2 * share)
        angle = -share * 0.62 * side
        pivot = np.array([side * 1.6, 5.05])
        dx, dy = points[:, 0] - pivot[0], points[:, 1] - pivot[1]
        turned_x = pivot[0] + np.cos(angle) * dx - np.sin(angle) * dy
        turned_y = pivot[1] + np.sin(angle) * dx + np.cos(angle) * dy
        arm = (x > 1.35) & (points[:, 1] < 5.9)
        out[arm, 0], out[arm, 1] = turned_x[arm], turned_y[arm]
    return out


def _resting_mesh(mesh: HeadMesh, traits: Traits) -> np.ndarray:
    points = mesh.morph(traits.weights) + np.tensordot(traits.rest, action_shapes(), 1)
    points = _lower_arms(points)
    eyes = [points[mesh.part == PARTS[name]].mean(0) for name in ("left_eye", "right_eye")]
    return points - (eyes[0] + eyes[1]) / 2 + _EYES_AT


def _blink_gains(mesh: HeadMesh, neutral: np.ndarray) -> tuple[float, float]:
    """Return how strong the blink shape must be for this person's lids to meet."""
    gains = []
    for side, name in ((1.0, "blink_left"), (-1.0, "blink_right")):
        shape = nuisance_shapes()[NUISANCES.index(name)]
        lashes = (mesh.part == PARTS["lashes"]) & (side * mesh.base[:, 0] > 0)
        upper, lower = lashes & (mesh.base[:, 1] > 7.281), lashes & (mesh.base[:, 1] <= 7.279)
        ratios = []
        for x in (0.25, 0.30, 0.35, 0.40):
            near = np.abs(side * mesh.base[:, 0] - x) < 0.04
            top, bottom = np.flatnonzero(upper & near), np.flatnonzero(lower & near)
            # Roots of the lashes are nearest to the eyeball.
            top = top[np.argsort(mesh.base[top, 2])[:3]]
            bottom = bottom[np.argsort(mesh.base[bottom, 2])[:3]]
            gap = neutral[top, 1].mean() - neutral[bottom, 1].mean()
            closing = shape[bottom, 1].mean() - shape[top, 1].mean()
            ratios.append((gap + 0.012) / max(closing, 1e-3))
        gains.append(float(np.clip(np.mean(ratios), 0.7, 1.5)))
    return gains[0], gains[1]


def _reach(mesh: HeadMesh, neutral: np.ndarray, lift: float) -> np.ndarray:
    """Return (12,) how far each AU can go: a brow stops at the eye below and at its highest place.

    A brow that rests low has little way down and more way up, and the other way round.
    """
    side = np.abs(mesh.base[:, 0])
    brow = (mesh.part == 0) & (mesh.base[:, 2] > 1.0) & (np.abs(mesh.base[:, 1] - 7.445) < 0.05)
    brow &= (side > 0.12) & (side < 0.52)
    height = float(neutral[brow, 1].mean()) + lift - _EYES_AT[1]
    down = (height - _LOWEST_BROW) / (_USUAL_BROW - _LOWEST_BROW)
    up = (_HIGHEST_BROW - height) / (_HIGHEST_BROW - _USUAL_BROW)
    reach = np.ones(len(AUS))
    reach[AUS.index(4)] = np.clip(down, 0.4, 1.5)
    reach[[AUS.index(1), AUS.index(2)]] = np.clip(up, 0.6, 1.25)
    return reach


def _occlusion(points: np.ndarray, triangles: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Return ambient light that reaches each vertex (V,), from depth maps of 24 directions."""
    size, scale, centre = 112, 34.0, np.array([0.0, 7.1, 0.5])
    index = np.arange(24) + 0.5
    z = 1 - 1.35 * index / 24  # from straight ahead to a little behind
    turn = index * 2.399963
    directions = np.stack(
        [np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], 1
    )
    skip = np.zeros(len(triangles), bool)
    light, total = np.zeros(len(points)), np.full(len(points), 1e-6)
    for d in directions:
        side = np.cross([0.0, 1.0, 0.05], d)
        side /= np.linalg.norm(side)
        local = (points - centre) @ np.stack([side, np.cross(d, side), d], 1)
        seen = depth_map(local, triangles, skip, size, scale)
        column = np.clip((size / 2 + local[:, 0] * scale).astype(int), 0, size - 1)
        row = np.clip((size / 2 - local[:, 1] * scale).astype(int), 0, size - 1)
        free = np.clip(1 - (seen[row, column] - local[:, 2] - 0.05) * 8, 0, 1)
        facing = np.clip(normals @ d, 0, None)
        light += facing * free
        total += facing
    return np.clip(0.15 + 0.85 * light / total, 0, 1)


def _cloth(
    rng: np.random.Generator, mesh: HeadMesh, normals: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return garment vertices, triangles, moves and colour, cut at a neckline."""
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
    return vertices, local.reshape(-1, 3).astype(np.int32), moves, colour


def _colours(traits: Traits, rng: np.random.Generator) -> np.ndarray:
    albedo = skin_albedo(traits.skin_tone, traits.redness)
    colours = np.zeros((8, 5))
    lip = albedo * np.array([0.92, 0.52, 0.55]) * rng.uniform(0.8, 1.1)
    if traits.sex == "female" and rng.random() < 0.35:  # lipstick
        lip = lip * 0.5 + 0.5 * linear((rng.uniform(130, 190), rng.uniform(20, 70), 60.0))
    colours[0, :3] = lip
    colours[1, :3] = linear(np.array(traits.eye_srgb))
    colours[2, :3] = linear((224, 214, 196)) * rng.uniform(0.75, 1.05)
    colours[3, :3] = linear(np.array(traits.hair_srgb))
    colours[6, :2] = (rng.uniform(0.1, 0.4), rng.uniform(15, 60)) if rng.random() < 0.3 else (0, 1)
    colours[7] = (
        2.2 * (0.8 + 0.4 * traits.age),
        rng.uniform(0.02, 0.12),
        rng.uniform(25.5, 28.5),
        rng.uniform(9.5, 13.5),
        rng.uniform(0.05, 0.2),
    )
    return colours


def _draw_hair(traits: Traits) -> Hair:
    rng = stream(traits.seed, traits.number, 2)
    return draw_hair(
        rng,
        traits.hair_style,
        traits.hair_front,
        traits.recession,
        traits.beard,
        float(rng.uniform(0.03, 0.13)),
    )


def build_person(traits: Traits, extra: Prop | None = None) -> Person:
    """Build the arrays of a person; takes about a tenth of a second.

    Args:
        traits: From :func:`siamcal.synth.traits.draw_traits`.
        extra: One more prop, such as fingers before the face.
    """
    mesh, hair = load_mesh(), _draw_hair(traits)
    rng = stream(traits.seed, traits.number, 3)
    neutral = _resting_mesh(mesh, traits)
    body = (mesh.part == 0)[mesh.triangles].all(1)
    skin_triangles = np.ascontiguousarray(mesh.triangles[body])
    normals = vertex_normals(neutral, skin_triangles).astype(float)
    cloth, cloth_triangles, cloth_moves, cloth_colour = _cloth(rng, mesh, normals)

    albedo = skin_albedo(traits.skin_tone, traits.redness)
    hair_colour = linear(np.array(traits.hair_srgb))
    at = places()
    stubble = np.zeros_like(at.x)
    if traits.beard == "stubble":
        stubble = 0.5 * beard_texture("stubble")
        stubble *= rng.uniform(0.6, 1.3) * (0.75 + 0.5 * rng.random(stubble.shape, np.float32))
    brows = draw_brows(stream(traits.seed, traits.number, 4), traits.brows)
    skin = paint_skin(
        stream(traits.seed, traits.number, 5),
        albedo,
        traits.age,
        hair_colour,
        brows,
        hair.scalp,
        stubble,
    )

    eyes = np.stack([neutral[mesh.part == PARTS[n]].mean(0) for n in ("left_eye", "right_eye")])
    worn = [] if extra is None else [extra]
    if traits.glasses != "none":
        frame = linear(
            ((24, 24, 26), (96, 62, 40), (120, 118, 122), (90, 24, 30), (30, 50, 90))[
                int(rng.integers(5))
            ]
        )
        points = neutral[mesh.part == 0]
        worn.append(prop_shapes.glasses(rng, traits.glasses, eyes, points, frame))

    head, n_hair, n_cloth = len(neutral), len(hair.vertices), len(cloth)
    # Skin far below the neckline is hidden by the garment.
    deep_below = np.zeros(head, bool)
    deep_below[cloth] = (cloth_moves * normals[cloth]).sum(1) > 0.035
    lower_lashes = (mesh.part == PARTS["lashes"]) & (mesh.base[:, 1] < 7.281)
    hidden = (deep_below | lower_lashes)[mesh.triangles].all(1)
    shown = ~hidden & (mesh.part[mesh.triangles] != PARTS["hair_guide"]).all(1)
    triangles = [mesh.triangles[shown], hair.triangles + head, cloth_triangles + head + n_hair]
    material = [
        _vertex_materials()[mesh.triangles[shown][:, 0]],
        np.full(len(hair.triangles), shading.HAIR, np.uint8),
        np.full(len(cloth_triangles), shading.CLOTH, np.uint8),
    ]
    start = head + n_hair + n_cloth
    falling, falling_uv = np.zeros((0, 3)), np.zeros((0, 2))
    if traits.hair_style in _CURTAINS:
        ends = _CURTAINS[traits.hair_style]
        end = float(rng.uniform(*ends))
        falling, faces, falling_uv = curtain(rng, end, neutral[mesh.part == 0])
        triangles.append(faces + start)
        material.append(np.full(len(faces), shading.HAIR, np.uint8))
        start += len(falling)
    for prop in worn:
        triangles.append(prop.triangles + start)
        material.append(np.full(len(prop.triangles), shading.PROP, np.uint8))
        start += len(prop.vertices)
    all_triangles = np.ascontiguousarray(np.concatenate(triangles), np.int32)
    all_material = np.concatenate(material)

    occlusion = np.ones(head)
    occlusion[:] = _occlusion(neutral, skin_triangles, normals)
    attributes = np.zeros((start, 6), np.float32)
    attributes[:head, shading.AO] = occlusion
    attributes[:head, shading.LIP] = mesh.masks["lips"]
    attributes[:head, shading.INSIDE] = mesh.masks["inside-mouth"]
    attributes[head : head + n_hair, shading.AO] = np.clip(occlusion[hair.vertices] + 0.1, 0, 1)
    low, high = head + n_hair, head + n_hair + n_cloth
    attributes[low:high, shading.AO] = occlusion[cloth]
    attributes[low:high, shading.RED :] = cloth_colour
    low, high = high, high + len(falling)
    # The inner side of falling hair is in the dark.
    attributes[low:high, shading.AO] = np.repeat([0.9, 0.3], len(falling) // 2)
    curtain_rows = slice(low, high)
    for prop in worn:
        low, high = high, high + len(prop.vertices)
        attributes[low:high, shading.AO] = 0.9
        attributes[low:high, shading.LIP] = prop.gloss
        attributes[low:high, shading.RED :] = prop.colour

    uv = np.zeros((start, 2), np.float32)
    base_uv = vertex_uv(mesh.base)
    uv[:head], uv[head : head + n_hair] = base_uv, base_uv[hair.vertices]
    hair_uv = np.zeros((start, 2), np.float32)
    hair_uv[head : head + n_hair] = hair.uv
    hair_uv[curtain_rows] = falling_uv
    if len(falling):  # any texel the cut-out lets through
        row, column = np.unravel_index(np.argmax(hair.coverage), hair.coverage.shape)
        uv[curtain_rows] = (column + 0.5, row + 0.5)
    bend = np.ones(start)

    def follow(height: np.ndarray) -> np.ndarray:
        turn = np.clip((height - 5.55) / 0.95, 0, 1)
        return turn * turn * (3 - 2 * turn)

    bend[:head] = follow(mesh.base[:, 1])
    bend[curtain_rows] = follow(falling[:, 1] - 0.1)
    bend[head : head + n_hair] = bend[hair.vertices]
    bend[head + n_hair : head + n_hair + n_cloth] = bend[cloth]
    return Person(
        traits=traits,
        neutral=neutral,
        triangles=all_triangles,
        material=all_material,
        casts=(all_material == shading.LASH) | (all_material == shading.EYE),
        shell=np.concatenate([hair.vertices, cloth]),
        shell_move=np.concatenate([normals[hair.vertices] * hair.offset[:, None], cloth_moves]),
        props=np.concatenate([falling, *(p.vertices for p in worn)]),
        uv=uv,
        hair_uv=hair_uv,
        attributes=attributes,
        bend=bend,
        skin=skin,
        coverage=hair.coverage,
        strands=hair.strands,
        wrinkles=draw_wrinkles(stream(traits.seed, traits.number, 6)),
        colours=_colours(traits, stream(traits.seed, traits.number, 7)),
        eye_centres=eyes,
        blink_gain=_blink_gains(mesh, neutral),
        reach=_reach(mesh, neutral, traits.brows.lift),
    )
