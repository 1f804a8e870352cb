"""Is this frame fit to be a person's neutral reference? Expression, eyes, pose, occlusion."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from siamcal.errors import ConfigError
from siamcal.faces.detection import Face, FaceDetector
from siamcal.faces.measures import FaceMeasures, measure_face
from siamcal.faces.quality import covering

__all__ = [
    "ReferenceJudgement",
    "action_words",
    "brow_problem",
    "expression",
    "judge_candidate",
    "judge_reference",
]

# Coefficients of MediaPipe's blendshape network from which on a face is no longer at rest. They are
# high where the network already answers to resting faces (brows, eyelids); pucker is left out: it
# reaches .95 on lips at rest.
_AT_REST = {
    "browDown": (0.55, "lowered brows"),
    "browInnerUp": (0.65, "raised inner brows"),
    "browOuterUp": (0.60, "raised outer brows"),
    "cheekPuff": (0.40, "puffed cheeks"),
    "eyeWide": (0.45, "wide eyes"),
    "jawOpen": (0.12, "an open mouth"),
    "mouthDimple": (0.45, "dimples"),
    "mouthFrown": (0.40, "lowered mouth corners"),
    "mouthFunnel": (0.35, "funnelled lips"),
    "mouthLowerDown": (0.35, "a lowered lower lip"),
    "mouthShrugLower": (0.55, "a raised chin"),
    "mouthSmile": (0.30, "a smile"),
    "mouthStretch": (0.40, "a stretched mouth"),
    "mouthUpperUp": (0.30, "a raised upper lip"),
    "noseSneer": (0.40, "a wrinkled nose"),
}
# People differ in these at rest: within a recording of one person they say nothing by themselves.
_BROWS = ("browDown", "browInnerUp", "browOuterUp")
_EYES_SHUT = 0.6
_MAX_TURN = 20.0  # degrees of yaw; a farther turned reference hides half of the face
_MAX_NOD = 25.0  # degrees of pitch; the mesh's own zero is uncertain by about 8
_MIN_EYE_DISTANCE = 28.0  # pixels between the outer eye corners
# So far a recording may show its person aside, small or cut off throughout: then the reference has
# to, too.
_FILMED_TURN, _FILMED_EYE_DISTANCE = 1.5, 20.0  # of the limits of turn and nod; pixels
_FILMED_OUTSIDE = 0.3  # distances of the outer eye corners: less than brows or chin
# The mirrored picture gets other landmarks where something covers the face (farthest of five pairs
# over the eye distance; about .02, with a hand .08 to .2).
_MOST_MIRROR_SHIFT = 0.07
# As `covering` names them.
_HAND = "a hand before the face"
_PARTS = {"something before the face": "face", _HAND: "face"}
_MIRRORED = ((61, 291), (33, 263), (133, 362), (105, 334), (58, 288))


@dataclass(frozen=True)
class ReferenceJudgement:
    """How well a face serves as a neutral reference.

    Attributes:
        score: 0 is ideal; from 1 on something is wrong. Serves to rank frames.
        problems: What is wrong, in words; empty for a sound reference.
        filmed: Those of them that may lie in how the person was filmed, such as a camera at the
            side or far away. They rank a frame behind others, but rule none out by themselves.
    """

    score: float
    problems: tuple[str, ...] = ()
    filmed: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether nothing was found wrong."""
        return not self.problems


def judge_reference(
    rgb: np.ndarray, face: Face, detector: FaceDetector, seen: FaceMeasures | None = None
) -> ReferenceJudgement:
    """Judge a face as a neutral reference frame.

    Expression and eyes are read from MediaPipe's blendshape network, which was trained on other
    data than any calibrator here; occlusion from edges and colours (`siamcal.faces.quality`), and
    from landmarks that move when the picture is mirrored.

    Args:
        rgb: (H, W, 3) uint8, the whole frame.
        face: The face in it, detected with its details.
        detector: Reads the mirrored frame, and looks for hands.
        seen: The face's measures with such a look, where they are known already.

    Raises:
        ConfigError: The face was detected without details: nothing tells its expression.
    """
    if not face.blendshapes:
        raise ConfigError(
            "A reference is judged by its expression, but the face was detected with "
            "details=False. Detect it again with details=True."
        )
    seen = seen or measure_face(rgb, face, detector.hand(rgb, face))
    cover = _cover(seen)
    if not cover[1] and not seen.cut_off:
        cover = _mirrored(rgb, face, detector)
    pose, size = _pose(face), _resolution(face)
    picture = _cut(seen), _colour(seen)
    return _judgement(_expression(face), _eyes(face), pose, size, *picture, cover)


def judge_candidate(
    face: Face, seen: FaceMeasures, asymmetry: tuple[float, float]
) -> ReferenceJudgement:
    """Judge one of many frames of a recording, without the brows and the mirrored picture.

    High or low brows may be the person's own; which it is the other frames tell.

    Args:
        face: The face.
        seen: Its measures.
        asymmetry: The person's own, as far as the recording tells.
    """
    rest = _expression(face, leave_out=_BROWS)
    cover = _cover(seen, replace(seen, asymmetry=asymmetry, hand=0.0))
    dark = (1.5, "the face is too dark") if seen.dark else (0.0, "")
    pose, size = _pose(face), _resolution(face)
    aside = pose[0] <= _FILMED_TURN
    far = _eye_distance(face) >= _FILMED_EYE_DISTANCE
    cut, colour = _cut(seen), _colour(seen)
    little = seen.outside <= _FILMED_OUTSIDE
    shown = ((pose, aside), (size, far), (cut, little), (colour, True))
    filmed = [text for (_, text), so in shown if text and so]
    judgement = _judgement(rest, _eyes(face), pose, size, cut, colour, cover, dark)
    return replace(judgement, filmed=tuple(filmed))


def brow_problem(face: Face) -> str:
    """What `judge_candidate` left out, in words; "" where the brows are as most people's."""
    others = [name for name in _AT_REST if name not in _BROWS]
    return _expression(face, leave_out=others)[1]


def _judgement(*parts: tuple[float, str]) -> ReferenceJudgement:
    score = sum(min(part, 3.0) for part, _ in parts)
    return ReferenceJudgement(float(score), tuple(text for _, text in parts if text))


def expression(face: Face) -> np.ndarray:
    """How strongly each action shows, in units of the least that is no longer rest: (16,) float.

    The last entry is the blink. A person's own level at rest may differ from 0: compare frames.
    """
    shapes = [(name, least) for name, (least, _) in _AT_REST.items()] + [("eyeBlink", _EYES_SHUT)]
    return np.array([_strongest(face, name) / least for name, least in shapes])


def action_words(place: int) -> str:
    """What an entry of `expression` shows, like "a smile"."""
    return [*(words for _, words in _AT_REST.values()), "closing eyes"][place]


def _strongest(face: Face, name: str) -> float:
    return max(face.blendshapes.get(name + side, 0.0) for side in ("", "Left", "Right"))


def _expression(face: Face, leave_out: Collection[str] = ()) -> tuple[float, str]:
    over = dict(zip(_AT_REST, expression(face), strict=False))
    over = {name: value for name, value in over.items() if name not in leave_out}
    # The mean also tells two neutral frames apart.
    score = float(max(over.values()) * 0.5 + np.mean(list(over.values())))
    shown = sorted((n for n in over if over[n] > 1), key=lambda n: -over[n])[:3]
    if not shown:
        return min(score, 0.99), ""
    words = ", ".join(f"{_AT_REST[n][1]} ({n} {_strongest(face, n):.2f})" for n in shown)
    return max(score, 1.0), f"the face isn't at rest: {words}"


def _cut(seen: FaceMeasures) -> tuple[float, str]:
    return (2.0, "the face is cut off by the picture's edge") if seen.cut_off else (0.0, "")


def _colour(seen: FaceMeasures) -> tuple[float, str]:
    if not seen.blue:
        return 0.0, ""
    return 1.5, "the skin is blue: RGB is read, and red and blue may be swapped"


def _eyes(face: Face) -> tuple[float, str]:
    blink = _strongest(face, "eyeBlink")
    if blink <= _EYES_SHUT:
        return 0.5 * blink, ""
    return 1 + blink, f"the eyes are shut or nearly so (eyeBlink {blink:.2f})"


def _pose(face: Face) -> tuple[float, str]:
    yaw, pitch, _ = face.pose
    worst = max(abs(yaw) / _MAX_TURN, abs(pitch) / _MAX_NOD)
    if worst <= 1:
        return 0.3 * worst, ""
    return worst, f"the head is turned (yaw {yaw:.0f}, pitch {pitch:.0f} degrees)"


def _resolution(face: Face) -> tuple[float, str]:
    distance = _eye_distance(face)
    if distance >= _MIN_EYE_DISTANCE:
        return 0.0, ""
    return 1.0, f"the face is small ({distance:.0f} pixels from eye corner to eye corner)"


def _eye_distance(face: Face) -> float:
    return float(np.linalg.norm(face.landmarks[33] - face.landmarks[263]))


def _cover(seen: FaceMeasures, own: FaceMeasures | None = None) -> tuple[float, str]:
    shown = covering(seen, own)
    covered = [name.removeprefix("covered ") for name, value in shown.items() if value > 1]
    if not covered:
        return 0.3 * max(shown.values()), ""
    names = " and the ".join(dict.fromkeys(_PARTS.get(name, name) for name in covered))
    hand = "a hand, " if _HAND in covered else ""
    return 2.0, f"something seems to cover the {names} ({hand}in the picture)"


def _mirrored(rgb: np.ndarray, face: Face, detector: FaceDetector) -> tuple[float, str]:
    shift = _mirror_shift(rgb, face, detector)
    if shift > _MOST_MIRROR_SHIFT:
        return 1.5, f"something seems to cover a part of the face (landmarks differ by {shift:.2f})"
    return 0.5 * shift / _MOST_MIRROR_SHIFT, ""


def _mirror_shift(rgb: np.ndarray, face: Face, detector: FaceDetector) -> float:
    other = detector.mirrored(rgb, face)
    if other is None:
        return 1.0
    points = other.landmarks[:, :2] * (-1, 1) + (rgb.shape[1] - 1, 0)
    distance = max(_eye_distance(face), 1.0)
    return max(
        float(np.linalg.norm(face.landmarks[a, :2] - points[b])) / distance for a, b in _MIRRORED
    )
