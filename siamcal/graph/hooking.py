"""A network that runs as its author wrote it, while a hook replaces what enters one module."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from siamcal.errors import MergePointError
from siamcal.graph.inputs import Inputs, OutputSelector, as_call, run_network, tensors_in
from siamcal.graph.recomputation import (
    in_backward,
    in_function,
    in_own_function,
    is_lost,
    note,
    noted,
)
from siamcal.graph.split import IllegalPointError, Merge, Split, called, uncalled

__all__ = ["HookSplit"]

_WRITING = threading.Lock()

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
        # Replacements that a graph still holds, and so may want again.
        self._kept: weakref.WeakSet[_Replacement] = weakref.WeakSet()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]

    @contextmanager
    def active(self, module: nn.Module, replace: Replace) -> Iterator[_Replacement]:
        """`replace(args, kwargs)` gives the module's arguments, in this thread."""
        active = _Replacement(module, replace)
        with self._in_turn(active):
            yield active

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        stack = self._stack()
        if stack:
            active = stack[-1]
            if active is None or active.module is not module:  # a module that was the merge module
                return None
            return self._replace(active, args, kwargs)
        if not torch.compiler.is_compiling() and in_backward():
            return self._again(module, args, kwargs)
        return None

    def _replace(self, active: _Replacement, args: Any, kwargs: Any) -> Any:
        active.calls += 1
        if active.calls > 1:  # an error that says how often follows
            return None
        with self.aside():  # the merge may run the network itself
            new = active.replace(args, kwargs)
        if not torch.compiler.is_compiling():
            note(self, active)  # for gradient checkpointing
        return new

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Nothing is replaced in this thread."""
        with self._in_turn(None):
            yield

    def keep(self, active: _Replacement, output: Any) -> None:
        """Keep a replacement for as long as the output's graph may want it again."""
        if torch.compiler.is_compiling():
            return
        for tensor in tensors_in(output):
            if tensor.grad_fn is not None:
                tensor.grad_fn.metadata[self] = active  # type: ignore[index]
                with _WRITING:
                    self._kept.add(active)

    def _again(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """What replaces the arguments of a call that a backward pass repeats."""
        known, active = noted(self)
        if known:  # without a note it is the plain network's
            wanted = active is not None and active.module is module
            return active.replace(args, kwargs) if wanted else None
        with _WRITING:
            kept = any(other.module is module for other in self._kept)
        if kept:
            raise MergePointError(
                "The merge module runs again in a backward pass, and it isn't known for which "
                "forward. Use torch.utils.checkpoint, or don't recompute there."
            )
        return None

    @contextmanager
    def _in_turn(self, active: _Replacement | None) -> Iterator[None]:
        stack = self._stack()
        stack.append(active)
        try:
            yield
        finally:
            stack.pop()

    def _stack(self) -> list[_Replacement | None]:
        if not hasattr(self._local, "stack"):
            self._local.stack = []
        return self._local.stack


class _Replacement:
    """What replaces the arguments of a module in one forward, and how often it was called."""

    def __init__(self, module: nn.Module, replace: Replace) -> None:
        self.module = module
        self.replace = replace
        self.calls = 0


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
                raise self._graphless()
            # torch.export keeps a record of the modules that are running, which an exception would
            # leave open: it runs on, with copies lest the module writes into what was caught, and
            # drops what nothing reads.
            if not torch.compiler.is_exporting():
                raise _Reached
            caught[0] = pytree.tree_map(_copied, caught[0])

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

    def run(self, inputs: Inputs, *merges: Merge) -> Any:
        """One forward, the features replaced on the way."""
        (merge,) = merges
        return self.around(self._forward(inputs), merge)

    def around(self, forward: Callable[[], Any], merge: Merge) -> Any:
        """What `forward`, which runs the network once, gives while its features are replaced."""
        graph = torch.is_grad_enabled() and not torch.compiler.is_compiling()

        def replace(args: Any, kwargs: Any) -> Any:
            if graph and in_own_function():
                raise self._graphless()
            leaves, spec = pytree.tree_flatten((args, kwargs))
            mask = self._mask(leaves)
            merged = iter(merge(tuple(v for v, d in zip(leaves, mask, strict=True) if d)))
            new = [next(merged) if d else v for v, d in zip(leaves, mask, strict=True)]
            return pytree.tree_unflatten(new, spec)

        return self._replaced(forward, replace)

    def beside(self, forward: Callable[[], Any]) -> tuple[tuple[Tensor, ...], Any]:
        """The features on the way of `forward`, which goes on with them, and what it gives.

        They are copies: the module may write into what enters it.

        Raises:
            MergePointError: See `check_graph`, where a gradient is wanted.
        """
        found: list[tuple[Tensor, ...]] = []
        graph = torch.is_grad_enabled() and not torch.compiler.is_compiling()

        def look(args: Any, kwargs: Any) -> None:
            leaves = pytree.tree_leaves((args, kwargs))
            own = tuple(v for v, d in zip(leaves, self._mask(leaves), strict=True) if d)
            if graph:
                self.check_graph()
            if not found:  # gradient checkpointing repeats the call in the backward pass
                found.append(tuple(v.clone() for v in own))

        output = self._replaced(forward, look)
        return found[0], output

    def check_graph(self) -> None:
        """Refuse to merge here and at other points too, inside a function that has no graph.

        Its backward pass uses up the graph behind the reference, which all points share.

        Raises:
            MergePointError: Such a function runs now.
        """
        if in_function():
            raise self._graphless()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let what runs in this thread now meet no replacement."""
        with self.hook.aside():
            yield

    def observe(self, inputs: Inputs, see: Callable[[list[Any]], list[Any]]) -> Any:
        """Output of the network with `see(leaves)` for the leaves of the merge module's call."""

        def replace(args: Any, kwargs: Any) -> Any:
            leaves, spec = pytree.tree_flatten((args, kwargs))
            return pytree.tree_unflatten(see(leaves), spec)

        return self._substitute(inputs, replace)

    def _substitute(self, inputs: Inputs, replace: Replace) -> Any:
        return self._replaced(self._forward(inputs), replace)

    def _forward(self, inputs: Inputs) -> Callable[[], Any]:
        return partial(run_network, self.network, inputs, self.selector)

    def _replaced(self, forward: Callable[[], Any], replace: Replace) -> Any:
        with self._watched(replace) as active:
            output = forward()
        if active.calls == 0:
            raise IllegalPointError(uncalled(self.network, self.merge_at))
        if active.calls > 1:
            raise IllegalPointError(f"'{self.merge_at}' {called(active.calls)}")
        self.hook.keep(active, output)
        return output

    def _graphless(self) -> MergePointError:
        return MergePointError(
            f"'{self.merge_at}' lies inside a part that runs without a graph and again in the "
            "backward pass (a re-entrant checkpoint, a reversible block), so no gradient would "
            "reach the reference. Use torch.utils.checkpoint with use_reentrant=False there, or "
            "torch.no_grad() where no gradient is wanted."
        )

    @contextmanager
    def _watched(self, replace: Replace) -> Iterator[_Replacement]:
        with self.hook.active(self._stay(), replace) as active:
            yield active

    def _stay(self) -> nn.Module:
        """See that the hook is on the module that is the merge module now, before all others.

        Hooks of the user belong to the module: what they get is the merged features.
        """
        module = self.network.get_submodule(self.merge_at)
        hooks: Any = module._forward_pre_hooks
        if not _is_first(self.hook, hooks.values()):
            with _WRITING:
                for key in [k for k, hook in hooks.items() if hook is self.hook]:
                    hooks.move_to_end(key, last=False)
                if not _is_first(self.hook, hooks.values()):
                    options = {"with_kwargs": True, "prepend": True}
                    handle = module.register_forward_pre_hook(self.hook, **options)
                    weakref.finalize(self, handle.remove)
        return module


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _is_first(hook: _MergeHook, hooks: Iterable[Any]) -> bool:
    """Whether only hooks of its kind come before it."""
    for other in hooks:
        if other is hook:
            return True
        if not isinstance(other, _MergeHook):
            return False
    return False
