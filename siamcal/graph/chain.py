"""A network cut at several merge points, one behind the other.

With P0, ..., Pn, the parts of the network between the points, and r_k, the plain network's features
at point k for the reference:

    x_1 = P0(target);  y_k = merge_k(x_k, r_k);  x_(k+1) = Pk(y_k);  output = Pn(y_n)

Each point is cut by a hook (as the last, "output" by none): the network runs once, as its author
wrote it, and each hook replaces what enters its module. All of the image enters each of the
modules, so nothing of it passes an earlier merge on its way to a later one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from siamcal.errors import ConfigError, MergePointError
from siamcal.graph.cutting import split_network
from siamcal.graph.features import Features
from siamcal.graph.hooking import HookSplit
from siamcal.graph.inputs import ImageInputs, Inputs, OutputSelector
from siamcal.graph.points import list_merge_points
from siamcal.graph.split import Merge, Split

__all__ = ["ChainSplit", "chain_splits"]

MECHANISMS = ("auto", "hook")


def chain_splits(
    backbone: nn.Module,
    merge_at: Sequence[str],
    *,
    example_inputs: Inputs | None = None,
    output: OutputSelector = None,
    image_inputs: ImageInputs = None,
    verify: bool = True,
    mechanism: str = "auto",
) -> ChainSplit:
    """Cut a network at the entrances of several of its modules.

    Args:
        backbone: Any network; it isn't modified.
        merge_at: Paths of the modules, in the order in which the network reaches them, of those
            that `list_merge_points` names; the last may be "output".
        example_inputs: A valid input; see `split_network`.
        output: Part of the network's output that is meant.
        image_inputs: Which inputs are images.
        verify: Prove that each cut is exact.
        mechanism: "auto" or "hook", which are the same here.

    Raises:
        MergePointError: A place is no legal merge point, or out of order.
        ConfigError: Another mechanism.
    """
    if mechanism not in MECHANISMS:
        raise ConfigError(
            f"Several merge points are cut by hooks, so mechanism takes "
            f"{' or '.join(map(repr, MECHANISMS))}, but got {mechanism!r}; choose one of these, or "
            "a single merge point."
        )
    told: dict[str, Any] = {"example_inputs": example_inputs, "output": output}
    told["image_inputs"] = image_inputs
    reached = [point.name for point in list_merge_points(backbone, **told)]
    points: list[Split] = []
    for name in merge_at:
        how = "auto" if name == "output" else "hook"
        try:
            points.append(split_network(backbone, name, verify=verify, mechanism=how, **told))
        except MergePointError as error:
            raise MergePointError(
                f"Of several merge points, each is one that all of the image enters. {error}"
            ) from error
    _check_order(type(backbone).__name__, [point.merge_at for point in points], reached)
    return ChainSplit(points, merge_at)


def _check_order(network: str, given: Sequence[str], reached: Sequence[str]) -> None:
    unknown = [name for name in given if name not in reached]
    if unknown:
        raise MergePointError(
            f"It isn't known when {network} reaches {unknown[0]!r}, so it can't be one of several "
            f"merge points; choose among {', '.join(map(repr, reached))}."
        )
    places = [reached.index(name) for name in given]
    if all(first < second for first, second in pairwise(places)):
        return
    wanted = [reached[place] for place in sorted(set(places))]
    raise MergePointError(
        f"Several merge points stand in the order in which {network} reaches them, each once, but "
        f"merge_at is {tuple(given)}; write merge_at={tuple(wanted)}."
    )


class ChainSplit(Split):
    """A network cut at several merge points.

    `layouts`, `shapes`, `differenced` and `passed` are those of all points, one after another. What
    runs or draws before the merge point is what does so before the last: both branches pass there.

    Args:
        points: A cut at each point, in order: by hooks, the last one perhaps at "output".
        merge_at: Their names as they were given.
    """

    mechanism = "hook"

    def __init__(self, points: Sequence[Split], merge_at: Sequence[str]) -> None:
        last = points[-1]
        super().__init__(last.network, ", ".join(merge_at), last.selector)
        self._points = tuple(points)
        self.reason = "; ".join(point.reason for point in points if point.reason)
        self.differenced = tuple(d for point in points for d in point.differenced)
        self.layouts = tuple(layout for point in points for layout in point.layouts)
        self.shapes = tuple(shape for point in points for shape in point.shapes)
        self.passed = tuple(value for point in points for value in point.passed)
        self.pre_modules, self.per_sample = last.pre_modules, last.per_sample
        self.drawing, self.loud = last.drawing, last.loud

    @property
    def points(self) -> tuple[Split, ...]:
        """The cuts, one for each merge point, each of the plain network."""
        return self._points

    def on(self, network: nn.Module) -> Split:
        """The same cuts of another network of the same make, such as a replica."""
        other = copy.copy(self)
        other.network = network
        other._points = tuple(point.on(network) for point in self._points)
        return other

    def pre(self, inputs: Inputs) -> Features:
        """Input -> the plain network's features at all points, from one forward."""
        last = self._points[-1]

        def features(hooks: Sequence[HookSplit]) -> tuple[Tensor, ...]:
            if not hooks:
                return last.pre(inputs).tensors
            own, later = hooks[0].beside(partial(features, hooks[1:]))
            return (*own, *later)

        return Features(features(self._hooks))

    def post(self, features: Features) -> Any:
        """Refused: behind the first point the network needs what is merged at the others.

        Raises:
            MergePointError: Always.
        """
        raise MergePointError(
            f"A network cut at several merge points ({self.merge_at}) has no second half that goes "
            "on from features alone; use run(inputs, merge, merge, ...), or one merge point."
        )

    def run(self, inputs: Inputs, *merges: Merge) -> Any:
        """One forward, the features replaced on the way, at each point by its own merge."""
        last = self._points[-1]
        graph = torch.is_grad_enabled() and not torch.compiler.is_compiling()
        pairs = zip(self._points, merges, strict=True)
        own = [partial(self._merged, point, merge, graph) for point, merge in pairs]

        def output(hooks: Sequence[HookSplit], merges: Sequence[Merge]) -> Any:
            if not hooks:
                return last.run(inputs, *merges)
            return hooks[0].around(partial(output, hooks[1:], merges[1:]), merges[0])

        return output(self._hooks, own)

    @property
    def _hooks(self) -> list[HookSplit]:
        return cast(list[HookSplit], list(self._points[:-1]))

    def _merged(
        self, point: Split, merge: Merge, graph: bool, tensors: tuple[Tensor, ...]
    ) -> Sequence[Tensor]:
        """Merged features; the merge may run the network itself, which meets none of the hooks."""
        if graph and isinstance(point, HookSplit):
            point.check_graph()
        with ExitStack() as stack:
            for other in self._points:
                if isinstance(other, HookSplit):
                    stack.enter_context(other.aside())
            return merge(tensors)
