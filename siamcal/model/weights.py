"""Loading weights of face recognition into a backbone, as far as they fit."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from siamcal.errors import ConfigError, WeightsError
from siamcal.model.weights_file import read_state_dict

__all__ = ["WeightReport", "load_face_weights"]

_LOG = logging.getLogger(__name__)

# Share of the parameters outside the head that a file must fit: with less, what is trained isn't
# what those weights know.
ENOUGH = 0.9
# A count that no output depends on (BatchNorm's momentum is constant).
_NOT_COUNTED = "num_batches_tracked"
_SHOWN = 12  # names of each list in a refusal


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

    At least 90 % of the network outside its head must fit, by number of entries and of values. The
    head, which a task replaces, is what the network names in `siamcal_head` (a submodule's name or
    several), else in timm's `pretrained_cfg`, else its last layer with parameters.

    Args:
        backbone: The network, changed in place; not changed where the file is refused.
        path: A plain state dict or a .safetensors file; see `read_state_dict`.

    Returns:
        What was loaded and what wasn't; for ir50 only `fc` differs and `features.*` is unused.

    Raises:
        DataNotFoundError: There is no such file.
        WeightsError: It holds no state dict, or too little of it fits; both lists are named.
        ConfigError: `siamcal_head` names no submodule.
    """
    own = {k: v for k, v in backbone.state_dict().items() if isinstance(v, Tensor)}
    state = read_state_dict(path, own)
    fitting = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    if all(name.endswith(_NOT_COUNTED) for name in fitting):
        raise WeightsError(
            f"Nothing in {path} fits {type(backbone).__name__}: the file has names like "
            f"{sorted(state)[:3]}, the network {sorted(own)[:3]}."
        )
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
    _check_share(backbone, own, report, path)
    backbone.load_state_dict(fitting, strict=False)
    _LOG.info("%s: %s", path, report)
    return report


def head_names(backbone: nn.Module) -> tuple[str, ...]:
    """Names of the submodules that make a backbone's outputs and are new for another task.

    Raises:
        ConfigError: `siamcal_head` names no submodule.
    """
    modules = dict(backbone.named_modules())
    own = getattr(backbone, "siamcal_head", None)
    if own is not None:
        names = (own,) if isinstance(own, str) else tuple(own)
        unknown = [str(name) for name in names if name not in modules or name == ""]
        if unknown:
            raise ConfigError(
                f"{type(backbone).__name__}.siamcal_head names {', '.join(unknown) or 'nothing'}, "
                f"but its parts are {', '.join(n for n, _ in backbone.named_children())}."
            )
        return names
    config = getattr(backbone, "pretrained_cfg", None)
    classifier = config.get("classifier") if isinstance(config, Mapping) else None
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
    if names and all(name in modules for name in names):
        return names
    layers = [n for n, m in modules.items() if n and list(m.parameters(recurse=False))]
    return tuple(layers[-1:])


def _check_share(
    backbone: nn.Module, own: Mapping[str, Tensor], report: WeightReport, path: str | Path
) -> None:
    heads = tuple(f"{name}." for name in head_names(backbone))
    counted = {
        name: value.numel()
        for name, value in own.items()
        if not name.startswith(heads) and not name.endswith(_NOT_COUNTED)
    }
    if not counted:  # the network is its head: something of it fits
        return
    fitting = [name for name in report.loaded if name in counted]
    values = sum(counted[name] for name in fitting) / max(1, sum(counted.values()))
    if min(len(fitting) / len(counted), values) >= ENOUGH:
        return
    kept = [n for n in counted if n not in set(fitting)]
    wrong = [
        f"{n} {report.wrong_shape[n][0]} in the file, {report.wrong_shape[n][1]} in the network"
        if n in report.wrong_shape
        else n
        for n in kept
    ]
    unused = [name for name in report.unused if not name.endswith(_NOT_COUNTED)]
    raise WeightsError(
        f"{path} fits {len(fitting)} of the {len(counted)} entries ({values:.0%} of the values) of "
        f"{type(backbone).__name__} outside its head ({', '.join(h[:-1] for h in heads)}); at "
        f"least {ENOUGH:.0%} must fit, or it's no such start. Not in the file, or of "
        f"another shape: {_some(wrong)}. In the file, but not in the network: {_some(unused)}. "
        "Give the weights of this very network; where more of it is new, name that part in its "
        "attribute siamcal_head."
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) or "nothing") + more
