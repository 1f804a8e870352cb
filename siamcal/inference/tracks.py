"""Which face is whose from frame to frame: tracks with stable numbers.

Faces are assigned to tracks by the least total cost (Hungarian method) of where a track is expected
and what its person looks like, as in DeepSORT (arXiv:1703.07402). A person who leaves and comes
back gets the old number where the appearance says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from siamcal.faces.alignment import rigid_placement
from siamcal.faces.appearance import describe_appearance
from siamcal.faces.detection import Face

__all__ = ["FaceTracker", "appearance_distance"]

# A face is no farther from where its track expects it than so many eye distances, for each frame
# that passed since it was seen (up to MOST_STEPS of them).
STEP = 0.9
MOST_STEPS = 8
# Eye distances of one person in neighbouring frames differ by less than this factor.
SCALE = 1.5
# Appearances of one person differ by less than SAME in most frames, those of two people by more
# than OTHER; measured on rendered people (see docs/predict.md).
SAME, OTHER = 1.75, 2.6
# Share of a new frame in what is known of a person's looks.
LEARNED = 0.1


@dataclass
class _Track:
    number: int
    centre: np.ndarray  # (2,) pixels
    size: float  # eye distance, pixels
    looks: np.ndarray
    seen: int  # frame
    speed: np.ndarray = field(default_factory=lambda: np.zeros(2))  # pixels a frame
    unlearnt: int = 0  # frames since its looks were taken in
    apart: float = np.inf  # how unlike its looks it was when they were last compared

    def expected(self, frame: int) -> np.ndarray:
        """Where it is now, if it goes on as it went."""
        return self.centre + self.speed * min(frame - self.seen, MOST_STEPS)

    def move(self, frame: int, centre: np.ndarray, size: float) -> None:
        """Take in where a face lies."""
        passed = max(frame - self.seen, 1)
        moved = (centre - self.centre) / passed
        self.speed = 0.5 * self.speed + 0.5 * moved if passed <= MOST_STEPS else np.zeros(2)
        self.centre, self.size, self.seen = centre, size, frame
        self.unlearnt += 1

    def learn(self, looks: np.ndarray) -> None:
        """Take in what the person looks like."""
        known, new = np.isnan(self.looks), np.isnan(looks)
        kept = (1 - LEARNED) ** self.unlearnt
        self.unlearnt = 0
        mixed = kept * self.looks + (1 - kept) * looks
        self.looks = np.where(known, looks, np.where(new, self.looks, mixed))


class FaceTracker:
    """Numbers the faces of one recording, frame by frame.

    The same frames always give the same numbers: 0 for the first person seen, and so on. Numbers
    depend on the frames before, never on those behind.
    """

    def __init__(self) -> None:
        self._tracks: list[_Track] = []

    def update(self, frame: int, rgb: np.ndarray, faces: Sequence[Face]) -> list[int]:
        """The number of each face.

        Args:
            frame: Position in the recording; frames may be left out.
            rgb: (H, W, 3) uint8.
            faces: All faces in it.
        """
        places = [rigid_placement(face.landmarks) for face in faces]
        centres = [np.array(place.centre) for place in places]
        sizes = [place.eye_distance for place in places]
        looks = [describe_appearance(rgb, face) for face in faces]
        cost = np.full((len(faces), len(self._tracks)), np.inf)
        for row in range(len(faces)):
            for column, track in enumerate(self._tracks):
                cost[row, column] = _cost(track, frame, centres[row], sizes[row], looks[row])
        numbers = [-1] * len(faces)
        for row, column in _assigned(cost):
            track = self._tracks[column]
            track.move(frame, centres[row], sizes[row])
            track.apart = appearance_distance(track.looks, looks[row])
            track.learn(looks[row])
            numbers[row] = track.number
        for row in range(len(faces)):
            if numbers[row] < 0:
                number = len(self._tracks)
                self._tracks.append(_Track(number, centres[row], sizes[row], looks[row], frame))
                numbers[row] = number
        return numbers

    def move(self, frame: int, number: int, face: Face) -> None:
        """Take in where a person is whose face was followed; looks aren't compared.

        Args:
            frame: Position in the recording.
            number: The person's, given by `update` before.
            face: Their face.
        """
        place = rigid_placement(face.landmarks)
        self._tracks[number].move(frame, np.array(place.centre), place.eye_distance)

    def doubts(self, number: int) -> bool:
        """Whether a person, given by `update` before, is new or looked unlike themselves then."""
        return self._tracks[number].apart > SAME


def _assigned(cost: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (face, track) of the least total cost, without those whose own cost is infinite."""
    if not cost.size:
        return []
    if 1 in cost.shape:  # most frames; SciPy's optimisers take a quarter of a second to import
        pairs = [np.unravel_index(np.argmin(cost), cost.shape)]
    else:
        from scipy.optimize import linear_sum_assignment

        finite = np.where(np.isfinite(cost), cost, 1e6)
        pairs = list(zip(*linear_sum_assignment(finite), strict=True))
    return [(int(row), int(column)) for row, column in pairs if np.isfinite(cost[row, column])]


def _cost(track: _Track, frame: int, centre: np.ndarray, size: float, looks: np.ndarray) -> float:
    """How badly a face fits a track; infinite where it can't be the same person."""
    passed = min(frame - track.seen, MOST_STEPS)
    away = float(np.linalg.norm(centre - track.expected(frame))) / max(track.size, 1e-6)
    grown = max(size / track.size, track.size / size)
    near = away <= STEP * passed and grown <= SCALE
    apart = appearance_distance(track.looks, looks)
    if apart > (OTHER if near else SAME):
        return np.inf
    # Looks weigh twice as much as places: people who cross are where the other is expected.
    return 2 * apart + (away / max(STEP * passed, 1e-6) if near else 1.5)


def appearance_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference in units of a person's own spread; entries that one lacks don't count."""
    difference = np.abs(one - other)
    return float(np.nanmean(difference)) if np.isfinite(difference).any() else 0.0
