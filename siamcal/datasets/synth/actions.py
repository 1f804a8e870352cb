"""Action units as displacements of the head mesh.

The mapping from AUs to the 52 face shapes is the one whose actions an independent blendshape
network (MediaPipe's, trained on real faces) names as the top riser. The brow shapes alone move a
brow by .04-.06 inter-ocular distances; people's brows move .08-.15, so AU 1, 2 and 4 also carry a
smooth field of their own (:func:`_brow_field`).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from siamcal.datasets.synth.mesh import HeadMesh, load_mesh

__all__ = ["AUS", "NUISANCES", "action_shapes", "nuisance_shapes"]

#: The 12 action units, in DISFA's order.
AUS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)


def _both(name: str, weight: float = 1.0) -> dict[str, float]:
    return {f"{name}Left": weight, f"{name}Right": weight}


_MAPPING: dict[int, dict[str, float]] = {
    1: {"browInnerUp": 1.0},
    2: _both("browOuterUp", 1.0),
    4: _both("browDown", 1.4) | _both("eyeSquint", -0.25) | _both("eyeWide", 0.15),
    5: _both("eyeWide", 2.1) | _both("eyeSquint", -0.4) | _both("browOuterUp", 0.08),
    6: _both("cheekSquint") | _both("eyeSquint", 0.5),
    9: _both("noseSneer", 1.7) | _both("browDown", 0.25) | _both("mouthUpperUp", 0.35),
    12: _both("mouthSmile", 1.2) | _both("mouthDimple", 0.1),
    15: _both("mouthFrown", 2.2)
    | _both("mouthDimple", 0.2)
    | _both("mouthPress", 0.3)
    | _both("mouthStretch", 0.4)
    | _both("mouthLowerDown", 0.25)
    | {"mouthRollLower": -0.4, "mouthRollUpper": 0.15, "mouthPucker": -0.3},
    17: {
        "mouthShrugLower": 1.65,
        "mouthShrugUpper": 1.65,
        "mouthRollUpper": 0.35,
        "mouthPucker": 0.15,
    }
    | _both("mouthPress", 0.25),
    20: _both("mouthStretch", 1.8) | _both("mouthSmile", 0.25),
    25: _both("mouthLowerDown", 1.5) | _both("mouthUpperUp", 1.25) | {"jawOpen": -0.03},
    26: {"jawOpen": 0.74},
}

# AU -> bumps (x, y, width, height, move sideways away from the midline, move up), decimetres.
_BROW_BUMPS: dict[int, tuple[tuple[float, ...], ...]] = {
    1: ((0.15, 7.47, 0.15, 0.15, 0.000, 0.058), (0.15, 7.62, 0.20, 0.16, 0.0, 0.019)),
    2: ((0.46, 7.47, 0.17, 0.15, 0.004, 0.058), (0.42, 7.64, 0.22, 0.16, 0.0, 0.020)),
    4: (
        (0.15, 7.46, 0.13, 0.12, -0.008, -0.014),
        (0.34, 7.46, 0.16, 0.11, -0.008, -0.024),
        (0.48, 7.45, 0.12, 0.11, -0.002, -0.006),
    ),
}

#: Movements that are no labelled AU: (name, face shapes).
_NUISANCES: dict[str, dict[str, float]] = {
    "blink_left": {"eyeBlinkLeft": 1.0},
    "blink_right": {"eyeBlinkRight": 1.0},
    "look_down": _both("eyeLookDown"),
    "look_up": _both("eyeLookUp"),
    "pucker": {"mouthPucker": 1.0},
    "funnel": {"mouthFunnel": 1.0},
    "press": _both("mouthPress"),
    "mouth_left": {"mouthLeft": 1.0},
    "mouth_right": {"mouthRight": 1.0},
    "jaw_left": {"jawLeft": 1.0},
    "jaw_right": {"jawRight": 1.0},
    "puff": {"cheekPuff": 1.0},
    "roll": {"mouthRollLower": 0.7, "mouthRollUpper": 0.7},
    "speech_jaw": {"jawOpen": 0.35},
    "speech_lips": _both("mouthLowerDown", 0.5) | _both("mouthUpperUp", 0.3),
    # AU 7 and AU 10, which only the UNBC layout labels.
    "lid_tightener": _both("eyeSquint", 1.2),
    "lip_raiser": _both("mouthUpperUp", 1.0),
}
NUISANCES = tuple(_NUISANCES)


def _brow_field(mesh: HeadMesh, au: int) -> np.ndarray:
    """Return a smooth displacement (V, 3) of the brow that slides over the skull."""
    base, moves = mesh.base, np.zeros_like(mesh.base)
    for x, y, width, height, aside, up in _BROW_BUMPS[au]:
        for side in (1.0, -1.0):
            distance = ((base[:, 0] - side * x) / width) ** 2 + ((base[:, 1] - y) / height) ** 2
            weight = np.exp(-0.5 * distance)
            moves[:, 0] += weight * side * aside
            moves[:, 1] += weight * up
    # The lids stay: the field fades out below the brow, and behind the face.
    fade = np.clip((base[:, 1] - 7.345) / 0.09, 0, 1) * np.clip((base[:, 2] - 0.85) / 0.3, 0, 1)
    fade = fade * fade * (3 - 2 * fade) * (mesh.part == 0)
    moves *= fade[:, None]
    # Sliding, not lifting: follow the forehead, which leans back as it rises.
    slope = -0.35 * np.clip((base[:, 1] - 7.5) / 0.2, 0, 1)
    moves[:, 2] += slope * moves[:, 1]
    return moves


@lru_cache(maxsize=1)
def action_shapes() -> np.ndarray:
    """Return displacements (12, V, 3) of the AUs at intensity 5, in the order of :data:`AUS`."""
    mesh = load_mesh()
    shapes = np.stack([mesh.combine(_MAPPING[au]) for au in AUS])
    for au in _BROW_BUMPS:
        shapes[AUS.index(au)] += _brow_field(mesh, au)
    return shapes


@lru_cache(maxsize=1)
def nuisance_shapes() -> np.ndarray:
    """Return displacements (len(NUISANCES), V, 3) at full strength."""
    mesh = load_mesh()
    return np.stack([mesh.combine(weights) for weights in _NUISANCES.values()])
