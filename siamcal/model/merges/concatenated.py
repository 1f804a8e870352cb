"""The difference beside the target, under a layer that weighs both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from siamcal.errors import ConfigError
from siamcal.model.merges._channels import ChannelForm
from siamcal.registry import merges

__all__ = ["Concatenated"]

# 2 * C * C weights: half a gigabyte in float32. A flattened map (25088 channels) would take five.
MOST_CHANNELS = 8192


@merges.register("concatenated")
class Concatenated(ChannelForm):
    """A 1x1 layer over (target, target - reference): to be trained, with many people.

    It may keep what only the target tells beside the difference. It starts as target - .5 *
    reference, so that the start weights of the network behind it stay of use.

    Parameters: 2 * C * C + C. Cost: 2 * C * C multiply-adds a position.

    Args:
        shape: Of one sample's features.
        **options: `layout`, `channel_dim`.

    Attributes:
        weight: (C, 2 * C), columns of the target, then of the difference.
        bias: (C,).
    """

    def __init__(
        self, shape: Sequence[int], *, channel_dim: int | None = None, layout: Any = None
    ) -> None:
        super().__init__(shape, channel_dim=channel_dim, layout=layout)
        if self.channels > MOST_CHANNELS:
            raise ConfigError(
                f"merge='concatenated' would take {2 * self.channels**2:,} weights for the "
                f"{self.channels} channels of this merge point; at most {MOST_CHANNELS} channels "
                "are allowed. Merge before the features are flattened, or take 'anchored'."
            )
        # .5 * target + .5 * (target - reference)
        half = torch.eye(self.channels) / 2
        self.weight = nn.Parameter(torch.cat([half, half], 1))
        self.bias = nn.Parameter(torch.zeros(self.channels))

    def forward(self, target: Tensor, reference: Tensor) -> Tensor:
        """Merged features, of the target's shape."""
        targets, references = self.rows(target), self.rows(reference)
        both = torch.cat([targets, targets - references], 1)  # (N, 2 * C, P)
        return self.features(self.weight @ both + self.bias[:, None], target)
