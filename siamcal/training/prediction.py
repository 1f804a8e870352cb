"""Predictions of a trained network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from siamcal.datasets.base import FaceSet
from siamcal.model.heads import AUOutput
from siamcal.model.reference import Reference
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
    pool: Mapping[int, np.ndarray] | None = None,
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
        pool: Row of a reference -> rows of all frames that stand for the person instead.
        without_reference: Read with the calibrated network's null reference.

    Returns:
        (M, A) float32.

    Raises:
        ConfigError: Without a reference, and the network has no null reference.
    """
    network.eval()
    reader = network if frozen is None else frozen[0]
    device = next(network.parameters()).device

    def inputs(wanted: np.ndarray) -> Tensor:
        if frozen is not None:
            return frozen[1].take(wanted).to(device)
        return faces.preprocessing.to_tensor(faces.images[wanted]).to(device)

    references, index = np.unique(faces.reference_rows[rows], return_inverse=True)
    encoded = None
    if without_reference and isinstance(network, CalibratingSiamese):
        encoded, index = network.null(), np.zeros_like(index)
    elif isinstance(network, CalibratingSiamese):
        encode = network.encode if frozen is None else frozen[0].encode
        encoded = _encoded(lambda wanted: encode(inputs(wanted)), references, pool)
    out = []
    starts = range(0, len(rows), batch_size)
    for start in progress_bar(starts, description=description, unit="batch"):
        part = slice(start, start + batch_size)
        targets = inputs(rows[part])
        if encoded is None:
            output = reader(targets)
        else:
            output = reader(targets, encoded[torch.from_numpy(index[part]).to(device)])
        out.append(main_output(output).float().cpu())
    return torch.cat(out).numpy()


def _encoded(
    encode: Callable[[np.ndarray], Reference],
    references: np.ndarray,
    pool: Mapping[int, np.ndarray] | None,
) -> Reference:
    """One sample for each reference, pooled where several frames stand for it."""
    if pool is None:
        return encode(references)
    found = []
    for reference in references:
        frames = encode(pool[int(reference)])
        found.append(Reference.pooled([frames[k] for k in range(len(frames))]))
    return Reference.cat(found)


def main_output(output: Any) -> torch.Tensor:
    """Intensities or logits (B, A); the ordinal logits serve training only."""
    return output.intensity if isinstance(output, AUOutput) else output
