"""The compiled shader: one colour a pixel, four where an edge runs through it.

Colours are linear light until :func:`resolve` writes 8-bit sRGB. A pixel whose four samples hit the
same smooth surface is shaded once, at its centre; the others are shaded at each sample and
averaged, which is what anti-aliases silhouettes, eyelids and lips.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["CLOTH", "EYE", "HAIR", "LASH", "MOUTH", "PROP", "SKIN", "TEETH", "shade_image"]

SKIN, EYE, TEETH, MOUTH, LASH, HAIR, PROP, CLOTH = 0, 1, 2, 3, 4, 5, 6, 7

# Columns of the vertex attributes A: occlusion, lip, inside of the mouth, and a colour (props).
AO, LIP, INSIDE, RED, GREEN, BLUE = 0, 1, 2, 3, 4, 5


@njit(cache=True, inline="always")
def _shadow(shadow_map: np.ndarray, x: float, y: float, z: float, bias: float) -> float:
    """Share of light that arrives, from a tent filter over the depth map."""
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
            over = (shadow_map[i + di, j + dj] - z - bias) * 12.0
            total += wx * wy * (1.0 - min(max(over, 0.0), 1.0))
    return total / 9.0


@njit(cache=True, inline="always")
def _shade(
    t: int,
    px: float,
    py: float,
    xy: np.ndarray,
    triangles: np.ndarray,
    material: np.ndarray,
    normals: np.ndarray,
    local: np.ndarray,
    light_space: np.ndarray,
    uv: np.ndarray,
    attributes: np.ndarray,
    skin: np.ndarray,
    wrinkles: np.ndarray,
    strands: np.ndarray,
    hair_uv: np.ndarray,
    shadow_map: np.ndarray,
    frame: np.ndarray,
    colours: np.ndarray,
    eyes: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write the linear colour of triangle t seen at image point (px, py) into out[0:3]."""
    ia, ib, ic = triangles[t, 0], triangles[t, 1], triangles[t, 2]
    ax, ay = xy[ia, 0], xy[ia, 1]
    bx, by = xy[ib, 0], xy[ib, 1]
    cx, cy = xy[ic, 0], xy[ic, 1]
    inverse = 1.0 / ((bx - ax) * (cy - ay) - (by - ay) * (cx - ax))
    wa = ((bx - px) * (cy - py) - (by - py) * (cx - px)) * inverse
    wb = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) * inverse
    # A pixel's centre can lie just outside the triangle that covers one of its samples.
    wa = min(max(wa, 0.0), 1.0)
    wb = min(max(wb, 0.0), 1.0 - wa)
    wc = 1.0 - wa - wb
    kind = material[t]

    nx = wa * normals[ia, 0] + wb * normals[ib, 0] + wc * normals[ic, 0]
    ny = wa * normals[ia, 1] + wb * normals[ib, 1] + wc * normals[ic, 1]
    nz = wa * normals[ia, 2] + wb * normals[ib, 2] + wc * normals[ic, 2]
    ao = wa * attributes[ia, AO] + wb * attributes[ib, AO] + wc * attributes[ic, AO]
    sx = wa * light_space[ia, 0] + wb * light_space[ib, 0] + wc * light_space[ic, 0]
    sy = wa * light_space[ia, 1] + wb * light_space[ib, 1] + wc * light_space[ic, 1]
    sz = wa * light_space[ia, 2] + wb * light_space[ib, 2] + wc * light_space[ic, 2]

    red, green, blue = 0.0, 0.0, 0.0
    gloss, wrap_red, wrap_rest, tight, shadowed = 0.0, 0.15, 0.1, 0, True

    if kind == SKIN:
        u = wa * uv[ia, 0] + wb * uv[ib, 0] + wc * uv[ic, 0] - 0.5
        v = wa * uv[ia, 1] + wb * uv[ib, 1] + wc * uv[ic, 1] - 0.5
        u = min(max(u, 0.0), skin.shape[1] - 1.001)
        v = min(max(v, 0.0), skin.shape[0] - 1.001)
        j, i = int(u), int(v)
        fu, fv = u - j, v - i
        w00, w01 = (1.0 - fu) * (1.0 - fv), fu * (1.0 - fv)
        w10, w11 = (1.0 - fu) * fv, fu * fv
        red = (
            w00 * skin[i, j, 0]
            + w01 * skin[i, j + 1, 0]
            + w10 * skin[i + 1, j, 0]
            + w11 * skin[i + 1, j + 1, 0]
        )
        green = (
            w00 * skin[i, j, 1]
            + w01 * skin[i, j + 1, 1]
            + w10 * skin[i + 1, j, 1]
            + w11 * skin[i + 1, j + 1, 1]
        )
        blue = (
            w00 * skin[i, j, 2]
            + w01 * skin[i, j + 1, 2]
            + w10 * skin[i + 1, j, 2]
            + w11 * skin[i + 1, j + 1, 2]
        )
        gloss = (
            w00 * skin[i, j, 3]
            + w01 * skin[i, j + 1, 3]
            + w10 * skin[i + 1, j, 3]
            + w11 * skin[i + 1, j + 1, 3]
        )
        h00, h01 = wrinkles[i, j], wrinkles[i, j + 1]
        h10, h11 = wrinkles[i + 1, j], wrinkles[i + 1, j + 1]
        if h00 + h01 + h10 + h11 > 0.001:
            depth = w00 * h00 + w01 * h01 + w10 * h10 + w11 * h11
            dark = 1.0 - 0.42 * min(depth, 1.0)
            red *= 1.0 - 0.30 * min(depth, 1.0)
            green *= dark
            blue *= dark
            slope_u = (1.0 - fv) * (h01 - h00) + fv * (h11 - h10)
            slope_v = (1.0 - fu) * (h10 - h00) + fu * (h11 - h01)
            # Tangents of the skin: along the texture's u (sideways) and v (down the head).
            tx = frame[4, 1] * nz - frame[4, 2] * ny
            ty = frame[4, 2] * nx - frame[4, 0] * nz
            tz = frame[4, 0] * ny - frame[4, 1] * nx
            bump = colours[7, 0]
            nx += bump * (slope_u * tx - slope_v * frame[4, 0])
            ny += bump * (slope_u * ty - slope_v * frame[4, 1])
            nz += bump * (slope_u * tz - slope_v * frame[4, 2])
        lip = wa * attributes[ia, LIP] + wb * attributes[ib, LIP] + wc * attributes[ic, LIP]
        inside = (
            wa * attributes[ia, INSIDE] + wb * attributes[ib, INSIDE] + wc * attributes[ic, INSIDE]
        )
        k = 0.75 * lip
        red += k * (colours[0, 0] - red)
        green += k * (colours[0, 1] - green)
        blue += k * (colours[0, 2] - blue)
        gloss += lip * colours[7, 1]
        red += inside * (0.075 - red)
        green += inside * (0.016 - green)
        blue += inside * (0.016 - blue)
        gloss *= 1.0 - inside
        wrap_red, wrap_rest, tight = 0.35, 0.16, 0
    elif kind == EYE:
        side = 0 if local[ia, 0] > 0.0 else 1
        x = wa * local[ia, 0] + wb * local[ib, 0] + wc * local[ic, 0] - eyes[side, 0]
        y = wa * local[ia, 1] + wb * local[ib, 1] + wc * local[ic, 1] - eyes[side, 1]
        z = wa * local[ia, 2] + wb * local[ib, 2] + wc * local[ic, 2] - eyes[side, 2]
        r = np.sqrt(x * x + y * y + z * z) + 1e-9
        x, y, z = x / r, y / r, z / r
        cosine = x * eyes[side, 3] + y * eyes[side, 4] + z * eyes[side, 5]
        # Angles from the gaze direction: iris edge 27 degrees, pupil 9 to 14.
        angle = np.sqrt(max(2.0 - 2.0 * cosine, 0.0)) * 57.2958
        iris = min(max((colours[7, 2] - angle) / 2.2 + 0.5, 0.0), 1.0)
        pupil = min(max((colours[7, 3] - angle) / 2.2 + 0.5, 0.0), 1.0)
        vein = min(max((abs(x) - 0.35) * 0.8, 0.0), 0.4)
        red, green, blue = 0.72 - 0.12 * vein, 0.70 - 0.45 * vein, 0.68 - 0.45 * vein
        spoke = 0.85 + 0.3 * np.sin(23.0 * (y - eyes[side, 4]) + 31.0 * (x - eyes[side, 3]))
        edge = angle / colours[7, 2]
        shade = (0.55 + 0.9 * (1.0 - edge)) * spoke * (1.0 if edge < 0.85 else 0.45)
        red += iris * (colours[1, 0] * shade - red)
        green += iris * (colours[1, 1] * shade - green)
        blue += iris * (colours[1, 2] * shade - blue)
        red *= 1.0 - 0.96 * pupil
        green *= 1.0 - 0.96 * pupil
        blue *= 1.0 - 0.96 * pupil
        lid = 1.0 - min(max((y - eyes[side, 6]) * 2.3, 0.0), 0.75)
        red, green, blue = red * lid, green * lid, blue * lid
        ao, gloss, tight, shadowed = 0.85, 0.55 * lid, 2, False
        wrap_red = wrap_rest = 0.3
    elif kind in (TEETH, MOUTH):
        x = wa * local[ia, 0] + wb * local[ib, 0] + wc * local[ic, 0]
        y = wa * local[ia, 1] + wb * local[ib, 1] + wc * local[ic, 1]
        z = wa * local[ia, 2] + wb * local[ib, 2] + wc * local[ic, 2]
        front = min(max((z - eyes[2, 0]) * 2.4, 0.06), 1.0)
        if kind == TEETH:
            gap = abs((x * 11.0) - np.floor(x * 11.0) - 0.5)
            front *= 0.8 if gap > 0.44 else 1.0
            red, green, blue = colours[2, 0] * front, colours[2, 1] * front, colours[2, 2] * front
            gloss, tight = 0.12 * front, 2
        else:
            red, green, blue = 0.32 * front, 0.08 * front, 0.085 * front
            gloss, tight = 0.05 * front, 1
        ao, shadowed = 0.7, False
        wrap_red = wrap_rest = 0.4
    elif kind == LASH:
        red, green, blue = 0.022, 0.016, 0.014
        shadowed = False
    elif kind == HAIR:
        u = wa * hair_uv[ia, 0] + wb * hair_uv[ib, 0] + wc * hair_uv[ic, 0]
        v = wa * hair_uv[ia, 1] + wb * hair_uv[ib, 1] + wc * hair_uv[ic, 1]
        rows, columns = strands.shape
        u = (u - np.floor(u)) * (columns - 1.001)
        v = (v - np.floor(v)) * (rows - 1.001)
        j, i = int(u), int(v)
        fu, fv = u - j, v - i
        tone = (1.0 - fv) * ((1.0 - fu) * strands[i, j] + fu * strands[i, j + 1]) + fv * (
            (1.0 - fu) * strands[i + 1, j] + fu * strands[i + 1, j + 1]
        )
        red, green, blue = colours[3, 0] * tone, colours[3, 1] * tone, colours[3, 2] * tone
        # Strands shine where light, strand and view agree; the strand runs down the surface.
        lean = (tone - 1.0) * 0.35
        nx += lean * frame[5, 0]
        ny += lean * frame[5, 1]
        gloss, tight = colours[7, 4] * tone, 0
        wrap_red = wrap_rest = 0.25
    elif kind in (PROP, CLOTH):
        red = wa * attributes[ia, RED] + wb * attributes[ib, RED] + wc * attributes[ic, RED]
        green = wa * attributes[ia, GREEN] + wb * attributes[ib, GREEN] + wc * attributes[ic, GREEN]
        blue = wa * attributes[ia, BLUE] + wb * attributes[ib, BLUE] + wc * attributes[ic, BLUE]
        if kind == PROP:
            gloss, tight = wa * attributes[ia, LIP] + wb * attributes[ib, LIP], 2
            wrap_red, wrap_rest = 0.3, 0.2
        else:
            y = wa * local[ia, 1] + wb * local[ib, 1] + wc * local[ic, 1]
            weave = colours[6, 0] * np.sin(y * colours[6, 1])
            red, green, blue = red * (1 + weave), green * (1 + weave), blue * (1 + weave)

    length = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9
    nx, ny, nz = nx / length, ny / length, nz / length
    facing = nx * frame[0, 0] + ny * frame[0, 1] + nz * frame[0, 2]
    lit = _shadow(shadow_map, sx, sy, sz, 0.05) if shadowed else 0.9
    key_red = max((facing + wrap_red) / (1.0 + wrap_red), 0.0) * (0.12 * (wrap_red > 0.3) + lit)
    key_rest = max((facing + wrap_rest) / (1.0 + wrap_rest), 0.0) * lit
    fill = max(nx * frame[1, 0] + ny * frame[1, 1] + nz * frame[1, 2] + 0.2, 0.0) * ao
    sky = ao * (0.78 + 0.22 * ny)
    half = max(nx * frame[2, 0] + ny * frame[2, 1] + nz * frame[2, 2], 0.0)
    shine = half * half
    shine *= shine
    shine *= shine  # 8
    if tight >= 1:
        shine *= shine  # 16
    if tight >= 2:
        shine *= shine
        shine *= shine  # 64
    shine *= gloss * lit
    # frame[6] = key colour, frame[7] = fill colour, frame[8] = sky colour
    out[0] = red * (frame[6, 0] * key_red + frame[7, 0] * fill + frame[8, 0] * sky)
    out[1] = green * (frame[6, 1] * key_rest + frame[7, 1] * fill + frame[8, 1] * sky)
    out[2] = blue * (frame[6, 2] * key_rest + frame[7, 2] * fill + frame[8, 2] * sky)
    out[0] += shine * frame[6, 0]
    out[1] += shine * frame[6, 1]
    out[2] += shine * frame[6, 2]


@njit(cache=True)
def shade_image(
    hits: np.ndarray,
    depth: np.ndarray,
    background: np.ndarray,
    xy: np.ndarray,
    triangles: np.ndarray,
    material: np.ndarray,
    normals: np.ndarray,
    local: np.ndarray,
    light_space: np.ndarray,
    uv: np.ndarray,
    attributes: np.ndarray,
    skin: np.ndarray,
    wrinkles: np.ndarray,
    strands: np.ndarray,
    hair_uv: np.ndarray,
    shadow_map: np.ndarray,
    frame: np.ndarray,
    colours: np.ndarray,
    eyes: np.ndarray,
) -> np.ndarray:
    """Shade a rasterised view; returns linear light (S/2, S/2, 3) float32.

    Args:
        hits: (S, S) triangle of each sample or -1.
        depth: (S, S) nearness of each sample.
        background: (S/2, S/2, 3) linear light.
        xy: (V, 2) sample coordinates.
        triangles: (T, 3).
        material: (T,) uint8.
        normals: (V, 3) in camera space.
        local: (V, 3) head-space positions.
        light_space: (V, 3) texel x, texel y and depth in the shadow map.
        uv: (V, 2) skin texture coordinates in texels.
        attributes: (V, 6) occlusion, lip, inside of the mouth, colour of props.
        skin: (h, w, 4) linear albedo and gloss.
        wrinkles: (h, w) wrinkle depth of this frame.
        strands: (p, q) tone of hair strands, tiled.
        hair_uv: (V, 2) coordinates in `strands`, in tiles.
        shadow_map: (m, m) depth seen from the key light.
        frame: (9, 3) directions (key, fill, half way, -, head's up, head's side) and the colours
            of key, fill and sky light.
        colours: (8, 5) the person's material colours and constants.
        eyes: (3, 7) eye centres, gaze directions, lid height; row 2: depth of the mouth.
    """
    size = hits.shape[0] // 2
    out = np.empty((size, size, 3), np.float32)
    colour = np.empty(3)
    for i in range(size):
        for j in range(size):
            a, b = hits[2 * i, 2 * j], hits[2 * i, 2 * j + 1]
            c, d = hits[2 * i + 1, 2 * j], hits[2 * i + 1, 2 * j + 1]
            if a < 0 and b < 0 and c < 0 and d < 0:
                out[i, j, 0] = background[i, j, 0]
                out[i, j, 1] = background[i, j, 1]
                out[i, j, 2] = background[i, j, 2]
                continue
            smooth = a >= 0 and b >= 0 and c >= 0 and d >= 0
            if smooth:
                kind = material[a]
                smooth = (
                    kind == material[b]
                    and kind == material[c]
                    and kind == material[d]
                    and (kind in (SKIN, CLOTH))
                )
            if smooth:
                z = depth[2 * i, 2 * j]
                smooth = (
                    abs(z - depth[2 * i + 1, 2 * j + 1]) < 0.004
                    and abs(depth[2 * i, 2 * j + 1] - depth[2 * i + 1, 2 * j]) < 0.004
                )
            if smooth:
                _shade(
                    a,
                    2.0 * j + 1.0,
                    2.0 * i + 1.0,
                    xy,
                    triangles,
                    material,
                    normals,
                    local,
                    light_space,
                    uv,
                    attributes,
                    skin,
                    wrinkles,
                    strands,
                    hair_uv,
                    shadow_map,
                    frame,
                    colours,
                    eyes,
                    colour,
                )
                out[i, j, 0], out[i, j, 1], out[i, j, 2] = colour[0], colour[1], colour[2]
                continue
            red, green, blue = 0.0, 0.0, 0.0
            for k in range(4):
                y, x = 2 * i + k // 2, 2 * j + k % 2
                t = hits[y, x]
                if t < 0:
                    red += background[i, j, 0]
                    green += background[i, j, 1]
                    blue += background[i, j, 2]
                    continue
                _shade(
                    t,
                    x + 0.5,
                    y + 0.5,
                    xy,
                    triangles,
                    material,
                    normals,
                    local,
                    light_space,
                    uv,
                    attributes,
                    skin,
                    wrinkles,
                    strands,
                    hair_uv,
                    shadow_map,
                    frame,
                    colours,
                    eyes,
                    colour,
                )
                # A highlight far beyond white must not win the average of an edge.
                red += min(colour[0], 1.5)
                green += min(colour[1], 1.5)
                blue += min(colour[2], 1.5)
            out[i, j, 0], out[i, j, 1], out[i, j, 2] = red / 4, green / 4, blue / 4
    return out
