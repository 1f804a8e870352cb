"""The difference in units of how much people differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from siamcal.errors import ConfigError
from siamcal.model.merges._anchor import AnchorForm
from siamcal.model.merges._components import person_means
from siamcal.registry import merges

__all__ = ["Normalised"]

# Of the channel's own deviation: a position at which nobody happens to differ has no unit.
FLOOR = 0.1


@merges.register("normalised")
class Normalised(AnchorForm):
    """Anchor + spread / deviation * (target - reference): where people differ little, more counts.

    Deviation is the standard deviation over people of their neutral features, at each position (not
    below a tenth of its channel's root mean square). Spread is that of a channel over people and
    positions together, and the anchor their mean: what the network behind the merge expects. In
    channels in which people don't differ at all the factor is 1. At (N, C) spread is deviation, and
    it starts as target - reference + anchor.

    Parameters: anchor and factor, C * P (or C) each. Cost: three operations a value.

    Args:
        shape: Of one sample's features.
        per: Anchor and deviation per "position" or per "channel".
        **options: `layout`, `channel_dim`.

    Attributes:
        scale: (C, P) or (C, 1) spread / deviation. NaN until it is fitted.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        per: str = "position",
        channel_dim: int | None = None,
        layout: Any = None,
    ) -> None:
        super().__init__(shape, per=per, channel_dim=channel_dim, layout=layout)
        self.scale = nn.Parameter(torch.full_like(self.anchor, torch.nan))

    def no_weight_decay(self) -> set[str]:
        """timm: what was fitted doesn't decay."""
        return {"anchor", "scale"}

    def forward(self, target: Tensor, reference: Tensor) -> Tensor:
        """Merged features, of the target's shape."""
        targets, references = self.pair(target, reference)
        merged = self.anchor + self.scale * (targets - references)
        return self.features(merged, target)

    def _fit(self, rows: Tensor, people: Tensor) -> None:
        means = person_means(rows, people)[0]  # (G, C, P)
        if len(means) < 2:
            raise ConfigError(
                "merge='normalised' needs neutral frames of two people at least, to see how much "
                "people differ; got one."
            )
        super()._fit(rows, people)
        variance = means.var(0)  # (C, P)
        channel = variance.mean(1, keepdim=True).sqrt()
        deviation = channel
        if self.per == "position":
            deviation = variance.sqrt().maximum(FLOOR * channel)
        spread = means.transpose(0, 1).flatten(1).std(1)[:, None]
        # Below the rounding of features, people don't differ.
        differ = channel > 1e-6 * means.abs().amax((0, 2))[:, None]
        self.scale.copy_(torch.where(differ, spread / deviation, 1.0))
