"""Several neutral frames of a person made into one, so that a single bad one doesn't count."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["TRIMMED", "pool_frames"]

# Share of the frames that is left out at each end of each value.
TRIMMED = 0.2


def pool_frames(frames: Sequence[Tensor]) -> Tensor:
    """The features of K frames in one tensor of their shape.

    Up to two frames: the mean. From three on the trimmed mean of each value: without the highest
    and lowest fifth, one each at least. It stands one frame in five that isn't neutral (a blink, a
    word), one of three and four, and keeps nearly the precision of the mean, which a median gives
    away (Huber, Ronchetti 2009, Robust Statistics, section 3.3); of three frames it is the median.

    Args:
        frames: K tensors of equal shape.
    """
    count = len(frames)
    if count == 1:
        return frames[0]
    stacked = torch.stack(list(frames))
    if count == 2:
        return stacked.mean(0)
    cut = max(1, int(TRIMMED * count))
    return stacked.sort(0).values[cut : count - cut].mean(0)
