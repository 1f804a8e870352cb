"""Loading weights of face recognition into a backbone, as far as they fit."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from siamcal.errors import WeightsError
from siamcal.model.weights_file import read_state_dict

__all__ = ["WeightReport", "load_face_weights"]

_LOG = logging.getLogger(__name__)


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
        path: A plain state dict or a .safetensors file; see `read_state_dict`.

    Returns:
        What was loaded and what wasn't; for ir50 only `fc` differs and `features.*` is unused.

    Raises:
        DataNotFoundError: There is no such file.
        WeightsError: It holds no state dict, or nothing in it fits.
    """
    own = backbone.state_dict()
    state = read_state_dict(path, own)
    fitting = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    if not fitting:
        raise WeightsError(
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
