"""`siamcal recalibrate`: calibrate the table of any tool by neutral rows of the same person."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from siamcal.cli import READ, app
from siamcal.cli._options import AsJson
from siamcal.errors import ConfigError

if TYPE_CHECKING:
    from siamcal.recalibration.run import Summary
    from siamcal.recalibration.selection import Selection

EXAMPLES = """
Calibrate a table of AU readings by neutral rows of the same person: numbers only, no pictures.

Tables (CSV or Parquet) of OpenFace 2, LibreFace, py-feat, MediaPipe's blendshapes and siamcal are
recognised by their columns. Other columns, and frames in which no face was read, stay as they are.

Examples:

    siamcal recalibrate openface.csv --reference-rows 1:30 -o out.csv
    siamcal recalibrate openface.csv --reference-time 0:2.5 -o out.csv
    siamcal recalibrate clip.csv --reference-table neutral.csv -o out.csv
    siamcal recalibrate clip.csv --quantile 0.1 -o out.csv    # none is known
    siamcal recalibrate clip.csv --mode quantile --people others.csv -o out.csv

Ranges include both ends; rows are counted from 1, without the header. See docs/recalibrate.md.
"""


@app.command("recalibrate", help=EXAMPLES, rich_help_panel=READ)
def recalibrate(
    table: Annotated[Path, typer.Argument(help="A tool's table: CSV or Parquet.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Table of the same kind.")],
    reference_rows: Annotated[
        str | None, typer.Option(help="Neutral rows of data, like 1:30, or all.")
    ] = None,
    reference_frames: Annotated[
        str | None, typer.Option(help="Neutral frames by the table's own numbers.")
    ] = None,
    reference_time: Annotated[
        str | None, typer.Option(help="Seconds in which the face is neutral, like 0:2.5.")
    ] = None,
    reference_table: Annotated[
        Path | None, typer.Option(help="Neutral rows of the same people, by the same tool.")
    ] = None,
    mode: Annotated[
        str, typer.Option(help="shift (baseline subtraction), shrunken, monotone or quantile.")
    ] = "shift",
    shrinkage: Annotated[
        float | None, typer.Option(help="Of shrunken, 0 to 1; estimated where none is given.")
    ] = None,
    quantile: Annotated[
        float | None,
        typer.Option(help="Take this quantile of the reference rows (all, if none are named)."),
    ] = None,
    people: Annotated[
        Path | None,
        typer.Option(help="Other people: neutral rows (shrunken) or frames (quantile)."),
    ] = None,
    person: Annotated[
        str | None, typer.Option(help="Column that tells people apart, or none.")
    ] = None,
    tool: Annotated[
        str | None,
        typer.Option(help="openface, libreface, py-feat, blendshapes or siamcal."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Calibrated reading from which AU.._c is 1.")
    ] = None,
    min_confidence: Annotated[
        float, typer.Option(help="Rows with a lower score of the face stay as they are.")
    ] = 0.5,
    clip: Annotated[bool, typer.Option(help="Keep results in the tool's range.")] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an output that exists.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Calibrate a table."""
    from siamcal.recalibration.run import Settings, recalibrate_table

    settings = Settings(
        mode=mode,
        shrinkage=shrinkage,
        quantile=quantile,
        selection=_selection(reference_rows, reference_frames, reference_time),
        reference_table=reference_table,
        people=people,
        person=person,
        tool=tool,
        threshold=threshold,
        min_confidence=min_confidence,
        clip=clip,
        overwrite=overwrite,
    )
    summary = recalibrate_table(table, output, settings)
    _report(summary, output)
    if as_json:
        typer.echo(json.dumps({"output": str(output), **asdict(summary)}, indent=2))


def _selection(rows: str | None, frames: str | None, time: str | None) -> Selection | None:
    from siamcal.recalibration.selection import parse_selection

    given = {k: v for k, v in (("rows", rows), ("frames", frames), ("time", time)) if v is not None}
    if len(given) > 1:
        named = " and ".join(f"--reference-{kind}" for kind in given)
        raise ConfigError(f"{named} were given; the reference is named in one way.")
    return next((parse_selection(kind, text) for kind, text in given.items()), None)


def _report(summary: Summary, output: Path) -> None:
    columns = summary.columns
    shown = ", ".join(columns) if len(columns) < 4 else f"{columns[0]} ... {columns[-1]}"
    _say(f"{summary.tool}: {len(columns)} columns calibrated ({shown})")
    by_value: dict[float, int] = {}
    for value in summary.thresholds.values():
        by_value[value] = by_value.get(value, 0) + 1
    for value, count in by_value.items():
        _say(f"  {count} columns of 0 and 1 made anew: 1 from a calibrated {value:g} on")
    if summary.untouched:
        _say(f"  left as they are, without a reading: {', '.join(summary.untouched)}")
    for person, rows in summary.references.items():
        _say(f"Reference{f' of {person}' if person else ''}: {rows} rows")
    left = "".join(f", {count} left as they are ({why})" for why, count in summary.left.items())
    _say(f"{summary.rows} rows, {summary.calibrated} calibrated{left} -> {output}")


def _say(text: str) -> None:
    typer.echo(text, err=True)
