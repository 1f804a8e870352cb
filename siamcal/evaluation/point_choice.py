"""The merge point of `--merge-at auto`: chosen on the training people, never by the test people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from siamcal.errors import ConfigError, MergePointError
from siamcal.evaluation.metrics import mean_over_aus, metrics_of
from siamcal.evaluation.sums import for_json

__all__ = ["PointChoice", "choose_point"]


@dataclass(frozen=True)
class PointChoice:
    """A chosen merge point, and by what.

    Attributes:
        chosen: The point.
        metric: Name of the metric that decided: the task's main one.
        values: Point -> its mean over AUs on the training people; NaN where undefined.
        refused: Points that the network or the merge form refused -> why.
    """

    chosen: str
    metric: str
    values: dict[str, float]
    refused: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; an undefined value is None."""
        values = {point: for_json(value) for point, value in self.values.items()}
        return {**vars(self), "values": values}


def choose_point(
    points: Sequence[str],
    read: Callable[[str], np.ndarray],
    labels: np.ndarray,
    participants: np.ndarray,
    task: str,
) -> PointChoice:
    """The point at which the calibrated, untrained network reads the training people best.

    Args:
        points: Candidates; of equal ones the first is taken.
        read: Point -> readings (M, A) of the training people.
        labels: (M, A) theirs, negative where invalid.
        participants: (M,) who they are.
        task: "intensity" (chosen by ICC(3,1)) or "detection" (by F1).

    Raises:
        ConfigError: There are fewer than two people, every point was refused, or the metric is
            undefined at every point.
    """
    people = len(np.unique(participants))
    if people < 2:
        raise ConfigError(
            f"A merge point is chosen on at least 2 training people, but a fold has {people}; "
            "name the point with --merge-at, or use more people."
        )
    metric = metrics_of(task)[0]
    values, refused = {}, {}
    for point in points:
        try:
            preds = read(point)
        except (ConfigError, MergePointError) as error:
            refused[point] = str(error).partition("\n")[0][:300]
            continue
        values[point] = mean_over_aus(metric(preds, labels, participants))
    known = {point: value for point, value in values.items() if not np.isnan(value)}
    if not known:
        reasons = "; ".join(f"{point}: {reason}" for point, reason in refused.items())
        raise ConfigError(
            f"No merge point of {', '.join(points)} could be judged on the training people"
            + (f" ({reasons})" if refused else f": {metric.title} is undefined for every AU")
            + ". Name a point with --merge-at."
        )
    best = max(known, key=lambda p: known[p] if metric.higher_is_better else -known[p])
    return PointChoice(best, metric.name, values, refused)
