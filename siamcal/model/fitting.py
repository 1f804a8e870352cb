"""`fit_anchor`: what a merge form needs to know of neutral faces, from frames of anybody."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from siamcal.errors import ConfigError
from siamcal.graph.inputs import Inputs, described
from siamcal.graph.state import in_mode
from siamcal.model.forms import can_fit, fit_forms, unfitted
from siamcal.model.null import NullReference

__all__ = ["FittingMixin"]


class FittingMixin:
    """`fit_anchor` and `fitted` of the wrapped network."""

    merge_form: Any
    null_reference: NullReference | None

    @property
    def fitted(self) -> bool:
        """Whether merge form and null reference know what they need; True where it is nothing."""
        null = self.null_reference
        return not unfitted(self.merge_form) and (null is None or null.fitted)

    def fit_anchor(
        self,
        neutral_images: Inputs | Iterable[Inputs],
        people: Sequence[Hashable] | np.ndarray | Tensor | None = None,
        *,
        batch_size: int = 32,
    ) -> Self:
        """Fit what merge form and null reference need to neutral frames of anybody, in eval mode.

        Nothing of the network is changed and no gradient is computed; the features of all frames
        are held on the CPU. Take people that aren't evaluated on. Fit again when the network
        before the merge point has changed; a trained anchor or null starts anew by that.

        Args:
            neutral_images: N images as the network takes them (B, C, H, W), or a DataLoader,
                generator or other iterable of batches of them.
            people: N names or numbers, equal for frames of one person. With several frames of some
                people a shrinkage can be estimated; None: everyone differs.
            batch_size: Images that go through the network at once.

        Returns:
            The model itself.

        Raises:
            ConfigError: The form fits nothing, there are no images, `people` doesn't fit them, or
                what the form refuses (too few people).
        """
        model: Any = self
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"batch_size takes a whole number from 1 on, but got {batch_size!r}.")
        found: list[tuple[Tensor, ...]] = []
        count = 0
        with in_mode(model, False), torch.no_grad():
            for batch in _batches(model, neutral_images, batch_size):
                encoded = model.encode(batch)
                count += len(encoded)
                found.append(tuple(t.detach().cpu() for t in encoded.tensors))
        if not count:
            raise ConfigError("There are no neutral images to fit to; pass one at least.")
        numbers = None if people is None else _numbers(people, count)
        layouts = model.split.layouts
        if any(layout is None for layout in layouts) and len(found) > 1:
            raise ConfigError(
                f"At {model.place!r} the samples of a batch can't be told apart, so batches "
                f"can't be joined; pass batch_size={count}."
            )
        columns = list(zip(*found, strict=True))
        features = [
            column[0] if layout is None else layout.cat(column)
            for layout, column in zip(layouts, columns, strict=True)
        ]
        if not all(bool(torch.isfinite(t).all()) for t in features):
            raise ConfigError(
                "The network gives features of the neutral images that aren't finite numbers; "
                "look at the images and their normalisation."
            )
        if self.null_reference is None or can_fit(model.merge_form):
            fit_forms(model.merge_form, features, numbers)
        if self.null_reference is not None:
            self.null_reference.fit(features, numbers)
        return self


def _batches(model: Any, images: Any, size: int) -> Iterator[Inputs]:
    one = isinstance(images, Tensor | Mapping | tuple | list | str | bytes | np.ndarray)
    if isinstance(images, list) and images and all(isinstance(v, Mapping) for v in images):
        one = False
    for batch in [images] if one or not isinstance(images, Iterable) else images:
        yield from _parts(model, model.checked(batch), size)


def _parts(model: Any, inputs: Inputs, size: int) -> Iterator[Inputs]:
    count = model.count(inputs)
    leaves, spec = pytree.tree_flatten(inputs)
    rows = model.split.per_sample
    if len(leaves) != len(rows):
        raise ConfigError(
            f"A batch of the neutral images is {described(inputs)}, but the network takes "
            f"{len(rows)} input(s); give images only, such as (x for x, label in loader)."
        )
    for start in range(0, count, size):
        part = [
            leaf[start : start + size] if own else leaf
            for leaf, own in zip(leaves, rows, strict=True)
        ]
        yield pytree.tree_unflatten(part, spec)


def _numbers(people: Any, count: int) -> list[int]:
    """Names of people -> 0, 1, ... in the order of their first frames."""
    if isinstance(people, str | bytes) or not hasattr(people, "__len__"):
        raise ConfigError(
            f"people takes one name or number for each of the {count} neutral images, but got a "
            f"{type(people).__name__}."
        )
    names = people.tolist() if isinstance(people, Tensor | np.ndarray) else list(people)
    if len(names) != count:
        raise ConfigError(
            f"people names {len(names)} persons for {count} neutral images; give one for each."
        )
    known: dict[Any, int] = {}
    for name in names:
        # Not equal to itself: NaN, as pandas writes a missing name.
        if not isinstance(name, Hashable) or name is None or name != name:
            raise ConfigError(f"people holds {name!r}, which names nobody.")
        known.setdefault(name, len(known))
    return [known[name] for name in names]
