"""The merge forms of a cut network: made, called, and fitted to neutral frames of anybody.

A form that has to be fitted has a method `fit(features, people)` and a property `fitted`;
one that is told how many frames each reference was pooled of has a parameter `frames` in `forward`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from torch import Tensor, nn

from siamcal.errors import ConfigError
from siamcal.graph.inputs import Inputs, place_of
from siamcal.graph.split import Split
from siamcal.model.channels import channel_dims
from siamcal.model.merge_options import takes
from siamcal.model.reference import Reference

__all__ = [
    "FittedMerge",
    "call_forms",
    "can_fit",
    "counts_frames",
    "fit_forms",
    "made_form",
    "unfitted",
]


class FittedMerge(Protocol):
    """A form that needs neutral frames of anybody before it is used."""

    @property
    def fitted(self) -> bool:
        """Whether it has seen them."""

    def fit(self, features: Tensor, people: Sequence[int] | None) -> Any:
        """Take what it needs.

        Args:
            features: (N, ...) features of N neutral frames on the CPU, as they cross.
            people: N numbers, equal for frames of one person; None: everyone differs.
        """


def made_form(
    form: Any, split: Split, options: Mapping[str, Any], example: Callable[[], Inputs]
) -> Any:
    """The form as it is called: a class becomes one module for each tensor that is merged.

    Args:
        form: A function, a module, or a class of modules.
        split: The cut.
        options: The form's options, checked.
        example: Gives a valid input of the network.

    Raises:
        ConfigError: Options for a module that is made, or what the form itself refuses.
    """
    if not isinstance(form, type):
        if isinstance(form, nn.Module) and options:
            raise ConfigError(
                f"merge_options {sorted(options)} are for a form that is made here, but merge= is "
                f"a {type(form).__name__} already; give them to it, or pass the class."
            )
        if isinstance(form, nn.Module) and len(split.points) > 1:
            raise ConfigError(
                f"Each of the merge points {split.merge_at} has a form with parameters of its own, "
                f"but merge= is one {type(form).__name__} that is made already; pass the class, of "
                "which each gets its own."
            )
        if _can_fit(form) and len(split.shapes) > 1:
            raise ConfigError(
                f"{len(split.shapes)} tensors are merged at {split.merge_at!r}, and one "
                f"{type(form).__name__} can't be fitted to all; pass the class, of which each "
                "gets its own."
            )
        return partial(form, **options) if options else form
    told: list[dict[str, Any]] = [{} for _ in split.shapes]
    if takes(form, "layout"):
        told = [{"layout": _known(split, layout)} for layout in split.layouts]
    if takes(form, "channel_dim") and options.get("channel_dim") is None:
        dims = channel_dims(split, example())
        told = [{**one, "channel_dim": dim} for one, dim in zip(told, dims, strict=True)]
    forms = [
        form(shape, **{**options, **one}) for shape, one in zip(split.shapes, told, strict=True)
    ]
    return nn.ModuleList(forms).to(*place_of(split.network))


def call_forms(
    form: Any, targets: Sequence[Tensor], reference: Reference, span: slice, *, with_frames: bool
) -> list[Tensor]:
    """Merged features, one for each tensor that is merged at a merge point.

    Args:
        form: As `made_form` gave it.
        targets: Features of the targets at the point.
        reference: Of one reference, or of one each, at all points.
        span: Which of its tensors are those of this point.
        with_frames: Whether the form is told how many frames are behind each reference.

    Raises:
        ConfigError: A form isn't fitted, or the reference doesn't fit the targets.
    """
    found = unfitted(form)
    if found:
        raise ConfigError(
            f"The merge form {type(found[0]).__name__} has to be fitted to neutral frames of "
            "anybody before it is used: model.fit_anchor(neutral_images). A saved calibrator "
            "keeps what was fitted."
        )
    forms = _each(form, len(reference.tensors))[span]
    reference = reference.part(span)
    frames = reference.frames_for(targets) if with_frames else None
    told = {} if frames is None else {"frames": frames}
    pairs = zip(forms, targets, reference.matched(targets), strict=True)
    return [one(target, neutral, **told) for one, target, neutral in pairs]


def counts_frames(form: Any) -> bool:
    """Whether the form is told how many frames are behind each reference."""
    one = _each(form, 1)[0]
    return takes(one.forward if isinstance(one, nn.Module) else one, "frames")


def unfitted(form: Any) -> list[Any]:
    """The forms that have to be fitted and aren't."""
    return [one for one in _each(form, 1) if not getattr(one, "fitted", True)]


def fit_forms(form: Any, features: Sequence[Tensor], people: Sequence[int] | None) -> None:
    """Fit every form that can be to its tensor.

    Args:
        form: As `made_form` gave it.
        features: For each tensor that is merged (N, ...).
        people: N numbers, equal for frames of one person.

    Raises:
        ConfigError: The form fits nothing, or what the form refuses.
    """
    if not can_fit(form):
        name = getattr(form, "__name__", type(form).__name__)
        raise ConfigError(
            f"There is nothing to fit: the merge form {name} needs no neutral frames. Those that "
            "do have fit() and fitted, such as merge='anchored'."
        )
    forms = _each(form, len(features))
    for one, tensor in zip(forms, features, strict=True):
        one.fit(tensor, people)


def can_fit(form: Any) -> bool:
    """Whether there is anything to fit in what `made_form` gave."""
    return all(map(_can_fit, _each(form, 1)))


def _each(form: Any, count: int) -> list[Any]:
    return list(form) if isinstance(form, nn.ModuleList) else [form] * count


def _can_fit(form: Any) -> bool:
    return callable(getattr(form, "fit", None)) and hasattr(form, "fitted")


def _known(split: Split, layout: Any) -> Any:
    if layout is None:
        raise ConfigError(
            f"At {split.merge_at!r} the samples of a batch can't be told apart in the features, "
            "which this merge form needs; merge elsewhere, or take a plain difference."
        )
    return layout
