"""How well a face can be read: what speaks against it, against its person's reference.

Thresholds were set on rendered people (`siamcal bench quality`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from siamcal.faces.detection import Face
from siamcal.faces.measures import SYMMETRIC_YAW, FaceMeasures, eye_aspect

__all__ = ["TargetQuality", "covering", "judge_target", "narrow_eyes"]

# From here on a target's note says so.
MOST_YAW, MOST_PITCH = 30.0, 30.0  # degrees
LEAST_EYE_OPENING = 0.4  # of the reference's
CLOSED = 0.5  # of MediaPipe's blink coefficient; both must say so
LEAST_SHARPNESS = 0.7  # of the reference's
LEAST_EYE_DISTANCE = 28.0  # pixels between the outer eye corners
LEAST_MOUTH_EDGES = 0.5
LEAST_EYE_EDGES = 0.55
LEAST_EYE_LIGHT = -1.3  # logarithm; eyes deep under the brows in light from above reach -.95
MOST_EYES_DARKENED = 0.6  # of the same, against the reference's
MOST_TINT = 0.45  # logarithm of a ratio of colours, against the reference
# Of `_mouth_change`, in which light counts by so much: .64 at most in 720 sound rendered pictures;
# more in 74 to 84 % with a microphone before the mouth.
MOST_MOUTH_COLOUR, LIGHT = 0.7, 0.3
# Of `FaceMeasures.tallness`, against the reference's, of heads turned by at most so many degrees:
# more in 1 of 397 sound rendered pictures, in 74 to 91 % of those stretched by a third.
MOST_STRETCHED, STRETCH_TURN = 0.13, 20.0
# Below and above the nose, of a straight face and of one turned by SYMMETRIC_YAW.
MOST_ASYMMETRY = ((0.5, 0.25), (1.05, 0.45))
# What a person's own face has more of it than this is taken off.
USUAL_ASYMMETRY = (0.25, 0.1)
# Of `strands`, and what a person's own have more than this is taken off.
# Bare ones reach .1.
MOST_STRANDS, USUAL_STRANDS = 0.16, -0.05
# Of a head that is turned farther the far side has no strands: there lies the forehead's edge.
STRAIGHT_YAW = 10.0  # degrees
USUAL_HAND = 0.3  # a collar may look like one


@dataclass(frozen=True)
class TargetQuality:
    """What a table says of a frame's face.

    Attributes:
        yaw: As in `FaceMeasures`; likewise pitch, roll, face_size, brightness.
        eye_opening: Against the reference's: 1 is as open, 0 shut.
        occlusion: From 1 on something seems to cover a part of the face.
        sharpness: Against the reference's; below 1 is more blurred.
        notes: What speaks against the frame, in words.
    """

    yaw: float
    pitch: float
    roll: float
    eye_opening: float | None
    occlusion: float
    sharpness: float | None
    face_size: float
    brightness: float
    notes: tuple[str, ...] = ()


def judge_target(seen: FaceMeasures, reference: FaceMeasures | None) -> TargetQuality:
    """What a table says of a face that is read against a reference.

    Args:
        seen: The face's.
        reference: The reference's; None: what needs it isn't judged.
    """
    opening = sharpness = None
    if reference is not None:
        opening = seen.eye_aspect / max(reference.eye_aspect, 1e-3)
        sharpness = seen.sharpness / max(reference.sharpness, 1e-3)
    covers = covering(seen, reference)
    notes = []
    if abs(seen.yaw) > MOST_YAW or abs(seen.pitch) > MOST_PITCH:
        notes.append(f"turned head (yaw {seen.yaw:.0f}, pitch {seen.pitch:.0f} degrees)")
    if seen.blink > CLOSED and (opening is None or opening < LEAST_EYE_OPENING):
        notes.append("closed eyes")
    if seen.cut_off:
        notes.append("cut off by the picture's edge")
    if seen.blue:
        notes.append("blue skin (RGB is read: are red and blue swapped?)")
    notes += [name for name, value in covers.items() if value > 1]
    if seen.dark:
        notes.append("too dark")
    if sharpness is not None and sharpness < LEAST_SHARPNESS:
        notes.append("blurred against the reference")
    notes += _stretched(seen, reference)
    if seen.face_size < LEAST_EYE_DISTANCE:
        notes.append(f"small face ({seen.face_size:.0f} pixels between the eye corners)")
    return TargetQuality(
        seen.yaw,
        seen.pitch,
        seen.roll,
        opening,
        max(covers.values()),
        sharpness,
        seen.face_size,
        seen.brightness,
        tuple(notes),
    )


def _stretched(seen: FaceMeasures, reference: FaceMeasures | None) -> list[str]:
    """A note where the picture, or the reference's, seems to have lost its proportions."""
    if reference is None or max(abs(seen.yaw), abs(seen.pitch)) > STRETCH_TURN:
        return []
    taller = seen.tallness - reference.tallness
    if not abs(taller) > MOST_STRETCHED:  # NaN, too
        return []
    how = "taller" if taller > 0 else "wider"
    return [f"{how} than the reference by {math.expm1(abs(taller)):.0%} (is either stretched?)"]


def narrow_eyes(face: Face, reference: FaceMeasures | None) -> bool:
    """Whether a face's eyes may be closed, so that `judge_target` asks for its blink coefficient.

    Args:
        face: With or without its expression.
        reference: The reference's measures; None: nothing tells how far the eyes open.
    """
    if reference is None:
        return True
    opening = eye_aspect(face.landmarks) / max(reference.eye_aspect, 1e-3)
    return opening < LEAST_EYE_OPENING


def covering(seen: FaceMeasures, reference: FaceMeasures | None = None) -> dict[str, float]:
    """What may cover the face, in words, and how strongly it shows; from 1 on it does.

    Args:
        seen: The face's measures.
        reference: The same person's: a beard, deep-set eyes and uneven sides are no cover then.
            Without one nothing tells strands of hair from a usual fringe.
    """
    mouth = LEAST_MOUTH_EDGES / max(seen.mouth_edges, 0.05)
    eyes = LEAST_EYE_EDGES / max(min(seen.eye_edges), 0.05)
    eyes = max(eyes, seen.eye_light / LEAST_EYE_LIGHT)
    own, sides, strands, hand = np.zeros(2), 0.0, 0.0, seen.hand
    if reference is not None:
        own = np.maximum(np.subtract(reference.asymmetry, USUAL_ASYMMETRY), 0)
        eyes = max(eyes, (reference.eye_light - seen.eye_light) / MOST_EYES_DARKENED)
        hand -= max(reference.hand - USUAL_HAND, 0)
        usual = np.maximum(np.subtract(reference.strands, USUAL_STRANDS), 0)
        left, right = ((seen.strands - usual) / MOST_STRANDS).tolist()
        if abs(seen.yaw) < STRAIGHT_YAW:
            strands = max(left, right)
        else:
            strands = left if seen.yaw > 0 else right
    if reference is not None and not seen.dark:
        mouth = max(mouth, float(np.hypot(*np.subtract(seen.tint, reference.tint))) / MOST_TINT)
        if reference.mouth_colours:
            mouth = max(mouth, _mouth_change(seen, reference) / MOST_MOUTH_COLOUR)
    if seen.symmetric and not seen.dark:
        straight, turned = np.array(MOST_ASYMMETRY)
        most = straight + (turned - straight) * abs(seen.yaw) / SYMMETRIC_YAW
        sides = max(float(np.max((seen.asymmetry - own) / most)), strands)
    covers = {"covered mouth": mouth, "covered eyes": eyes, "something before the face": sides}
    return covers | {"a hand before the face": hand}


def _mouth_change(seen: FaceMeasures, reference: FaceMeasures) -> float:
    """How far the colour of the lower lip went, or those of any two parts, where it lost red.

    What covers a mouth is less red than skin and lips; the inside of an open one isn't.
    """
    change = np.subtract(seen.mouth_colours, reference.mouth_colours).reshape(-1, 3)
    far = np.linalg.norm(change * (1, LIGHT, 1), axis=1)  # (5,)
    parts = np.minimum(far, -2 * change[:, 0])
    return max(float(parts[0]), float(np.sort(parts)[-2]))
