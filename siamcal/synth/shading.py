"""The compiled shader: one colour a pixel, four where an edge runs through it.

Colours are linear light until :func:`siamcal.synth.render.expose` writes 8-bit sRGB. A pixel whose
four samples hit the same smooth surface is shaded once, at its centre; the others are shaded at
each sample and averaged, which is what anti-aliases silhouettes, eyelids and lips.

All compiled functions lie in this file: numba's cache doesn't see changes of other files.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

SKIN, EYE, TEETH, MOUTH, LASH, HAIR, PROP, CLOTH = 0, 1, 2, 3, 4, 5, 6, 7

# Columns of the vertex attributes: occlusion, lip (props: gloss), inside of the mouth, and from
# RED on a colour (props, cloth).
AO, LIP, INSIDE, RED = 0, 1, 2, 3

# Nothing below makes or keeps an array. Without `_nrt=False` numba counts references to the arrays
# of the named tuples at each pixel, which makes a picture 40 % slower.
_compiled = njit(cache=True, _nrt=False)

#: Linear RGB, or a place or direction.
Triple = tuple[float, float, float]


def triple(values: np.ndarray) -> Triple:
    """Return an array (3,) as the compiled functions take it."""
    return float(values[0]), float(values[1]), float(values[2])


class Paint(NamedTuple):
    """A person's material colours and constants; angles in degrees from the gaze."""

    lip: Triple
    iris: Triple
    teeth: Triple
    hair: Triple
    weave: float  # strength, and angle a decimetre
    weave_turn: float
    bump: float
    lip_gloss: float
    iris_angle: float
    pupil_angle: float
    hair_gloss: float


class Lighting(NamedTuple):
    """Directions in camera space and colours: the key light, the one from the other side, the sky.

    `half` lies half way between key light and camera.
    """

    key: Triple
    fill: Triple
    half: Triple
    key_colour: Triple
    fill_colour: Triple
    sky_colour: Triple


class Scene(NamedTuple):
    """What a frame shows: V vertices, T triangles, their materials and light.

    Attributes:
        triangles: (T, 3).
        material: (T,) uint8.
        xy: (V, 2) sample coordinates.
        normals: (V, 3) in camera space.
        local: (V, 3) head-space positions.
        light_space: (V, 3) texel x, texel y and depth in the shadow map.
        uv: (V, 2) skin texture coordinates in texels.
        hair_uv: (V, 2) coordinates in `strands`, in tiles.
        attributes: (V, 6) occlusion, lip, inside of the mouth, colour.
        skin: (h, w, 4) linear albedo and gloss.
        wrinkles: (h, w) wrinkle depth of this frame.
        strands: (p, q) tone of hair strands, tiled.
        shadow_map: (m, m) depth seen from the key light.
        paint: Of the person.
        lights: Of this frame.
        up: The head's up in camera space.
        side: The subject's left in camera space.
        left_eye: Centre in head space; likewise right.
        right_eye: Centre in head space.
        gaze: Unit vector in head space.
        lid: Height of the upper lid's shade on the unit eyeball.
    """

    triangles: np.ndarray
    material: np.ndarray
    xy: np.ndarray
    normals: np.ndarray
    local: np.ndarray
    light_space: np.ndarray
    uv: np.ndarray
    hair_uv: np.ndarray
    attributes: np.ndarray
    skin: np.ndarray
    wrinkles: np.ndarray
    strands: np.ndarray
    shadow_map: np.ndarray
    paint: Paint
    lights: Lighting
    up: Triple
    side: Triple
    left_eye: Triple
    right_eye: Triple
    gaze: Triple
    lid: float


class _Point(NamedTuple):
    """A place on a triangle: its vertices and their weights."""

    a: int
    b: int
    c: int
    wa: float
    wb: float
    wc: float


class _Texel(NamedTuple):
    """A place in a texture: between rows i and i + 1, columns j and j + 1."""

    i: int
    j: int
    fu: float
    fv: float


class _Matter(NamedTuple):
    """What a place is made of."""

    colour: Triple
    normal: Triple  # not yet of unit length
    ambient: float  # share of light from everywhere that arrives
    gloss: float
    wrap_red: float  # how far light goes round into the shadow: red, and the rest
    wrap_rest: float
    tight: int  # size of the highlight: 0, large, to 2
    shadowed: bool  # whether the shadow map counts


@_compiled
def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


@_compiled
def _times(colour: Triple, factor: float) -> Triple:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


@_compiled
def _blend(colour: Triple, other: Triple, share: float) -> Triple:
    return (
        colour[0] + share * (other[0] - colour[0]),
        colour[1] + share * (other[1] - colour[1]),
        colour[2] + share * (other[2] - colour[2]),
    )


@_compiled
def _dot(a: Triple, b: Triple) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@_compiled
def _locate(scene: Scene, t: int, px: float, py: float) -> _Point:
    """Return where triangle t is seen at image point (px, py)."""
    xy = scene.xy
    ia, ib, ic = scene.triangles[t, 0], scene.triangles[t, 1], scene.triangles[t, 2]
    ax, ay = xy[ia, 0], xy[ia, 1]
    bx, by = xy[ib, 0], xy[ib, 1]
    cx, cy = xy[ic, 0], xy[ic, 1]
    inverse = 1.0 / ((bx - ax) * (cy - ay) - (by - ay) * (cx - ax))
    wa = ((bx - px) * (cy - py) - (by - py) * (cx - px)) * inverse
    wb = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) * inverse
    # A pixel's centre can lie just outside the triangle that covers one of its samples.
    wa = _clip(wa, 0.0, 1.0)
    wb = _clip(wb, 0.0, 1.0 - wa)
    return _Point(ia, ib, ic, wa, wb, 1.0 - wa - wb)


@_compiled
def _at(values: np.ndarray, column: int, p: _Point) -> float:
    """Interpolate one column of a vertex array."""
    return p.wa * values[p.a, column] + p.wb * values[p.b, column] + p.wc * values[p.c, column]


@_compiled
def _three_at(values: np.ndarray, first: int, p: _Point) -> Triple:
    """Interpolate three columns of a vertex array."""
    return _at(values, first, p), _at(values, first + 1, p), _at(values, first + 2, p)


@_compiled
def _between(t: _Texel, v00: float, v01: float, v10: float, v11: float) -> float:
    """Interpolate between four texels."""
    left, low = 1.0 - t.fu, 1.0 - t.fv
    return left * low * v00 + t.fu * low * v01 + left * t.fv * v10 + t.fu * t.fv * v11


@_compiled
def _channel(skin: np.ndarray, k: int, t: _Texel) -> float:
    i, j = t.i, t.j
    return _between(t, skin[i, j, k], skin[i, j + 1, k], skin[i + 1, j, k], skin[i + 1, j + 1, k])


@_compiled
def _wrinkle(scene: Scene, t: _Texel, colour: Triple, normal: Triple) -> tuple[Triple, Triple]:
    """Darken and tilt the skin where there is a wrinkle."""
    h00, h01 = scene.wrinkles[t.i, t.j], scene.wrinkles[t.i, t.j + 1]
    h10, h11 = scene.wrinkles[t.i + 1, t.j], scene.wrinkles[t.i + 1, t.j + 1]
    if h00 + h01 + h10 + h11 <= 0.001:
        return colour, normal
    depth = min(_between(t, h00, h01, h10, h11), 1.0)
    dark = 1.0 - 0.42 * depth
    colour = colour[0] * (1.0 - 0.30 * depth), colour[1] * dark, colour[2] * dark
    slope_u = (1.0 - t.fv) * (h01 - h00) + t.fv * (h11 - h10)
    slope_v = (1.0 - t.fu) * (h10 - h00) + t.fu * (h11 - h01)
    # Tangents of the skin: along the texture's u (sideways) and v (down the head).
    (nx, ny, nz), up, bump = normal, scene.up, scene.paint.bump
    tx, ty, tz = up[1] * nz - up[2] * ny, up[2] * nx - up[0] * nz, up[0] * ny - up[1] * nx
    return colour, (
        nx + bump * (slope_u * tx - slope_v * up[0]),
        ny + bump * (slope_u * ty - slope_v * up[1]),
        nz + bump * (slope_u * tz - slope_v * up[2]),
    )


@_compiled
def _skin(scene: Scene, p: _Point, normal: Triple, ambient: float) -> _Matter:
    """Skin with its wrinkles, lips and the inside of the mouth."""
    skin, paint = scene.skin, scene.paint
    u = _clip(_at(scene.uv, 0, p) - 0.5, 0.0, skin.shape[1] - 1.001)
    v = _clip(_at(scene.uv, 1, p) - 0.5, 0.0, skin.shape[0] - 1.001)
    t = _Texel(int(v), int(u), u - int(u), v - int(v))
    colour = _channel(skin, 0, t), _channel(skin, 1, t), _channel(skin, 2, t)
    colour, normal = _wrinkle(scene, t, colour, normal)
    lip, inside = _at(scene.attributes, LIP, p), _at(scene.attributes, INSIDE, p)
    colour = _blend(_blend(colour, paint.lip, 0.75 * lip), (0.075, 0.016, 0.016), inside)
    gloss = (_channel(skin, 3, t) + lip * paint.lip_gloss) * (1.0 - inside)
    return _Matter(colour, normal, ambient, gloss, 0.35, 0.16, 0, True)


@_compiled
def _eye(scene: Scene, p: _Point, normal: Triple) -> _Matter:
    """Eyeball with veins, iris and pupil, in the shade of the upper lid."""
    paint, gaze = scene.paint, scene.gaze
    centre = scene.left_eye if scene.local[p.a, 0] > 0.0 else scene.right_eye
    x, y, z = _three_at(scene.local, 0, p)
    x, y, z = x - centre[0], y - centre[1], z - centre[2]
    r = np.sqrt(x * x + y * y + z * z) + 1e-9
    x, y, z = x / r, y / r, z / r
    # Angles from the gaze direction: iris edge 27 degrees, pupil 9 to 14.
    angle = np.sqrt(max(2.0 - 2.0 * _dot((x, y, z), gaze), 0.0)) * 57.2958
    iris = _clip((paint.iris_angle - angle) / 2.2 + 0.5, 0.0, 1.0)
    pupil = _clip((paint.pupil_angle - angle) / 2.2 + 0.5, 0.0, 1.0)
    vein = _clip((abs(x) - 0.35) * 0.8, 0.0, 0.4)
    white = 0.72 - 0.12 * vein, 0.70 - 0.45 * vein, 0.68 - 0.45 * vein
    spoke = 0.85 + 0.3 * np.sin(23.0 * (y - gaze[1]) + 31.0 * (x - gaze[0]))
    edge = angle / paint.iris_angle
    shade = (0.55 + 0.9 * (1.0 - edge)) * spoke * (1.0 if edge < 0.85 else 0.45)
    colour = _times(_blend(white, _times(paint.iris, shade), iris), 1.0 - 0.96 * pupil)
    lid = 1.0 - _clip((y - scene.lid) * 2.3, 0.0, 0.75)
    return _Matter(_times(colour, lid), normal, 0.85, 0.55 * lid, 0.3, 0.3, 2, False)


@_compiled
def _mouth(scene: Scene, p: _Point, normal: Triple, teeth: bool) -> _Matter:
    """Teeth or tongue, the further behind the lips (z = 1.1 dm), the darker."""
    front = _clip((_at(scene.local, 2, p) - 1.1) * 2.4, 0.06, 1.0)
    if not teeth:
        colour = _times((0.32, 0.08, 0.085), front)
        return _Matter(colour, normal, 0.7, 0.05 * front, 0.4, 0.4, 1, False)
    x = _at(scene.local, 0, p) * 11.0
    front *= 0.8 if abs(x - np.floor(x) - 0.5) > 0.44 else 1.0
    colour = _times(scene.paint.teeth, front)
    return _Matter(colour, normal, 0.7, 0.12 * front, 0.4, 0.4, 2, False)


@_compiled
def _hair(scene: Scene, p: _Point, normal: Triple, ambient: float) -> _Matter:
    """Hair and beard, strand by strand."""
    strands, side = scene.strands, scene.side
    rows, columns = strands.shape
    u, v = _at(scene.hair_uv, 0, p), _at(scene.hair_uv, 1, p)
    u = (u - np.floor(u)) * (columns - 1.001)
    v = (v - np.floor(v)) * (rows - 1.001)
    j, i = int(u), int(v)
    fu, fv = u - j, v - i
    tone = (1.0 - fv) * ((1.0 - fu) * strands[i, j] + fu * strands[i, j + 1]) + fv * (
        (1.0 - fu) * strands[i + 1, j] + fu * strands[i + 1, j + 1]
    )
    # Strands shine where light, strand and view agree; the strand runs down the surface.
    lean = (tone - 1.0) * 0.35
    normal = normal[0] + lean * side[0], normal[1] + lean * side[1], normal[2]
    gloss = scene.paint.hair_gloss * tone
    return _Matter(_times(scene.paint.hair, tone), normal, ambient, gloss, 0.25, 0.25, 0, True)


@_compiled
def _thing(scene: Scene, p: _Point, normal: Triple, ambient: float, cloth: bool) -> _Matter:
    """Cloth with its weave, or a prop: eyeglasses, a mask, a hand."""
    colour, paint = _three_at(scene.attributes, RED, p), scene.paint
    if cloth:
        weave = paint.weave * np.sin(_at(scene.local, 1, p) * paint.weave_turn)
        return _Matter(_times(colour, 1 + weave), normal, ambient, 0.0, 0.15, 0.1, 0, True)
    # Towards the third vertex the highlight fades, which breaks it up.
    gloss = p.wa * scene.attributes[p.a, LIP] + p.wb * scene.attributes[p.b, LIP]
    return _Matter(colour, normal, ambient, gloss, 0.3, 0.2, 2, True)


@_compiled
def _matter(scene: Scene, kind: int, p: _Point) -> _Matter:
    normal, ambient = _three_at(scene.normals, 0, p), _at(scene.attributes, AO, p)
    if kind == SKIN:
        return _skin(scene, p, normal, ambient)
    if kind == EYE:
        return _eye(scene, p, normal)
    if kind in (TEETH, MOUTH):
        return _mouth(scene, p, normal, kind == TEETH)
    if kind == LASH:
        return _Matter((0.022, 0.016, 0.014), normal, ambient, 0.0, 0.15, 0.1, 0, False)
    if kind == HAIR:
        return _hair(scene, p, normal, ambient)
    return _thing(scene, p, normal, ambient, kind == CLOTH)


@_compiled
def _shadow(shadow_map: np.ndarray, place: Triple) -> float:
    """Share of light that arrives, from a tent filter over the depth map."""
    x, y, z = place
    size = shadow_map.shape[0]
    i, j = int(np.floor(y - 0.5)), int(np.floor(x - 0.5))
    if i < 1 or j < 1 or i >= size - 3 or j >= size - 3:
        return 1.0
    fx, fy = x - 0.5 - j, y - 0.5 - i
    total = 0.0
    for di in range(-1, 3):
        wy = (1.0 - fy) if di == -1 else (fy if di == 2 else 1.0)
        for dj in range(-1, 3):
            wx = (1.0 - fx) if dj == -1 else (fx if dj == 2 else 1.0)
            over = (shadow_map[i + di, j + dj] - z - 0.05) * 12.0
            total += wx * wy * (1.0 - _clip(over, 0.0, 1.0))
    return total / 9.0


@_compiled
def _light(matter: _Matter, lit: float, lights: Lighting) -> Triple:
    """Return the linear colour of a place, `lit` being the share of key light that arrives."""
    nx, ny, nz = matter.normal
    length = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9
    normal = nx / length, ny / length, nz / length
    red, rest = matter.wrap_red, matter.wrap_rest
    facing = _dot(normal, lights.key)
    key_red = max((facing + red) / (1.0 + red), 0.0) * (0.12 * (red > 0.3) + lit)
    key_rest = max((facing + rest) / (1.0 + rest), 0.0) * lit
    fill = max(_dot(normal, lights.fill) + 0.2, 0.0) * matter.ambient
    sky = matter.ambient * (0.78 + 0.22 * normal[1])
    shine = max(_dot(normal, lights.half), 0.0)
    for _ in range((3, 4, 6)[matter.tight]):  # to the power of 8, 16 or 64
        shine *= shine
    shine *= matter.gloss * lit
    colour, key = matter.colour, lights.key_colour
    other, above = lights.fill_colour, lights.sky_colour
    return (
        colour[0] * (key[0] * key_red + other[0] * fill + above[0] * sky) + shine * key[0],
        colour[1] * (key[1] * key_rest + other[1] * fill + above[1] * sky) + shine * key[1],
        colour[2] * (key[2] * key_rest + other[2] * fill + above[2] * sky) + shine * key[2],
    )


@_compiled
def _shade(scene: Scene, t: int, x: float, y: float) -> Triple:
    """Return the linear colour of triangle t seen at image point (x, y)."""
    p = _locate(scene, t, x, y)
    matter = _matter(scene, scene.material[t], p)
    lit = 0.9
    if matter.shadowed:
        lit = _shadow(scene.shadow_map, _three_at(scene.light_space, 0, p))
    return _light(matter, lit, scene.lights)


@_compiled
def _smooth(hits: np.ndarray, depth: np.ndarray, material: np.ndarray, i: int, j: int) -> bool:
    """Whether the four samples from (i, j) on lie on one smooth surface."""
    kind = material[hits[i, j]] if hits[i, j] >= 0 else LASH
    for di in range(2):
        for dj in range(2):
            t = hits[i + di, j + dj]
            if t < 0 or material[t] != kind:
                return False
    falling, rising = (
        depth[i, j] - depth[i + 1, j + 1],
        depth[i, j + 1] - depth[i + 1, j],
    )
    return kind in (SKIN, CLOTH) and abs(falling) < 0.004 and abs(rising) < 0.004


@_compiled
def _edge(scene: Scene, hits: np.ndarray, i: int, j: int, behind: Triple) -> Triple:
    """Return the mean colour of the four samples from (i, j) on."""
    red, green, blue = 0.0, 0.0, 0.0
    for y in range(i, i + 2):
        for x in range(j, j + 2):
            t, colour = hits[y, x], behind
            if t >= 0:
                colour = _shade(scene, t, x + 0.5, y + 0.5)
                # A highlight far beyond white must not win the average of an edge.
                colour = min(colour[0], 1.5), min(colour[1], 1.5), min(colour[2], 1.5)
            red, green, blue = red + colour[0], green + colour[1], blue + colour[2]
    return red / 4, green / 4, blue / 4


@_compiled
def shade_image(scene: Scene, hits: np.ndarray, depth: np.ndarray, picture: np.ndarray) -> None:
    """Paint a rasterised view over a background.

    Args:
        scene: What was rasterised.
        hits: (S, S) triangle of each sample or -1.
        depth: (S, S) nearness of each sample.
        picture: (S/2, S/2, 3) linear light: the background before, the picture after.
    """
    for i in range(picture.shape[0]):
        for j in range(picture.shape[1]):
            y, x = 2 * i, 2 * j
            if max(hits[y, x], hits[y, x + 1], hits[y + 1, x], hits[y + 1, x + 1]) < 0:
                continue
            if _smooth(hits, depth, scene.material, y, x):
                colour = _shade(scene, hits[y, x], x + 1.0, y + 1.0)
            else:
                behind = picture[i, j, 0], picture[i, j, 1], picture[i, j, 2]
                colour = _edge(scene, hits, y, x, behind)
            picture[i, j, 0], picture[i, j, 1], picture[i, j, 2] = colour
