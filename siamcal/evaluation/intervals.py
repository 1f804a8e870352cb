"""Uncertainty with participants as the unit: intervals, paired tests, groups, sanity checks.

Frames of one person are far from independent, so resampling frames gives intervals that are much
too narrow. Here participants are resampled. Every metric is a function of sums that add up over
participants (moments, confusion counts), so a resample is one row of a matrix product and 2,000
resamples of 12 AUs take milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from siamcal.evaluation import metrics
from siamcal.evaluation.agreement import (
    AcrossWithin,
    Agreement,
    across_and_within,
    bland_altman,
    participant_bias,
)
from siamcal.evaluation.sums import (
    ParticipantSums,
    bootstrap_weights,
    evaluate,
    mean_rows,
    mix,
    participant_sums,
    percentiles,
)

__all__ = [
    "AcrossWithin",
    "Agreement",
    "MetricInterval",
    "PairedDifference",
    "ParticipantSums",
    "across_and_within",
    "bland_altman",
    "group_results",
    "holm",
    "metric_interval",
    "paired_difference",
    "participant_bias",
    "participant_sums",
    "sanity_predictors",
    "seed_summary",
]


@dataclass(frozen=True, eq=False)
class MetricInterval:
    """A metric with its interval from resampling participants.

    Attributes:
        metric: Name.
        mean: Plain mean over AUs of the metric on all frames.
        per_au: (A,) values.
        interval: Lower and upper end for the mean; NaN with fewer than two participants.
        per_au_interval: (A, 2).
        participants: Number of participants.
        resamples: Number of resamples.
        level: Coverage.
    """

    metric: str
    mean: float
    per_au: np.ndarray
    interval: tuple[float, float]
    per_au_interval: np.ndarray
    participants: int
    resamples: int
    level: float = 0.95

    def to_dict(self, aus: Sequence[int] | None = None) -> dict[str, Any]:
        """For JSON: NaN becomes None; with `aus` the per-AU values are keyed "AU01"."""
        return {
            "mean": _plain(self.mean),
            "per_au": _per_au(self.per_au, aus),
            "interval": _plain(self.interval),
            "per_au_interval": _per_au(self.per_au_interval, aus),
            "participants": self.participants,
            "resamples": self.resamples,
            "level": self.level,
        }


@dataclass(frozen=True, eq=False)
class PairedDifference:
    """Difference a - b of a metric between two methods on the same frames.

    Attributes:
        metric: Name.
        mean: Difference of the means over AUs.
        per_au: (A,) differences.
        interval: For the mean, from resampling participants.
        per_au_interval: (A, 2).
        p_value: Two-sided permutation test: each participant's predictions of the two methods are
            swapped or not.
        per_au_p_value: (A,), not corrected for the number of AUs.
        exact: True where all 2^P swaps were tried.
        participants: Number of participants.
        resamples: Number of resamples and, unless exact, of permutations.
        level: Coverage of the intervals.
    """

    metric: str
    mean: float
    per_au: np.ndarray
    interval: tuple[float, float]
    per_au_interval: np.ndarray
    p_value: float
    per_au_p_value: np.ndarray
    exact: bool
    participants: int
    resamples: int
    level: float = 0.95

    @property
    def excludes_zero(self) -> bool:
        """True where the interval of the mean lies on one side of 0."""
        low, high = self.interval
        return bool(low > 0 or high < 0)

    def to_dict(self, aus: Sequence[int] | None = None) -> dict[str, Any]:
        """For JSON: NaN becomes None; with `aus` the per-AU values are keyed "AU01"."""
        return {
            "mean": _plain(self.mean),
            "per_au": _per_au(self.per_au, aus),
            "interval": _plain(self.interval),
            "per_au_interval": _per_au(self.per_au_interval, aus),
            "p_value": _plain(self.p_value),
            "per_au_p_value": _per_au(self.per_au_p_value, aus),
            "exact": self.exact,
            "participants": self.participants,
            "resamples": self.resamples,
            "level": self.level,
        }


def metric_interval(
    metric: str,
    preds: np.ndarray,
    labels: np.ndarray,
    participants: np.ndarray,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> MetricInterval:
    """A metric on all frames with percentile intervals from resampling participants.

    Args:
        metric: A key of `siamcal.evaluation.metrics.TASK_OF_METRIC`.
        preds: (N, A) intensities or logits.
        labels: (N, A) intensities or occurrence; negative or NaN is invalid.
        participants: (N,) participant of each frame.
        resamples: Number of resamples.
        level: Coverage.
        seed: Of the resampling.
    """
    sums = participant_sums(metric, preds, labels, participants)
    return _interval_of_sums(metric, sums, resamples, level, seed)


def _interval_of_sums(
    metric: str, sums: ParticipantSums, resamples: int, level: float, seed: int
) -> MetricInterval:
    per_au = evaluate(metric, sums.values.sum(0))
    draws = evaluate(metric, mix(bootstrap_weights(len(sums.values), resamples, seed), sums.values))
    return MetricInterval(
        metric=metric,
        mean=metrics.mean_over_aus(per_au),
        per_au=per_au,
        interval=_pair(percentiles(mean_rows(draws), level)),
        per_au_interval=percentiles(draws, level),
        participants=len(sums.participants),
        resamples=resamples,
        level=level,
    )


def paired_difference(
    metric: str,
    preds_a: np.ndarray,
    preds_b: np.ndarray,
    labels: np.ndarray,
    participants: np.ndarray,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """Difference a - b of two methods on the same frames, with interval and p-value.

    The interval resamples participants and takes both methods of each drawn person. The
    permutation test swaps the two methods' predictions of a person; with 2^P <= `resamples` swaps
    all are tried.

    Args:
        metric: A key of `siamcal.evaluation.metrics.TASK_OF_METRIC`.
        preds_a: (N, A).
        preds_b: (N, A).
        labels: (N, A).
        participants: (N,).
        resamples: Number of resamples and of random permutations.
        level: Coverage.
        seed: Of both.
    """
    a = participant_sums(metric, preds_a, labels, participants).values
    b = participant_sums(metric, preds_b, labels, participants).values
    count = len(a)
    both = np.concatenate([a, b], axis=-1)  # (P, A, 2K)

    def difference(sums: np.ndarray) -> np.ndarray:
        first, second = np.split(sums, 2, axis=-1)
        return evaluate(metric, first) - evaluate(metric, second)

    per_au = difference(both.sum(0))
    draws = difference(mix(bootstrap_weights(count, resamples, seed), both))
    swaps, exact = _swaps(count, resamples, seed)
    swapped = np.concatenate([b, a], axis=-1)
    null = difference(mix(1 - swaps, both) + mix(swaps, swapped))
    return PairedDifference(
        metric=metric,
        mean=metrics.mean_over_aus(per_au),
        per_au=per_au,
        interval=_pair(percentiles(mean_rows(draws), level)),
        per_au_interval=percentiles(draws, level),
        p_value=float(_p_value(mean_rows(null), mean_rows(per_au[None])[0], exact)),
        per_au_p_value=np.array([_p_value(null[:, i], d, exact) for i, d in enumerate(per_au)]),
        exact=exact,
        participants=count,
        resamples=resamples,
        level=level,
    )


def group_results(
    metric: str,
    preds: np.ndarray,
    labels: np.ndarray,
    participants: np.ndarray,
    groups: Mapping[str, Any],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, MetricInterval]:
    """The metric inside each group of participants.

    Args:
        metric: A key of `siamcal.evaluation.metrics.TASK_OF_METRIC`.
        preds: (N, A).
        labels: (N, A).
        participants: (N,).
        groups: Participant -> group, such as sex or age band. Participants without one form the
            group "unknown".
        resamples: Number of resamples.
        level: Coverage.
        seed: Of the resampling.

    Returns:
        Group -> result, groups sorted. A group of one participant has no interval (NaN).
    """
    sums = participant_sums(metric, preds, labels, participants)
    member = np.array([_group_name(groups.get(p)) for p in sums.participants], dtype=object)
    return {
        group: _interval_of_sums(
            metric,
            ParticipantSums(sums.participants[member == group], sums.values[member == group]),
            resamples,
            level,
            seed,
        )
        for group in sorted(set(member))
    }


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's correction of several p-values, such as one an AU; NaN stays NaN and isn't counted.

    Args:
        p_values: (A,).

    Returns:
        (A,) adjusted p-values, at most 1.
    """
    p_values = np.asarray(p_values, np.float64)
    adjusted = np.full_like(p_values, np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p_values[order] * factors))
    return adjusted


def sanity_predictors(
    train_labels: np.ndarray, rows: int, *, task: str = "intensity", seed: int = 0
) -> dict[str, np.ndarray]:
    """Predictions made without looking at an image: what any method must beat.

    Args:
        train_labels: (M, A) labels of the training participants; negative or NaN is invalid.
        rows: Number of frames to predict.
        task: "intensity" or "detection" (then the outputs are logits of -1 and 1).
        seed: Of the chance predictor.

    Returns:
        Name -> (rows, A). "zero", "never" and "always" are constants; "mean", "median" and (for
        detection) "majority" are constants learnt from the labels; "chance" draws each frame
        from the training labels of its AU.
    """
    if task not in ("intensity", "detection"):
        raise ValueError(f"Expected task to be 'intensity' or 'detection', but got {task!r}.")
    train_labels = np.asarray(train_labels, np.float64)
    columns = [c[c >= 0] if (c >= 0).any() else np.zeros(1) for c in train_labels.T]
    generator = np.random.default_rng(seed)
    chance = np.stack([generator.choice(c, rows) for c in columns], axis=1)
    mean = np.array([c.mean() for c in columns])
    if task == "intensity":
        constants = {"zero": np.zeros_like(mean), "mean": mean,
                     "median": np.array([np.median(c) for c in columns])}  # fmt: skip
    else:
        ones = np.ones_like(mean)
        constants = {"never": -ones, "always": ones, "majority": np.where(mean > 0.5, 1.0, -1.0)}
        chance = 2.0 * chance - 1.0
    return {**{k: np.tile(v, (rows, 1)) for k, v in constants.items()}, "chance": chance}


def seed_summary(per_seed: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Mean, standard deviation, smallest and largest of a metric over training seeds.

    Args:
        per_seed: One (A,) array (or one number) a seed.

    Returns:
        "mean", "sd" (over S-1, NaN for one seed), "min", "max".
    """
    stacked = np.stack([np.asarray(values, np.float64) for values in per_seed])
    spread = stacked.std(0, ddof=1) if len(stacked) > 1 else np.full(stacked.shape[1:], np.nan)
    return {"mean": stacked.mean(0), "sd": spread, "min": stacked.min(0), "max": stacked.max(0)}


def _swaps(participants: int, permutations: int, seed: int) -> tuple[np.ndarray, bool]:
    """(R, P) of 0 and 1: whose predictions are swapped. All 2^P where that is few enough."""
    if 2**participants <= permutations:
        codes = np.arange(2**participants)[:, None] >> np.arange(participants)
        return (codes & 1).astype(np.float64), True
    # Another stream than the bootstrap's, from the same seed.
    generator = np.random.default_rng([seed, 1])
    return generator.integers(0, 2, (permutations, participants)).astype(np.float64), False


def _p_value(null: np.ndarray, observed: float, exact: bool) -> float:
    """Two-sided; without all permutations the observed one counts as one of them."""
    if np.isnan(observed):
        return np.nan
    null = null[~np.isnan(null)]
    # The identity permutation must count as equal despite rounding.
    extreme = (np.abs(null) >= abs(observed) - 1e-12 - 1e-9 * abs(observed)).sum()
    return float(extreme / len(null)) if exact else float((extreme + 1) / (len(null) + 1))


def _pair(ends: np.ndarray) -> tuple[float, float]:
    return float(ends[0]), float(ends[1])


def _group_name(value: Any) -> str:
    return "unknown" if value is None or value != value else str(value)


def _plain(value: Any) -> Any:
    """Numbers for JSON: lists instead of arrays, None instead of NaN."""
    if isinstance(value, np.ndarray | tuple | list):
        return [_plain(v) for v in value]
    number = float(value)
    return None if np.isnan(number) else number


def _per_au(values: np.ndarray, aus: Sequence[int] | None) -> Any:
    plain = _plain(values)
    return plain if aus is None else {f"AU{au:02d}": v for au, v in zip(aus, plain, strict=True)}
