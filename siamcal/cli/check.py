"""`siamcal data check`: is a licensed data set complete and readable?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from siamcal.cli._options import AsJson
from siamcal.cli.data import data_app
from siamcal.errors import ConfigError

CHECK_EXAMPLES = """
Count participants, frames and labels, open every picture, and say what is wrong where.

Exit code: 0 sound, 1 something makes training refuse (a broken label file), 2 nothing to check.

Examples:

    siamcal data check disfa --data-root ~/data/DISFA
    siamcal data check unbc --data-root ~/data/UNBC --quick
    siamcal data check disfa --data-root ~/data/DISFA --set views=left
    siamcal data check manifest --data-root my_people.csv --json
"""


@data_app.command("check", help=CHECK_EXAMPLES)
def check(
    name: Annotated[str, typer.Argument(help="disfa, disfa-plus, unbc, manifest.")],
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of the data, or the table of a manifest.")
    ] = None,
    references: Annotated[
        str | None,
        typer.Option(help="protocol (what is meant without it), auto, first, or a file."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Don't open the pictures.")] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="An option of the data set: --set allow_mismatch=true."),
    ] = None,
    limit: Annotated[int, typer.Option(help="Findings to print; 0: all.")] = 40,
    as_json: AsJson = False,
) -> None:
    """Check a data set."""
    import pandas as pd

    from siamcal.datasets.check import check_dataset

    report = check_dataset(name, data_root, quick=quick, **_options(settings, references))
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
        raise typer.Exit(0 if report.ok else 1)
    counts = pd.DataFrame(report.counts, columns=["", "found", "expected"])
    counts["expected"] = ["" if value is None else str(value) for _, _, value in report.counts]
    typer.echo(counts.to_string(index=False))
    if not report.people.empty:
        typer.echo()
        typer.echo(report.people.to_string(index=False))
    if report.problems:
        typer.echo()
        shown = report.problems[:limit] if limit else report.problems
        for problem in shown:
            typer.echo(f"{problem.level}: {problem.place}: {problem.text}")
        if len(shown) < len(report.problems):
            typer.echo(f"... and {len(report.problems) - len(shown)} more (--limit 0 shows all)")
    typer.echo()
    if not report.ok:
        verdict = "training would refuse this"
    elif report.complete:
        verdict = "sound and complete"
    else:
        verdict = "readable, but not as expected"
    typer.echo(
        f"{report.name}: {verdict}, "
        f"{sum(p.level == 'error' for p in report.problems)} errors, "
        f"{sum(p.level == 'warning' for p in report.problems)} warnings"
        f"{' (pictures not opened)' if quick else ''}."
    )
    raise typer.Exit(0 if report.ok else 1)


def _options(settings: list[str] | None, references: str | None) -> dict[str, Any]:
    """Options of a data set from `key=value`; `dataset_options.key=value` is understood too."""
    from siamcal.settings import guess

    options: dict[str, Any] = {} if references is None else {"references": references}
    for setting in settings or []:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(
                f"Got the setting {setting!r}; write it as key=value, like allow_mismatch=true."
            )
        options[key.strip().removeprefix("dataset_options.")] = guess(text.strip())
    return options
