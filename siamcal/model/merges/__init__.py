"""Forms of the merge, found by name: what is made of target and reference at the merge point.

A form is one registered function or class in one file of this folder:

- a function `(target, reference) -> merged` of two feature tensors of equal shape, or
- a subclass of nn.Module, for forms with parameters. `Form(shape, **options)` is made once for each
  tensor that is merged; `shape` is that of one sample, its batch dimension included, (1, C, H, W)
  for example. It is called as `form(target, reference)` on whole batches.

Further parameters of a function or of a class's constructor are options (`merge_options`). What a
form asks for by these names, it is given:

- `layout` (constructor): the BatchLayout of the tensor, where its samples lie.
- `channel_dim` (constructor, also an option): the dimension of the channels, None if unknown.
- `frames` (forward): (B,) number of frames that each reference was pooled of; only given where
  some were, so its default is None.

A form that needs neutral frames of anybody has a method `fit(features, people)` and a property
`fitted` (`siamcal.model.forms.FittedMerge`); `model.fit_anchor(images)` and every training call it.
A classmethod `check_options(**options)` refuses wrong values before a network is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from siamcal.errors import ConfigError
from siamcal.model.merges.differences import reference_minus_target, target_minus_reference
from siamcal.model.places import MergeAt, joined
from siamcal.registry import merges

if TYPE_CHECKING:  # settings are checked by name, and read without torch
    from torch import Tensor, nn

__all__ = [
    "CUSTOM",
    "PAPER",
    "MergeForm",
    "form_name",
    "paper",
    "reference_minus_target",
    "target_minus_reference",
]

MergeForm: TypeAlias = "Callable[[Tensor, Tensor], Tensor] | type[nn.Module]"

PAPER = "paper"
CUSTOM = "custom"


@merges.register(PAPER)
def paper(merge_at: MergeAt) -> str:
    """The authors' sign: reference - target, but target - reference at "output".

    Not a form itself but the name of one, by merge point: behind the network the sign is the
    result's (arXiv:2409.00240 and its code).

    Raises:
        ConfigError: Several merge points. The paper has one; behind a difference, a further one
            would be between features of a difference and features of a face.
    """
    if not isinstance(merge_at, str):
        raise ConfigError(
            f"merge='paper' is the difference at one merge point, but merge_at names "
            f"{len(merge_at)} ({joined(merge_at)}). Name a form that hands on features of the kind "
            "that the network knows: 'anchored', 'gated' or 'concatenated' (`siamcal ls merges` "
            "lists all)."
        )
    return "target_minus_reference" if merge_at == "output" else "reference_minus_target"


def form_name(merge: str | MergeForm, merge_at: MergeAt) -> str:
    """The registered name of a form at a merge point; "custom" for one that has no name.

    Raises:
        UnknownNameError: Nothing has that name; the message shows the near matches.
        ConfigError: See `paper`.
    """
    if callable(merge):
        return next((name for name in merges.names() if merges.get(name) is merge), CUSTOM)
    merges.get(merge)
    return paper(merge_at) if merge == PAPER else merge
