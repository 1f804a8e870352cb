"""Build a network from a stranger's description without letting it outgrow its own weights file.

A config can ask for a network of any width and depth. It is built on torch's meta device first,
where tensors have shapes but no memory, while its parts are counted and held against the weights
file that came along; only what fits is built for real.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.utils import _pytree as pytree

from siamcal.errors import SiamcalError, WeightsError
from siamcal.graph.modes import DispatchMode


@dataclass(frozen=True)
class Budget:
    """What a network may take while it is built: values, tensors and modules."""

    elements: int
    parts: int
    modules: int

    @classmethod
    def of(cls, shapes: Sequence[Sequence[int]]) -> Budget:
        """What a network with such tensors in its weights file may take.

        Builders make a few tensors that they throw away again: a classifier that is replaced
        (VGG's has 4 million weights), tables of positions.
        """
        elements = sum(prod(shape) for shape in shapes)
        parts = len(shapes)
        return cls(elements + elements // 2 + (1 << 23), 2 * parts + 300, 40 * parts + 10_000)


# An adapter's file doesn't tell the size of the public backbone: at most 400 million weights, more
# than every backbone in use for faces (ViT-L has 304 million).
ADAPTER_BUDGET = Budget(400_000_000, 10_000, 100_000)


def build_within(
    budget: Budget,
    build: Callable[[], nn.Module],
    rehearse: Callable[[], object] | None,
) -> nn.Module:
    """Call `build` once it is known that the network stays within the budget.

    The global random state is left as it was.

    Args:
        budget: What the network may take.
        build: Makes the network.
        rehearse: Makes a network of the same shapes; called on the meta device. Where that can't
            be (it reads values, as torchvision's RegNets do) or this is None, `build` itself is
            watched, and ends at the first step beyond the budget.

    Raises:
        WeightsError: The network is larger than its weights file.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            if rehearse is not None and _goes_on_meta(budget, rehearse):
                return build()
            with _counted(budget), _SizeGuard(budget.elements):
                return build()
    except (MemoryError, OverflowError) as error:
        raise _too_large(str(error)[:120]) from None
    except RuntimeError as error:
        if any(sign in str(error) for sign in ("allocate", "negative dimension", "overflow")):
            raise _too_large(str(error)[:120]) from None
        raise


def _goes_on_meta(budget: Budget, rehearse: Callable[[], object]) -> bool:
    try:
        with _counted(budget), _SizeGuard(budget.elements), torch.device("meta"):
            rehearse()
    except SiamcalError:
        raise
    except Exception:  # what is wrong with the network itself shows again in the watched build
        return False
    return True


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


class _SizeGuard(DispatchMode):
    """Asks the meta device how large a tensor will be before it is made; refuses too large ones."""

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
        kwargs = kwargs or {}
        try:
            shadows, named = pytree.tree_map(_on_meta, (args, dict(kwargs)))
            made = pytree.tree_leaves(func(*shadows, **named))
        except RuntimeError:
            made = []  # reads a value, or fails for real too
        for tensor in made:
            if isinstance(tensor, Tensor):
                # Of the memory, not of the shape: an expanded tensor takes none of its own.
                elements = tensor.untyped_storage().nbytes() // tensor.element_size()
                if elements > self.elements:
                    raise _too_large(f"a tensor of {elements:,} elements was asked for")
        return func(*args, **kwargs)


def _on_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    return torch.device("meta") if isinstance(value, torch.device) else value


def _too_large(where: str) -> WeightsError:
    return WeightsError(
        "The network that the config describes is larger than the weights that came with it "
        f"({where}). The config and model.safetensors don't belong together, or one of them is "
        "meant to exhaust this machine: don't use it."
    )
