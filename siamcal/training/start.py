"""Start weights of a recipe: where they lie, and what a report says of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from siamcal.files import asset

__all__ = ["start_note", "weights_path"]


def weights_path(weights: str) -> Path:
    """The file of a recipe's `weights`: "asset:NAME" is one in the package, else a path.

    Raises:
        DataNotFoundError: The package holds no such asset.
    """
    kind, _, name = weights.partition(":")
    return asset(f"{name}.safetensors") if kind == "asset" else Path(weights).expanduser()


def start_note(recipe: Mapping[str, Any]) -> str:
    """What a report has to say of random start weights; empty where a recipe names a start.

    Args:
        recipe: A recipe as plain JSON (`to_dict`).
    """
    if recipe.get("weights") or recipe.get("checkpoint"):
        return ""
    if recipe.get("backbone") != "ir50":
        return "From random start weights."
    return (
        "From random start weights: the paper starts from glint360k's face recognition "
        "(--set weights=PATH/backbone.pth), so these numbers are no repetition of its."
    )
