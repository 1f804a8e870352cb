"""Hands before a face, by MediaPipe's palm detector and hand landmark network.

After MediaPipe's `palm_detection_cpu.pbtxt`, `palm_detection_detection_to_roi.pbtxt` and
`hand_landmark_cpu.pbtxt` (Google, Apache-2.0), whose numbers are taken over. The palm detector also
answers to eyes, cheeks and collars; the second network tells whether there is a hand, and where its
fingers are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from siamcal.faces._litert import Network
from siamcal.faces.blazeface import Detection, anchors, merged

__all__ = ["LEAST_ODDS", "REACHES", "HandFinder", "PalmDetector", "around_face", "hand_strength"]

# The palm detector looks at a square of so many heights of the face around it. Hands are found in
# both, what else looks like a palm mostly in one of them.
REACHES = (2.5, 3.0)
# Odds are logarithms. A window shows at least these; where the mean of both is higher than the
# second, a hand is said to be there. Of 808 rendered faces that no figure is reported on, bare and
# acting, 2 reach it, less what their references show.
LEAST_ODDS, ENOUGH_ODDS = -3.0, -0.7
PALM_SIDE, HAND_SIDE = 192, 224  # of the networks' inputs, pixels
# Cells a side of each of the palm detector's grids -> boxes predicted in each cell.
GRIDS = {24: 2, 12: 6}
MIN_PALM = 0.3  # MediaPipe's .5, whose next network isn't asked about scores below
SAME_PALM = 0.3
MOST_PALMS = 2
WRIST, MIDDLE = 0, 2  # of a palm's seven points: the wrist, the middle finger's root
# The hand's square around a palm: in sides of its box, moved by so much of it towards the fingers.
HAND_SIZE, HAND_SHIFT = 2.6, 0.5
KEPT_SIDE = 320  # pixels
# Palms farther from the face than this, in sides of their box, can't touch it.
FARTHEST = 1.5
# Palms are about .45 of a face's height. Smaller ones are mostly cheeks and eyes: each hundredth
# that they lack takes a fifth off the odds.
LEAST_PALM, SMALLNESS = 0.38, 20.0


class PalmDetector:
    """Palms in a window. It belongs to one thread at a time.

    Raises:
        MissingDependencyError: LiteRT isn't installed.
    """

    def __init__(self) -> None:
        self._network = Network("palm_detection_lite.tflite")
        self._anchors = anchors(GRIDS)

    def __call__(self, window: np.ndarray, least: float = MIN_PALM) -> list[Detection]:
        """The palms, the surest first.

        Args:
            window: (192, 192, 3) uint8.
            least: Of the scores.
        """
        coordinates, logits = self._network(window[None], 1 / 255)
        scores = 1 / (1 + np.exp(-np.clip(logits[0, :, 0], -100, 100)))  # (2016,)
        found = np.flatnonzero(scores >= least)
        places = coordinates[0, found].reshape(-1, 9, 2) / PALM_SIDE  # centre, size, seven points
        places[:, 0] += self._anchors[found]
        places[:, 2:] += self._anchors[found, None]
        return merged(places.astype(np.float64) * PALM_SIDE, scores[found], SAME_PALM)


class HandFinder:
    """Looks for hands before faces. It belongs to one thread at a time.

    Raises:
        MissingDependencyError: LiteRT isn't installed.
    """

    def __init__(self) -> None:
        self._palms = PalmDetector()
        self._hand = Network("hand_landmark_lite.tflite")

    def __call__(self, rgb: np.ndarray, landmarks: np.ndarray, reach: float) -> float:
        """The odds that a hand covers some of a face, from `LEAST_ODDS` on, for `hand_strength`.

        Args:
            rgb: (H, W, 3) uint8, the whole frame.
            landmarks: (478, 2 or more) of the face in it, pixels.
            reach: One of `REACHES`.
        """
        points = landmarks[:, :2]
        low, high = points.min(0), points.max(0)
        height = max(float((high - low).max()), 1.0)
        scale = PALM_SIDE / (reach * height)
        matrix = np.array([[scale, 0, 0], [0, scale, 0]])
        matrix[:, 2] = PALM_SIDE / 2 - scale * (low + high) / 2
        palms = self._palms(cv2.warpAffine(rgb, matrix, (PALM_SIDE, PALM_SIDE)))
        outline = cv2.convexHull(points.astype(np.float32))
        found = [LEAST_ODDS]
        for palm in palms[:MOST_PALMS]:
            corners = (palm.corners.reshape(2, 2) - matrix[:, 2]) / scale
            ends = (palm.points[[WRIST, MIDDLE]] - matrix[:, 2]) / scale
            side = float((corners[1] - corners[0]).max())
            away = -cv2.pointPolygonTest(outline, corners.mean(0).tolist(), True)
            if away < FARTHEST * side:
                hand = self._covers(rgb, outline, corners.mean(0), side, ends)
                small = max(LEAST_PALM - side / height, 0.0)
                found.append(_odds(palm.score) + _odds(hand) - SMALLNESS * small)
        return max(found)

    def _covers(
        self,
        rgb: np.ndarray,
        outline: np.ndarray,
        centre: np.ndarray,
        side: float,
        ends: np.ndarray,
    ) -> float:
        """How surely a palm belongs to a hand, in [0, 1]; 0 where none of it lies on the face."""
        x, y = ends[1] - ends[0]
        along = np.array([x, y]) / max(float(np.hypot(x, y)), 1e-6)  # from the wrist to the fingers
        middle = centre + HAND_SHIFT * side * along
        scale = HAND_SIDE / (HAND_SIZE * side)
        turn = scale * np.array([[-along[1], along[0]], [-along[0], -along[1]]])  # fingers up
        matrix = np.column_stack([turn, HAND_SIDE / 2 - turn @ middle])
        crop = cv2.warpAffine(rgb, matrix, (HAND_SIDE, HAND_SIDE))
        points, presence, *_ = self._hand(crop[None], 1 / 255)
        back = cv2.invertAffineTransform(matrix)
        hand = points.reshape(21, 3)[:, :2] @ back[:, :2].T + back[:, 2]
        covers = any(cv2.pointPolygonTest(outline, p, False) >= 0 for p in hand.tolist())
        return float(presence[0, 0]) if covers else 0.0


def around_face(rgb: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What of a frame a `HandFinder` looks at, for a look later; large faces reduced.

    Args:
        rgb: (H, W, 3) uint8, the whole frame.
        landmarks: (478, 3) of the face in it.

    Returns:
        (S, S, 3) uint8 with S at most 320, and the landmarks in it, (478, 3).
    """
    low, high = landmarks[:, :2].min(0), landmarks[:, :2].max(0)
    side = max(float(max(REACHES) * (high - low).max()), 1.0)
    scale = min(KEPT_SIDE / side, 1.0)
    shift = scale * (side / 2 - (low + high) / 2)
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    kept = cv2.warpAffine(rgb, matrix, (math.ceil(scale * side),) * 2, flags=flags)
    return kept, (landmarks * scale + (*shift, 0)).astype(np.float32)


def hand_strength(odds: Sequence[float]) -> float:
    """How strongly a hand shows, from 0 to 2; from 1 on it covers some of the face.

    Args:
        odds: Of a `HandFinder`, in each of `REACHES`.
    """
    return float(2 / (1 + np.exp(ENOUGH_ODDS - np.mean(odds))))


def _odds(probability: float) -> float:
    probability = min(max(probability, 1e-3), 1 - 1e-3)
    return math.log(probability / (1 - probability))
