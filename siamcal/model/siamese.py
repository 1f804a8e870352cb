"""One-frame calibration: a network that reads action units relative to a person's neutral frame.

A network is cut at a merge point. Target and reference frame go through the first part with
shared weights, their features are subtracted, and the rest of the network reads the difference
(arXiv:2409.00240, Figure 2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor, nn

from siamcal.errors import ConfigError
from siamcal.graph import split_network
from siamcal.graph.inputs import (
    Inputs,
    OutputSelector,
    batch_size_of,
    concatenate_inputs,
    place_of,
)
from siamcal.graph.randomness import RandomState
from siamcal.graph.split import Split
from siamcal.model.pretrained import PretrainedMixin
from siamcal.model.reference import Reference

__all__ = ["CalibratingSiamese", "Reference"]

MergeFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]

BRANCHES = ("separate", "concatenate")


def reference_minus_target(target: Tensor, reference: Tensor) -> Tensor:
    """The authors' sign at every merge point inside the network."""
    return reference - target


def target_minus_reference(target: Tensor, reference: Tensor) -> Tensor:
    """The authors' sign at the output."""
    return target - reference


_MERGES: dict[str, MergeFunction] = {
    "reference_minus_target": reference_minus_target,
    "target_minus_reference": target_minus_reference,
}


class CalibratingSiamese(PretrainedMixin, nn.Module):
    """A network wrapped for one-frame calibration.

    The network itself isn't modified: its parameters, their names and its object stay the same
    (`unwrap()` returns it), and whatever is done to it (device, precision, freezing) counts here.

    Args:
        backbone: Any network on images.
        merge_at: Path of the module at whose entrance the branches merge ("layer4"), or "output".
            `list_merge_points(backbone)` lists the places.
        merge: "reference_minus_target", the authors' form: reference - target at every place
            inside the network, and target - reference at "output" (there the sign is the
            result's). "target_minus_reference" everywhere, or a function
            `(target, reference) -> merged` of two feature tensors of equal shape.
        head: Module on the merged network's output, for example
            `siamcal.model.heads.IntensityHead(12)`; None returns the raw output.
        example_inputs: A valid input of the backbone: a tensor (B, C, H, W), a tuple of arguments
            or a dict of keyword arguments. None: a random image of the size it was made for.
        output: Part of the backbone's output that is meant, where it returns several: a key, an
            index or a function.
        verify: Prove at construction that the cut is exact.
        branches: "separate" runs the branches one after the other (the paper: BatchNorm sees
            targets and references as two batches); "concatenate" runs them as one batch, without
            dropout and stochastic depth before the merge.
        freeze_pre_batchnorm: Keep BatchNorm before the merge point at its running statistics in
            training.

    Attributes:
        split: How the backbone was cut (`split.mechanism`).
        config: Description with which a saved calibrator is restored; None until one is given.

    Raises:
        MergePointError: The place is no legal merge point.
        ConfigError: An unknown merge or branches.
    """

    def __init__(
        self,
        backbone: nn.Module,
        merge_at: str = "layer4",
        *,
        merge: str | MergeFunction = "reference_minus_target",
        head: nn.Module | None = None,
        example_inputs: Inputs | None = None,
        output: OutputSelector = None,
        verify: bool = True,
        branches: str = "separate",
        freeze_pre_batchnorm: bool = False,
    ) -> None:
        super().__init__()
        self.merge_function = _merge_function(merge, merge_at)
        if branches not in BRANCHES:
            raise ConfigError(f"branches takes 'separate' or 'concatenate', but got {branches!r}.")
        self.backbone = backbone
        self.head = head
        self.merge_at = merge_at
        self.merge = merge
        self.branches = branches
        self.freeze_pre_batchnorm = freeze_pre_batchnorm
        self.config: Any = None
        self.split: Split = split_network(
            backbone, merge_at, example_inputs=example_inputs, output=output, verify=verify
        )
        if branches == "concatenate" and self.split.mechanism == "hook":
            raise ConfigError(
                f"branches='concatenate' needs a cut by torch.fx, but {merge_at!r} was cut by a "
                "hook; use branches='separate' or another merge point."
            )
        self._quiet = _stochastic_modules(self.split)
        self.train(backbone.training)

    def forward(
        self, target: Inputs, reference: Inputs | Reference, index: Tensor | None = None
    ) -> Any:
        """Calibrated output for target frames.

        Args:
            target: Target images (B, C, H, W), or what else the backbone takes.
            reference: Reference images (R, C, H, W), or a `Reference` encoded before. Without
                `index` R is B, one each, or 1 for all targets.
            index: (B,) which of the R references belongs to each target, so that a person's is
                encoded once however many of the targets show them.

        Returns:
            The head's output, or the backbone's raw output (B, num_outputs) without a head.

        Raises:
            ConfigError: Batch sizes that don't fit.
        """
        if isinstance(reference, Reference):
            with self._quieted(self.training):
                return self._calibrate(target, _gathered(reference, index))
        targets, references = batch_size_of(target), batch_size_of(reference)
        if self.branches == "concatenate":
            with self._quieted(self.training):
                return self._finish(self._concatenated(target, reference, index))
        if not (self.training and self._quiet):
            return self._calibrate(target, _gathered(self._encode(reference), index))
        if index is not None or targets != references:
            with self._quieted(True):
                return self._calibrate(target, _gathered(self._encode(reference), index))
        # Dropout draws the same for both branches: two draws would drown the difference.
        state = RandomState(place_of(self.backbone)[0])
        encoded = self._encode(reference)
        state.restore()
        return self._calibrate(target, encoded)

    def encode(self, image: Inputs) -> Reference:
        """Pre-merge features of reference images, to be used any number of times.

        Dropout and stochastic depth before the merge are switched off: drawn apart from the
        target's, they would drown the difference.

        Args:
            image: Reference images (B, C, H, W), or what else the backbone takes.
        """
        with self._quieted(self.training):
            return self._encode(image)

    def unwrap(self) -> nn.Module:
        """The backbone, the same object that was wrapped."""
        return self.backbone

    def train(self, mode: bool = True) -> CalibratingSiamese:
        """Set the training mode; BatchNorm before the merge stays frozen if that was asked for."""
        super().train(mode)
        if mode and self.freeze_pre_batchnorm:
            for module in self._pre_batchnorms():
                module.training = False
        return self

    def extra_repr(self) -> str:
        """Merge point, mechanism and branches."""
        return (
            f"merge_at={self.merge_at!r}, mechanism={self.split.mechanism!r}, "
            f"branches={self.branches!r}"
        )

    def _encode(self, image: Inputs) -> Reference:
        features = self.split.pre(image)
        return Reference(features.tensors, self.split.layouts, self.merge_at)

    def _calibrate(self, target: Inputs, reference: Reference) -> Any:
        self._check(reference)
        return self._finish(self.split.run(target, partial(self._merge, reference)))

    def _merge(self, reference: Reference, targets: tuple[Tensor, ...]) -> Sequence[Tensor]:
        matched = reference.matched(targets)
        return [self.merge_function(t, r) for t, r in zip(targets, matched, strict=True)]

    def _finish(self, output: Any) -> Any:
        return output if self.head is None else self.head(output)

    def _check(self, reference: Reference) -> None:
        if reference.merge_at != self.merge_at or len(reference.tensors) != len(self.split.layouts):
            raise ConfigError(
                f"The Reference was encoded at {reference.merge_at!r} "
                f"({len(reference.tensors)} tensors), but this model merges at {self.merge_at!r} "
                f"({len(self.split.layouts)}); encode it with this model."
            )

    def _concatenated(self, target: Inputs, reference: Inputs, index: Tensor | None) -> Any:
        """Both branches as one batch: targets first, then references."""
        features = self.split.pre(concatenate_inputs(target, reference))
        ours, theirs = self.split.parts(features, batch_size_of(target), batch_size_of(reference))
        encoded = Reference(theirs.tensors, self.split.layouts, self.merge_at)
        merged = self._merge(_gathered(encoded, index), ours.tensors)
        return self.split.post(ours.with_tensors(merged))

    def _pre_batchnorms(self) -> Iterator[nn.Module]:
        for name in self.split.pre_modules:
            for module in self.backbone.get_submodule(name).modules():
                if isinstance(module, nn.modules.batchnorm._NormBase):
                    yield module

    @contextmanager
    def _quieted(self, active: bool) -> Iterator[None]:
        """Dropout and stochastic depth before the merge point switched off."""
        modules = [self.backbone.get_submodule(n) for n in self._quiet] if active else []
        modes = [m.training for m in modules]
        try:
            for module in modules:
                module.training = False
            yield
        finally:
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode


def _merge_function(merge: str | MergeFunction, merge_at: str) -> MergeFunction:
    if callable(merge):
        return merge
    if merge not in _MERGES:
        raise ConfigError(
            f"merge takes {', '.join(repr(m) for m in _MERGES)} or a function of two tensors, "
            f"but got {merge!r}."
        )
    # Behind the network the authors' code (github.com/ShuangquanFeng/CSN) subtracts the other way
    # round.
    return target_minus_reference if merge_at == "output" else _MERGES[merge]


def _gathered(reference: Reference, index: Tensor | None) -> Reference:
    return reference if index is None else reference[index]


def _stochastic_modules(split: Split) -> tuple[str, ...]:
    """Paths of the modules before the merge point that draw random numbers in training."""
    found: dict[str, None] = {}
    for path in split.pre_modules:
        for name, module in split.network.get_submodule(path).named_modules(prefix=path):
            if _is_stochastic(module):
                found[name] = None
    return tuple(found)


def _is_stochastic(module: nn.Module) -> bool:
    kind = type(module).__name__.lower()
    if isinstance(module, nn.RReLU) or "stochastic" in kind:
        return True
    if "drop" not in kind:
        return False
    rates = [getattr(module, name, None) for name in ("p", "drop_prob", "prob", "drop_p")]
    return any(r for r in rates if isinstance(r, int | float)) or all(r is None for r in rates)
