"""State of all random number generators that a forward may draw from."""

from __future__ import annotations

import random
import sys
from typing import Any

import torch

__all__ = ["RandomState"]


class RandomState:
    """The state at the time of construction; `restore()` goes back to it.

    Args:
        device: Device of the network; an accelerator's own generator is kept too.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._torch = torch.get_rng_state()
        self._accelerator = _accelerator(device)
        self._state = self._accelerator.get_rng_state(device) if self._accelerator else None
        self._python = random.getstate()
        numpy = sys.modules.get("numpy")
        self._numpy = numpy.random.get_state() if numpy else None

    def restore(self) -> None:
        """Set every generator back."""
        torch.set_rng_state(self._torch)
        if self._accelerator is not None:
            self._accelerator.set_rng_state(self._state, self._device)
        random.setstate(self._python)
        if self._numpy is not None:
            sys.modules["numpy"].random.set_state(self._numpy)


def _accelerator(device: torch.device) -> Any:
    """torch.cuda, torch.xpu, ...; None for the CPU, whose generator is the default one."""
    module = getattr(torch, device.type, None) if device.type != "cpu" else None
    return module if hasattr(module, "get_rng_state") else None
