"""A face from frame to frame in one run of the landmark network, which also gives its features.

Found anew, a face takes the network twice: in a region around BlazeFace's box for its landmarks,
and in the calibrator's crop, which these place. Between two frames of a video a face hardly moves:
the crop is placed by the frame before, and the same run gives landmarks and features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from siamcal.faces import Face, FacePipeline
from siamcal.faces.alignment import Placement, from_crop, rigid_placement, wide_crop_at
from siamcal.faces.boxes import Box, overlap
from siamcal.faces.face_mesh import MIN_PRESENCE
from siamcal.inference.landmark_pass import SIDE, LandmarkPass, LandmarkRun
from siamcal.preprocessing import Preprocessing

__all__ = ["FaceFollower"]

# A crop is taken as it is up to this far from where its own landmarks place it: eye distances,
# factor of size, radians. Off by 2 % or 1 degree, readings of two real clips differed by .01 to
# .04 on average.
NEAR, ALIKE, LEVEL = 0.025, 1.025, math.radians(1.5)
# A face that lies farther away than this is found anew; so is one whose box has left the last one.
FAR, UNLIKE, TILTED = 0.3, 1.3, math.radians(15)
SAME_BOX = 0.5


class FaceFollower:
    """Follows the lone face of a video.

    Args:
        pipeline: What else finds the face; its crops must be the landmark network's input.
        known: The network, used by nobody else meanwhile.
    """

    def __init__(self, pipeline: FacePipeline, known: LandmarkPass) -> None:
        self._detector, self._known = pipeline.detector, known
        self._last: list[tuple[int, Placement]] = []  # of the last two frames
        self._box = Box(0, 0, 0, 0)

    @staticmethod
    def fits(pipeline: FacePipeline) -> bool:
        """Whether crops of a pipeline are taken as they are."""
        own = pipeline.preprocessing
        plain = Preprocessing(SIDE, "rigid_refined", contrast="none", mask="none")
        plain = replace(plain, detection=own.detection)
        return own == plain and pipeline.detector.engine == "litert"

    def take(self, index: int, faces: Sequence[Face]) -> None:
        """Go on from what was found anew in a frame: only a lone face is followed."""
        self._last = []
        if len(faces) == 1:
            self._last = [(index, rigid_placement(faces[0].landmarks))]
            self._box = Box(*faces[0].box)

    def __call__(self, index: int, rgb: np.ndarray) -> tuple[Face, LandmarkRun] | None:
        """The face in the next frame; None where it has to be found anew.

        Args:
            index: Of the frame.
            rgb: (H, W, 3) uint8.
        """
        if not self._last:
            return None
        boxes = self._detector.boxes(rgb)
        if len(boxes) != 1 or overlap(boxes[0], self._box) < SAME_BOX:
            return None
        place = self._expected(index)
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
        self._last = [*self._last[-1:], (index, found)]
        self._box = boxes[0]
        return self._detector.described(landmarks, boxes[0]), run

    def _expected(self, index: int) -> Placement:
        """Half as far on as it went between the last two frames."""
        before, last = self._last[0], self._last[-1]
        if index - last[0] != last[0] - before[0]:
            return last[1]
        centre = 1.5 * np.array(last[1].centre) - 0.5 * np.array(before[1].centre)
        return Placement((float(centre[0]), float(centre[1])), last[1].angle, last[1].eye_distance)


def _within(found: Placement, place: Placement, away: float, grown: float, turned: float) -> bool:
    """Whether two places of a face differ by no more than this."""
    distance = math.dist(found.centre, place.centre) / found.eye_distance
    ratio = abs(math.log(found.eye_distance / place.eye_distance))
    angle = abs((found.angle - place.angle + math.pi) % (2 * math.pi) - math.pi)
    return distance <= away and ratio <= math.log(grown) and angle <= turned
