"""Why a network can't be cut somewhere, in words that say what to do."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path

import torch

from siamcal.errors import SiamcalError

__all__ = ["cure", "in_words", "reason_of"]

_LONGEST = 200
_OURS = Path(__file__).parent.parent
_LIBRARIES = (Path(torch.__file__).parent, _OURS)
_WRAP = (
    "move that line into a function at the top of your file and give its name to torch.fx.wrap, or "
    "choose a point that needs no trace"
)
# A sign in the trace's complaint -> what makes the network traceable.
_CURES = (
    ("einops", "use einops' layers (einops.layers.torch) in place of its functions"),
    ("random numbers", "replace the draw by nn.Dropout or a module of your own"),
    ("writes to a buffer", "write it in a module of your own that holds nothing else"),
    ("writes the attribute", "choose a point that needs no trace"),
    ("no_grad", "choose a point behind the place where that part joins the rest"),
    ("the gradient of", "choose a point that needs no trace"),
    ("gradient checkpointing", "choose a point that needs no trace, or switch checkpointing off"),
    ("control flow", _WRAP),
    ("iterated", _WRAP),
    ("Proxy", _WRAP),
    ("torch.finfo", _WRAP),
)


def reason_of(error: Exception) -> str:
    """An error's first line, and the line of the user's code that it came from."""
    text = str(error).strip().split("\n")[0].rstrip(". ")
    if isinstance(error, SiamcalError):
        return text
    text = text[:_LONGEST]
    return f"{type(error).__name__}: {text}{_place(error)}" if text else type(error).__name__


def _place(error: Exception) -> str:
    """The innermost line that is neither torch's nor ours, as " (net.py, line 7)"."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_file() and not any(path.is_relative_to(folder) for folder in _LIBRARIES):
            return f" ({path.name}, line {frame.lineno})"
    return ""


def in_words(reasons: Mapping[str, str]) -> str:
    """What each mechanism complained of; both ways of tracing as one where they agree."""
    shallow, full = reasons.get("shallow fx"), reasons.get("full fx")
    if shallow is not None and shallow == full:
        reasons = {**{k: v for k, v in reasons.items() if "fx" not in k}, "fx": shallow}
    return "; ".join(f"{k}: {v}" for k, v in reasons.items())


def cure(reasons: Mapping[str, str]) -> str:
    """What makes a network traceable, as far as the trace's complaint tells."""
    traced = " ".join(v for k, v in reasons.items() if "fx" in k)
    found = next((text for sign, text in _CURES if sign in traced), "")
    return f". To cut it there, {found}" if found else ""
