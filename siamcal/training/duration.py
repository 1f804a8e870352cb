"""How long a training will take here, from a few measured steps."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch

from siamcal.model.siamese import CalibratingSiamese
from siamcal.training.frozen import Behind
from siamcal.training.networks import TrainingStep, build_network
from siamcal.training.prediction import main_output
from siamcal.training.recipe import Recipe

__all__ = ["estimate_seconds", "seconds_per_step"]

# Images of a measured step: a whole batch of a large network would take minutes by itself.
MEASURED = 8
# Other work can make single steps many times slower, so short ones are repeated this long.
_REPEATS, _SECONDS = (2, 30), 1.5


def seconds_per_step(recipe: Recipe, num_aus: int, *, calibrated: bool) -> float:
    """Time of one training step on this machine: the fastest of several on random images."""
    network = build_network(recipe, num_aus, calibrated=calibrated).train()
    size, count = recipe.preprocessing.size, min(recipe.batch_size, MEASURED)
    distinct = count
    if recipe.references_per == "participant" and recipe.participants_per_batch:
        share = min(1.0, recipe.participants_per_batch / recipe.batch_size)
        distinct = max(1, round(count * share))
    targets, references = torch.rand(count, 3, size, size), torch.rand(distinct, 3, size, size)
    index = torch.arange(count) % distinct
    _fit_to_noise(network, size)
    step: torch.nn.Module = TrainingStep(network)
    if recipe.freeze_pre:
        step = behind = Behind(network, recipe)
        targets, references = torch.rand(count, behind.width), torch.rand(distinct, behind.width)
    times: list[float] = []
    fewest, most = _REPEATS
    while len(times) <= fewest or (len(times) <= most and sum(times[1:]) < _SECONDS):
        start = time.perf_counter()
        output = step(targets, references, index)
        main_output(output).sum().backward()
        times.append(time.perf_counter() - start)
    return min(times[1:]) * recipe.batch_size / count


def _fit_to_noise(network: torch.nn.Module, size: int) -> None:
    if isinstance(network, CalibratingSiamese) and not network.fitted:
        network.fit_anchor(torch.rand(2, 3, size, size))  # the time doesn't depend on the faces


def seconds_of_features(recipe: Recipe, num_aus: int) -> float:
    """Time that the kept features of one frame and its copies take on this machine."""
    size = recipe.preprocessing.size
    network = build_network(recipe, num_aus, calibrated=True)
    _fit_to_noise(network, size)
    behind = Behind(network, recipe)
    images, times = torch.rand(MEASURED, 3, size, size), []
    for _ in range(3):
        start = time.perf_counter()
        behind.pack(images)
        times.append(time.perf_counter() - start)
    return min(times) / MEASURED * (1 + recipe.freeze_pre)


def estimate_seconds(
    recipe: Recipe,
    num_frames: int,
    num_folds: int,
    *,
    num_aus: int,
    calibrated: Sequence[bool],
    folds_run: int | None = None,
) -> float:
    """About how long the trainings of a comparison take here, from a few measured steps.

    Args:
        recipe: All settings.
        num_frames: Frames of the data set.
        num_folds: Its folds.
        num_aus: Number of AUs.
        calibrated: Kind of each training of a fold.
        folds_run: Folds to run; default: all.
    """
    training = num_frames * (1 - 1 / max(2, num_folds))
    steps = recipe.steps or recipe.epochs * math.ceil(training / recipe.batch_size)
    # Predicting a frame costs about a third of training on it.
    validation = num_frames / max(1, num_folds) / recipe.batch_size / 3
    each = sum(
        calibrated.count(kind) * seconds_per_step(recipe, num_aus, calibrated=kind)
        for kind in set(calibrated)
    )
    trainings = each * (steps + validation) * (folds_run or num_folds)
    if not recipe.freeze_pre:
        return trainings
    return trainings + num_frames * seconds_of_features(recipe, num_aus)
