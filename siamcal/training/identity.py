"""What a training and a run are of: settings, start weights and data, by content, not by name."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor, nn

from siamcal.datasets.base import COLUMNS, DatasetSource, FaceSet, au_column
from siamcal.errors import ConfigError
from siamcal.files import checksum_of_file, read_json, write_json
from siamcal.model.create import is_file_name
from siamcal.model.weights_file import checksum_of_tensors
from siamcal.settings import to_dict
from siamcal.synth.plan import RENDERER_VERSION
from siamcal.training.batches import task_labels
from siamcal.training.recipe import Recipe
from siamcal.training.start import weights_path

__all__ = ["claim_folder", "digest_of_source", "identity_of", "recipe_facts", "start_digest"]

IDENTITY = "identity.json"
# Fields of a recipe that two trainings in one run's folder may differ in: a run holds both tasks.
_FREE = ("name", "note", "task")
# Paths, whose files' checksums say more.
_PATHS = ("weights", "checkpoint", "backbone")


def identity_of(
    recipe: Recipe, faces: FaceSet, rows: np.ndarray, *, calibrated: bool, start: str
) -> str:
    """What must agree for a checkpoint to be of the same training, as a SHA-256.

    Args:
        recipe: All settings.
        faces: The face set: crops, labels and who stands beside whom as a reference count.
        rows: Its training rows; the labels of other rows don't count.
        calibrated: CSN or NCG.
        start: `start_digest` of the network before the first step.
    """
    facts = [recipe_facts(recipe), calibrated, start, len(rows), faces.crops_digest]
    facts.append(_digest_of_table(faces.source, faces.table.iloc[rows]))
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    labels = task_labels(faces, recipe.task)[rows]
    for values in (rows, faces.reference_rows[rows], labels):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def start_digest(network: nn.Module) -> str:
    """SHA-256 of the weights with which a training starts, wherever they came from."""
    state = network.state_dict()
    return checksum_of_tensors({n: v for n, v in state.items() if isinstance(v, Tensor)})


def recipe_facts(recipe: Recipe) -> dict[str, Any]:
    """All settings of a recipe as plain JSON, with the checksums of the files it names.

    A path or a name says nothing of what lies there: weights that were trained on, a network's
    file that was edited, or another renderer's people, are another run.
    """
    facts = to_dict(recipe)
    if not recipe.checkpoint:  # names of earlier runs stay
        del facts["checkpoint"]
    for name, usual in (("detection", "search"), ("jpeg", 0)):
        if facts["preprocessing"][name] == usual:
            del facts["preprocessing"][name]
    if recipe.dataset == "synth":
        facts["renderer"] = RENDERER_VERSION
    files = {"checkpoint": recipe.checkpoint and Path(recipe.checkpoint).expanduser()}
    if recipe.weights not in ("", "pretrained"):
        files["weights"] = weights_path(recipe.weights)
    if is_file_name(recipe.backbone):
        files["backbone"] = Path(recipe.backbone.rpartition(":")[0]).expanduser()
    for name, path in files.items():
        if path and path.is_file():
            facts[f"{name}_sha256"] = checksum_of_file(path)
    return facts


def digest_of_source(source: DatasetSource) -> str:
    """SHA-256 of rows, labels, references, folds and thresholds; no image is opened.

    Pictures count by their place below the folder that all share, so that a copy of a data set
    elsewhere is the same.
    """
    sources = source.table["source"].astype(str)
    try:
        top = os.path.commonpath(list(sources.unique()))
        places = [os.path.relpath(place, top) for place in sources]
    except ValueError:  # no common folder, or no row
        places = list(sources)
    thresholds = {str(au): value for au, value in source.detection_thresholds.items()}
    facts = [source.folds, source.intensity_aus, source.detection_aus, thresholds]
    facts.append(_digest_of_table(source, source.table.assign(source=places), with_source=True))
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def claim_folder(folder: Path, recipe: Recipe, faces: FaceSet) -> None:
    """Note in a run's folder what it is of; a folder of anything else is refused.

    A run goes on in its folder, with more methods, seeds or the other task; the results of other
    data or settings would lie beside its own, and be read as one.

    Raises:
        ConfigError: The folder is another run's; the message says in what they differ.
    """
    settings = {k: v for k, v in recipe_facts(recipe).items() if k not in _FREE}
    for name in _PATHS:
        if f"{name}_sha256" in settings:
            settings.pop(name, None)
    facts = {
        **settings,
        "frames, labels and references": digest_of_source(faces.source),
        "frames with a face": _digest_of_table(faces.source, faces.table),
        "reference of each frame": hashlib.sha256(
            np.ascontiguousarray(faces.reference_rows).tobytes()
        ).hexdigest(),
        "crops": faces.crops_digest,
    }
    facts = json.loads(json.dumps(facts))
    place = folder / IDENTITY
    if not place.exists():
        write_json(place, facts)
        return
    known = read_json(place)
    if not isinstance(known, dict):
        raise ConfigError(f"{place} holds no table; delete {folder}, or give another --name.")
    wrong = sorted(k for k in {*facts, *known} if facts.get(k) != known.get(k))
    if wrong:
        raise ConfigError(
            f"{folder} holds a run of other data or settings: {_named(wrong, known, facts)}. Give "
            "a new folder (--name of bench, -o of train), or delete this one."
        )


def _named(wrong: Sequence[str], known: dict[str, Any], facts: dict[str, Any]) -> str:
    def text(key: str) -> str:
        before, now = known.get(key), facts.get(key)
        short = isinstance(before, int | float | str) and isinstance(now, int | float | str)
        if not short or len(f"{before}{now}") > 80:
            return f"{key} differ" if key in ("crops",) or " " in key else f"{key} differs"
        return f"{key} was {before!r} and is {now!r}"

    return "; ".join(map(text, wrong))


def _digest_of_table(
    source: DatasetSource, table: pd.DataFrame, *, with_source: bool = False
) -> str:
    """SHA-256 of the columns that every data set has."""
    names = [c for c in COLUMNS if c != "source" or with_source]
    names += [au_column(au) for au in source.aus]
    digest = hashlib.sha256(" ".join(names).encode())
    digest.update(pd.util.hash_pandas_object(table[names], index=False).to_numpy().tobytes())
    return digest.hexdigest()
