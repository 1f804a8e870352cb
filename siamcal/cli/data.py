"""`siamcal data`: commands about data sets."""

from __future__ import annotations

import typer

from siamcal.cli import app

__all__ = ["data_app"]

data_app = typer.Typer(help="Make, look at and check data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")
