"""Proof at construction that a cut is right: `post(pre(x)) == network(x)`, bit for bit.

Also finds out, by running, which crossing values depend on the image and where the samples of a
batch lie in them. At most five forwards of the network in all.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from siamcal.errors import MergePointError
from siamcal.graph.dataflow import gradient_functions
from siamcal.graph.features import BatchLayout, PassedValue
from siamcal.graph.inputs import (
    Inputs,
    as_call,
    failure_of_example,
    place_of,
    probe_inputs,
    run_network,
)
from siamcal.graph.points import is_bypassed
from siamcal.graph.randomness import RandomState
from siamcal.graph.split import HookSplit, IllegalPointError, Split
from siamcal.graph.state import in_mode, kept_buffers

__all__ = ["MismatchError", "check_split", "largest_difference"]

_LOG = logging.getLogger(__name__)
# Other batch sizes choose other summation orders; a wrong cut is off by orders of magnitude more.
_BATCH_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
_LOW_PRECISION_TOLERANCE = 0.1
_SIMPLE = (int, float, bool, str, type(None), torch.Size, torch.device, torch.dtype, slice)


class MismatchError(MergePointError):
    """Both halves together don't compute what the network computes."""


@dataclass(frozen=True)
class Probe:
    """Crossing values of one run, and whether each is connected to the image by gradients."""

    leaves: list[Any]
    state: Any
    connected: list[bool]


def check_split(split: Split, example: Inputs, *, verify: bool) -> None:
    """Find the roles of the crossing values and prove that the cut is exact.

    Args:
        split: A new split; its `differenced` and `layouts` are filled in.
        example: Valid inputs, from which random ones are derived.
        verify: False only finds the roles.

    Raises:
        IllegalPointError: A crossing value can't be differenced (an integer that depends on the
            image), or nothing that crosses depends on it.
        MismatchError: The halves compute something else.
    """
    network = split.network
    three = probe_inputs(example, 3, *place_of(network))
    two = _rows(three)
    state = RandomState(place_of(network)[0])
    try:
        with kept_buffers(network):
            with in_mode(network, False):
                expected = _plain(split, three) if verify else None
                large = _probe(split, three)
                with torch.no_grad(), split.recording():
                    small = Probe(*split.crossing(_fresh(two)), [])
                _assign_roles(split, large, small)
                if verify and isinstance(split, HookSplit):
                    _check_bypass(split, three, large, expected)
                elif verify:
                    _check_output(expected, split.resume(_cloned(large.leaves), large.state))
                    with torch.no_grad():
                        again = split.resume(_cloned(small.leaves), small.state)
                    _check_batch(expected, again)
            if verify and not isinstance(split, HookSplit):
                with in_mode(network, True):
                    _check_training(split, two)
    finally:
        state.restore()


def _plain(split: Split, inputs: Inputs) -> Any:
    try:
        with torch.enable_grad():
            return run_network(split.network, _fresh(inputs), split.selector)
    except Exception as error:
        raise failure_of_example(split.network, inputs, error) from error


def _probe(split: Split, inputs: Inputs) -> Probe:
    """Crossing values with gradients, to see which are connected to the inputs."""
    marks: list[Any] = []

    def mark(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
            return leaf.clone() if isinstance(leaf, Tensor) else leaf
        marked = leaf.detach().clone().requires_grad_() * 1.0
        marks.append(marked.grad_fn)
        return marked

    with torch.enable_grad():
        leaves, state = split.crossing(_map(mark, inputs))
    memo: set[Any] = set()
    connected = [isinstance(v, Tensor) and _reaches(v.grad_fn, marks, memo) for v in leaves]
    return Probe(leaves, state, connected)


def _reaches(start: Any, marks: list[Any], without: set[Any]) -> bool:
    """Whether the gradient graph leads to one of the marks; `without` collects dead ends."""
    seen = set()
    for function in gradient_functions([(start, 0)], without):
        if function in marks:
            return True
        seen.add(function)
    without |= seen
    return False


def _assign_roles(split: Split, large: Probe, small: Probe) -> None:
    """Decide which crossing values are differenced: those that depend on the image."""
    if len(large.leaves) != len(small.leaves):
        raise IllegalPointError("the number of crossing values depends on the batch size")
    possible = split.may_depend(large.leaves, large.state)
    differenced, layouts, passed = [], [], []
    for i, (value, other) in enumerate(zip(large.leaves, small.leaves, strict=True)):
        layout = _layout(value, other) if isinstance(value, Tensor) else None
        depends = possible[i] and (large.connected[i] or _varies(value, other, layout))
        if depends and not _is_continuous(value):
            raise IllegalPointError(
                f"a value of type {_type_name(value)} that depends on the image crosses there, and "
                "only floating-point features can be differenced"
            )
        if not isinstance(value, (Tensor, *_SIMPLE)):
            raise IllegalPointError(f"a {type(value).__name__} object crosses there")
        differenced.append(depends)
        if depends:
            layouts.append(layout)
        else:
            passed.append(_passed(value, other, layout))
    if not any(differenced):
        raise IllegalPointError("nothing that crosses there depends on the image")
    split.differenced = tuple(differenced)
    split.layouts = tuple(layouts)
    split.passed = tuple(passed)


def _is_continuous(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def _type_name(value: Any) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__


def _layout(three: Tensor, two: Tensor) -> BatchLayout | None:
    """Where three samples lie in a tensor, told from the same tensor for the last two of them."""
    if three.ndim != two.ndim:
        return None
    dims = [d for d in range(three.ndim) if three.shape[d] != two.shape[d]]
    if len(dims) != 1 or three.shape[dims[0]] * 2 != two.shape[dims[0]] * 3:
        return None
    groups = three.shape[dims[0]] // 3
    last = torch.tensor([1, 2], device=three.device)
    for sample_first in (True, False):
        layout = BatchLayout(dims[0], groups, sample_first or groups == 1)
        if _close(layout.select(three, last), two):
            return layout
    return None


def _passed(three: Any, two: Any, layout: BatchLayout | None) -> PassedValue:
    """How a value that isn't differenced follows the batch size."""
    if isinstance(three, Tensor):
        return PassedValue(layout, known=layout is not None or three.shape == two.shape)
    if isinstance(three, int) and not isinstance(three, bool):
        return PassedValue(scales=(three != two,))
    if isinstance(three, torch.Size):
        return PassedValue(scales=tuple(a != b for a, b in zip(three, two, strict=True)))
    return PassedValue(known=three == two)


def _varies(three: Any, two: Any, layout: BatchLayout | None) -> bool:
    """Whether a value differs between images."""
    if not isinstance(three, Tensor):
        if isinstance(three, int | float) and not isinstance(three, bool):
            return three != two and three * 2 != two * 3
        if isinstance(three, torch.Size):
            return len(three) != len(two)
        return bool(three != two) if isinstance(three, _SIMPLE) else False
    if layout is not None:
        first = layout.select(three, torch.tensor([0], device=three.device))
        second = layout.select(three, torch.tensor([1], device=three.device))
        return not torch.equal(first, second)
    return three.shape != two.shape or not torch.equal(three, two)


def _check_training(split: Split, inputs: Inputs) -> None:
    """The train-mode code computes what the network computes under the same random state."""
    device = place_of(split.network)[0]
    random = RandomState(device)

    def plain() -> Any:
        random.restore()
        with torch.enable_grad(), kept_buffers(split.network):
            return run_network(split.network, _fresh(inputs), split.selector)

    try:
        expected = plain()
    except Exception as error:
        _LOG.info("not verified in train mode, the network itself fails there: %s", error)
        return
    random.restore()
    with torch.enable_grad(), kept_buffers(split.network):
        leaves, state = split.crossing(_fresh(inputs))
        if len(leaves) != len(split.differenced):
            raise IllegalPointError("other values cross there in train mode than in eval mode")
        actual = split.resume(_cloned(leaves), state)
    try:
        _check_output(expected, actual)
    except MismatchError:
        if largest_difference(expected, plain()) == 0:
            raise
        _LOG.info("not verified in train mode: the network differs from itself there")


def _check_bypass(split: HookSplit, inputs: Inputs, probe: Probe, expected: Any) -> None:
    """Nothing of the image passes a hooked merge module by.

    The network runs on other images with the features of the first ones; if these decide
    everything, the output is the first images'. A bypass that is muted by a zero weight, and one
    that exists in training only, shows in the gradient graph.
    """
    other = _map(
        lambda t: t.roll(1, 0) if isinstance(t, Tensor) and t.ndim and t.shape[0] == 3 else t,
        inputs,
    )
    passing = is_bypassed(split.network, split.merge_at, _rows(inputs), split.selector)
    if not passing:
        with torch.enable_grad():
            actual = split.resume(_cloned(probe.leaves), split.elsewhere(probe.state, other))
        difference = largest_difference(expected, actual)
        passing = difference > _tolerance(expected)
    if passing:
        raise IllegalPointError(
            "torch.fx can't trace this network, and a part of the image's features passes "
            "it by on another path, so replacing its input alone would be wrong"
        )


def _tolerance(expected: Any) -> float:
    """Accelerators may choose another kernel for the same call; the CPU doesn't."""
    return 0.0 if all(t.device.type == "cpu" for t in _tensors(expected)) else 1e-4


def _check_output(expected: Any, actual: Any) -> None:
    difference = largest_difference(expected, actual)
    if difference > _tolerance(expected):
        raise MismatchError(
            f"the halves' output differs from the network's by {difference:.2g} (relative)"
        )


def _check_batch(expected: Any, actual: Any) -> None:
    """The output of samples 2 and 3 alone is theirs in the batch of three."""
    for three, two in zip(_tensors(expected), _tensors(actual), strict=True):
        if three.ndim and three.shape[0] == 3 and two.shape[0] == 2 and not _close(three[1:], two):
            raise MismatchError("the halves' output differs from the network's at batch size 2")


def largest_difference(expected: Any, actual: Any) -> float:
    """Largest absolute difference relative to the largest value; inf for other structure or shape.

    Exactly 0 only if all tensors are equal bit for bit (NaN counts as equal to NaN).
    """
    first, second = _tensors(expected), _tensors(actual)
    if len(first) != len(second) or any(
        a.shape != b.shape or a.dtype != b.dtype for a, b in zip(first, second, strict=True)
    ):
        return float("inf")
    worst = 0.0
    for a, b in zip(first, second, strict=True):
        if torch.equal(a, b) or torch.allclose(a, b, rtol=0, atol=0, equal_nan=True):
            continue
        a, b = a.detach().double(), b.detach().double()
        difference = float((a - b).abs().max() / a.abs().max().clamp_min(1e-30))
        worst = max(worst, difference if difference == difference else float("inf"))
    return worst


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    if not _is_continuous(a):
        return torch.equal(a, b)
    return largest_difference(a, b) <= _BATCH_TOLERANCE.get(a.dtype, _LOW_PRECISION_TOLERANCE)


def _tensors(value: Any) -> list[Tensor]:
    return [v for v in pytree.tree_leaves(value) if isinstance(v, Tensor)]


def _rows(inputs: Inputs) -> Inputs:
    """The last two of three samples."""
    return _map(
        lambda t: t[1:] if isinstance(t, Tensor) and t.ndim and t.shape[0] == 3 else t, inputs
    )


def _fresh(inputs: Inputs) -> Inputs:
    """Copies, for networks that write into their input."""
    return _map(lambda t: t.clone() if isinstance(t, Tensor) else t, inputs)


def _map(function: Any, inputs: Inputs) -> Any:
    if isinstance(inputs, Tensor):
        return function(inputs)
    args, kwargs = as_call(inputs)
    return pytree.tree_map(function, kwargs or args)


def _cloned(leaves: list[Any]) -> list[Any]:
    """Copies without shared memory, as differencing makes them."""
    return [v.clone() if isinstance(v, Tensor) else v for v in leaves]
