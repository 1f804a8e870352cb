"""Which modules run only behind the merge point."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn

from siamcal.graph.inputs import Inputs, place_of
from siamcal.graph.randomness import RandomState
from siamcal.graph.split import Split
from siamcal.graph.state import in_mode, kept_buffers

__all__ = ["acts_behind", "modules_behind"]


def modules_behind(split: Split, inputs: Inputs) -> dict[int, bool]:
    """Id of each module that one forward calls -> whether it is called only behind the merge point.

    The network is left as it was: random state, buffers, training modes.
    """
    network, behind, reached = split.network, dict[int, bool](), False
    thread = threading.get_ident()

    def merge(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        nonlocal reached
        reached = True
        return tensors

    # Defined in this package, so that it doesn't count as a change of what was traced.
    def note(module: nn.Module, *_: Any) -> None:
        if threading.get_ident() == thread:  # others may run the same network meanwhile
            behind[id(module)] = behind.get(id(module), True) and reached

    draws = RandomState(place_of(network)[0])
    with torch.no_grad(), in_mode(network, False), kept_buffers(network):
        split.run(inputs, lambda tensors: tensors)  # whatever is cut anew is cut now
        handles = [m.register_forward_pre_hook(note) for m in network.modules()]
        try:
            split.run(inputs, merge)
        finally:
            for handle in handles:
                handle.remove()
    draws.restore()
    return behind


def acts_behind(network: nn.Module, name: str, behind: dict[int, bool]) -> bool:
    """Whether a parameter or buffer is known to act only behind the merge point.

    What holds for the nearest module around it that was called: a module's weights may be used
    without calling it. The network itself begins before the merge point.
    """
    path = name
    while path:
        path = path.rpartition(".")[0]
        module = network.get_submodule(path)
        if id(module) in behind:
            return behind[id(module)]
    return False
