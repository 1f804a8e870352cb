"""478 landmarks and 52 expression coefficients of one face, from a square around it.

After MediaPipe's `face_landmarks_detector_graph.cc` and `face_blendshapes_graph.cc` (Google,
Apache-2.0), whose numbers are taken over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np

from siamcal.faces._litert import Network
from siamcal.faces.blazeface import EYES, Detection

__all__ = ["BLENDSHAPES", "Blendshapes", "FaceMesh", "Mesh"]

SIDE = 256  # of the network's input, pixels
ROOM = 1.5  # the region the network reads, in sides of BlazeFace's box
MIN_PRESENCE = 0.5  # where the network is less sure that it sees a face, there is none


@dataclass(frozen=True, eq=False)
class Mesh:
    """What an engine tells about a face in a square window.

    Attributes:
        landmarks: (478, 3) float32 in pixels of the window.
        blendshapes: 51 coefficients by name; empty without details.
        pose: (4, 4), see `siamcal.faces.head_pose.pose_matrix`; None without details.
    """

    landmarks: np.ndarray
    blendshapes: dict[str, float] = field(default_factory=dict)
    pose: np.ndarray | None = None


class FaceMesh:
    """The landmark network, ready for single faces."""

    def __init__(self) -> None:
        self._network = Network("face_landmarks_detector.tflite")

    def __call__(self, rgb: np.ndarray, detection: Detection) -> np.ndarray | None:
        """Landmarks of a detected face, (478, 3) float32 in pixels; None where there is no face.

        Args:
            rgb: (H, W, 3) uint8; beyond its edges its last pixels go on.
            detection: The face in it.
        """
        to_picture = _region(detection)
        crop = cv2.warpAffine(
            rgb,
            to_picture,
            (SIDE, SIDE),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        points, presence, *_ = self._network(crop[None], 1 / 255)
        if 1 / (1 + math.exp(-float(presence.item()))) < MIN_PRESENCE:
            return None
        landmarks = points.reshape(-1, 3).astype(np.float64)
        landmarks[:, :2] = landmarks[:, :2] @ to_picture[:, :2].T + to_picture[:, 2]
        landmarks[:, 2] *= math.hypot(*to_picture[:, 0])
        return landmarks.astype(np.float32)


def _region(detection: Detection) -> np.ndarray:
    """(2, 3): from the network's input to the picture; the box, enlarged, its eyes level."""
    corners, eyes = detection.corners, detection.points[list(EYES)]
    centre, size = (corners[:2] + corners[2:]) / 2, (corners[2:] - corners[:2]) * ROOM
    angle = math.atan2(eyes[1, 1] - eyes[0, 1], eyes[1, 0] - eyes[0, 0])
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    axes = turn * (size / SIDE)  # (2, 2): a step to the right and one down
    return np.concatenate([axes, (centre - axes @ (SIDE / 2, SIDE / 2))[:, None]], axis=1)


class Blendshapes:
    """The network that reads ARKit's coefficients from landmarks."""

    def __init__(self) -> None:
        self._network = Network("face_blendshapes.tflite")

    def __call__(self, landmarks: np.ndarray) -> dict[str, float]:
        """51 coefficients in [0, 1] by name.

        Args:
            landmarks: (478, 3) in pixels; place and size don't matter.
        """
        values = self.coefficients(landmarks)[1:]  # 0: neutral
        return dict(zip(BLENDSHAPES, map(float, values), strict=True))

    def coefficients(self, landmarks: np.ndarray) -> np.ndarray:
        """All 52 as the network gives them, (52,) float32."""
        (values,) = self._network(landmarks[None, _READ, :2])
        return values.ravel()


# fmt: off
# The landmarks that the second network reads, and what it gives beside the neutral face.
_READ = [
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66,
    67, 70, 78, 80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144,
    145, 146, 148, 149, 150, 152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173,
    176, 178, 181, 185, 191, 195, 197, 234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283, 284,
    285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318, 321, 323, 324, 332,
    334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385, 386,
    387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466, 468, 469, 470, 471, 472, 473,
    474, 475, 476, 477,
]
BLENDSHAPES = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight",
    "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft",
    "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight",
    "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose",
    "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight",
    "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower",
    "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight",
    "mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight",
)
# fmt: on
