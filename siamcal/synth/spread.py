"""A few of many rendered people, chosen to look as different as they come."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from siamcal.errors import ConfigError
from siamcal.synth.traits import Traits

__all__ = ["far_apart", "unlikeness"]

_NAMED = ("sex", "hair_style", "beard", "glasses", "grey")
_MEASURED = ("age", "skin_tone", "hair_front", "recession")


def unlikeness(people: Sequence[Traits]) -> np.ndarray:
    """How unlike two people look, (N, N) in [0, 1]: Gower's distance of what shapes a face.

    The mean over traits: for sex, hair, beard, glasses and grey hair whether they differ; for age,
    skin, hairline and recession the difference over its range; and the distance of the identity
    shapes over the largest. Gower 1971, A general coefficient of similarity and some of its
    properties, doi:10.2307/2528823.
    """
    parts = []
    for name in _NAMED:
        values = np.array([str(getattr(person, name)) for person in people])
        parts.append((values[:, None] != values[None]).astype(float))
    for name in _MEASURED:
        measured = np.array([float(getattr(person, name)) for person in people])
        parts.append(_scaled(np.abs(measured[:, None] - measured[None])))
    names = sorted({name for person in people for name in person.weights})
    shapes = np.array([[person.weights.get(name, 0.0) for name in names] for person in people])
    parts.append(_scaled(np.linalg.norm(shapes[:, None] - shapes[None], axis=2)))
    return np.mean(parts, axis=0)


def _scaled(distances: np.ndarray) -> np.ndarray:
    return distances / (distances.max() or 1.0)


def far_apart(people: Sequence[Traits], count: int) -> list[int]:
    """Choose people far apart from one another; the order is that of the choice.

    The first is the first given; then each time whoever is least like the most similar one among
    the chosen (Gonzalez 1985, Clustering to minimize the maximum intercluster distance,
    doi:10.1016/0304-3975(85)90224-5).

    Args:
        people: Whom to choose from.
        count: How many.

    Returns:
        Their places in `people`.

    Raises:
        ConfigError: There aren't so many.
    """
    if not 1 <= count <= len(people):
        raise ConfigError(f"{count} of {len(people)} people can't be chosen.")
    distances = unlikeness(people)
    chosen = [0]
    while len(chosen) < count:
        nearest = distances[:, chosen].min(axis=1)
        nearest[chosen] = -1.0
        chosen.append(int(nearest.argmax()))
    return chosen
