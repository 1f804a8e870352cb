"""A person's neutral reference: from a picture, from a frame, chosen by itself, or saved before."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from siamcal.errors import ConfigError, FaceNotFoundError, MediaError
from siamcal.faces import FacePipeline, ReferenceJudgement, judge_reference
from siamcal.faces.media.files import refuse_live
from siamcal.faces.media.frames import FrameStream
from siamcal.faces.media.opening import open_media, sound_frame
from siamcal.faces.neutrality import expression
from siamcal.inference.prediction import Predictor
from siamcal.model.siamese import Reference
from siamcal.model.weights_file import checksum_of_tensors, read_sealed
from siamcal.progress import progress_bar

__all__ = ["PersonReference", "choose_reference", "load_profile", "read_reference", "save_profile"]

logger = logging.getLogger(__name__)

# How many frames of a video are judged when the reference is to be chosen.
CANDIDATES = 120
# A frame whose crop is this many median absolute deviations farther from the person's typical crop
# than the nearest shows something else: a hand, another person, a cut.
MOST_UNUSUAL = 4.0


@dataclass(frozen=True, eq=False)
class PersonReference:
    """A reference, ready for use, and where it comes from.

    Attributes:
        features: What the network compares with.
        facts: Source, frame and judgement, in plain values for the sidecar file.
        warnings: What speaks against it, in words.
    """

    features: Reference
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def read_reference(
    picture: str | Path | np.ndarray, predictor: Predictor, index: int | None = None
) -> PersonReference:
    """The reference in an image file or an RGB array, or frame `index` (0-based) of a video.

    A reference that isn't neutral, has shut eyes, is turned, small or covered is used all the same;
    what was found is in its warnings.

    Raises:
        MediaError: The file can't be read.
        FaceNotFoundError: It shows no face.
    """
    if isinstance(picture, str | Path) and os.path.isdir(picture):
        raise MediaError(f"The reference {picture} is a folder, but one picture is needed.")
    stream = open_media([picture])  # in a list, where no pipe is waited for
    path, number = stream.sources[0], (index or 0) + 1
    rgb = sound_frame(stream, number - 1).rgb
    pipeline = predictor.pipeline
    faces = pipeline.detect(rgb, max_faces=2)
    if not faces:
        raise FaceNotFoundError(
            f"No face was found in the reference {path}"
            + (f", frame {number}" if number > 1 else "")
            + ". It must show the person's face from the front, at rest, with open eyes, at least "
            "60 pixels wide."
        )
    judgement = judge_reference(rgb, faces[0], pipeline.detector)
    problems = list(judgement.problems)
    if len(faces) > 1:
        problems.append("it shows several faces; the widest was taken")
    if index is None and (stream.total or 1) > 1:
        problems.append(f"{path} holds {stream.total} frames; the first was taken")
    problems += [note.removesuffix(".") for note in stream.notes]
    facts = {"kind": "picture", "source": path, "frame": number}
    facts["judgement"] = round(judgement.score, 3)
    return _encoded(predictor, pipeline.align(rgb, faces[0]), facts, problems)


def choose_reference(
    inputs: str | Path | list[str | Path], predictor: Predictor
) -> PersonReference:
    """The most neutral, open-eyed, frontal, uncovered frame of a video or of images.

    Up to 120 frames are judged (`siamcal.faces.judge_reference`). Among sound ones that frame wins
    which is closest to the person's median in expression and in appearance: each single action
    rests most of the time, so the medians are the person's own level at rest. A guess: a person who
    never rests in the video has no neutral frame there.

    Raises:
        FaceNotFoundError: No frame shows a face.
    """
    refuse_live(inputs, "choosing a reference from it")
    stream = open_media(inputs)
    candidates = _candidates(stream, predictor.pipeline)
    if not candidates:
        raise FaceNotFoundError(
            f"No face was found in {stream.sources[0]}, so no reference frame can be chosen. "
            f"Name one with --reference FILE."
        )
    best = candidates[int(np.argmin(_rank(candidates)))]
    problems = ["it was chosen automatically; look at it", *best.judgement.problems]
    facts = {"kind": "chosen automatically", "source": best.source, "frame": best.index + 1}
    facts |= {"judgement": round(best.judgement.score, 3), "candidates": len(candidates)}
    return _encoded(predictor, best.crop, facts, problems)


def _encoded(
    predictor: Predictor, crop: np.ndarray, facts: dict[str, Any], problems: list[str]
) -> PersonReference:
    facts["face_engine"] = predictor.pipeline.detector.engine
    facts["crop_sha256"] = hashlib.sha256(crop.tobytes()).hexdigest()
    warnings = tuple(f"Reference: {problem}." for problem in problems)
    return PersonReference(predictor.encode(crop), facts, warnings)


@dataclass(frozen=True, eq=False)
class _Candidate:
    index: int
    source: str
    crop: np.ndarray
    judgement: ReferenceJudgement
    expression: np.ndarray


def _rank(candidates: list[_Candidate]) -> np.ndarray:
    """Lower is better, (N,)."""
    shown = np.stack([c.expression for c in candidates])  # (N, K)
    moved = np.abs(shown - np.median(shown, axis=0))
    crops = np.stack([c.crop for c in candidates]).astype(np.int16)  # (N, S, S, 3)
    distance = np.abs(crops - np.median(crops, axis=0).astype(np.int16)).mean((1, 2, 3))
    spread = max(float(np.median(np.abs(distance - np.median(distance)))), 0.25)
    unusual = (distance - distance.min()) / spread / MOST_UNUSUAL
    unsound = np.array([2.0 * len(c.judgement.problems) for c in candidates])
    scores = np.array([c.judgement.score for c in candidates])
    apart = np.where(unusual > 1, 2.0, 0.3) * unusual
    return scores + unsound + 0.5 * moved.max(1) + moved.mean(1) + apart


def _candidates(stream: FrameStream, pipeline: FacePipeline) -> list[_Candidate]:
    # Without a known length every frame is a candidate until there are too many: then every second
    # one of them is dropped, and every second one of those to come.
    step = max((stream.total or 0) // CANDIDATES, 1)
    found: list[_Candidate] = []
    frames = progress_bar(
        stream, total=stream.total, description="choosing the reference", unit="frame"
    )
    for frame in frames:
        if frame.index % step or frame.rgb is None or frame.problem:
            continue
        faces = pipeline.detect(frame.rgb, max_faces=1)
        if not faces:
            continue
        judgement = judge_reference(frame.rgb, faces[0], pipeline.detector)
        crop, shown = pipeline.align(frame.rgb, faces[0]), expression(faces[0])
        found.append(_Candidate(frame.index, frame.source, crop, judgement, shown))
        if len(found) >= 2 * CANDIDATES:
            found, step = found[::2], 2 * step
    return found


# --- profiles ------------------------------------------------------------------------------------


def save_profile(reference: PersonReference, path: str | Path, predictor: Predictor) -> None:
    """Write a person's encoded reference, bound to the calibrator that encoded it.

    The file holds features of a face: treat it like a photograph of the person.

    Raises:
        ConfigError: It can't be written there.
    """
    path = Path(path)
    try:
        facts = {
            "calibrator": _identity(predictor),
            "facts": json.dumps(reference.facts),
            "warnings": json.dumps(reference.warnings),
        }
        reference.features.to("cpu").save(path, facts=facts)
    except OSError as error:
        raise ConfigError(f"The profile {path} can't be written ({error}).") from error


def load_profile(path: str | Path, predictor: Predictor) -> PersonReference:
    """Read a profile that `save_profile` wrote with the same calibrator.

    Raises:
        ConfigError: Missing, damaged, no profile, or made by another calibrator.
    """
    path = Path(path)
    if not path.exists():
        raise ConfigError(
            f"There is no profile {path}. Make it: siamcal predict VIDEO --reference neutral.jpg "
            f"--save-profile {path}"
        )
    try:
        features = Reference.load(path)
        _, metadata = read_sealed(path)
        facts, warnings = json.loads(metadata["facts"]), json.loads(metadata["warnings"])
        facts, warnings = dict(facts), tuple(map(str, warnings))
        identity = metadata["calibrator"]
    except (LookupError, TypeError, ValueError) as error:  # a ConfigError is a ValueError
        raise ConfigError(
            f"{path} is no profile of siamcal predict, or it is damaged ({str(error)[:300]}). Make "
            "it again with --save-profile."
        ) from error
    if identity != _identity(predictor):
        raise ConfigError(
            f"The profile {path} was made with another calibrator or another preprocessing; its "
            f"features mean nothing to this one. Make it again with --save-profile."
        )
    found_by, engine = facts.get("face_engine", "mediapipe"), predictor.pipeline.detector.engine
    if found_by != engine:
        warnings += (
            f"Reference: the profile's face was found by {found_by!r}, this run's are by "
            f"{engine!r}; they differ little, and not at all if you make the profile again.",
        )
    return PersonReference(features, {**facts, "profile": str(path)}, warnings)


def _identity(predictor: Predictor) -> str:
    """What a profile is bound to: weights, merge point and preprocessing."""
    config = predictor.config
    weights = config.weights_checksum or checksum_of_tensors(predictor.model.state_dict())
    told = repr((weights, config.merge_at, config.preprocessing))
    return hashlib.sha256(told.encode()).hexdigest()


def reference_frame(inputs: list[str | Path], predictor: Predictor, number: int) -> PersonReference:
    """Frame `number` (1-based) of the input itself as the reference.

    Raises:
        MediaError: There is no such frame.
    """
    if number < 1:
        raise MediaError(f"Frames are counted from 1; {number} was given.")
    refuse_live(inputs, "taking a frame of it as the reference")
    stream = open_media(inputs)
    frame = sound_frame(stream, number - 1)
    picture = read_reference(frame.rgb, predictor)
    facts = {**picture.facts, "source": frame.source, "frame": number}
    return replace(picture, facts=facts)
