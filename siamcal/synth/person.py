"""A person, ready to be rendered: geometry, topology, textures and material colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from siamcal.synth import parts, shading
from siamcal.synth.actions import AUS, NUISANCES, action_shapes, nuisance_shapes
from siamcal.synth.complexion import coloured_lip, complexion_albedo
from siamcal.synth.hair import Hair, beard_texture, draw_hair
from siamcal.synth.mesh import PARTS, HeadMesh, load_mesh
from siamcal.synth.props import Prop, glasses
from siamcal.synth.raster import depth_map, vertex_normals
from siamcal.synth.skin import draw_brows, paint_skin, skin_albedo
from siamcal.synth.texture import ease, linear, places
from siamcal.synth.traits import Traits, stream
from siamcal.synth.wrinkles import WrinkleMap, draw_wrinkles

__all__ = ["Person", "build_person"]

# Eyes of every person are brought to this point (decimetres), so that cameras can aim.
_EYES_AT = np.array([0.0, 7.284, 1.245])

# Heights of the brow above the eyes: where it stops below, its median at rest over people, where it
# stops above (decimetres).
_LOWEST_BROW, _USUAL_BROW, _HIGHEST_BROW = 0.04, 0.12, 0.33

# sRGB of eyeglass frames.
_FRAME_COLOURS = ((24, 24, 26), (96, 62, 40), (120, 118, 122), (90, 24, 30), (30, 50, 90))


@dataclass
class Person:
    """Static arrays of one person; V counts mesh, hair, cloth and worn props together.

    Attributes:
        traits: Who it is.
        neutral: (M, 3) resting mesh.
        triangles: (T, 3) over all V vertices.
        material: (T,) numbers of :mod:`siamcal.synth.shading`.
        shadowless: (T,) bool, triangle is left out of the shadow map.
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
        paint: Material colours and constants.
        eye_centres: (2, 3).
        blink_gain: Strength of the blink shape at which this person's lids meet, left and right.
        reach: (12,) how far each AU goes on this resting face, as a share of its usual way.
    """

    traits: Traits
    neutral: np.ndarray
    triangles: np.ndarray
    material: np.ndarray
    shadowless: np.ndarray
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
    paint: shading.Paint
    eye_centres: np.ndarray
    blink_gain: tuple[float, float]
    reach: np.ndarray


def _lower_arms(points: np.ndarray) -> np.ndarray:
    """Let the arms of the mesh, which stand off, hang down."""
    out = points.copy()
    for side in (1.0, -1.0):
        x = side * points[:, 0]
        angle = -ease((x - 1.35) / 0.9) * 0.62 * side
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


def _paint(traits: Traits, rng: np.random.Generator) -> shading.Paint:
    lip = skin_albedo(traits.skin_tone, traits.redness)
    lip = lip * np.array([0.92, 0.52, 0.55]) * rng.uniform(0.8, 1.1)
    if traits.sex == "female" and rng.random() < 0.35:  # lipstick
        lip = lip * 0.5 + 0.5 * linear((rng.uniform(130, 190), rng.uniform(20, 70), 60.0))
    if traits.complexion:
        lip = coloured_lip(lip, traits.complexion)
    teeth = linear((224, 214, 196)) * rng.uniform(0.75, 1.05)
    weave = (rng.uniform(0.1, 0.4), rng.uniform(15, 60)) if rng.random() < 0.3 else (0.0, 1.0)
    return shading.Paint(
        lip=shading.triple(lip),
        iris=shading.triple(linear(traits.eye_srgb)),
        teeth=shading.triple(teeth),
        hair=shading.triple(linear(traits.hair_srgb)),
        weave=weave[0],
        weave_turn=weave[1],
        bump=2.2 * (0.8 + 0.4 * traits.age),
        lip_gloss=rng.uniform(0.02, 0.12),
        iris_angle=rng.uniform(25.5, 28.5),
        pupil_angle=rng.uniform(9.5, 13.5),
        hair_gloss=rng.uniform(0.05, 0.2),
    )


def _draw_hair(traits: Traits) -> Hair:
    rng = stream(traits.seed, traits.number, 2)
    usual = float(rng.uniform(0.03, 0.13))
    return draw_hair(
        rng,
        traits.hair_style,
        traits.hair_front,
        traits.recession,
        traits.beard,
        usual if traits.beard_length is None else traits.beard_length,
    )


def _draw_skin(rng: np.random.Generator, traits: Traits, hair: Hair) -> np.ndarray:
    """Return the skin texture; `rng` decides on the stubble alone."""
    stubble = np.zeros_like(places().x)
    if traits.beard == "stubble":
        stubble = 0.5 * beard_texture("stubble")
        usual = rng.uniform(0.6, 1.3)
        density = usual if traits.stubble is None else traits.stubble
        stubble *= density * (0.75 + 0.5 * rng.random(stubble.shape, np.float32))
    albedo = skin_albedo(traits.skin_tone, traits.redness)
    if traits.complexion:
        albedo = complexion_albedo(
            stream(traits.seed, traits.number, 42), albedo, traits.complexion
        )
    skin = paint_skin(
        stream(traits.seed, traits.number, 5),
        albedo,
        traits.age,
        linear(traits.hair_srgb),
        draw_brows(stream(traits.seed, traits.number, 4), traits.brows),
        hair.scalp,
        stubble,
    )
    if traits.complexion:
        skin[..., 3] = np.clip(skin[..., 3] * traits.complexion.gloss, 0, 1)
    return skin


def build_person(traits: Traits, extra: Prop | None = None) -> Person:
    """Build the arrays of a person; takes about a tenth of a second.

    Args:
        traits: From :func:`siamcal.synth.traits.draw_traits`.
        extra: One more prop, such as fingers before the face.
    """
    mesh, hair = load_mesh(), _draw_hair(traits)
    neutral = _resting_mesh(mesh, traits)
    skin_points = neutral[mesh.part == 0]
    is_skin = (mesh.part == 0)[mesh.triangles].all(1)
    skin_triangles = np.ascontiguousarray(mesh.triangles[is_skin])
    normals = vertex_normals(neutral, skin_triangles).astype(float)
    eyes = np.stack([neutral[mesh.part == PARTS[n]].mean(0) for n in ("left_eye", "right_eye")])

    rng = stream(traits.seed, traits.number, 3)  # drawn from in this order
    garment = parts.draw_garment(rng, mesh, normals)
    skin = _draw_skin(rng, traits, hair)
    worn = [] if extra is None else [extra]
    if traits.glasses != "none":
        frame = linear(_FRAME_COLOURS[int(rng.integers(len(_FRAME_COLOURS)))])
        worn.append(glasses(rng, traits.glasses, eyes, skin_points, frame))
    falling, curtains = parts.curtain_part(rng, traits.hair_style, hair, skin_points)

    # Skin far below the neckline is hidden by the garment.
    hidden = np.zeros(len(neutral), bool)
    hidden[garment.vertices] = (garment.moves * normals[garment.vertices]).sum(1) > 0.035
    occlusion = _occlusion(neutral, skin_triangles, normals)
    body = parts.body_parts(mesh, hidden, occlusion, hair, garment)
    arrays = parts.join_parts([*body, *curtains, *map(parts.prop_part, worn)])
    return Person(
        traits=traits,
        neutral=neutral,
        shadowless=np.isin(arrays["material"], (shading.LASH, shading.EYE)),
        shell=np.concatenate([hair.vertices, garment.vertices]),
        shell_move=np.concatenate([normals[hair.vertices] * hair.offset[:, None], garment.moves]),
        props=np.concatenate([falling, *(p.vertices for p in worn)]),
        skin=skin,
        coverage=hair.coverage,
        strands=hair.strands,
        wrinkles=draw_wrinkles(stream(traits.seed, traits.number, 6)),
        paint=_paint(traits, stream(traits.seed, traits.number, 7)),
        eye_centres=eyes,
        blink_gain=_blink_gains(mesh, neutral),
        reach=_reach(mesh, neutral, traits.brows.lift),
        **arrays,
    )
