"""Build a network from a stranger's description without letting it outgrow its own weights file.

A config can ask for a network of any width and depth. While it is built, the number and size of
its parameters and of every tensor made on the way are held against the weights file that came
along, and the building ends at the first step beyond.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode

from siamcal.errors import WeightsError

__all__ = ["ADAPTER_BUDGET", "Budget", "build_within"]

Built = TypeVar("Built")

# Builders make a few tensors that they throw away again: a classifier that is replaced (VGG's has
# 4 million weights), tables of positions.
_SPARE_ELEMENTS = 1 << 23
_SPARE_PARTS = 300


class Budget:
    """What a network may take while it is built.

    Args:
        shapes: Shapes of the tensors in its weights file.
    """

    def __init__(self, shapes: Sequence[Sequence[int]]) -> None:
        elements = sum(prod(shape) for shape in shapes)
        self.elements = elements + elements // 2 + _SPARE_ELEMENTS
        self.parts = 2 * len(shapes) + _SPARE_PARTS
        self.modules = 40 * len(shapes) + 10_000


def _adapter_budget() -> Budget:
    # An adapter's file doesn't tell the size of the public backbone: at most 400 million weights,
    # more than every backbone in use for faces (ViT-L has 304 million).
    budget = Budget([])
    budget.elements, budget.parts, budget.modules = 400_000_000, 10_000, 100_000
    return budget


ADAPTER_BUDGET = _adapter_budget()


def build_within(budget: Budget, build: Callable[[], Built]) -> Built:
    """Call `build`, ending it where the network outgrows the budget.

    The global random state is left as it was.

    Raises:
        WeightsError: The network is larger than its weights file.
    """
    with torch.random.fork_rng(devices=[]), _counted(budget), _SizeGuard(budget.elements):
        try:
            return build()
        except RuntimeError as error:
            if "allocate" in str(error) or "negative dimension" in str(error):
                raise _too_large(str(error)[:120]) from None
            raise
        except (MemoryError, OverflowError) as error:
            raise _too_large(str(error)[:120]) from None


@contextmanager
def _counted(budget: Budget) -> Iterator[None]:
    thread = threading.get_ident()
    elements = parts = modules = 0

    def tensor(module: nn.Module, name: str, value: Any) -> None:
        nonlocal elements, parts
        if threading.get_ident() != thread or value is None:
            return
        elements += 0 if nn.parameter.is_lazy(value) else value.numel()
        parts += 1
        if elements > budget.elements or parts > budget.parts:
            raise _too_large(f"at '{name}' of a {type(module).__name__}")

    def child(module: nn.Module, name: str, value: Any) -> None:
        nonlocal modules
        if threading.get_ident() != thread:
            return
        modules += 1
        if modules > budget.modules:
            raise _too_large(f"at '{name}' of a {type(module).__name__}")

    handles = [
        register_module_parameter_registration_hook(tensor),
        register_module_buffer_registration_hook(tensor),
        register_module_module_registration_hook(child),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _SizeGuard(TorchDispatchMode):
    """Refuses to make a tensor that is larger than the whole network may be."""

    def __init__(self, elements: int) -> None:
        super().__init__()
        self.elements = elements

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        wanted = _wanted(func, args)
        if wanted > self.elements:
            raise _too_large(f"a tensor of {wanted:,} elements was asked for")
        return func(*args, **(kwargs or {}))


# Operators that make a tensor from numbers: where their size stands in the arguments.
_COUNTS = {"aten::linspace": 2, "aten::logspace": 2, "aten::eye": 0, "aten::randperm": 0}


def _wanted(func: Any, args: tuple[Any, ...]) -> int:
    """Elements of the tensor that a call is about to make; 0 where it depends on other tensors."""
    name = func._schema.name
    if name in _COUNTS:
        return int(args[_COUNTS[name]])
    if name == "aten::arange":
        numbers = [a for a in args if isinstance(a, int | float)] or [0]
        start, end = (0, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])
        return int(abs(end - start) / abs(numbers[2] if len(numbers) > 2 else 1))
    for argument in args[:2]:
        if isinstance(argument, list | tuple) and all(isinstance(n, int) for n in argument):
            if name in {"aten::expand", "aten::view", "aten::permute"}:
                return 0  # makes no new memory
            return prod(n for n in argument if n > 0)
    return 0


def _too_large(where: str) -> WeightsError:
    return WeightsError(
        "The network that the config describes is larger than the weights that came with it "
        f"({where}). The config and model.safetensors don't belong together, or one of them is "
        "meant to exhaust this machine: don't use it."
    )
