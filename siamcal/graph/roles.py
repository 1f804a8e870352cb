"""What crosses a merge point: which values are differenced, and where the samples lie in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from siamcal.graph.features import BatchLayout, PassedValue
from siamcal.graph.split import IllegalPointError, Split

__all__ = ["assign_roles", "close", "largest_difference"]

# Other batch sizes choose other summation orders; a wrong cut is off by orders of magnitude more.
_BATCH_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
_LOW_PRECISION_TOLERANCE = 0.1
_SIMPLE = (int, float, bool, str, type(None), torch.Size, torch.device, torch.dtype, slice)


def assign_roles(
    split: Split,
    large: Sequence[Any],
    small: Sequence[Any] | None,
    depends: Sequence[bool],
    units: int,
    unit: int,
) -> None:
    """Fill in `differenced`, `layouts` and `passed` of a split.

    Args:
        split: The split.
        large: Crossing values of `units` units of samples.
        small: Those of the last of these units alone; None where the network takes no other batch.
        depends: Whether each value depends on the image.
        units: Number of units, 2 or more where `small` is given.
        unit: Samples in a unit.

    Raises:
        IllegalPointError: A value that depends on the image can't be differenced.
    """
    if small is not None and len(large) != len(small):
        raise IllegalPointError("the number of crossing values depends on the batch size")
    differenced, layouts, passed = [], [], []
    others = [None] * len(large) if small is None else small
    for value, other, is_image in zip(large, others, depends, strict=True):
        layout = None
        if isinstance(value, Tensor) and isinstance(other, Tensor):
            layout = _layout(value, other, units, unit)
        if is_image and not _is_continuous(value):
            raise IllegalPointError(
                f"a value of type {_type_name(value)} that depends on the image crosses there, and "
                "only floating-point features can be differenced"
            )
        if not isinstance(value, (Tensor, *_SIMPLE)):
            raise IllegalPointError(
                f"an object of the class {type(value).__name__} crosses there, which can't be "
                "taken apart; if it is the output, name the part that is meant with output="
            )
        differenced.append(is_image)
        if is_image:
            layouts.append(layout)
        else:
            passed.append(_passed(value, other, layout, small is not None))
    if not any(differenced):
        raise IllegalPointError("nothing that crosses there depends on the image")
    split.differenced = tuple(differenced)
    crossing = [value for value, is_image in zip(large, depends, strict=True) if is_image]
    split.shapes = tuple(
        value.shape if layout is None else layout.narrow(value, 0, 1).shape
        for value, layout in zip(crossing, layouts, strict=True)
    )
    split.layouts = tuple(layouts)
    split.passed = tuple(passed)


def _layout(large: Tensor, small: Tensor, units: int, unit: int) -> BatchLayout | None:
    """Where the samples lie in a tensor, told from the same tensor for the last unit alone."""
    if large.ndim != small.ndim:
        return None
    dims = [d for d in range(large.ndim) if large.shape[d] != small.shape[d]]
    if len(dims) != 1 or large.shape[dims[0]] != small.shape[dims[0]] * units:
        return None
    dim = dims[0]
    if large.shape[dim] % (units * unit):
        return None
    groups = large.shape[dim] // (units * unit)
    if large.is_meta:  # there are no values to tell the order by
        return BatchLayout(dim) if groups == 1 else None
    last = torch.arange((units - 1) * unit, units * unit, device=large.device)
    for sample_first in (True, False):
        layout = BatchLayout(dim, groups, sample_first or groups == 1)
        if close(layout.select(large, last), small):
            return layout
    return None


def _passed(large: Any, small: Any, layout: BatchLayout | None, compared: bool) -> PassedValue:
    """How a value that isn't differenced follows the batch size."""
    if not compared:
        return PassedValue(known=False)
    if isinstance(large, Tensor):
        return PassedValue(layout, known=layout is not None or large.shape == small.shape)
    if isinstance(large, int) and not isinstance(large, bool):
        return PassedValue(scales=(large != small,))
    if isinstance(large, torch.Size):
        return PassedValue(scales=tuple(a != b for a, b in zip(large, small, strict=True)))
    return PassedValue(known=large == small)


def _is_continuous(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def _type_name(value: Any) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__


def largest_difference(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """Largest absolute difference relative to the largest value; inf for other shapes or types.

    Exactly 0 only if all tensors are equal bit for bit (NaN counts as equal to NaN). Tensors on the
    meta device have no values and are compared by shape and type.
    """
    if len(first) != len(second) or any(
        a.shape != b.shape or a.dtype != b.dtype for a, b in zip(first, second, strict=True)
    ):
        return float("inf")
    worst = 0.0
    for a, b in zip(first, second, strict=True):
        if a.is_meta or torch.equal(a, b) or torch.allclose(a, b, rtol=0, atol=0, equal_nan=True):
            continue
        a, b = a.detach().double(), b.detach().double()
        difference = float((a - b).abs().max() / a.abs().max().clamp_min(1e-30))
        worst = max(worst, difference if difference == difference else float("inf"))
    return worst


def close(a: Tensor, b: Tensor) -> bool:
    """Equal but for the rounding of another batch size."""
    if a.shape != b.shape:
        return False
    if not _is_continuous(a):
        return a.is_meta or torch.equal(a, b)
    tolerance = _BATCH_TOLERANCE.get(a.dtype, _LOW_PRECISION_TOLERANCE)
    return largest_difference([a], [b]) <= tolerance
