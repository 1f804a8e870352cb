"""A reference that counts as much as both frames say it should."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from siamcal.model.merges._anchor import AnchorForm
from siamcal.model.merges._channels import number
from siamcal.registry import merges

__all__ = ["Gated"]


@merges.register("gated")
class Gated(AnchorForm):
    """Target - gate * (reference - anchor): a trained gate, for references of unequal worth.

    The gate is in 0..1 per channel and pair, made from target and reference, both averaged over
    their positions, by two layers as in squeeze-and-excitation (Hu et al. 2018, arXiv:1709.01507).
    It starts at `start` for everyone.

    Parameters: the anchor (C * P, or C) and 3 * C * H + H + C with H = C / reduction, 8..256 units.
    Cost: as "anchored", and 3 * C * H multiply-adds a sample.

    Args:
        shape: Of one sample's features.
        start: The gate before training, from .01 to .99.
        reduction: Channels per hidden unit, from 1 to 1024.
        per: Anchor per "position" or per "channel".
        **options: `layout`, `channel_dim`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        start: float = 0.75,
        reduction: float = 16,
        per: str = "position",
        channel_dim: int | None = None,
        layout: Any = None,
    ) -> None:
        super().__init__(shape, per=per, channel_dim=channel_dim, layout=layout)
        start = number("start", start, 0.01, 0.99)
        units = int(self.channels / number("reduction", reduction, 1, 1024))
        hidden = min(max(units, 8), 256)
        # Its own generator: the draws of a training stay those of the other forms.
        draws = torch.Generator().manual_seed(0)
        self.squeeze = nn.Parameter(torch.empty(hidden, 2 * self.channels))
        nn.init.kaiming_normal_(self.squeeze, generator=draws)
        self.squeeze_bias = nn.Parameter(torch.zeros(hidden))
        self.excite = nn.Parameter(torch.zeros(self.channels, hidden))
        logit = torch.logit(torch.tensor(start, dtype=torch.float64))
        self.excite_bias = nn.Parameter(torch.full((self.channels,), float(logit)))

    def gate(self, targets: Tensor, references: Tensor) -> Tensor:
        """Rows (N, C, P) of both -> gate (N, C) in 0..1."""
        pooled = torch.cat([targets.mean(2), references.mean(2)], 1)
        hidden = torch.relu(pooled @ self.squeeze.T + self.squeeze_bias)
        return torch.sigmoid(hidden @ self.excite.T + self.excite_bias)

    def forward(self, target: Tensor, reference: Tensor) -> Tensor:
        """Merged features, of the target's shape."""
        targets, references = self.pair(target, reference)
        gate = self.gate(targets, references).unsqueeze(-1)
        return self.features(targets - gate * (references - self.anchor), target)
