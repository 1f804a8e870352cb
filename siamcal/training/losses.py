"""Training losses (Eq. 1-6 of arXiv:2409.00240) and class weights (Eq. 7-9).

Labels are (B, A) with negative (or NaN) for invalid; an invalid label takes part in no term. Sums
run over AUs, means over the batch: an invalid label counts as a term of value 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from siamcal.model.heads import NUM_THRESHOLDS, AUOutput

# FACS intensities 0 (absent), 1 (A) .. 5 (E).
NUM_LEVELS = 6

_COSINE_EPS = 1e-8


class IntensityWeights(NamedTuple):
    """Class weights of the intensity task.

    Attributes:
        mse: (A, 6) weight of each intensity in Eq. 2.
        ordinal: (A, 5, 2) weight of y<j and of y>=j for thresholds j=1..5 in Eq. 4-5.
    """

    mse: torch.Tensor
    ordinal: torch.Tensor

    def to(self, device: torch.device | str) -> IntensityWeights:
        """The same weights on another device."""
        return IntensityWeights(self.mse.to(device), self.ordinal.to(device))


class IntensityLoss(NamedTuple):
    """Parts of the intensity loss, each a scalar; `total` is what is minimised (Eq. 1)."""

    mse: torch.Tensor
    cos: torch.Tensor
    ordinal: torch.Tensor
    total: torch.Tensor


def count_levels(labels: np.ndarray) -> np.ndarray:
    """Occurrences of each intensity, n_ij.

    Args:
        labels: (N, A) intensities 0-5 of the training split; negative or NaN is skipped. A
            fractional label counts at the level it has reached (1.9 is a 1).

    Returns:
        (A, 6) int64.

    Raises:
        ValueError: A label lies above 5.
    """
    labels = np.asarray(labels)
    valid = labels >= 0
    if np.any(labels[valid] > NUM_LEVELS - 1):
        raise ValueError(
            f"Expected intensities of 0 to {NUM_LEVELS - 1} (negative: invalid), "
            f"but got {np.max(labels[valid]):g}."
        )
    levels = np.where(valid, labels, 0).astype(np.int64)  # (N, A)
    return np.stack(
        [np.bincount(levels[valid[:, a], a], minlength=NUM_LEVELS) for a in range(labels.shape[1])]
    )


def count_occurrences(labels: np.ndarray) -> np.ndarray:
    """Occurrences of absent and present: (N, A) labels 0/1, negative invalid -> (A, 2) int64."""
    labels = np.asarray(labels)
    return np.stack([(labels == 0).sum(axis=0), (labels >= 1).sum(axis=0)], axis=1)


def mse_weights(counts: np.ndarray, *, printed_eq7: bool = False) -> torch.Tensor:
    """Weights of the squared error (Eq. 7): intensities 0-1 against 2-5.

    With a = 1/(n_0+n_1) and b = 1/(n_2+..+n_5), intensities 0-1 weigh a/(2a+4b) and 2-5
    b/(2a+4b), so that an AU's six weights sum to 1. An empty group weighs 0.

    Args:
        counts: (A, 6) occurrences of each intensity.
        printed_eq7: Use the numerators 2a and 4b as the paper prints them, which doubles the high
            group's relative weight. The released code doesn't.

    Returns:
        (A, 6) float32.
    """
    counts = _check_counts(counts, NUM_LEVELS)
    low, high = _inverse(counts[:, :2].sum(1)), _inverse(counts[:, 2:].sum(1))  # (A,)
    total = 2 * low + 4 * high
    if printed_eq7:
        low, high = 2 * low, 4 * high
    pair = np.stack([low, high], axis=1) * _inverse(total)[:, None]  # (A, 2)
    return torch.from_numpy(np.repeat(pair, [2, 4], axis=1)).float()  # (A, 6)


def ordinal_weights(counts: np.ndarray) -> torch.Tensor:
    """Weights of the ordinal terms (Eq. 8).

    With p_j = 1/n_{>=j} and q_j = 1/n_{<j}: w_j1 = p_j/S and w_j0 = q_j/S, where S sums p and q
    over all five thresholds. An empty cell weighs 0.

    Args:
        counts: (A, 6) occurrences of each intensity.

    Returns:
        (A, 5, 2) float32; the last axis is y<j, y>=j.
    """
    counts = _check_counts(counts, NUM_LEVELS)
    below = np.cumsum(counts, axis=1)[:, :-1]  # (A, 5): n_{<1} .. n_{<5}
    above = counts.sum(axis=1, keepdims=True) - below
    cells = np.stack([_inverse(below), _inverse(above)], axis=2)  # (A, 5, 2)
    return torch.from_numpy(cells * _inverse(cells.sum((1, 2)))[:, None, None]).float()


def intensity_weights(counts: np.ndarray, *, printed_eq7: bool = False) -> IntensityWeights:
    """Weights of the intensity task from (A, 6) counts: Eq. 7 and Eq. 8."""
    return IntensityWeights(
        mse_weights(counts, printed_eq7=printed_eq7),
        ordinal_weights(counts),
    )


def detection_weights(counts: np.ndarray) -> torch.Tensor:
    """Weights of the detection task (Eq. 9).

    w_1 = (1/n_1)/(1/n_1 + 1/n_0) and w_0 = (1/n_0)/(1/n_1 + 1/n_0); an empty cell weighs 0.

    Args:
        counts: (A, 2) occurrences of absent and present on the training split.

    Returns:
        (A, 2) float32: weight of absent, of present.
    """
    cells = _inverse(_check_counts(counts, 2))  # (A, 2)
    return torch.from_numpy(cells * _inverse(cells.sum(1))[:, None]).float()


def weighted_mse_loss(
    intensity: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Squared error weighted by the label's intensity, summed over AUs (Eq. 2).

    Args:
        intensity: (B, A) predictions.
        labels: (B, A) intensities 0-5, negative or NaN invalid.
        weights: (A, 6) from `mse_weights`.

    Returns:
        Scalar, mean over the batch.
    """
    valid, labels = _valid(labels, intensity)
    levels = labels.long().clamp(max=NUM_LEVELS - 1)  # (B, A)
    weight = weights.gather(1, levels.t()).t()  # (A, 6) by (A, B) -> (B, A)
    terms = weight * (intensity - labels).square()
    return _masked(terms, valid).sum(1).mean()


def huber_loss(intensity: torch.Tensor, labels: torch.Tensor, delta: float) -> torch.Tensor:
    """Huber's loss over its threshold, summed over AUs; not in the paper.

    e^2 / (2 delta) for errors up to delta, |e| - delta / 2 beyond (P. J. Huber, 1964, Robust
    estimation of a location parameter).

    Args:
        intensity: (B, A) predictions.
        labels: (B, A) intensities 0-5, negative or NaN invalid.
        delta: Over 0.

    Returns:
        Scalar, mean over the batch.
    """
    valid, labels = _valid(labels, intensity)
    terms = F.smooth_l1_loss(intensity, labels, beta=delta, reduction="none")
    return _masked(terms, valid).sum(1).mean()


def cosine_loss(intensity: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """1 - cosine between predicted and true AU vectors of each sample (Eq. 3).

    A sample whose labels are all 0 gives 1 and no gradient; one whose labels are all invalid
    gives 0.

    Args:
        intensity: (B, A) predictions.
        labels: (B, A) intensities, negative or NaN invalid.

    Returns:
        Scalar, mean over the batch.
    """
    valid, labels = _valid(labels, intensity)
    cosine = F.cosine_similarity(_masked(intensity, valid), labels, dim=1, eps=_COSINE_EPS)  # (B,)
    return _masked(1 - cosine, valid.any(1)).mean()


def ordinal_loss(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted binary cross entropy of y>=1 .. y>=5, summed over thresholds and AUs (Eq. 4-5).

    Args:
        logits: (B, A, 5).
        labels: (B, A) intensities, negative or NaN invalid.
        weights: (A, 5, 2) from `ordinal_weights`.

    Returns:
        Scalar, mean over the batch.
    """
    valid, labels = _valid(labels, logits[..., 0])
    steps = torch.arange(1, NUM_THRESHOLDS + 1, device=labels.device, dtype=labels.dtype)
    reached = (labels[..., None] >= steps).to(logits.dtype)  # (B, A, 5)
    weight = torch.where(reached > 0, weights[..., 1], weights[..., 0])  # (B, A, 5)
    terms = F.binary_cross_entropy_with_logits(logits, reached, weight=weight, reduction="none")
    return _masked(terms.sum(2), valid).sum(1).mean()


def intensity_loss(
    output: AUOutput, labels: torch.Tensor, weights: IntensityWeights
) -> IntensityLoss:
    """Loss of AU intensity estimation: E = E_mse + E_cos + E_class, each with weight 1 (Eq. 1).

    Args:
        output: Intensities (B, A) and ordinal logits (B, A, 5); computed in float32 whatever the
            precision of the network.
        labels: (B, A) intensities 0-5, negative or NaN invalid.
        weights: From `intensity_weights`, on the same device.

    Returns:
        The parts and their sum.

    Raises:
        ValueError: Shapes don't agree.
    """
    intensity, logits = output.intensity.float(), output.ordinal_logits.float()
    mse = weighted_mse_loss(intensity, labels, weights.mse)
    cos = cosine_loss(intensity, labels)
    ordinal = ordinal_loss(logits, labels, weights.ordinal)
    return IntensityLoss(mse, cos, ordinal, mse + cos + ordinal)


def detection_loss(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Loss of AU detection: weighted binary cross entropy (Eq. 6).

    Args:
        logits: (B, A).
        labels: (B, A) 0 or 1, negative or NaN invalid.
        weights: (A, 2) from `detection_weights`.

    Returns:
        Scalar, mean over batch and AUs.

    Raises:
        ValueError: Shapes don't agree.
    """
    logits = logits.float()
    valid, labels = _valid(labels, logits)
    present = (labels >= 1).to(logits.dtype)  # (B, A)
    weight = torch.where(present > 0, weights[:, 1], weights[:, 0])  # (B, A)
    terms = F.binary_cross_entropy_with_logits(logits, present, weight=weight, reduction="none")
    return _masked(terms, valid).mean()


def _valid(labels: torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask of valid labels, and labels in `like`'s type with 0 where invalid."""
    if labels.shape != like.shape:
        raise ValueError(
            f"Expected labels of the predictions' shape {tuple(like.shape)}, "
            f"but got {tuple(labels.shape)}."
        )
    valid = labels >= 0  # False for NaN too
    return valid, torch.where(valid, labels, torch.zeros_like(labels)).to(like.dtype)


def _masked(terms: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    # where, not a product: 0 x inf would be NaN.
    return torch.where(valid, terms, torch.zeros_like(terms))


def _inverse(values: np.ndarray) -> np.ndarray:
    """1/values, 0 where values is 0."""
    values = np.asarray(values, dtype=np.float64)
    return np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)


def _check_counts(counts: np.ndarray, width: int) -> np.ndarray:
    counts = np.asarray(counts, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[1] != width:
        raise ValueError(
            f"Expected counts of shape (num_aus, {width}), but got {tuple(counts.shape)}."
        )
    if np.any(counts < 0):
        raise ValueError("Expected counts of at least 0, but got a negative count.")
    return counts
