"""One picture of one person: state in, 8-bit sRGB out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from siamcal.errors import ConfigError
from siamcal.files import make_folder
from siamcal.synth.actions import AUS, NUISANCES, action_shapes, nuisance_shapes
from siamcal.synth.optics import add_chroma_noise, balance, bend
from siamcal.synth.person import Person
from siamcal.synth.raster import add_shapes, depth_map, project, rasterise, vertex_normals
from siamcal.synth.scene import Camera, Light, Sensor, rotation
from siamcal.synth.shading import HAIR, LASH, Lighting, Scene, Triple, shade_image, triple
from siamcal.synth.wrinkles import WRINKLE_AUS, wrinkle_depth

__all__ = ["Face", "encode_picture", "expose", "render", "write_png"]

_FACE_HEIGHT = 1.85  # chin to hairline of the mean head, decimetres
_NECK = np.array([0.0, 6.1, 0.25])
_AIM = np.array([0.0, 7.12, 1.0])
_SHADOW_SIZE, _SHADOW_SCALE = 176, 44.0

_STEPS = 4096
_ENCODE = np.arange(_STEPS + 1) / _STEPS
_ENCODE = np.where(_ENCODE <= 0.0031308, 12.92 * _ENCODE, 1.055 * _ENCODE ** (1 / 2.4) - 0.055)
_ENCODE = (255 * _ENCODE).astype(np.float32)


@dataclass(frozen=True)
class Face:
    """State of a face in one frame.

    Attributes:
        intensity: (12,) AU intensities 0-5, continuous.
        yaw: Turn of the head in radians, positive to the subject's left; likewise pitch, roll.
        pitch: Positive looks down.
        roll: Tilt.
        gaze: Turn of the eyes in radians (sideways, up), relative to the head.
        blink: 0 open to 1 closed.
        nuisance: Strength of unlabelled movements by name of
            :data:`siamcal.synth.actions.NUISANCES`.
    """

    intensity: np.ndarray
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    gaze: tuple[float, float] = (0.0, 0.0)
    blink: float = 0.0
    nuisance: dict[str, float] = field(default_factory=dict)

    @classmethod
    def alone(cls, au: int, level: float) -> Face:
        """Return a face at rest but for one AU at this intensity."""
        return cls(np.where(np.array(AUS) == au, level, 0.0))


def _mesh(person: Person, face: Face) -> np.ndarray:
    """Return all vertices (V, 3) in head space."""
    share = np.clip(face.intensity, 0, 5) / 5 * person.traits.gain * person.reach
    mesh = add_shapes(person.neutral, action_shapes(), share)
    weights = np.zeros(len(NUISANCES))
    for name, weight in face.nuisance.items():
        weights[NUISANCES.index(name)] += weight
    for au, others in person.traits.companions.items():
        level = np.clip(face.intensity[AUS.index(au)], 0, 5) / 5
        for name, weight in others.items():
            weights[NUISANCES.index(name)] += level * weight
    weights[NUISANCES.index("blink_left")] += face.blink * person.blink_gain[0]
    weights[NUISANCES.index("blink_right")] += face.blink * person.blink_gain[1]
    up = face.gaze[1]
    weights[NUISANCES.index("look_up" if up > 0 else "look_down")] += min(abs(up) / 0.45, 1.0)
    mesh = add_shapes(mesh, nuisance_shapes(), weights)
    return np.concatenate([mesh, mesh[person.shell] + person.shell_move, person.props])


def _place(person: Person, points: np.ndarray, face: Face, view: np.ndarray) -> tuple:
    """Turn head and chest; returns camera-space points (V, 3) and the head's matrix."""
    head = view @ rotation(face.yaw, face.pitch, face.roll)
    chest = view @ rotation(0.25 * face.yaw, 0.1 * face.pitch, 0.1 * face.roll)
    pivoted = points - _NECK
    bend = person.bend[:, None]
    turned = bend * (pivoted @ head.T) + (1 - bend) * (pivoted @ chest.T)
    aim = (_AIM - _NECK) @ view.T
    return np.ascontiguousarray(turned - aim), head


def _lights(light: Light, view: np.ndarray) -> Lighting:
    def direction(azimuth: float, elevation: float) -> np.ndarray:
        flat = np.cos(elevation)
        return view @ np.array([np.sin(azimuth) * flat, np.sin(elevation), np.cos(azimuth) * flat])

    key = direction(light.azimuth, light.elevation)
    half = key + np.array([0, 0, 1.0])
    tint = np.array([1 + 0.5 * light.warmth, 1.0, 1 - light.warmth])
    return Lighting(
        key=triple(key),
        fill=triple(direction(-0.8 * np.sign(light.azimuth or 1.0) - 0.3 * light.azimuth, 0.15)),
        half=triple(half / np.linalg.norm(half)),
        key_colour=triple(light.key * tint),
        fill_colour=triple(light.fill * (0.5 + 0.5 * tint[::-1])),
        sky_colour=triple(light.sky * (0.6 + 0.4 * tint[::-1])),
    )


def _shadows(points: np.ndarray, person: Person, key: Triple) -> tuple:
    """Return the shadow map and every vertex's texel and depth in it (V, 3)."""
    side = np.cross([0.0, 1.0, 0.02], key)
    side /= np.linalg.norm(side)
    basis = np.stack([side, np.cross(key, side), key], 1)
    local = np.ascontiguousarray(points @ basis)
    seen = depth_map(local, person.triangles, person.shadowless, _SHADOW_SIZE, _SHADOW_SCALE)
    middle = _SHADOW_SIZE / 2
    return seen, np.stack(
        [middle + local[:, 0] * _SHADOW_SCALE, middle - local[:, 1] * _SHADOW_SCALE, local[:, 2]], 1
    )


def _wrinkles(person: Person, intensity: np.ndarray) -> np.ndarray:
    strength = 0.45 + 0.55 * person.traits.age
    act = dict(zip(AUS, np.clip(intensity, 0, 5) / 5, strict=True))
    weights = {au: person.traits.permanent[au] + strength * float(act[au]) for au in WRINKLE_AUS}
    return wrinkle_depth(person.wrinkles, weights)


def render(
    person: Person, face: Face, light: Light, camera: Camera, background: np.ndarray
) -> np.ndarray:
    """Render one frame.

    Args:
        person: From :func:`siamcal.synth.person.build_person`.
        face: Expression, pose, gaze.
        light: Light of this moment.
        camera: Camera of the clip.
        background: Linear light (S, S, 3) float32; its size is the picture's.

    Returns:
        Linear light (S, S, 3) float32, anti-aliased; :func:`expose` makes 8-bit sRGB of it.
    """
    size = background.shape[0]
    view = rotation(camera.yaw, camera.pitch, 0.0)
    local = _mesh(person, face)
    points, head = _place(person, local, face, view)
    xy, near = project(
        points,
        2 * size * camera.face_share / _FACE_HEIGHT,
        camera.distance,
        size * (1 + 2 * camera.shift[0]),
        size * (1 + 2 * camera.shift[1]),
    )
    hits = np.full((2 * size, 2 * size), -1, np.int32)
    depth = np.zeros((2 * size, 2 * size), np.float32)
    rasterise(
        xy,
        near,
        person.triangles,
        person.material,
        HAIR,
        LASH,
        person.uv,
        person.coverage,
        hits,
        depth,
    )
    lights = _lights(light, view)
    shadow_map, light_space = _shadows(points, person, lights.key)
    gaze = np.array([np.sin(face.gaze[0]), np.sin(face.gaze[1]), 1.0])
    scene = Scene(
        triangles=person.triangles,
        material=person.material,
        xy=xy,
        normals=vertex_normals(points, person.triangles),
        local=local,
        light_space=light_space,
        uv=person.uv,
        hair_uv=person.hair_uv,
        attributes=person.attributes,
        skin=person.skin,
        wrinkles=_wrinkles(person, face.intensity),
        strands=person.strands,
        shadow_map=shadow_map,
        paint=person.paint,
        lights=lights,
        up=triple(head[:, 1]),
        side=triple(head[:, 0]),
        left_eye=triple(person.eye_centres[0]),
        right_eye=triple(person.eye_centres[1]),
        gaze=triple(gaze / np.linalg.norm(gaze)),
        lid=float(0.1 + 0.5 * face.gaze[1] - 0.35 * face.blink),
    )
    picture = background.copy()
    shade_image(scene, hits, depth, picture)
    return picture


def expose(picture: np.ndarray, sensor: Sensor, rng: np.random.Generator | None) -> np.ndarray:
    """Turn linear light (S, S, 3) into 8-bit sRGB as lens and sensor see it."""
    if sensor.blur > 0.05:
        picture = cv2.GaussianBlur(picture, (0, 0), sensor.blur)
    picture = balance(picture, sensor)
    position = np.clip(picture * np.float32(sensor.exposure), 0, 1) * np.float32(_STEPS)
    grey = bend(_ENCODE[(position + np.float32(0.5)).astype(np.int32)], sensor.gamma)
    if rng is not None and sensor.noise > 0:
        grey = grey + np.float32(sensor.noise) * rng.standard_normal(grey.shape, np.float32)
    if rng is not None:
        grey = add_chroma_noise(grey, sensor.chroma, rng)
    return np.clip(grey + np.float32(0.5), 0, 255).astype(np.uint8)


def encode_picture(picture: np.ndarray, suffix: str, *how: int) -> bytes:
    """Return an RGB picture (H, W, 3) as the file of a suffix such as ".png".

    Args:
        picture: The picture.
        suffix: Names the format.
        *how: OpenCV's flags and their values; for ".jpg" the quality, 0-100, alone.

    Raises:
        ConfigError: OpenCV can't write it.
    """
    flags = [cv2.IMWRITE_JPEG_QUALITY, *how] if suffix == ".jpg" else how
    ok, data = cv2.imencode(suffix, picture[..., ::-1], flags)
    if not ok:
        raise ConfigError(f"A picture of shape {picture.shape} can't be written as {suffix}.")
    return bytes(data)


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write an RGB picture (H, W, 3) as PNG.

    Raises:
        ConfigError: The file can't be written there.
    """
    make_folder(path.parent)
    path.write_bytes(encode_picture(picture, ".png", cv2.IMWRITE_PNG_COMPRESSION, 9))
