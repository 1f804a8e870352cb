"""`siamcal doctor`: what is installed, what is missing, and which line mends it."""

from __future__ import annotations

import json
import platform
import re
from pathlib import Path
from typing import Any

import typer

from siamcal.cli import LOOK_UP, app, tell
from siamcal.cli._options import AsJson

DOCTOR_EXAMPLES = """
Look at the installation: versions, extras, devices, system libraries, caches, settings of the Hub.

Each thing that is missing stands with the line that installs it. No connection is opened, no
token is printed, and your home folder is written ~: the report can go into an issue as it is.

Examples:

    siamcal doctor
    siamcal doctor --json

Exit code: 0 in order, 1 something that is installed can't work.
"""


@app.command(help=DOCTOR_EXAMPLES, rich_help_panel=LOOK_UP)
def doctor(as_json: AsJson = False) -> None:
    """Look at the installation."""
    problems: list[str] = []
    extras = _extras(problems)  # first: it says so where siamcal isn't installed at all
    report = {
        "versions": _versions(),
        "extras": extras,
        "devices": _devices(problems),
        "opencv": _opencv(problems),
        "caches": _caches(),
        "hub": _hub(),
    }
    problems = [_tilde(text) for text in problems]
    if as_json:
        print(json.dumps({**report, "problems": problems}, indent=2))
    else:
        for title, values in report.items():
            print(f"{title}\n" + "\n".join(_lines(values)))
        print("problems\n" + "\n".join(f"  {text}" for text in problems or ["none"]))
    if problems:
        tell("siamcal: something that is installed can't work.", typer.colors.RED)
        raise typer.Exit(1)


def _lines(values: dict[str, Any]) -> list[str]:
    width = max(len(name) for name in values)
    return [f"  {name:<{width}}  {_said(value)}".rstrip() for name, value in values.items()]


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_said(one)}" for name, one in value.items()) or "none"
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def _versions() -> dict[str, str]:
    from importlib import metadata

    from packaging.requirements import Requirement

    from siamcal import __version__
    from siamcal.environment import installed

    known = {"siamcal": __version__, "python": platform.python_version()}
    known["system"] = platform.platform()
    names = [Requirement(line).name for line in metadata.requires("siamcal") or []]
    return known | installed(name for name in dict.fromkeys(names) if name != "siamcal")


def _extras(problems: list[str]) -> dict[str, str]:
    """For each extra: complete, or the line that completes it."""
    from siamcal.extras import CORE, install_line, lacking

    found = lacking()
    core = found.pop(CORE)
    if core:
        wanted = " ".join(f"'{text.partition(' ')[0]}'" for text in core)
        problems.append(f"siamcal needs {', '.join(core)}: pip install {wanted}")
    said = {}
    for extra, missing in found.items():
        line = f"{install_line(extra)}    # {', '.join(missing)}"
        said[extra] = line if missing else "complete"
    if not found["predict"]:
        _load_faces(problems)
    return said


def _load_faces(problems: list[str]) -> None:
    """Packages can be there and fail to load, for want of a library of the system."""
    from siamcal.faces.engines import DEFAULT, make_engine

    try:
        make_engine(DEFAULT).close()
    except (ImportError, OSError) as error:  # of MissingDependencyError, or torch's own
        problems.append(str(error))


def _devices(problems: list[str]) -> dict[str, Any]:
    from siamcal.environment import describe_devices

    try:
        return describe_devices()
    except (ImportError, OSError) as error:
        problems.append(f"torch can't be imported: {error}")
        return {"torch": "can't be imported"}


def _opencv(problems: list[str]) -> dict[str, Any]:
    """Who provides `cv2`, and the libraries of the system that it loads."""
    from siamcal.environment import OPENCV, installed, missing_libraries
    from siamcal.extras import SYSTEM_LIBRARIES

    providers = installed(OPENCV)
    if len(set(providers.values())) > 1:
        (first, version), *others = providers.items()
        wanted = " ".join(f"'{name}=={version}'" for name, _ in others)
        problems.append(
            f"cv2 is filled by {_said(providers)}, and it is chance which files it holds. Bring "
            f"them to the version of {first}: pip install --force-reinstall --no-deps {wanted}"
        )
    missing = missing_libraries(SYSTEM_LIBRARIES)
    packages = dict.fromkeys(SYSTEM_LIBRARIES[name] for name in missing)
    line = f"{', '.join(missing)}; if needed: apt-get install {' '.join(packages)}"
    return {"cv2 comes from": providers, "libraries missing": line if missing else "none"}


def _caches() -> dict[str, str]:
    from siamcal.calibrators.hub_settings import hub_settings
    from siamcal.files import bytes_of_folder, cache_place

    places = {"siamcal": cache_place(), "Hub": Path(hub_settings()["cache"])}
    return {
        name: _tilde(f"{place} ({bytes_of_folder(place) / 1e6:,.0f} MB)")
        if place.is_dir()
        else _tilde(f"{place} (not there yet)")
        for name, place in places.items()
    }


def _hub() -> dict[str, Any]:
    from siamcal.calibrators.hub_settings import hub_settings

    return {name: value for name, value in hub_settings().items() if name != "cache"}


def _tilde(text: str) -> str:
    """The text without the name of who asks, as far as their home folder tells it."""
    home = str(Path.home())
    return re.sub(rf"{re.escape(home)}(?=/|\\|\s|$)", "~", text) if len(home) > 1 else text
