"""Settings as dataclasses: to and from plain JSON, and changed by text, strictly.

An unknown or misspelled key, a missing one or a wrong type is an error that names the field and
what it takes; nothing is ignored. Values may come from a stranger, so that messages show the
beginning of a value only.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import reprlib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from siamcal.errors import ConfigError

__all__ = [
    "check_choices",
    "check_range",
    "check_whole",
    "from_dict",
    "guess",
    "override",
    "parse_value",
    "to_dict",
]

Settings = TypeVar("Settings")

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80


def to_dict(settings: Any) -> dict[str, Any]:
    """Nested plain dict of a dataclass, ready for JSON; `from_dict` is its inverse."""
    return json.loads(json.dumps(dataclasses.asdict(settings)))


def from_dict(values: Any, kind: type[Settings]) -> Settings:
    """Build a dataclass from a plain dict, strictly.

    Fields may be numbers, text, booleans, None, tuples of fixed or open length, mappings, other
    dataclasses, and unions of these, of which the first that fits is taken. A whole number is taken
    as a float where one is asked for; nothing else is turned into another type.

    Args:
        values: Names of fields -> values, as JSON or TOML gives them.
        kind: The dataclass.

    Raises:
        ConfigError: No dict, an unknown key (with near matches), a missing key, a wrong type, or
            what the dataclass itself refuses.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{kind.__name__} takes a table, but got {_short.repr(values)}.")
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(typing.cast(Any, kind))}
    for key in values:
        if key not in known:
            raise ConfigError(_unknown_key(key, kind, known))
    missing = [
        name
        for name, field in known.items()
        if name not in values and field.default is field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{kind.__name__} needs {', '.join(missing)}.")
    return kind(**{k: _convert(v, hints[k], f"{kind.__name__}.{k}") for k, v in values.items()})


def check_choices(settings: Any, **allowed: Iterable[str]) -> None:
    """Refuse a field whose value isn't one of those allowed.

    Raises:
        ConfigError: The message names the field, its value and what is allowed.
    """
    for name, values in allowed.items():
        if getattr(settings, name) not in values:
            raise ConfigError(
                f"{type(settings).__name__}.{name} is {getattr(settings, name)!r}; "
                f"allowed: {', '.join(map(repr, values))}."
            )


def check_range(name: str, value: Any, low: float, high: float) -> None:
    """Refuse a setting that isn't a number from low to high.

    Raises:
        ConfigError: The message names the setting, its value and what is allowed.
    """
    # Only True for a number between both: NaN isn't.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        raise ConfigError(f"{name} takes a number from {low:g} to {high:g}, but got {value!r}.")


def check_whole(name: str, value: Any, low: int, high: int) -> None:
    """Refuse a setting that isn't a whole number from low to high.

    Raises:
        ConfigError: The message names the setting, its value and what is allowed.
    """
    if type(value) is not int or not low <= value <= high:
        raise ConfigError(
            f"{name} takes a whole number from {low} to {high}, but got {_short.repr(value)}."
        )


def override(settings: Settings, changes: Iterable[str]) -> Settings:
    """Apply `key=value` changes (`epochs=1`, `augmentation.flip=0`), checked for field and type.

    Raises:
        ConfigError: No such field (with near matches and their present values) or a wrong type.
    """
    kind = type(settings)
    values = to_dict(settings)
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise ConfigError(f"Got the setting {change!r}; write it as key=value, like epochs=1.")
        _assign(values, key.strip(), text.strip(), kind)
    return from_dict(values, kind)


def _assign(values: dict[str, Any], key: str, text: str, kind: type[Any]) -> None:
    head, dot, rest = key.partition(".")
    hints = typing.get_type_hints(kind)
    if head not in hints:
        raise ConfigError(_unknown_key(head, kind, hints, values))
    if not dot:
        if _is_mapping(hints[head]) or dataclasses.is_dataclass(hints[head]):
            raise ConfigError(f"{head} has parts; set one of them, like {head}.KEY=value.")
        values[head] = parse_value(text, hints[head], f"{kind.__name__}.{head}")
    elif dataclasses.is_dataclass(hints[head]):
        _assign(values[head], rest, text, typing.cast(type[Any], hints[head]))
    elif _is_mapping(hints[head]):
        values[head][rest] = guess(text)
    else:
        raise ConfigError(f"{head} has no parts; write {head}=value.")


def parse_value(text: str, hint: Any, where: str) -> Any:
    """Text of the command line -> a value of the type `hint`; `where` names it in messages."""
    if _is_union(hint):
        # Any text is a str or a Path: narrower kinds come first. "none" stands for None.
        kinds = sorted(typing.get_args(hint), key=lambda kind: kind in (str, Path))
        return _first(kinds, lambda kind: parse_value(text, kind, where), where, hint, text)
    if hint in (str, Path):
        return hint(text)
    if hint is types.NoneType and text.lower() == "none":
        return None
    if hint is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise ConfigError(f"{where} takes true or false, but got {text!r}.")
        return text.lower() in ("true", "1")
    if typing.get_origin(hint) is tuple:
        parts = [p.strip() for p in text.strip("()[] ").split(",") if p.strip()]
        # Names may look like numbers: the modules of an nn.Sequential do.
        named = typing.get_args(hint)[0] is str
        return _convert(parts if named else [guess(p) for p in parts], hint, where)
    return _convert(guess(text), hint, where)


def guess(text: str) -> Any:
    """Number, boolean or text."""
    lowered = text.lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _convert(value: Any, hint: Any, where: str) -> Any:
    kinds = typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return from_dict(value, typing.cast(type[Any], hint))
    if _is_union(hint):
        return _first(kinds, lambda kind: _convert(value, kind, where), where, hint, value)
    if _is_mapping(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} takes a table, but got {_short.repr(value)}.")
        return {k: _convert(v, kinds[1], f"{where}.{str(k)[:80]}") for k, v in value.items()}
    if typing.get_origin(hint) is tuple:
        open_length = kinds[-1] is Ellipsis
        if not isinstance(value, list | tuple) or not (open_length or len(value) == len(kinds)):
            wanted = "a list" if open_length else f"{len(kinds)} values"
            raise ConfigError(f"{where} takes {wanted}, but got {_short.repr(value)}.")
        kinds = (kinds[0],) * len(value) if open_length else kinds
        return tuple(_convert(v, k, where) for v, k in zip(value, kinds, strict=True))
    if hint is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise _wrong(where, hint, value) from None
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise _wrong(where, hint, value)
    return value


def _first(
    kinds: Iterable[Any], convert: Callable[[Any], Any], where: str, hint: Any, value: Any
) -> Any:
    for kind in kinds:
        try:
            return convert(kind)
        except ConfigError:
            continue
    raise _wrong(where, hint, value)


def _is_mapping(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (types.UnionType, typing.Union)


def _wrong(where: str, hint: Any, value: Any) -> ConfigError:
    wanted = str(hint) if _is_union(hint) else hint.__name__
    return ConfigError(f"{where} takes {wanted}, but got {_short.repr(value)}.")


def _unknown_key(
    key: Any, kind: type[Any], known: Mapping[str, Any], values: Mapping[str, Any] | None = None
) -> str:
    near = difflib.get_close_matches(str(key)[:80], list(known), n=3, cutoff=0.5) or sorted(known)
    shown = [f"{n} (now {values[n]!r})" if values and n in values else n for n in near]
    return f"{kind.__name__} has no field {_short.repr(key)}; near: {', '.join(shown)}."
