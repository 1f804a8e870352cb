"""A person's profile: the reference of one or several neutral frames, kept in a file."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from siamcal.errors import ConfigError
from siamcal.faces.measures import FaceMeasures
from siamcal.faces.media import open_media
from siamcal.faces.media.files import refuse_odd
from siamcal.inference.choosing import choose_reference
from siamcal.inference.outputs import check_outputs, own_profile
from siamcal.inference.prediction import Predictor
from siamcal.inference.references import PersonReference, read_reference, reference_frame
from siamcal.model.reference import Reference
from siamcal.model.weights_file import checksum_of_tensors, read_sealed

__all__ = ["calibrate", "load_profile", "save_profile"]

# A frame that reads so much, in intensity steps over all AUs, against the pool of all frames shows
# another state of the face than they do, another light, or another person.
MOST_APART = 0.5


def calibrate(
    inputs: str | Path | Sequence[str | Path],
    predictor: Predictor,
    *,
    frame: int | None = None,
    sound_only: bool = True,
    sheet: Path | None = None,
) -> PersonReference:
    """A person's reference from one or several pictures and recordings.

    Each picture gives its frame; each video, and each folder of pictures, its most neutral one
    (`choose_reference`). Several are pooled (`siamcal.model.pooling`): of three or more, one that
    isn't neutral hardly counts.

    Args:
        inputs: All of one person.
        predictor: Model and face pipeline.
        frame: Take this frame (from 1 on) of the only input.
        sound_only: Refuse recordings without a sound neutral frame; else their best frame counts.
        sheet: Draw the frames that the only recording's is chosen from, as in `choose_reference`.

    Returns:
        The reference. Its facts tell of each frame: where it is from, how neutral it was judged,
        and how much it reads against the pool (0 would be right).

    Raises:
        ConfigError: No input, `frame` with several, or `sheet` where no frame of one is chosen.
        MediaError, FaceNotFoundError: One can't be read, or shows no face or no neutral frame.
    """
    given = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    if not given or (frame is not None and len(given) > 1):
        told = f"frame={frame} and {len(given)} inputs" if given else "none"
        raise ConfigError(
            f"calibrate takes pictures and recordings of one person (with `frame` one of them), "
            f"but got {told}."
        )
    if frame is not None and sheet is not None:
        raise ConfigError(f"{sheet} would show what is chosen from; `frame` names one already.")
    if frame is not None:
        return reference_frame(given, predictor, frame)
    recordings = [Path(path).is_dir() or open_media(path).kind == "video" for path in given]
    if sheet is not None and recordings != [True]:
        raise ConfigError(
            f"{sheet} would show the frames that one is chosen from; name one video, or one folder "
            f"of pictures."
        )
    people = [
        choose_reference(path, predictor, sound_only=sound_only, sheet=sheet)
        if several
        else read_reference(path, predictor)
        for path, several in zip(given, recordings, strict=True)
    ]
    if len(people) == 1:
        return people[0]
    pooled = _pooled(people, predictor)
    pooled.facts["remake"] = [str(path) for path in given] + ["--best"] * (not sound_only)
    return pooled


def _pooled(people: list[PersonReference], predictor: Predictor) -> PersonReference:
    features = Reference.pooled([one.features for one in people])
    crops = np.concatenate([one.crops for one in people if one.crops is not None])
    frames = [dict(one.facts) for one in people]
    warnings = [f"{one.facts['source']}: {text}" for one in people for text in one.warnings]
    if predictor.config.task == "intensity":
        apart = np.abs(predictor.read(crops, features)).mean(1)  # (K,)
        warnings += _note_apart(frames, apart.tolist())
    names = ", ".join(str(one.facts["source"]) for one in people)
    facts: dict[str, Any] = {"kind": "pooled", "source": names, "frames": frames}
    seen = [one.measures for one in people]
    facts["face"] = FaceMeasures.median([m for m in seen if m is not None]).to_dict()
    places = [one.identity for one in people if one.identity is not None]
    identity = np.mean(places, axis=0) if places else None
    return PersonReference(features, facts, tuple(warnings), crops, identity)


def _note_apart(frames: list[dict[str, Any]], apart: list[float]) -> list[str]:
    """Write into the frames' facts how much each reads; return what is to be warned of."""
    warnings = []
    for frame, value in zip(frames, apart, strict=True):
        frame["reads"] = round(value, 3)
        if value > MOST_APART:
            warnings.append(
                f"{frame['source']}: it reads {value:.2f} on average against all frames together "
                "(0 would be right): another expression, light or person."
            )
    return warnings


def save_profile(
    reference: PersonReference,
    path: str | Path,
    predictor: Predictor,
    *,
    image: bool = False,
    replace: bool = False,
) -> None:
    """Write a person's reference, bound to the calibrator that encoded it; only its owner may read.

    The file holds features of a face: treat it like a photograph of the person.

    Args:
        reference: Of the person.
        path: Where to.
        predictor: Encoded it.
        image: Keep the crops that were encoded too, to see whose profile it is.
        replace: A profile that is there may be replaced; other files never are.

    Raises:
        ConfigError: It can't be written there, or would destroy something.
    """
    path = Path(path)
    sources = [facts["source"] for facts in reference.facts.get("frames", [reference.facts])]
    check_outputs([(path, own_profile)], sources, replace=replace)
    told = {
        "calibrator": _identity(predictor),
        "facts": json.dumps(reference.facts),
        "warnings": json.dumps(reference.warnings),
        "remake": _command(reference, path),
    }
    if reference.identity is not None:
        told["placed_by"] = predictor.identity.key
    crops = reference.crops if image else None
    kept = {"image": crops, "identity": reference.identity}
    beside = {n: torch.from_numpy(v.copy()) for n, v in kept.items() if v is not None}
    try:
        reference.features.to("cpu").save(path, facts=told, beside=beside, private=True)
    except OSError as error:
        raise ConfigError(f"The profile {path} can't be written ({error}).") from error


def load_profile(path: str | Path, predictor: Predictor) -> PersonReference:
    """A person's reference as `save_profile` wrote it.

    Raises:
        ConfigError: It is missing, damaged, or was made with another calibrator.
    """
    path = Path(path)
    if not path.exists():
        raise ConfigError(
            f"There is no profile {path}. Make it: siamcal calibrate neutral.jpg -o {path}"
        )
    refuse_odd(path)
    try:
        features = Reference.load(path)
        tensors, metadata = read_sealed(path)
        facts, warnings = json.loads(metadata["facts"]), json.loads(metadata["warnings"])
        facts, warnings = {**facts, "profile": str(path)}, tuple(map(str, warnings))
        crops = tensors["image"].numpy() if "image" in tensors else None
        identity = metadata["calibrator"]
    except (LookupError, TypeError, ValueError) as error:  # a ConfigError is a ValueError
        raise ConfigError(
            f"{path} is no profile of siamcal, or it is damaged. A profile is made by "
            "siamcal calibrate neutral.jpg -o anna.siamcal; a picture is given with --reference."
        ) from error
    command = metadata.get("remake") or f"siamcal calibrate neutral.jpg -o {path}"
    if identity != _identity(predictor):
        raise ConfigError(
            f"The profile {path} was made with another calibrator or another preprocessing; its "
            f"features mean nothing to this one. Make it again, naming this calibrator with "
            f"--model: {command}"
        )
    found_by, engine = facts.get("face_engine", "mediapipe"), predictor.pipeline.detector.engine
    if found_by != engine:
        warnings += (
            f"Reference: the profile's face was found by {found_by!r}, this run's are by "
            f"{engine!r}; they differ little, and not at all if you make the profile again.",
        )
    kept, place = tensors.get("identity"), None
    if kept is not None and metadata.get("placed_by") == predictor.identity.key:
        place = kept.numpy()
    else:  # placed by another version, or not at all
        warnings += (
            "Reference: the profile was made by an earlier version of siamcal; whether a face is "
            f"another person's isn't checked. Make it again: {command}",
        )
    return PersonReference(features, facts, warnings, crops, place)


def _command(reference: PersonReference, path: Path) -> str:
    """The command line that makes this profile from the same frames."""
    made_from = reference.facts.get("remake") or [reference.facts.get("source", "neutral.jpg")]
    return shlex.join(["siamcal", "calibrate", *made_from, "-o", str(path)])


def _identity(predictor: Predictor) -> str:
    """What a profile is bound to: weights, merge point and preprocessing."""
    config = predictor.config
    weights = config.weights_checksum or checksum_of_tensors(predictor.model.state_dict())
    told = repr((weights, config.merge_at, config.preprocessing))
    return hashlib.sha256(told.encode()).hexdigest()
