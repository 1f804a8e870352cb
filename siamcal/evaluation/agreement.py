"""Where errors come from: across against within people, bias of each person, Bland-Altman."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from siamcal.evaluation import metrics
from siamcal.evaluation.metrics import moment_sums, moments
from siamcal.evaluation.sums import (
    bootstrap_weights,
    mix,
    participant_sums,
    percentiles,
    ratio,
    spread,
)


@dataclass(frozen=True, eq=False)
class AcrossWithin:
    """ICC over all people against ICC inside people (Table 5), and the bias between people.

    Attributes:
        across: (A,) ICC over all frames.
        within: (A,) mean of the participants' own ICCs.
        bias_sd: (A,) standard deviation over participants of their mean error: what calibration
            is meant to remove.
        undefined: (A,) participants whose own ICC is 0/0 and left out of `within`.
    """

    across: np.ndarray
    within: np.ndarray
    bias_sd: np.ndarray
    undefined: np.ndarray


@dataclass(frozen=True, eq=False)
class Agreement:
    """Bland-Altman numbers, each (A,), in intensity steps; differences are preds - labels.

    Attributes:
        bias: Mean difference.
        sd: Standard deviation of the differences over frames, with the divisor n - 1.
        lower: Lower limit of agreement, bias - 1.96 sd.
        upper: Upper limit of agreement.
        between_sd: Standard deviation of the participants' mean differences (divisor P - 1).
        slope: Change of the difference with the mean of both (proportional bias).
        bias_interval: (A, 2) interval of the bias from resampling participants.
        lower_interval: (A, 2), of the lower limit.
        upper_interval: (A, 2), of the upper limit.
    """

    bias: np.ndarray
    sd: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    between_sd: np.ndarray
    slope: np.ndarray
    bias_interval: np.ndarray
    lower_interval: np.ndarray
    upper_interval: np.ndarray


def participant_bias(
    preds: np.ndarray, labels: np.ndarray, participants: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean signed error (preds - labels) of each participant.

    Returns:
        The P participants, sorted, and (P, A); NaN where a participant has no valid label.
    """
    people, sums = participant_sums(moment_sums, preds, labels, participants)
    return people, _bias(sums)


def across_and_within(
    preds: np.ndarray, labels: np.ndarray, participants: np.ndarray
) -> AcrossWithin:
    """ICC across and within participants, and the spread of the participants' bias."""
    _, each = metrics.icc_per_participant(preds, labels, participants)
    _, bias = participant_bias(preds, labels, participants)
    return AcrossWithin(
        across=metrics.icc(preds, labels),
        within=metrics.icc_within(preds, labels, participants),
        bias_sd=spread(bias),
        undefined=np.isnan(each).sum(0),
    )


def bland_altman(
    preds: np.ndarray,
    labels: np.ndarray,
    participants: np.ndarray,
    *,
    pooled: bool = False,
    resamples: int = 2000,
    seed: int = 0,
) -> Agreement:
    """Bland-Altman agreement of predictions with labels, intervals by resampling participants.

    Args:
        preds: (N, A) intensities.
        labels: (N, A) intensities; negative or NaN is invalid.
        participants: (N,) participant of each frame.
        pooled: Take the frames of all AUs together, as if there were one AU.
        resamples: Number of resamples.
        seed: Of the resampling.
    """
    people, sums = participant_sums(moment_sums, preds, labels, participants)
    if pooled:
        sums = {name: each.sum(1, keepdims=True) for name, each in sums.items()}
    whole = _limits({name: each.sum(0) for name, each in sums.items()})
    draws = _limits(mix(bootstrap_weights(len(people), resamples, seed), sums))
    return Agreement(
        bias=whole[0],
        sd=whole[1],
        lower=whole[2],
        upper=whole[3],
        between_sd=spread(_bias(sums)),
        slope=whole[4],
        bias_interval=percentiles(draws[0]),
        lower_interval=percentiles(draws[2]),
        upper_interval=percentiles(draws[3]),
    )


def _bias(s: dict[str, np.ndarray]) -> np.ndarray:
    return ratio(s["p"] - s["y"], s["n"])


def _limits(s: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    """Bias, SD, lower and upper limit, and slope, each (..., A), from moments."""
    var_p, var_y, cov = moments(s)
    bias = _bias(s)
    sd = np.sqrt(np.maximum(ratio(var_p + var_y - 2 * cov, s["n"] - 1), 0))
    # Regression of p - y on (p + y)/2: cov = (var p - var y)/2, var = (var p + var y + 2 cov)/4.
    slope = ratio((var_p - var_y) / 2, (var_p + var_y + 2 * cov) / 4)
    return bias, sd, bias - 1.96 * sd, bias + 1.96 * sd, slope
