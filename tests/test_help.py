"""The help as a terminal of 80 columns shows it."""

import inspect
import re
import subprocess
import sys

import pytest
import typer.main

from siamcal.cli import _load_commands, app

_load_commands()
GROUP = typer.main.get_command(app)


def _commands(group, *names: str):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, *names, name)
        else:
            yield (*names, name), command


COMMANDS = dict(_commands(GROUP))


def test_the_commands_are_all_there() -> None:
    assert {("bench",), ("doctor",), ("data", "render"), ("predict",)} <= COMMANDS.keys()


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_examples_keep_their_lines(names: tuple[str, ...]) -> None:
    source = inspect.cleandoc(COMMANDS[names].help or "")
    wanted = re.findall(r"^    (.*)$", source, flags=re.MULTILINE)
    code = (
        "import sys; from siamcal.cli import main\n"
        f"sys.argv = ['siamcal', *{names!r}, '--help']\nmain()"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env={"COLUMNS": "80", "TERM": "dumb"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = [line.strip() for line in shown.splitlines()]
    broken = [line for line in wanted if line.strip() not in lines]
    assert not broken, f"at most 76 characters and a paragraph behind: {broken}"
