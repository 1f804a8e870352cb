"""One run of `siamcal recalibrate`: a table in, the same table with calibrated readings out."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from siamcal.errors import ConfigError
from siamcal.files import replacing
from siamcal.recalibration.calibration import OutputCalibration
from siamcal.recalibration.people import PersonTable, load_table
from siamcal.recalibration.selection import EVERY_ROW, Selection
from siamcal.recalibration.text_table import Replacement

SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".pq")  # of what the tools write

__all__ = ["Settings", "recalibrate_table"]


@dataclass(frozen=True)
class Settings:
    """How a table is calibrated.

    Attributes:
        mode: As in `OutputCalibration`.
        shrinkage: As in `OutputCalibration`.
        quantile: As in `OutputCalibration`.
        selection: The rows of the reference; of the reference table where there is one. None: all
            rows, where a quantile of them is taken or where there is a reference table.
        reference_table: Where the reference rows lie, if not in the table itself.
        people: Table of other people, for `OutputCalibration.fit`.
        person: Column that tells people apart, "none" or None to find it.
        tool: Whose table it is, or None to recognise it.
        threshold: Calibrated reading from which an AU counts as present, or None for the tool's.
        min_confidence: Rows with a lower score of the face are no reference and stay as they are.
        clip: Keep results in the tool's range.
        overwrite: Replace an output that is there.
    """

    mode: str = "shift"
    shrinkage: float | None = None
    quantile: float | None = None
    selection: Selection | None = None
    reference_table: Path | None = None
    people: Path | None = None
    person: str | None = None
    tool: str | None = None
    threshold: float | None = None
    min_confidence: float = 0.5
    clip: bool = True
    overwrite: bool = False


@dataclass(frozen=True)
class Summary:
    """What was done.

    Attributes:
        tool: Whose table it was.
        rows: Rows of the table.
        calibrated: Rows that were calibrated.
        left: Why the others stayed as they are -> number.
        references: Person -> reference rows; the only person's name is "".
        columns: What was calibrated.
        thresholds: Columns of 0 and 1 -> the calibrated reading from which they are 1.
        untouched: Columns of 0 and 1 without a reading, left as they are.
    """

    tool: str
    rows: int
    calibrated: int
    left: dict[str, int]
    references: dict[str, int]
    columns: list[str]
    thresholds: dict[str, float] = field(default_factory=dict)
    untouched: list[str] = field(default_factory=list)


def recalibrate_table(path: Path, output: Path, settings: Settings) -> Summary:
    """Calibrate a table of readings by neutral rows of the same people.

    Every cell but the calibrated ones and their columns of 0 and 1 stays as it is, byte for byte;
    so do rows in which no face was read.

    Args:
        path: CSV or Parquet of OpenFace 2, LibreFace, py-feat, MediaPipe's blendshapes or siamcal.
        output: Where to write; of the same kind.
        settings: How.

    Raises:
        DataNotFoundError: A table isn't there.
        ConfigError: A table or a setting is wrong, or the output would replace a file.
    """
    _check_settings(settings)
    _check_output(path, output, settings)
    table = _load(path, settings, selected=settings.reference_table is None)
    if not table.valid.any():
        raise ConfigError(f"{path} has no row to calibrate: {_reasons(table.failures)}.")
    thresholds = _thresholds(table, settings)
    calibration = _calibration(table, settings)
    references = _references(table, settings)
    result = np.full_like(table.values, np.nan)
    for person, rows in references.items():
        mine = table.valid & (table.people == person)
        try:
            result[mine] = calibration(table.values[mine], rows)
        except ConfigError as error:
            raise ConfigError(f"{path}{_of(person)}: {error}") from error
    new, whole = _replacements(table, result, thresholds)
    try:
        with replacing(output) as place:
            table.source.write(place, new, whole)
    except OSError as error:
        raise ConfigError(f"{output} can't be written ({error.strerror or error}).") from error
    layout = table.layout
    return Summary(
        tool=layout.tool.title,
        rows=len(table.values),
        calibrated=int(table.valid.sum()),
        left=table.failures,
        references={person: len(rows) for person, rows in references.items()},
        columns=list(layout.readings),
        thresholds={
            layout.presences[name]: float(threshold)
            for name, threshold in zip(layout.readings, thresholds, strict=True)
            if name in layout.presences
        },
        untouched=list(layout.left),
    )


def _check_settings(settings: Settings) -> None:
    # The calibration's own words for modes, shrinkage and quantile, before a table is read.
    OutputCalibration(settings.mode, settings.shrinkage, settings.quantile, (0.0, 1.0))
    if not 0 <= settings.min_confidence <= 1:
        raise ConfigError(f"--min-confidence {settings.min_confidence} doesn't lie in 0 to 1.")
    if settings.mode == "monotone" and not settings.clip:
        raise ConfigError("Mode 'monotone' keeps the top of the range: leave --no-clip out.")
    if settings.mode == "quantile" and settings.people is None:
        raise ConfigError(
            "Mode 'quantile' maps to the distribution of other people: give --people with a table "
            "of their frames by the same tool."
        )
    if settings.people is not None and settings.mode not in ("shrunken", "quantile"):
        raise ConfigError(f"--people is for the modes shrunken and quantile, not {settings.mode}.")
    by_quantile = settings.quantile is not None or settings.mode == "quantile"
    if settings.selection is None and settings.reference_table is None and not by_quantile:
        raise ConfigError(
            "Neutral rows of the person are needed: --reference-rows 1:30, --reference-frames "
            "1:30, --reference-time 0:2.5, or --reference-table neutral.csv."
        )


def _check_output(path: Path, output: Path, settings: Settings) -> None:
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a table in it.")
    if output.is_dir():
        raise ConfigError(f"{output} is a folder; name a file in it with -o.")
    for given in (path, settings.reference_table, settings.people):
        if given is not None and given.exists() and output.exists() and output.samefile(given):
            raise ConfigError(f"{output} is an input; it would be overwritten. Choose another -o.")
    if output.suffix.lower() != path.suffix.lower():
        named = f"Name the output {output.with_suffix(path.suffix).name}."
        if path.suffix.lower() not in SUFFIXES:
            named = f"Is {path.name} a table? They end in {', '.join(SUFFIXES)}."
        raise ConfigError(
            f"{output} and {path} have different suffixes; a table keeps its kind. {named}"
        )
    if os.path.lexists(output) and not settings.overwrite:
        raise ConfigError(f"{output} exists already. Choose another -o, or add --overwrite.")


def _load(path: Path, settings: Settings, selected: bool = False) -> PersonTable:
    """A table; the reference rows are selected in it, or it is needed whole."""
    return load_table(
        path,
        tool=settings.tool,
        person=settings.person,
        min_confidence=settings.min_confidence,
        check_span=settings.clip,
        selected_by=settings.selection.kind if selected and settings.selection else "",
    )


def _thresholds(table: PersonTable, settings: Settings) -> np.ndarray:
    """(A,) calibrated reading from which an AU counts as present."""
    if settings.threshold is None:
        return table.thresholds
    tool = table.layout.tool
    if not table.layout.presences:
        raise ConfigError(
            f"--threshold is for columns of 0 and 1 with a reading; {table.source.path} has none."
        )
    if not 0 < settings.threshold <= tool.span[1]:
        raise ConfigError(
            f"--threshold {settings.threshold} doesn't lie in {tool.title}'s range, above 0 and up "
            f"to {tool.span[1]:g}."
        )
    return np.full(len(table.thresholds), settings.threshold)


def _calibration(table: PersonTable, settings: Settings) -> OutputCalibration:
    span = table.layout.tool.span if settings.clip else None
    calibration = OutputCalibration(
        settings.mode, settings.shrinkage, settings.quantile, span, table.layout.readings
    )
    if settings.people is not None:
        others = _matching(table, _load(settings.people, settings), settings)
        try:
            calibration.fit(others[0][others[2]], others[1][others[2]])
        except ConfigError as error:
            raise ConfigError(f"{settings.people}: {error}") from error
    return calibration


def _matching(
    table: PersonTable, other: PersonTable, settings: Settings
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values of another table in this one's order of columns, its people and valid rows."""
    mine, theirs = table.layout, other.layout
    if mine.tool != theirs.tool:
        raise ConfigError(
            f"{table.source.path} is a table of {mine.tool.title}, {other.source.path} one of "
            f"{theirs.tool.title}: readings of different tools can't be compared. If it is one "
            f"tool, name it with --tool."
        )
    lost = [name for name in mine.readings if name not in theirs.readings]
    if lost:
        raise ConfigError(
            f"{other.source.path} lacks {', '.join(lost)}, which {table.source.path} has. Make "
            f"both tables with the same settings of the tool."
        )
    order = [theirs.readings.index(name) for name in mine.readings]
    return other.values[:, order], other.people, other.valid


def _references(table: PersonTable, settings: Settings) -> dict[str, np.ndarray]:
    """Person -> (K, A) reference rows."""
    source = table
    if settings.reference_table is not None:
        source = _load(settings.reference_table, settings, selected=True)
    values, people, valid = _matching(table, source, settings)
    selection = settings.selection or EVERY_ROW
    chosen = selection.mask(source.layout, source.columns, str(source.source.path))
    usable = chosen & valid
    everyone = table.everyone
    if source is not table and not (table.named and source.named):
        if len(everyone) > 1 or len(source.everyone) > 1:
            raise ConfigError(
                f"{table.source.path} is about {len(everyone)} people and {source.source.path} "
                f"about {len(source.everyone)}; numbers that a tool gives to faces don't name the "
                f"same person in two tables. Name the column that does: --person COLUMN."
            )
        people = np.full(len(people), everyone[0])
    found = {}
    for person in everyone:
        rows = usable & (people == person)
        if not rows.any():
            raise ConfigError(
                f"{source.source.path}{_of(person)}: no valid row in {selection.text}; "
                f"{int(chosen.sum())} rows lie there, {int(usable.sum())} of them valid"
                f"{_of_others(person)}. Name rows in which the person's neutral face was read."
            )
        found[person] = values[rows]
    return found


def _replacements(
    table: PersonTable, result: np.ndarray, thresholds: np.ndarray
) -> tuple[dict[str, Replacement], list[str]]:
    """New cells by column, and which columns hold 0 and 1."""
    new: dict[str, Replacement] = {}
    whole = []
    for a, name in enumerate(table.layout.readings):
        where = table.valid & ~np.isnan(table.values[:, a])
        # A reading that isn't changed keeps its digits, however many.
        changed = where & (result[:, a] != table.values[:, a])
        written = np.where(changed, table.source.stored(name, result[:, a]), table.values[:, a])
        new[name] = written, where
        presence = table.layout.presences.get(name)
        if presence:
            whole.append(presence)
            told = where & ~np.isnan(table.columns[presence])
            new[presence] = (written >= thresholds[a]).astype(np.float64), told
    return new, whole


def _of(person: str) -> str:
    return f", person {person}" if person else ""


def _of_others(person: str) -> str:
    return " but of other people" if person else ""


def _reasons(failures: dict[str, Any]) -> str:
    return ", ".join(f"{reason} in {count} rows" for reason, count in failures.items())
