"""Readings as large as the labels: a factor for each AU, from people the training didn't show.

A regression that isn't sure reads too little of a strong action. How much too little is measured
where readings are as unsure as in use: on other people, with the noise of the training on targets
and references. The factor goes half of the way: 1 has the least absolute error, the full ratio of
the spreads the best agreement ICC(3,1), with larger errors at rest.
"""

from __future__ import annotations

import numpy as np
import torch

from siamcal.datasets.base import FaceSet
from siamcal.model.siamese import CalibratingSiamese
from siamcal.training.augmentation import REFERENCES, TARGETS, copies_of
from siamcal.training.batches import task_labels
from siamcal.training.recipe import Noise, Recipe

__all__ = ["factors_of", "noisy_readings", "split_people"]

BATCH = 64
LEAST, MOST = 1.0, 2.0
SMALLEST = 0.05  # a spread of readings below it tells nothing


def split_people(faces: FaceSet, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of all participants but the last `count` by name, and rows of these."""
    rows = faces.table.index.to_numpy()
    held_out = np.isin(faces.participants, np.unique(faces.participants)[-count:])
    return rows[~held_out], rows[held_out]


def factors_of(readings: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
    """Square root of the ratio of the labels' spread to the readings', for each AU, from 1 to 2.

    The ratio of standard deviations, not the regression's slope, makes both distributions equally
    wide, as the agreement ICC(3,1) asks for; its root is the geometric mean of that and 1.

    Args:
        readings: (N, A).
        labels: (N, A); negative is invalid.
    """
    found = []
    for own, label in zip(readings.T, labels.T, strict=True):
        valid = label >= 0
        spread = float(own[valid].std()) if valid.any() else 0.0
        ratio = float(label[valid].std()) / spread if spread > SMALLEST else LEAST
        found.append(round(float(np.clip(ratio**0.5, LEAST, MOST)), 3))
    return tuple(found)


@torch.no_grad()
def noisy_readings(
    network: CalibratingSiamese, faces: FaceSet, rows: np.ndarray, recipe: Recipe
) -> tuple[np.ndarray, np.ndarray]:
    """Readings of frames with the training's noise, (N, A), and their labels."""
    device = next(network.parameters()).device
    references = faces.reference_rows[rows]

    def images(of: np.ndarray, noise: Noise, stream: int) -> torch.Tensor:
        how = noise if noise.changes_images else None
        copies = np.ones(len(of), int)
        return copies_of(faces, of, copies, recipe.augmentation, how, stream).to(device)

    found = []
    for start in range(0, len(rows), BATCH):
        part = slice(start, start + BATCH)
        targets = images(rows[part], recipe.target_noise, TARGETS)
        output = network(targets, images(references[part], recipe.reference_noise, REFERENCES))
        found.append(output.intensity.cpu().numpy())
    return np.concatenate(found), task_labels(faces, "intensity")[rows]
