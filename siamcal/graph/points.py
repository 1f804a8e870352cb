"""Merge points of a network, found without tracing: one forward and its gradient graph."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from siamcal.graph.dataflow import gradient_functions, reads_shape_only
from siamcal.graph.inputs import (
    Inputs,
    OutputSelector,
    as_call,
    example_inputs_for,
    failure_of_example,
    place_of,
    probe_inputs,
    run_network,
)
from siamcal.graph.state import in_mode, kept_buffers

__all__ = ["MergePoint", "is_bypassed", "list_merge_points", "nearest_points"]


@dataclass(frozen=True)
class MergePoint:
    """A place at which a network can be cut.

    Attributes:
        name: What `merge_at` takes: the path of the module before which the cut lies, or "output".
        shape: Shape of the (first) tensor that crosses, without the batch dimension.
        num_tensors: Number of tensors that enter the module and depend on the image.
        params_before: Share of the parameters before the point, from 0 to 1.
        macs_before: Share of the multiply-adds before the point, from 0 to 1.
        module: Class name of the module.
    """

    name: str
    shape: tuple[int, ...]
    num_tensors: int
    params_before: float
    macs_before: float
    module: str


@dataclass
class _Call:
    """First call of a module: edges of the gradient graph that enter it."""

    name: str
    module: nn.Module
    edges: list[tuple[Any, int]] = field(default_factory=list)
    sources: frozenset[Any] = frozenset()
    shape: tuple[int, ...] = ()
    parameters: int = 0
    flops: int = 0
    times: int = 1


def list_merge_points(
    backbone: nn.Module, example_inputs: Inputs | None = None, *, output: OutputSelector = None
) -> list[MergePoint]:
    """Places of a network at which all that depends on the image enters one module.

    Places inside a residual branch, where a shortcut passes the module by, aren't listed; many of
    them can be cut too (all crossing tensors are differenced then).

    Args:
        backbone: Any network; it isn't modified.
        example_inputs: A valid input: a tensor (B, C, H, W), a tuple of arguments or a dict of
            keyword arguments. None: a random image of the size the backbone was made for.
        output: Part of the network's output that is meant, where it returns several.

    Returns:
        The points in program order; the last one is "output".

    Raises:
        MergePointError: The network can't run on the inputs.
    """
    inputs = example_inputs if example_inputs is not None else example_inputs_for(backbone)
    inputs = probe_inputs(inputs, 2, *place_of(backbone))
    recorder = _Recorder(backbone)
    with in_mode(backbone, False), kept_buffers(backbone):
        result = recorder.run(inputs, output)
    calls = recorder.legal(result)
    total_parameters = max(recorder.parameters, 1)
    total_flops = max(recorder.flops, 1)
    points = [
        MergePoint(
            call.name,
            call.shape[1:],
            len(call.edges),
            call.parameters / total_parameters,
            call.flops / total_flops,
            type(call.module).__name__,
        )
        for call in calls
    ]
    first = next((t for t in pytree.tree_leaves(result) if isinstance(t, Tensor)), None)
    shape = tuple(first.shape[1:]) if first is not None else ()
    return [*points, MergePoint("output", shape, 1, 1.0, 1.0, type(backbone).__name__)]


def is_bypassed(network: nn.Module, merge_at: str, inputs: Inputs, output: OutputSelector) -> bool:
    """Whether the image reaches the output by a path around a module in training.

    Told from the gradient graph, so a path that a zero weight mutes counts too.
    """
    recorder = _Recorder(network)
    with in_mode(network, True), kept_buffers(network):
        result = recorder.run(inputs, output)
    return merge_at not in {call.name for call in recorder.legal(result)}


class _Recorder:
    """Runs a network once and records what enters each of its modules."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.calls: dict[str, _Call] = {}
        self.marks: list[Any] = []
        self.parameters = 0
        self.flops = 0
        self.indices = _Indices(self)
        self._names = {module: name for name, module in network.named_modules()}

    def run(self, inputs: Inputs, output: OutputSelector) -> Any:
        counter = FlopCounterMode(display=False)
        seen: set[int] = set()

        def enter(module: nn.Module, args: Any, kwargs: Any) -> Any:
            name = self._names[module]
            if name in self.calls:
                self.calls[name].times += 1
                return None
            call = _Call(name, module, parameters=self.parameters, flops=counter.get_total_flops())
            self.calls[name] = call
            for parameter in module._parameters.values():
                if parameter is not None and id(parameter) not in seen:
                    seen.add(id(parameter))
                    self.parameters += parameter.numel()
            return self._separate(call, args, kwargs)

        with torch.enable_grad(), _hooks(self.network, enter):
            args, kwargs = pytree.tree_map(self._mark, as_call(inputs))
            try:
                with counter, self.indices:
                    result = run_network(self.network, kwargs or args, output)
            except Exception as error:
                raise failure_of_example(self.network, inputs, error) from error
        self.flops = counter.get_total_flops()
        self.indices.read(pytree.tree_leaves(result))
        return result

    def depends_on_image(self, tensor: Tensor) -> bool:
        """Whether gradients of a tensor lead to the image."""
        return tensor.grad_fn is not None and self._reaches([(tensor.grad_fn, 0)], frozenset())

    def _mark(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
            return leaf
        marked = leaf.detach().clone().requires_grad_() * 1.0
        self.marks.append(marked.grad_fn)
        return marked

    def _separate(self, call: _Call, args: Any, kwargs: Any) -> Any:
        """Give the call copies of its inputs, so that other readers are told from it."""
        sources = []

        def copy(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            if not leaf.requires_grad:
                self.indices.read([leaf])
                return leaf
            clone = leaf.clone()
            call.edges.append((clone.grad_fn, clone.output_nr))
            call.shape = call.shape or tuple(clone.shape)
            sources.append((leaf.grad_fn, leaf.output_nr))
            return clone

        separated = pytree.tree_map(copy, (args, kwargs))
        call.sources = frozenset(sources)
        return separated

    def legal(self, result: Any) -> list[_Call]:
        """Calls without which nothing of the image reaches the output."""
        ends = [
            (t.grad_fn, t.output_nr)
            for t in pytree.tree_leaves(result)
            if isinstance(t, Tensor) and t.grad_fn is not None
        ]
        return [
            call
            for position, call in enumerate(self.calls.values())
            if call.name
            and call.times == 1
            and call.edges
            and position not in self.indices.crossed
            and self._reaches([(f, 0) for f, _ in call.edges], frozenset())
            and not self._reaches(ends, frozenset(call.edges))
        ]

    def _reaches(self, starts: Sequence[tuple[Any, int]], block: frozenset[Any]) -> bool:
        return any(function in self.marks for function in gradient_functions(starts, block))


class _Indices(TorchFunctionMode):
    """Follows what no gradient shows: integers and booleans made from the image.

    They can't be differenced, so none of them may be made before a merge point and read behind it.
    """

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self._recorder = recorder
        self._made: dict[int, tuple[Tensor, int]] = {}  # id -> (kept lest the id is reused, when)
        self.crossed: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if reads_shape_only(func):
            return result
        made = [t for t in pytree.tree_leaves(result) if isinstance(t, Tensor) and not t.grad_fn]
        taken = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        derived = self.read(taken)
        if made and (derived or any(self._recorder.depends_on_image(t) for t in taken)):
            for tensor in made:
                self._made.setdefault(id(tensor), (tensor, len(self._recorder.calls)))
        return result

    def read(self, values: Sequence[Any]) -> bool:
        """Note the calls that began between the making of such values and now; are there any?"""
        made = [self._made[id(v)] for v in values if id(v) in self._made]
        for tensor, since in made:
            if not (tensor.is_floating_point() or tensor.is_complex()):
                self.crossed.update(range(since, len(self._recorder.calls)))
        return bool(made)


@contextmanager
def _hooks(network: nn.Module, function: Callable[..., Any]) -> Iterator[None]:
    handles = [
        module.register_forward_pre_hook(function, with_kwargs=True) for module in network.modules()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def nearest_points(backbone: nn.Module, name: str, points: Sequence[MergePoint]) -> list[str]:
    """Legal merge points near a place: around it in the program, else alike in spelling."""
    names = [p.name for p in points]
    order = [n for n, _ in backbone.named_modules()]
    if name in order:
        position = order.index(name)
        before = [n for n in names if n in order and order.index(n) < position][-2:]
        behind = [n for n in names if n in order and order.index(n) > position][:2]
        near = [*before, *behind]
    else:
        near = difflib.get_close_matches(name, names, n=4, cutoff=0.3)
    return near or names[-4:]
