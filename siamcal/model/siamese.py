"""One-frame calibration: a network that reads action units relative to a person's neutral frame.

A network is cut at a merge point. Target and reference frame go through the first part with
shared weights, their features are subtracted, and the rest of the network reads the difference
(arXiv:2409.00240, Figure 2). Of several merge points each merges anew.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from siamcal.errors import ConfigError
from siamcal.graph import Features, split_network
from siamcal.graph.chain import chain_splits
from siamcal.graph.inputs import (
    ImageInputs,
    Inputs,
    OutputSelector,
    place_of,
)
from siamcal.graph.randomness import RandomState
from siamcal.graph.record import CutRecord
from siamcal.graph.split import FxSplit, Split
from siamcal.model.arguments import Arguments
from siamcal.model.create import full_name
from siamcal.model.fitting import FittingMixin
from siamcal.model.forms import call_forms, counts_frames, made_form
from siamcal.model.interop import InteropMixin
from siamcal.model.merge_options import check_merge_options
from siamcal.model.merges import PAPER, MergeForm, form_name
from siamcal.model.null import NullReference
from siamcal.model.origin import Origin, Provenance
from siamcal.model.places import joined, merge_points
from siamcal.model.pretrained import PretrainedMixin
from siamcal.model.reference import Index, Reference
from siamcal.model.trusting import TrustingMixin
from siamcal.registry import merges

__all__ = ["CalibratingSiamese", "Reference"]

BRANCHES = ("separate", "concatenate")


class CalibratingSiamese(PretrainedMixin, InteropMixin, FittingMixin, TrustingMixin, nn.Module):
    """A network wrapped for one-frame calibration.

    The network itself isn't modified: its parameters, their names and its object stay the same
    (`unwrap()` returns it), and whatever is done to it (device, precision, freezing) counts here.

    Args:
        backbone: Any network on images.
        merge_at: Path of the module at whose entrance the branches merge ("layer4"), or "output".
            `list_merge_points(backbone)` lists the places. Or several of those, in the order in
            which the network reaches them (`siamcal.graph.chain`): with the parts P0, ..., Pn
            between them, and r_k, the plain network's features of the reference at point k,
            x_1 = P0(target); y_k = merge_k(x_k, r_k); x_(k+1) = Pk(y_k); the output is Pn(y_n).
        merge: Name of the form (`siamcal ls merges`). "paper" is the authors': reference - target
            at every place inside the network, and target - reference at "output" (there the sign
            is the result's); every other name means the same everywhere. Several points need one
            of these others; each has its own parameters. Or a form of your own: a
            function or module `(target, reference) -> merged` of two feature tensors of equal
            shape, or a class of modules (`siamcal.model.merges`).
        merge_options: The form's options, such as {"shrinkage": 0.5}.
        head: Module on the merged network's output, for example
            `siamcal.model.heads.IntensityHead(12)`; None returns the raw output.
        example_inputs: A valid input of the backbone: a tensor (B, C, H, W), a tuple of arguments
            or a dict of keyword arguments. None: a random image of the size it was made for.
        output: Part of the backbone's output that is meant, where it returns several: a key, an
            index or a function.
        image_inputs: Which of several inputs are images: names of keywords or positions; None is
            the first tensor. Only what depends on them is differenced; all else (masks, adjacency,
            prompts) is the target's.
        verify: Prove at construction that the cut is exact; or the `siamcal.graph.record.CutRecord`
            of a proof of the same network, which is believed.
        mechanism: "auto" lets the network run as it is where that is possible and cuts it by
            torch.fx elsewhere; "hook" and "fx" insist on one of these ("fx" for torch.compile).
            Several merge points are cut by hooks.
        branches: "separate" runs the branches one after the other (the paper: BatchNorm sees
            targets and references as two batches); "concatenate" runs them as one batch, without
            dropout and stochastic depth before the merge; not with several merge points.
        freeze_pre_batchnorm: Keep BatchNorm before the (last) merge point at its running statistics
            in training.
        null_reference: Have a null reference, with which `model(target, None)` reads a person who
            has no neutral frame, and by which references are judged (`trust`, `same_person`). It
            starts at the mean of neutral frames of anybody (`fit_anchor`) and is trained by
            leaving references out (`dropped`, `Recipe.reference_dropout`).

    Attributes:
        merge_at: The merge point, or a tuple of several.
        split: How the backbone was cut (`split.mechanism`).
        merge: Name of the form that is computed ("paper" resolved), "custom" for one of your own.
        merge_options: The options it was given.
        merge_form: The form: a function, a module, or a ModuleList with one for each tensor, those
            of several merge points one after another.
        null_reference: `siamcal.model.null.NullReference`, or None.
        origin: What a Reference of this model is held against.
        config: Description with which a saved calibrator is restored; None until one is given.

    Raises:
        MergePointError: The place is no legal merge point, or several are out of order.
        UnknownNameError: No merge form has that name.
        ConfigError: Unknown branches, an option that the form doesn't take, or what isn't for
            several merge points.
    """

    def __init__(
        self,
        backbone: nn.Module,
        merge_at: str | Sequence[str] = "layer4",
        *,
        merge: str | MergeForm = PAPER,
        merge_options: Mapping[str, Any] | None = None,
        head: nn.Module | None = None,
        example_inputs: Inputs | None = None,
        output: OutputSelector = None,
        image_inputs: ImageInputs = None,
        verify: bool | CutRecord = True,
        mechanism: str = "auto",
        branches: str = "separate",
        freeze_pre_batchnorm: bool = False,
        null_reference: bool = False,
    ) -> None:
        super().__init__()
        _check_network(backbone)
        self.merge_at = merge_points(merge_at)
        self.merge = form_name(merge, self.merge_at)
        self.merge_options = check_merge_options(merge, merge_options)
        if branches not in BRANCHES:
            raise ConfigError(f"branches takes 'separate' or 'concatenate', but got {branches!r}.")
        if branches == "concatenate" and not isinstance(self.merge_at, str):
            raise ConfigError(
                f"branches='concatenate' is for one merge point, but merge_at names "
                f"{len(self.merge_at)} ({self.place}); use branches='separate'."
            )
        self.branches = branches
        self.freeze_pre_batchnorm = freeze_pre_batchnorm
        self.config: Any = None
        if branches == "concatenate" and mechanism == "auto" and merge_at != "output":
            mechanism = "fx"
        self._cutting: dict[str, Any] = {
            "example_inputs": example_inputs,
            "output": output,
            "image_inputs": image_inputs,
            "verify": bool(verify),  # a record says nothing of another backbone
            "mechanism": mechanism,
        }
        if isinstance(verify, CutRecord):
            self._adopt(verify.cut(backbone, self.place, output))
        else:
            self._adopt(self._cut(backbone))
        self._arguments = Arguments(backbone, example_inputs, image_inputs)
        # Registered in this order: the last layer of all is the one that makes the outputs.
        form = merge if callable(merge) else merges.get(self.merge)
        self.merge_form = made_form(form, self.split, self.merge_options, self.origin.inputs)
        self._with_frames = counts_frames(self.merge_form)
        self.null_reference = (
            NullReference(self.split, self.origin.inputs) if null_reference else None
        )
        self.backbone = backbone
        self.head = head
        if branches == "concatenate" and self.split.mechanism == "hook":
            raise ConfigError(
                f"branches='concatenate' needs a cut by torch.fx, but {merge_at!r} was cut by a "
                "hook; use branches='separate' or another merge point."
            )
        self._warned = False
        self.train(backbone.training)

    def forward(
        self,
        target: Inputs,
        reference: Inputs | Reference | Sequence[Reference] | None,
        index: Index | None = None,
        *,
        dropped: Tensor | None = None,
        use_trust: bool = False,
    ) -> Any:
        """Calibrated output for target frames.

        Args:
            target: Target images (B, C, H, W), or what else the backbone takes.
            reference: Reference images (R, C, H, W), or a `Reference` encoded before; lists of
                either are joined. Without `index` R is B, one each, or 1 for all targets. None
                reads all with the null reference.
            index: (B,) which of the R references belongs to each target, so that a person's is
                encoded once however many of the targets show them.
            dropped: (B,) bool, targets that are read with the null reference instead of theirs.
            use_trust: Move each reference's features towards the null reference by 1 - its trust.

        Returns:
            The head's output, or the backbone's raw output (B, num_outputs) without a head.

        Raises:
            ConfigError: Something else than images and References, batch sizes that don't fit, a
                Reference of another model, or None for a model without a fitted null reference.
        """
        split = self._split_now()
        target = self._arguments.inputs(target, "target")
        if reference is None and self.null_reference is not None:
            reference = self._null_for(index, dropped, use_trust)
        reference = self._arguments.reference(reference)
        targets = self._arguments.count(target) if dropped is not None else 0
        wanted = partial(self._adjusted, count=targets, dropped=dropped, use_trust=use_trust)
        if isinstance(reference, Reference):
            return self._calibrate(split, target, wanted(reference, index), quiet=True)
        targets, references = map(self._arguments.count, (target, reference))
        if self.branches == "concatenate":
            return self._concatenated(split, target, reference, partial(wanted, index=index))
        if index is not None or targets != references:
            with self._quieted(split):
                encoded = self._encode(split, reference)
            return self._calibrate(split, target, wanted(encoded, index), quiet=True)
        # Dropout draws the same for both branches: two draws would drown the difference.
        draws = split.loud or self._drawing()
        state = RandomState(place_of(self.backbone)[0]) if draws else None
        encoded = self._encode(split, reference)
        if state is not None:
            state.restore()
        return self._calibrate(split, target, wanted(encoded, None), quiet=False)

    def from_features(
        self,
        features: Features,
        reference: Reference | None,
        index: Index | None = None,
        *,
        dropped: Tensor | None = None,
        use_trust: bool = False,
        post: Callable[[tuple[Tensor, ...]], Any] | None = None,
    ) -> Any:
        """Output for features at the merge point: what `forward` does from there on.

        Args:
            features: Of the targets, from `model.split.pre`.
            reference: Encoded by this model; None reads with the null reference.
            index: (B,) which of the references belongs to each target; see `forward`.
            dropped: (B,) bool, targets that are read with the null reference.
            use_trust: Move the references' features by their trust; see `forward`.
            post: Computes the network's output from the merged tensors, where `features` come from
                elsewhere than `model.split.pre` and the split's own second half can't go on.

        Raises:
            ConfigError: See `forward`; or the model merges at several points, so that features at
                the first don't go on without the image.
        """
        if not isinstance(self.merge_at, str):
            raise ConfigError(
                f"from_features goes on from one merge point, but this model merges at "
                f"{len(self.merge_at)} ({self.place}); pass the images: model(targets, reference)."
            )
        if reference is None:
            reference = self._null_for(index, dropped, use_trust)
        self.check_reference(reference)
        count = 0 if dropped is None else len(dropped)
        reference = self._adjusted(reference, index, count, dropped, use_trust)
        merged = self._merge(reference, self.split.spans[0], features.tensors)
        if post is not None:
            return self._finish(post(tuple(merged)))
        return self._finish(self.split.post(features.with_tensors(merged)))

    def encode(self, image: Inputs) -> Reference:
        """Pre-merge features of reference images, to be used any number of times.

        Dropout and stochastic depth before the merge are switched off: drawn apart from the
        target's, they would drown the difference.

        Several frames of a person, as a list, make one reference: the mean of two, of more the mean
        without the highest and lowest fifth of each value (`siamcal.model.pooling`).

        Args:
            image: Reference images (B, C, H, W), or what else the backbone takes; or a list of
                such, the first, second, ... frame of each of B people, or of images (C, H, W) of
                one person.
        """
        frames = self._arguments.frames(image)
        if frames is not None:
            return Reference.pooled([self.encode(frame) for frame in frames])
        split = self._split_now()
        if not torch.compiler.is_compiling():
            self._check_gathered()
        with self._quieted(split):
            encoded = self._encode(split, self._arguments.inputs(image, "reference"))
        return self._signed(encoded)

    def encode_features(self, features: Features) -> Reference:
        """`encode` of images whose features, from `model.split.pre` or its equal, are known.

        Raises:
            ConfigError: The model merges at several points: features at the first aren't all.
        """
        if not isinstance(self.merge_at, str):
            raise ConfigError(
                f"encode_features takes features of one merge point, but this model merges at "
                f"{len(self.merge_at)} ({self.place}); encode the images: model.encode(images)."
            )
        return self._signed(Reference(features.tensors, self.split.layouts, self.place))

    def load_reference(self, path: str | Path) -> Reference:
        """A Reference that was saved, on this model's device.

        Raises:
            ConfigError: The file is missing or damaged, or another model made it.
        """
        return Reference.load(path, place_of(self.backbone)[0], model=self)

    def check_reference(self, reference: Reference) -> None:
        """Refuse a Reference that was encoded at another place or by another network.

        Raises:
            ConfigError: With the reason.
        """
        if reference.merge_at != self.place or len(reference.tensors) != len(self.split.layouts):
            raise ConfigError(
                f"The Reference was encoded at {reference.merge_at!r} "
                f"({len(reference.tensors)} tensors), but this model merges at {self.place!r} "
                f"({len(self.split.layouts)}); encode it with this model."
            )
        made_by = reference.made_by
        if made_by is not None and not (made_by.origin and torch.compiler.is_compiling()):
            made_by.check(self.origin)

    def checked(self, inputs: Any) -> Inputs:
        """A batch of inputs, held against what the network takes; a list of images is joined.

        Raises:
            ConfigError: They don't fit the network.
        """
        return self._arguments.inputs(inputs, "batch of images")

    def count(self, inputs: Inputs) -> int:
        """Number of samples in a batch of inputs."""
        return self._arguments.count(inputs)

    @property
    def place(self) -> str:
        """The merge point, of several all with commas: what a Reference of this model states."""
        return joined(self.merge_at)

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
        """Merge point, form of the merge, mechanism and branches."""
        return (
            f"merge_at={self.merge_at!r}, merge={self.merge!r}, "
            f"mechanism={self.split.mechanism!r}, branches={self.branches!r}"
        )

    def _split_now(self) -> Split:
        """The cut of the backbone as it is now; another one is cut, and proved, anew."""
        if self.backbone is self.split.network:
            if not torch.compiler.is_compiling():
                self._check_sharding(getattr(self.split, "through", ()))
            return self.split
        if getattr(self, "_is_replica", False):  # of nn.DataParallel, for this forward only
            return self.split.on(self.backbone)
        self._adopt(self._cut(self.backbone))
        return self.split

    def _cut(self, backbone: nn.Module) -> Split:
        if isinstance(self.merge_at, str):
            return split_network(backbone, self.merge_at, **self._cutting)
        return chain_splits(backbone, self.merge_at, **self._cutting)

    def _adopt(self, split: Split) -> None:
        self.split = split
        self.origin = Origin(split, self._cutting["example_inputs"])
        self._quiet = tuple(dict.fromkeys((*split.drawing, *_dropouts(split))))

    def _encode(self, split: Split, image: Inputs) -> Reference:
        features = split.pre(image)
        return Reference(features.tensors, split.layouts, self.place)

    def _signed(self, encoded: Reference) -> Reference:
        if not torch.compiler.is_compiling():
            encoded.made_by = Provenance(weakref.ref(self.origin), self.origin.versions())
        return encoded

    def _calibrate(self, split: Split, target: Inputs, reference: Reference, quiet: bool) -> Any:
        self.check_reference(reference)
        with self._quieted(split, quiet) as end:

            def last(targets: tuple[Tensor, ...]) -> Sequence[Tensor]:
                end()
                return self._merge(reference, split.spans[-1], targets)

            earlier = [partial(self._merge, reference, span) for span in split.spans[:-1]]
            output = split.run(target, *earlier, last)
        return self._finish(output)

    def _merge(
        self, reference: Reference, span: slice, targets: tuple[Tensor, ...]
    ) -> Sequence[Tensor]:
        return call_forms(self.merge_form, targets, reference, span, with_frames=self._with_frames)

    def _finish(self, output: Any) -> Any:
        return output if self.head is None else self.head(output)

    def _concatenated(
        self,
        split: Split,
        target: Inputs,
        reference: Inputs,
        adjusted: Callable[[Reference], Reference],
    ) -> Any:
        """Both branches as one batch: targets first, then references."""
        sizes = self._arguments.count(target), self._arguments.count(reference)
        with self._quieted(split):
            features = split.pre(self._arguments.joined(target, reference, split.per_sample))
        ours, theirs = split.parts(features, *sizes)
        encoded = Reference(theirs.tensors, split.layouts, self.place)
        merged = self._merge(adjusted(encoded), split.spans[0], ours.tensors)
        return self._finish(split.post(ours.with_tensors(merged)))

    def _pre_batchnorms(self) -> Iterator[nn.Module]:
        for name in _before(self.split):
            for module in self.backbone.get_submodule(name).modules():
                if isinstance(module, nn.modules.batchnorm._NormBase):
                    yield module

    def _drawing(self) -> tuple[str, ...]:
        """What draws before the merge point now: single modules may train while others don't."""
        return tuple(p for p in self._quiet if self.backbone.get_submodule(p).training)

    @contextmanager
    def _quieted(self, split: Split, wanted: bool = True) -> Iterator[Callable[[], None]]:
        """What draws random numbers before the merge point doesn't, until the yielded call.

        A module's draws depend on its own training mode, so only that is switched off, and on again
        at the merge point: behind it the same module may draw as it likes.
        """
        paths = self._drawing() if wanted else ()
        if isinstance(split, FxSplit):
            # Code traced in one mode can't go on in another.
            kept = [p for p in paths if p in split.through]
            paths = tuple(p for p in paths if p not in split.through)
        else:
            kept = list(split.loud) if wanted else []
        if kept and not self._warned:
            self._warned = True
            warnings.warn(
                f"{', '.join(repr(p or type(self.backbone).__name__) for p in kept[:3])} draws "
                f"random numbers before {self.place!r} that can't be switched off, so a "
                "reference encoded apart from its target differs from it by chance. Pass images of "
                "equal number (both get the same draws), or use nn.Dropout there.",
                stacklevel=4,
            )
        modules = [self.backbone.get_submodule(p) for p in paths]
        modes = [m.training for m in modules]

        def end() -> None:
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode

        try:
            for module in modules:
                module.training = False
            yield end
        finally:
            end()


def _check_network(backbone: Any) -> None:
    if isinstance(backbone, str):
        raise ConfigError(
            f"CalibratingSiamese takes a network, not its name. Write "
            f"CalibratingSiamese(create_backbone({full_name(backbone)!r}), ...)."
        )
    if not isinstance(backbone, nn.Module):
        raise ConfigError(
            f"CalibratingSiamese takes a network (an nn.Module), but got {_kind(backbone)}."
        )


def _kind(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}; pass an object, {value.__name__}(...)"
    return f"a {type(value).__name__}"


def _before(split: Split) -> tuple[str, ...]:
    """Paths of the modules that run only before the (last) merge point."""
    return ("",) if split.points[-1].mechanism == "output" else split.pre_modules


def _dropouts(split: Split) -> Iterator[str]:
    """Paths of the modules before the merge point that are made for random draws."""
    for path in _before(split):
        for name, module in split.network.get_submodule(path).named_modules(prefix=path):
            kind = type(module).__name__.lower()
            if isinstance(module, nn.RReLU) or "drop" in kind or "stochastic" in kind:
                yield name
