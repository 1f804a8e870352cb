"""`siamcal demo`: a page for this machine's browser."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from typing import Annotated

import typer

from siamcal.cli import READ, app


@app.command(rich_help_panel=READ)
def demo(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 7860,
    model: Annotated[
        str | None, typer.Option(help="Calibrator: a folder or hf-hub:owner/name.")
    ] = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Fetch the network that the calibrator's config names."),
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = "auto",
) -> None:
    """A page in the browser: camera and videos, read on this machine alone.

    It needs `pip install 'siamcal[demo]'`, and is served to this machine only (127.0.0.1).
    Nothing is sent or fetched; Ctrl-C ends it and deletes what it kept.
    """
    from siamcal.inference.many import ModelChoice
    from siamcal.page.app import page_server

    # However it is ended, what the page kept is deleted.
    for name in {"SIGTERM", "SIGHUP"} & {one.name for one in signal.Signals}:
        signal.signal(signal.Signals[name], lambda number, _: sys.exit(128 + number))
    with page_server(ModelChoice(model, None, device, 16, trust), port) as (address, serve):
        print(f"{address} (Ctrl-C ends it)", flush=True)
        with suppress(KeyboardInterrupt):
            serve()
