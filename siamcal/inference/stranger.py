"""Whether the faces of a recording are the reference's person: looked at now and then, flagged."""

from __future__ import annotations

from collections import deque

import numpy as np

from siamcal.faces.detection import Face
from siamcal.faces.identity import IdentityReader, identity_crop

__all__ = ["STRANGER", "StrangerWatch"]

STRANGER = "the face looks like another person's than the reference's"

# One face in so many is looked at: it costs as much processor time as reading a frame does.
ONE_IN = 40
WINDOW = 4  # faces that were looked at last decide together
FIRST_ONE_IN = 3  # until there are so many, or they are more alike than SURE
SOON_ONE_IN = 10  # where the face has begun to look otherwise
# Less alike than these, the mean of one, two, three and more faces, it is another person's; chosen
# on 150 rendered people. A single face's expression and turn weigh more.
LIMITS = (0.66, 0.68, 0.69)
SURE = 0.8  # fewer than one in a thousand of two people's faces are so alike
# Faces of one recording share light, camera and hair: less alike they are two people's.
SAME_RECORDING = 0.7
ENOUGH, MOST_PASSED = 3, 20  # faces by which the person is known in the recording
MOST_TURNED = 25.0  # degrees; faces beyond aren't looked at


class StrangerWatch:
    """Compares the faces of one recording with the reference's person, in their order.

    Faces that passed show what the person looks like in this recording; later ones are compared
    with them, too.

    Args:
        own: Where the reference lies among people (`IdentityReader`).
        reader: Places the faces.
        followed: Frames follow one another in time; else each face is judged alone.
    """

    def __init__(self, own: np.ndarray, reader: IdentityReader, *, followed: bool) -> None:
        self.own, self.reader, self.followed = own, reader, followed
        self._window: deque[np.ndarray] = deque(maxlen=WINDOW if followed else 1)
        self._passed: deque[np.ndarray] = deque(maxlen=MOST_PASSED)
        # Faces since the last that was looked at, and which one is next.
        self._passed_by, self._next = 0, 1
        self._told = ""

    def __call__(self, rgb: np.ndarray, face: Face, *, doubted: bool = False) -> str:
        """What is to be said of a face; "" where nothing is.

        Args:
            rgb: (H, W, 3) uint8, the whole frame.
            face: The face in it.
            doubted: It looks unlike the faces before.
        """
        self._passed_by += 1
        if doubted:
            self._next = min(self._next, SOON_ONE_IN)
        if self._passed_by < self._next:
            return self._told
        if max(abs(face.pose[0]), abs(face.pose[1])) > MOST_TURNED:
            return self._told if self.followed else ""
        place = self.reader(identity_crop(rgb, face))
        if self._window and self._unlike(place, self._window):
            self._window.clear()
        self._window.append(place)
        self._told = STRANGER if self._is_stranger() else ""
        if self.followed:
            self._passed_by = 0
            sure = len(self._window) == WINDOW or self._like_own() > SURE
            self._next = ONE_IN if sure else FIRST_ONE_IN
            if not self._told:
                self._passed.append(place)
        return self._told

    def _is_stranger(self) -> bool:
        if self._like_own() < LIMITS[min(len(self._window), len(LIMITS)) - 1]:
            return True
        mean = np.mean(self._window, axis=0)
        return len(self._passed) >= ENOUGH and self._unlike(mean, self._passed)

    def _like_own(self) -> float:
        return self.reader.likeness(self.own, np.mean(self._window, axis=0))

    def _unlike(self, place: np.ndarray, others: deque[np.ndarray]) -> bool:
        return self.reader.likeness(np.mean(others, axis=0), place) < SAME_RECORDING
