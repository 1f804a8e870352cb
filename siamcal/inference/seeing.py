"""Which faces of a frame are read: one person who is followed, or everybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from siamcal.faces import Face, FacePipeline
from siamcal.faces.measures import FaceMeasures, measure_face
from siamcal.faces.media.frames import Frame
from siamcal.faces.quality import TargetQuality, covering, judge_target, narrow_eyes
from siamcal.inference.following import FaceFollower
from siamcal.inference.hand_watch import HandWatch
from siamcal.inference.landmark_pass import LandmarkRun
from siamcal.inference.stranger import StrangerWatch
from siamcal.inference.tracks import FaceTracker

__all__ = ["MOST_FACES", "Everybody", "Found", "FrameResult", "OnePerson"]

OTHER = "the face looks like another person's than before"

# Faces beyond these aren't looked at where one person is followed.
MOST_FACES = 4


@dataclass(frozen=True, eq=False)
class FrameResult:
    """What was read from one face of a frame, or why nothing was.

    Attributes:
        index: 0-based position in the stream.
        timestamp: Seconds.
        source: File.
        values: (A,) float32 intensities (neither clipped nor rounded) or logits; None without
            success.
        raw: (A,) float32, the same without calibration (by the null reference); None without
            success, or where the calibrator has no null reference.
        confidence: The face detector's score in [0, 1]; 0 without a face.
        faces: Number of faces found; of one person's frames counted up to 4.
        problem: Why there are no values; "" where there are.
        notes: What speaks against values that are there.
        judged: Pose, eyes, light and sharpness of the face; None without one.
        face_id: Number of the person; None where everybody is read and nobody was found.
        face: The face that was read, of one that was followed with its expression only where its
            eyes may be closed; None without one.
    """

    index: int
    timestamp: float
    source: str
    values: np.ndarray | None
    confidence: float = 0.0
    faces: int = 0
    problem: str = ""
    raw: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    judged: TargetQuality | None = None
    face_id: int | None = 0
    face: Face | None = None

    @property
    def quality(self) -> str:
        """All that is wrong with the frame, in words; "" where nothing is."""
        return self.problem or "; ".join(self.notes)


#: A face that was found, without values yet, and its crop, or what the landmark network told of it
#: already; None where nothing is to be read.
Found = tuple[FrameResult, np.ndarray | LandmarkRun | None]


class OnePerson:
    """Finds one person's face in each frame, in the order of the frames.

    The widest face of the first frame that shows one is the person; where several faces are seen
    later, the person is told by place and looks (`FaceTracker`). A lone face is read in any case
    and flagged where it looks like somebody else.

    Args:
        pipeline: Finds and cuts the faces.
        seen: The reference's measures, against which faces are judged.
        followed: Frames follow one another in time; else the widest face of each counts.
        follower: Where followed: the fast way from one frame's face to the next one's.
        watch: Tells faces that aren't the reference's person; None: nobody looks.
    """

    def __init__(
        self,
        pipeline: FacePipeline,
        seen: FaceMeasures | None,
        *,
        followed: bool,
        follower: FaceFollower | None = None,
        watch: StrangerWatch | None = None,
    ) -> None:
        self.pipeline, self.seen, self.watch = pipeline, seen, watch
        self.tracker = FaceTracker() if followed else None
        self.follower = follower if followed else None
        self._hands = HandWatch(pipeline.detector, followed=followed)
        self.person: int | None = None
        # What was said of the last choice, and whose the face is: what holds while it is followed.
        self._note, self._number = "", 0

    def __call__(self, frame: Frame) -> list[Found]:
        """The person's face in a frame."""
        if frame.rgb is None or frame.problem:
            return [(_nothing(frame, _why(frame)), None)]
        followed = self.follower and self.follower(frame)
        if followed and not followed.looked:
            if self.tracker is not None:
                self.tracker.move(frame.index, self._number, followed.face)
            return [self._seen(frame, frame.rgb, followed.face, 1, self._note, followed.run)]
        faces = [followed.face] if followed else self._anew(frame, frame.rgb)
        if not faces:
            return [(_nothing(frame, "no face"), None)]
        face, self._note = self._choose(frame.index, frame.rgb, faces)
        run = followed.run if followed else None
        return [self._seen(frame, frame.rgb, face, len(faces), self._note, run)]

    def _anew(self, frame: Frame, rgb: np.ndarray) -> list[Face]:
        faces = self.pipeline.detect(rgb, max_faces=MOST_FACES)
        if self.follower is not None:
            self.follower.take(frame, faces)
        return faces

    def _seen(
        self,
        frame: Frame,
        rgb: np.ndarray,
        face: Face,
        faces: int,
        note: str,
        run: LandmarkRun | None,
    ) -> Found:
        """The face judged, with what is said of the choice, and the crop or the run on it."""
        if run is not None and narrow_eyes(face, self.seen):
            face = self.pipeline.described(face)
        doubted = self.tracker is not None and self.tracker.doubts(self._number)
        stranger = self.watch(rgb, face, doubted=doubted) if self.watch else ""
        said = [text for text in (note, stranger) if text]
        found = _found(frame, rgb, face, self.seen, faces, self._hands, said)
        return found, self.pipeline.align(rgb, face) if run is None else run

    def _choose(self, index: int, rgb: np.ndarray, faces: list[Face]) -> tuple[Face, str]:
        """The person's face among those of a frame, and what is to be said of the choice."""
        several = len(faces) > 1
        if self.tracker is None:
            return faces[0], "several faces, the widest was taken" if several else ""
        numbers = self.tracker.update(index, rgb, faces)
        self._number = numbers[0]
        if self.person is None:
            self.person = numbers[0]
            return faces[0], "several faces, the widest was taken" if several else ""
        if self.person in numbers:
            face, self._number = faces[numbers.index(self.person)], self.person
            return face, "several faces, the same person was followed" if several else ""
        if several:
            return faces[
                0
            ], "several faces, none looks like the person before; the widest was taken"
        return faces[0], OTHER


class Everybody:
    """Finds everybody's faces in each frame, in the order of the frames, with stable numbers.

    Args:
        pipeline: Finds and cuts the faces.
        seen: Number of a person -> their reference's measures; others have no reference.
        watches: Number of a person -> what tells faces that aren't their reference's.
        followed: Frames follow one another in time; else hands are looked for in each.
    """

    def __init__(
        self,
        pipeline: FacePipeline,
        seen: Mapping[int, FaceMeasures | None],
        watches: Mapping[int, StrangerWatch] | None = None,
        *,
        followed: bool = True,
    ) -> None:
        self.pipeline, self.seen, self.watches = pipeline, seen, watches or {}
        self.followed = followed
        self.tracker = FaceTracker()
        self._hands: dict[int, HandWatch] = {}  # number of a person -> theirs

    def __call__(self, frame: Frame) -> list[Found]:
        """All faces in a frame, by their numbers."""
        if frame.rgb is None or frame.problem:
            return [(_nothing(frame, _why(frame), face_id=None), None)]
        faces = self.faces(frame)
        if not faces:
            return [(_nothing(frame, "no face", face_id=None), None)]
        found: list[Found] = []
        for number, face in faces:
            seen, hands = self.seen.get(number), self._hands_of(number)
            result = _found(frame, frame.rgb, face, seen, len(faces), hands)
            result = replace(result, face_id=number)
            watch = self.watches.get(number)
            doubted = self.tracker.doubts(number)
            if watch is not None and (stranger := watch(frame.rgb, face, doubted=doubted)):
                result = replace(result, notes=(stranger, *result.notes))
            if number in self.seen:
                found.append((result, self.pipeline.align(frame.rgb, face)))
            else:
                found.append((replace(result, problem="no reference of this person"), None))
        return found

    def _hands_of(self, number: int) -> HandWatch:
        return self._hands.setdefault(
            number, HandWatch(self.pipeline.detector, followed=self.followed)
        )

    def faces(self, frame: Frame) -> list[tuple[int, Face]]:
        """All faces of a readable frame with their numbers, by these."""
        if frame.rgb is None or frame.problem:
            return []
        faces = self.pipeline.detect(frame.rgb, everyone=True)
        numbers = self.tracker.update(frame.index, frame.rgb, faces)
        return sorted(zip(numbers, faces, strict=True), key=lambda pair: pair[0])


def _why(frame: Frame) -> str:
    return frame.problem or "it can't be decoded"


def _nothing(frame: Frame, problem: str, face_id: int | None = 0) -> FrameResult:
    result = FrameResult(frame.index, frame.timestamp, frame.source, None)
    return replace(result, problem=problem, face_id=face_id)


def _found(
    frame: Frame,
    rgb: np.ndarray,
    face: Face,
    seen: FaceMeasures | None,
    faces: int,
    hands: HandWatch,
    notes: Sequence[str] = (),
) -> FrameResult:
    measures = measure_face(rgb, face)
    hand = hands(rgb, face, max(covering(measures, seen).values()))
    judged = judge_target(replace(measures, hand=hand), seen)
    return FrameResult(
        frame.index,
        frame.timestamp,
        frame.source,
        None,
        confidence=face.score,
        faces=faces,
        notes=(*notes, *judged.notes),
        judged=judged,
        face=face,
    )
