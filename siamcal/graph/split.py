"""A network cut in two at a merge point: `post(pre(x)) == network(x)`.

Mechanisms, tried in this order (figures: `siamcal bench coverage`):

- "hook" (siamcal.graph.hooking): the network runs as it is and a hook replaces the merge module's
  input. Only where nothing else of the image passes that module by.
- "shallow fx": torch.fx traces only through the modules that hold the merge point. Everything that
  crosses is differenced, so places inside residual branches can be cut too.
- "full fx": torch.fx traces through everything but torch's layers and timm's untraceable modules.

"output" differences what the network returns and needs none of them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from siamcal.errors import MergePointError
from siamcal.graph.dataflow import Dataflow
from siamcal.graph.features import BatchLayout, Features, PassedValue
from siamcal.graph.inputs import (
    Inputs,
    InputSignature,
    OutputSelector,
    place_of,
    run_network,
)
from siamcal.graph.state import fingerprint
from siamcal.graph.tracing import Trace, compile_parts, trace

__all__ = ["FxSplit", "IllegalPointError", "OutputSplit", "Split", "called", "uncalled"]

# Cuts that are kept for attributes and modes that come back.
_KEPT = 16

Merge: TypeAlias = Callable[[tuple[Tensor, ...]], Sequence[Tensor]]


class IllegalPointError(MergePointError):
    """The place itself is no merge point, by whatever mechanism."""


class Split:
    """A network cut at a merge point.

    Attributes:
        network: The network, unmodified.
        merge_at: The merge point.
        mechanism: "hook", "shallow fx", "full fx" or "output".
        reason: Why this mechanism, in words.
        differenced: Whether each crossing value is differenced.
        layouts: Where the samples lie in each differenced tensor; None where there is no batch.
        shapes: Shape of each differenced tensor for one sample, its batch dimension included.
        passed: How each other value changes with the batch size.
        channels: Which dimension of each differenced tensor holds the channels, None where it can't
            be told; None for all until `siamcal.model.channels` has looked.
        pre_modules: Paths of the modules that run only before the merge point.
        drawing: Paths of the modules that draw random numbers before the merge point in training.
        loud: Those among them that draw in evaluation mode too.
        per_sample: For each leaf of the inputs: whether it holds a row for each sample.
    """

    mechanism = ""

    def __init__(self, network: nn.Module, merge_at: str, selector: OutputSelector) -> None:
        self.network = network
        self.reason = ""
        self.merge_at = merge_at
        self.selector = selector
        self.differenced: tuple[bool, ...] = ()
        self.layouts: tuple[BatchLayout | None, ...] = ()
        self.shapes: tuple[torch.Size, ...] = ()
        self.passed: tuple[PassedValue, ...] = ()
        self.channels: tuple[int | None, ...] | None = None
        self.pre_modules: tuple[str, ...] = ()
        self.per_sample: tuple[bool, ...] = ()
        self.drawing: tuple[str, ...] = ()
        self.loud: tuple[str, ...] = ()

    @property
    def points(self) -> tuple[Split, ...]:
        """The cuts, one for each merge point, each of the plain network."""
        return (self,)

    @property
    def spans(self) -> tuple[slice, ...]:
        """Which of `shapes` and `layouts` are those of each of `points`."""
        ends = list(accumulate(len(point.shapes) for point in self.points))
        return tuple(slice(start, end) for start, end in pairwise([0, *ends]))

    def on(self, network: nn.Module) -> Split:
        """The same cut of another network of the same make, such as a replica."""
        other = copy.copy(self)
        other.network = network
        return other

    def crossing(self, inputs: Inputs) -> tuple[list[Any], Any]:
        """All crossing values as flat leaves, and what `resume` needs to go on with them."""
        raise NotImplementedError

    def resume(self, leaves: list[Any], state: Any) -> Any:
        """The network's output from the crossing values."""
        raise NotImplementedError

    def may_depend(self, leaves: list[Any], state: Any) -> list[bool]:
        """What the graph tells: whether each crossing leaf can depend on the image."""
        return [True] * len(leaves)

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

    def run(self, inputs: Inputs, *merges: Merge) -> Any:
        """Output for an input whose features are replaced on the way by `merge(features)`.

        Args:
            inputs: The network's.
            *merges: One for each of `points`.
        """
        (merge,) = merges
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

    The code is that of the network as it is: whenever an attribute, a hook or a part of what was
    traced through is exchanged, the cut is made anew, and `recheck` has to pass.

    Args:
        network: The network.
        merge_at: Path of the merge module.
        signature: Structure of the network's inputs.
        selector: Part of the output that is meant.
        shallow: Trace only through the modules that hold the merge module.
        proxy_buffers: Record reads of buffers.

    Attributes:
        ignored: (path, name) of attributes whose changes don't matter: caches that a forward fills.
        recheck: Proves a cut that was made anew; None before the first proof.
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
        self.ignored: frozenset[tuple[str, str]] = frozenset()
        self.recheck: Callable[[FxSplit], None] | None = None
        self._shallow = shallow
        self._proxy_buffers = proxy_buffers
        self._halves: dict[Any, _Halves] = {}
        self._proved: set[Any] = set()
        self._fixed: _Halves | None = None
        self._proving = False
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
        """Whether the graph leads from an image to each leaf."""
        return self._of_leaves(self._halves_now().depends_on_image, leaves, state)

    def enters(self, leaves: list[Any], state: Any) -> list[bool]:
        """Whether each leaf goes into the merge module itself; the others pass it by."""
        return self._of_leaves(self._halves_now().enters, leaves, state)

    @staticmethod
    def _of_leaves(told: Sequence[bool], leaves: list[Any], state: Any) -> list[bool]:
        """What is told of each crossing value, for each of its leaves."""
        values = pytree.tree_unflatten(leaves, state)
        pairs = zip(values, told, strict=True)
        return [fact for value, fact in pairs for _ in pytree.tree_leaves(value)]

    def on(self, network: nn.Module) -> Split:
        """The same cut, and the same code, for a replica."""
        other = copy.copy(self)
        other._fixed = self._halves_now()
        other.network = network
        return other

    def prepare(self) -> None:
        """Trace and compile for the network's present training mode, if that isn't done yet."""
        self._halves_now()

    @property
    def sharing(self) -> frozenset[str]:
        """Paths of modules that were taken as one step and whose input is read elsewhere too."""
        return self._halves_now().sharing

    @property
    def source(self) -> tuple[str, str]:
        """Generated code of both halves for the present training mode."""
        halves = self._halves_now()
        return halves.pre.source, halves.post.source

    @property
    def through(self) -> tuple[str, ...]:
        """Paths of the modules whose forward was traced, "" for the network itself."""
        return self._through

    def proved(self) -> None:
        """Take the network as it is for proved."""
        self._proved.add(self._key()[0])

    def _halves_now(self) -> _Halves:
        if self._fixed is not None:
            return self._fixed
        key = self._key()
        if key not in self._halves:
            halves = self._cut()
            key = self._key()
            self._halves[key] = halves
            while len(self._halves) > _KEPT:
                del self._halves[next(iter(self._halves))]
            if self.recheck is not None and not self._proving and key[0] not in self._proved:
                self._prove_again(key)
        return self._halves[key]

    def _prove_again(self, key: Any) -> None:
        self._proving = True
        try:
            self.recheck(self)  # type: ignore[misc]
            self._proved.add(key[0])
        except MergePointError as error:
            self._halves.pop(key, None)
            raise MergePointError(
                f"{type(self.network).__name__} was changed after it had been cut at "
                f"{self.merge_at!r}, and now {error}. Wrap it again, at a point that "
                "list_merge_points names."
            ) from error
        finally:
            self._proving = False

    def _key(self) -> Any:
        modules = [(path, self.network.get_submodule(path)) for path in self._through]
        modes = tuple([module.training for _, module in modules])
        place = place_of(self.network) if self._has_constants else ()
        return fingerprint(modules, self.ignored), modes, place

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
        return _Halves(self.network, traced, self.merge_at, self.signature.images)

    def __getstate__(self) -> dict[str, Any]:
        # Compiled code is neither copied nor pickled; a copy traces its own network again.
        return {**self.__dict__, "_halves": {}, "_proved": set(), "recheck": None}


class _Halves:
    """Both programs of a cut in one training mode."""

    def __init__(
        self, network: nn.Module, traced: Trace, merge_at: str, images: Sequence[bool]
    ) -> None:
        calls = traced.calls.get(merge_at, [])
        if not calls:
            # It may lie inside a module that the trace takes as one step; a real forward knows.
            raise MergePointError(f"'{merge_at}' isn't seen by the trace")
        if len(calls) > 1:
            raise IllegalPointError(f"'{merge_at}' {called(len(calls))}")
        flow = Dataflow(traced.graph, network, images)
        if not any(n in flow.depends_on_image for n in calls[0].inputs):
            raise IllegalPointError(unrelated(merge_at, images))
        cut = flow.cut(calls[0].inputs, calls[0].index)
        self.pre, self.post = compile_parts(traced, cut)
        self.sharing = flow.sharing()
        self.depends_on_image = tuple(n in flow.depends_on_image for n in cut.crossing)
        self.enters = tuple(n in calls[0].inputs for n in cut.crossing)
        owners = {
            p: [n in cut.pre for n in traced.graph.nodes if traced.owner.get(n) == p]
            for p in set(traced.owner.values())
        }
        self.pre_modules = tuple(sorted(p for p, inside in owners.items() if p and all(inside)))


def unrelated(merge_at: str, images: Sequence[bool] = ()) -> str:
    """Why a module that nothing of the image enters is no merge point."""
    text = f"no tensor that depends on the image is seen to enter '{merge_at}' (tuples, lists and "
    text += "dicts are looked into, other objects aren't)"
    return text if len(images) < 2 else f"{text}; image_inputs= says which of the inputs are images"


def called(times: int) -> str:
    """Why a module that is called so often in one forward is no merge point."""
    if times == 0:
        return "isn't called when the network runs"
    return f"is called {times} times in one forward, so the place is ambiguous"


def uncalled(network: nn.Module, merge_at: str) -> str:
    """Why a module that isn't called is no merge point, and which of its parts may be one."""
    path, module = merge_at, network.get_submodule(merge_at)
    if any(_is_compiled(m) for m in network.modules()):
        return (
            f"'{merge_at}' {called(0)}: torch.compile hides it. Wrap the plain network and compile "
            "the calibrated one"
        )
    while type(module).forward is nn.Module.forward and len(module._modules):
        name, module = next(iter(module.named_children()))
        path = f"{path}.{name}"
    hint = "" if path == merge_at else f", it only holds others: try its first part, {path!r}"
    return f"'{merge_at}' {called(0)}{hint}"


def _is_compiled(module: nn.Module) -> bool:
    compiled = getattr(module, "_compiled_call_impl", None) is not None
    return compiled or "_orig_mod" in module._modules
