"""Metrics of AU recognition, one value an AU, over pooled frames (protocol of arXiv:2409.00240).

All functions take `preds` and `labels` of shape (N, A) and return (A,) float64. A negative or NaN
label is invalid and masked for its AU only. An AU without any valid label, and an AU with a NaN
prediction at a valid label, gives NaN: nothing is hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

__all__ = [
    "HIGHER_IS_BETTER",
    "TASK_OF_METRIC",
    "Confusion",
    "accuracy",
    "compute",
    "confusion",
    "f1",
    "icc",
    "icc_per_participant",
    "icc_within",
    "mae",
    "mean_over_aus",
    "precision",
    "recall",
]

TASK_OF_METRIC = {
    "icc": "intensity",
    "icc_within": "intensity",
    "mae": "intensity",
    "f1": "detection",
    "accuracy": "detection",
    "precision": "detection",
    "recall": "detection",
}

HIGHER_IS_BETTER = {name: name != "mae" for name in TASK_OF_METRIC}


def icc(preds: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """ICC(3,1): two-way mixed, consistency, single rater, of predictions and labels.

    (BMS - EMS) / (BMS + (k-1) EMS); for two raters this is 2 cov(p, y) / (var p + var y). pingouin
    calls it ICC(C,1). One of both constant gives 0, both constant NaN.

    Args:
        preds: (N, A) intensities, neither clipped nor rounded.
        labels: (N, A) intensities; negative or NaN is invalid.

    Returns:
        (A,) in [-1, 1].
    """
    preds, labels, valid = _check(preds, labels)
    result = np.full(preds.shape[1], np.nan)
    for a in range(preds.shape[1]):
        result[a] = _icc(preds[valid[:, a], a], labels[valid[:, a], a])
    return result


def icc_per_participant(
    preds: np.ndarray, labels: np.ndarray, participants: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """ICC(3,1) inside each participant (all views and sequences of the person together).

    Returns:
        The P participants, sorted, and (P, A) values; NaN where both raters are constant.
    """
    preds, labels, _ = _check(preds, labels)
    people, member = _people(participants, len(preds))
    values = [icc(preds[member == p], labels[member == p]) for p in range(len(people))]
    return people, np.stack(values)


def icc_within(preds: np.ndarray, labels: np.ndarray, participants: np.ndarray) -> np.ndarray:
    """Within-participant ICC(3,1): plain mean of the participants' own ICCs (Table 5).

    Nobody is excluded: a participant who never shows the AU (constant labels) adds 0. Where
    prediction and label are both constant the ICC is undefined and left out of the mean.

    Returns:
        (A,); NaN where it is undefined for everyone.
    """
    return _nanmean(icc_per_participant(preds, labels, participants)[1], axis=0)


def mae(preds: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean absolute error in intensity steps (0-5)."""
    preds, labels, valid = _check(preds, labels)
    error = np.where(valid, np.abs(preds - labels), 0.0)
    count = valid.sum(0)
    return np.divide(error.sum(0), count, out=np.full(len(count), np.nan), where=count > 0)


class Confusion(NamedTuple):
    """Counts of each AU, each (A,) float64."""

    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    tn: np.ndarray


def confusion(preds: np.ndarray, labels: np.ndarray) -> Confusion:
    """True and false positives and negatives.

    Args:
        preds: (N, A) logits; 0 or more is positive.
        labels: (N, A) 1 present, 0 absent, negative or NaN invalid.

    Returns:
        Counts, (A,) each; NaN for an AU with a NaN prediction at a valid label.
    """
    preds, labels, valid = _check(preds, labels)
    if np.any(labels[valid] > 1):
        raise ValueError(
            f"Expected detection labels of 0 or 1 (negative: invalid), but got "
            f"{labels[valid].max():g}. Turn intensities into occurrence with "
            f"siamcal.datasets.base.detection_targets."
        )
    said, present = preds >= 0, labels >= 1
    counts = np.stack(
        [
            (valid & said & present).sum(0),
            (valid & said & ~present).sum(0),
            (valid & ~said & present).sum(0),
            (valid & ~said & ~present).sum(0),
        ]
    ).astype(np.float64)  # (4, A)
    counts[:, (valid & np.isnan(preds)).any(0)] = np.nan
    return Confusion(*counts)


def f1(preds: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """F1 in percent, 2TP/(2TP+FP+FN); 0 where that is 0/0."""
    return f1_of(confusion(preds, labels))


def accuracy(preds: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Share of frames read rightly, in percent."""
    return accuracy_of(confusion(preds, labels))


def precision(preds: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """TP/(TP+FP) in percent; 0 where nothing was called present."""
    return precision_of(confusion(preds, labels))


def recall(preds: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """TP/(TP+FN) in percent; 0 where the AU never occurs."""
    return recall_of(confusion(preds, labels))


def f1_of(counts: Confusion) -> np.ndarray:
    """F1 in percent from counts of any shape."""
    return _percent(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn, counts)


def accuracy_of(counts: Confusion) -> np.ndarray:
    """Accuracy in percent from counts of any shape."""
    return _percent(counts.tp + counts.tn, _frames(counts), counts)


def precision_of(counts: Confusion) -> np.ndarray:
    """Precision in percent from counts of any shape."""
    return _percent(counts.tp, counts.tp + counts.fp, counts)


def recall_of(counts: Confusion) -> np.ndarray:
    """Recall in percent from counts of any shape."""
    return _percent(counts.tp, counts.tp + counts.fn, counts)


_POOLED: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "icc": icc,
    "mae": mae,
    "f1": f1,
    "accuracy": accuracy,
    "precision": precision,
    "recall": recall,
}


def compute(
    name: str, preds: np.ndarray, labels: np.ndarray, participants: np.ndarray | None = None
) -> np.ndarray:
    """The metric called `name` (a key of `TASK_OF_METRIC`), (A,).

    Args:
        name: Metric.
        preds: (N, A) intensities or logits.
        labels: (N, A) intensities or occurrence.
        participants: (N,), needed by "icc_within".
    """
    if name == "icc_within":
        if participants is None:
            raise ValueError("Expected participants for 'icc_within', but got None.")
        return icc_within(preds, labels, participants)
    if name not in _POOLED:
        raise ValueError(f"Expected a metric of {', '.join(TASK_OF_METRIC)}, but got {name!r}.")
    return _POOLED[name](preds, labels)


def mean_over_aus(per_au: np.ndarray) -> float:
    """Plain mean over AUs; undefined (NaN) AUs are left out, all undefined gives NaN."""
    return float(_nanmean(np.asarray(per_au, dtype=np.float64), axis=0))


def _icc(preds: np.ndarray, labels: np.ndarray) -> float:
    """2 cov / (var p + var y) of two vectors."""
    if len(preds) == 0:
        return np.nan
    # A constant's mean may be off by a rounding error, which would leave noise instead of 0.
    p = np.zeros_like(preds) if np.ptp(preds) == 0 else preds - preds.mean()
    y = np.zeros_like(labels) if np.ptp(labels) == 0 else labels - labels.mean()
    total = p @ p + y @ y
    if total == 0:
        return np.nan
    return float(2 * (p @ y) / total)


def _percent(part: np.ndarray, whole: np.ndarray, counts: Confusion) -> np.ndarray:
    """100 part/whole; 0 for 0/0, but NaN where there isn't one valid label."""
    share = np.divide(part, whole, out=np.zeros_like(part), where=whole != 0)
    return np.where(_frames(counts) > 0, 100.0 * share, np.nan)


def _frames(counts: Confusion) -> np.ndarray:
    return counts.tp + counts.fp + counts.fn + counts.tn


def _nanmean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean that leaves NaN out, without numpy's warning where all are NaN."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.divide(total, count, out=np.full(np.shape(count), np.nan), where=count > 0)


def _check(preds: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """float64 arrays and the mask of valid labels; invalid labels become 0."""
    preds = np.asarray(preds, dtype=np.float64)
    labels = np.asarray(labels, dtype=np.float64)
    if preds.ndim != 2 or preds.shape != labels.shape:
        raise ValueError(
            f"Expected preds and labels of one shape (N, num_aus), but got "
            f"{preds.shape} and {labels.shape}."
        )
    valid = labels >= 0
    return preds, np.where(valid, labels, 0.0), valid


def _people(participants: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted participants, and for each row the index of its participant."""
    participants = np.asarray(participants)
    if participants.shape != (rows,):
        raise ValueError(
            f"Expected one participant for each of {rows} rows, but got {participants.shape}."
        )
    people, member = np.unique(participants.astype(str), return_inverse=True)
    return people, member
