"""Sums that add up over participants, and every metric as a function of them.

Resampling participants is then one matrix product: a resample is a row of counts, how often each
person was drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from siamcal.evaluation import metrics
from siamcal.evaluation.metrics import TASK_OF_METRIC, Confusion

__all__ = [
    "SUMS",
    "ParticipantSums",
    "bootstrap_weights",
    "evaluate",
    "mean_rows",
    "mix",
    "moments",
    "participant_sums",
    "percentiles",
    "ratio",
    "spread",
]

# Sums kept for each participant and AU.
SUMS = ("n", "p", "y", "pp", "yy", "py", "abs", "tp", "fp", "fn", "tn", "icc", "icc_known")

# Below this share of the raw second moment a variance is rounding noise of the sums.
_ROUNDING = 1e-13


@dataclass(frozen=True, eq=False)
class ParticipantSums:
    """Additive sums of one set of predictions.

    Attributes:
        participants: (P,) sorted names.
        values: (P, A, K) sums, K as in the module's list.
    """

    participants: np.ndarray
    values: np.ndarray


def participant_sums(
    metric: str, preds: np.ndarray, labels: np.ndarray, participants: np.ndarray
) -> ParticipantSums:
    """The additive sums of each participant that `metric` needs.

    Args:
        metric: A key of `siamcal.evaluation.metrics.TASK_OF_METRIC`.
        preds: (N, A) intensities or logits.
        labels: (N, A) intensities or occurrence; negative or NaN is invalid.
        participants: (N,) participant of each frame.
    """
    if metric not in TASK_OF_METRIC:
        raise ValueError(f"Expected a metric of {', '.join(TASK_OF_METRIC)}, but got {metric!r}.")
    preds, labels = np.asarray(preds, np.float64), np.asarray(labels, np.float64)
    people, each_icc = metrics.icc_per_participant(preds, labels, participants)
    intensity = TASK_OF_METRIC[metric] == "intensity"
    if not intensity:
        metrics.confusion(preds, labels)  # refuses labels that aren't 0 or 1
    # One centre for all AUs and methods: it keeps the moments exact, and swapping two methods'
    # sums stays meaningful.
    valid = labels >= 0
    centre = float(labels[valid].mean()) if intensity and valid.any() else 0.0
    names = np.asarray(participants).astype(str)
    values = np.zeros((len(people), preds.shape[1], len(SUMS)))  # (P, A, K)
    for row, person in enumerate(people):
        own = names == person
        terms = (_moment_terms if intensity else _count_terms)(preds[own], labels[own], centre)
        for name, term in terms.items():
            values[row, :, SUMS.index(name)] = np.where(valid[own], term, 0.0).sum(0)
    values[:, :, SUMS.index("icc")] = np.nan_to_num(each_icc)
    values[:, :, SUMS.index("icc_known")] = ~np.isnan(each_icc)
    return ParticipantSums(people, values)


def _moment_terms(preds: np.ndarray, labels: np.ndarray, centre: float) -> dict[str, np.ndarray]:
    p, y = preds - centre, labels - centre
    n = np.ones_like(p)
    return {"n": n, "p": p, "y": y, "pp": p * p, "yy": y * y, "py": p * y, "abs": np.abs(p - y)}


def _count_terms(preds: np.ndarray, labels: np.ndarray, _: float) -> dict[str, np.ndarray]:
    said, present = np.where(np.isnan(preds), np.nan, preds >= 0), labels >= 1  # NaN stays NaN
    return {
        "n": np.ones_like(preds),
        "tp": said * present,
        "fp": said * ~present,
        "fn": (1 - said) * present,
        "tn": (1 - said) * ~present,
    }


def evaluate(metric: str, sums: np.ndarray) -> np.ndarray:
    """The metric from sums (..., A, K) -> (..., A)."""
    s = dict(zip(SUMS, np.moveaxis(sums, -1, 0), strict=True))
    if metric == "icc":
        var_p, var_y, cov = moments(s)
        return ratio(2 * cov, var_p + var_y)
    if metric == "icc_within":
        return ratio(s["icc"], s["icc_known"])
    if metric == "mae":
        return ratio(s["abs"], s["n"])
    counts = Confusion(s["tp"], s["fp"], s["fn"], s["tn"])
    by_name = {
        "f1": metrics.f1_of,
        "accuracy": metrics.accuracy_of,
        "precision": metrics.precision_of,
        "recall": metrics.recall_of,
    }
    return np.where(np.isnan(counts.tp), np.nan, by_name[metric](counts))


def moments(s: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Variances of preds and labels and their covariance, each times n.

    A variance that is only rounding of the sums becomes 0.
    """
    n = np.maximum(s["n"], 1)
    var_p, var_y = s["pp"] - s["p"] ** 2 / n, s["yy"] - s["y"] ** 2 / n
    cov = s["py"] - s["p"] * s["y"] / n
    flat_p, flat_y = var_p <= _ROUNDING * s["pp"], var_y <= _ROUNDING * s["yy"]
    return (
        np.where(flat_p, 0.0, var_p),
        np.where(flat_y, 0.0, var_y),
        np.where(flat_p | flat_y, 0.0, cov),
    )


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Quotient part/whole; NaN where whole is 0."""
    result = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    return np.divide(part, whole, out=result, where=whole > 0)


def bootstrap_weights(participants: int, resamples: int, seed: int) -> np.ndarray:
    """(R, P) how often each participant is drawn; NaN rows for fewer than two participants."""
    if participants < 2:
        return np.full((resamples, participants), np.nan)
    generator = np.random.default_rng(seed)
    equal = np.full(participants, 1 / participants)
    return generator.multinomial(participants, equal, size=resamples).astype(np.float64)


def mix(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Weighted sums over participants: (R, P) x (P, A, K) -> (R, A, K)."""
    flat = values.reshape(len(values), -1)
    return (weights @ flat).reshape(len(weights), *values.shape[1:])


def mean_rows(values: np.ndarray) -> np.ndarray:
    """Mean over AUs of each row (R, A), undefined AUs left out -> (R,)."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(1), known.sum(1).astype(np.float64))


def percentiles(draws: np.ndarray, level: float) -> np.ndarray:
    """Ends of the central `level` of draws (R, ...), NaN draws left out -> (..., 2)."""
    tail = 100 * (1 - level) / 2
    flat = draws.reshape(len(draws), -1)
    ends = np.full((flat.shape[1], 2), np.nan)
    for i, column in enumerate(flat.T):
        known = column[~np.isnan(column)]
        if len(known):
            ends[i] = np.percentile(known, [tail, 100 - tail])
    return ends.reshape(*draws.shape[1:], 2)


def spread(values: np.ndarray) -> np.ndarray:
    """Standard deviation (n-1) over axis 0, NaN left out; NaN with fewer than two."""
    known = ~np.isnan(values)
    count = known.sum(0)
    filled = np.where(known, values, 0.0)
    centred = np.where(known, filled - filled.sum(0) / np.maximum(count, 1), 0.0)
    return np.sqrt(ratio((centred**2).sum(0), (count - 1).astype(np.float64)))
