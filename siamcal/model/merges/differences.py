"""The two differences of target and reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from siamcal.registry import merges

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["reference_minus_target", "target_minus_reference"]


@merges.register()
def reference_minus_target(target: Tensor, reference: Tensor) -> Tensor:
    """Reference - target: the authors' form at every merge point inside the network."""
    return reference - target


@merges.register()
def target_minus_reference(target: Tensor, reference: Tensor) -> Tensor:
    """Target - reference: the authors' form at the output."""
    return target - reference
