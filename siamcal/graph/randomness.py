"""Random number generators that a forward may draw from: their state, and who draws."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from siamcal.graph.modes import DispatchMode
from siamcal.graph.state import hookable

__all__ = ["RandomState", "Randomness"]


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
        self._others = _python_state()
        self._python = random.getstate()
        numpy = sys.modules.get("numpy")
        self._numpy = numpy.random.get_state() if numpy else None

    def moved(self) -> bool:
        """Whether a generator has drawn since."""
        return not self.equals(RandomState(self._device))

    def equals(self, other: RandomState) -> bool:
        """Whether all generators were in the same state."""
        pairs = ((self._torch, other._torch), (self._state, other._state))
        same = all(a is None or (b is not None and torch.equal(a, b)) for a, b in pairs)
        return same and self._others == other._others

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


class Randomness(DispatchMode):
    """Notes which modules draw random numbers while they run: torch's, Python's or numpy's.

    Args:
        network: The network that is run.

    Attributes:
        paths: Paths of the modules, each the innermost that ran at a draw.
        decides: Whether Python may have decided by a draw what runs (LayerDrop), so that another
            run shows other modules.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.paths: dict[str, None] = {}
        self.decides = False
        self._names = {module: name for name, module in hookable(network)}
        self._running: list[str] = []
        self._stopped = False
        self._state = _python_state()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what runs inside."""
        handles = [m.register_forward_pre_hook(self._enter) for m in self._names]
        handles += [m.register_forward_hook(self._leave) for m in self._names]
        self._state = _python_state()
        try:
            with self:
                yield
        finally:
            self._look()
            for handle in handles:
                handle.remove()

    def stop(self) -> None:
        """What runs from now on isn't noted."""
        self._look()
        self._stopped = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._stopped or torch.Tag.nondeterministic_seeded not in func.tags:
            result = func(*args, **kwargs)
            if not self._stopped:
                self.decides |= bool(self.paths) and isinstance(result, bool | int | float)
            return result
        tensors = [a for a in pytree.tree_leaves((args, kwargs)) if isinstance(a, Tensor)]
        state = _generator(tensors[0].device if tensors else kwargs.get("device"))
        before = state()
        result = func(*args, **kwargs)
        if not torch.equal(before, state()):
            self._note()
        return result

    def _enter(self, module: nn.Module, *_: Any) -> None:
        self._look()
        self._running.append(self._names[module])

    def _leave(self, *_: Any) -> None:
        self._look()
        self._running.pop()

    def _look(self) -> None:
        now = self._state if self._stopped else _python_state()
        if now != self._state:
            self._state = now
            self.decides = True
            self._note()

    def _note(self) -> None:
        self.paths[self._running[-1] if self._running else ""] = None


def _generator(device: Any) -> Callable[[], Tensor]:
    """Reads the state of the generator that draws on a device."""
    device = torch.device("cpu" if device is None else device)
    module = _accelerator(device)
    return torch.get_rng_state if module is None else lambda: module.get_rng_state(device)


def _python_state() -> tuple[Any, ...]:
    numpy = sys.modules.get("numpy")
    state = numpy.random.get_state(legacy=True) if numpy else ()
    return (random.getstate(), *(s.tobytes() if hasattr(s, "tobytes") else s for s in state))
