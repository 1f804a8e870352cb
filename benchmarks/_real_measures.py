"""How well the readers of clips do: by labels, by each other, and at rest; people are the unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from siamcal.benchmarks._real_clips import Clip
from siamcal.benchmarks._real_labels import ClipLabels

from siamcal.evaluation.two_tables import INTENSITIES, LEAST_FRAMES, correlation

__all__ = ["AT_REST", "BY_LABELS", "BY_OTHERS", "Limits", "at_rest", "by_labels", "by_others"]

Span = tuple[float, float]
BY_LABELS = ("correlation", "mae", "absent", "rest", "slope")
BY_OTHERS = ("correlation", "nothing")
AT_REST = ("reference", "rest", "within")


@dataclass(frozen=True)
class Limits:
    """From where on another reader counts as moving and as seeing something.

    Attributes:
        moves: Standard deviation of its trace, as a share of its range.
        nothing: Reading up to which it sees nothing, as a share of its range.
    """

    moves: float = 0.04
    nothing: float = 0.02


def by_labels(
    clips: Sequence[Clip], labels: Mapping[str, ClipLabels], spans: Mapping[str, Span]
) -> pd.DataFrame:
    """A row a reader, AU and person who is labelled: their frames of all clips together.

    Columns: reader, au, person, frames, correlation (of a reading that stands still: 0), and of
    readers of intensities mae, absent (mean reading where the label is 0), rest (the same where all
    labels of the frame are 0) and slope (how much the reading rises with a step of the label).
    """
    rows = []
    for person, own in _people(clips).items():
        for reader in _readers(own):
            for au in sorted({au for c in own if c.name in labels for au in labels[c.name].aus}):
                x, y, rest = _labelled(own, labels, reader, au)
                if len(y):
                    facts = {"reader": reader, "au": au, "person": person, "frames": len(y)}
                    rows.append(facts | _against(x, y, rest, spans[reader] == INTENSITIES))
    return pd.DataFrame(rows, columns=["reader", "au", "person", "frames", *BY_LABELS])


def by_others(
    clips: Sequence[Clip], witness: str, spans: Mapping[str, Span], limits: Limits
) -> pd.DataFrame:
    """A row a reader, AU and clip that the witness reads too.

    Columns: reader, au, person, clip, frames; correlation: of ranks, where the witness moves (of a
    reading that stands still: 0); nothing: mean reading where the witness sees nothing.
    """
    width = spans[witness][1] - spans[witness][0]
    rows = []
    for clip in (one for one in clips if witness in one.readings):
        for reader in (name for name in clip.readings if name != witness):
            for au, theirs in clip.readings[witness].items():
                if au not in clip.readings[reader]:
                    continue
                x, y = _both(clip.readings[reader][au], theirs)
                facts = {"reader": reader, "au": au, "person": clip.person, "clip": clip.name}
                moving = len(y) >= LEAST_FRAMES and y.std() >= limits.moves * width
                idle = x[y <= spans[witness][0] + limits.nothing * width]
                rows.append(
                    facts
                    | {"frames": len(y), "correlation": _rank(x, y) if moving else np.nan}
                    | {"nothing": idle.mean() if len(idle) else np.nan}
                )
    names = ["reader", "au", "person", "clip", "frames", *BY_OTHERS]
    return pd.DataFrame(rows, columns=names)


def at_rest(clips: Sequence[Clip]) -> pd.DataFrame:
    """A row a reader, AU and person.

    Columns: reader, au, person, frames (at rest), reference (the reading of the reference frame),
    rest (mean of the frames at rest), within (standard deviation over all frames).
    """
    rows = []
    for person, own in _people(clips).items():
        for reader in _readers(own):
            known = [clip for clip in own if reader in clip.readings]
            for au in known[0].readings[reader]:
                each = np.concatenate([c.readings[reader][au] for c in known])
                rest = _seen(np.concatenate([c.readings[reader][au][c.at_rest] for c in known]))
                told = [c.reference.get(reader, {}).get(au, np.nan) for c in known]
                facts = {"reader": reader, "au": au, "person": person, "frames": len(rest)}
                rows.append(
                    facts
                    | {"reference": pd.Series(told).mean()}
                    | {
                        "rest": rest.mean() if len(rest) else np.nan,
                        "within": pd.Series(each).std(),
                    }
                )
    return pd.DataFrame(rows, columns=["reader", "au", "person", "frames", *AT_REST])


def over_people(rows: pd.DataFrame, figures: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Reader -> AU -> the mean of each figure over people, and "mean" over AUs.

    Of a person with several clips the clips' mean counts once. `people` is how many have each
    figure, `pairs` how many rows; "mean" counts AUs.
    """
    found: dict[str, dict[str, Any]] = {}
    for reader, own in rows.groupby("reader", sort=False):
        each = own.groupby(["au", "person"])[list(figures)].mean().groupby("au")
        means, people = each.mean(), each.count()
        pairs, frames = own.groupby("au")[list(figures)].count(), own.groupby("au")["frames"].sum()
        cells = {
            f"AU{au:02d}": {
                **_numbers(means.loc[au]),
                "people": {name: int(people.loc[au, name]) for name in figures},
                "pairs": {name: int(pairs.loc[au, name]) for name in figures},
                "frames": int(frames[au]),
            }
            for au in means.index
        }
        counts = {name: int(means[name].count()) for name in figures}
        found[str(reader)] = {**cells, "mean": {**_numbers(means.mean()), "aus": counts}}
    return found


def with_spread(found: dict[str, dict[str, Any]], rows: pd.DataFrame) -> None:
    """Add between (standard deviation of people's means at rest) and its ratio to within."""
    for reader, own in rows.groupby("reader", sort=False):
        cells, ratios = found[str(reader)], []
        for au, people in own.groupby("au"):
            between = people["rest"].std() if people["rest"].count() > 1 else np.nan
            within = people["within"].mean()
            ratio = between / within if within > 0 else np.nan
            cells[f"AU{au:02d}"] |= _numbers(pd.Series({"between": between, "ratio": ratio}))
            ratios.append(ratio)
        cells["mean"] |= _numbers(pd.Series({"ratio": pd.Series(ratios, dtype=float).mean()}))


def _people(clips: Sequence[Clip]) -> dict[str, list[Clip]]:
    found: dict[str, list[Clip]] = {}
    for clip in clips:
        found.setdefault(clip.person, []).append(clip)
    return found


def _readers(clips: Sequence[Clip]) -> list[str]:
    return list(dict.fromkeys(name for clip in clips for name in clip.readings))


def _labelled(
    clips: Sequence[Clip], labels: Mapping[str, ClipLabels], reader: str, au: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Readings and labels of the frames that have both, and whether all labels there are 0."""
    found = [np.zeros((0, 3))]
    for clip in clips:
        told = labels[clip.name].of_frames(clip.numbers) if clip.name in labels else {}
        if au in told and au in clip.readings.get(reader, {}):
            # A label that is missing says nothing.
            rest = (np.nan_to_num(np.stack([*told.values()])) == 0).all(axis=0)
            found.append(np.stack([clip.readings[reader][au], told[au], rest], axis=1))
    rows = np.concatenate(found)
    x, y, rest = rows[~np.isnan(rows).any(axis=1)].T
    return x, y, rest == 1


def _against(x: np.ndarray, y: np.ndarray, rest: np.ndarray, intensities: bool) -> dict[str, float]:
    moving = len(y) >= LEAST_FRAMES and np.ptp(y) > 0
    told = {"correlation": (correlation(x, y) or 0.0) if moving else np.nan}
    if intensities:
        told["mae"] = float(np.abs(x - y).mean())
        told["absent"] = float(x[y == 0].mean()) if (y == 0).any() else np.nan
        told["rest"] = float(x[rest].mean()) if rest.any() else np.nan
        told["slope"] = float(stats.linregress(y, x).slope) if moving else np.nan
    return told


def _rank(x: np.ndarray, y: np.ndarray) -> float:
    return correlation(x, y, ranks=True) or 0.0


def _both(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = ~(np.isnan(x) | np.isnan(y))
    return x[known], y[known]


def _seen(values: np.ndarray) -> np.ndarray:
    return values[~np.isnan(values)]


def _numbers(values: pd.Series) -> dict[str, float | None]:
    return {str(k): None if pd.isna(v) else round(float(v), 4) for k, v in values.items()}
