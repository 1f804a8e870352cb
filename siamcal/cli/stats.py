"""`siamcal stats`: what a reviewer asks of a finished run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from siamcal.cli import COMPARE, app
from siamcal.cli._options import AsJson

STATS_EXAMPLES = """
Statistics of a finished run: paired tests, results by group, Bland-Altman, blind predictors.

Participants are the unit throughout. Everything is computed from the run's stored predictions.

Examples:

    siamcal stats runs/synth
    siamcal stats runs/disfa_intensity --by sex --metadata people.csv
    siamcal stats runs/synth --json
"""


@app.command("stats", help=STATS_EXAMPLES, rich_help_panel=COMPARE)
def stats(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    by: Annotated[
        str | None, typer.Option(help="Column of the metadata whose groups are compared.")
    ] = None,
    metadata: Annotated[
        Path | None,
        typer.Option(help="Table with a column participant; default RUN/participants.csv."),
    ] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Resamples and permutations.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the resampling.")] = 0,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write here instead of to stdout.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Statistics of a run."""
    from siamcal.errors import ConfigError
    from siamcal.evaluation.review import read_groups, read_run, review, review_markdown
    from siamcal.files import write_atomically

    results, tasks = read_run(run)
    if metadata and not by:
        raise ConfigError(f"--metadata {metadata} was given without --by COLUMN.")
    groups = None
    if by:
        table = metadata or run / "participants.csv"
        groups = read_groups(table, by, sorted({p for t in tasks for p in t.participants}))
    reviews = [review(results, task, groups, resamples=resamples, seed=seed) for task in tasks]
    text = json.dumps(reviews, indent=2) if as_json else review_markdown(results, reviews, by or "")
    if output:
        write_atomically(output, text)
    else:
        typer.echo(text)
