"""A face from frame to frame in one run of the landmark network, which also gives its features.

Found anew, a face takes the network twice: in a region around BlazeFace's box for its landmarks,
and in the calibrator's crop, which these place. Between two frames of a video a face hardly moves:
the crop is placed by the frame before, and the same run gives landmarks and features. Whether there
are other faces is looked up ten times a second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from siamcal.faces import Face, FacePipeline
from siamcal.faces.alignment import Placement, from_crop, rigid_placement, wide_crop_at
from siamcal.faces.boxes import Box, overlap
from siamcal.faces.face_mesh import MIN_PRESENCE
from siamcal.faces.media.frames import Frame
from siamcal.inference.landmark_pass import SIDE, LandmarkPass, LandmarkRun
from siamcal.preprocessing import Preprocessing

__all__ = ["FaceFollower", "Followed"]

# A crop is taken as it is up to this far from where its own landmarks place it: eye distances,
# factor of size, radians. Off by 2 % or 1 degree, readings of two real clips differed by .01 to
# .04 on average.
NEAR, ALIKE, LEVEL = 0.025, 1.025, math.radians(1.5)
# A face that lies farther away than this is found anew; so is one whose box has left the last one.
FAR, UNLIKE, TILTED = 0.3, 1.3, math.radians(15)
SAME_BOX = 0.5
# Seconds until the frame is searched for faces again: each third frame of 25 to 30 a second.
LOOK_AGAIN = 0.1
_ROUNDING = 1e-3  # of timestamps


class Followed(NamedTuple):
    """A lone face that was followed.

    Attributes:
        face: Where it lies, without its expression.
        run: What the landmark network told of it.
        looked: Whether the frame was searched for faces; else box and score are those of the last
            search, the box moved along.
    """

    face: Face
    run: LandmarkRun
    looked: bool


class FaceFollower:
    """Follows the lone face of a video.

    Args:
        pipeline: What else finds the face; its crops must be the landmark network's input.
        known: The network, used by nobody else meanwhile.
    """

    def __init__(self, pipeline: FacePipeline, known: LandmarkPass) -> None:
        self._detector, self._known = pipeline.detector, known
        self._last: list[tuple[int, Placement]] = []  # of the last two frames
        self._box, self._looked = Box(0, 0, 0, 0), 0.0

    @staticmethod
    def fits(pipeline: FacePipeline) -> bool:
        """Whether crops of a pipeline are taken as they are."""
        own = pipeline.preprocessing
        plain = Preprocessing(SIDE, "rigid_refined", contrast="none", mask="none")
        plain = replace(plain, detection=own.detection)
        return own == plain and pipeline.detector.engine == "litert"

    def take(self, frame: Frame, faces: Sequence[Face]) -> None:
        """Go on from what was found anew in a frame: only a lone face is followed."""
        self._last = []
        if len(faces) == 1:
            (face,) = faces
            self._last = [(frame.index, rigid_placement(face.landmarks))]
            self._box, self._looked = Box(*face.box, face.score), frame.timestamp

    def __call__(self, frame: Frame) -> Followed | None:
        """The face in the next frame; None where it has to be found anew."""
        if not self._last or frame.rgb is None:
            return None
        expected = self._expected(frame.index)
        found = self._find(frame.rgb, expected)
        if found is None:
            return None
        landmarks, run = found
        place = rigid_placement(landmarks)
        box = _moved(self._box, self._last[-1][1], place)
        # A face that isn't where it was expected may be another one: after a cut.
        near = _within(place, expected, NEAR, ALIKE, LEVEL)
        looked = not near or not 0 < frame.timestamp - self._looked < LOOK_AGAIN - _ROUNDING
        if looked:
            boxes = self._detector.boxes(frame.rgb)
            if len(boxes) != 1 or overlap(boxes[0], box) < SAME_BOX:
                return None
            box, self._looked = boxes[0], frame.timestamp
        self._last = [*self._last[-1:], (frame.index, place)]
        self._box = box
        return Followed(self._detector.described(landmarks, box, expression=False), run, looked)

    def _find(self, rgb: np.ndarray, place: Placement) -> tuple[np.ndarray, LandmarkRun] | None:
        """Landmarks of a face near a place, and the run on the crop there."""
        for _ in range(2):
            crop, matrix = wide_crop_at(rgb, place, SIDE)
            run = self._known.run(crop)
            if run.presence < MIN_PRESENCE:
                return None
            landmarks = from_crop(run.points, matrix)
            found = rigid_placement(landmarks)
            if _within(found, place, NEAR, ALIKE, LEVEL):
                break
            if not _within(found, place, FAR, UNLIKE, TILTED):
                return None
            place = found
        return landmarks, run

    def _expected(self, index: int) -> Placement:
        """Half as far on as it went between the last two frames."""
        before, last = self._last[0], self._last[-1]
        if index - last[0] != last[0] - before[0]:
            return last[1]
        centre = 1.5 * np.array(last[1].centre) - 0.5 * np.array(before[1].centre)
        return Placement((float(centre[0]), float(centre[1])), last[1].angle, last[1].eye_distance)


def _moved(box: Box, before: Placement, now: Placement) -> Box:
    """A box that moves and grows with its face."""
    grown = now.eye_distance / before.eye_distance
    left = now.centre[0] + grown * (box.left - before.centre[0])
    top = now.centre[1] + grown * (box.top - before.centre[1])
    return Box(left, top, grown * box.width, grown * box.height, box.score)


def _within(found: Placement, place: Placement, away: float, grown: float, turned: float) -> bool:
    """Whether two places of a face differ by no more than this."""
    distance = math.dist(found.centre, place.centre) / found.eye_distance
    ratio = abs(math.log(found.eye_distance / place.eye_distance))
    angle = abs((found.angle - place.angle + math.pi) % (2 * math.pi) - math.pi)
    return distance <= away and ratio <= math.log(grown) and angle <= turned
