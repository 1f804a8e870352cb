"""Making a backbone by name, and loading weights of face recognition into one."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from siamcal.errors import ConfigError, DataNotFoundError, UnknownNameError
from siamcal.registry import backbones

__all__ = [
    "BackboneSpec",
    "WeightReport",
    "create_backbone",
    "load_face_weights",
    "source_prefixes",
]

_LOG = logging.getLogger(__name__)


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
            network's own.
        pretrained: Load the source's own weights.
        **options: Further arguments of the source's function (`img_size=112`, `drop_path_rate=.1`).

    Raises:
        UnknownNameError: Nothing has that name; the message shows the near matches.
        ConfigError: The function refuses the arguments.
    """
    function, arguments = _find(name)
    if num_outputs is not None:
        arguments["num_outputs"] = num_outputs
    if pretrained:
        arguments["pretrained"] = True
    try:
        network = function(**arguments, **options)
    except TypeError as error:
        raise ConfigError(f"The backbone {name!r} can't be made: {error}.") from error
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


def _find(name: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function that makes the backbone, and the part of the name it takes."""
    path, _, function = name.rpartition(":")
    if path.endswith(".py"):
        return _from_file(Path(path), function), {}
    source, colon, rest = name.partition(":")
    if colon:
        return backbones.get(source + ":"), {"name": rest}
    return backbones.get(name), {}


def _from_file(path: Path, name: str) -> Callable[..., Any]:
    """A function of a user's own Python file."""
    path = path.expanduser()
    if not path.is_file():
        raise DataNotFoundError(f"There is no file {path}; give ./FILE.py:FUNCTION.")
    spec = importlib.util.spec_from_file_location(f"siamcal_user_{path.stem}", path.resolve())
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} can't be read as a Python file.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        known = [k for k, v in vars(module).items() if callable(v) and not k.startswith("_")]
        raise UnknownNameError(
            f"{path} has no function {name!r}; it has: {', '.join(sorted(known)) or 'none'}."
        )
    return function


@dataclass(frozen=True)
class WeightReport:
    """What of a state dict fitted a network.

    Attributes:
        loaded: Names that were taken over.
        wrong_shape: Name -> (shape in the file, shape in the network).
        missing: Names of the network that the file lacks; they keep their start values.
        unused: Names of the file that the network lacks.
    """

    loaded: tuple[str, ...]
    wrong_shape: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} of {self._total} entries loaded"]
        lines += [
            f"  {name}: {theirs} in the file, {ours} in the network: kept at its start value"
            for name, (theirs, ours) in self.wrong_shape.items()
        ]
        lines += [f"  missing in the file: {name}" for name in self.missing]
        lines += [f"  not used by the network: {name}" for name in self.unused]
        return "\n".join(lines)

    @property
    def _total(self) -> int:
        return len(self.loaded) + len(self.wrong_shape) + len(self.missing)


def load_face_weights(backbone: nn.Module, path: str | Path) -> WeightReport:
    """Load a face-recognition state dict, such as glint360k's `backbone.pth`, as far as it fits.

    Args:
        backbone: The network, changed in place.
        path: A plain state dict, read with `weights_only=True`, or a .safetensors file. A
            `module.` prefix and a dict under the key `state_dict` are understood.

    Returns:
        What was loaded and what wasn't; for ir50 only `fc` differs and `features.*` is unused.

    Raises:
        DataNotFoundError: There is no such file.
        ConfigError: It holds no state dict, or nothing in it fits.
    """
    state = _read_state(Path(path).expanduser())
    own = backbone.state_dict()
    fitting = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    if not fitting:
        raise ConfigError(
            f"Nothing in {path} fits {type(backbone).__name__}: the file has names like "
            f"{sorted(state)[:3]}, the network {sorted(own)[:3]}."
        )
    backbone.load_state_dict(fitting, strict=False)
    report = WeightReport(
        tuple(fitting),
        {
            k: (tuple(v.shape), tuple(own[k].shape))
            for k, v in state.items()
            if k in own and v.shape != own[k].shape
        },
        tuple(k for k in own if k not in state),
        tuple(k for k in state if k not in own),
    )
    _LOG.info("%s: %s", path, report)
    return report


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise DataNotFoundError(
            f"There is no file {path}. InsightFace's model zoo has glint360k_cosface_r50_fp16_0.1/"
            "backbone.pth (non-commercial research only); give the path of your copy."
        )
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ConfigError(
            f"{path} isn't a plain state dict that can be read safely ({error}); save "
            "`model.state_dict()` and give that file."
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path} holds a {type(content).__name__}, not a state dict.")
    return {str(k).removeprefix("module."): v for k, v in content.items() if isinstance(v, Tensor)}
