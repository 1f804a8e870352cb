"""Checkpoints of a training: written atomically, taken over only by the same training."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from siamcal.errors import WeightsError
from siamcal.model.weights_file import opened_tensors, read_sealed, write_sealed

__all__ = ["CHECKPOINT", "TrainingState", "checkpoint_bytes"]

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.safetensors"
_MAX_BYTES = 1 << 40  # it is this machine's own; ViT-H with Adam's moments has 8 GB


@dataclass
class TrainingState:
    """What a checkpoint holds: the parameters, the optimiser and the number of steps done."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0

    def save(self, path: Path, identity: str, *, finished: bool = False) -> None:
        """Write atomically, so that a kill at any moment leaves the old or the new file.

        A finished training leaves out the optimiser, which is two thirds of the file.
        """
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        state = {} if finished else self.optimizer.state_dict()["state"]
        for number, values in state.items():
            tensors |= {f"optimizer.{number}.{k}": v for k, v in values.items()}
        write_sealed(tensors, {"step": str(self.step), "identity": identity}, path)

    def load(self, path: Path, identity: str) -> bool:
        """Take over a checkpoint; False where there is none of the same training.

        Raises:
            WeightsError: It is damaged: no safetensors file, or other values than were written.
        """
        if not path.exists():
            return False
        try:
            with opened_tensors(path, _MAX_BYTES) as file:
                known = (file.metadata() or {}).get("identity")
            if known != identity:
                logger.warning("%s is of another recipe or other data; training starts anew", path)
                return False
            tensors, facts = read_sealed(path, _MAX_BYTES)
            self._take_over(tensors)
            self.step = int(facts["step"])
        # The seal holds, so that only a file which isn't siamcal's comes as far as the others.
        except (WeightsError, RuntimeError, ValueError, LookupError) as error:
            raise WeightsError(
                f"{path} is damaged ({str(error)[:300]}). Delete it: this training then starts "
                "anew, and the others of the run stay."
            ) from None
        return True

    def _take_over(self, tensors: dict[str, torch.Tensor]) -> None:
        self.network.load_state_dict(_strip(tensors, "network."))
        state = self.optimizer.state_dict()
        state["state"] = {}
        for name, value in _strip(tensors, "optimizer.").items():
            number, _, key = name.partition(".")
            state["state"].setdefault(int(number), {})[key] = value
        self.optimizer.load_state_dict(state)


def checkpoint_bytes(network: nn.Module) -> tuple[int, int]:
    """Size of a finished training's checkpoint, and what a running one has beside it."""
    state = sum(v.nbytes for v in network.state_dict().values() if isinstance(v, torch.Tensor))
    return state, 2 * sum(p.nbytes for p in network.parameters() if p.requires_grad)


def _strip(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
