"""A network that runs as its author wrote it, while a hook replaces what enters one module."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree

from siamcal.graph.inputs import Inputs, OutputSelector, as_call, run_network
from siamcal.graph.split import IllegalPointError, Merge, Split, called

__all__ = ["HookSplit"]

_REGISTERING = threading.Lock()

Replace: TypeAlias = Callable[[Any, Any], Any]


class _Reached(BaseException):
    """Ends a forward at the merge point; not an Exception, lest the network catches it."""


class _MergeHook:
    """A forward pre-hook that stays on the merge module and mostly does nothing.

    While a forward of the calibrated network runs, what replaces the module's arguments is found by
    thread, so forwards in other threads, and of the plain network, don't meet it.
    """

    def __init__(self) -> None:
        self._local = threading.local()
        # What was replaced, for gradient checkpointing: it runs a part of the forward again during
        # the backward pass, by itself, and has to find the same replacement.
        self._replaced: list[tuple[tuple[StorageWeakRef, ...], Replace]] = []

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]

    @contextmanager
    def active(self, replace: Replace) -> Iterator[None]:
        """`replace(args, kwargs)` gives the module's arguments, in this thread."""
        stack = self._stack()
        stack.append(replace)
        try:
            yield
        finally:
            stack.pop()

    def remember(self, leaves: Sequence[Any], replace: Replace) -> None:
        """Note what replaced the arguments with these leaves."""
        if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
            return
        alive = [r for r in self._replaced if not any(s.expired() for s in r[0])]
        self._replaced = [*alive, (_storages(leaves), replace)]

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        stack = self._stack()
        if stack:
            return stack[-1](args, kwargs)
        if not self._replaced or torch.compiler.is_compiling():
            return None
        if torch._C._current_graph_task_id() != -1:
            keys = [s.cdata for s in _storages(pytree.tree_leaves((args, kwargs)))]
            for storages, replace in reversed(self._replaced):
                if [s.cdata for s in storages] == keys:
                    return replace(args, kwargs)
        return None

    def _stack(self) -> list[Replace]:
        if not hasattr(self._local, "stack"):
            self._local.stack = []
        return self._local.stack


def _storages(leaves: Sequence[Any]) -> tuple[StorageWeakRef, ...]:
    return tuple(StorageWeakRef(v.untyped_storage()) for v in leaves if isinstance(v, Tensor))


class HookSplit(Split):
    """The network runs unchanged; a hook replaces the merge module's input.

    Legal only where nothing of the image bypasses the merge module, which `siamcal.graph` tests.
    """

    mechanism = "hook"

    def __init__(self, network: nn.Module, merge_at: str, selector: OutputSelector) -> None:
        super().__init__(network, merge_at, selector)
        self.hook = _MergeHook()
        self._stay()
        self.reason = f"the network runs as it is: nothing of the image passes {merge_at!r} by"

    def crossing(self, inputs: Inputs) -> tuple[list[Any], Any]:
        """Arguments of the merge module's call, at which the forward ends."""
        caught: list[Any] = []

        def stop(args: Any, kwargs: Any) -> None:
            caught.append((args, kwargs))
            # torch.export keeps a record of the modules that are running, which an exception would
            # leave open: it runs on, and drops what nothing reads.
            if not torch.compiler.is_exporting():
                raise _Reached

        with self._watched(stop):
            try:
                args, kwargs = as_call(inputs)
                self.network(*args, **kwargs)
            except _Reached:
                pass
        if not caught:
            raise IllegalPointError(f"'{self.merge_at}' {called(0)}")
        leaves, spec = pytree.tree_flatten(caught[0])
        return leaves, (spec, inputs)

    def resume(self, leaves: list[Any], state: Any) -> Any:
        """Runs the whole network with the merge module's arguments replaced."""
        spec, inputs = state
        return self._substitute(inputs, lambda args, kwargs: pytree.tree_unflatten(leaves, spec))

    def run(self, inputs: Inputs, merge: Merge) -> Any:
        """One forward, the features replaced on the way."""

        def replace(args: Any, kwargs: Any) -> Any:
            leaves, spec = pytree.tree_flatten((args, kwargs))
            mask = self._mask(leaves)
            merged = iter(merge(tuple(v for v, d in zip(leaves, mask, strict=True) if d)))
            new = [next(merged) if d else v for v, d in zip(leaves, mask, strict=True)]
            return pytree.tree_unflatten(new, spec)

        return self._substitute(inputs, replace)

    def observe(self, inputs: Inputs, see: Callable[[list[Any]], list[Any]]) -> Any:
        """Output of the network with `see(leaves)` for the leaves of the merge module's call."""

        def replace(args: Any, kwargs: Any) -> Any:
            leaves, spec = pytree.tree_flatten((args, kwargs))
            return pytree.tree_unflatten(see(leaves), spec)

        return self._substitute(inputs, replace)

    def _substitute(self, inputs: Inputs, replace: Replace) -> Any:
        calls = 0

        def counted(args: Any, kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            self.hook.remember(pytree.tree_leaves((args, kwargs)), replace)
            return replace(args, kwargs)

        with self._watched(counted):
            output = run_network(self.network, inputs, self.selector)
        if calls != 1:
            raise IllegalPointError(f"'{self.merge_at}' {called(calls)}")
        return output

    @contextmanager
    def _watched(self, replace: Replace) -> Iterator[None]:
        self._stay()
        with self.hook.active(replace):
            yield

    def _stay(self) -> None:
        """See that the hook is on the module that is the merge module now."""
        module = self.network.get_submodule(self.merge_at)
        if self.hook not in module._forward_pre_hooks.values():
            with _REGISTERING:
                if self.hook not in module._forward_pre_hooks.values():
                    handle = module.register_forward_pre_hook(self.hook, with_kwargs=True)
                    weakref.finalize(self, handle.remove)
