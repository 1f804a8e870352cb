"""Reading without a reference, or with one of unknown worth: `null`, `trust` and `same_person`."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from siamcal.errors import ConfigError
from siamcal.graph.inputs import Inputs
from siamcal.graph.state import in_mode
from siamcal.model.null import NullReference, SamePerson
from siamcal.model.origin import Origin, Provenance
from siamcal.model.reference import Index, Reference

__all__ = ["TrustingMixin"]


class TrustingMixin:
    """What the wrapped network can do where references are missing or bad."""

    null_reference: NullReference | None
    origin: Origin

    def null(self, count: int = 1) -> Reference:
        """The null reference, which stands where a person has no neutral frame.

        `model(targets, None)` reads with it.

        Args:
            count: Number of samples, all alike.

        Raises:
            ConfigError: The model has none, it isn't fitted, or `count` is no number of samples.
        """
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ConfigError(f"count takes a whole number from 1 on, but got {count!r}.")
        null = self._one_null("model.null()")
        if not torch.compiler.is_compiling():
            null.made_by = Provenance(weakref.ref(self.origin), self.origin.versions())
        return null if count == 1 else null.index_select(torch.zeros(count, dtype=torch.long))

    def trust(self, reference: Inputs | Reference) -> Tensor:
        """How far references can be trusted, by the distance from neutral features of anybody.

        1 for what lies no farther from their mean than 95 % of the neutral frames that
        `fit_anchor` saw, each held against the other people; then the inverse of the squared
        distance. It falls for a head turned away, a blurred frame or a strong expression, and also
        for a face unlike all fitted ones; slight expressions it doesn't see (docs/references.md).

        Args:
            reference: R reference images, or a Reference of this model.

        Returns:
            (R,) float32 in 0..1, differentiable where a Reference with gradients is given.

        Raises:
            ConfigError: The model has no null reference, or was fitted to fewer than 10 people.
        """
        return self._need_null("model.trust()").trust(self._seen(reference).tensors)

    def same_person(
        self,
        targets: Inputs | Reference,
        reference: Inputs | Reference,
        index: Index | None = None,
    ) -> SamePerson:
        """Whether targets and references show one person: a check of who was given, no more.

        The score is the cosine between both frames' deviations from the mean neutral features,
        each over its channel's standard deviation. The threshold lies above 95 % of the pairs of
        different people that `fit_anchor` saw. Features aren't made to know people, so this finds
        a mix-up, and proves nobody's identity.

        Args:
            targets: B target images, or their features from `encode`.
            reference: R reference images, or a Reference of this model.
            index: (B,) which of the references belongs to each target; see `forward`.

        Returns:
            `score` (B,) and `same` (B,).

        Raises:
            ConfigError: The model has no null reference, was fitted to fewer than 10 people, or
                the numbers of targets and references don't fit.
        """
        null = self._need_null("model.same_person()")
        ours, theirs = self._seen(targets), self._seen(reference)
        theirs = theirs if index is None else theirs.select(index)
        return null.same_person(ours.tensors, theirs.matched(ours.tensors))

    def _seen(self, given: Inputs | Reference) -> Reference:
        """A Reference of this model; images are encoded in eval mode and without gradients."""
        model: Any = self
        if not isinstance(given, Reference):
            with in_mode(model, False), torch.no_grad():
                return model.encode(given)
        model.check_reference(given)
        return given

    def _need_null(self, wanted: str) -> NullReference:
        if self.null_reference is None:
            raise ConfigError(
                f"{wanted} needs a null reference, but this model has none: wrap the network with "
                "CalibratingSiamese(..., null_reference=True) and fit it to neutral frames of "
                "anybody, model.fit_anchor(neutral_images, people), or train with "
                "Recipe.reference_dropout."
            )
        return self.null_reference

    def _one_null(self, wanted: str) -> Reference:
        null = self._need_null(wanted)
        return Reference(null.tensors, null.layouts, self.place)  # type: ignore[attr-defined]

    def _null_for(self, index: Index | None, dropped: Tensor | None, use_trust: bool) -> Reference:
        """The null in the place of references that aren't given."""
        if index is not None or dropped is not None or use_trust:
            raise ConfigError(
                "The reference is None, so there is nothing that index=, dropped= or use_trust= "
                "could be about; leave them out, or pass references."
            )
        return self._one_null("A reference of None")

    def _adjusted(
        self,
        reference: Reference,
        index: Index | None,
        count: int,
        dropped: Tensor | None,
        use_trust: bool,
    ) -> Reference:
        """The reference of each target as it is to be used.

        Args:
            reference: As it was encoded.
            index: Which belongs to each target.
            count: Number of targets.
            dropped: (B,) bool, targets that are read with the null.
            use_trust: Move the features towards the null by what they aren't trusted.
        """
        if use_trust:
            self.check_reference(reference)  # type: ignore[attr-defined]
            trust = self._need_null("use_trust=True").trust(reference.tensors)
            reference = reference.moved_to(self._one_null("use_trust=True"), 1 - trust)
        if index is not None:
            reference = reference.select(index)
        if dropped is None:
            return reference
        null = self._one_null("dropped=")
        if dropped.dtype != torch.bool or dropped.shape != (count,):
            raise ConfigError(
                f"dropped takes a boolean for each of the {count} targets, but got "
                f"{tuple(dropped.shape)} of {dropped.dtype}."
            )
        given = len(reference)
        if given not in (1, count):
            raise ConfigError(
                f"Got {given} references for {count} targets; give one reference for all of them, "
                "or one each, or say by index= whose is whose."
            )
        places = torch.arange(count, device=reference.device) % given
        places = torch.where(dropped.to(reference.device), given, places)
        return Reference.cat([reference, null]).index_select(places)
