"""How much neutral features differ between people and within one person; shrinkage from that."""

from __future__ import annotations

import torch
from torch import Tensor

from siamcal.errors import ConfigError

__all__ = ["noise_ratio", "person_means", "shrinkage", "variance_components"]


def person_means(rows: Tensor, people: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of each person's frames.

    Args:
        rows: (N, C, P) features.
        people: (N,) numbers 0 .. G-1, each of them at least once.

    Returns:
        (G, C, P) means and (G,) numbers of frames.
    """
    counts = torch.bincount(people).to(rows.dtype)
    sums = rows.new_zeros(len(counts), *rows.shape[1:]).index_add_(0, people, rows)
    return sums / counts[:, None, None], counts


def variance_components(rows: Tensor, people: Tensor) -> tuple[Tensor, Tensor]:
    """Variance between people and within a person, per channel, in squared feature units.

    The ANOVA estimators of the one-way random model for unequal numbers of frames, unbiased before
    a negative variance between people is set to 0 (Searle, Casella, McCulloch 1992, Variance
    Components, section 3.6): within = MSW, between = (MSB - MSW) / n0 with
    n0 = (N - sum n_i^2 / N) / (G - 1). Mean squares are means over the positions of a channel.

    Args:
        rows: (N, C, P) features of N frames.
        people: (N,) numbers 0 .. G-1 of their people.

    Returns:
        (C,) between, (C,) within.

    Raises:
        ConfigError: Fewer than two people, or nobody with two frames.
    """
    means, counts = person_means(rows, people)
    total, groups = len(rows), len(counts)
    if groups < 2 or total <= groups:
        raise ConfigError(
            f"The variance between and within people needs two people at least, one of them with "
            f"two frames; got {total} frames of {groups}."
        )
    grand = rows.mean(0)
    ssw = (rows - means[people]).square().sum(0)
    ssb = (counts[:, None, None] * (means - grand).square()).sum(0)
    msw, msb = (ssw / (total - groups)).mean(1), (ssb / (groups - 1)).mean(1)
    n0 = (total - counts.square().sum() / total) / (groups - 1)
    return ((msb - msw) / n0).clamp_min(0), msw


def noise_ratio(between: Tensor, within: Tensor) -> Tensor:
    """Ratio within / between, (C,); infinite where people don't differ."""
    return torch.where(between > 0, within / between, torch.inf)


def shrinkage(ratio: Tensor, frames: Tensor | None = None) -> Tensor:
    """Share of (reference - anchor) that belongs to the person: between / (between + within / K).

    The weight of the best linear predictor of a person's own level from the mean of K frames.

    Args:
        ratio: (C,) within / between.
        frames: (N,) number K of frames behind each reference; None is one.

    Returns:
        (C,), or (N, C) with `frames`; 0..1.
    """
    if frames is None:
        return 1 / (1 + ratio)
    return 1 / (1 + ratio / frames[:, None].to(ratio.dtype))
