"""One training loop for calibrated and plain networks, on one process or several."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from siamcal.datasets.base import FaceSet
from siamcal.errors import ConfigError, TrainingError
from siamcal.files import make_folder
from siamcal.model.batchnorm_gap import batchnorm_gap, warn_of_gap
from siamcal.model.siamese import CalibratingSiamese
from siamcal.progress import progress_bar
from siamcal.training.batches import Batch, BatchSource, split, task_labels
from siamcal.training.frozen import Behind, keep_features, keep_reference_features
from siamcal.training.identity import identity_of, start_digest
from siamcal.training.log import LossLog
from siamcal.training.networks import (
    TrainingStep,
    build_network,
    fit_merge,
    synchronize_batchnorm,
)
from siamcal.training.objective import Objective, learning_rate_factor, make_optimizer
from siamcal.training.recipe import Recipe
from siamcal.training.resume import CHECKPOINT, TrainingState

__all__ = ["LOADERS", "TrainingLoop", "accelerator_of", "compiled", "fit", "out_of_memory"]

# A training that is killed loses this long, or twenty times what a checkpoint takes to write.
CHECKPOINT_SECONDS = 20.0
# Processes that make batches beside a GPU.
LOADERS = 4


def fit(
    recipe: Recipe,
    faces: FaceSet,
    rows: np.ndarray,
    *,
    calibrated: bool,
    folder: Path | None = None,
    description: str = "training",
    tensorboard: bool = False,
) -> nn.Module:
    """Train a recipe's network on the given rows; resumes from `folder` where it was interrupted.

    Under `accelerate launch` every process calls this with the same arguments, trains on its share
    of each batch and gets the same network. BatchNorm then sees the whole batch on CUDA
    (`recipe.sync_batchnorm`). On the CPU, for which torch can't synchronise it, each process
    normalises by its own share and the first process's running statistics are kept: only with
    `recipe.freeze_batchnorm` is the result there that of one process.

    Args:
        recipe: All settings.
        faces: The face set.
        rows: Its training rows.
        calibrated: CSN (True) or NCG (False), both from the same start, batches and steps; a
            `recipe.checkpoint` is NCG as it is, without a step.
        folder: Where checkpoint and loss log go; None keeps nothing.
        description: Label of the progress bar.
        tensorboard: Write TensorBoard logs to `folder/tensorboard`.

    Returns:
        The trained network in eval mode: a `CalibratingSiamese` or a `NonCalibrated`.

    Raises:
        TrainingError: The loss became NaN (names the batch's files) or memory ran out (names the
            settings to try).
    """
    accelerator = accelerator_of(recipe)
    labels = task_labels(faces, recipe.task)
    network = build_network(recipe, labels.shape[1], calibrated=calibrated)
    if recipe.checkpoint and not calibrated:
        return network.to(accelerator.device).eval()
    start = start_digest(network)
    if _synchronizes(recipe, accelerator):
        synchronize_batchnorm(network)
    network = network.to(accelerator.device)
    fit_merge(network, faces, rows)
    step: nn.Module = TrainingStep(network)
    kept: dict[str, Any] = {}
    if recipe.freeze_pre:
        step = behind = Behind(network, recipe)
        with accelerator.main_process_first():
            kept["features"] = keep_features(behind, faces, recipe, recipe.freeze_pre)
            # References share the targets' copies where no noise tells them apart.
            noises = recipe.reference_noise, recipe.target_noise
            if calibrated and any(noise.changes_images for noise in noises):
                kept["reference_features"] = keep_reference_features(behind, faces, recipe, rows)
    share = accelerator.process_index, accelerator.num_processes
    source = BatchSource(recipe, faces, rows, labels, *share, **kept)
    optimizer = make_optimizer(network, recipe)
    state, identity = TrainingState(network, optimizer), ""
    if folder is not None:
        make_folder(folder)
        identity = identity_of(recipe, faces, rows, calibrated=calibrated, start=start)
        state.load(folder / CHECKPOINT, identity)
    _set_mode(network, recipe)
    objective = Objective(recipe, labels[rows], accelerator.device)
    loop = TrainingLoop(recipe, accelerator, state, source, objective, step)
    written = folder if accelerator.is_main_process else None
    with _algorithms(recipe), LossLog(written, state.step, tensorboard=tensorboard) as log:
        loop.run(written, identity, log, description)
    return network.eval()


class TrainingLoop:
    """The steps of one training.

    Args:
        recipe: All settings.
        accelerator: Device, precision and the other processes.
        state: Network and optimiser, and where to go on.
        source: The batches.
        objective: The loss.
        step: Forward of one step; by default that of the state's network on images.
    """

    def __init__(
        self,
        recipe: Recipe,
        accelerator: Any,
        state: TrainingState,
        source: BatchSource,
        objective: Objective,
        step: Any = None,
    ) -> None:
        self.recipe, self.accelerator, self.state = recipe, accelerator, state
        self.source, self.objective = source, objective
        step = step or TrainingStep(state.network)
        if recipe.compile:
            step = compiled(step, accelerator.device)
        self.step, self.optimizer = accelerator.prepare(step, state.optimizer)
        rates = [recipe.learning_rate, recipe.learning_rate_last, recipe.learning_rate]
        self.base_rates = rates[: len(self.optimizer.param_groups)]

    def run(self, folder: Path | None, identity: str, log: LossLog, description: str) -> None:
        """From the state's step to the last, with checkpoints in `folder` if there is one."""
        total, saved, every = len(self.source), time.monotonic(), CHECKPOINT_SECONDS
        cuda = self.accelerator.device.type == "cuda"
        loader = DataLoader(
            self.source,
            batch_size=None,
            sampler=range(self.state.step, total),
            num_workers=LOADERS if cuda else 0,
            pin_memory=cuda,
        )
        bar = progress_bar(
            loader, total=total, initial=self.state.step, description=description, unit="step"
        )
        batch = None
        for batch in bar:
            value = self.train(batch)
            self.state.step += 1
            log.write(self.state.step, value)
            if folder is not None and time.monotonic() - saved > every and self.state.step < total:
                start = time.monotonic()
                self.state.save(folder / CHECKPOINT, identity)
                saved = time.monotonic()
                every = max(CHECKPOINT_SECONDS, 20 * (saved - start))
        self._share_buffers()
        if folder is not None and batch is not None:  # a finished training is left as it is
            self.state.save(folder / CHECKPOINT, identity, finished=True)
        if batch is not None and not self.recipe.freeze_pre:
            self._look_at_batchnorm(batch)
        self.accelerator.wait_for_everyone()

    def train(self, batch: Batch) -> float:
        """One optimisation step on one (share of a) batch; returns the global batch's loss."""
        step, recipe = self.state.step, self.recipe
        seed = np.random.default_rng([recipe.seed, 3, step]).integers(2**62)
        torch.manual_seed(int(seed) + self.accelerator.process_index)
        factor = learning_rate_factor(recipe, step, len(self.source))
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        try:
            value = self.backward(batch)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise TrainingError(out_of_memory(recipe)) from error
        except RuntimeError as error:
            if "can't allocate memory" in str(error) or "out of memory" in str(error):
                raise TrainingError(out_of_memory(recipe)) from error
            raise
        if not math.isfinite(value):
            raise TrainingError(self._not_finite(batch, value))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return value

    def backward(self, batch: Batch) -> float:
        """Gradients of one (share of a) batch; returns the global batch's loss."""
        total = torch.zeros((), device=self.accelerator.device)
        everyone = len(self.source.global_rows(self.state.step))
        parts = split(batch, self.recipe.accumulate)
        for number, part in enumerate(parts):
            part = Batch(*(t.to(self.accelerator.device, non_blocking=True) for t in part))
            last = number == len(parts) - 1
            wait = contextlib.nullcontext() if last else self.accelerator.no_sync(self.step)
            with wait, self.accelerator.autocast():
                output = self.step(
                    part.targets, part.references, part.reference_index, part.dropped
                )
                # Processes' gradients are averaged: scale so that the sum over all samples of the
                # global batch is divided by its size.
                share = len(part.targets) * self.accelerator.num_processes / everyone
                loss = self.objective(output, part.labels) * share
                self.accelerator.backward(loss)
            total += loss.detach()
        return float(self.accelerator.reduce(total, "mean"))

    def _look_at_batchnorm(self, batch: Batch) -> None:
        """Warn where evaluation reads something else than what was trained, on this batch."""
        network = self.state.network
        if not isinstance(network, CalibratingSiamese):
            return
        part = split(batch, self.recipe.accumulate)[0]
        part = Batch(*(t.to(self.accelerator.device) for t in part))
        with self.accelerator.autocast():
            gap = batchnorm_gap(network, part.targets, part.references, part.reference_index)
        if self.accelerator.is_main_process:
            warn_of_gap(gap)

    def _share_buffers(self) -> None:
        """Give every process the first one's running statistics."""
        if self.accelerator.num_processes > 1:
            for buffer in self.state.network.buffers():
                torch.distributed.broadcast(buffer, 0)

    def _not_finite(self, batch: Batch, value: float) -> str:
        table = self.source.faces.table.iloc[batch.rows.tolist()]
        named = [f"{r.source} frame {r.frame}" for r in table.itertuples()]
        shown = "\n  ".join(named[:8] + ([f"... and {len(named) - 8} more"] * (len(named) > 8)))
        return (
            f"The loss became {value} at step {self.state.step + 1}. Lower learning_rate, use "
            f"precision=fp32, or look at this batch's frames and labels:\n  {shown}"
        )


def compiled(module: nn.Module, device: torch.device) -> Any:
    """The module by torch.compile, for training on `device`."""
    # On processors inductor puts convolutions into channels-last, and the backward pass of
    # BatchNorm -> convolution -> BatchNorm, an IResNet's block, then writes beside its buffers
    # (pytorch/pytorch#181618; torch 2.13).
    options: Any = {"layout_optimization": False} if device.type == "cpu" else None
    return torch.compile(module, options=options)


def accelerator_of(recipe: Recipe) -> Any:
    """Device, precision and the other processes of a training, by accelerate."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    # Its state is one per process; a training of another precision needs a fresh one.
    AcceleratorState._reset_state()
    GradientState._reset_state()
    precision = "no" if recipe.precision == "fp32" else recipe.precision
    try:
        return Accelerator(mixed_precision=precision, step_scheduler_with_optimizer=False)
    except ValueError as error:
        raise ConfigError(f"precision={recipe.precision!r} doesn't work here: {error}") from None


def _synchronizes(recipe: Recipe, accelerator: Any) -> bool:
    """Whether BatchNorm is to see the samples of all processes, and can."""
    several_gpus = accelerator.num_processes > 1 and accelerator.device.type == "cuda"
    return recipe.sync_batchnorm and several_gpus


def _set_mode(network: nn.Module, recipe: Recipe) -> None:
    network.train()
    if recipe.freeze_batchnorm:
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


@contextlib.contextmanager
def _algorithms(recipe: Recipe) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(recipe.deterministic, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def out_of_memory(recipe: Recipe) -> str:
    """What to do where a training's memory runs out."""
    accumulate = recipe.accumulate * 2
    return (
        f"Memory ran out at batch_size={recipe.batch_size}, accumulate={recipe.accumulate}. Try "
        f"--set accumulate={accumulate} (the same batch in {accumulate} parts of "
        f"{max(1, recipe.batch_size // accumulate)}) or "
        f"--set batch_size={max(1, recipe.batch_size // 2)}."
    )
