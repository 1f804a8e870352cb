"""The command line: the only place that prints or exits.

One file a command, or a few of one purpose; each registers its functions on `app`.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from typing import Annotated, Any

import typer
import typer.core

from siamcal.errors import SiamcalError
from siamcal.extras import needed_for
from siamcal.registry import import_all

__all__ = ["COMPARE", "DATA", "EXTRAS", "LOOK_UP", "PANELS", "READ", "SHARE", "app", "main", "tell"]

# Panels of the help, in its order; a command names its own.
PANELS = COMPARE, READ, DATA, LOOK_UP, SHARE = (
    "Train and compare",
    "Read faces",
    "Data sets",
    "Look up",
    "Share calibrators",
)
# What a command needs that the core of siamcal lacks; "bench" for the others, if any.
EXTRAS = {
    "agree": "predict",
    "calibrate": "predict",
    "demo": "demo",
    "predict": "predict",
    "recalibrate": "predict",
}


class _Panels(typer.core.TyperGroup):
    """Lists commands by their panel, in the order of PANELS."""

    def list_commands(self, context: Any) -> list[str]:
        """Names of the commands."""
        return sorted(self.commands, key=lambda name: self._place(self.commands[name]))

    def invoke(self, context: Any) -> Any:
        """Run the command. Ctrl-C is answered here: further up typer says "Aborted" only."""
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            resumes = set(sys.argv[1:2]) & {"bench", "train", "data", "pull"}
            hint = "; the same command goes on where it stopped" if resumes else ""
            tell(f"siamcal: interrupted{hint}.")
            sys.exit(130)

    @staticmethod
    def _place(command: Any) -> int:
        panel = command.rich_help_panel
        return PANELS.index(panel) if panel in PANELS else len(PANELS)


app = typer.Typer(
    name="siamcal",
    cls=_Panels,
    help="One-frame calibration for facial action unit networks.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def tell(text: str, colour: str | None = None) -> None:
    """A line for people, on stderr; without colour where NO_COLOR is set (no-color.org)."""
    plain = os.environ.get("NO_COLOR") or colour is None
    typer.echo(text if plain else typer.style(text, fg=colour), err=True)


def _print_version(asked: bool) -> None:
    if asked:
        from siamcal import __version__

        print(f"siamcal {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and end."
        ),
    ] = False,
) -> None:
    pass


def _load_commands() -> None:
    import_all(sys.modules[__name__])


def _refuse_empty(arguments: list[str]) -> None:
    """An empty argument is a variable of the shell that isn't set: as a path it would be "."."""
    if "" in arguments:
        place = arguments.index("")
        behind = f" behind {arguments[place - 1]!r}" if place else ""
        tell(
            f"siamcal: The argument{behind} is empty. Is a variable of the shell unset?",
            typer.colors.RED,
        )
        sys.exit(2)


def main() -> None:
    """Run the command line; a deliberate error is one message on stderr and exit code 2."""
    # LiteRT's and mediapipe's C++ parts log to stderr from import on.
    os.environ.setdefault("GLOG_minloglevel", "3")
    # What the Hub's library warns of is told once, in the error's own words.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    # torch brings objects by the hundred thousand, through which Python would look for unused rings
    # while it imports them and again when it ends: half a second of processor time.
    gc.set_threshold(50_000)
    atexit.register(gc.freeze)
    _refuse_empty(sys.argv[1:])
    _load_commands()
    try:
        command = next(iter(sys.argv[1:]), "")
        with needed_for(f"siamcal {command}", EXTRAS.get(command, "bench")):
            app()
    except SiamcalError as error:
        tell(f"siamcal: {error}", typer.colors.RED)
        sys.exit(2)
