"""Participant-exclusive cross-validation of NCG, baseline subtraction and CSN, and their results.

All methods share start weights, optimisation steps, batches and augmentation. Predictions of all
folds are pooled, then one metric an AU is computed over all frames, as in arXiv:2409.00240.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from siamcal.datasets.base import DatasetSource, FaceSet
from siamcal.environment import describe_environment
from siamcal.errors import ConfigError
from siamcal.evaluation.agreement import participant_bias
from siamcal.evaluation.blind import blind_results
from siamcal.evaluation.checkpoints import drop_checkpoints, is_finished
from siamcal.evaluation.intervals import metric_interval, paired_difference
from siamcal.evaluation.methods import pairs, parse
from siamcal.evaluation.metrics import mean_over_aus, metrics_of
from siamcal.evaluation.point_choice import PointChoice
from siamcal.evaluation.predictions import TaskPredictions
from siamcal.evaluation.trial import Trial
from siamcal.files import make_folder, read_json, write_json
from siamcal.paper import paper_cell
from siamcal.settings import to_dict
from siamcal.training.batches import task_labels
from siamcal.training.checkpoint import describe_checkpoint
from siamcal.training.identity import claim_folder
from siamcal.training.points import sweep_points
from siamcal.training.recipe import Recipe

__all__ = [
    "Comparison",
    "Job",
    "checkpoint_facts",
    "compare",
    "cross_validate",
    "describe_dataset",
    "sweep_points",
    "tasks_of",
    "tested_people",
]

logger = logging.getLogger(__name__)

RESULTS_FORMAT = 1


@dataclass(frozen=True)
class Job:
    """A comparison to run.

    Attributes:
        recipe: All settings of the trainings.
        folder: The run's folder; each training keeps its checkpoint below it.
        tasks: "intensity", "detection" or both; empty: the recipe's.
        methods: Names; see `siamcal.evaluation.methods`.
        data_root: Where the data lie.
        seeds: Repeat everything with these seeds; tables show the first and the spread over all.
            Default: the recipe's.
        folds: Run these folds only; default: all.
        workers: Processes that prepare the data.
        tensorboard: Write TensorBoard logs.
        drop_checkpoints: Delete the trained networks when the results are written.
    """

    recipe: Recipe
    folder: Path
    tasks: tuple[str, ...] = ()
    methods: tuple[str, ...] = ("ncg", "bs", "csn")
    data_root: Path | None = None
    seeds: Sequence[int] | None = None
    folds: Sequence[int] | None = None
    workers: int | None = None
    tensorboard: bool = False
    drop_checkpoints: bool = False


@dataclass(frozen=True)
class Comparison:
    """Everything a report needs: the results (plain JSON) and the predictions of each task."""

    results: dict[str, Any]
    predictions: dict[str, TaskPredictions]


def compare(job: Job, faces: FaceSet) -> Comparison:
    """Cross-validate the methods and compute all results; finished parts are not run again.

    Args:
        job: What to compare.
        faces: The cropped data set.

    Returns:
        Results and predictions, also written to `folder/results.json` and
        `folder/predictions_<task>.parquet`.

    Raises:
        WeightsError: The recipe's checkpoint doesn't fit.
        ConfigError: It is to be read as intensities and as occurrence, or the folder holds a run
            of other data or settings.
    """
    started = time.time()
    recipe, folder, methods = job.recipe, job.folder, job.methods
    faces = tested_people(recipe, faces)
    checkpoint = checkpoint_facts(job, faces.source)
    make_folder(folder)
    claim_folder(folder, recipe, faces)
    tasks, seeds = tasks_of(job), job.seeds or (recipe.seed,)
    numbers = range(len(faces.source.folds)) if job.folds is None else job.folds
    asked = {"methods": methods, "tasks": tasks, "seeds": seeds, "folds": numbers}
    done = {name: list(values) for name, values in asked.items()}
    if is_finished(folder, done):
        logger.warning(f"{folder} holds these results; its networks were deleted, none is trained")
        known = {found.task: found for found in TaskPredictions.load(folder)}
        return Comparison(read_json(folder / "results.json"), known)
    write_json(folder / "recipe.json", to_dict(recipe))
    if faces.source.participants_table is not None:  # for reports by group: siamcal stats --by
        faces.source.participants_table.to_csv(folder / "participants.csv", index=False)
    results: dict[str, Any] = {
        "format": RESULTS_FORMAT,
        "name": folder.name,
        "recipe": to_dict(recipe),
        "dataset": describe_dataset(faces),
        "environment": describe_environment(),
        "methods": {method: {} for method in methods},
        "differences": {},
        "sanity": {},
        "seeds": {},
        "paper": {},
        **({"checkpoint": checkpoint} if checkpoint else {}),
    }
    predictions = {}
    for task in tasks:
        for number, seed in enumerate(seeds):
            one = dataclasses.replace(recipe, task=task, seed=seed)
            place = folder if seed == recipe.seed else folder / f"seed{seed}"
            found, choices = _cross_validated(
                one, faces, place, methods, job.folds, job.tensorboard
            )
            if choices:
                chosen = results.setdefault("merge_points", {}).setdefault(task, {})
                chosen[str(seed)] = {name: choice.to_dict() for name, choice in choices.items()}
            if number == 0:
                predictions[task] = found
                _add_task(results, found, faces)
            if len(seeds) > 1:
                _add_seed(results, found, seed)
        predictions[task].save(folder)
    _add_paper(results, faces.source.name, tasks, methods)
    results["seconds"] = round(time.time() - started, 1)
    write_json(folder / "results.json", results)
    if job.drop_checkpoints:
        drop_checkpoints(folder, done)
    return Comparison(results, predictions)


def cross_validate(
    recipe: Recipe,
    faces: FaceSet,
    folder: Path,
    methods: Sequence[str] = ("ncg", "bs", "csn"),
    folds: Sequence[int] | None = None,
    tensorboard: bool = False,
) -> TaskPredictions:
    """Train and predict every fold of every method, pooled in the face set's order.

    Raises:
        ConfigError: An unknown method, or a fold the data set doesn't have.
    """
    return _cross_validated(recipe, faces, folder, methods, folds, tensorboard)[0]


def _cross_validated(
    recipe: Recipe,
    faces: FaceSet,
    folder: Path,
    methods: Sequence[str],
    folds: Sequence[int] | None,
    tensorboard: bool,
) -> tuple[TaskPredictions, dict[str, PointChoice]]:
    """The predictions, and the merge point that each fold chose, if any method asked for one."""
    for method in methods:
        parse(method)
    faces = tested_people(recipe, faces)
    numbers = range(len(faces.source.folds)) if folds is None else folds
    for number in numbers:
        if not 0 <= number < len(faces.source.folds):
            raise ConfigError(
                f"Data set '{faces.source.name}' has folds 0 to {len(faces.source.folds) - 1}, "
                f"but got {number}."
            )
    parts, choices = [], {}
    for number in numbers:
        training, validation = faces.fold(number)
        trial = Trial(recipe, faces, training, folder, f"fold{number}", tensorboard=tensorboard)
        parts.append((validation, trial.predict(methods, faces, validation)))
        if trial.choice is not None:
            choices[f"fold{number}"] = trial.choice
    rows = np.concatenate([part[0] for part in parts])
    order = np.argsort(rows)
    rows = rows[order]
    found = TaskPredictions(
        recipe.task,
        faces.source.task_aus(recipe.task),
        faces.table.iloc[rows][["participant", "view", "sequence", "frame"]],
        task_labels(faces, recipe.task)[rows],
        {m: np.concatenate([part[1][m] for part in parts])[order] for m in methods},
    )
    return found, choices


def tested_people(recipe: Recipe, faces: FaceSet) -> FaceSet:
    """The face set with the people whom a comparison tests in its folds.

    A checkpoint learns from nobody, so that whoever is in no fold (they train only, elsewhere) is
    tested too, in a fold of their own.
    """
    source = faces.source
    inside = {person for fold in source.folds for person in fold}
    rest = tuple(p for p in source.participants if p not in inside)
    if not recipe.checkpoint or not rest:
        return faces
    logger.info(f"{len(rest)} people in no fold are tested as fold {len(source.folds)}")
    source = dataclasses.replace(source, folds=(*source.folds, rest))
    return dataclasses.replace(faces, source=source)


def checkpoint_facts(job: Job, source: DatasetSource) -> dict[str, Any]:
    """What a report says of the job's checkpoint, empty without one; a wrong one is refused.

    Raises:
        WeightsError: It doesn't fit.
        ConfigError: It is to be read as intensities and as occurrence.
    """
    if not job.recipe.checkpoint:
        return {}
    tasks = tasks_of(job)
    if len(tasks) > 1:
        raise ConfigError(
            f"The outputs of {job.recipe.checkpoint} are intensities or occurrence logits, not "
            f"both, but the tasks are {' and '.join(tasks)}; give --task intensity or detection."
        )
    recipe = dataclasses.replace(job.recipe, task=tasks[0])
    return describe_checkpoint(recipe, source.task_aus(tasks[0]))


def tasks_of(job: Job) -> tuple[str, ...]:
    """The tasks of a comparison: those it names, or the recipe's."""
    return tuple(job.tasks) or (job.recipe.task,)


def describe_dataset(faces: FaceSet) -> dict[str, Any]:
    """Who and how much a result was measured on."""
    source = faces.source
    return {
        "name": source.name,
        "description": source.description,
        "rendered": source.rendered,
        "participants": len(source.participants),
        "frames": len(faces),
        "dropped_frames": len(faces.dropped),
        "views": sorted(faces.table["view"].unique().tolist()),
        "folds": [list(fold) for fold in source.folds],
        "references": source.references,
        "intensity_aus": list(source.intensity_aus),
        "detection_aus": list(source.detection_aus),
        "preprocessing": to_dict(faces.preprocessing),
        "masked_labels": {
            "count": len(source.masked_labels),
            "labels": [vars(label) for label in source.masked_labels],
        },
    }


def _add_task(results: dict[str, Any], found: TaskPredictions, faces: FaceSet) -> None:
    for method, preds in found.preds.items():
        cells = {m.name: _cell(m.name, preds, found) for m in metrics_of(found.task)}
        results["methods"][method][found.task] = cells
    for first, second in pairs(found.preds):
        cells = results["differences"].setdefault(f"{first}-{second}", {})
        cells[found.task] = {
            m.name: _difference(m.name, first, second, found) for m in metrics_of(found.task)
        }
    results["sanity"][found.task] = blind_results(found, faces.source.folds)
    if found.task == "intensity":
        results["bias_per_participant"] = {
            method: _participant_bias(preds, found) for method, preds in found.preds.items()
        }


def _cell(metric: str, preds: np.ndarray, found: TaskPredictions) -> dict[str, Any]:
    return metric_interval(metric, preds, found.labels, found.participants).to_dict(found.aus)


def _difference(metric: str, first: str, second: str, found: TaskPredictions) -> dict[str, Any]:
    return paired_difference(
        metric, found.preds[first], found.preds[second], found.labels, found.participants
    ).to_dict(found.aus)


def _participant_bias(preds: np.ndarray, found: TaskPredictions) -> dict[str, float | None]:
    """Mean signed error of each participant, over its AUs."""
    people, bias = participant_bias(preds, found.labels, found.participants)
    return {str(p): _number(mean_over_aus(b)) for p, b in zip(people, bias, strict=True)}


def _add_seed(results: dict[str, Any], found: TaskPredictions, seed: int) -> None:
    for method, preds in found.preds.items():
        cells = {
            metric.name: _number(mean_over_aus(metric(preds, found.labels, found.participants)))
            for metric in metrics_of(found.task)
        }
        per_seed = results["seeds"].setdefault(str(seed), {}).setdefault(method, {})
        per_seed[found.task] = cells


def _add_paper(
    results: dict[str, Any], dataset: str, tasks: Sequence[str], methods: Sequence[str]
) -> None:
    for method in methods:
        for task in tasks:
            for metric in metrics_of(task):
                cell = paper_cell(dataset, method, metric.name)
                if cell is not None:
                    place = results["paper"].setdefault(method, {}).setdefault(task, {})
                    place[metric.name] = cell


def _number(value: Any) -> float | None:
    """A float for JSON: NaN, which JSON doesn't have, becomes null."""
    number = float(value)
    return None if math.isnan(number) else round(number, 6)
