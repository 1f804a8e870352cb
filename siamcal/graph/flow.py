"""Where the image goes while a network runs: a record of which values came from which.

It is made below autograd, so it sees what no gradient shows: parts under `no_grad`, detached
values, integers and booleans, in-place writes. What leaves torch (`.item()`, `.numpy()`) is lost.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree

from siamcal.graph.modes import DispatchMode

__all__ = ["Flow", "eager"]

# Operators whose result has a tensor's shape but none of its values.
_SHAPE_ONLY = frozenset(
    f"{name}{like}"
    for name in ("zeros", "ones", "empty", "full", "rand", "randn", "randint")
    for like in ("_like",)
) | {"new_zeros", "new_ones", "new_empty", "new_full", "new_empty_strided"}


class Flow(DispatchMode):
    """Records the values that come from marked tensors while it is active.

    A value is a version of a storage: views share it, and an in-place write makes the next one.

    Args:
        scramble: Falsify the numbers that Python gets from such values, which shows by another
            result who uses them.

    Attributes:
        left: Values of which Python got a number.
    """

    def __init__(self, scramble: bool = False) -> None:
        super().__init__()
        self.left: list[int] = []
        self._scramble = scramble
        self._parents: list[tuple[int, ...]] = []
        self._sources: set[int] = set()
        self._now: dict[Any, int] = {}  # storage -> its present value
        self._kept: list[Any] = []  # lest a storage's key is used again

    def mark(self, tensor: Tensor) -> Tensor:
        """A copy that counts as the image."""
        copy = tensor.clone()
        self._sources.add(self._set(copy, self._value(())))
        return copy

    def value_of(self, tensor: Tensor) -> int | None:
        """The value that a tensor holds now; None where it doesn't come from the image."""
        return self._now.get(_key(tensor))

    def comes_from_image(self, values: Iterable[Any], without: Collection[int] = ()) -> bool:
        """Whether the image reaches one of these tensors by a way around the values `without`."""
        ends = [self.value_of(v) for v in values if isinstance(v, Tensor)]
        return self.reached([e for e in ends if e is not None], without)

    def reached(self, values: Iterable[int], without: Collection[int] = ()) -> bool:
        """The same for values."""
        blocked = set(without)
        stack = list(values)
        while stack:
            value = stack.pop()
            if value in blocked:
                continue
            if value in self._sources:
                return True
            blocked.add(value)
            stack.extend(self._parents[value])
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        moved = _statistics(func, args, kwargs)
        leaves = [a for a in pytree.tree_leaves((args, kwargs)) if isinstance(a, Tensor)]
        given = [a for a in leaves if not any(a is m for m in moved)]
        parents = [v for v in map(self.value_of, given) if v is not None]
        result = func(*args, **kwargs)
        if not parents or func._schema.name.rpartition("::")[2] in _SHAPE_ONLY:
            return result
        if isinstance(result, bool | int | float | complex):
            self.left.extend(parents)
            return _another(result) if self._scramble else result
        written = _written(func, args, kwargs) + moved
        known = {_key(t) for t in given} - {_key(t) for t in written}
        made = [t for t in pytree.tree_leaves(result) if isinstance(t, Tensor)]
        fresh = [t for t in (*written, *made) if _key(t) not in known]  # the others are views
        if fresh:
            value = self._value(tuple(dict.fromkeys(parents)))
            for tensor in fresh:
                self._set(tensor, value)
        return result

    def _value(self, parents: tuple[int, ...]) -> int:
        self._parents.append(parents)
        return len(self._parents) - 1

    def _set(self, tensor: Tensor, value: int) -> int:
        if _key(tensor) not in self._now:
            self._kept.append(_hold(tensor))
        self._now[_key(tensor)] = value
        return value


def _another(number: Any) -> Any:
    return not number if isinstance(number, bool) else -3 * number - 1


def _key(tensor: Tensor) -> Any:
    try:
        return tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):  # sparse and the like have no storage of their own
        return ("tensor", id(tensor))


def _hold(tensor: Tensor) -> Any:
    """Keeps a key from being used again, without keeping the values."""
    try:
        return StorageWeakRef(tensor.untyped_storage())
    except (NotImplementedError, RuntimeError):
        return tensor


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Arguments that an operator writes to."""
    found = []
    for number, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[number] if number < len(args) else kwargs.get(argument.name)
            found += [t for t in pytree.tree_leaves(given) if isinstance(t, Tensor)]
    return found


def _statistics(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Running statistics that a normalisation in train mode updates and doesn't use.

    Most of torch's operators of this kind don't say in their schema that they write to these.
    """
    names = [argument.name for argument in func._schema.arguments]
    if "running_mean" not in names:
        return []
    values = {**dict(zip(names, args, strict=False)), **kwargs}
    name = func._schema.name
    if not values.get("training", name.endswith("_update") or "_stats" in name):
        return []
    return [v for v in map(values.get, ("running_mean", "running_var")) if isinstance(v, Tensor)]


@contextmanager
def eager() -> Iterator[None]:
    """Compiled parts of a network run uncompiled, so that a record sees them."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
