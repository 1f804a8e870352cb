"""A network cut in two at a merge point: `post(pre(x)) == network(x)`.

Three mechanisms, tried in this order (figures: `siamcal bench coverage`):

- "shallow fx": torch.fx traces only through the modules that hold the merge point.
- "full fx": torch.fx traces through everything but torch's layers and timm's untraceable modules.
- "hook": the network runs as it is and a hook replaces the merge module's input. Only where
  nothing else of the image bypasses that module.

"output" differences what the network returns and needs none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from siamcal.errors import MergePointError
from siamcal.graph.dataflow import Dataflow
from siamcal.graph.features import BatchLayout, Features, PassedValue
from siamcal.graph.inputs import (
    Inputs,
    InputSignature,
    OutputSelector,
    as_call,
    place_of,
    run_network,
)
from siamcal.graph.tracing import Trace, compile_parts, trace

__all__ = ["FxSplit", "HookSplit", "IllegalPointError", "OutputSplit", "Split"]

Merge: TypeAlias = Callable[[tuple[Tensor, ...]], Sequence[Tensor]]


class IllegalPointError(MergePointError):
    """The place itself is no merge point, by whatever mechanism."""


class Split:
    """A network cut at a merge point.

    Attributes:
        network: The network, unmodified.
        merge_at: The merge point.
        mechanism: "shallow fx", "full fx", "hook" or "output".
        differenced: Whether each crossing value is differenced.
        layouts: Where the samples lie in each differenced tensor; None where there is no batch.
        passed: How each other value changes with the batch size.
        pre_modules: Paths of the modules that run only before the merge point.
    """

    mechanism = ""

    def __init__(self, network: nn.Module, merge_at: str, selector: OutputSelector) -> None:
        self.network = network
        self.merge_at = merge_at
        self.selector = selector
        self.differenced: tuple[bool, ...] = ()
        self.layouts: tuple[BatchLayout | None, ...] = ()
        self.passed: tuple[PassedValue, ...] = ()
        self.pre_modules: tuple[str, ...] = ()

    def crossing(self, inputs: Inputs) -> tuple[list[Any], Any]:
        """All crossing values as flat leaves, and what `resume` needs to go on with them."""
        raise NotImplementedError

    def resume(self, leaves: list[Any], state: Any) -> Any:
        """The network's output from the crossing values."""
        raise NotImplementedError

    def may_depend(self, leaves: list[Any], state: Any) -> list[bool]:
        """What the graph tells: whether each crossing leaf can depend on the image."""
        return [True] * len(leaves)

    def recording(self) -> AbstractContextManager[None]:
        """Learn from a call of `crossing` what isn't known yet."""
        return nullcontext()

    def pre(self, inputs: Inputs) -> Features:
        """Input -> features at the merge point."""
        leaves, state = self.crossing(inputs)
        return Features(
            tuple(v for v, d in zip(leaves, self._mask(leaves), strict=True) if d),
            tuple(v for v, d in zip(leaves, self._mask(leaves), strict=True) if not d),
            state,
        )

    def post(self, features: Features) -> Any:
        """Features at the merge point -> output."""
        tensors, passed = iter(features.tensors), iter(features.passed)
        count = len(features.tensors) + len(features.passed)
        mask = self._mask([None] * count)
        return self.resume([next(tensors if d else passed) for d in mask], features.inputs)

    def run(self, inputs: Inputs, merge: Merge) -> Any:
        """Output for an input whose features are replaced on the way by `merge(features)`."""
        features = self.pre(inputs)
        return self.post(features.with_tensors(merge(features.tensors)))

    def parts(self, features: Features, *sizes: int) -> list[Features]:
        """Features of a batch -> those of its first sizes[0] samples, of the next sizes[1], ...

        Raises:
            MergePointError: The samples can't be told apart in what crosses.
        """
        if any(layout is None for layout in self.layouts) or not all(p.known for p in self.passed):
            raise MergePointError(
                f"At '{self.merge_at}' the samples of a batch can't be told apart, so the branches "
                "can't run as one batch; use branches='separate'."
            )
        parts, start, whole = [], 0, sum(sizes)
        for size in sizes:
            tensors = tuple(
                layout.narrow(t, start, size)
                for t, layout in zip(features.tensors, self.layouts, strict=True)
                if layout is not None
            )
            passed = tuple(
                p.narrow(v, start, size, whole)
                for v, p in zip(features.passed, self.passed, strict=True)
            )
            parts.append(Features(tensors, passed, features.inputs))
            start += size
        return parts

    def _mask(self, leaves: list[Any]) -> tuple[bool, ...]:
        if len(leaves) != len(self.differenced):
            raise MergePointError(
                f"At '{self.merge_at}' {len(leaves)} values cross in this training mode, but "
                f"{len(self.differenced)} did when the network was wrapped. Put the whole network "
                "into train() or eval(), or choose another merge point."
            )
        return self.differenced


class OutputSplit(Split):
    """The merge point behind the network: its output is differenced."""

    mechanism = "output"

    def crossing(self, inputs: Inputs) -> tuple[list[Any], Any]:
        """The output's tensors."""
        return pytree.tree_flatten(run_network(self.network, inputs, self.selector))

    def resume(self, leaves: list[Any], state: Any) -> Any:
        """The output itself."""
        return pytree.tree_unflatten(leaves, state)


class FxSplit(Split):
    """Cut by torch.fx; the generated code of both halves runs on the original network.

    Args:
        network: The network.
        merge_at: Path of the merge module.
        signature: Structure of the network's inputs.
        selector: Part of the output that is meant.
        shallow: Trace only through the modules that hold the merge module.
        proxy_buffers: Record reads of buffers.
    """

    def __init__(
        self,
        network: nn.Module,
        merge_at: str,
        signature: InputSignature,
        selector: OutputSelector,
        *,
        shallow: bool = True,
        proxy_buffers: bool = True,
    ) -> None:
        super().__init__(network, merge_at, selector)
        self.mechanism = "shallow fx" if shallow else "full fx"
        self.signature = signature
        self._shallow = shallow
        self._proxy_buffers = proxy_buffers
        self._halves: dict[Any, _Halves] = {}
        # Control flow may depend on the training mode of a module that is traced through, so each
        # combination has its own code. All of them are known after the first trace.
        self._through: tuple[str, ...] = ()
        self._has_constants = False
        first = self._halves_now()
        self.pre_modules = first.pre_modules

    def crossing(self, inputs: Inputs) -> tuple[list[Any], Any]:
        """What the generated pre-merge code returns."""
        values = self._halves_now().pre(self.network, *self.signature.flatten(inputs))
        return pytree.tree_flatten(values)

    def resume(self, leaves: list[Any], state: Any) -> Any:
        """What the generated post-merge code makes of it."""
        values = pytree.tree_unflatten(leaves, state)
        return self._halves_now().post(self.network, *values)

    def may_depend(self, leaves: list[Any], state: Any) -> list[bool]:
        """Whether the graph leads from an input's value to each leaf."""
        values = pytree.tree_unflatten(leaves, state)
        return [
            depends
            for value, depends in zip(values, self._halves_now().depends_on_image, strict=True)
            for _ in pytree.tree_leaves(value)
        ]

    def prepare(self) -> None:
        """Trace and compile for the network's present training mode, if that isn't done yet."""
        self._halves_now()

    @property
    def source(self) -> tuple[str, str]:
        """Generated code of both halves for the present training mode."""
        halves = self._halves_now()
        return halves.pre.source, halves.post.source

    def _halves_now(self) -> _Halves:
        key = self._key()
        if key not in self._halves:
            halves = self._cut()
            key = self._key()
            self._halves[key] = halves
        return self._halves[key]

    def _key(self) -> Any:
        modes = tuple([self.network.get_submodule(p).training for p in self._through])
        return (modes, *place_of(self.network)) if self._has_constants else modes

    def _cut(self) -> _Halves:
        traced = trace(
            self.network,
            self.signature,
            self.selector,
            merge_at=self.merge_at if self._shallow else None,
            proxy_buffers=self._proxy_buffers,
        )
        self._through = self._through or tuple(dict.fromkeys(traced.through))
        self._has_constants = self._has_constants or bool(traced.constants)
        return _Halves(self.network, traced, self.merge_at)

    def __getstate__(self) -> dict[str, Any]:
        # Compiled code is neither copied nor pickled; a copy traces its own network again.
        return {**self.__dict__, "_halves": {}}


class _Halves:
    """Both programs of a cut in one training mode."""

    def __init__(self, network: nn.Module, traced: Trace, merge_at: str) -> None:
        calls = traced.calls.get(merge_at, [])
        if not calls:
            # It may lie inside a module that the trace takes as one step; a real forward knows.
            raise MergePointError(f"'{merge_at}' isn't seen by the trace")
        if len(calls) > 1:
            raise IllegalPointError(f"'{merge_at}' {_called(len(calls))}")
        flow = Dataflow(traced.graph, network)
        if not any(n in flow.depends_on_image for n in calls[0].inputs):
            raise IllegalPointError(f"what enters '{merge_at}' doesn't depend on the image")
        cut = flow.cut(calls[0].inputs, calls[0].index)
        self.pre, self.post = compile_parts(traced, cut)
        self.depends_on_image = tuple(n in flow.depends_on_image for n in cut.crossing)
        owners = {
            p: [n in cut.pre for n in traced.graph.nodes if traced.owner.get(n) == p]
            for p in set(traced.owner.values())
        }
        self.pre_modules = tuple(sorted(p for p, inside in owners.items() if p and all(inside)))


def _called(times: int) -> str:
    if times == 0:
        return "isn't called when the network runs"
    return f"is called {times} times in one forward, so the place is ambiguous"


class _Reached(BaseException):
    """Ends a forward at the merge point; not an Exception, lest the network catches it."""


class HookSplit(Split):
    """The network runs unchanged; a hook replaces the merge module's input.

    Legal only where nothing of the image bypasses the merge module, which `siamcal.graph` tests.
    """

    mechanism = "hook"

    def __init__(self, network: nn.Module, merge_at: str, selector: OutputSelector) -> None:
        super().__init__(network, merge_at, selector)
        self._module = network.get_submodule(merge_at)

    def crossing(self, inputs: Inputs) -> tuple[list[Any], Any]:
        """Arguments of the merge module's call, at which the forward ends."""
        caught: list[Any] = []

        def stop(module: nn.Module, args: Any, kwargs: Any) -> None:
            caught.append((args, kwargs))
            raise _Reached

        with self._hook(stop):
            try:
                args, kwargs = as_call(inputs)
                self.network(*args, **kwargs)
            except _Reached:
                pass
        if not caught:
            raise IllegalPointError(f"'{self.merge_at}' {_called(0)}")
        leaves, spec = pytree.tree_flatten(caught[0])
        return leaves, (spec, inputs)

    def resume(self, leaves: list[Any], state: Any) -> Any:
        """Runs the whole network with the merge module's arguments replaced."""
        spec, inputs = state
        return self._substitute(inputs, lambda call: pytree.tree_unflatten(leaves, spec))

    def run(self, inputs: Inputs, merge: Merge) -> Any:
        """One forward, the features replaced on the way."""

        def replace(call: Any) -> Any:
            leaves, spec = pytree.tree_flatten(call)
            mask = self._mask(leaves)
            merged = iter(merge(tuple(v for v, d in zip(leaves, mask, strict=True) if d)))
            new = [next(merged) if d else v for v, d in zip(leaves, mask, strict=True)]
            return pytree.tree_unflatten(new, spec)

        return self._substitute(inputs, replace)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Learn from a call of `crossing` which modules run before the merge point."""
        finished: dict[str, None] = {}
        handles = [
            module.register_forward_hook(
                lambda m, args, output, name=name: finished.setdefault(name)
            )
            for name, module in self.network.named_modules()
            if name
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self.pre_modules = tuple(finished)

    def elsewhere(self, state: Any, inputs: Inputs) -> Any:
        """State of `crossing` for going on within another input's forward."""
        return state[0], inputs

    def _substitute(self, inputs: Inputs, replace: Callable[[Any], Any]) -> Any:
        calls = 0

        def hook(module: nn.Module, args: Any, kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            return replace((args, kwargs))

        with self._hook(hook):
            output = run_network(self.network, inputs, self.selector)
        if calls != 1:
            raise IllegalPointError(f"'{self.merge_at}' {_called(calls)}")
        return output

    @contextmanager
    def _hook(self, function: Callable[..., Any]) -> Iterator[None]:
        handle = self._module.register_forward_pre_hook(function, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
