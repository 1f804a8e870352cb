"""Options of merge forms: held against what the form takes, before it is made."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from siamcal.errors import ConfigError
from siamcal.model.merges import PAPER
from siamcal.registry import merges

__all__ = ["check_merge_options", "takes"]

# What the wrapper itself hands to a form.
_GIVEN = {"target", "reference", "frames", "shape", "layout"}


def check_merge_options(merge: str | Callable[..., Any], options: Any) -> dict[str, Any]:
    """The options as a dict of their own, checked.

    A form whose class has a method `check_options(**options)` refuses wrong values there, before
    any network is made.

    Args:
        merge: Name of a form, or the form: a function or a class.
        options: Names and values; None is none.

    Raises:
        UnknownNameError: No merge form has that name.
        ConfigError: The form has no such option, or doesn't take that value.
    """
    if options is not None and not isinstance(options, Mapping):
        raise ConfigError(
            f"merge_options takes a mapping such as {{'shrinkage': 0.5}}, but got a "
            f"{type(options).__name__}."
        )
    options = dict(options or {})
    if merge == PAPER and not options:  # the default loads no form
        return options
    form = merges.get(merge) if isinstance(merge, str) else merge
    name = merge if isinstance(merge, str) else getattr(form, "__name__", type(form).__name__)
    known, anything = ([], False) if merge == PAPER else _parameters(form)
    for key in options:
        if key in _GIVEN or not isinstance(key, str) or not (anything or key in known):
            raise ConfigError(_unknown(name, str(key)[:80], known))
    check = getattr(form, "check_options", None)
    if options and check is not None:
        check(**options)
    return options


def takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function, or the constructor of a class, has a parameter of that name."""
    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):  # of compiled code: it tells nothing
        return False


def _parameters(form: Callable[..., Any]) -> tuple[list[str], bool]:
    """Names of a form's options, and whether it takes any name."""
    try:
        found = list(inspect.signature(form).parameters.values())
    except (TypeError, ValueError):
        return [], True
    # A class begins with the shape, a function with target and reference.
    own = found[1:] if isinstance(form, type) else found[2:]
    named = [
        p.name
        for p in own
        if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name not in _GIVEN
    ]
    return named, any(p.kind is p.VAR_KEYWORD for p in found)


def _unknown(form: str, key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return (
        f"The merge form {form!r} has no option {key!r}.{hint} It has: "
        f"{', '.join(known) or 'none'}."
    )
