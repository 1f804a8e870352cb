"""How long trainings will take here, from a few measured steps of each network."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch

from siamcal.errors import TrainingError
from siamcal.model.siamese import CalibratingSiamese
from siamcal.training.augmentation import change, draw
from siamcal.training.frozen import Behind
from siamcal.training.loop import LOADERS, accelerator_of, out_of_memory
from siamcal.training.networks import TrainingStep, build_network
from siamcal.training.prediction import main_output
from siamcal.training.recipe import Recipe

__all__ = ["estimate_seconds", "seconds_per_step"]

# Images of a measured step on a processor, where a whole batch of a large network would take
# minutes by itself. On a GPU a small batch costs as much as a large one: there it is whole.
MEASURED = 8
# Other work can make single steps many times slower, so short ones are repeated this long.
_REPEATS, _SECONDS = (2, 30), 1.5


def seconds_per_step(recipe: Recipe, num_aus: int, *, calibrated: bool) -> float:
    """Time of one training step on the device that trains: the fastest of several on noise.

    Raises:
        TrainingError: Its memory is too small; the message names the settings to try.
    """
    accelerator = accelerator_of(recipe)
    device = accelerator.device
    on_cpu, loaders = device.type == "cpu", LOADERS if device.type == "cuda" else 1
    network = build_network(recipe, num_aus, calibrated=calibrated).to(device).train()
    size, part = recipe.preprocessing.size, max(1, recipe.batch_size // recipe.accumulate)
    count = min(part, MEASURED) if on_cpu else part
    distinct = _distinct(recipe, count)
    targets, references = torch.rand(count, 3, size, size), torch.rand(distinct, 3, size, size)
    index = torch.arange(count, device=device) % distinct
    _fit_to_noise(network, size)
    step: torch.nn.Module = TrainingStep(network)
    making = _fastest(lambda: _augment(recipe, targets, references)) / loaders
    if recipe.freeze_pre:
        step = behind = Behind(network, recipe)
        targets, references = torch.rand(count, behind.width), torch.rand(distinct, behind.width)
        making = 0.0  # features are read, not made
    targets, references = targets.to(device), references.to(device)

    def one() -> None:
        with accelerator.autocast():
            output = step(targets, references, index)
        main_output(output).sum().backward()
        if not on_cpu:
            torch.accelerator.synchronize(device)

    try:
        taken = _fastest(one)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise TrainingError(out_of_memory(recipe)) from error
    # Batches are made between the steps, or by other processes beside them.
    whole = max(taken, making) if loaders > 1 else taken + making
    return whole * recipe.batch_size / count


def _distinct(recipe: Recipe, count: int) -> int:
    """How many references `count` targets have."""
    if recipe.references_per != "participant" or not recipe.participants_per_batch:
        return count
    share = min(1.0, recipe.participants_per_batch / recipe.batch_size)
    return max(1, round(count * share))


def _augment(recipe: Recipe, *images: torch.Tensor) -> None:
    for some in images:
        generator = torch.Generator().manual_seed(0)
        change(some, draw(len(some), some.shape[-1], generator, recipe.augmentation))


def _fastest(work: Callable[[], None]) -> float:
    """Seconds of the fastest of several calls, the first left out."""
    times: list[float] = []
    fewest, most = _REPEATS
    while len(times) <= fewest or (len(times) <= most and sum(times[1:]) < _SECONDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def _fit_to_noise(network: torch.nn.Module, size: int) -> None:
    if isinstance(network, CalibratingSiamese) and not network.fitted:
        device = next(network.parameters()).device
        network.fit_anchor(torch.rand(2, 3, size, size, device=device))  # the faces don't matter


def seconds_of_features(recipe: Recipe, num_aus: int) -> float:
    """Time that the kept features of one frame and its copies take on the device that trains."""
    size, device = recipe.preprocessing.size, accelerator_of(recipe).device
    network = build_network(recipe, num_aus, calibrated=True).to(device)
    _fit_to_noise(network, size)
    behind = Behind(network, recipe)
    images = torch.rand(MEASURED, 3, size, size, device=device)

    def pack() -> None:
        behind.pack(images).cpu()

    return _fastest(pack) / MEASURED * (1 + recipe.freeze_pre)


def estimate_seconds(
    trainings: Sequence[tuple[Recipe, bool]],
    num_frames: int,
    num_folds: int,
    *,
    num_aus: int,
    folds_run: int | None = None,
) -> float:
    """About how long the trainings of a comparison take here, from a few measured steps of each.

    Args:
        trainings: Settings of each training of a fold, and whether it is calibrated.
        num_frames: Frames of the data set.
        num_folds: Its folds.
        num_aus: Number of AUs.
        folds_run: Folds to run; default: all.
    """
    seconds = 0.0
    known: list[tuple[tuple[Recipe, bool], float]] = []
    for recipe, calibrated in trainings:
        same = [each for settings, each in known if settings == (recipe, calibrated)]
        each = same[0] if same else seconds_per_step(recipe, num_aus, calibrated=calibrated)
        known.append(((recipe, calibrated), each))
        training = num_frames * (1 - 1 / max(2, num_folds))
        steps = recipe.steps or recipe.epochs * math.ceil(training / recipe.batch_size)
        # Predicting a frame costs about a third of training on it.
        validation = num_frames / max(1, num_folds) / recipe.batch_size / 3
        seconds += each * (steps + validation) * (folds_run or num_folds)
    # Features before one merge point are computed once for all trainings.
    frozen = {recipe.merge_at: recipe for recipe, _ in trainings if recipe.freeze_pre}
    return seconds + sum(num_frames * seconds_of_features(r, num_aus) for r in frozen.values())
