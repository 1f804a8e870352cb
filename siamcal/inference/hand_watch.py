"""Whether a hand is held before the faces of a recording: looked at now and then, flagged."""

from __future__ import annotations

import numpy as np

from siamcal.faces.detection import Face, FaceDetector
from siamcal.faces.hands import REACHES, hand_strength

__all__ = ["HandWatch"]

# The first face is looked at in both windows, then one in so many, in one, by turns: that costs two
# thirds of what reading a frame does.
ONE_IN = 20
# Where one of them shows a hand, and where more covers the face than at the last look.
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
        self._odds: list[float] = []  # of the last look in each window
        self._turn = 0  # whose turn it is
        self._since = 0  # faces since the last look
        self._covered = 0.0  # the least since then

    def __call__(self, rgb: np.ndarray, face: Face, covered: float = 0.0) -> float:
        """`FaceDetector.hand` of the face, or of those before it that were looked at last.

        Args:
            rgb: (H, W, 3) uint8, the whole frame.
            face: The face in it.
            covered: How strongly something else seems to cover it.
        """
        if not self.followed:
            return self.detector.hand(rgb, face)
        if not self._odds:
            self._odds = [self.detector.hand_odds(rgb, face, reach) for reach in REACHES]
            self._covered = covered
        self._since += 1
        self._covered = min(self._covered, covered)
        sooner = max(self._odds) > 0 or covered > self._covered + MORE_COVERED
        if self._since > (SOONER if sooner else ONE_IN):
            self._since, self._covered = 1, covered
            self._odds[self._turn] = self.detector.hand_odds(rgb, face, REACHES[self._turn])
            self._turn = (self._turn + 1) % len(REACHES)
        return hand_strength(self._odds)
