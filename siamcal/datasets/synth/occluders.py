"""Partial occlusion: fingers before the face, hair across an eye, a face mask."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from siamcal.datasets.synth import props
from siamcal.datasets.synth.mesh import load_mesh
from siamcal.datasets.synth.person import Person, build_person
from siamcal.datasets.synth.skin import skin_albedo
from siamcal.datasets.synth.texture import linear

__all__ = ["KINDS", "Covering", "cover"]

KINDS = ("fingers", "hair", "mask")


@dataclass(frozen=True)
class Covering:
    """A covered person and what covers them."""

    person: Person
    kind: str


def _mask(rng: np.random.Generator, person: Person) -> props.Prop:
    """Return a surgical mask that stands off nose and chin."""
    mesh = load_mesh()
    base, points = mesh.base, person.neutral
    edge = 7.02 - 0.35 * np.abs(base[:, 0])
    low = 6.14
    member = (mesh.part == 0) & (base[:, 1] < edge) & (base[:, 1] > low) & (base[:, 2] > 0.55)
    member &= np.abs(base[:, 0]) < 0.72
    member &= mesh.masks["inside-mouth"] < 0.5
    keep = member[mesh.triangles].all(1)
    vertices, local = np.unique(mesh.triangles[keep], return_inverse=True)
    place = points[vertices].copy()
    inside = np.minimum((edge - base[:, 1])[vertices] / 0.15, (base[:, 1] - low)[vertices] / 0.2)
    # Cloth doesn't follow every fold: it spans the mouth as a smooth bulge.
    bulge = 0.14 * np.clip(inside, 0, 1) * np.exp(-((place[:, 0] / 0.5) ** 4))
    height = (place[:, 1] - 6.6) / 0.5
    smooth = 1.62 - 0.55 * place[:, 0] ** 2 - 0.12 * height**2
    place[:, 2] = np.maximum(place[:, 2] + 0.04, 0.35 * place[:, 2] + 0.65 * smooth) + bulge * 0.4
    colour = linear(((168, 200, 222), (235, 238, 240), (40, 42, 46))[int(rng.integers(3))])
    count = len(vertices)
    return props.Prop(
        place, local.reshape(-1, 3).astype(np.int32), np.tile(colour, (count, 1)), np.zeros(count)
    )


def cover(person: Person, kind: str, rng: np.random.Generator) -> Covering:
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
    return Covering(build_person(dataclasses.replace(person.traits), extra), kind)
