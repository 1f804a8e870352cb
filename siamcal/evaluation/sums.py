"""Sums that add up over participants, and statistics of resamples made of them.

Resampling participants is then one matrix product: a resample is a row of counts, how often each
person was drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

LEVEL = 0.95  # coverage of all intervals

# (preds, labels, centre) of one participant's n frames, (n, A) each -> name -> (A,) sums.
SumsOf = Callable[[np.ndarray, np.ndarray, float], dict[str, np.ndarray]]


def frames_by_participant(participants: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The P participants, sorted, and for each of the rows the index of its participant.

    Raises:
        ValueError: There isn't one participant for each row.
    """
    participants = np.asarray(participants)
    if participants.shape != (rows,):
        raise ValueError(
            f"Expected one participant for each of {rows} rows, but got {participants.shape}."
        )
    people, member = np.unique(participants.astype(str), return_inverse=True)
    return people, member


def participant_sums(
    sums_of: SumsOf, preds: np.ndarray, labels: np.ndarray, participants: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The P participants, sorted, and their sums, name -> (P, A).

    Args:
        sums_of: Makes one participant's sums. Its `centre` is the mean of all valid labels: one for
            all AUs and methods keeps moments exact, and swapping two methods' sums meaningful.
        preds: (N, A) intensities or logits.
        labels: (N, A) intensities or occurrence; negative or NaN is invalid.
        participants: (N,) participant of each frame.
    """
    preds, labels = np.asarray(preds, np.float64), np.asarray(labels, np.float64)
    people, member = frames_by_participant(participants, len(preds))
    valid = labels >= 0
    centre = float(labels[valid].mean()) if valid.any() else 0.0
    each = [sums_of(preds[member == p], labels[member == p], centre) for p in range(len(people))]
    return people, {name: np.stack([sums[name] for sums in each]) for name in each[0]}


def bootstrap_weights(participants: int, resamples: int, seed: int) -> np.ndarray:
    """(R, P) how often each participant is drawn; NaN rows for fewer than two participants."""
    if participants < 2:
        return np.full((resamples, participants), np.nan)
    generator = np.random.default_rng(seed)
    equal = np.full(participants, 1 / participants)
    return generator.multinomial(participants, equal, size=resamples).astype(np.float64)


def mix(weights: np.ndarray, sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weighted sums over participants: (R, P) x (P, A) -> (R, A), for all K sums in one product."""
    values = np.stack([*sums.values()], axis=-1)  # (P, A, K)
    mixed = (weights @ values.reshape(len(values), -1)).reshape(-1, *values.shape[1:])
    return dict(zip(sums, np.moveaxis(mixed, -1, 0), strict=True))


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Quotient part/whole; NaN where whole is 0."""
    result = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    return np.divide(part, whole, out=result, where=whole > 0)


def nanmean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean that leaves NaN out, without numpy's warning where all are NaN (the mean then is)."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(axis), known.sum(axis).astype(np.float64))


def percentiles(draws: np.ndarray) -> np.ndarray:
    """Ends of the central `LEVEL` of draws (R, ...), NaN draws left out -> (..., 2)."""
    tail = 100 * (1 - LEVEL) / 2
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


def for_json(value: Any) -> Any:
    """Numbers for JSON: lists instead of arrays, None instead of NaN."""
    if isinstance(value, np.ndarray | tuple | list):
        return [for_json(v) for v in value]
    if isinstance(value, int):
        return value
    return None if np.isnan(value) else float(value)
