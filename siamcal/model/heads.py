"""What raw outputs mean: AU intensities with ordinal logits, or AU occurrence logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

__all__ = [
    "NUM_THRESHOLDS",
    "AUOutput",
    "DetectionHead",
    "IntensityHead",
    "RawIntensityHead",
    "drawn_to_zero",
    "make_head",
]

# Ordinal thresholds y>=1 .. y>=5 of FACS intensities 0 (absent) to 5 (E).
NUM_THRESHOLDS = 5


class AUOutput(NamedTuple):
    """Output of the intensity task.

    Attributes:
        intensity: (B, A) intensities, neither clipped nor rounded.
        ordinal_logits: (B, A, 5) logits of y>=1 .. y>=5; they serve training only.
    """

    intensity: torch.Tensor
    ordinal_logits: torch.Tensor


class IntensityHead(nn.Module):
    """Reads 6 raw outputs an AU as one intensity and five ordinal logits.

    The first `num_aus` outputs are the intensities, without activation; then five logits for the
    first AU, five for the second, and so on (the layout of the authors' released code).

    Args:
        num_aus: Number of AUs, A.
        scale: Factors on the intensities, one an AU, fitted after a training; () is none.
    """

    task = "intensity"
    scale: torch.Tensor | None

    def __init__(self, num_aus: int, scale: Sequence[float] = ()) -> None:
        super().__init__()
        self.num_aus = _positive(num_aus)
        self.num_outputs = (1 + NUM_THRESHOLDS) * self.num_aus
        if scale and len(scale) != num_aus:
            raise ValueError(f"Expected one factor for each of {num_aus} AUs, but got {scale}.")
        # Not among the weights: a calibrator's config holds it.
        self.register_buffer("scale", torch.tensor(scale) if scale else None, persistent=False)

    def forward(self, raw: torch.Tensor) -> AUOutput:
        """Split raw outputs (B, 6A) into intensities (B, A) and logits (B, A, 5)."""
        _check_width(raw, self.num_outputs, self.num_aus, "6 x num_aus")
        intensity = raw[:, : self.num_aus]  # (B, A)
        if self.scale is not None:
            intensity = intensity * self.scale
        logits = raw[:, self.num_aus :].reshape(-1, self.num_aus, NUM_THRESHOLDS)  # (B, A, 5)
        return AUOutput(intensity, logits)

    def extra_repr(self) -> str:
        """Arguments for `repr`."""
        return f"num_aus={self.num_aus}"


class _OneOutputHead(nn.Module):
    """Hands one raw output an AU on as it is; what it means is the subclass's to say."""

    def __init__(self, num_aus: int) -> None:
        super().__init__()
        self.num_aus = _positive(num_aus)
        self.num_outputs = self.num_aus

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        """Return raw outputs (B, A)."""
        _check_width(raw, self.num_outputs, self.num_aus, "num_aus")
        return raw

    def extra_repr(self) -> str:
        """Arguments for `repr`."""
        return f"num_aus={self.num_aus}"


class DetectionHead(_OneOutputHead):
    """Reads one raw output an AU as the logit of its occurrence; positive from 0 on.

    Args:
        num_aus: Number of AUs, A.
    """

    task = "detection"


class RawIntensityHead(_OneOutputHead):
    """Reads one raw output an AU as its intensity, unclipped: networks that were trained elsewhere.

    There are no ordinal logits, so that a training has the MSE and cosine parts of the loss only.

    Args:
        num_aus: Number of AUs, A.
    """

    task = "intensity"


def drawn_to_zero(intensity: np.ndarray, width: float) -> np.ndarray:
    """Intensities v as v |v| / (|v| + width): the order stays, what is near 0 comes nearer.

    A network that isn't sure reads a little of an action, most often where there is none.

    Args:
        intensity: Any shape.
        width: What is halved; from large intensities as much is taken off. 0 changes nothing.
    """
    if not width:
        return intensity
    size = np.abs(intensity)
    return intensity * (size / (size + width))


def make_head(
    task: str, num_aus: int, scale: Sequence[float] = ()
) -> IntensityHead | DetectionHead:
    """The head of `task`, "intensity" (with `scale`, see `IntensityHead`) or "detection"."""
    if task == "intensity":
        return IntensityHead(num_aus, scale)
    if task == "detection":
        return DetectionHead(num_aus)
    raise ValueError(f"Expected task to be 'intensity' or 'detection', but got {task!r}.")


def _positive(num_aus: int) -> int:
    if num_aus < 1:
        raise ValueError(f"Expected num_aus to be at least 1, but got {num_aus}.")
    return int(num_aus)


def _check_width(raw: torch.Tensor, width: int, num_aus: int, rule: str) -> None:
    # torch.export and fx see a size comparison only, no data-dependent branch.
    if raw.ndim != 2 or raw.shape[1] != width:
        raise ValueError(
            f"Expected raw outputs of shape (batch, {width}) = {rule} for {num_aus} AUs, but got "
            f"{tuple(raw.shape)}. Build the backbone with num_outputs={width}."
        )
