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

from siamcal.errors import MergePointError
from siamcal.graph.inputs import Inputs, OutputSelector, as_call, run_network
from siamcal.graph.recomputation import in_backward, is_lost, note, noted
from siamcal.graph.split import IllegalPointError, Merge, Split, called, uncalled

__all__ = ["HookSplit"]

_WRITING = threading.Lock()

Replace: TypeAlias = Callable[[Any, Any], Any]


class _Reached(BaseException):
    """Ends a forward at the merge point; not an Exception, lest the network catches it."""


class _Replacement:
    """What was replaced in a forward, for gradient checkpointing.

    Checkpointing runs a part of the forward again during the backward pass, by itself, and has to
    find the same replacement. It is told by the memory of the arguments, and lives as long as the
    gradient graph: graph nodes of the arguments and of the merged features hold it.
    """

    def __init__(self, leaves: Sequence[Any], replace: Replace) -> None:
        self._storages = [StorageWeakRef(v.untyped_storage()) for v in leaves if _is_plain(v)]
        self.replace = replace

    def fits(self, leaves: Sequence[Any]) -> bool:
        """Whether these are the arguments that were replaced."""
        if any(storage.expired() for storage in self._storages):
            return False
        keys = [v.untyped_storage()._cdata for v in leaves if _is_plain(v)]
        return keys == [storage.cdata for storage in self._storages]

    def live_with(self, leaves: Sequence[Any]) -> bool:
        """Tie its life to the graph behind some tensors; False where there is none."""
        nodes = [v.grad_fn for v in leaves if isinstance(v, Tensor) and v.grad_fn is not None]
        for node in nodes:
            node.metadata.setdefault("siamcal", []).append(self)  # type: ignore[attr-defined]
        return bool(nodes)


def _is_plain(leaf: Any) -> bool:
    return type(leaf) in (Tensor, nn.Parameter)


class _MergeHook:
    """A forward pre-hook that stays on the merge module and mostly does nothing.

    While a forward of the calibrated network runs, what replaces the module's arguments is found by
    thread, so forwards in other threads, and of the plain network, don't meet it.
    """

    def __init__(self) -> None:
        self._local = threading.local()
        self._replaced: list[weakref.ref[_Replacement]] = []
        self._latest: _Replacement | None = None

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

    def remember(
        self, given: Sequence[Any], merged: Sequence[Any], replace: Replace, learns: bool
    ) -> None:
        """Note what replaced the arguments with these leaves in a forward that `learns`."""
        if not learns or torch.compiler.is_compiling():
            return
        note(self, replace)
        replacement = _Replacement(given, replace)
        held = replacement.live_with(given) | replacement.live_with(merged)
        if not held and not torch.is_grad_enabled():
            # No graph yet: reentrant checkpointing makes it later, from this forward's inputs.
            self._latest = replacement
        with _WRITING:  # another thread may be noting its own
            alive = [r for r in self._replaced if r() is not None]
            self._replaced = [*alive, weakref.ref(replacement)]

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        stack = self._stack()
        if stack:
            return stack[-1](args, kwargs)
        if not torch.compiler.is_compiling() and in_backward():
            return self._again(args, kwargs)
        return None

    def _again(self, args: Any, kwargs: Any) -> Any:
        """What replaces the arguments of a call that a backward pass repeats."""
        known, replace = noted(self)
        if known:  # without a note it is the plain network's
            return None if replace is None else replace(args, kwargs)
        leaves = pytree.tree_leaves((args, kwargs))
        alive = [r for r in (reference() for reference in self._replaced) if r is not None]
        for replacement in reversed(alive):
            if replacement.fits(leaves):
                return replacement.replace(args, kwargs)
        if alive:
            raise MergePointError(
                "The merge module runs again in a backward pass, and it isn't known for which "
                "forward. Use torch.utils.checkpoint, or don't recompute there."
            )
        return None

    def _stack(self) -> list[Replace]:
        if not hasattr(self._local, "stack"):
            self._local.stack = []
        return self._local.stack


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
        graph = torch.is_grad_enabled() and not torch.compiler.is_compiling()

        def stop(args: Any, kwargs: Any) -> None:
            caught.append((args, kwargs))
            tensors = [v for v in pytree.tree_leaves(caught) if isinstance(v, Tensor)]
            if graph and is_lost(t for t in tensors if t.is_floating_point()):
                raise MergePointError(
                    f"'{self.merge_at}' lies inside a re-entrant checkpoint, which no gradient of "
                    "the reference leaves. Checkpoint with use_reentrant=False."
                )
            raise _Reached

        with self._watched(stop):
            try:
                args, kwargs = as_call(inputs)
                self.network(*args, **kwargs)
            except _Reached:
                pass
        if not caught:
            raise IllegalPointError(uncalled(self.network, self.merge_at))
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
        calls, learns = 0, torch.is_grad_enabled()

        def counted(args: Any, kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > 1:  # an error that says how often follows
                return None
            given = pytree.tree_leaves((args, kwargs))
            replaced = replace(args, kwargs)
            self.hook.remember(given, pytree.tree_leaves(replaced), replace, learns)
            return replaced

        with self._watched(counted):
            output = run_network(self.network, inputs, self.selector)
        if calls == 0:
            raise IllegalPointError(uncalled(self.network, self.merge_at))
        if calls > 1:
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
            with _WRITING:
                if self.hook not in module._forward_pre_hooks.values():
                    handle = module.register_forward_pre_hook(self.hook, with_kwargs=True)
                    weakref.finalize(self, handle.remove)
