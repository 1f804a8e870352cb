"""The difference put back to where the network expects its features."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from siamcal.errors import ConfigError
from siamcal.model.merges._anchor import AnchorForm
from siamcal.model.merges._channels import number
from siamcal.model.merges._components import noise_ratio, shrinkage, variance_components
from siamcal.registry import merges

__all__ = ["DEFAULT_SHRINKAGE", "Anchored"]

logger = logging.getLogger(__name__)

DEFAULT_SHRINKAGE = 0.75
KINDS = ("estimated", "learned")


@merges.register("anchored")
class Anchored(AnchorForm):
    """Target - shrinkage * (reference - anchor): calibrates a network as it is, also a frozen one.

    The anchor is the mean feature of neutral frames of anybody, so that what goes on is of the kind
    that the network knows: a person like the mean changes nothing. With shrinkage 1 it is target -
    reference + anchor. Shrinkage below 1 takes into account that one frame tells a person's own
    level only roughly (empirical Bayes; Efron, Morris 1973, JASA 68:117).

    Parameters: the anchor (C * P, or C); C more for a learned shrinkage. Cost: three operations a
    value.

    Args:
        shape: Of one sample's features.
        shrinkage: "estimated": per channel between / (between + within / K) from neutral frames of
            people with several each (K frames are behind the reference), .75 where nobody has
            several. "learned": per channel, trained, starting at the estimate, else at .75. Or a
            fixed number 0..1.
        per: Anchor per "position" or per "channel".
        **options: `layout`, `channel_dim`.

    Attributes:
        largest: (1,) shrinkage for endlessly many frames: 1, or .75 where it isn't estimated.
        ratio: (C,) variance of one person's frames over the variance between people.
        logit: (C,) of a learned shrinkage.
    """

    largest: Tensor
    ratio: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        *,
        shrinkage: float | str = "estimated",
        per: str = "position",
        channel_dim: int | None = None,
        layout: Any = None,
    ) -> None:
        super().__init__(shape, per=per, channel_dim=channel_dim, layout=layout)
        if isinstance(shrinkage, str) and shrinkage not in KINDS:
            raise ConfigError(
                f"The merge option shrinkage takes a number from 0 to 1, 'estimated' or 'learned', "
                f"but got {shrinkage!r}."
            )
        self.kind = shrinkage if isinstance(shrinkage, str) else "fixed"
        self.fixed = DEFAULT_SHRINKAGE
        if not isinstance(shrinkage, str):
            self.fixed = number("shrinkage", shrinkage, 0, 1)
        if self.kind == "learned":
            self.logit = nn.Parameter(torch.full((self.channels,), _logit(DEFAULT_SHRINKAGE)))
        if self.kind == "estimated":
            self.register_buffer("largest", torch.full((1,), torch.nan))
            self.register_buffer("ratio", torch.full((self.channels,), torch.nan))

    def shrinkage(self, frames: Tensor | None = None) -> Tensor | float:
        """Shrinkage in 0..1: a number, (C,), or (N, C) where it depends on the frames.

        Args:
            frames: (N,) number of frames behind each reference.
        """
        if self.kind == "estimated":
            return self.largest * shrinkage(self.ratio, frames)
        return torch.sigmoid(self.logit) if self.kind == "learned" else self.fixed

    def no_weight_decay(self) -> set[str]:
        """timm: what was fitted doesn't decay."""
        return {"anchor", "logit"} if self.kind == "learned" else {"anchor"}

    def forward(self, target: Tensor, reference: Tensor, frames: Tensor | None = None) -> Tensor:
        """Merged features, of the target's shape.

        Args:
            target: Features of the targets.
            reference: Of their references.
            frames: (N,) number of frames behind each reference; None is one each.
        """
        targets, references = self.pair(target, reference)
        share = self.shrinkage(frames)
        if isinstance(share, Tensor):
            share = share.unsqueeze(-1)
        return self.features(targets - share * (references - self.anchor), target)

    def _fit(self, rows: Tensor, people: Tensor) -> None:
        super()._fit(rows, people)
        if self.kind == "fixed":
            return
        counts = torch.bincount(people)
        repeated = len(counts) > 1 and int(counts.max()) > 1
        if not repeated:
            logger.info(
                "nobody has several neutral frames, so the shrinkage isn't estimated: %g is taken",
                DEFAULT_SHRINKAGE,
            )
        ratio = torch.zeros(self.channels, dtype=rows.dtype)
        if repeated:
            ratio = noise_ratio(*variance_components(rows, people))
        if self.kind == "estimated":
            self.largest.fill_(1 if repeated else DEFAULT_SHRINKAGE)
            self.ratio.copy_(ratio)
        else:
            start = shrinkage(ratio) if repeated else torch.full_like(ratio, DEFAULT_SHRINKAGE)
            # At the ends of 0..1 it could never be trained away from there.
            self.logit.copy_(torch.logit(start, eps=0.01))


def _logit(share: float) -> float:
    return math.log(share / (1 - share))
