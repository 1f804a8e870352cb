"""Predictors that never see an image, constant or by chance: what any method must beat."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from siamcal.evaluation.metrics import mean_over_aus, metrics_of
from siamcal.evaluation.predictions import TaskPredictions
from siamcal.evaluation.sums import for_json


def blind_results(
    found: TaskPredictions, folds: Iterable[Iterable[str]], seed: int = 0
) -> dict[str, dict[str, float | None]]:
    """Metrics of blind predictors made from the other folds' labels.

    Args:
        found: A run's predictions, of which only the labels are read.
        folds: Participants of each fold. A fold without others among the predictions (one fold was
            run) falls back on its own labels.
        seed: Of the chance predictor.

    Returns:
        Predictor -> metric -> mean over AUs, None where undefined.
    """
    member = np.full(len(found.labels), -1)
    for number, fold in enumerate(folds):
        member[np.isin(found.participants, list(fold))] = number
    blind: dict[str, np.ndarray] = {}
    for number in np.unique(member):
        inside = member == number
        others = found.labels[inside if inside.all() else ~inside]
        made = blind_predictors(others, inside.sum(), task=found.task, seed=seed + int(number))
        for name, preds in made.items():
            blind.setdefault(name, np.full(found.labels.shape, np.nan))[inside] = preds
    return {
        name: {
            metric.name: for_json(mean_over_aus(metric(preds, found.labels, found.participants)))
            for metric in metrics_of(found.task)
        }
        for name, preds in blind.items()
    }


def blind_predictors(
    train_labels: np.ndarray, rows: int, *, task: str = "intensity", seed: int = 0
) -> dict[str, np.ndarray]:
    """Predictions made without looking at an image: what any method must beat.

    Args:
        train_labels: (M, A) labels of the training participants; negative or NaN is invalid.
        rows: Number of frames to predict.
        task: "intensity" or "detection" (then the outputs are logits of -1 and 1).
        seed: Of the chance predictor.

    Returns:
        Name -> (rows, A). "zero", "never" and "always" are constants; "mean", "median" and (for
        detection) "majority" are constants learnt from the labels; "chance" draws each frame
        from the training labels of its AU.
    """
    if task not in ("intensity", "detection"):
        raise ValueError(f"Expected task to be 'intensity' or 'detection', but got {task!r}.")
    train_labels = np.asarray(train_labels, np.float64)
    columns = [c[c >= 0] if (c >= 0).any() else np.zeros(1) for c in train_labels.T]
    generator = np.random.default_rng(seed)
    chance = np.stack([generator.choice(c, rows) for c in columns], axis=1)
    mean = np.array([c.mean() for c in columns])
    if task == "intensity":
        constants = {"zero": np.zeros_like(mean), "mean": mean,
                     "median": np.array([np.median(c) for c in columns])}  # fmt: skip
    else:
        ones = np.ones_like(mean)
        constants = {"never": -ones, "always": ones, "majority": np.where(mean > 0.5, 1.0, -1.0)}
        chance = 2.0 * chance - 1.0
    return {**{k: np.tile(v, (rows, 1)) for k, v in constants.items()}, "chance": chance}
