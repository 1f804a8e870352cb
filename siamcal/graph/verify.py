"""Proof at construction that a cut is right: the network computes with it what it computes without.

Also finds out, by running, what crosses, what of it depends on the image, and where the samples of
a batch lie. The network is run on random images like the example's and left as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from siamcal.errors import MergePointError
from siamcal.graph.faithful import compare_with_network
from siamcal.graph.flow import Flow, eager
from siamcal.graph.hidden import (
    BypassError,
    MismatchError,
    check_carried,
    check_carried_in_training,
    check_hidden_writes,
)
from siamcal.graph.hooking import HookSplit
from siamcal.graph.inputs import (
    ImageInputs,
    Inputs,
    Probe,
    failure_of_example,
    fresh,
    image_places,
    place_of,
    probes,
    run_network,
    tensors_in,
)
from siamcal.graph.points import marked
from siamcal.graph.randomness import Randomness, RandomState
from siamcal.graph.roles import assign_roles, close, largest_difference
from siamcal.graph.split import FxSplit, IllegalPointError, Split, unrelated
from siamcal.graph.state import hookable, in_mode, kept_buffers

__all__ = ["BypassError", "MismatchError", "check_split"]

_LOG = logging.getLogger(__name__)
# Draws of a network that skips its merge module at random in training, until one doesn't.
_DRAWS = 8


class BatchError(MismatchError):
    """A sample's output depends on the batch that it is in."""


def check_split(split: Split, example: Inputs, images: ImageInputs, *, verify: bool) -> None:
    """Find the roles of the crossing values and prove that the cut is exact.

    Args:
        split: A new split; its roles (`differenced`, `layouts`, ...) are filled in.
        example: Valid inputs, from which random ones are derived.
        images: Which of them are images.
        verify: False only finds the roles, follows the image past the merge module in eval mode
            and looks who draws in training.

    Raises:
        IllegalPointError: A crossing value can't be differenced (an integer that depends on the
            image), nothing that crosses depends on it, or the output holds no tensor.
        BypassError: The network can't simply run with the merge module's input replaced, or
            something else than what crosses carries the image.
        MismatchError: The halves compute something else.
    """
    network = split.network
    random = RandomState(place_of(network)[0])
    first = _observed if isinstance(split, HookSplit) else _plain
    failure: Exception | None = None
    try:
        with kept_buffers(network), eager():
            for probe in probes(example, images, *place_of(network)):
                try:
                    with (
                        in_mode(network, False),
                        torch.no_grad(),
                        kept_buffers(network),
                    ):
                        seen = first(split, probe.large, images)
                except MergePointError:
                    raise
                except Exception as error:
                    failure = failure or error
                    continue
                finally:
                    random.restore()
                check = _check_hook if isinstance(split, HookSplit) else _check_halves
                try:
                    check(split, probe, images, seen, verify)
                except BatchError:
                    if sum(probe.per_sample) == len(image_places(example, images)):
                        raise
                    continue  # what has as many rows as there are samples may belong to all of them
                split.per_sample = probe.per_sample
                return
    finally:
        random.restore()
    raise failure_of_example(network, example, failure) from failure


@dataclass
class _Seen:
    """One run of the network.

    Attributes:
        output: What it gave.
        leaves: Copies of the values that crossed, for a hook.
        depends: Whether each of them comes from the image.
        numbers: Whether Python got a number of the image that doesn't come from these.
        drawing: Paths of the modules that drew random numbers before the merge point.
        decides: Whether a drawn number may have decided what ran.
        before: Paths of the modules that ran before it only.
    """

    output: Any
    leaves: list[Any] = field(default_factory=list)
    depends: list[bool] = field(default_factory=list)
    numbers: bool = False
    drawing: tuple[str, ...] = ()
    decides: bool = False
    before: tuple[str, ...] = ()


def _plain(split: Split, inputs: Inputs, images: ImageInputs) -> _Seen:
    return _with_tensors(_Seen(run_network(split.network, fresh(inputs), split.selector)))


def _with_tensors(seen: _Seen) -> _Seen:
    if not tensors_in(seen.output):
        raise IllegalPointError(
            f"its output, a {type(seen.output).__name__}, holds no tensor that siamcal can find: "
            "name the part that is meant with output= (a key, an attribute's name, an index or a "
            "function)"
        )
    return seen


def _check_halves(
    split: Split, probe: Probe, images: ImageInputs, seen: _Seen, verify: bool
) -> None:
    # Each comparison begins with the buffers (counters, running values) as they are.
    with in_mode(split.network, False), torch.no_grad():
        with kept_buffers(split.network):
            _find_roles(split, probe, images)
        verify = verify and isinstance(split, FxSplit)
        if verify:
            check_hidden_writes(cast(FxSplit, split), probe)
            with kept_buffers(split.network):
                leaves, state = split.crossing(fresh(probe.large))
                _compare(seen.output, split.resume(cloned(leaves), state))
        if verify and probe.small is not None:
            with kept_buffers(split.network):
                _compare_batches(seen.output, split.resume(*_small(split, probe)), probe.unit)
    if verify:
        compare_with_network(cast(FxSplit, split), probe.large)
        check_carried_in_training(cast(FxSplit, split), probe, images)
    with kept_buffers(split.network):
        _find_randomness(split, probe)


def _find_randomness(split: Split, probe: Probe) -> None:
    """Which modules draw before the merge point in training, and which of them can't be silenced.

    Found by running, so that functions count like modules: a module's draw stops with its own
    training mode, or it doesn't.
    """
    split.drawing, split.loud = (_drawing(split, probe, training) for training in (True, False))


def _drawing(split: Split, probe: Probe, training: bool) -> tuple[str, ...]:
    """Paths of the modules that draw before the merge point in one mode."""
    paths: dict[str, None] = {}
    for _ in range(_DRAWS):
        watch = Randomness(split.network)
        try:
            with in_mode(split.network, training), torch.no_grad(), watch.watching():
                split.crossing(fresh(probe.large))
        except Exception as error:
            _LOG.info("draws aren't known, the network fails in that mode: %s", error)
        paths.update(watch.paths)
        if not watch.decides:
            break
    return tuple(paths)


def _find_roles(split: Split, probe: Probe, images: ImageInputs) -> None:
    """Roles of the values that cross, told from where the image goes."""
    flow = Flow()
    with flow:
        leaves, state = split.crossing(marked(flow, probe.large, images))
    if isinstance(split, FxSplit):
        check_carried(split, flow, leaves, state)
    possible = split.may_depend(leaves, state)
    depends = [p and flow.comes_from_image([v]) for p, v in zip(possible, leaves, strict=True)]
    if any(p and not d for p, d in zip(possible, depends, strict=True)):
        # What left torch on its way (numbers, numpy) is told by running on other images.
        others, _ = split.crossing(fresh(probe.other))
        depends = _varying(leaves, others, depends, possible)
    if isinstance(split, FxSplit):
        entering = split.enters(leaves, state)
        if any(entering) and not any(d for d, e in zip(depends, entering, strict=True) if e):
            # A module's second output may be a constant, which the trace can't tell.
            raise IllegalPointError(unrelated(split.merge_at))
    small = _small(split, probe)[0] if probe.small is not None else None
    assign_roles(split, leaves, small, depends, 2 if small is not None else 1, probe.unit)


def _varying(
    leaves: Sequence[Any], others: Sequence[Any], depends: Sequence[bool], possible: Sequence[bool]
) -> list[bool]:
    """`depends`, and what differs between two runs with other images."""
    if len(leaves) != len(others):
        raise IllegalPointError("the number of crossing values depends on the image")
    return [
        d or (p and not _equal(a, b))
        for a, b, d, p in zip(leaves, others, depends, possible, strict=True)
    ]


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and largest_difference([a], [b]) == 0
    return type(a) is type(b) and (not isinstance(a, int | float | str | tuple) or a == b)


def _small(split: Split, probe: Probe) -> tuple[list[Any], Any]:
    return split.crossing(fresh(probe.small))  # type: ignore[arg-type]


def _check_hook(split: Split, probe: Probe, images: ImageInputs, seen: _Seen, verify: bool) -> None:
    """Nothing of the image passes the merge module by, in eval and in train mode."""
    split = cast(HookSplit, split)
    with in_mode(split.network, False), torch.no_grad():
        others = _check_other_images(split, probe, images, seen) if verify else None
        depends = seen.depends
        if not all(depends):
            if others is None:
                with kept_buffers(split.network):
                    others, _ = split.crossing(fresh(probe.other))
            depends = _varying(seen.leaves, others, depends, [True] * len(seen.leaves))
        small = _small(split, probe)[0] if probe.small is not None else None
        units = 2 if small is not None else 1
        assign_roles(split, seen.leaves, small, depends, units, probe.unit)
    split.pre_modules, split.loud, split.drawing = seen.before, seen.drawing, seen.drawing
    decides = seen.decides
    if verify:
        with in_mode(split.network, True), torch.no_grad():
            trained = _observed_in_training(split, probe, images)
        if trained is None:
            return
        if len(trained.leaves) != len(split.differenced):
            raise IllegalPointError("other values cross there in train mode than in eval mode")
        split.drawing = trained.drawing
        decides |= trained.decides
    with kept_buffers(split.network):
        if decides:  # other draws may meet other modules
            _find_randomness(split, probe)
        elif not verify:
            split.drawing = _drawing(split, probe, True)


def _check_other_images(
    split: HookSplit, probe: Probe, images: ImageInputs, seen: _Seen
) -> list[Any]:
    """The features of the first images decide everything, whatever the images now are.

    This finds what the record of the flow can't follow (numbers, numpy).

    Returns:
        What crosses for the other images.
    """
    random = RandomState(place_of(split.network)[0])
    others: list[list[Any]] = []

    def replace(own: list[Any]) -> list[Any]:
        others.append(own)
        return cloned(seen.leaves)

    with kept_buffers(split.network):
        actual = split.observe(fresh(probe.other), replace)
    if _differs(seen.output, actual):
        raise BypassError(f"a part of the image's features passes '{split.merge_at}' by")
    if seen.numbers:
        random.restore()
        _check_numbers(split, probe, images, seen)
    return others[0]


def _check_numbers(split: HookSplit, probe: Probe, images: ImageInputs, seen: _Seen) -> None:
    """Numbers that Python got from the image decide nothing behind the merge module.

    Two images may well give the same `x.sum() > 0`, so the numbers are falsified.
    """
    flow = Flow(scramble=True)
    try:
        with kept_buffers(split.network), flow:
            inputs = marked(flow, probe.large, images)
            actual = split.observe(inputs, lambda own: cloned(seen.leaves))
    except Exception as error:
        _LOG.info("no run with falsified numbers, the network fails then: %s", error)
        return
    if _differs(seen.output, actual):
        raise BypassError(f"a number made from the image passes '{split.merge_at}' by")


def _observed(split: Split, inputs: Inputs, images: ImageInputs) -> _Seen:
    """Run with a hook that only looks, and follow the image.

    Raises:
        BypassError: The image reaches the output by a way around the merge module.
    """
    split = cast(HookSplit, split)
    flow, order, watch = Flow(), _Order(split), Randomness(split.network)
    leaves: list[Any] = []
    entered: list[int | None] = []

    def see(own: list[Any]) -> list[Any]:
        given = cloned(own)
        # Taken down at once: what is written into the arguments later is another value.
        entered.extend(flow.value_of(v) if isinstance(v, Tensor) else None for v in given)
        leaves.extend(cloned(given))
        order.merged()
        watch.stop()
        return given

    with watch.watching(), order.watching(), flow:
        output = split.observe(marked(flow, inputs, images), see)
    depends = [isinstance(v, Tensor) and flow.comes_from_image([v]) for v in leaves]
    continuous = [
        e
        for e, v in zip(entered, leaves, strict=True)
        if e is not None and (v.is_floating_point() or v.is_complex())
    ]
    if flow.comes_from_image(tensors_in(output), without=continuous):
        raise BypassError(f"a part of the image's features passes '{split.merge_at}' by")
    numbers = flow.reached(flow.left, without=continuous)
    seen = _Seen(output, leaves, depends, numbers, tuple(watch.paths), watch.decides, order.before)
    return _with_tensors(seen)


def _observed_in_training(split: HookSplit, probe: Probe, images: ImageInputs) -> _Seen | None:
    """The same in train mode, at two samples: one has no order to draw; None if it fails there."""
    for attempt in range(_DRAWS):
        try:
            with kept_buffers(split.network):
                return _observed(split, probe.large, images)
        except IllegalPointError:
            if attempt + 1 == _DRAWS:
                raise
            # Skipped in this draw: some networks leave out layers by chance.
        except MergePointError:
            raise
        except Exception as error:
            _LOG.info("not verified in train mode, the network itself fails there: %s", error)
            return None
    return None


class _Order:
    """Which modules ran to their end before the merge point, and not again behind it."""

    def __init__(self, split: HookSplit) -> None:
        self._modules = {m: name for name, m in hookable(split.network) if name}
        self._before: dict[str, None] = {}
        self._behind: set[str] = set()
        self._is_behind = False

    @property
    def before(self) -> tuple[str, ...]:
        return tuple(name for name in self._before if name not in self._behind)

    def merged(self) -> None:
        self._is_behind = True

    def watching(self) -> Any:
        return _Hooks(self._modules, self._left)

    def _left(self, module: Any, *_: Any) -> None:
        if self._is_behind:
            self._behind.add(self._modules[module])
        else:
            self._before[self._modules[module]] = None


class _Hooks:
    def __init__(self, modules: Any, function: Any) -> None:
        self._modules, self._function = modules, function

    def __enter__(self) -> None:
        self._handles = [m.register_forward_hook(self._function) for m in self._modules]

    def __exit__(self, *_: Any) -> None:
        for handle in self._handles:
            handle.remove()


def _differs(expected: Any, actual: Any) -> bool:
    first, second = tensors_in(expected), tensors_in(actual)
    return largest_difference(first, second) > _tolerance(first)


def _tolerance(tensors: Sequence[Tensor]) -> float:
    """Accelerators may choose another kernel for the same call; the CPU doesn't."""
    return 0.0 if all(t.device.type in ("cpu", "meta") for t in tensors) else 1e-4


def _compare(expected: Any, actual: Any) -> None:
    if _differs(expected, actual):
        difference = largest_difference(tensors_in(expected), tensors_in(actual))
        raise MismatchError(
            f"the halves' output differs from the network's by {difference:.2g} (relative)"
        )


def _compare_batches(expected: Any, actual: Any, unit: int) -> None:
    """The output of the last unit alone is its own in the batch of all."""
    for large, small in zip(tensors_in(expected), tensors_in(actual), strict=True):
        scales = large.ndim and small.ndim and large.shape[0] == 2 * small.shape[0]
        if scales and not close(large[small.shape[0] :], small):
            raise BatchError(f"the halves' output differs from the network's at batch {unit}")


def cloned(leaves: Sequence[Any]) -> list[Any]:
    """Copies without shared memory, as differencing makes them."""
    return [v.clone() if isinstance(v, Tensor) else v for v in leaves]
