"""Reading rendered faces with MediaPipe's blendshapes and landmarks, which know real faces only."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from siamcal.faces import FaceDetector
from siamcal.recalibration.action_units import SHAPES_OF_AU, sides_joined
from siamcal.synth.actions import AUS
from siamcal.synth.person import Person, build_person
from siamcal.synth.preview import studio_picture
from siamcal.synth.render import Face
from siamcal.synth.traits import draw_traits

__all__ = ["JUDGED", "SIZE", "check_person", "measures", "top"]

_LEVELS = (1, 2, 3, 4, 5)
JUDGED = (3, 5)
_YAWS = (-0.12, 0.0, 0.12)  # radians; every reading is the mean over them
_NOSE_WING_RISE = 0.004  # inter-ocular distances, twice MediaPipe's own jitter
SIZE = 256  # pixels


def measures(landmarks: np.ndarray) -> dict[int, float]:
    """Return one landmark measure for each AU, in inter-ocular distances.

    Args:
        landmarks: (478, 3) MediaPipe's, pixels.
    """
    left, right = landmarks[[33, 133]].mean(0)[:2], landmarks[[362, 263]].mean(0)[:2]
    across = right - left
    unit = float(np.linalg.norm(across))
    side = across / unit
    up = np.array([side[1], -side[0]])  # image y points down
    middle = (left + right) / 2
    place = (landmarks[:, :2] - middle) / unit
    x, y = place @ side, place @ up

    def height(*index: int) -> float:
        return float(y[list(index)].mean())

    lids = height(159, 386) - height(145, 374)
    corners = height(61, 291) - height(13, 14)
    return {
        1: height(55, 285, 107, 336),
        2: height(46, 276, 70, 300),
        4: height(55, 285, 107, 336),
        5: lids,
        6: lids,
        9: height(98, 327, 64, 294),
        12: corners,
        15: corners,
        17: height(2) - height(152),
        20: float(x[291] - x[61]),
        25: height(13) - height(14),
        26: height(2) - height(152),
    }


@dataclass(frozen=True)
class _Reading:
    """What MediaPipe says of a face: actions by name without side, and landmark measures."""

    actions: dict[str, float]
    places: dict[int, float]


def _look(detector: FaceDetector, person: Person, face: Face) -> _Reading | None:
    """Return the mean reading of a face over small turns of the head; None where none is found."""
    actions, places = [], []
    for yaw in _YAWS:
        turned = dataclasses.replace(face, yaw=yaw)
        found = detector.detect(studio_picture(person, turned, SIZE), max_faces=1)
        if found:
            actions.append(sides_joined(found[0].blendshapes))
            places.append(measures(found[0].landmarks))
    if not actions:
        return None
    return _Reading(
        {name: float(np.mean([a[name] for a in actions])) for name in actions[0]},
        {au: float(np.mean([p[au] for p in places])) for au in places[0]},
    )


def check_person(detector: FaceDetector, number: int, bias: float) -> dict[str, Any]:
    """Return what is measured on one person; without "actions" where the face isn't found."""
    person = build_person(draw_traits(0, number, bias))
    rest = _look(detector, person, Face.alone(1, 0))
    biased, without = (
        _look(detector, build_person(draw_traits(0, number, b)), Face.alone(1, 0))
        for b in (1.0, 0.0)
    )
    if rest is None or biased is None or without is None:
        return {"number": number, "actions": None}
    result: dict[str, Any] = {
        "number": number,
        "rest_1": {str(au): v for au, v in biased.places.items()},
        "rest_0": {str(au): v for au, v in without.places.items()},
        "actions": {},
    }
    for au in AUS:
        curve, rises, shift = [_strength(au, rest)], {}, None
        for level in _LEVELS:
            seen = _look(detector, person, Face.alone(au, level))
            if seen is None:
                curve.append(curve[-1])
                continue
            curve.append(_strength(au, seen))
            if level in JUDGED:
                rise = {name: round(v - rest.actions[name], 4) for name, v in seen.actions.items()}
                rises[str(level)] = rise | {"nose wings": round(seen.places[9] - rest.places[9], 5)}
            if level == _LEVELS[-1]:
                shift = seen.places[au] - rest.places[au]
        result["actions"][str(au)] = {"curve": curve, "rises": rises, "shift": shift}
    return result


def _strength(au: int, seen: _Reading) -> float:
    if au == 9:
        return seen.places[9]
    return float(sum(seen.actions[name] for name in SHAPES_OF_AU[au]))


def top(au: int, rises: dict[str, float] | None) -> str:
    """Return the action that rose most; for AU 9 whether the nose wings did."""
    if rises is None:
        return "no face"
    if au == 9 and rises["nose wings"] > _NOSE_WING_RISE:
        return "nose wings"
    actions = {name: value for name, value in rises.items() if name != "nose wings"}
    return max(actions, key=lambda name: actions[name])
