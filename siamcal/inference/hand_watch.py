"""Whether a hand is held before the faces of a recording: looked at now and then, flagged."""

from __future__ import annotations

import numpy as np

from siamcal.faces.detection import Face, FaceDetector
from siamcal.faces.hands import REACHES

__all__ = ["HandWatch"]

# One face in so many is looked at, in one window: that costs two thirds of what reading a frame
# does. The windows take turns.
ONE_IN = 20
# While a hand is there, and where more covers the face than at the last look.
SOONER = 4
MORE_COVERED = 0.4  # of `siamcal.faces.quality.covering`


class HandWatch:
    """Looks for hands before one person's faces, in their order.

    Args:
        detector: Looks.
        followed: Frames follow one another in time; else each face is looked at in all windows.
    """

    def __init__(self, detector: FaceDetector, *, followed: bool) -> None:
        self.detector, self.followed = detector, followed
        self._since = ONE_IN  # faces since the last look
        self._turn = 0
        # Of the last look in each window: a hand that one window doesn't show the other may.
        self._told = [0.0] * len(REACHES)
        self._covered = 0.0

    def __call__(self, rgb: np.ndarray, face: Face, covered: float = 0.0) -> float:
        """`FaceDetector.hand` of the face, or of those before it that were looked at last.

        Args:
            rgb: (H, W, 3) uint8, the whole frame.
            face: The face in it.
            covered: How strongly something else seems to cover it.
        """
        if not self.followed:
            return self.detector.hand(rgb, face)
        self._since += 1
        self._covered = min(self._covered, covered)
        sooner = max(self._told) > 1 or covered > self._covered + MORE_COVERED
        if self._since >= (SOONER if sooner else ONE_IN):
            self._since, self._covered = 0, covered
            self._turn = (self._turn + 1) % len(REACHES)
            self._told[self._turn] = self.detector.hand(rgb, face, (REACHES[self._turn],))
        return max(self._told)
