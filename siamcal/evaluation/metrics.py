"""Metrics of AU recognition, one value an AU, over pooled frames (protocol of arXiv:2409.00240).

All functions take `preds` and `labels` of shape (N, A) and return (A,) float64. A negative or NaN
label is invalid and masked for its AU only. An AU without any valid label, and an AU with a NaN
prediction at a valid label, gives NaN: nothing is hidden.

A metric is one decorated function; tables, intervals, tests, figures, cards and the paper's values
read what they need of it from `METRICS`:

    @metric("rmse", "intensity", "RMSE", higher_is_better=False)
    def rmse(preds, labels):
        return np.sqrt(np.mean((preds - labels) ** 2, axis=0, where=labels >= 0))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from siamcal.errors import ConfigError
from siamcal.evaluation.sums import SumsOf, frames_by_participant, nanmean, ratio

__all__ = [
    "METRICS",
    "Metric",
    "accuracy",
    "confusion",
    "f1",
    "get_metric",
    "icc",
    "icc_per_participant",
    "icc_within",
    "mae",
    "mean_over_aus",
    "metric",
    "metrics_of",
    "moment_sums",
    "moments",
    "precision",
    "recall",
]

Sums = Mapping[str, np.ndarray]
Function = TypeVar("Function", bound=Callable[..., np.ndarray])

# Below this share of the raw second moment a variance is rounding noise of the sums.
_ROUNDING = 1e-13


@dataclass(frozen=True)
class Metric:
    """All that is known of a metric.

    Attributes:
        name: Its key in `METRICS`, in results and in options.
        task: "intensity" or "detection".
        title: As it stands in tables, ours and the paper's.
        function: (preds, labels) -> (A,), with `needs_participants` (preds, labels, participants).
        decimals: Shown of a value.
        higher_is_better: False for errors.
        headline: Shown for each AU on a model card and for each seed. The first of a task is drawn.
        reviewed: Tested and shown by group in `siamcal stats`.
        needs_participants: Whether the function takes the (N,) participants too.
        sums: Sums of one participant that add up over participants. Without them the metric is
            computed anew for each resample: right, but slow.
        of_sums: The metric as a function of those sums, each (..., A) -> (..., A).
    """

    name: str
    task: str
    title: str
    function: Callable[..., np.ndarray]
    decimals: int = 3
    higher_is_better: bool = True
    headline: bool = False
    reviewed: bool = True
    needs_participants: bool = False
    sums: SumsOf | None = None
    of_sums: Callable[[Sums], np.ndarray] | None = None

    def __call__(
        self, preds: np.ndarray, labels: np.ndarray, participants: np.ndarray | None = None
    ) -> np.ndarray:
        """The metric on all frames, (A,): of preds and labels (N, A) and participants (N,)."""
        if not self.needs_participants:
            return self.function(preds, labels)
        if participants is None:
            raise ValueError(f"Expected participants for {self.name!r}, but got None.")
        return self.function(preds, labels, participants)

    def text(self, value: float | None, *, sign: bool = False) -> str:
        """A value for a table; "–" for None."""
        return "–" if value is None else f"{value:{'+' if sign else ''}.{self.decimals}f}"

    def range_text(self, ends: Sequence[float | None], *, sign: bool = False) -> str:
        """An interval for a table: "[0.660, 0.740]"."""
        return "[" + ", ".join(self.text(end, sign=sign) for end in ends) + "]"


METRICS: dict[str, Metric] = {}


def metric(name: str, task: str, title: str, **facts: Any) -> Callable[[Function], Function]:
    """Register the decorated function as a metric.

    Args:
        name: Its name.
        task: "intensity" or "detection".
        title: As it stands in tables.
        **facts: Further fields of `Metric`.

    Raises:
        ConfigError: The name or title is taken, the task unknown, or `sums` lack `of_sums`.
    """
    if any(name == known.name or title == known.title for known in METRICS.values()):
        raise ConfigError(f"A metric called {name!r} or titled {title!r} exists; choose others.")
    if task not in ("intensity", "detection"):
        raise ConfigError(f"Metric {name!r}: task is {task!r}; allowed: intensity, detection.")
    if (facts.get("sums") is None) != (facts.get("of_sums") is None):
        raise ConfigError(f"Metric {name!r}: sums and of_sums go together; give both or neither.")

    def decorate(function: Function) -> Function:
        METRICS[name] = Metric(name, task, title, function, **facts)
        return function

    return decorate


def get_metric(name: str) -> Metric:
    """The metric called `name`.

    Raises:
        ValueError: There is none.
    """
    if name not in METRICS:
        raise ValueError(
            f"Expected a metric of {', '.join(METRICS)}, but got {name!r}. "
            f"Your own is known once siamcal.evaluation.metrics.metric has registered it."
        )
    return METRICS[name]


def metrics_of(task: str) -> list[Metric]:
    """The metrics of a task, the most telling first."""
    return [found for found in METRICS.values() if found.task == task]


def mean_over_aus(per_au: np.ndarray) -> float:
    """Plain mean over AUs; undefined (NaN) AUs are left out, all undefined gives NaN."""
    return float(nanmean(np.asarray(per_au, dtype=np.float64), axis=0))


def moment_sums(preds: np.ndarray, labels: np.ndarray, centre: float) -> dict[str, np.ndarray]:
    """Number, moments about `centre` and absolute error of (n, A) frames, summed to (A,)."""
    preds, labels, valid = _check(preds, labels)
    p, y = preds - centre, labels - centre
    n = np.ones_like(p)
    terms = {"n": n, "p": p, "y": y, "pp": p * p, "yy": y * y, "py": p * y, "abs": np.abs(p - y)}
    return {name: np.where(valid, term, 0.0).sum(0) for name, term in terms.items()}


def moments(sums: Sums) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Variances of preds and labels and their covariance, each times n.

    A variance that is only rounding of the sums becomes 0.
    """
    n = np.maximum(sums["n"], 1)
    var_p, var_y = sums["pp"] - sums["p"] ** 2 / n, sums["yy"] - sums["y"] ** 2 / n
    cov = sums["py"] - sums["p"] * sums["y"] / n
    flat_p, flat_y = var_p <= _ROUNDING * sums["pp"], var_y <= _ROUNDING * sums["yy"]
    return (
        np.where(flat_p, 0.0, var_p),
        np.where(flat_y, 0.0, var_y),
        np.where(flat_p | flat_y, 0.0, cov),
    )


def _icc_of(sums: Sums) -> np.ndarray:
    var_p, var_y, cov = moments(sums)
    return ratio(2 * cov, var_p + var_y)


@metric("icc", "intensity", "ICC(3,1)", headline=True, sums=moment_sums, of_sums=_icc_of)
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
    preds, labels = np.asarray(preds), np.asarray(labels)
    people, member = frames_by_participant(participants, len(preds))
    values = [icc(preds[member == p], labels[member == p]) for p in range(len(people))]
    return people, np.stack(values)


def _own_icc(preds: np.ndarray, labels: np.ndarray, _: float) -> dict[str, np.ndarray]:
    own = icc(preds, labels)
    return {"icc": np.nan_to_num(own), "known": (~np.isnan(own)).astype(np.float64)}


@metric(
    "icc_within",
    "intensity",
    "within-participant ICC(3,1)",
    needs_participants=True,
    sums=_own_icc,
    of_sums=lambda sums: ratio(sums["icc"], sums["known"]),
)
def icc_within(preds: np.ndarray, labels: np.ndarray, participants: np.ndarray) -> np.ndarray:
    """Within-participant ICC(3,1): plain mean of the participants' own ICCs (Table 5).

    Nobody is excluded: a participant who never shows the AU (constant labels) adds 0. Where
    prediction and label are both constant the ICC is undefined and left out of the mean.

    Returns:
        (A,); NaN where it is undefined for everyone.
    """
    return nanmean(icc_per_participant(preds, labels, participants)[1], axis=0)


@metric(
    "mae",
    "intensity",
    "MAE",
    higher_is_better=False,
    headline=True,
    sums=moment_sums,
    of_sums=lambda sums: ratio(sums["abs"], sums["n"]),
)
def mae(preds: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean absolute error in intensity steps (0-5)."""
    preds, labels, valid = _check(preds, labels)
    return ratio(np.where(valid, np.abs(preds - labels), 0.0).sum(0), valid.sum(0))


def confusion(preds: np.ndarray, labels: np.ndarray, _: float = 0.0) -> dict[str, np.ndarray]:
    """True and false positives and negatives.

    Args:
        preds: (N, A) logits; 0 or more is positive.
        labels: (N, A) 1 present, 0 absent, negative or NaN invalid.

    Returns:
        "tp", "fp", "fn", "tn" -> (A,) float64; NaN for an AU with a NaN prediction at a valid
        label.
    """
    preds, labels, valid = _check(preds, labels)
    if np.any(labels[valid] > 1):
        raise ValueError(
            f"Expected detection labels of 0 or 1 (negative: invalid), but got "
            f"{labels[valid].max():g}. Turn intensities into occurrence with "
            f"siamcal.datasets.base.detection_targets."
        )
    said, present = preds >= 0, labels >= 1
    lost = (valid & np.isnan(preds)).any(0)
    cells = {
        "tp": said & present,
        "fp": said & ~present,
        "fn": ~said & present,
        "tn": ~said & ~present,
    }
    return {name: np.where(lost, np.nan, (valid & cell).sum(0)) for name, cell in cells.items()}


def _percentage(
    name: str, title: str, part: Sequence[str], whole: Sequence[str], **facts: Any
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Register and return 100 part/whole, both sums of confusion counts.

    It is 0 for 0/0, but NaN where there isn't one valid label.
    """

    def of_counts(counts: Sums) -> np.ndarray:
        above, below, frames = (sum(counts[c] for c in of) for of in (part, whole, counts))
        share = np.divide(above, below, out=np.zeros_like(above), where=below != 0)
        return np.where(frames > 0, 100.0 * share, np.nan)

    register = metric(
        name, "detection", title, decimals=1, sums=confusion, of_sums=of_counts, **facts
    )
    return register(lambda preds, labels: of_counts(confusion(preds, labels)))


# In percent; precision is 0 where nothing was called present, recall where the AU never occurs.
f1 = _percentage("f1", "F1", ("tp", "tp"), ("tp", "tp", "fp", "fn"), headline=True)
accuracy = _percentage("accuracy", "accuracy", ("tp", "tn"), ("tp", "fp", "fn", "tn"))
precision = _percentage("precision", "precision", ("tp",), ("tp", "fp"), reviewed=False)
recall = _percentage("recall", "recall", ("tp",), ("tp", "fn"), reviewed=False)


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
