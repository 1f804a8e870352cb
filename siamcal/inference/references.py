"""A person's neutral reference, from a picture or a frame that the user names."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from siamcal.errors import FaceNotFoundError, MediaError
from siamcal.faces import judge_reference
from siamcal.faces.identity import identity_crop
from siamcal.faces.measures import FaceMeasures, measure_face
from siamcal.faces.media.files import refuse_live
from siamcal.faces.media.opening import open_media, sound_frame
from siamcal.inference.prediction import Predictor
from siamcal.model.siamese import Reference

__all__ = ["PersonReference", "encoded", "read_reference", "reference_frame"]


@dataclass(frozen=True, eq=False)
class PersonReference:
    """A reference, ready for use, and where it comes from.

    Attributes:
        features: What the network compares with.
        facts: Source, frame and judgement, in plain values for the sidecar file.
        warnings: What speaks against it, in words.
        crops: (K, S, S, 3) uint8, what was encoded; None where it isn't known any more.
        identity: Where the person lies among people, (D,) (`siamcal.faces.identity`); None where
            it isn't known. It goes into profiles, never into a sidecar.
    """

    features: Reference
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    crops: np.ndarray | None = field(default=None, repr=False)
    identity: np.ndarray | None = field(default=None, repr=False)

    @property
    def measures(self) -> FaceMeasures | None:
        """Eyes, sharpness and light of the reference; None of a profile that is too old."""
        return FaceMeasures.from_dict(self.facts.get("face"))


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
    seen = measure_face(rgb, faces[0], pipeline.detector.hand(rgb, faces[0]))
    judgement = judge_reference(rgb, faces[0], pipeline.detector, seen)
    problems = list(judgement.problems)
    if len(faces) > 1:
        problems.append("it shows several faces; the widest was taken")
    if index is None and (stream.total or 1) > 1:
        problems.append(f"{path} holds {stream.total} frames; the first was taken")
    problems += [note.removesuffix(".") for note in stream.notes]
    facts = {"kind": "picture", "source": path, "frame": number}
    facts["judgement"] = round(judgement.score, 3)
    facts["face"] = seen.to_dict()
    facts["remake"] = [path] if stream.kind == "images" else [path, "--frame", str(number)]
    crop, identity = pipeline.align(rgb, faces[0]), identity_crop(rgb, faces[0])
    return encoded(predictor, crop, facts, problems, identity)


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
    facts["remake"] = [*map(str, inputs), "--frame", str(number)]
    return replace(picture, facts=facts)


def encoded(
    predictor: Predictor,
    crop: np.ndarray,
    facts: dict[str, Any],
    problems: list[str],
    identity: np.ndarray,
) -> PersonReference:
    """The reference of a crop, (S, S, 3) uint8, with its facts and what speaks against it.

    `identity` is the `identity_crop` of the same face.
    """
    facts["face_engine"] = predictor.pipeline.detector.engine
    facts["crop_sha256"] = hashlib.sha256(crop.tobytes()).hexdigest()
    warnings = tuple(f"Reference: {problem}." for problem in problems)
    place = predictor.identity(identity)
    return PersonReference(predictor.encode(crop), facts, warnings, crop[None], place)
