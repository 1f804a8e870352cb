"""The methods that are compared: what they are called, what they need and how they are drawn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from siamcal.errors import ConfigError, UnknownNameError
from siamcal.model.places import MergeAt, points_of
from siamcal.registry import merges

__all__ = ["AUTO", "METHODS", "SHRINKAGE", "Method", "default_methods", "label", "pairs", "parse"]

#: In the place of a merge point: chosen in each fold on its training people.
AUTO = "auto"

#: Share of a neutral reading's, or of neutral features', deviation from the mean person that
#: "bss" and "frozen" take away: one frame of a person is a noisy measurement.
SHRINKAGE = 0.75


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
    "bss": Method("BS, shrunken", "shrunken baseline subtraction", "#efd3a8"),
    "outputs": Method("outputs, mapped", "its readings alone, rest mapped to 0", "#c9b79c"),
    "frozen": Method("frozen, anchored", "the plain network, calibrated untrained", "#7a8f5c"),
    "frozen:outputs": Method(
        "frozen, outputs mapped", "the same, and rest mapped to 0 at its output", "#4f6b3a"
    ),
    "csn:paper": Method("CSN, paper's form", "CSN in the paper's form", "#7fb3c4"),
    "csn": Method("CSN", "this calibrator (CSN)", "#1f6f8b"),
}


# Of a comparison that trains; the others are for networks that stay as they are.
_TRAINED = ("ncg", "bs", "bss", "frozen", "csn:paper", "csn")


@dataclass(frozen=True)
class Parsed:
    """A method's name in parts.

    Attributes:
        kind: "ncg", "bs", "bss", "outputs", "frozen" or "csn".
        form: Form of the merge of a "csn"; None is the recipe's. "outputs" of a "frozen" whose
            output is calibrated too.
        merge_at: Merge point, or several at once; None is the recipe's, `AUTO` the training
            people's.
    """

    kind: str
    form: str | None = None
    merge_at: MergeAt | None = None

    @property
    def trained(self) -> str:
        """Which network it reads: "csn", or the plain "ncg"."""
        return "csn" if self.kind == "csn" else "ncg"


def parse(method: str) -> Parsed:
    """A method's name in parts: `csn`, `csn:FORM`, `csn@POINT`, `csn:FORM@POINT`, `frozen@POINT`.

    POINT may be several at once, joined by "+".

    Raises:
        ConfigError: Nothing has that name.
    """
    name, _, point = method.partition("@")
    kind, _, form = name.partition(":")
    wrong = kind not in METHODS or (form and kind != "csn" and name != "frozen:outputs")
    if wrong or (point and kind not in ("frozen", "csn")) or method.endswith(("@", ":")):
        raise ConfigError(
            "Methods are ncg, bs, bss, outputs, frozen, frozen:outputs (inside and at its output) "
            "and csn, csn:FORM for a form of the merge and "
            f"csn@MERGE_POINT or frozen@MERGE_POINT for a merge point ({AUTO}: chosen, A+B: both "
            f"at once); got {method!r}."
        )
    if form and kind == "csn":
        try:
            merges.get(form)
        except UnknownNameError as error:
            raise ConfigError(f"Method {method!r}: {error}") from None
    return Parsed(kind, form or None, points_of(point) if point else None)


def default_methods(
    merge: str, *, trained: bool = False, intensity: bool = True
) -> tuple[str, ...]:
    """What a comparison runs by itself: the paper's three, or all where the form is another.

    Args:
        merge: The recipe's form.
        trained: The network is a user's own, trained already: nothing is trained unless asked for.
        intensity: No occurrence is read, which has no range that rest could be mapped in.
    """
    if trained:
        plain = ("ncg", "bs", "bss", "frozen")
        return ("ncg", "bs", "bss", "outputs", "frozen", "frozen:outputs") if intensity else plain
    return ("ncg", "bs", "csn") if merge == "paper" else _TRAINED


def pairs(methods: Iterable[str]) -> list[tuple[str, str]]:
    """Which methods are held against which: calibrated ones against NCG and BS."""
    found = list(methods)
    calibrated = sorted((m for m in found if m not in ("ncg", "bs")), key=lambda m: m != "csn")
    wanted = [(m, other) for m in calibrated for other in ("ncg", "bs")]
    # Of a sweep against NCG alone: tables stay readable.
    swept = {m for m in found if "@" in m and not m.endswith(f"@{AUTO}")}
    return [p for p in wanted if p[1] in found and not (p[0] in swept and p[1] == "bs")]


def label(method: str) -> str:
    """Short name of a method for tables: "csn@layer3" -> "CSN (layer3)"."""
    if method in METHODS:
        return METHODS[method].label
    name, _, point = method.partition("@")
    kind, _, form = name.partition(":")
    shown = METHODS.get(name) or METHODS.get(kind)
    text = shown.label if shown else name.upper()
    details = [form] * (bool(form) and name not in METHODS) + [point] * bool(point)
    return f"{text} ({', '.join(details)})" if details else text
