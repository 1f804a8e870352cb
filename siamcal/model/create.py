"""Making a backbone by its name."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from siamcal.errors import ConfigError, MissingDependencyError, UnknownNameError
from siamcal.extras import needed_for
from siamcal.model.user_file import function_of_file, place_of_error
from siamcal.registry import backbones, late_module

__all__ = [
    "BackboneSpec",
    "create_backbone",
    "full_name",
    "has_public_weights",
    "is_file_name",
    "may_be_named",
    "source_prefixes",
]


DEFAULT_OUTPUTS = 72  # 12 AUs' intensity
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_]+\Z")
_NAME_OF_SOURCE = re.compile(r"[A-Za-z0-9_][\w.\-]*(/[A-Za-z0-9_][\w.\-]*)?(@[\w.\-]+)?\Z")


@dataclass(frozen=True)
class BackboneSpec:
    """How a backbone was made; `create_backbone(**vars)` makes the same again (without weights).

    Attributes:
        name: Its name, source prefix included.
        num_outputs: Number of outputs; None where the name's own default was taken.
        options: Further keyword arguments.
    """

    name: str
    num_outputs: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def create(self) -> nn.Module:
        """The same network with random weights."""
        return create_backbone(self.name, self.num_outputs, **self.options)


def create_backbone(
    name: str, num_outputs: int | None = None, pretrained: bool = False, **options: Any
) -> nn.Module:
    """Make a backbone by its name.

    The result carries `siamcal_spec`, the `BackboneSpec` that makes the same network again: saving
    a calibrator stores it and loading uses it.

    Args:
        name: A registered name (`ir50`), or one with its source: `timm:convnext_tiny`,
            `torchvision:resnet50`, `transformers:google/vit-base-patch16-224`,
            `hf-hub:owner/repo` (timm's format) or `./my_net.py:build`, a function of yours that
            returns an nn.Module (it gets `num_outputs` if it has such a parameter).
        num_outputs: Size of the output, for example 72 for 12 AUs' intensity; None keeps the
            network's own. A function of yours that can't do without a number gets 72 then, which
            is what siamcal's own networks have.
        pretrained: Load the source's own weights.
        **options: Further arguments of the source's function (`img_size=112`, `drop_path_rate=.1`).

    Raises:
        UnknownNameError: Nothing has that name; the message shows the near matches.
        ConfigError: The function refuses the arguments.
        MissingDependencyError: The package it comes from isn't installed.
    """
    function, arguments = _find(name)
    if num_outputs is not None:
        arguments["num_outputs"] = num_outputs
    if pretrained:
        arguments["pretrained"] = True
    try:
        with needed_for(f"The backbone {name!r}", "timm"):
            network = function(**arguments, **options)
    except TypeError as error:
        file = str(Path(name.rpartition(":")[0]).expanduser().resolve())
        place = place_of_error(error, file) if is_file_name(name) else ""
        raise ConfigError(f"The backbone {name!r} can't be made: {error}{place}.") from error
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"{name!r} returned a {type(network).__name__}; it must return a torch.nn.Module."
        )
    network.siamcal_spec = BackboneSpec(name, num_outputs, dict(options))  # type: ignore[assignment]
    return network


def source_prefixes() -> dict[str, str]:
    """Sources of backbones that aren't registered one by one: prefix -> what it takes."""
    prefixes = {n: backbones.summary(n) for n in backbones.names() if n.endswith(":")}
    return {**prefixes, "./FILE.py:FUNCTION": "A function of yours that returns an nn.Module."}


def is_file_name(name: str) -> bool:
    """Whether a backbone's name has the form FILE.py:FUNCTION."""
    return name.rpartition(":")[0].endswith(".py")


def may_be_named(name: str) -> bool:
    """Whether a stranger's config may ask for this name: it can only be looked up in the registry.

    That is a plain word, or a registered source and a name or OWNER/NAME behind it; no path, no
    import and no second colon, by which a source could be led elsewhere.
    """
    source, colon, rest = name.partition(":")
    if not colon:
        return name in backbones or bool(_PLAIN_WORD.match(name))
    return f"{source}:" in backbones and bool(_NAME_OF_SOURCE.match(rest))


def has_public_weights(name: str) -> bool:
    """Whether `create_backbone(name, pretrained=True)` loads weights that everybody can get."""
    return "pretrained" in inspect.signature(_find(name)[0]).parameters


def _find(name: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function that makes the backbone, and the part of the name it takes."""
    if is_file_name(name):
        path, _, function = name.rpartition(":")
        build = function_of_file(Path(path), function)
        return build, {"num_outputs": DEFAULT_OUTPUTS} if _insists(build) else {}
    source, colon, rest = name.partition(":")
    if colon and f"{source}:" in backbones:
        return backbones.get(source + ":"), {"name": rest}
    if colon and (file := Path(*source.split(".")).with_suffix(".py")).is_file():
        raise UnknownNameError(f"No backbone is called {name!r}. Did you mean './{file}:{rest}'?")
    if not colon and name not in backbones and (near := _near_of_timm(name)):
        raise UnknownNameError(
            f"No backbone is called {name!r}. Did you mean {near!r}? siamcal ls backbones lists "
            "the names and sources."
        )
    return backbones.get(source + colon if colon else name), {}


def _insists(build: Callable[..., Any]) -> bool:
    """Whether a function can't be called without its parameter `num_outputs`."""
    try:
        parameter = inspect.signature(build).parameters.get("num_outputs")
    except ValueError:  # written in C
        return False
    return parameter is not None and parameter.default is parameter.empty


def full_name(name: str) -> str:
    """A name with its source where only timm has a model so called; the same name elsewhere."""
    if ":" in name or name in backbones:
        return name
    return f"timm:{name}" if name.split(".")[0] in _names_of_timm() else name


def _near_of_timm(name: str) -> str:
    """What timm calls a network that was named without its source or with a slip; "" if unclear."""
    own = [known for known in backbones.names() if ":" not in known]
    if (full := full_name(name)) != name:
        return full
    if difflib.get_close_matches(name, own, n=1, cutoff=0.5):
        return ""
    near = difflib.get_close_matches(name, _names_of_timm(), n=1, cutoff=0.8)
    return f"timm:{near[0]}" if near else ""


def _names_of_timm() -> list[str]:
    """Names of timm's models; none where timm isn't installed."""
    try:
        return late_module("siamcal.backbones.timm").load_timm().list_models()
    except MissingDependencyError:
        return []
