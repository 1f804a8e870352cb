"""Batch number i of a training, computed from the seed and i alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from siamcal.datasets.base import INVALID, FaceSet
from siamcal.errors import ConfigError
from siamcal.training.augmentation import REFERENCES, TARGETS, change, copies_of, draw
from siamcal.training.frozen import KeptFeatures
from siamcal.training.noise import StandIns, disturb, draw_disturbances
from siamcal.training.recipe import Noise, Recipe

__all__ = ["Batch", "BatchSource", "split", "task_labels"]


# Streams of random numbers of a step, beside 1 and 2 (augmentation of targets and references) and
# the loop's 3.
_DROPPED, _NOISE, _STAND_INS, _TARGET_NOISE = 4, 5, 6, 7


class Batch(NamedTuple):
    """What one step trains on.

    Attributes:
        targets: (B, 3, S, S), or (B, width) kept features where the first part is frozen.
        references: Likewise for R references; R is B, or the number of distinct references in the
            batch.
        reference_index: (B,) row of `references` that belongs to each target.
        labels: (B, A).
        rows: (B,) rows of the face set.
        dropped: (B,) bool, targets that are read without their reference.
    """

    targets: torch.Tensor
    references: torch.Tensor
    reference_index: torch.Tensor
    labels: torch.Tensor
    rows: torch.Tensor
    dropped: torch.Tensor


class BatchSource(Dataset[Batch]):
    """The batches of a training, or one process's share of each.

    A process reads and augments its own share only. The draws are those of the global batch, so
    the number of processes changes no image. Shares are of equal size: where a batch doesn't
    divide, some repeat its first target with invalid labels, which no loss counts.

    Args:
        recipe: Batch size, order, augmentation, seed.
        faces: The face set.
        rows: Its training rows.
        labels: (N, A) labels of all rows of the face set.
        rank: This process's number.
        world_size: Number of processes; each takes every world_size-th sample of the batch.
        features: Kept features, which then stand in the place of images.
        reference_features: Those of the references, where they are other copies.

    Raises:
        ConfigError: There are no training rows.
    """

    def __init__(
        self,
        recipe: Recipe,
        faces: FaceSet,
        rows: np.ndarray,
        labels: np.ndarray,
        rank: int = 0,
        world_size: int = 1,
        features: KeptFeatures | None = None,
        reference_features: KeptFeatures | None = None,
    ) -> None:
        self.features = features
        self.reference_features = reference_features or features
        self.recipe, self.faces, self.rows, self.labels = recipe, faces, rows, labels
        self.rank, self.world_size = rank, world_size
        self._epoch: tuple[int, list[np.ndarray]] = (-1, [])
        if not len(rows):
            raise ConfigError("There are no training frames: every participant is in this fold.")
        noise = recipe.reference_noise
        self.stand_ins = StandIns(noise, faces, rows) if noise.active else None

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

    def global_rows(self, step: int) -> np.ndarray:
        """Rows of the face set in the batch of `step`, of all processes together."""
        epoch, number = divmod(step, self.steps_per_epoch)
        return self._order(epoch)[number]

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
        rows = self.global_rows(step)
        references, index = self.faces.reference_rows[rows], np.arange(len(rows))
        if self.recipe.references_per == "participant":
            references, index = np.unique(references, return_inverse=True)
        mine, real = self._share(len(rows))
        if self.stand_ins is not None:
            references = self.stand_ins.replace(references, self._generator(_STAND_INS, step))
        used, own_index = np.unique(index[mine], return_inverse=True)
        labels = self.labels[rows[mine]]
        labels[~real] = INVALID
        reference_stream = 1 if self.recipe.augmentation.shared else 2
        dropped = self._generator(_DROPPED, step).random(len(rows)) < self.recipe.reference_dropout
        return Batch(
            self._images(rows, mine, step, 1),
            self._images(references, used, step, reference_stream, are_references=True),
            torch.from_numpy(own_index),
            torch.from_numpy(labels),
            torch.from_numpy(rows[mine]),
            torch.from_numpy(dropped[mine]),
        )

    def _share(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Places in the batch of `count` that are this process's, and which of them are real."""
        each = -(-count // self.world_size)  # rounded up
        places = self.rank + self.world_size * np.arange(each)
        real = places < count
        return np.where(real, places, 0), real

    def _images(
        self,
        rows: np.ndarray,
        places: np.ndarray,
        step: int,
        stream: int,
        are_references: bool = False,
    ) -> torch.Tensor:
        """Augmented crops, or kept features, of some places of the global batch's `rows`."""
        how: Noise = self.recipe.reference_noise if are_references else self.recipe.target_noise
        noise = how if how.changes_images else None
        if self.recipe.freeze_pre:
            copies = self._generator(stream, step).integers(self.recipe.freeze_pre, size=len(rows))
            rows, copies = rows[places], copies[places] + 1
            features = self.reference_features if are_references else self.features
            if features is not None:
                return features.take(rows, copies)
            own = REFERENCES if are_references else TARGETS
            augmentation = self.recipe.augmentation
            return copies_of(
                self.faces, rows, copies, augmentation, noise, own if noise is not None else 0
            )
        images = self.faces.preprocessing.to_tensor(self.faces.images[rows[places]])
        taken = torch.from_numpy(places)
        draws = draw(
            len(rows), images.shape[-1], self._torch(stream, step), self.recipe.augmentation
        )
        images = change(images, draws.take(taken))
        if noise is None:
            return images
        own_stream = _NOISE if are_references else _TARGET_NOISE
        changes = draw_disturbances(len(rows), self._torch(own_stream, step), noise)
        return disturb(images, changes.take(taken), self.faces.preprocessing)

    def _torch(self, stream: int, step: int) -> torch.Generator:
        seed = int(self._generator(stream, step).integers(2**62))
        return torch.Generator().manual_seed(seed)


def task_labels(faces: FaceSet, task: str) -> np.ndarray:
    """(N, A) labels of the task: intensities 0-5 or occurrence 0/1; negative is invalid."""
    aus = faces.source.task_aus(task)
    return faces.labels(aus) if task == "intensity" else faces.detection_labels(aus)


def split(batch: Batch, parts: int) -> list[Batch]:
    """The batch in at most `parts` parts, each with the references it needs."""
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
                batch.dropped[rows],
            )
        )
    return pieces
