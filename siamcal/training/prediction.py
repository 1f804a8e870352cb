"""Predictions of a trained network."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from siamcal.datasets.base import FaceSet
from siamcal.model.heads import AUOutput
from siamcal.model.siamese import CalibratingSiamese
from siamcal.progress import progress_bar
from siamcal.training.frozen import Behind, KeptFeatures

__all__ = ["main_output", "predict"]


@torch.inference_mode()
def predict(
    network: nn.Module,
    faces: FaceSet,
    rows: np.ndarray,
    *,
    batch_size: int = 128,
    description: str = "predicting",
    frozen: tuple[Behind, KeptFeatures] | None = None,
    without_reference: bool = False,
) -> np.ndarray:
    """Predictions of the given rows: intensities (not clipped) or occurrence logits.

    A calibrated network encodes each participant's reference once.

    Args:
        network: From `fit`.
        faces: The face set.
        rows: (M,) rows to judge.
        batch_size: Frames at a time.
        description: Label of the progress bar.
        frozen: The part behind the merge point and kept features, instead of images.
        without_reference: Read with the calibrated network's null reference.

    Returns:
        (M, A) float32.

    Raises:
        ConfigError: Without a reference, and the network has no null reference.
    """
    network.eval()
    device = next(network.parameters()).device
    references, index = np.unique(faces.reference_rows[rows], return_inverse=True)
    null = None
    if without_reference and isinstance(network, CalibratingSiamese):
        null = network.null()
        index = np.zeros_like(index)
    if frozen is not None:
        return _from_features(*frozen, rows, references, index, batch_size, null is not None)
    to_tensor = faces.preprocessing.to_tensor
    encoded = None
    if isinstance(network, CalibratingSiamese):
        encoded = null
        if encoded is None:
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
        out.append(main_output(output).float().cpu())
    return torch.cat(out).numpy()


def _from_features(
    behind: Behind,
    features: KeptFeatures,
    rows: np.ndarray,
    references: np.ndarray,
    index: np.ndarray,
    batch_size: int,
    without_reference: bool,
) -> np.ndarray:
    device = next(behind.parameters()).device
    encoded, out = features.take(references).to(device), []
    for start in range(0, len(rows), batch_size):
        part = slice(start, start + batch_size)
        targets = features.take(rows[part]).to(device)
        own = torch.from_numpy(index[part]).to(device)
        dropped = torch.full((len(targets),), without_reference, device=device)
        output = behind(targets, encoded, own, dropped)
        out.append(main_output(output).float().cpu())
    return torch.cat(out).numpy()


def main_output(output: Any) -> torch.Tensor:
    """Intensities or logits (B, A); the ordinal logits serve training only."""
    return output.intensity if isinstance(output, AUOutput) else output
