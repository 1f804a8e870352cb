"""`siamcal agree`: how far two tables of one recording agree, whoever made them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from siamcal.cli import READ, app, tell
from siamcal.cli._options import AsJson
from siamcal.errors import ConfigError

if TYPE_CHECKING:
    from siamcal.evaluation.table_pairs import Pairs
    from siamcal.evaluation.two_tables import TableAgreement

EXAMPLES = """
Hold two tables of one recording against each other, AU by AU: correlations, ICC, levels, and by how
much one is later than the other.

Tables (CSV or Parquet) of siamcal, OpenFace 2, LibreFace, py-feat and MediaPipe's blendshapes are
recognised by their columns. Frames are matched by their numbers, or by time; failed ones are left
out.

Examples:

    siamcal agree aus.csv openface.csv
    siamcal agree aus.csv openface.csv -o agreement.csv --plot agreement.png
    siamcal agree aus.csv blendshapes.csv --match time
    siamcal agree tables/ openface/ -o agreement.json   # paired by name
    siamcal agree talk.csv openface.csv --face 1 --face 0

See docs/real.md.
"""

Twice = "Of both tables, or given twice: A's and B's."


@app.command("agree", help=EXAMPLES, rich_help_panel=READ)
def agree(
    a: Annotated[Path, typer.Argument(help="A table, or a folder of tables.")],
    b: Annotated[Path, typer.Argument(help="Another one of the same recordings.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the figures: .csv, .json or .md.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw both over time: a PNG, or for folders a folder of them."),
    ] = None,
    match: Annotated[
        str, typer.Option(help="Match frames by frame, time, or auto: frame where both have it.")
    ] = "auto",
    fps: Annotated[
        float | None, typer.Option(help="Frames a second, for a table without times.")
    ] = None,
    max_lag: Annotated[
        float, typer.Option(help="Seconds up to which B may be earlier or later.")
    ] = 2.0,
    tool: Annotated[list[str] | None, typer.Option(help=f"Whose table it is. {Twice}")] = None,
    person: Annotated[
        list[str] | None, typer.Option(help=f"Column that tells people apart, or none. {Twice}")
    ] = None,
    face: Annotated[
        list[str] | None, typer.Option(help=f"Whose rows count, like 1 of face_id. {Twice}")
    ] = None,
    min_confidence: Annotated[
        float, typer.Option(help="Rows with a lower score of the face are left out.")
    ] = 0.5,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace outputs that exist.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare two tables."""
    from siamcal.evaluation.table_pairs import agree_on_all, find_pairs
    from siamcal.evaluation.two_tables import Options
    from siamcal.evaluation.two_tables_report import as_facts, to_text, write_agreement

    pairs = find_pairs(a, b)
    _check_outputs(pairs, output, plot, overwrite)
    options = Options(
        match, fps, max_lag, _two(tool, "tool"), _two(person, "person"), _two(face, "face"),
        min_confidence,
    )  # fmt: skip
    found, failed = agree_on_all(pairs, options)
    if output is not None:
        write_agreement(output, found, pairs, failed)
    if plot is not None:
        _draw(found, plot, several=len(pairs.pairs) > 1)
    if as_json:
        typer.echo(json.dumps(as_facts(found, pairs, failed), indent=2))
    else:
        typer.echo(to_text(found, pairs, failed))
    for name, why in failed.items():
        tell(f"Failed: {name}: {why}", typer.colors.RED)
    for path in filter(None, (output, plot)):
        tell(f"-> {path}")
    if failed:
        raise typer.Exit(1)


def _two(given: list[str] | None, name: str) -> tuple[str | None, str | None]:
    if not given:
        return None, None
    if len(given) > 2:
        raise ConfigError(f"--{name} was given {len(given)} times; there are two tables.")
    return given[0], given[-1]


def _check_outputs(pairs: Pairs, output: Path | None, plot: Path | None, overwrite: bool) -> None:
    """Before anything is read: nothing is destroyed, everything can be written."""
    from siamcal.evaluation.two_tables_report import check_format
    from siamcal.files import make_folder

    several = len(pairs.pairs) > 1
    outputs = [] if output is None else [output]
    if output is not None:
        check_format(output)
    if plot is not None and several:
        if plot.suffix or plot.is_file():
            raise ConfigError(f"--plot {plot}: several pairs are drawn into a folder; name one.")
        outputs += [plot / f"{name}.png" for name, _, _ in pairs.pairs]
    elif plot is not None:
        if plot.suffix.lower() != ".png":
            raise ConfigError(f"--plot draws a PNG, but {plot} was named for it.")
        outputs.append(plot)
    read = [path for _, *both in pairs.pairs for path in both]
    for path in outputs:
        if path.is_dir():
            raise ConfigError(f"{path} is a folder; name a file in it.")
        if any(path.exists() and path.samefile(other) for other in read):
            raise ConfigError(f"{path} is an input; it would be overwritten. Choose another name.")
        if os.path.lexists(path) and not overwrite:
            raise ConfigError(f"{path} exists already. Choose another name, or add --overwrite.")
        make_folder(path.parent)


def _draw(found: list[TableAgreement], plot: Path, *, several: bool) -> None:
    from siamcal.evaluation.figures_tables import draw_agreement

    for one in found:
        draw_agreement(one, plot / f"{one.name}.png" if several else plot)
