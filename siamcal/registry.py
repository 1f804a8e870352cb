"""Plug-ins found by name: backbones, merge forms, recipes, benchmarks, data sets, formats.

A new plug-in is one decorated function (or class) in one file of its folder; importing the folder's
modules happens at the first look-up, so `import siamcal` stays light.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import types
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from siamcal.errors import ConfigError, MissingDependencyError, UnknownNameError
from siamcal.extras import needed_for

__all__ = [
    "Registry",
    "backbones",
    "benchmarks",
    "datasets",
    "import_all",
    "late_module",
    "merges",
    "recipes",
    "table_formats",
]

Function = TypeVar("Function", bound=Callable[..., Any])


def late_module(name: str) -> Any:
    """A module of siamcal that is imported when it is needed; nothing else imports by a name."""
    with needed_for(name):
        return importlib.import_module(name)


def import_all(package: types.ModuleType) -> None:
    """Import a package's modules, so that what they register is known; not those named `_...`."""
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{package.__name__}.{module.name}")


class Registry:
    """Functions of one kind, found by name.

    Args:
        kind: What an entry is, in the singular, for messages ("backbone").
        package: Dotted name of the package whose modules register the entries.
        extra: The extra of siamcal that these modules need; "": they are part of the core.
    """

    def __init__(self, kind: str, package: str, extra: str = "") -> None:
        self.kind = kind
        self.extra = extra
        self.package = package
        self._entries: dict[str, Callable[..., Any]] = {}
        self._loaded = False

    def register(self, name: str | None = None) -> Callable[[Function], Function]:
        """Register the decorated function under `name`, or under its own name.

        Raises:
            ConfigError: The name is taken by another function.
        """

        def decorate(function: Function) -> Function:
            key = name or function.__name__
            known = self._entries.get(key)
            if known is not None and known.__qualname__ != function.__qualname__:
                raise ConfigError(
                    f"The {self.kind} name '{key}' is taken by {known.__module__}; "
                    f"give the one in {function.__module__} another name."
                )
            self._entries[key] = function
            return function

        return decorate

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self._load()
        return sorted(self._entries)

    def get(self, name: str) -> Callable[..., Any]:
        """The function registered under `name`.

        Raises:
            UnknownNameError: Nothing has that name; the message shows the near matches.
        """
        if name not in self._entries:
            self._import_package()  # what it registers itself costs no other module
        if name not in self._entries:
            self._load()
        if name not in self._entries:
            raise UnknownNameError(self._unknown(name))
        return self._entries[name]

    def summary(self, name: str) -> str:
        """First line of the entry's docstring."""
        return (self.get(name).__doc__ or "").strip().split("\n")[0]

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._entries

    def _unknown(self, name: str) -> str:
        names = self.names()
        near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(repr(n) for n in near)}?" if near else _elsewhere(name)
        known = f"Known: {', '.join(names)}."
        return f"No {self.kind} is called {name!r}. {hint} {known}".replace("  ", " ")

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True  # before the imports, which may look something up themselves
        try:
            package = self._import_package()
            with needed_for(f"A {self.kind}", self.extra):
                import_all(package)
        except BaseException:
            self._loaded = False
            raise

    def _import_package(self) -> types.ModuleType:
        try:
            with needed_for(f"A {self.kind}", self.extra):
                return importlib.import_module(self.package)
        except ModuleNotFoundError as error:
            if error.name != self.package:
                raise
            root = Path(__file__).parent.parent
            raise MissingDependencyError(
                f"'{self.package}' isn't installed: Python imports siamcal from {root}, a source "
                f"checkout. Run `pip install -e {root}` once."
            ) from None


def _elsewhere(name: str) -> str:
    """Where a name of another kind is meant, which it is."""
    for other in (recipes, datasets, benchmarks, merges):
        known: list[str] = []
        with suppress(MissingDependencyError):
            known = other.names()
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.8)
        if near:
            return f"There is a {other.kind} {near[0]!r}."
    return ""


backbones = Registry("backbone", "siamcal.backbones")
recipes = Registry("recipe", "siamcal.recipes")
benchmarks = Registry("benchmark", "siamcal.benchmarks", "bench")
merges = Registry("merge form", "siamcal.model.merges")
datasets = Registry("data set", "siamcal.datasets", "bench")
table_formats = Registry("format of tables", "siamcal.inference.formats", "predict")
