"""What a calibrated network has to give, worked out without cutting it.

The plain network runs twice: once on the reference, to see what enters the merge module, and once
on the target, with a forward pre-hook that replaces what of the image enters it by
reference - target. Everything else that enters the module is the target's. Other hooks on the
module belong to it and come after.
"""

import copy
import random

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from siamcal import CalibratingSiamese


class _Seen(BaseException):
    """Ends the reference's forward; the network mustn't catch it."""


def called(network, inputs):
    """The network's output for a tensor, a tuple of arguments or a dict of keyword arguments."""
    if isinstance(inputs, dict):
        return network(**inputs)
    return network(*inputs) if isinstance(inputs, tuple) else network(inputs)


def states():
    """State of every generator on the CPU."""
    return torch.get_rng_state(), random.getstate(), np.random.get_state()


def restore(state):
    """Go back to a state of the generators."""
    torch.set_rng_state(state[0])
    random.setstate(state[1])
    np.random.set_state(state[2])


def calibrated(network, place, target, reference, passed=()):
    """Output of a plain network whose merge module sees reference - target.

    Args:
        network: The plain network.
        place: Path of the merge module.
        target: Target inputs.
        reference: Reference inputs; both draw the same random numbers.
        passed: Positions among the leaves of the module's arguments that don't come from the image.
    """
    module, seen = network.get_submodule(place), []

    def see(module, args, kwargs):
        # Clones, as the network may write into them; not detached, for gradients reach both.
        seen.extend(
            v.clone() if isinstance(v, torch.Tensor) else v
            for v in pytree.tree_leaves((args, kwargs))
        )
        raise _Seen

    def replace(module, args, kwargs):
        leaves, spec = pytree.tree_flatten((args, kwargs))
        new = [
            r - t
            if i not in passed and isinstance(t, torch.Tensor) and t.is_floating_point()
            else t
            for i, (t, r) in enumerate(zip(leaves, seen, strict=True))
        ]
        return pytree.tree_unflatten(new, spec)

    state = states()
    handle = module.register_forward_pre_hook(see, with_kwargs=True, prepend=True)
    try:
        called(network, reference)
    except _Seen:
        pass
    finally:
        handle.remove()
    restore(state)
    handle = module.register_forward_pre_hook(replace, with_kwargs=True, prepend=True)
    try:
        return called(network, target)
    finally:
        handle.remove()


def tensors(value):
    """Tensors of an output: those of containers, dataclasses and other objects."""
    found = []
    for leaf in pytree.tree_leaves(value):
        if isinstance(leaf, torch.Tensor):
            found.append(leaf)
        elif hasattr(leaf, "__dict__"):
            found += tensors(list(vars(leaf).values()))
    return found


def step(network, run):
    """Outputs, gradients, buffers and draws that a forward and backward pass of a network leave."""
    network.zero_grad(set_to_none=True)
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    outputs = tensors(run())
    wanted = [t for t in outputs if t.requires_grad]
    if wanted:
        sum(t.square().sum() for t in wanted).backward()
    return (
        [t.detach() for t in outputs],
        {n: p.grad for n, p in network.named_parameters()},
        {n: b.clone() for n, b in network.named_buffers()},
        (torch.rand(2), random.random(), np.random.random()),
    )


def assert_same(actual, expected):
    """Two steps left the same: outputs, buffers and draws bit for bit."""
    assert len(actual[0]) == len(expected[0]) > 0
    for ours, right in zip(actual[0], expected[0], strict=True):
        assert torch.equal(ours, right)
    for name, right in expected[1].items():
        assert (actual[1][name] is None) == (right is None), name
        if right is not None:
            torch.testing.assert_close(actual[1][name], right, rtol=1e-4, atol=1e-6)
    for name, right in expected[2].items():
        assert torch.equal(actual[2][name], right), name
    assert torch.equal(actual[3][0], expected[3][0])
    assert actual[3][1:] == expected[3][1:]


def assert_right(
    network, place, target, reference, *, passed=(), modes=(False, True), **options
) -> CalibratingSiamese:
    """Hold the wrapped network against the plain one in eval and train mode.

    Args:
        network: The network; a copy of it stays plain.
        place: Path of the merge module.
        target: Target inputs.
        reference: Reference inputs.
        passed: See `calibrated`.
        modes: Training modes.
        **options: For `CalibratingSiamese`.

    Returns:
        The wrapped network.
    """
    options.setdefault("example_inputs", target)
    plain = copy.deepcopy(network)
    model = CalibratingSiamese(network, place, **options)
    for mode in modes:
        plain.train(mode), model.train(mode)
        expected = step(plain, lambda: calibrated(plain, place, target, reference, passed))
        actual = step(network, lambda: model(target, reference))
        assert_same(actual, expected)
    return model


class Net(nn.Module):
    """A stem, a body and a classifier; the networks of the tests change a line of it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.body(self.stem(x)).mean((2, 3)))


def images(batch=3, seed=1, side=8):
    """Random images."""
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))
