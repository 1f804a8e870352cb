"""Train a recipe on all participants and save the result as a calibrator."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from siamcal.calibrators.saving import describe, save_calibrator
from siamcal.datasets import load_dataset
from siamcal.datasets.base import FaceSet
from siamcal.datasets.crops.prepare import prepare
from siamcal.errors import ConfigError
from siamcal.files import make_folder, write_json
from siamcal.model.heads import RawIntensityHead, drawn_to_zero, make_head
from siamcal.model.siamese import CalibratingSiamese
from siamcal.settings import to_dict
from siamcal.training.checkpoint import load_trained
from siamcal.training.identity import claim_folder
from siamcal.training.loop import fit
from siamcal.training.recipe import Recipe
from siamcal.training.rescaling import factors_of, noisy_readings, split_people

__all__ = ["config_facts", "train_everyone"]

logger = logging.getLogger(__name__)

# AUs whose action a network trained on rendered faces has been seen to follow on real clips in
# trials; the others never happened there and can't be judged. None is claimed as shown: that takes
# a measurement on five people at least (`siamcal.calibrators.statuses`).
TRIED_ON_REAL_FACES = (1, 2, 4, 5, 6, 12, 25, 26)

NOT_COMMERCIAL = (
    "trained from face-recognition weights given by the user; if those are glint360k's "
    "(InsightFace), the result is for non-commercial research only"
)


def train_everyone(
    recipe: Recipe,
    folder: Path,
    *,
    data_root: Path | None = None,
    workers: int | None = None,
    tensorboard: bool = False,
) -> Path:
    """Train the calibrated network of a recipe on every participant; resumes where interrupted.

    Args:
        recipe: All settings.
        folder: The run's folder; the calibrator goes to `folder/calibrator`.
        data_root: Where the data lie.
        workers: Processes that prepare the data.
        tensorboard: Write TensorBoard logs.

    Returns:
        The calibrator's folder, for `siamcal predict --model` and `siamcal push`.
    """
    source = load_dataset(recipe.dataset, data_root, **recipe.dataset_options)
    _check_head(recipe, len(source.task_aus(recipe.task)))
    faces = prepare(source, recipe.preprocessing, workers=workers)
    make_folder(folder)
    claim_folder(folder, recipe, faces)
    write_json(folder / "recipe.json", to_dict(recipe))
    rows, left_out = _rows(recipe, faces)
    network = fit(
        recipe,
        faces,
        rows,
        calibrated=True,
        folder=folder / f"everyone_{recipe.task}",
        description=f"CSN, {recipe.task}, everyone",
        tensorboard=tensorboard,
    )
    if not isinstance(network, CalibratingSiamese):
        raise ConfigError(f"Expected a calibrated network, but got {type(network).__name__}.")
    if len(left_out):
        readings, labels = noisy_readings(network, faces, left_out, recipe)
        factors = factors_of(drawn_to_zero(readings, recipe.soft_zero), labels)
        network.head = make_head("intensity", len(factors), factors)
    place = folder / "calibrator"
    save_calibrator(network.cpu(), describe(network.cpu(), **config_facts(recipe, faces)), place)
    return place


def _rows(recipe: Recipe, faces: FaceSet) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, and those whose readings are scaled."""
    rows, count = faces.table.index.to_numpy(), recipe.rescale_people
    if not count or recipe.task != "intensity":
        return rows, rows[:0]
    people = len(np.unique(faces.participants))
    if count >= people:
        raise ConfigError(
            f"rescale_people={count} leaves nobody to train on: {faces.source.name} shows {people} "
            "participants."
        )
    return split_people(faces, count)


def _check_head(recipe: Recipe, num_aus: int) -> None:
    """Refuse before the training what can't be saved after it."""
    if recipe.checkpoint and isinstance(load_trained(recipe, num_aus)[1], RawIntensityHead):
        raise ConfigError(
            f"{recipe.checkpoint} gives one intensity an AU, but a saved calibrator of intensities "
            f"has siamcal's head of 6 outputs an AU. Compare it by `siamcal bench`, or wrap the "
            "network in Python: CalibratingSiamese(net, merge_at=...) saves its raw outputs."
        )


def config_facts(recipe: Recipe, faces: FaceSet) -> dict[str, Any]:
    """What a saved calibrator says of its task, data and licence."""
    source = faces.source
    aus = source.task_aus(recipe.task)
    rendered = source.rendered
    own_start = not recipe.checkpoint and (
        not recipe.weights or recipe.weights.startswith("asset:")
    )
    return {
        "task": recipe.task,
        "aus": aus,
        "thresholds": tuple(float(source.detection_thresholds.get(au, 2)) for au in aus),
        "au_status": tuple(
            "experimental" if rendered and au in TRIED_ON_REAL_FACES else "not validated"
            for au in aus
        ),
        "zero_at_reference": recipe.zero_at_reference and recipe.task == "intensity",
        "soft_zero": recipe.soft_zero if recipe.task == "intensity" else 0.0,
        "preprocessing": recipe.preprocessing,
        "training_data": (
            f"{source.name}: {len(source.participants)} participants, {len(faces)} frames"
            + (" (rendered faces only)" if rendered else "")
        ),
        "rendered": rendered,
        "data_licence": source.licence or "not stated",
        "licence": "apache-2.0" if own_start and rendered else "other",
        "licence_reason": (
            "trained on rendered people; the weights it started from, if any, ship with siamcal "
            "under Apache-2.0"
            if own_start and rendered
            else "derived from a licensed data set; its terms apply to the weights"
            if own_start
            else "derived from pretrained weights of the backbone's source; their terms apply"
            if recipe.weights == "pretrained" or recipe.weights.endswith(".dat")  # dlib's
            else "derived from a trained network given by the user; its terms apply"
            if recipe.checkpoint
            else NOT_COMMERCIAL
        ),
    }
