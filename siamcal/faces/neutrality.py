"""Is this frame fit to be a person's neutral reference? Expression, eyes, pose, occlusion."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from siamcal.errors import ConfigError
from siamcal.faces.detection import Face, FaceDetector

__all__ = ["ReferenceJudgement", "expression", "judge_reference"]

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
_EYES_SHUT = 0.6
_MAX_TURN = 20.0  # degrees of yaw; a farther turned reference hides half of the face
_MAX_NOD = 25.0  # degrees of pitch; the mesh's own zero is uncertain by about 8
_MIN_EYE_DISTANCE = 28.0  # pixels between the outer eye corners
# A covered mouth or eye has no edges where the mesh says lips or lids are (mean gradient relative
# to the whole face; about 1.1 and 2.0 on an open face, under .1 under a hand), and the mirrored
# picture gets other landmarks (farthest of five pairs over the eye distance; about .02, with a hand
# .08 to .2).
_LEAST_MOUTH_EDGES = 0.3
_LEAST_EYE_EDGES = 0.6
_MOST_MIRROR_SHIFT = 0.07
_MOUTH = (61, 291, 0, 17)
_LEFT_EYE, _RIGHT_EYE = (33, 133, 159, 145), (263, 362, 386, 374)
_FACE = (10, 152, 234, 454)
_MIRRORED = ((61, 291), (33, 263), (133, 362), (105, 334), (58, 288))


@dataclass(frozen=True)
class ReferenceJudgement:
    """How well a face serves as a neutral reference.

    Attributes:
        score: 0 is ideal; from 1 on something is wrong. Serves to rank frames.
        problems: What is wrong, in words; empty for a sound reference.
    """

    score: float
    problems: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether nothing was found wrong."""
        return not self.problems


def judge_reference(rgb: np.ndarray, face: Face, detector: FaceDetector) -> ReferenceJudgement:
    """Judge a face as a neutral reference frame.

    Expression and eyes are read from MediaPipe's blendshape network, which was trained on other
    data than any calibrator here; occlusion from missing edges at mouth and eyes and from landmarks
    that move when the picture is mirrored.

    Args:
        rgb: (H, W, 3) uint8, the whole frame.
        face: The face in it, detected with its details.
        detector: Reads the mirrored frame.

    Raises:
        ConfigError: The face was detected without details: nothing tells its expression.
    """
    if not face.blendshapes:
        raise ConfigError(
            "A reference is judged by its expression, but the face was detected with "
            "details=False. Detect it again with details=True."
        )
    parts = [
        _expression(face),
        _eyes(face),
        _pose(face),
        _resolution(face),
        _occlusion(rgb, face, detector),
    ]
    score = sum(min(part, 3.0) for part, _ in parts)
    return ReferenceJudgement(float(score), tuple(text for _, text in parts if text))


def expression(face: Face) -> np.ndarray:
    """How strongly each action shows, in units of the least that is no longer rest: (16,) float.

    The last entry is the blink. A person's own level at rest may differ from 0: compare frames.
    """
    shapes = [(name, least) for name, (least, _) in _AT_REST.items()] + [("eyeBlink", _EYES_SHUT)]
    return np.array([_strongest(face, name) / least for name, least in shapes])


def _strongest(face: Face, name: str) -> float:
    return max(face.blendshapes.get(name + side, 0.0) for side in ("", "Left", "Right"))


def _expression(face: Face) -> tuple[float, str]:
    over = dict(zip(_AT_REST, expression(face), strict=False))
    # The mean also tells two neutral frames apart.
    score = float(max(over.values()) * 0.5 + np.mean(list(over.values())))
    shown = sorted((n for n in over if over[n] > 1), key=lambda n: -over[n])[:3]
    if not shown:
        return min(score, 0.99), ""
    words = ", ".join(f"{_AT_REST[n][1]} ({n} {_strongest(face, n):.2f})" for n in shown)
    return max(score, 1.0), f"the face isn't at rest: {words}"


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
    distance = float(np.linalg.norm(face.landmarks[33] - face.landmarks[263]))
    if distance >= _MIN_EYE_DISTANCE:
        return 0.0, ""
    return 1.0, f"the face is small ({distance:.0f} pixels from eye corner to eye corner)"


def _occlusion(rgb: np.ndarray, face: Face, detector: FaceDetector) -> tuple[float, str]:
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    whole = max(_edges(grey, face, _FACE), 1e-6)
    covered = [
        name
        for name, points, least in (
            ("mouth", _MOUTH, _LEAST_MOUTH_EDGES),
            ("left eye", _LEFT_EYE, _LEAST_EYE_EDGES),
            ("right eye", _RIGHT_EYE, _LEAST_EYE_EDGES),
        )
        if _edges(grey, face, points) / whole < least
    ]
    if covered:
        return 2.0, f"something seems to cover the {' and the '.join(covered)} (in the picture)"
    shift = _mirror_shift(rgb, face, detector)
    if shift > _MOST_MIRROR_SHIFT:
        return 1.5, f"something seems to cover a part of the face (landmarks differ by {shift:.2f})"
    return 0.5 * shift / _MOST_MIRROR_SHIFT, ""


def _edges(grey: np.ndarray, face: Face, points: tuple[int, ...]) -> float:
    """Mean gradient of the box around some landmarks."""
    places = face.landmarks[list(points), :2]
    left, top = np.maximum(np.floor(places.min(0)).astype(int) - 2, 0)
    right, bottom = np.ceil(places.max(0)).astype(int) + 3
    box = grey[top:bottom, left:right]
    if min(box.shape) < 3:
        return 0.0
    return float(
        np.hypot(cv2.Sobel(box, cv2.CV_32F, 1, 0), cv2.Sobel(box, cv2.CV_32F, 0, 1)).mean()
    )


def _mirror_shift(rgb: np.ndarray, face: Face, detector: FaceDetector) -> float:
    other = detector.mirrored(rgb, face)
    if other is None:
        return 1.0
    points = other.landmarks[:, :2] * (-1, 1) + (rgb.shape[1] - 1, 0)
    distance = max(float(np.linalg.norm(face.landmarks[33] - face.landmarks[263])), 1.0)
    return max(
        float(np.linalg.norm(face.landmarks[a, :2] - points[b])) / distance for a, b in _MIRRORED
    )
