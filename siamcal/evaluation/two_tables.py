"""How far two tables of one recording agree, AU by AU, whoever made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from siamcal.errors import ConfigError
from siamcal.evaluation.metrics import icc
from siamcal.recalibration.action_units import au_readings, reads_shapes
from siamcal.recalibration.matching import Matching, match, one_each, timeline_of
from siamcal.recalibration.people import PersonTable, load_table

__all__ = [
    "AUAgreement",
    "Options",
    "Side",
    "TableAgreement",
    "agree",
    "agreement_of",
    "correlation",
]

# Two points always lie on a line.
LEAST_FRAMES = 3
# A lag is believed where so many frames, and half of those at lag 0, are left to it.
LEAST_AT_LAG = 10
# Without a rate of frames 2 s can't be counted; so many frames are 2 s at 25 a second.
LAG_FRAMES = 50
INTENSITIES = (0.0, 5.0)


@dataclass(frozen=True)
class Options:
    """How two tables are read and matched; pairs are A's and B's.

    Attributes:
        by: As in `match`.
        fps: As in `match`.
        max_lag: Seconds by which B is moved at most, either way.
        tools: Whose tables, or None to recognise them.
        person_columns: What tells people apart; see `layout_of`.
        faces: Whose rows count where a table holds several people's.
        min_confidence: Rows with a lower score of the face are left out.
    """

    by: str = "auto"
    fps: float | None = None
    max_lag: float = 2.0
    tools: tuple[str | None, str | None] = (None, None)
    person_columns: tuple[str | None, str | None] = (None, None)
    faces: tuple[str | None, str | None] = (None, None)
    min_confidence: float = 0.5


@dataclass(frozen=True, eq=False)
class Side:
    """One of the tables.

    Attributes:
        path: The file.
        tool: Whose it is, for people.
        rows: Of the person.
        failed: Why rows are left out -> number.
        readings: AU -> (N,) NaN where there is none.
        span: Lowest and highest reading; None where blendshapes are read.
    """

    path: str
    tool: str
    rows: int
    failed: dict[str, int]
    readings: dict[int, np.ndarray]
    span: tuple[float, float] | None


@dataclass(frozen=True)
class AUAgreement:
    """Figures of one AU. None where it isn't defined: a constant, too few frames, other units.

    Attributes:
        au: Its number.
        frames: Frames in which both tables have a reading.
        pearson: Correlation.
        spearman: Rank correlation.
        icc: ICC(3,1), of two tables of intensities 0 to 5.
        mean_a: Mean reading of A, where both tables have the same units, as the next three.
        mean_b: Mean reading of B.
        difference: Mean of A - B.
        absolute_difference: Mean of |A - B|.
        lag_frames: Frames that B has to be moved back by to correlate best: positive where B shows
            everything later than A.
        lag_seconds: The same.
        lag_pearson: Correlation there.
    """

    au: int
    frames: int
    pearson: float | None = None
    spearman: float | None = None
    icc: float | None = None
    mean_a: float | None = None
    mean_b: float | None = None
    difference: float | None = None
    absolute_difference: float | None = None
    lag_frames: float | None = None
    lag_seconds: float | None = None
    lag_pearson: float | None = None


@dataclass(frozen=True, eq=False)
class TableAgreement:
    """Two tables held against each other.

    Attributes:
        name: Of the pair.
        a: One table.
        b: The other.
        matching: Which rows are one moment.
        aus: Figures of each AU that both have.
        notes: What a reader should know, in words.
    """

    name: str
    a: Side
    b: Side
    matching: Matching
    aus: tuple[AUAgreement, ...]
    notes: tuple[str, ...]


def agree(a: Path, b: Path, options: Options | None = None, name: str = "") -> TableAgreement:
    """Hold two tables of one recording against each other.

    Args:
        a: CSV or Parquet of OpenFace, LibreFace, py-feat, MediaPipe's blendshapes or siamcal.
        b: Another one.
        options: How.
        name: Of the pair; None takes A's.

    Raises:
        DataNotFoundError: A table isn't there.
        ConfigError: A table isn't known, is of several people, the rows can't be matched, or no AU
            is in both.
    """
    options = options or Options()
    if not options.max_lag >= 0:
        raise ConfigError(f"--max-lag takes seconds from 0 on, but got {options.max_lag:g}.")
    tables = [_table(path, options, which) for which, path in enumerate((a, b))]
    rows = [_rows_of_one(t, options.faces[w]) for w, t in enumerate(tables)]
    lines = [timeline_of(t, r) for t, r in zip(tables, rows, strict=True)]
    matching = match(lines[0], lines[1], options.by, options.fps)
    mine, theirs = (_side(t, r) for t, r in zip(tables, rows, strict=True))
    aus = agreement_of(mine, theirs, matching, options.max_lag)
    return TableAgreement(name or a.stem, mine, theirs, matching, aus, matching.notes)


def agreement_of(a: Side, b: Side, matching: Matching, max_lag: float) -> tuple[AUAgreement, ...]:
    """Figures of each AU that both tables have.

    Raises:
        ConfigError: There is none.
    """
    aus = [au for au in a.readings if au in b.readings]
    if not aus:
        raise ConfigError(
            f"{a.path} ({a.tool}) and {b.path} ({b.tool}) have no AU in common: "
            f"{_listed(a.readings)} against {_listed(b.readings)}."
        )
    here, there = (np.stack([side.readings[au] for au in aus], axis=1) for side in (a, b))
    rows = matching.rows()
    lags = best_lags(here, there, matching, max_lag)
    found = []
    for i, au in enumerate(aus):
        x, y = here[rows[0], i], there[rows[1], i]
        both = ~(np.isnan(x) | np.isnan(y))
        figures = _figures(x[both], y[both], a.span, b.span) | lags[i]
        found.append(AUAgreement(au, int(both.sum()), **figures))
    return tuple(found)


def correlation(x: np.ndarray, y: np.ndarray, *, ranks: bool = False) -> float | None:
    """Pearson's, or of ranks Spearman's; None of a constant or of fewer than `LEAST_FRAMES`."""
    if len(x) < LEAST_FRAMES or not np.ptp(x) or not np.ptp(y):
        return None
    return _known((stats.spearmanr if ranks else stats.pearsonr)(x, y).statistic)


def best_lags(
    a: np.ndarray, b: np.ndarray, matching: Matching, max_lag: float
) -> list[dict[str, float | None]]:
    """For each column the lag of B at which it correlates best with A, as fields of `AUAgreement`.

    Args:
        a: (N, A) readings.
        b: (M, A) readings.
        matching: Which rows are one moment.
        max_lag: Seconds.
    """
    step = matching.seconds_per_step
    most = min(max_lag / step, len(a), len(b)) if step else LAG_FRAMES * bool(max_lag)
    best: list[dict[str, float | None]] = [{} for _ in range(a.shape[1])]
    highest, at_zero = np.full(a.shape[1], -np.inf), np.zeros(0)
    # From 0 outwards: of two lags that are as good the shorter one is taken.
    for lag in sorted(range(-round(most), round(most) + 1), key=abs):
        rows = matching.rows(lag)
        x, y = pd.DataFrame(a[rows[0]]), pd.DataFrame(b[rows[1]])
        pairs = (x.notna() & y.notna()).sum().to_numpy()
        if lag == 0:
            at_zero = pairs
        x, y = x.where(y.notna()), y.where(x.notna())
        moving = ((x.max() > x.min()) & (y.max() > y.min())).to_numpy()
        enough = moving & (pairs >= LEAST_AT_LAG) & (2 * pairs >= at_zero)
        if not enough.any():
            continue
        places = np.flatnonzero(enough)
        values = x[places].corrwith(y[places])
        for i, value in zip(places, values, strict=True):
            if value > highest[i] + 1e-12:
                highest[i] = value
                best[i] = {"lag_frames": lag, "lag_seconds": lag * step if step else None}
                best[i]["lag_pearson"] = float(value)
    return best


def _figures(
    x: np.ndarray,
    y: np.ndarray,
    span_a: tuple[float, float] | None,
    span_b: tuple[float, float] | None,
) -> dict[str, float | None]:
    figures = {"pearson": correlation(x, y), "spearman": correlation(x, y, ranks=True)}
    if span_a != span_b or not len(x):
        return figures
    figures |= {"mean_a": float(x.mean()), "mean_b": float(y.mean())}
    figures |= {"difference": float((x - y).mean())}
    figures |= {"absolute_difference": float(np.abs(x - y).mean())}
    if span_a == INTENSITIES and len(x) >= LEAST_FRAMES:
        # To the metric a label below 0 is none; what both are raised by cancels out.
        low = min(float(y.min()), 0.0)
        figures["icc"] = _known(icc((x - low)[:, None], (y - low)[:, None])[0])
    return figures


def _table(path: Path, options: Options, which: int) -> PersonTable:
    return load_table(
        path,
        tool=options.tools[which],
        person=options.person_columns[which],
        min_confidence=options.min_confidence,
        # Readings that were calibrated without clipping lie outside.
        check_span=False,
        selected_by="time",
    )


def _rows_of_one(table: PersonTable, face: str | None) -> np.ndarray:
    """(N,) bool, the rows of the one person who is compared."""
    everyone, place = table.everyone, table.source.path
    if not everyone:
        why = ", ".join(f"{reason} in {count} rows" for reason, count in table.failures.items())
        raise ConfigError(f"{place} has no row with readings: {why}.")
    if face is not None:
        if face not in everyone or everyone == [""]:
            known = ", ".join(everyone) if everyone != [""] else "it doesn't tell people apart"
            raise ConfigError(f"{place} has no face {face!r}; {known}.")
        return one_each(table, table.people == face)
    if len(everyone) > 1:
        raise ConfigError(
            f"{place} is about {len(everyone)} people ({', '.join(everyone[:8])}), but "
            f"agreement is one person's: name them by --face, once for both tables or twice, "
            f"A's and B's."
        )
    return one_each(table, np.ones(len(table.people), dtype=bool))


def _side(table: PersonTable, rows: np.ndarray) -> Side:
    shapes = reads_shapes(table)
    others = {"no reading": int((rows & ~table.valid).sum())}  # of several people's table
    return Side(
        str(table.source.path),
        table.layout.tool.title,
        int(rows.sum()),
        table.failures if rows.all() else {why: n for why, n in others.items() if n},
        {au: column[rows] for au, column in au_readings(table).items()},
        None if shapes else table.layout.tool.span,
    )


def _listed(aus: Sequence[int] | dict[int, np.ndarray]) -> str:
    return ", ".join(f"AU{au:02d}" for au in aus) or "none"


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
