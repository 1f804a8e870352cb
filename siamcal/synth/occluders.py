"""Partial occlusion: fingers before the face, hair across an eye, a face mask."""

from __future__ import annotations

import cv2
import numpy as np

from siamcal.synth import props
from siamcal.synth.mesh import load_mesh
from siamcal.synth.person import Person, build_person
from siamcal.synth.skin import skin_albedo
from siamcal.synth.texture import linear

KINDS = ("fingers", "hair", "mask")


def _mask(rng: np.random.Generator, person: Person) -> props.Prop:
    """Return a surgical mask: a grid that spans nose, mouth, chin and beard, not their folds."""
    skin = person.neutral[load_mesh().part == 0]
    skin = skin[skin[:, 2] > 0.3]
    beard = person.neutral[person.shell] + person.shell_move
    beard = beard[(beard[:, 1] > 6.2) & (beard[:, 2] > 0.3)]
    rows, columns = 15, 25
    down, across = np.mgrid[0 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    top = 7.02 + rng.uniform(-0.05, 0.05)
    bottom = float(skin[np.abs(skin[:, 0]) < 0.1][:, 1].min()) if len(skin) else 6.1
    bottom = max(bottom, 6.12) - 0.02
    y = top + (bottom - top) * down - 0.12 * np.abs(across) ** 2 * (1 - 2 * down)
    x = across * (0.66 - 0.22 * down**2)
    skin = np.concatenate([skin, beard])
    distance = (x[..., None] - skin[:, 0]) ** 2 + (y[..., None] - skin[:, 1]) ** 2
    z = np.where(distance < 0.11**2, skin[:, 2], -9.0).max(2)  # (rows, columns)
    nearest = skin[distance.argmin(2), 2]
    z = np.where(z < -1, nearest, z).astype(np.float32)
    z = cv2.GaussianBlur(z, (0, 0), 1.3, borderType=cv2.BORDER_REPLICATE) + 0.07
    pleats = 0.012 * np.sin(down * 40) * (1 - np.abs(across))
    points = np.stack([x, y, z + pleats], 2).reshape(-1, 3)
    colour = linear(((168, 200, 222), (232, 235, 238), (40, 42, 46))[int(rng.integers(3))])
    return props.join([(points, props.grid_triangles(rows, columns))], colour, 0.0)


def cover(person: Person, kind: str, rng: np.random.Generator) -> Person:
    """Return the person with something before the face.

    Args:
        person: The uncovered person.
        kind: One of :data:`KINDS`.
        rng: Decides colour and place.
    """
    points = person.neutral
    front = points[(load_mesh().part == 0) & (np.abs(points[:, 0]) < 0.5)]
    if kind == "mask":
        extra = _mask(rng, person)
    elif kind == "hair":
        side = 1.0 if rng.random() < 0.5 else -1.0
        extra = props.lock_of_hair(
            rng, linear(np.array(person.traits.hair_srgb)), np.array([side * 0.28, 7.5, 1.5])
        )
    else:
        at = np.array([rng.uniform(-0.3, 0.3), rng.uniform(6.4, 7.4), 0.0])
        near = front[np.argsort(np.hypot(front[:, 0] - at[0], front[:, 1] - at[1]))[:20]]
        at[2] = near[:, 2].max() - 0.1
        albedo = skin_albedo(person.traits.skin_tone, person.traits.redness)
        extra = props.fingers(rng, albedo, at)
    return build_person(person.traits, extra)
