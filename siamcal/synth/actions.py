"""Action units as displacements of the head mesh.

The mapping from AUs to the 52 face shapes was searched for on people of
:data:`siamcal.synth.plan.TUNING_PEOPLE`: weights for which an independent blendshape
network (MediaPipe's, trained on real faces) names the action as the top riser at intensities 3 and
5 on as many faces as possible, as long as a person would call the face that action. The brow shapes
alone move a brow by .04-.06 inter-ocular distances; people's brows move .08-.15, so AU 1, 2 and 4
also carry a smooth field of their own (:func:`_brow_field`).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from siamcal.synth.mesh import HeadMesh, load_mesh

__all__ = ["AUS", "NUISANCES", "action_shapes", "nuisance_shapes"]

#: AU -> face shapes; a name without Left or Right moves both sides.
_MAPPING: dict[int, dict[str, float]] = {
    1: {
        "browInnerUp": 0.51,
        "browOuterUp": -0.09,
    },
    2: {
        "browOuterUp": 0.95,
        "eyeSquint": -0.15,
        "browInnerUp": -0.08,
        "eyeBlink": -0.05,
    },
    4: {
        "browDown": 1.58,
        "eyeWide": 0.65,
        "browOuterUp": -0.58,
        "eyeBlink": -0.33,
        "eyeLookUp": 0.22,
        "eyeLookDown": 0.19,
        "eyeSquint": -0.09,
        "browInnerUp": 0.08,
        "noseSneer": -0.08,
    },
    5: {
        "eyeWide": 2.7,
        "eyeSquint": -0.19,
        "browOuterUp": 0.06,
        "eyeLookDown": 0.06,
        "eyeLookUp": 0.05,
        "browDown": -0.09,
    },
    6: {
        "eyeSquint": 1.3,
        "cheekSquint": 0.54,
        "eyeLookUp": 0.37,
        "browOuterUp": 0.17,
        "eyeWide": 0.15,
        "browDown": -0.13,
        "browInnerUp": -0.12,
        "eyeBlink": -0.08,
        "mouthSmile": 0.06,
    },
    9: {
        "noseSneer": 1.57,
        "browDown": 0.25,
        "mouthUpperUp": 0.38,
        "eyeSquint": -0.14,
        "mouthShrugUpper": 0.22,
    },
    12: {
        "mouthSmile": 1.51,
        "mouthDimple": 0.1,
        "mouthPress": -0.11,
    },
    15: {
        "mouthFrown": 2.62,
        "mouthStretch": 0.71,
        "mouthPress": 0.69,
        "mouthPucker": -0.61,
        "mouthRollUpper": -0.5,
        "mouthLowerDown": 0.27,
        "mouthClose": -0.27,
        "mouthShrugUpper": 0.24,
        "mouthRollLower": 0.23,
        "jawOpen": -0.2,
        "mouthDimple": 0.17,
        "mouthFunnel": -0.16,
        "mouthSmile": -0.12,
        "mouthShrugLower": 0.05,
    },
    17: {
        "mouthPress": 0.48,
        "mouthFrown": 0.06,
        "mouthShrugLower": 2.04,
        "mouthShrugUpper": 1.68,
        "mouthRollUpper": 0.29,
        "mouthPucker": 0.1,
        "mouthRollLower": 0.06,
        "mouthFunnel": 0.05,
        "mouthClose": 0.11,
    },
    20: {
        "mouthStretch": 2.3,
        "mouthSmile": 0.22,
        "mouthDimple": 0.41,
        "mouthUpperUp": 0.38,
        "mouthLowerDown": 0.7,
        "mouthFrown": 0.13,
        "mouthRollLower": -0.31,
        "mouthShrugUpper": -0.05,
        "mouthRollUpper": -0.14,
        "mouthShrugLower": -0.55,
        "mouthPucker": -0.84,
        "mouthFunnel": -0.46,
    },
    25: {
        "mouthUpperUp": 1.82,
        "mouthLowerDown": 1.62,
        "mouthRollLower": 0.23,
        "mouthPucker": -0.19,
        "mouthShrugUpper": 0.19,
        "mouthRollUpper": -0.18,
        "mouthStretch": 0.18,
        "mouthClose": -0.15,
        "mouthFrown": 0.11,
        "jawOpen": 0.07,
        "mouthSmile": 0.07,
    },
    26: {
        "jawOpen": 1.29,
        "mouthRollLower": -0.42,
        "mouthSmile": -0.34,
        "mouthPucker": -0.33,
        "mouthShrugLower": 0.33,
        "mouthClose": 0.3,
        "mouthFrown": 0.25,
        "mouthShrugUpper": -0.25,
        "mouthUpperUp": -0.16,
        "mouthStretch": 0.13,
        "mouthDimple": -0.08,
        "mouthRollUpper": 0.07,
        "mouthFunnel": 0.05,
    },
}

#: The 12 action units, in DISFA's order.
AUS = tuple(_MAPPING)

# AU -> bumps (x, y, width, height, move sideways away from the midline, move up), decimetres.
_BROW_BUMPS: dict[int, tuple[tuple[float, ...], ...]] = {
    1: ((0.15, 7.47, 0.15, 0.15, 0.000, 0.058), (0.15, 7.62, 0.20, 0.16, 0.0, 0.019)),
    2: ((0.46, 7.47, 0.17, 0.15, 0.004, 0.058), (0.42, 7.64, 0.22, 0.16, 0.0, 0.020)),
    4: (
        (0.15, 7.46, 0.13, 0.12, -0.007, -0.0122),
        (0.34, 7.46, 0.16, 0.11, -0.007, -0.036),
        (0.48, 7.45, 0.12, 0.11, -0.0017, -0.014),
    ),
}

#: Movements that are no labelled AU: (name, face shapes).
_NUISANCES: dict[str, dict[str, float]] = {
    "blink_left": {"eyeBlinkLeft": 1.0},
    "blink_right": {"eyeBlinkRight": 1.0},
    "look_down": {"eyeLookDown": 1.0},
    "look_up": {"eyeLookUp": 1.0},
    "pucker": {"mouthPucker": 1.0},
    "funnel": {"mouthFunnel": 1.0},
    "press": {"mouthPress": 1.0},
    "mouth_left": {"mouthLeft": 1.0},
    "mouth_right": {"mouthRight": 1.0},
    "jaw_left": {"jawLeft": 1.0},
    "jaw_right": {"jawRight": 1.0},
    "puff": {"cheekPuff": 1.0},
    "roll": {"mouthRollLower": 0.7, "mouthRollUpper": 0.7},
    "speech_jaw": {"jawOpen": 0.35},
    "speech_lips": {"mouthLowerDown": 0.5} | {"mouthUpperUp": 0.3},
    # AU 7 and AU 10, which only the UNBC layout labels.
    "lid_tightener": {"eyeSquint": 1.2},
    "lip_raiser": {"mouthUpperUp": 1.0},
    # What goes with an action on some faces and is no label: the varied look.
    "cheeks": {"cheekSquint": 1.0},
    "sneer": {"noseSneer": 1.0},
    "dimple": {"mouthDimple": 1.0},
    "stretch": {"mouthStretch": 1.0},
    "chin": {"mouthShrugLower": 1.0},
    "eye_wide": {"eyeWide": 1.0},
}
NUISANCES = tuple(_NUISANCES)


def _displacement(mesh: HeadMesh, weights: dict[str, float]) -> np.ndarray:
    """Return the displacement (V, 3) of weighted shapes, whose names may leave the side out."""
    sided: dict[str, float] = {}
    for name, weight in weights.items():
        both = [name] if name in mesh.actions else [f"{name}Left", f"{name}Right"]
        sided |= dict.fromkeys(both, weight)
    return mesh.combine(sided)


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
    shapes = np.stack([_displacement(mesh, _MAPPING[au]) for au in AUS])
    for au in _BROW_BUMPS:
        shapes[AUS.index(au)] += _brow_field(mesh, au)
    return shapes


@lru_cache(maxsize=1)
def nuisance_shapes() -> np.ndarray:
    """Return displacements (len(NUISANCES), V, 3) at full strength."""
    mesh = load_mesh()
    return np.stack([_displacement(mesh, weights) for weights in _NUISANCES.values()])
