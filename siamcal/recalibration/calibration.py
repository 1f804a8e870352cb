"""`OutputCalibration`: readings of action units calibrated by a person's neutral readings alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from siamcal.errors import ConfigError
from siamcal.files import read_json, write_json
from siamcal.recalibration import population
from siamcal.recalibration.population import Population

__all__ = ["MODES", "OutputCalibration"]

MODES = ("shift", "shrunken", "quantile", "monotone")
# Of these frames the neutral is a low quantile; fewer hold no tenth to speak of.
FEWEST_FRAMES = 20
LOW_QUANTILE = 0.1
_FORMAT, _VERSION = "siamcal output calibration", 1


@dataclass(eq=False)
class OutputCalibration:
    """Calibrates readings by numbers alone; no network, no picture.

    With x a reading of one AU and n the person's neutral reading of it (the mean of the reference
    rows; with `quantile`, that quantile of the person's frames), the calibrated reading is

    - shift: x - n. This is baseline subtraction, BS of arXiv:2409.00240.
    - shrunken: x - (m + s (n - m)), the shift with n drawn towards m, the mean neutral of the
      people given to `fit` (0 without them). s is `shrinkage`, or estimated for each AU: with
      people t2 / (t2 + v / K), where t2 is the variance of people's neutrals, v that of one
      person's neutral rows and K the number of reference rows (empirical Bayes, normal model);
      without people max(0, 1 - v / (K n^2)), the positive part of James and Stein's estimate.
    - monotone: (x - n) h / (h - n) above n, x - n below: rest becomes 0 and the top h of the range
      stays the top.
    - quantile: Q(p), where p is the rank of x among the person's own frames and Q the quantiles
      averaged over the people given to `fit`, each less their own neutral. n becomes 0; beyond the
      person's lowest and highest frame it goes on with slope 1.

    All are monotone in x; a reading equal to n becomes 0, except in "shrunken".

    Args:
        mode: One of MODES.
        shrinkage: s in [0, 1] of "shrunken": 1 is the shift; None estimates it.
        quantile: In (0, 1): the reference rows are the person's frames, neutral or not, and this
            quantile of them is taken as n. "quantile" takes 0.1 where none is given.
        span: Lowest and highest value of the tool. Results are clipped to it; "monotone" needs it.
        names: (A,) names of the AUs, for messages; what is fitted for them fits no others.

    Attributes:
        people: What `fit` learnt, or None.

    Raises:
        ConfigError: A setting is unknown, out of its range, or of another mode.
    """

    mode: str = "shift"
    shrinkage: float | None = None
    quantile: float | None = None
    span: tuple[float, float] | None = None
    names: tuple[str, ...] | None = None
    people: Population | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"mode is {self.mode!r}; it is one of {', '.join(MODES)}.")
        if self.shrinkage is not None:
            if self.mode != "shrunken":
                raise ConfigError(f"shrinkage is for mode 'shrunken'; the mode is '{self.mode}'.")
            self.shrinkage = _number("shrinkage", self.shrinkage)
            if not 0 <= self.shrinkage <= 1:
                raise ConfigError(f"shrinkage is {self.shrinkage}; it lies from 0 to 1.")
        if self.mode == "quantile" and self.quantile is None:
            self.quantile = LOW_QUANTILE
        if self.quantile is not None:
            if self.mode == "shrunken":
                raise ConfigError(
                    "'shrunken' needs rows known to be neutral, since it judges their noise; "
                    "leave quantile out."
                )
            self.quantile = _number("quantile", self.quantile)
            if not 0 < self.quantile < 1:
                raise ConfigError(f"quantile is {self.quantile}; it lies between 0 and 1.")
        self.span = _span(self.span)
        if self.names is not None:
            listed = isinstance(self.names, Iterable) and not isinstance(self.names, str)
            if not listed or not all(isinstance(n, str) for n in self.names):
                raise ConfigError(f"names is {self.names!r:.200}; a text for each AU is needed.")
            self.names = tuple(self.names)
        if self.mode == "monotone" and self.span is None:
            raise ConfigError(
                "'monotone' keeps the top of the range, so it needs it: span=(0, 5) for "
                "intensities, span=(0, 1) for probabilities."
            )

    def fit(self, rows: ArrayLike, people: Sequence[Any] | np.ndarray) -> OutputCalibration:
        """Learn from other people; for "shrunken" and "quantile".

        Args:
            rows: (M, A) readings: neutral rows for "shrunken", ordinary frames for "quantile".
            people: (M,) whose row each is. NaN in rows are passed over, AU by AU.

        Returns:
            Itself.

        Raises:
            ConfigError: The mode learns nothing, the shapes differ, or the people are too few.
        """
        if self.mode not in ("shrunken", "quantile"):
            raise ConfigError(
                f"'{self.mode}' learns nothing from other people; call it with readings and a "
                f"reference."
            )
        values = _readings("rows", rows)
        self._check_units(rows, values)
        names = np.asarray(people)
        if any(name is None or name != name for name in names.ravel().tolist()):
            raise ConfigError("people holds None or NaN; each row belongs to somebody.")
        if names.dtype == object:  # numbers and texts together have no order
            names = names.astype(str)
        if names.shape != (len(values),):
            raise ConfigError(
                f"people has shape {names.shape}, but there are {len(values)} rows; name one "
                f"person a row."
            )
        if self.mode == "shrunken":
            self.people = population.neutrals(values, names, noise=self.shrinkage is None)
        else:
            assert self.quantile is not None
            self.people = population.frames(values, names, self.quantile, FEWEST_FRAMES)
        return self

    def __call__(self, readings: ArrayLike, reference: ArrayLike) -> np.ndarray:
        """Calibrate the readings of one person.

        Args:
            readings: (N, A) readings; NaN stays NaN.
            reference: (A,) one neutral reading, or (K, A) neutral rows of the same person, whose
                mean over the numbers is taken AU by AU (with `quantile`: the person's frames).

        Returns:
            (N, A), float32 for float32 readings and float64 for others; a new array.

        Raises:
            ConfigError: The shapes don't fit, a value is infinite, an AU that was read has no
                number in the reference, or the mode lacks what it needs.
        """
        values = _readings("readings", readings)
        rows = _reference(reference)
        _check_columns(readings, reference, values, rows)
        self._check_units(readings, values)
        if self.people is not None and self.people.units != values.shape[1]:
            raise ConfigError(
                f"The calibration was fitted to {self.people.units} AUs; readings have "
                f"{values.shape[1]}."
            )
        read = ~np.isnan(values).all(axis=0)
        lost = np.flatnonzero(np.isnan(rows).all(axis=0) & read)
        if lost.size:
            raise ConfigError(
                f"The reference has no number in {self._name(lost[0])}, which was read; give a "
                f"neutral row that has one."
            )
        result = np.full_like(values, np.nan)
        result[:, read] = self._calibrated(values[:, read], rows[:, read], np.flatnonzero(read))
        if self.span is not None:
            result = np.clip(result, *self.span)
        return result + 0.0  # -0.0 becomes 0.0

    def _calibrated(self, values: np.ndarray, rows: np.ndarray, units: np.ndarray) -> np.ndarray:
        if self.mode == "quantile":
            return self._by_quantiles(values, rows, units)
        neutral = self._neutral(rows)
        if self.mode == "shrunken":
            neutral = self._shrunken(neutral, rows, units)
        # In the readings' own precision, so that this is the subtraction of BS, bit for bit.
        shifted = values - neutral.astype(values.dtype)
        if self.mode == "monotone":
            assert self.span is not None
            top = self.span[1]
            high = np.flatnonzero(neutral >= top)
            if high.size:
                raise ConfigError(
                    f"{self._name(units[high[0]])} rests at {neutral[high[0]]:.4g}, the top of the "
                    f"range {self.span}: nothing is left to stretch. Choose mode 'shift'."
                )
            slope = (top / (top - neutral)).astype(values.dtype)
            return np.where(shifted > 0, shifted * slope, shifted)
        return shifted

    def _name(self, column: int) -> str:
        return f"column {column} (from 0)" if self.names is None else self.names[column]

    def _check_units(self, given: ArrayLike, values: np.ndarray) -> None:
        columns = getattr(given, "columns", None)
        if self.names is not None and columns is not None and list(columns) != list(self.names):
            raise ConfigError(
                f"The calibration is for {', '.join(self.names)}, in this order; the table has "
                f"{', '.join(map(str, columns))}."
            )
        if self.names is not None and len(self.names) != values.shape[1]:
            raise ConfigError(
                f"The calibration is for {len(self.names)} AUs ({', '.join(self.names)}); "
                f"{values.shape[1]} were given."
            )

    def _neutral(self, rows: np.ndarray) -> np.ndarray:
        """(A,) neutral reading."""
        if self.quantile is None:
            return np.nanmean(rows, axis=0)
        _check_frames(rows)
        return np.nanquantile(rows, self.quantile, axis=0)

    def _shrunken(self, neutral: np.ndarray, rows: np.ndarray, units: np.ndarray) -> np.ndarray:
        count = (~np.isnan(rows)).sum(axis=0)
        mean = np.zeros(len(neutral))
        if self.people is not None:
            assert self.people.mean is not None
            mean = self.people.mean[units]
        if self.shrinkage is not None:
            return mean + self.shrinkage * (neutral - mean)
        if self.people is not None:
            if self.people.between is None or self.people.within is None:
                raise ConfigError(
                    "The people's noise isn't known: it was fitted with a shrinkage given. Fit "
                    "again without, or give the shrinkage."
                )
            between, noise = self.people.between[units], self.people.within[units] / count
            total = between + noise
            # Where neither people nor rows differ, the person's own neutral is as good as any.
            kept = np.divide(between, total, out=np.ones_like(total), where=total > 0)
            return mean + kept * (neutral - mean)
        if (count < 2).any():
            raise ConfigError(
                "One neutral row doesn't tell its noise, so the shrinkage can't be estimated: give "
                "two or more neutral rows, fit() it to people, or give shrinkage (0 to 1)."
            )
        noise = np.nanvar(rows, axis=0, ddof=1) / count
        signal = neutral**2
        kept = 1 - np.divide(noise, signal, out=np.ones_like(noise), where=signal > 0)
        return np.maximum(kept, 0) * neutral

    def _by_quantiles(self, values: np.ndarray, rows: np.ndarray, units: np.ndarray) -> np.ndarray:
        if self.people is None or self.people.quantiles is None:
            raise ConfigError(
                "'quantile' maps to the distribution of other people: fit(rows, people) it first."
            )
        _check_frames(rows)
        assert self.people.grid is not None
        own = np.nanquantile(rows, self.people.grid, axis=0)  # (G, A)
        own = np.maximum.accumulate(own, axis=0)  # rounding
        result = np.empty_like(values)
        for a, unit in enumerate(units):
            # A value that many frames share has many ranks; the lowest keeps rest at 0.
            places, first = np.unique(own[:, a], return_index=True)
            aims = self.people.quantiles[first, unit]
            x = values[:, a]
            mapped = np.interp(x, places, aims)
            result[:, a] = mapped + np.minimum(x - places[0], 0) + np.maximum(x - places[-1], 0)
        return result

    def save(self, path: str | Path) -> None:
        """Write it as JSON, atomically."""
        write_json(
            path,
            {
                "format": _FORMAT,
                "version": _VERSION,
                "mode": self.mode,
                "shrinkage": self.shrinkage,
                "quantile": self.quantile,
                "span": self.span,
                "names": self.names,
                "people": None if self.people is None else self.people.to_dict(),
            },
        )

    @classmethod
    def load(cls, path: str | Path) -> OutputCalibration:
        """Read what `save` wrote.

        Raises:
            ConfigError: The file isn't there, isn't such a file, or holds something else.
        """
        try:
            found = read_json(path)
        except ConfigError as error:
            raise ConfigError(f"{path} can't be read as a saved calibration ({error}).") from None
        expected = {"format", "version", "mode", "shrinkage", "quantile", "span", "names", "people"}
        if not isinstance(found, dict) or found.get("format") != _FORMAT:
            raise ConfigError(f"{path} isn't what OutputCalibration.save writes.")
        if found.get("version") != _VERSION or set(found) != expected:
            raise ConfigError(
                f"{path} has version {found.get('version')} and the fields "
                f"{', '.join(sorted(found))}; this siamcal reads version {_VERSION} with "
                f"{', '.join(sorted(expected))}."
            )
        try:
            people = found["people"]
            told = ("mode", "shrinkage", "quantile", "span", "names")
            calibration = cls(**{name: found[name] for name in told})
            if people is not None:
                calibration.people = Population.from_dict(
                    people, calibration.mode, calibration.quantile
                )
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        return calibration


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise ConfigError(f"{name} is {value!r}; a number is needed.")
    return float(value)


def _span(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    pair = tuple(value) if isinstance(value, list | tuple) else ()
    if len(pair) != 2:
        raise ConfigError(f"span is {value!r}; it is a lowest and a highest value, like (0, 5).")
    low, high = (_number("span", each) for each in pair)
    if not (np.isfinite([low, high]).all() and low <= 0 < high):
        raise ConfigError(
            f"span is ({low}, {high}); both are finite and 0, the value at rest, lies between them."
        )
    return low, high


def _readings(name: str, given: ArrayLike) -> np.ndarray:
    """(N, A) in float32 or float64."""
    if isinstance(given, np.ma.MaskedArray):  # asarray would uncover what is masked
        given = np.ma.filled(given.astype(np.float64), np.nan)
    array = np.asarray(given)
    if array.ndim != 2:
        raise ConfigError(f"{name} has shape {array.shape}; (N, A) is needed, one row a frame.")
    if array.dtype == object:  # a table of mixed columns, or None for what is missing
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{name} holds what isn't a number ({error}).") from error
    if array.dtype.kind not in "iuf":
        raise ConfigError(f"{name} is of type {array.dtype}; real numbers are needed.")
    if array.dtype != np.float32:
        array = array.astype(np.float64)
    if np.isinf(array).any():
        row, column = np.argwhere(np.isinf(array))[0]
        raise ConfigError(
            f"{name} is infinite in row {row}, column {column} (from 0). Give finite numbers, and "
            f"NaN where nothing was read."
        )
    return array


def _reference(given: ArrayLike) -> np.ndarray:
    """(K, A) float64."""
    array = np.asanyarray(given)
    rows = _readings("reference", array[None] if array.ndim == 1 else array)
    if not len(rows):
        raise ConfigError("reference has no row; one neutral reading of the person is needed.")
    return rows.astype(np.float64)


def _check_columns(
    readings: ArrayLike, reference: ArrayLike, values: np.ndarray, rows: np.ndarray
) -> None:
    if values.shape[1] != rows.shape[1]:
        raise ConfigError(
            f"readings have {values.shape[1]} AUs, the reference has {rows.shape[1]}; both must "
            f"hold the same AUs in the same order."
        )
    # Tables of pandas know their columns' names: the same AUs in another order would go unnoticed.
    first, second = (getattr(each, "columns", None) for each in (readings, reference))
    if first is not None and second is not None and list(first) != list(second):
        raise ConfigError(
            "readings and reference are tables with other columns, or in another order: "
            "reference[readings.columns] puts them right."
        )


def _check_frames(rows: np.ndarray) -> None:
    fewest = int((~np.isnan(rows)).sum(axis=0).min(initial=len(rows)))
    if fewest < FEWEST_FRAMES:
        raise ConfigError(
            f"A low quantile is taken from the person's frames, of which {fewest} have a number; "
            f"{FEWEST_FRAMES} or more are needed. With few rows that are known to be neutral take "
            f"mode 'shift' without a quantile."
        )
