"""Uncertainty with participants as the unit: intervals, paired tests, results by group.

Frames of one person are far from independent, so resampling frames gives intervals that are much
too narrow. Here participants are resampled. siamcal's metrics are functions of sums that add up
over participants (moments, confusion counts), so a resample is one row of a matrix product and
2,000 resamples of 12 AUs take milliseconds. Any other metric is computed anew for each resample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from siamcal.evaluation.metrics import Metric, get_metric, mean_over_aus
from siamcal.evaluation.sums import (
    LEVEL,
    bootstrap_weights,
    for_json,
    frames_by_participant,
    mix,
    nanmean,
    participant_sums,
    percentiles,
)

__all__ = [
    "ByParticipant",
    "MetricInterval",
    "PairedDifference",
    "by_participant",
    "group_results",
    "holm",
    "metric_interval",
    "paired_difference",
]


@dataclass(frozen=True, eq=False)
class ByParticipant:
    """A metric that can count each participant any number of times.

    Attributes:
        metric: Which.
        participants: (P,) names.
        parts: The participants' sums, name -> (P, A). For a metric without sums "frames" -> (P,)
            objects, each the (2, n, A) predictions and labels of a participant.
    """

    metric: Metric
    participants: np.ndarray
    parts: dict[str, np.ndarray]

    def whole(self) -> np.ndarray:
        """The metric with each participant once, (A,)."""
        if self.metric.of_sums is None:
            return self._anew(np.ones(len(self.participants)))
        return self.metric.of_sums({name: part.sum(0) for name, part in self.parts.items()})

    def at(self, weights: np.ndarray) -> np.ndarray:
        """The metric with each participant as often as a row of weights (R, P) says, (R, A)."""
        if self.metric.of_sums is None:
            return np.stack([self._anew(counts) for counts in weights])
        return self.metric.of_sums(mix(weights, self.parts))

    def chosen(self, mask: np.ndarray) -> ByParticipant:
        """Some of the participants, of a mask (P,)."""
        parts = {name: part[mask] for name, part in self.parts.items()}
        return ByParticipant(self.metric, self.participants[mask], parts)

    def with_others(self, others: ByParticipant) -> ByParticipant:
        """These participants and then those of another set of predictions."""
        people = np.concatenate([self.participants, others.participants])
        parts = {
            name: np.concatenate([part, others.parts[name]]) for name, part in self.parts.items()
        }
        return ByParticipant(self.metric, people, parts)

    def _anew(self, counts: np.ndarray) -> np.ndarray:
        """The metric of whole numbers (P,) of copies, each copy a participant of its own."""
        frames = self.parts["frames"]
        if np.isnan(counts).any():
            return np.full(frames[0].shape[-1], np.nan)
        drawn = [frames[p] for p in np.repeat(np.arange(len(counts)), counts.astype(int))]
        copies = np.repeat(np.arange(len(drawn)), [part.shape[1] for part in drawn])
        preds, labels = np.concatenate(drawn, axis=1)
        return self.metric(preds, labels, copies)


def by_participant(
    metric: str, preds: np.ndarray, labels: np.ndarray, participants: np.ndarray
) -> ByParticipant:
    """What `metric` needs of each participant; arguments as those of `metric_interval`."""
    found = get_metric(metric)
    if found.sums is not None:
        return ByParticipant(found, *participant_sums(found.sums, preds, labels, participants))
    people, member = frames_by_participant(participants, len(preds))
    both = np.stack([np.asarray(preds, np.float64), np.asarray(labels, np.float64)])
    frames = np.empty(len(people), object)
    for p in range(len(people)):
        frames[p] = both[:, member == p]
    return ByParticipant(found, people, {"frames": frames})


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
    level: float = LEVEL

    def to_dict(self, aus: Sequence[int]) -> dict[str, Any]:
        """For JSON: NaN becomes None; per-AU values are keyed "AU01"."""
        values = {name: for_json(value) for name, value in vars(self).items() if name != "metric"}
        names = [f"AU{au:02d}" for au in aus]
        return {
            name: dict(zip(names, value, strict=True)) if name.startswith("per_au") else value
            for name, value in values.items()
        }


@dataclass(frozen=True, eq=False, kw_only=True)
class PairedDifference(MetricInterval):
    """Difference a - b of a metric between two methods on the same frames, with its interval.

    What `MetricInterval` holds of a metric, this holds of the difference: `mean` of the means over
    AUs, `per_au` and both intervals. `resamples` counts the permutations too, unless `exact`.

    Attributes:
        p_value: Two-sided permutation test: each participant's predictions of the two methods are
            swapped or not.
        per_au_p_value: (A,), not corrected for the number of AUs.
        exact: True where all 2^P swaps were tried.
    """

    p_value: float
    per_au_p_value: np.ndarray
    exact: bool

    @property
    def excludes_zero(self) -> bool:
        """True where the interval of the mean lies on one side of 0."""
        low, high = self.interval
        return bool(low > 0 or high < 0)


def metric_interval(
    metric: str,
    preds: np.ndarray,
    labels: np.ndarray,
    participants: np.ndarray,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> MetricInterval:
    """A metric on all frames with percentile intervals from resampling participants.

    Args:
        metric: A key of `siamcal.evaluation.metrics.METRICS`.
        preds: (N, A) intensities or logits.
        labels: (N, A) intensities or occurrence; negative or NaN is invalid.
        participants: (N,) participant of each frame.
        resamples: Number of resamples.
        seed: Of the resampling.
    """
    return _interval(by_participant(metric, preds, labels, participants), resamples, seed)


def _interval(people: ByParticipant, resamples: int, seed: int) -> MetricInterval:
    per_au = people.whole()
    draws = people.at(bootstrap_weights(len(people.participants), resamples, seed))
    return MetricInterval(
        metric=people.metric.name,
        mean=mean_over_aus(per_au),
        per_au=per_au,
        interval=_pair(percentiles(nanmean(draws, 1))),
        per_au_interval=percentiles(draws),
        participants=len(people.participants),
        resamples=resamples,
    )


def paired_difference(
    metric: str,
    preds_a: np.ndarray,
    preds_b: np.ndarray,
    labels: np.ndarray,
    participants: np.ndarray,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> PairedDifference:
    """Difference a - b of two methods on the same frames, with interval and p-value.

    The interval resamples participants and takes both methods of each drawn person. The
    permutation test swaps the two methods' predictions of a person; with 2^P <= `resamples` swaps
    all are tried.

    Args:
        metric: A key of `siamcal.evaluation.metrics.METRICS`.
        preds_a: (N, A).
        preds_b: (N, A).
        labels: (N, A).
        participants: (N,).
        resamples: Number of resamples and of random permutations.
        seed: Of both.
    """
    a = by_participant(metric, preds_a, labels, participants)
    b = by_participant(metric, preds_b, labels, participants)
    count = len(a.participants)
    per_au = a.whole() - b.whole()
    weights = bootstrap_weights(count, resamples, seed)
    draws = a.at(weights) - b.at(weights)
    swaps, exact = _swaps(count, resamples, seed)
    both = a.with_others(b)  # 2P
    null = both.at(np.hstack([1 - swaps, swaps])) - both.at(np.hstack([swaps, 1 - swaps]))
    return PairedDifference(
        metric=metric,
        mean=mean_over_aus(per_au),
        per_au=per_au,
        interval=_pair(percentiles(nanmean(draws, 1))),
        per_au_interval=percentiles(draws),
        p_value=_p_value(nanmean(null, 1), mean_over_aus(per_au), exact),
        per_au_p_value=np.array([_p_value(null[:, i], d, exact) for i, d in enumerate(per_au)]),
        exact=exact,
        participants=count,
        resamples=resamples,
    )


def group_results(
    metric: str,
    preds: np.ndarray,
    labels: np.ndarray,
    participants: np.ndarray,
    groups: Mapping[str, Any],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, MetricInterval]:
    """The metric inside each group of participants.

    Args:
        metric: A key of `siamcal.evaluation.metrics.METRICS`.
        preds: (N, A).
        labels: (N, A).
        participants: (N,).
        groups: Participant -> group, such as sex or age band. Participants without one form the
            group "unknown".
        resamples: Number of resamples.
        seed: Of the resampling.

    Returns:
        Group -> result, groups sorted. A group of one participant has no interval (NaN).
    """
    people = by_participant(metric, preds, labels, participants)
    member = np.array([_group_name(groups.get(p)) for p in people.participants], dtype=object)
    return {
        group: _interval(people.chosen(member == group), resamples, seed)
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
