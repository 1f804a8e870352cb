"""Checkpoints of a training: written atomically, taken over only by the same training."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from siamcal.errors import WeightsError
from siamcal.files import replacing
from siamcal.model.weights_file import checksum_of_tensors

__all__ = ["CHECKPOINT", "TrainingState", "checkpoint_bytes"]

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.safetensors"


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
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        facts = {"step": str(self.step), "identity": identity}
        facts["checksum"] = checksum_of_tensors(tensors)
        with replacing(path) as place:
            save_file(tensors, place, metadata=facts)

    def load(self, path: Path, identity: str) -> bool:
        """Take over a checkpoint; False where there is none of the same training.

        Raises:
            WeightsError: It is damaged: no safetensors file, or other values than were written.
        """
        if not path.exists():
            return False
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
        except (SafetensorError, OSError, ValueError) as error:
            raise _damaged(path, error) from None
        if metadata.get("identity") != identity:
            logger.warning("%s is of another recipe or other data; training starts anew", path)
            return False
        try:
            tensors, step = load_file(path), int(metadata["step"])
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise _damaged(path, error) from None
        if metadata.get("checksum") != checksum_of_tensors(tensors):
            raise _damaged(path, "its values aren't those that were written")
        self.network.load_state_dict(_strip(tensors, "network."))
        state = self.optimizer.state_dict()
        state["state"] = {}
        for name, value in _strip(tensors, "optimizer.").items():
            number, _, key = name.partition(".")
            state["state"].setdefault(int(number), {})[key] = value
        self.optimizer.load_state_dict(state)
        self.step = step
        return True


def checkpoint_bytes(network: nn.Module) -> tuple[int, int]:
    """Size of a finished training's checkpoint, and what a running one has beside it."""
    state = sum(v.nbytes for v in network.state_dict().values() if isinstance(v, torch.Tensor))
    return state, 2 * sum(p.nbytes for p in network.parameters() if p.requires_grad)


def _damaged(path: Path, reason: object) -> WeightsError:
    return WeightsError(
        f"{path} is damaged ({str(reason)[:200]}). Delete it: this training then starts anew, and "
        "the others of the run stay."
    )


def _strip(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
