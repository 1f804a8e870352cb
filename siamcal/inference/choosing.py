"""The most neutral frame of a recording, or the answer that there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from siamcal.errors import FaceNotFoundError, NeutralFrameError
from siamcal.faces import Face, FacePipeline, ReferenceJudgement
from siamcal.faces.hands import around_face
from siamcal.faces.identity import identity_crop
from siamcal.faces.measures import FaceMeasures, measure_face
from siamcal.faces.media import Frame, FrameStream, open_media
from siamcal.faces.media.files import refuse_live
from siamcal.faces.neutrality import action_words, brow_problem, expression, judge_candidate
from siamcal.inference.candidates import MOST_SHOWN, Shown, draw_candidates, face_picture
from siamcal.inference.prediction import Predictor
from siamcal.inference.references import PersonReference, encoded
from siamcal.inference.seeing import MOST_FACES, Everybody
from siamcal.inference.tracks import FaceTracker
from siamcal.progress import progress_bar

__all__ = ["choose_for_everybody", "choose_reference"]

# How many frames are judged: one costs as much as reading two or three, so one in eight as much as
# about a third of the recording. Of a short recording too few would be left, and of a slow one, so
# two a second are, up to 60; of pictures nobody knows how far apart they were taken.
MOST_CANDIDATES, LEAST_CANDIDATES, ONE_IN = 120, 15, 8
A_SECOND, ENOUGH = 2, 60
# A face at rest looks alike whenever it rests: this share of the sound candidates is expected near
# it. Where they are farther away than this (in units of the least expression that is no longer
# rest), the person never rested.
NEIGHBOURS = 0.1
MOST_LONELY = 1.15
LEAST_ALIKE = 3
# Fewer candidates don't tell; pictures may lie farther apart than a recording's.
ENOUGH_FRAMES, ENOUGH_PICTURES = 12, 20
# Actions only ever add: the lowest level of each that is seen again and again is the person's rest.
REST_QUANTILE = 0.15
# How much what lies above that level weighs, of expressions (their mean) and of readings (their
# sum), against 1 for loneliness. Of 60 rendered clips that no figure is reported on, the chosen
# frame wasn't neutral in 3 and 16 got none; without the roots, and with other weights, in 7 and 15.
REST_WEIGHT, READ_WEIGHT = 1.0, 0.5
# A frame is read against so many others, evenly over the candidates, and without a reference.
# Neither is enough: against lowered brows rest reads as an action.
REFERENCES = 8
# Of the candidates' asymmetry: a person's own, while nothing is held before the face.
OWN_QUANTILE = 0.25


# In words: so much more of an action than the person's own low level is "a little", "some".
A_LITTLE, SOME = 0.15, 0.4
MOST_NAME = 24  # letters of a picture's name


@dataclass(frozen=True, eq=False)
class Candidate:
    frame: int  # 0-based
    source: str
    crop: np.ndarray
    face: Face
    seen: FaceMeasures
    identity: np.ndarray  # `identity_crop`
    around: tuple[np.ndarray, np.ndarray]  # `around_face`
    time: float = 0.0  # seconds
    number: int = 0  # of the person, as far as the recording's faces were told apart
    picture: np.ndarray | None = None  # of `face_picture`, where it is to be shown


@dataclass(frozen=True, eq=False)
class _Ranking:
    """Candidates by how neutral they are.

    Attributes:
        order: All of them, the best first: by the number of problems, then by `rank`.
        near: Candidate of the least problems -> the distance within which a tenth of them lies.
        lonely: Too few others are like the best.
    """

    order: list[int]
    near: dict[int, float]
    lonely: bool


def choose_reference(
    inputs: str | Path | list[str | Path] | FrameStream,
    predictor: Predictor,
    *,
    sound_only: bool = True,
    sheet: Path | None = None,
) -> PersonReference:
    """The most neutral, open-eyed, frontal, uncovered frame of a video or of images.

    One frame in eight, evenly over time, is judged (at least 15, at most 120; two a second of a
    slow recording, and of up to 60 pictures each). Among the sound ones that frame wins whose
    expression is seen again and again and lies lowest (`rank`): a face at rest looks
    alike whenever it rests, also where the person acts most of the time. A guess: a person who
    holds one expression throughout has no neutral frame there.

    Args:
        inputs: One recording of one person.
        predictor: Model and face pipeline.
        sound_only: Refuse a recording without a sound frame; else its best one is taken.
        sheet: Draw the best candidates there, a PNG; also where none is taken.

    Raises:
        FaceNotFoundError: No frame shows a face.
        NeutralFrameError: No frame is sound, or the face never rests; the message names the best.
    """
    refuse_live(inputs, "choosing a reference from it")
    stream = open_media(inputs)
    candidates = _candidates(stream, predictor.pipeline, pictures=sheet is not None)
    if not candidates:
        raise FaceNotFoundError(
            f"No face was found in {stream.sources[0]}, so no reference frame can be chosen. "
            f"Name one with --reference FILE."
        )
    return _choose(candidates, stream, predictor, sound_only=sound_only, sheet=sheet)


def choose_for_everybody(
    inputs: str | Path | Sequence[str | Path], predictor: Predictor, *, sound_only: bool = True
) -> tuple[dict[int, PersonReference], dict[int, str]]:
    """The most neutral frame of each person of a recording, by `choose_reference`'s rules.

    Returns:
        Number of a person -> their reference, and number -> why there is none. Numbers are those
        of `Predictor.results_of_people` for the same recording.

    Raises:
        FaceNotFoundError: No frame shows a face.
        MediaError: The input can be read only once.
    """
    refuse_live(inputs, "choosing references from it")
    stream = open_media(inputs)
    everybody = Everybody(predictor.pipeline, {})
    candidates = _candidates_of_people(stream, everybody)
    if not candidates:
        raise FaceNotFoundError(f"No face was found in {stream.sources[0]}.")
    references, refused = {}, {}
    for number, own in sorted(candidates.items()):
        try:
            references[number] = _choose(own, stream, predictor, sound_only=sound_only)
        except NeutralFrameError as error:
            refused[number] = str(error)
    return references, refused


def _choose(
    candidates: Sequence[Candidate],
    stream: FrameStream,
    predictor: Predictor,
    *,
    sound_only: bool,
    sheet: Path | None = None,
) -> PersonReference:
    judgements = judge_candidates(candidates)
    enough = ENOUGH_PICTURES if stream.kind == "images" else ENOUGH_FRAMES
    ranking = _ranked(candidates, judgements, predictor, enough)
    candidates, ranking = _without_hands(candidates, judgements, ranking, predictor.pipeline)
    judgements = judge_candidates(candidates)
    chosen = ranking.order[0]
    best, problems = candidates[chosen], list(judgements[chosen].problems)
    if ranking.lonely:
        problems.append("hardly any other frame looks like it, so the face never seems to rest")
    against = [problem for problem in problems if problem not in judgements[chosen].filmed]
    if sheet is not None:
        mark = "refused" if against and sound_only else "chosen"
        pictures = stream.kind == "images"
        shown = _shown(candidates, judgements, ranking, mark, named=pictures)
        what = "pictures" if pictures else f"frames of {Path(stream.sources[0]).name}"
        draw_candidates(shown, f"{len(candidates)} {what} were judged; the best:", sheet)
    if against and sound_only:
        raise NeutralFrameError(_no_neutral_frame(stream, judgements, best, problems))
    if brows := brow_problem(best.face):
        problems.append(f"{brows}; the person's own, as far as this recording tells")
    facts: dict[str, Any] = {"kind": "chosen automatically", "source": best.source}
    facts |= {"frame": best.frame + 1, "judgement": round(judgements[chosen].score, 3)}
    facts |= {"candidates": len(candidates), "face": best.seen.to_dict()}
    number = ["--frame", str(best.frame + 1)]
    facts["remake"] = [best.source, *(number if stream.kind == "video" else [])]
    problems = ["it was chosen automatically; look at it", *problems]
    return encoded(predictor, best.crop, facts, problems, best.identity)


def judge_candidates(candidates: Sequence[Candidate]) -> list[ReferenceJudgement]:
    """Judge frames of one recording, each against what is usual in it."""
    sides = [c.seen.asymmetry for c in candidates if c.seen.symmetric]
    low, high = np.quantile(sides, OWN_QUANTILE, axis=0) if sides else (0.0, 0.0)
    return [judge_candidate(c.face, c.seen, (float(low), float(high))) for c in candidates]


def _no_neutral_frame(
    stream: FrameStream,
    judgements: Sequence[ReferenceJudgement],
    best: Candidate,
    problems: Sequence[str],
) -> str:
    found = [problem for judgement in judgements for problem in judgement.problems]
    kinds = Counter(problem.split(" (")[0].split(":")[0] for problem in found)
    told = "; ".join(f"{count} times {kind}" for kind, count in kinds.most_common(4))
    told = f" ({told})" if told else ""
    name = best.source if stream.kind == "images" else f"frame {best.frame + 1}"
    own = "" if stream.kind == "images" else f"--reference-frame {best.frame + 1} or "
    return (
        f"No good neutral frame was found in {stream.sources[0]}: {len(judgements)} frames were "
        f"judged{told}. Best is {name}, but {'; '.join(problems)}. Give a neutral picture of the "
        f"person (--reference FILE) or a profile; {own}--reference best takes it all the same."
    )


def _ranked(
    candidates: Sequence[Candidate],
    judgements: Sequence[ReferenceJudgement],
    predictor: Predictor,
    enough: int,
) -> _Ranking:
    problems = [len(judgement.problems) for judgement in judgements]
    among = [i for i, count in enumerate(problems) if count == min(problems)]
    shown = np.stack([expression(candidates[i].face) for i in among])
    score, near = rank(shown, _readings([candidates[i].crop for i in among], predictor))
    order = np.argsort(score, kind="stable")
    few = len(among) < LEAST_ALIKE or bool(near[order[0]] > MOST_LONELY)
    others = sorted(
        set(range(len(candidates))) - set(among), key=lambda i: (problems[i], judgements[i].score)
    )
    return _Ranking(
        [*(among[i] for i in order), *others],
        dict(zip(among, near.tolist(), strict=True)),
        few and len(candidates) >= enough,
    )


def _without_hands(
    candidates: Sequence[Candidate],
    judgements: Sequence[ReferenceJudgement],
    ranking: _Ranking,
    pipeline: FacePipeline,
) -> tuple[list[Candidate], _Ranking]:
    """The candidates with a look for hands at the best ones, until one shows none.

    To look costs as much as to read a frame. Those with a hand come behind all without a problem.
    """
    looked, hands = list(candidates), []
    fewest = [p for p in ranking.order if set(judgements[p].problems) <= set(judgements[p].filmed)]
    for place in fewest:
        one = candidates[place]
        picture, landmarks = one.around
        hand = pipeline.detector.hand(picture, replace(one.face, landmarks=landmarks))
        looked[place] = replace(one, seen=replace(one.seen, hand=hand))
        if hand <= 1:
            break
        hands.append(place)
    order = [p for p in fewest if p not in hands] + hands
    order += [p for p in ranking.order if p not in order]
    return looked, replace(ranking, order=order)


def _shown(
    candidates: Sequence[Candidate],
    judgements: Sequence[ReferenceJudgement],
    ranking: _Ranking,
    mark: str,
    *,
    named: bool,
) -> list[Shown]:
    """The best candidates for `draw_candidates`; the first gets the mark."""
    each = np.stack([expression(candidate.face) for candidate in candidates])
    above = each - np.quantile(each[list(ranking.near)], REST_QUANTILE, axis=0)
    found = []
    for place in ranking.order[:MOST_SHOWN]:
        one, judgement = candidates[place], judgements[place]
        assert one.picture is not None
        name = Path(one.source).name
        # Numbers stand at the end of names.
        name = name if len(name) <= MOST_NAME else f"…{name[1 - MOST_NAME :]}"
        where = name if named else f"frame {one.frame + 1}, {one.time:.2f} s"
        words = list(judgement.problems) or ["nothing speaks against it"]
        if place in ranking.near:
            words += [_shows(above[place]), _seen(ranking.near[place])]
        first = mark if place == ranking.order[0] else ""
        found.append(Shown(one.picture, where, tuple(words), judgement.sound, first))
    return found


def _shows(above: np.ndarray) -> str:
    """The action that rises highest above what the person shows at least, in words."""
    most = int(np.argmax(above))
    if above[most] < A_LITTLE:
        return "shows as little as any frame"
    return f"shows {'a little' if above[most] < SOME else 'some'} more of {action_words(most)}"


def _seen(near: float) -> str:
    if near > MOST_LONELY:
        return "hardly any other frame looks like it"
    return "many frames look like it" if near < MOST_LONELY / 2 else "some frames look like it"


def _readings(crops: Sequence[np.ndarray], predictor: Predictor) -> np.ndarray:
    """What each shows against others of them and without a reference, (N, 2A); (N, 0) of logits.

    Roots of intensities: whether an action is there counts more than how strong it is. Of a
    calibrator that can't read without a reference it is (N, A).
    """
    if predictor.config.task != "intensity":
        return np.zeros((len(crops), 0), np.float32)
    places = np.linspace(0, len(crops) - 1, min(REFERENCES, len(crops))).round().astype(int)
    read = predictor.read_each(np.stack(crops), places.tolist(), raw=True)  # (R + 1 or R, N, A)
    against, alone = np.split(np.maximum(read, 0), [len(places)])
    return np.sqrt(np.concatenate([against.mean(0), *alone], axis=1))


def rank(shown: np.ndarray, readings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How neutral the frames of one person are, by two witnesses.

    MediaPipe's coefficients don't see some actions (AU 9), a calibrator may never have seen a real
    face; where both find a frame alike to many and no higher than the others, it is at rest.

    Args:
        shown: (N, K) `siamcal.faces.neutrality.expression` of each.
        readings: (N, R) of each, `_readings`.

    Returns:
        (N,) scores, lower is better, and (N,) distances within which a tenth of the frames lies.
    """
    both = np.concatenate([shown, readings], axis=1)
    apart = np.sqrt(((both[:, None] - both[None]) ** 2).sum(-1))  # (N, N)
    neighbours = min(max(2, round(NEIGHBOURS * len(both))), len(both) - 1)
    near = np.sort(apart, axis=1)[:, neighbours]
    over = _above_rest(shown).mean(1)
    read = _above_rest(readings).sum(1)
    return near + REST_WEIGHT * over + READ_WEIGHT * read, near


def _above_rest(values: np.ndarray) -> np.ndarray:
    return np.maximum(values - np.quantile(values, REST_QUANTILE, axis=0), 0)


def _candidates(
    stream: FrameStream, pipeline: FacePipeline, *, pictures: bool = False
) -> list[Candidate]:
    step = _wanted_step(stream.total or 0, stream.fps)
    found: list[Candidate] = []
    due, person = 0.0, _Person(pipeline, followed=stream.kind == "video")
    frames = progress_bar(
        stream, total=stream.total, description="choosing the reference", unit="frame"
    )
    for frame in frames:
        if frame.index < due:
            continue
        candidate = _candidate(frame, person, pictures=pictures)
        if candidate is not None:
            found.append(candidate)
        # Without a known length every second one is dropped once there are too many.
        if _wanted_step(frame.index + 1, stream.fps) >= 2 * step:
            step *= 2
            found = [c for c in found if c.frame % step == 0]
        due = (frame.index // step + 1) * step
    return person.own(found)


class _Person:
    """Finds the face that will be read where several are seen, by `OnePerson`'s rules.

    Args:
        pipeline: Finds the faces.
        followed: Frames follow one another in time; else the widest face of each counts.
    """

    def __init__(self, pipeline: FacePipeline, *, followed: bool) -> None:
        self.pipeline = pipeline
        self._tracker = FaceTracker() if followed else None
        self._number: int | None = None
        self._several = False

    def __call__(self, index: int, rgb: np.ndarray) -> tuple[int, Face] | None:
        """The person's face in a frame, or the widest, and its number.

        Args:
            index: Position in the recording.
            rgb: (H, W, 3) uint8.
        """
        faces = self.pipeline.detect(rgb, max_faces=MOST_FACES)
        if not faces:
            return None
        if self._tracker is None:
            return 0, faces[0]
        numbers = self._tracker.update(index, rgb, faces)
        if self._number is None:
            self._number = numbers[0]
        self._several |= len(faces) > 1
        place = numbers.index(self._number) if self._number in numbers else 0
        return numbers[place], faces[place]

    def own(self, found: Sequence[Candidate]) -> list[Candidate]:
        """The person's. A lone face keeps being the person's, whatever its number."""
        if not self._several:
            return list(found)
        return [c for c in found if c.number == self._number] or list(found)


def _candidates_of_people(stream: FrameStream, everybody: Everybody) -> dict[int, list[Candidate]]:
    """Every face is numbered, as people are followed from frame to frame; few are kept."""
    # Faces are looked for in every frame here, so that more candidates cost little.
    step = _wanted_step(stream.total or 0, None)
    found: dict[int, list[Candidate]] = {}
    bar = progress_bar(stream, total=stream.total, description="finding people", unit="frame")
    for frame in bar:
        for number, face in everybody.faces(frame) if frame.rgb is not None else ():
            own = found.setdefault(number, [])
            if own and frame.index < own[-1].frame + step:
                continue
            seen = measure_face(frame.rgb, face)
            crop = everybody.pipeline.align(frame.rgb, face)
            whole = identity_crop(frame.rgb, face)
            around = around_face(frame.rgb, face.landmarks)
            own.append(Candidate(frame.index, frame.source, crop, face, seen, whole, around))
            if len(own) >= 2 * MOST_CANDIDATES:
                found[number] = own[::2]
    return found


def _wanted_step(total: int, fps: float | None) -> float:
    """Every n-th frame of so many is judged: n.

    Args:
        total: Number of frames.
        fps: Frames a second; None: they are pictures, or a video doesn't tell.
    """
    least = A_SECOND * total / fps if fps else ENOUGH
    least = max(LEAST_CANDIDATES, min(ENOUGH, least))
    return max(total / min(MOST_CANDIDATES, max(least, total / ONE_IN)), 1.0)


def _candidate(frame: Frame, person: _Person, *, pictures: bool) -> Candidate | None:
    if frame.rgb is None or frame.problem:
        return None
    found = person(frame.index, frame.rgb)
    if found is None:
        return None
    number, face = found
    return Candidate(
        frame.index,
        frame.source,
        person.pipeline.align(frame.rgb, face),
        face,
        measure_face(frame.rgb, face),
        identity_crop(frame.rgb, face),
        around_face(frame.rgb, face.landmarks),
        frame.timestamp,
        number,
        face_picture(frame.rgb, face) if pictures else None,
    )
