"""The anchor: the mean feature of neutral frames of anybody, as a trained parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from siamcal.errors import ConfigError
from siamcal.model.merges._channels import FittedForm, choice
from siamcal.model.merges._components import person_means

__all__ = ["PER", "AnchorForm"]

PER = ("position", "channel")


class AnchorForm(FittedForm):
    """A form with an anchor.

    Args:
        shape: Of one sample's features.
        per: "position": the anchor has a value for each channel and position, (C, P);
            "channel": one for each channel, (C, 1), for networks that take images of any size.
        **options: `layout`, `channel_dim`.

    Attributes:
        anchor: (C, P) or (C, 1), mean over people of each person's mean. NaN until it is fitted.
    """

    def __init__(self, shape: Sequence[int], *, per: str = "position", **options: Any) -> None:
        super().__init__(shape, **options)
        self.per = choice("per", per, PER)
        size = (self.channels, self.positions if per == "position" else 1)
        self.anchor = nn.Parameter(torch.full(size, torch.nan))

    def no_weight_decay(self) -> set[str]:
        """timm: names of the parameters that don't decay, here what was fitted."""
        return {"anchor"}

    def pair(self, target: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Both as rows (N, C, P), once the form is fitted and where the anchor fits.

        Raises:
            ConfigError: Not fitted, or features of another size.
        """
        self.need_fitted()
        rows = self.rows(target)
        if self.per == "position" and rows.shape[2] != self.positions:
            raise ConfigError(
                f"The anchor has {self.positions} positions (features {tuple(self.shape)}), but "
                f"these features, {tuple(target.shape)}, have {rows.shape[2]}: pass images of the "
                "size that the network was wrapped with, or take merge_options={'per': 'channel'}."
            )
        return rows, self.rows(reference)

    def _fit(self, rows: Tensor, people: Tensor) -> None:
        if self.per == "position" and rows.shape[2] != self.positions:
            raise ConfigError(
                f"The anchor has {self.positions} positions, but the neutral images give "
                f"{rows.shape[2]}: pass images of the size that the network was wrapped with."
            )
        anchor = person_means(rows, people)[0].mean(0)
        self.anchor.copy_(anchor if self.per == "position" else anchor.mean(1, keepdim=True))
