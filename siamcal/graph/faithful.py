"""Whether traced code does what its network does: not only outputs, but all that a step leaves.

A trace loses what isn't an operation on tensors: `no_grad` and `autocast` blocks, gradient
checkpointing, numbers drawn once, values written to attributes and buffers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from siamcal.errors import MergePointError
from siamcal.graph.inputs import Inputs, fresh, place_of, run_network, tensors_in
from siamcal.graph.randomness import RandomState
from siamcal.graph.roles import largest_difference
from siamcal.graph.split import FxSplit
from siamcal.graph.state import differentiable, hookable, in_mode, kept_buffers

__all__ = ["UnfaithfulError", "compare_with_network"]

_LOG = logging.getLogger(__name__)
# Gradients are sums in another order; a block under no_grad or a missing path is off by all of it.
_GRADIENT_TOLERANCE = 1e-3


class UnfaithfulError(MergePointError):
    """The traced code computes, trains or leaves something else than the network."""


@dataclass(frozen=True)
class _Step:
    """What a forward and backward pass left.

    Attributes:
        outputs: Tensors of the output.
        gradients: Parameter -> its gradient; None where it got none.
        calls: Number of forwards of each module that holds no other, recomputations included.
        buffers: Buffer -> its value afterwards.
        random: State of the generators afterwards.
        written: (path, attribute) -> value, of attributes that hold another object afterwards.
    """

    outputs: list[Tensor]
    gradients: dict[str, Tensor | None]
    calls: dict[str, int]
    buffers: dict[str, Tensor]
    random: RandomState
    written: dict[tuple[str, str], Any]


def compare_with_network(split: FxSplit, inputs: Inputs) -> None:
    """Hold a cut by torch.fx against the network itself, in train and eval mode.

    Raises:
        UnfaithfulError: They differ; the message says in what.
    """
    device = place_of(split.network)[0].type
    contexts: list[tuple[bool, AbstractContextManager[Any]]] = [(False, nullcontext())]
    if device in ("cpu", "cuda"):
        contexts.append((False, torch.autocast(device, torch.bfloat16)))
    contexts.append((True, nullcontext()))
    for training, context in contexts:
        with in_mode(split.network, training):
            _compare_steps(split, inputs, training, context)
    split.proved()


def _compare_steps(
    split: FxSplit, inputs: Inputs, training: bool, context: AbstractContextManager[Any]
) -> None:
    network = split.network
    random = RandomState(place_of(network)[0])
    mode = "train" if training else "eval"

    def step(run: Callable[[Inputs], Any]) -> _Step:
        random.restore()
        with context:
            return _step(network, run, inputs, training)

    def plain(images: Inputs) -> Any:
        return run_network(network, images, split.selector)

    def halves(images: Inputs) -> Any:
        leaves, state = split.crossing(images)
        return split.resume([v.clone() if isinstance(v, Tensor) else v for v in leaves], state)

    try:
        expected = step(plain)
    except Exception as error:
        _LOG.info("not verified in %s mode, the network itself fails there: %s", mode, error)
        _check_failing(step, halves, mode, error)
        return
    finally:
        random.restore()
    split.ignored |= frozenset(expected.written)
    missed = _missed(expected, step(plain))
    random.restore()
    with context, torch.enable_grad(), kept_buffers(network):
        leaves, _ = split.crossing(fresh(inputs))
    if len(leaves) != len(split.differenced):
        raise UnfaithfulError(f"other values cross there in {mode} mode")

    try:
        actual = step(halves)
    except Exception as error:
        raise UnfaithfulError(f"the traced code fails in {mode} mode: {error}") from error
    for path, name in missed - actual.written.keys():
        raise UnfaithfulError(
            f"the forward of {path or 'the network'!r} writes the attribute {name!r} in {mode} "
            "mode, which traced code doesn't"
        )
    difference = _difference(expected, actual, split.through)
    if difference and not _difference(expected, step(plain)):
        raise UnfaithfulError(
            f"the traced code differs from the network in {mode} mode: {difference}"
        )
    random.restore()


def _check_failing(
    step: Callable[[Callable[[Inputs], Any]], _Step],
    halves: Callable[[Inputs], Any],
    mode: str,
    failure: Exception,
) -> None:
    """Traced code may not train where its network can't: nothing tells whether it does so rightly.

    A value that is written over before its gradient is taken is such a case; it crosses as a copy.
    """
    try:
        step(halves)
    except Exception:
        return
    reason = str(failure).strip().split(":")[0]
    raise UnfaithfulError(
        f"the network itself fails in {mode} mode ({reason}), so the traced code can't be compared"
    )


def _step(
    network: nn.Module, run: Callable[[Inputs], Any], inputs: Inputs, training: bool
) -> _Step:
    """Run forward, and backward in training; the network is left as it was."""
    calls: dict[str, int] = {}
    leafs = [(n, m) for n, m in hookable(network) if n and next(m.children(), None) is None]
    handles = [
        m.register_forward_pre_hook(lambda *_, n=n: calls.__setitem__(n, calls.get(n, 0) + 1))
        for n, m in leafs
    ]
    gradients: dict[str, Tensor | None] = {}
    try:
        with kept_buffers(network), differentiable(network):
            before = {path: dict(m.__dict__) for path, m in network.named_modules()}
            with torch.set_grad_enabled(training):
                outputs = tensors_in(run(fresh(inputs)))
                wanted = [t for t in outputs if t.requires_grad]
                if wanted:
                    sum(t.abs().sum() for t in wanted).backward()  # type: ignore[union-attr]
            gradients = {
                n: None if p.grad is None else p.grad.clone() for n, p in network.named_parameters()
            }
            return _Step(
                [t.detach() for t in outputs],
                gradients,
                dict(calls),
                {n: b.clone() for n, b in network.named_buffers()},
                RandomState(place_of(network)[0]),
                {
                    (path, name): value
                    for path, m in network.named_modules()
                    for name, value in m.__dict__.items()
                    if not name.startswith("_") and before[path].get(name, m) is not value
                },
            )
    finally:
        for handle in handles:
            handle.remove()


def _missed(first: _Step, second: _Step) -> frozenset[tuple[str, str]]:
    """Attributes that somebody misses unless they are written (a loss kept for later, a counter).

    The others are caches: a forward writes the same into them at every run.
    """
    return frozenset(
        place
        for place, value in first.written.items()
        if not _same(value, second.written.get(place)) or _holds_gradient(value)
    )


def _holds_gradient(value: Any) -> bool:
    return any(isinstance(v, Tensor) and v.requires_grad for v in pytree.tree_leaves(value))


def _same(a: Any, b: Any) -> bool:
    ours, theirs = pytree.tree_leaves(a), pytree.tree_leaves(b)
    return len(ours) == len(theirs) and all(
        largest_difference([x], [y]) == 0
        if isinstance(x, Tensor) and isinstance(y, Tensor)
        else x is y or x == y
        for x, y in zip(ours, theirs, strict=True)
    )


def _difference(expected: _Step, actual: _Step, through: Sequence[str] = ()) -> str:
    """In what two steps differ, in words; empty where they don't.

    Modules that were traced through run as code of the whole, so their calls can't be counted.
    """
    tolerance = 0.0 if all(t.device.type in ("cpu", "meta") for t in expected.outputs) else 1e-4
    gap = largest_difference(expected.outputs, actual.outputs)
    if gap > tolerance:
        return f"its output is off by {gap:.2g} (relative)"
    for name, gradient in expected.gradients.items():
        other = actual.gradients[name]
        if (gradient is None) != (other is None):
            return (
                f"{name!r} gets {'no' if gradient is None else 'a'} gradient from the network, but "
                f"{'one' if gradient is None else 'none'} from it (a part under torch.no_grad?)"
            )
        if gradient is not None and other is not None:
            gap = largest_difference([gradient], [other])
            if gap > _GRADIENT_TOLERANCE and float((gradient - other).abs().max()) > 1e-6:
                return f"the gradient of {name!r} is off by {gap:.2g} (relative)"
    for name, count in expected.calls.items():
        if name not in through and actual.calls.get(name, 0) != count:
            return (
                f"{name!r} runs {count} times a step in the network, {actual.calls.get(name, 0)} "
                "times in it (gradient checkpointing?)"
            )
    for name, value in expected.buffers.items():
        if largest_difference([value], [actual.buffers[name]]) > tolerance:
            return f"the buffer {name!r} ends at another value"
    if not expected.random.equals(actual.random):
        return "other random numbers are drawn"
    return ""
