"""A reference looked up by content, so that both frames may differ in pose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from siamcal.errors import ConfigError
from siamcal.model.merges._anchor import AnchorForm
from siamcal.model.merges._channels import number
from siamcal.registry import merges

__all__ = ["Attention"]


@merges.register("attention")
class Attention(AnchorForm):
    """Target - reference as found by attention + anchor: trained, where poses differ.

    Each position of the target attends over all positions of the reference (queries from the
    target, keys from the reference, values the reference's features; Vaswani et al. 2017,
    arXiv:1706.03762). What is subtracted is reference + mix * (attended - reference), with a
    trained mix per channel that starts at 0: it starts as target - reference + anchor.

    Parameters: the anchor (C * P, or C), 2 * C * D for queries and keys, C for the mix. Cost:
    2 * P * C * D + P * P * (C + D) multiply-adds a sample, so better not before the last stages.

    Args:
        shape: Of one sample's features; it needs positions, so not (N, C).
        width: D, 1..1024; at most C.
        per: Anchor per "position" or per "channel".
        **options: `layout`, `channel_dim`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        width: int = 64,
        per: str = "position",
        channel_dim: int | None = None,
        layout: Any = None,
    ) -> None:
        super().__init__(shape, per=per, channel_dim=channel_dim, layout=layout)
        if self.positions == 1:
            raise ConfigError(
                f"merge='attention' needs features with positions, but {tuple(self.shape)} cross "
                "at this merge point: merge before they are pooled, or take 'anchored'."
            )
        width = min(int(number("width", width, 1, 1024)), self.channels)
        # The same start for both: positions find those alike. Its own generator, so that the draws
        # of a training stay those of the other forms.
        start = torch.empty(width, self.channels)
        nn.init.orthogonal_(start, generator=torch.Generator().manual_seed(0))
        self.query, self.key = nn.Parameter(start), nn.Parameter(start.clone())
        self.mix = nn.Parameter(torch.zeros(self.channels))

    def forward(self, target: Tensor, reference: Tensor) -> Tensor:
        """Merged features, of the target's shape."""
        targets, references = self.pair(target, reference)
        queries, keys = (self.query @ targets).mT, (self.key @ references).mT  # (N, P, D)
        values = references.mT.to(queries.dtype)
        attended = scaled_dot_product_attention(queries, keys, values).mT
        found = references + self.mix[:, None] * (attended - references)
        return self.features(targets - found + self.anchor, target)
