"""What other people's readings say: how they differ at rest, and how their frames are spread."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from siamcal.errors import ConfigError

__all__ = ["Population", "frames", "neutrals"]

# Ranks at which the quantiles are kept: every hundredth, from the neutral upwards.
STEPS = 101


@dataclass(frozen=True, eq=False)
class Population:
    """Facts about people; A action units, G ranks.

    Attributes:
        mean: (A,) mean over people of each one's neutral reading.
        between: (A,) variance of people's neutral readings, the noise of the rows taken off.
        within: (A,) variance of the neutral rows of one person.
        grid: (G,) ranks, ascending, the first is the neutral's.
        quantiles: (G, A) quantiles less the neutral, averaged over people.
    """

    mean: np.ndarray | None = None
    between: np.ndarray | None = None
    within: np.ndarray | None = None
    grid: np.ndarray | None = None
    quantiles: np.ndarray | None = None

    @property
    def units(self) -> int:
        """Number of action units."""
        array = self.mean if self.mean is not None else self.quantiles
        assert array is not None
        return array.shape[-1]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: v if v is None else v.tolist() for name, v in values.items()}

    @classmethod
    def from_dict(cls, given: Any, mode: str, quantile: float | None) -> Population:
        """What `to_dict` gave.

        Raises:
            ConfigError: A field is missing, unknown, of a wrong shape, or not finite.
        """
        names = [each.name for each in fields(cls)]
        if not isinstance(given, dict) or set(given) != set(names):
            raise ConfigError(f"'people' must hold {', '.join(names)}.")
        try:
            found = cls(**{n: v if v is None else np.array(v, float) for n, v in given.items()})
        except (TypeError, ValueError) as error:
            raise ConfigError(f"'people' holds what isn't a number ({error}).") from error
        if not found._sound(mode, quantile):
            raise ConfigError(
                f"'people' doesn't hold what mode '{mode}' needs; fit and save again."
            )
        return found

    def _sound(self, mode: str, quantile: float | None) -> bool:
        given = [v for each in fields(self) if (v := getattr(self, each.name)) is not None]
        if not all(np.isfinite(v).all() and v.size for v in given):
            return False
        if mode == "shrunken":
            spread = (self.between, self.within)
            known = self.mean is not None and self.mean.ndim == 1
            if all(v is None for v in spread):
                return known
            return known and all(
                v is not None and v.shape == self.mean.shape and (v >= 0).all()  # type: ignore[union-attr]
                for v in spread
            )
        if mode != "quantile" or self.grid is None or self.quantiles is None:
            return False
        return (
            self.grid.ndim == 1
            and self.quantiles.ndim == 2
            and len(self.grid) == len(self.quantiles)
            and bool((np.diff(self.grid) > 0).all() and self.grid[-1] <= 1)
            and self.grid[0] == quantile
            and bool((np.diff(self.quantiles, axis=0) >= 0).all())
        )


def neutrals(rows: np.ndarray, people: np.ndarray, noise: bool) -> Population:
    """Mean and variances of people's neutral readings, AU by AU.

    The moments of a one-way random-effects model: `within` is the pooled variance of the rows about
    their person's mean, and `between` the variance of the people's means less mean(within / K),
    what the rows' noise adds to it, and at least 0.

    Args:
        rows: (M, A) neutral readings.
        people: (M,) whose.
        noise: The variances are needed.

    Raises:
        ConfigError: Fewer than two people have a number in an AU, or the noise is needed and nobody
            has two rows.
    """
    groups = [rows[people == each] for each in np.unique(people)]
    counts = np.array([(~np.isnan(group)).sum(axis=0) for group in groups])  # (P, A)
    if len(groups) < 2 or ((counts > 0).sum(axis=0) < 2).any():
        raise ConfigError(
            f"Neutral rows of two or more people are needed in each AU; {len(groups)} "
            f"{'person was' if len(groups) == 1 else 'people were'} given."
        )
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.array([np.nansum(g, axis=0) / n for g, n in zip(groups, counts, strict=True)])
    mean = np.nanmean(means, axis=0)
    if not noise:
        return Population(mean=mean)
    squares = sum(np.nansum((g - m) ** 2, axis=0) for g, m in zip(groups, means, strict=True))
    freedom = np.maximum(counts - 1, 0).sum(axis=0)
    if (freedom < 1).any():
        raise ConfigError(
            "Each person has one neutral row, which doesn't tell its noise: give several rows a "
            "person, or a shrinkage (0 to 1)."
        )
    within = squares / freedom
    shares = np.divide(1.0, counts, out=np.full(counts.shape, np.nan), where=counts > 0)
    spread = np.nanvar(means, axis=0, ddof=1) - within * np.nanmean(shares, axis=0)
    return Population(mean=mean, between=np.maximum(spread, 0), within=within)


def frames(rows: np.ndarray, people: np.ndarray, quantile: float, fewest: int) -> Population:
    """Quantiles of people's frames less their own neutral, averaged over people (Vincent, 1912).

    Args:
        rows: (M, A) readings of ordinary frames.
        people: (M,) whose.
        quantile: The rank that is taken as neutral.
        fewest: Frames that each person needs.

    Raises:
        ConfigError: A person has too few frames with a number in an AU.
    """
    grid = np.linspace(quantile, 1, STEPS)
    curves = []
    for each in np.unique(people):
        group = rows[people == each]
        known = int((~np.isnan(group)).sum(axis=0).min(initial=len(group)))
        if known < fewest:
            raise ConfigError(
                f"Person {each} has {known} frames with a number in some AU; {fewest} or more of "
                f"each person are needed."
            )
        curve = np.nanquantile(group, grid, axis=0)
        curves.append(curve - curve[0])
    if not curves:
        raise ConfigError("No frames were given; those of one or more people are needed.")
    # Rounding in the mean must not turn a flat stretch downwards.
    quantiles = np.maximum.accumulate(np.mean(curves, axis=0), axis=0)
    return Population(grid=grid, quantiles=quantiles)
