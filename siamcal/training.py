"""One training loop for calibrated and plain networks.

Everything random is a function of (seed, step): the order of the frames, the augmentation and the
dropout. So an interrupted run resumes bit for bit from model, optimiser and step alone, NCG and
CSN see the same batches in the same order, and any number of processes shares one global batch.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader, Dataset

from siamcal.augment import augment
from siamcal.backbone import create_backbone, load_face_weights
from siamcal.datasets.base import FaceSet
from siamcal.errors import ConfigError, TrainingError
from siamcal.heads import AUOutput, make_head
from siamcal.losses import (
    IntensityWeights,
    count_levels,
    count_occurrences,
    detection_loss,
    detection_weights,
    intensity_loss,
    intensity_weights,
)
from siamcal.paths import asset
from siamcal.progress import progress_bar
from siamcal.recipe import Augmentation, Recipe
from siamcal.siamese import CalibratingSiamese

__all__ = [
    "Batch",
    "BatchSource",
    "NonCalibrated",
    "build_network",
    "estimate_seconds",
    "fit",
    "predict",
    "seconds_per_step",
]

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.safetensors"
CHECKPOINT_SECONDS = 20.0


class NonCalibrated(nn.Module):
    """A backbone and its head: judges each frame alone (NCG), `(B, 3, S, S) -> head output`."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, target: torch.Tensor) -> Any:
        """Head output of the target frames."""
        return self.head(self.backbone(target))


def build_network(recipe: Recipe, num_aus: int, *, calibrated: bool) -> nn.Module:
    """The network of a recipe with its start weights: the same backbone for NCG and CSN.

    Args:
        recipe: Names backbone, start weights, merge point and task.
        num_aus: Number of AUs.
        calibrated: True wraps the backbone in `CalibratingSiamese`.
    """
    head = make_head(recipe.task, num_aus)
    torch.manual_seed(recipe.seed)  # the parts that have no start weights
    backbone = create_backbone(
        recipe.backbone,
        num_outputs=head.num_outputs,
        pretrained=recipe.weights == "pretrained",
        **recipe.backbone_options,
    )
    if recipe.weights not in ("", "pretrained"):
        load_face_weights(backbone, _weights_path(recipe.weights))
    if not calibrated:
        return NonCalibrated(backbone, head)
    size = recipe.preprocessing.size
    return CalibratingSiamese(
        backbone,
        merge_at=recipe.merge_at,
        merge=recipe.merge,
        head=head,
        branches=recipe.branches,
        freeze_pre_batchnorm=recipe.freeze_pre_batchnorm,
        example_inputs=torch.zeros(2, 3, size, size),
    )


def _weights_path(weights: str) -> Path:
    kind, _, name = weights.partition(":")
    return asset(f"{name}.safetensors") if kind == "asset" else Path(weights)


class Batch(NamedTuple):
    """What one step trains on.

    Attributes:
        targets: (B, 3, S, S).
        references: (R, 3, S, S); R is B, or the number of distinct references in the batch.
        reference_index: (B,) row of `references` that belongs to each target.
        labels: (B, A).
        rows: (B,) rows of the face set.
    """

    targets: torch.Tensor
    references: torch.Tensor
    reference_index: torch.Tensor
    labels: torch.Tensor
    rows: torch.Tensor


class BatchSource(Dataset[Batch]):
    """Batch number i of a training, computed from the seed and i alone.

    Args:
        recipe: Batch size, order, augmentation, seed.
        faces: The face set.
        rows: Its training rows.
        labels: (N, A) labels of all rows of the face set.
        rank: This process's number.
        world_size: Number of processes; each takes every world_size-th sample of the batch.
    """

    def __init__(
        self,
        recipe: Recipe,
        faces: FaceSet,
        rows: np.ndarray,
        labels: np.ndarray,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.recipe, self.faces, self.rows, self.labels = recipe, faces, rows, labels
        self.rank, self.world_size = rank, world_size
        self._epoch: tuple[int, list[np.ndarray]] = (-1, [])
        if not len(rows):
            raise ConfigError("There are no training frames: every participant is in this fold.")

    @cached_property
    def _groups(self) -> list[np.ndarray]:
        """Training rows of each participant."""
        participants = self.faces.participants[self.rows]
        return [self.rows[participants == p] for p in np.unique(participants)]

    @cached_property
    def steps_per_epoch(self) -> int:
        """Batches an epoch takes."""
        return len(self._order(0))

    def __len__(self) -> int:
        """Number of steps of the whole training."""
        return self.recipe.steps or max(1, round(self.recipe.epochs * self.steps_per_epoch))

    def _generator(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.recipe.seed, *key])

    def _order(self, epoch: int) -> list[np.ndarray]:
        """Rows of each batch of an epoch."""
        if self._epoch[0] != epoch:
            self._epoch = (epoch, list(self._batches(self._generator(0, epoch))))
        return self._epoch[1]

    def _batches(self, generator: np.random.Generator) -> Iterator[np.ndarray]:
        size, people = self.recipe.batch_size, self.recipe.participants_per_batch
        if not people:
            order = generator.permutation(self.rows)
            yield from (order[i : i + size] for i in range(0, len(order), size))
            return
        share = max(1, size // people)
        chunks = [
            shuffled[i : i + share]
            for group in self._groups
            for shuffled in [generator.permutation(group)]
            for i in range(0, len(group), share)
        ]
        order = generator.permutation(len(chunks))
        for i in range(0, len(order), people):
            yield np.concatenate([chunks[c] for c in order[i : i + people]])

    def __getitem__(self, step: int) -> Batch:
        """Batch of `step`, this process's share of it."""
        epoch, number = divmod(step, self.steps_per_epoch)
        rows = self._order(epoch)[number]
        references = self.faces.reference_rows[rows]
        if self.recipe.references_per == "participant":
            references, index = np.unique(references, return_inverse=True)
        else:
            index = np.arange(len(rows))
        mine = slice(self.rank, None, self.world_size)
        own_index = index[mine]
        # Augment the whole batch's draws, keep this process's share: the same for any world size.
        targets = self._images(rows, step, 1)[mine]
        used, own_index = np.unique(own_index, return_inverse=True)
        reference_stream = 1 if self.recipe.augmentation.shared else 2
        return Batch(
            targets,
            self._images(references, step, reference_stream)[used],
            torch.from_numpy(own_index),
            torch.from_numpy(self.labels[rows[mine]]),
            torch.from_numpy(rows[mine]),
        )

    def _images(self, rows: np.ndarray, step: int, stream: int) -> torch.Tensor:
        images = self.faces.preprocessing.to_tensor(self.faces.images[rows])
        seed = int(self._generator(stream, step).integers(2**62))
        return _augment(images, self.recipe.augmentation, torch.Generator().manual_seed(seed))


def _augment(images: torch.Tensor, how: Augmentation, generator: torch.Generator) -> torch.Tensor:
    return augment(
        images,
        generator,
        flip=how.flip,
        scale=how.crop_scale,
        ratio=how.crop_ratio,
        brightness=how.brightness,
        contrast=how.contrast,
    )


class _Step(nn.Module):
    """Batch -> head output; the one module that is distributed and compiled."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, targets: torch.Tensor, references: torch.Tensor, index: torch.Tensor) -> Any:
        if not isinstance(self.network, CalibratingSiamese):
            return self.network(targets)
        if len(references) == len(targets):
            return self.network(targets, references[index])
        return self.network(targets, self.network.encode(references)[index])


class _Loss:
    """The task's loss with the class weights of the training rows."""

    def __init__(self, recipe: Recipe, labels: np.ndarray, device: torch.device) -> None:
        self.recipe = recipe
        self.weights: IntensityWeights | torch.Tensor
        if recipe.task == "intensity":
            counts = count_levels(labels)
            self.weights = intensity_weights(counts, printed_eq7=recipe.printed_eq7).to(device)
        else:
            self.weights = detection_weights(count_occurrences(labels)).to(device)

    def __call__(self, output: Any, labels: torch.Tensor) -> torch.Tensor:
        if isinstance(self.weights, IntensityWeights):
            parts = intensity_loss(AUOutput(*output), labels, self.weights)
            mse, cos, ordinal = self.recipe.loss_weights
            return mse * parts.mse + cos * parts.cos + ordinal * parts.ordinal
        return detection_loss(output, labels, self.weights)


def task_labels(faces: FaceSet, task: str) -> np.ndarray:
    """(N, A) labels of the task: intensities 0-5 or occurrence 0/1; negative is invalid."""
    aus = faces.source.task_aus(task)
    return faces.labels(aus) if task == "intensity" else faces.detection_labels(aus)


@dataclass
class _State:
    """What a checkpoint holds: the parameters, the optimiser and the number of steps done."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0

    def save(self, path: Path, identity: str) -> None:
        """Write atomically, so that a kill at any moment leaves the old or the new file."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        for number, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{k}": v for k, v in values.items()}
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        save_file(tensors, temporary, metadata={"step": str(self.step), "identity": identity})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)

    def load(self, path: Path, identity: str) -> bool:
        """Take over a checkpoint; False where there is none of the same training."""
        if not path.exists():
            return False
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        if metadata.get("identity") != identity:
            logger.warning("%s is of another recipe or other data; training starts anew", path)
            return False
        tensors = load_file(path)
        self.network.load_state_dict(_strip(tensors, "network."))
        state = self.optimizer.state_dict()
        state["state"] = {}
        for name, value in _strip(tensors, "optimizer.").items():
            number, _, key = name.partition(".")
            state["state"].setdefault(int(number), {})[key] = value
        self.optimizer.load_state_dict(state)
        self.step = int(metadata["step"])
        return True


def _strip(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Adam (L2, as the paper) or AdamW, with the last layer's own learning rate."""
    last = {id(p) for p in _last_layer(network).parameters()}
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if id(p) not in last], "lr": recipe.learning_rate},
        {"params": [p for p in parameters if id(p) in last], "lr": recipe.learning_rate_last},
    ]
    kind = torch.optim.AdamW if recipe.decoupled_decay else torch.optim.Adam
    return kind(groups, weight_decay=recipe.weight_decay)


def _last_layer(network: nn.Module) -> nn.Module:
    """The last module with parameters of its own that makes the outputs: a Linear or 1x1 Conv."""
    layers = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    if not layers:
        raise ConfigError("The network has no Linear or Conv2d layer that could be its last.")
    return layers[-1]


def learning_rate_factor(recipe: Recipe, step: int, steps: int) -> float:
    """Factor on the learning rates at `step` of `steps`: 1, or warm-up and a half cosine."""
    if recipe.schedule == "constant":
        return 1.0
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, steps - recipe.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * done))


def _accelerator(recipe: Recipe) -> Any:
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


def _set_mode(network: nn.Module, recipe: Recipe) -> None:
    network.train()
    if recipe.freeze_batchnorm:
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _identity(recipe: Recipe, rows: np.ndarray, calibrated: bool) -> str:
    """What must agree for a checkpoint to be of the same training."""
    import hashlib

    from siamcal.recipe import to_dict

    text = json.dumps([to_dict(recipe), calibrated, len(rows)], sort_keys=True)
    return hashlib.sha256(text.encode() + np.ascontiguousarray(rows).tobytes()).hexdigest()


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

    Under `accelerate launch` every process calls this and gets the same network.

    Args:
        recipe: All settings.
        faces: The face set.
        rows: Its training rows.
        calibrated: CSN (True) or NCG (False), both from the same start, batches and steps.
        folder: Where checkpoint and loss log go; None keeps nothing.
        description: Label of the progress bar.
        tensorboard: Write TensorBoard logs to `folder/tensorboard`.

    Returns:
        The trained network in eval mode: a `CalibratingSiamese` or a `NonCalibrated`.

    Raises:
        TrainingError: The loss became NaN (names the batch's files) or memory ran out (names the
            settings to try).
    """
    accelerator = _accelerator(recipe)
    labels = task_labels(faces, recipe.task)
    source = BatchSource(
        recipe, faces, rows, labels, accelerator.process_index, accelerator.num_processes
    )
    network = build_network(recipe, labels.shape[1], calibrated=calibrated)
    network = network.to(accelerator.device)
    optimizer = make_optimizer(network, recipe)
    state, identity = _State(network, optimizer), _identity(recipe, rows, calibrated)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        state.load(folder / CHECKPOINT, identity)
    _set_mode(network, recipe)
    loop = _Loop(
        recipe, accelerator, state, source, _Loss(recipe, labels[rows], accelerator.device)
    )
    with _algorithms(recipe), _Log(folder, state.step, accelerator, tensorboard) as log:
        loop.run(folder, identity, log, description)
    return network.eval()


class _Loop:
    """The steps of one training."""

    def __init__(
        self,
        recipe: Recipe,
        accelerator: Any,
        state: _State,
        source: BatchSource,
        loss: _Loss,
    ) -> None:
        self.recipe, self.accelerator, self.state = recipe, accelerator, state
        self.source, self.loss = source, loss
        step = _Step(state.network)
        if recipe.compile:
            step = torch.compile(step)  # type: ignore[assignment]
        self.step, self.optimizer = accelerator.prepare(step, state.optimizer)
        self.base_rates = [recipe.learning_rate, recipe.learning_rate_last]

    def run(self, folder: Path | None, identity: str, log: _Log, description: str) -> None:
        """From the state's step to the last, with checkpoints."""
        total, saved = len(self.source), time.monotonic()
        loader = DataLoader(
            self.source,
            batch_size=None,
            sampler=range(self.state.step, total),
            num_workers=4 if self.accelerator.device.type == "cuda" else 0,
            pin_memory=self.accelerator.device.type == "cuda",
        )
        bar = progress_bar(
            loader, total=total, initial=self.state.step, description=description, unit="step"
        )
        main = self.accelerator.is_main_process
        for batch in bar:
            value = self._train(batch)
            self.state.step += 1
            log.write(self.state.step, value)
            if main and folder is not None and time.monotonic() - saved > CHECKPOINT_SECONDS:
                self.state.save(folder / CHECKPOINT, identity)
                saved = time.monotonic()
        if main and folder is not None:
            self.state.save(folder / CHECKPOINT, identity)
        self.accelerator.wait_for_everyone()

    def _train(self, batch: Batch) -> float:
        """One optimisation step on one (share of a) batch; returns its loss."""
        step, recipe = self.state.step, self.recipe
        seed = np.random.default_rng([recipe.seed, 3, step]).integers(2**62)
        torch.manual_seed(int(seed) + self.accelerator.process_index)
        factor = learning_rate_factor(recipe, step, len(self.source))
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        try:
            value = self._backward(batch)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise TrainingError(_out_of_memory(recipe)) from error
        except RuntimeError as error:
            if "can't allocate memory" in str(error) or "out of memory" in str(error):
                raise TrainingError(_out_of_memory(recipe)) from error
            raise
        if not math.isfinite(value):
            raise TrainingError(self._not_finite(batch, value))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return value

    def _backward(self, batch: Batch) -> float:
        total = torch.zeros((), device=self.accelerator.device)
        everyone = self._global_size(len(batch.targets))
        parts = _split(batch, self.recipe.accumulate)
        for number, part in enumerate(parts):
            part = Batch(*(t.to(self.accelerator.device, non_blocking=True) for t in part))
            last = number == len(parts) - 1
            wait = contextlib.nullcontext() if last else self.accelerator.no_sync(self.step)
            with wait, self.accelerator.autocast():
                output = self.step(part.targets, part.references, part.reference_index)
                # Processes' gradients are averaged: scale so that the sum over all samples of the
                # global batch is divided by its size, whatever share each process holds.
                share = len(part.targets) * self.accelerator.num_processes / everyone
                loss = self.loss(output, part.labels) * share
                self.accelerator.backward(loss)
            total += loss.detach()
        return float(self.accelerator.reduce(total, "mean"))

    def _global_size(self, own: int) -> int:
        if self.accelerator.num_processes == 1:
            return own
        size = torch.tensor(own, device=self.accelerator.device)
        return int(self.accelerator.reduce(size, "sum"))

    def _not_finite(self, batch: Batch, value: float) -> str:
        table = self.source.faces.table.iloc[batch.rows.tolist()]
        named = [f"{r.source} frame {r.frame}" for r in table.itertuples()]
        shown = "\n  ".join(named[:8] + ([f"... and {len(named) - 8} more"] * (len(named) > 8)))
        return (
            f"The loss became {value} at step {self.state.step + 1}. Lower learning_rate, use "
            f"precision=fp32, or look at this batch's frames and labels:\n  {shown}"
        )


def _split(batch: Batch, parts: int) -> list[Batch]:
    """The batch in `parts` parts, each with the references it needs."""
    if parts <= 1:
        return [batch]
    pieces = []
    for rows in torch.arange(len(batch.targets)).chunk(parts):
        used, index = torch.unique(batch.reference_index[rows], return_inverse=True)
        pieces.append(
            Batch(
                batch.targets[rows],
                batch.references[used],
                index,
                batch.labels[rows],
                batch.rows[rows],
            )
        )
    return pieces


def _out_of_memory(recipe: Recipe) -> str:
    accumulate = recipe.accumulate * 2
    return (
        f"Memory ran out at batch_size={recipe.batch_size}, accumulate={recipe.accumulate}. Try "
        f"--set accumulate={accumulate} (the same batch in {accumulate} parts of "
        f"{max(1, recipe.batch_size // accumulate)}) or "
        f"--set batch_size={max(1, recipe.batch_size // 2)}."
    )


@contextlib.contextmanager
def _algorithms(recipe: Recipe) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(recipe.deterministic, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


class _Log:
    """`loss.csv` (step, loss), cut back to the checkpoint's step on resuming, and TensorBoard."""

    def __init__(self, folder: Path | None, step: int, accelerator: Any, tensorboard: bool) -> None:
        self.file = None
        self.board: Any = None
        if folder is None or not accelerator.is_main_process:
            return
        path = folder / "loss.csv"
        lines = path.read_text().splitlines()[1 : step + 1] if path.exists() and step else []
        self.file = path.open("w")
        self.file.write("\n".join(["step,loss", *lines]) + "\n")
        if tensorboard:
            self.board = _summary_writer(folder / "tensorboard", step)

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()
        if self.board is not None:
            self.board.close()

    def write(self, step: int, loss: float) -> None:
        if self.file is not None:
            self.file.write(f"{step},{loss:.6g}\n")
            self.file.flush()
        if self.board is not None:
            self.board.add_scalar("loss", loss, step)


def _summary_writer(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        from siamcal.errors import MissingDependencyError

        raise MissingDependencyError(
            "TensorBoard logs need the package tensorboard: pip install 'siamcal[tensorboard]'."
        ) from None
    return SummaryWriter(str(folder), purge_step=step)


@torch.inference_mode()
def predict(
    network: nn.Module,
    faces: FaceSet,
    rows: np.ndarray,
    *,
    batch_size: int = 128,
    description: str = "predicting",
) -> np.ndarray:
    """Predictions of the given rows: intensities (not clipped) or occurrence logits.

    A calibrated network encodes each participant's reference once.

    Args:
        network: From `fit`.
        faces: The face set.
        rows: (M,) rows to judge.
        batch_size: Frames at a time.
        description: Label of the progress bar.

    Returns:
        (M, A) float32.
    """
    network.eval()
    device = next(network.parameters()).device
    references, index = np.unique(faces.reference_rows[rows], return_inverse=True)
    to_tensor = faces.preprocessing.to_tensor
    encoded = None
    if isinstance(network, CalibratingSiamese):
        encoded = network.encode(to_tensor(faces.images[references]).to(device))
    out = []
    starts = range(0, len(rows), batch_size)
    for start in progress_bar(starts, description=description, unit="batch"):
        part = slice(start, start + batch_size)
        targets = to_tensor(faces.images[rows[part]]).to(device)
        if encoded is None:
            output = network(targets)
        else:
            output = network(targets, encoded[torch.from_numpy(index[part]).to(device)])
        out.append(_main_output(output).float().cpu())
    return torch.cat(out).numpy()


def _main_output(output: Any) -> torch.Tensor:
    """Intensities or logits (B, A); the ordinal logits serve training only."""
    return output.intensity if isinstance(output, AUOutput) else output


def seconds_per_step(recipe: Recipe, num_aus: int, *, calibrated: bool, repeats: int = 2) -> float:
    """Measured time of one training step on this machine, on random pixels."""
    network = build_network(recipe, num_aus, calibrated=calibrated).train()
    size, count = recipe.preprocessing.size, recipe.batch_size
    distinct = count
    if recipe.references_per == "participant" and recipe.participants_per_batch:
        distinct = min(count, recipe.participants_per_batch)
    targets, references = torch.rand(count, 3, size, size), torch.rand(distinct, 3, size, size)
    index = torch.arange(count) % distinct
    step, times = _Step(network), []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        output = step(targets, references, index)
        _main_output(output).sum().backward()
        times.append(time.perf_counter() - start)
    return min(times[1:])


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
    each = sum(seconds_per_step(recipe, num_aus, calibrated=kind) for kind in calibrated)
    return each * (steps + validation) * (folds_run or num_folds)
