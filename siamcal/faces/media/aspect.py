"""Pixels that aren't square: which shapes are believed, and how large the square picture is."""

from __future__ import annotations

from fractions import Fraction

__all__ = ["believed", "square_size"]

# Beyond these a pixel's shape is a writing error: anamorphic recordings lie between 1/2 and 2.
NARROWEST, WIDEST = Fraction(1, 4), Fraction(4)


def believed(aspect: Fraction | float) -> bool:
    """Whether width by height of a pixel can be meant."""
    return NARROWEST <= aspect <= WIDEST


def square_size(width: int, height: int, aspect: Fraction | float) -> tuple[int, int]:
    """Width and height with square pixels; only ever larger, so that nothing seen is lost."""
    return round(width * max(aspect, 1)), round(height / min(aspect, 1))
