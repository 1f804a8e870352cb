"""The methods that are compared, and how they are called and drawn."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["METHODS", "Method", "label"]


@dataclass(frozen=True)
class Method:
    """How a method is shown.

    Attributes:
        label: In tables and figures.
        description: On a calibrator's card.
        colour: In figures.
    """

    label: str
    description: str
    colour: str


METHODS = {
    "ncg": Method("NCG", "the same network without calibration (NCG)", "#9aa5b1"),
    "bs": Method("BS", "baseline subtraction (BS)", "#e0a458"),
    "csn": Method("CSN", "this calibrator (CSN)", "#1f6f8b"),
}


def label(method: str) -> str:
    """Short name of a method for tables: "csn@layer3" -> "CSN (layer3)"."""
    name, at, point = method.partition("@")
    shown = METHODS[name].label if name in METHODS else name.upper()
    return f"{shown} ({point})" if at else shown
