"""`siamcal ls` and `siamcal show`: what there is, and what a recipe or a published model says."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from siamcal import registry
from siamcal.cli import LOOK_UP, app
from siamcal.cli._options import AsJson
from siamcal.errors import MissingDependencyError
from siamcal.extras import install_line
from siamcal.files import read_text
from siamcal.registry import Registry

LS_EXAMPLES = """
List backbones, merge forms, recipes, datasets, benchmarks, formats of tables, or the merge
points of a backbone.

Examples:

    siamcal ls
    siamcal ls recipes
    siamcal ls merge-points ir50
    siamcal ls merge-points timm:convnext_tiny --size 224
    siamcal ls backbones --filter convnext
    siamcal ls --hub

Merge points are listed with the shape of what crosses and the share of the network before them.
"""

SHOW_EXAMPLES = """
Show a recipe with all its settings, a local calibrator, or a published one before its weights load.

Examples:

    siamcal show synth
    siamcal show disfa_intensity --json
    siamcal show runs/synth-ir_tiny-intensity-0f3a9c    # a finished run
    siamcal show owner/name

Of a published calibrator only its description is downloaded.
"""

KINDS = ("backbones", "merges", "recipes", "datasets", "benchmarks", "formats", "merge-points")


@app.command("ls", help=LS_EXAMPLES, rich_help_panel=LOOK_UP)
def list_things(
    what: Annotated[str | None, typer.Argument(help=", ".join(KINDS))] = None,
    name: Annotated[str | None, typer.Argument(help="The backbone, for merge-points.")] = None,
    contains: Annotated[
        str | None, typer.Option("--filter", help="Only names that contain this.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Input size for merge-points.")] = None,
    hub: Annotated[bool, typer.Option(help="Calibrators published on the Hub.")] = False,
    as_json: AsJson = False,
) -> None:
    """List things by kind."""
    from siamcal.errors import ConfigError

    if what is None and not hub:
        rows = [_of_kind(kind) for kind in KINDS]
    elif hub:
        from siamcal.calibrators.hub import list_published

        rows = list_published(contains or "")
    elif what == "merge-points":
        if not name:
            raise ConfigError("Name the backbone: siamcal ls merge-points ir50")
        rows = _merge_points(name, size)
    elif what in KINDS:
        rows = [r for r in _names(what) if not contains or contains in r["name"]]
    else:
        near = difflib.get_close_matches(str(what), KINDS, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{what!r} is nothing to list.{hint} There are {', '.join(KINDS)}.")
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        _print_rows(rows)


def _of_kind(kind: str) -> dict[str, Any]:
    """A line of `siamcal ls`: how many there are, and some of them."""
    if kind == "merge-points":
        return {"list": kind, "how many": "", "such as": "siamcal ls merge-points ir50"}
    try:
        names = [row["name"] for row in _names(kind)]
    except MissingDependencyError:
        return {"list": kind, "how many": "", "such as": install_line(_registry(kind).extra)}
    return {"list": kind, "how many": len(names), "such as": ", ".join(names[:5])}


def _registry(kind: str) -> Registry:
    return registry.table_formats if kind == "formats" else getattr(registry, kind)


def _names(what: str) -> list[dict[str, Any]]:
    found = _registry(what)
    rows = [{"name": name, "what": found.summary(name)} for name in found.names()]
    rows = [row for row in rows if not row["name"].endswith(":")]
    if what == "backbones":
        from siamcal.model.create import source_prefixes

        rows += [{"name": prefix, "what": text} for prefix, text in source_prefixes().items()]
    return rows


def _merge_points(name: str, size: int | None) -> list[dict[str, Any]]:
    import torch

    from siamcal.graph import list_merge_points
    from siamcal.model.create import create_backbone

    backbone = create_backbone(name)
    inputs = torch.zeros(2, 3, size, size) if size else None
    return [
        {
            "name": point.name,
            "shape": "x".join(map(str, point.shape)),
            "parameters before": f"{point.params_before:.0%}",
            "multiply-adds before": f"{point.macs_before:.0%}",
        }
        for point in list_merge_points(backbone, inputs)
    ]


def _print_rows(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if not rows:
        print("Nothing found.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(value)) for value in row.values()))
    Console().print(table)


@app.command(help=SHOW_EXAMPLES, rich_help_panel=LOOK_UP)
def show(
    name: Annotated[
        str, typer.Argument(help="A recipe, a run's or calibrator's folder, a Hub name.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show a recipe or a calibrator."""
    from siamcal.registry import recipes
    from siamcal.settings import to_dict
    from siamcal.training.recipe import load_recipe

    if name in recipes or Path(name).suffix in (".json", ".toml"):
        values = to_dict(load_recipe(name))
        if name in recipes:
            values = {"summary": recipes.summary(name), **values}
    elif (Path(name) / "results.json").is_file():
        print(read_text(Path(name) / ("results.json" if as_json else "table.md")))
        return
    elif "/" in name or Path(name).is_dir():
        from siamcal.calibrators.hub import describe

        values = describe(name)
    else:
        recipes.get(name)  # raises with the near matches
        return
    if as_json:
        print(json.dumps(values, indent=2))
        return
    _print_nested(values)


def _print_nested(values: dict[str, Any], indent: str = "") -> None:
    width = max((len(k) for k in values), default=0)
    for key, value in values.items():
        if isinstance(value, dict) and value:
            print(f"{indent}{key}:")
            _print_nested(value, indent + "  ")
        else:
            print(f"{indent}{key:<{width}}  {value}")
