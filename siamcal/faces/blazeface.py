"""BlazeFace, short range: boxes and key points of the faces in a picture.

After MediaPipe's `face_detector_graph.cc`, `tensors_to_detections_calculator.cc` and
`non_max_suppression_calculator.cc` (Google, Apache-2.0), whose numbers are taken over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from siamcal.faces._litert import Network
from siamcal.faces.boxes import LARGEST, Box, overlap

__all__ = ["MIN_SCORE", "BlazeFace", "Detection", "anchors", "merged"]

# Boxes that score less are no faces.
MIN_SCORE = 0.5
# Boxes that share more than this of their union are averaged into one.
SAME_BOX = 0.3
SIDE = 128  # of the network's input, pixels
# Cells a side of each of the network's two grids -> boxes predicted in each cell.
GRIDS = {16: 2, 8: 6}
EYES = (0, 1)  # of the six key points: the eye at the left of the picture, that at the right


@dataclass(frozen=True, eq=False)
class Detection:
    """One face as BlazeFace gives it, or one palm as the palm detector does.

    Attributes:
        corners: (left, top, right, bottom) in pixels of the picture, not rounded.
        points: (K, 2) key points in pixels; of a face six: both eyes, nose, mouth, both ears.
        score: In [0, 1].
    """

    corners: np.ndarray
    points: np.ndarray
    score: float

    def box(self, height: int, width: int) -> Box:
        """In whole pixels, with its corner and its sides cut to the picture's, as MediaPipe's."""
        left, top, right, bottom = self.corners
        size = (right - left, bottom - top)
        return Box(
            min(max(int(left), 0), width),
            min(max(int(top), 0), height),
            min(int(size[0]), width),
            min(int(size[1]), height),
            self.score,
        )


class BlazeFace:
    """The detector, ready for single pictures."""

    def __init__(self) -> None:
        self._network = Network("face_detector.tflite")
        self._anchors = anchors(GRIDS)

    def __call__(self, rgb: np.ndarray, same_box: float = SAME_BOX) -> list[Detection]:
        """The faces in `rgb`, (H, W, 3) uint8, the surest first.

        Args:
            rgb: The picture; it is reduced to 128 x 128 with black at two sides, and of one that is
                longer than `LARGEST` every second or third pixel is read.
            same_box: Boxes that share more than this of their union are one face.
        """
        step = -(-max(rgb.shape) // LARGEST)
        if step > 1:
            rgb = np.ascontiguousarray(rgb[::step, ::step])
        height, width = rgb.shape[:2]
        side = max(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        small = cv2.remap(rgb, *_sampling(left, top, side), cv2.INTER_LINEAR)
        coordinates, logits = self._network(small[None], 1 / 127.5, -1)
        scores = 1 / (1 + np.exp(-np.clip(logits[0, :, 0], -80, 80)))  # (896,)
        found = np.flatnonzero(scores >= MIN_SCORE)
        places = coordinates[0, found].reshape(-1, 8, 2) / SIDE  # centre, size, six points
        places[:, 0] += self._anchors[found]
        places[:, 2:] += self._anchors[found, None]
        places = places.astype(np.float64) * side
        places[:, [0, *range(2, 8)]] += (left, top)
        return merged(places * step, scores[found], same_box)


def _sampling(left: float, top: float, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the network's pixels lie in the picture, as `cv2.remap` takes it.

    To a 32nd of a pixel, as in the OpenCV inside MediaPipe: newer ones are finer, by which boxes
    move, and with a box of a pixel more all landmarks.
    """
    steps = np.arange(SIDE) * (side / SIDE)
    x, y = (np.rint(32 * (start + steps)).astype(np.int32) for start in (left, top))
    whole = np.empty((SIDE, SIDE, 2), np.int16)
    whole[..., 0], whole[..., 1] = x >> 5, (y >> 5)[:, None]
    return whole, ((y & 31)[:, None] * 32 + (x & 31)).astype(np.uint16)


def anchors(grids: Mapping[int, int]) -> np.ndarray:
    """Centres of a network's predictions as shares of the input's side, (N, 2).

    Args:
        grids: Cells a side of each grid -> boxes predicted in each cell.
    """
    centres = []
    for cells, count in grids.items():
        middle = (np.arange(cells, dtype=np.float32) + 0.5) / cells
        x, y = np.meshgrid(middle, middle)
        centres.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), count, axis=0))
    return np.concatenate(centres)


def merged(places: np.ndarray, scores: np.ndarray, same_box: float) -> list[Detection]:
    """Boxes of one face or palm are averaged, weighted by their scores (`WEIGHTED` in MediaPipe).

    Args:
        places: (N, 2 + K, 2) centre, size, key points.
        scores: (N,)
        same_box: Least share of the union.
    """
    half = places[:, 1] / 2
    corners = np.concatenate([places[:, 0] - half, places[:, 0] + half], axis=1)  # (N, 4)
    sized = np.column_stack([corners[:, :2], places[:, 1], scores])
    boxes = [Box(*map(float, row)) for row in sized]
    left = sorted((i for i, box in enumerate(boxes) if box.width >= 0), key=lambda i: -scores[i])
    found = []
    while left:
        best = boxes[left[0]]
        same = [i for i in left if overlap(boxes[i], best) > same_box] or left[:1]
        weights = scores[same] / scores[same].sum()
        found.append(
            Detection(
                weights @ corners[same], np.tensordot(weights, places[same, 2:], 1), best.score
            )
        )
        left = [i for i in left if i not in same]
    return found
