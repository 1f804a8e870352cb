"""The head model: MakeHuman's mesh with 52 face shapes and the identity shapes, all CC0.

Coordinates are the source's: decimetres, x to the subject's left, y up, z to the front. Eyes lie at
about (+-0.31, 7.28, 1.25), chin at y 6.2, crown at y 8.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from siamcal.errors import DataNotFoundError
from siamcal.files import asset

#: Part numbers of vertices, as scripts/build_face_mesh.py writes them.
PARTS = {
    "skin": 0,
    "left_eye": 1,
    "right_eye": 2,
    "upper_teeth": 3,
    "lower_teeth": 4,
    "tongue": 5,
    "lashes": 6,
    "hair_guide": 7,
}

#: A sparse displacement: vertex numbers (n,) and moves (n, 3) in decimetres.
Shape = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class HeadMesh:
    """The asset, unpacked.

    Attributes:
        base: (V, 3) float64 vertices of the mean head.
        triangles: (T, 3) int32, counter-clockwise seen from outside.
        part: (V,) uint8, a number of :data:`PARTS`.
        masks: Vertex weights in [0, 1] of lips, inside-mouth, eyelids, ears.
        actions: The 52 face shapes by ARKit name.
        identities: Identity shapes by ``folder/name``.
    """

    base: np.ndarray
    triangles: np.ndarray
    part: np.ndarray
    masks: dict[str, np.ndarray]
    actions: dict[str, Shape]
    identities: dict[str, Shape]

    def morph(self, weights: dict[str, float]) -> np.ndarray:
        """Return vertices (V, 3) of the base moved along the named identity shapes."""
        vertices = self.base.copy()
        for name, weight in weights.items():
            rows, moves = self.identities[name]
            vertices[rows] += weight * moves
        return vertices

    def combine(self, weights: dict[str, float]) -> np.ndarray:
        """Return the dense displacement (V, 3) of a weighted sum of face shapes."""
        total = np.zeros_like(self.base)
        for name, weight in weights.items():
            rows, moves = self.actions[name]
            total[rows] += weight * moves
        return total


def _unpack(data: dict[str, np.ndarray], prefix: str) -> dict[str, Shape]:
    index = data[f"{prefix}_index"].astype(np.int64)
    value = data[f"{prefix}_value"].astype(np.float64) / 1000.0
    pointer = data[f"{prefix}_pointer"]
    names = [str(name) for name in data[f"{prefix}_names"]]
    return {
        name: (index[pointer[k] : pointer[k + 1]], value[pointer[k] : pointer[k + 1]])
        for k, name in enumerate(names)
    }


@lru_cache(maxsize=1)
def load_mesh() -> HeadMesh:
    """Read ``siamcal/assets/face_mesh.npz`` once a process.

    Raises:
        DataNotFoundError: The package was installed without its assets.
    """
    path = asset("face_mesh.npz")
    try:
        with np.load(path) as archive:
            data = {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise DataNotFoundError(
            f"{path} can't be read ({error}); make it again with scripts/build_face_mesh.py."
        ) from error
    return HeadMesh(
        base=data["base"].astype(np.float64) / 1e4,
        triangles=data["triangles"].astype(np.int32),
        part=data["part"],
        masks={k[5:]: data[k].astype(np.float64) / 255 for k in data if k.startswith("mask_")},
        actions=_unpack(data, "action"),
        identities=_unpack(data, "identity"),
    )
