"""Merge points of a network, found without tracing: one forward, and where the image goes in it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import flop_registry

from siamcal.errors import MergePointError
from siamcal.graph.flow import Flow, eager
from siamcal.graph.inputs import (
    ImageInputs,
    Inputs,
    OutputSelector,
    Probe,
    as_call,
    example_inputs_for,
    failure_of_example,
    image_places,
    place_of,
    probes,
    run_network,
    tensors_in,
)
from siamcal.graph.modes import DispatchMode
from siamcal.graph.randomness import RandomState
from siamcal.graph.state import differentiable, hookable, in_mode, kept_buffers

__all__ = ["MergePoint", "check_parameters", "list_merge_points", "marked", "nearest_points"]


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
    """First call of a module: copies of what of the image enters it."""

    name: str
    module: nn.Module
    entered: list[int] = field(default_factory=list)
    shape: tuple[int, ...] = ()
    parameters: int = 0
    flops: int = 0
    times: int = 1


def list_merge_points(
    backbone: nn.Module,
    example_inputs: Inputs | None = None,
    *,
    output: OutputSelector = None,
    image_inputs: ImageInputs = None,
) -> list[MergePoint]:
    """Places of a network at which all that depends on the image enters one module.

    Places inside a residual branch, where a shortcut passes the module by, aren't listed; many of
    them can be cut too (all crossing tensors are differenced then).

    Args:
        backbone: Any network; it isn't modified.
        example_inputs: A valid input: a tensor (B, C, H, W), a tuple of arguments or a dict of
            keyword arguments. None: a random image of the size the backbone was made for.
        output: Part of the network's output that is meant, where it returns several.
        image_inputs: Which inputs are images: names of keywords or positions; None is the first
            tensor. Only what depends on them is differenced.

    Returns:
        The points in program order; the last one is "output".

    Raises:
        MergePointError: The network can't run on the inputs.
    """
    check_parameters(backbone)
    inputs = example_inputs if example_inputs is not None else example_inputs_for(backbone)
    random = RandomState(place_of(backbone)[0])
    try:
        # torch's counter of multiply-adds wants the graph of whatever wants a gradient.
        with (
            in_mode(backbone, False),
            kept_buffers(backbone),
            differentiable(backbone, False),
            torch.no_grad(),
            eager(),
        ):
            recorder, result = _record(backbone, inputs, image_inputs, output)
    finally:
        random.restore()
    if not tensors_in(result):
        raise MergePointError(
            f"The output of {type(backbone).__name__}, a {type(result).__name__}, holds no tensor "
            "that siamcal can find; name the part that is meant with output=."
        )
    total_parameters = max(recorder.parameters, 1)
    total_flops = max(recorder.flops, 1)
    points = [
        MergePoint(
            call.name,
            call.shape[1:],
            len(call.entered),
            call.parameters / total_parameters,
            call.flops / total_flops,
            type(call.module).__name__,
        )
        for call in recorder.legal(result)
    ]
    shape = tuple(tensors_in(result)[0].shape[1:])
    return [*points, MergePoint("output", shape, 1, 1.0, 1.0, type(backbone).__name__)]


def check_parameters(backbone: nn.Module) -> None:
    """Refuse a network whose parameters can't be computed with.

    Raises:
        MergePointError: They have no shape yet, or were made in inference mode.
    """
    kind = type(backbone).__name__
    for name, tensor in (*backbone.named_parameters(), *backbone.named_buffers()):
        if is_lazy(tensor):
            raise MergePointError(
                f"{name!r} of {kind} has no shape yet (a lazy module). Run the network once on an "
                "input, then wrap it."
            )
        if tensor.is_inference():
            raise MergePointError(
                f"{name!r} of {kind} was made inside torch.inference_mode(), so nothing can be "
                "recorded of it. Make the network outside, or under torch.no_grad()."
            )


def _record(
    backbone: nn.Module, inputs: Inputs, images: ImageInputs, output: OutputSelector
) -> tuple[_Recorder, Any]:
    """A recorder of the first probe that the network takes, and the output."""
    failure: Exception | None = None
    probe: Probe
    for probe in probes(inputs, images, *place_of(backbone)):
        recorder = _Recorder(backbone)
        try:
            return recorder, recorder.run(probe.large, images, output)
        except Exception as error:
            failure = failure or error
    raise failure_of_example(backbone, inputs, failure) from failure


def marked(flow: Flow, inputs: Inputs, images: ImageInputs) -> Inputs:
    """Copies of the inputs, the images marked in a record; call it while the record is active."""
    leaves, spec = pytree.tree_flatten(as_call(inputs))
    places = image_places(inputs, images)
    leaves = [
        flow.mark(v) if i in places else v.clone() if isinstance(v, Tensor) else v
        for i, v in enumerate(leaves)
    ]
    args, kwargs = pytree.tree_unflatten(leaves, spec)
    return args[0] if isinstance(inputs, Tensor) else kwargs or args


class _Flops(DispatchMode):
    """Counts as torch's FlopCounterMode, whose module tracker needs gradients."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


class _Recorder:
    """Runs a network once and records what of the image enters each of its modules."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.flow = Flow()
        self.calls: dict[str, _Call] = {}
        self.parameters = 0
        self.flops = 0
        self._names = {module: name for name, module in hookable(network)}
        self._seen: set[int] = set()
        self._counter = _Flops()

    def run(self, inputs: Inputs, images: ImageInputs, output: OutputSelector) -> Any:
        # Hooks of the user belong to the modules they are on.
        options = {"with_kwargs": True, "prepend": True}
        handles = [m.register_forward_pre_hook(self._enter, **options) for m in self._names]
        try:
            with self._counter, self.flow:
                result = run_network(self.network, marked(self.flow, inputs, images), output)
        finally:
            for handle in handles:
                handle.remove()
        self.flops = self._counter.total
        return result

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        name = self._names[module]
        if name in self.calls:
            self.calls[name].times += 1
            return None
        flops = self._counter.total
        call = self.calls[name] = _Call(name, module, parameters=self.parameters, flops=flops)
        for parameter in module._parameters.values():
            if parameter is not None and id(parameter) not in self._seen:
                self._seen.add(id(parameter))
                self.parameters += parameter.numel()

        def copy(leaf: Any) -> Any:
            """A copy of what can be differenced, so that other readers are told from this call."""
            if not isinstance(leaf, Tensor) or self.flow.value_of(leaf) is None:
                return leaf
            if not (leaf.is_floating_point() or leaf.is_complex()):
                return leaf
            clone = leaf.clone()
            call.shape = call.shape or tuple(clone.shape)
            value = self.flow.value_of(clone)
            call.entered += [value] if value is not None else []
            return clone

        return pytree.tree_map(copy, (args, kwargs))

    def legal(self, result: Any) -> list[_Call]:
        """Calls without which nothing of the image reaches the output."""
        ends = tensors_in(result)
        return [
            call
            for call in self.calls.values()
            if call.name
            and call.times == 1
            and call.entered
            and not self.flow.comes_from_image(ends, without=call.entered)
        ]


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
