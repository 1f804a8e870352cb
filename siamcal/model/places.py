"""The merge points of a calibrated network as they are given: one name, or several in order.

As text several at once are "layer2+layer4": a comma stands between points of a sweep.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from siamcal.errors import ConfigError

__all__ = ["MergeAt", "joined", "merge_points", "points_of"]

MergeAt: TypeAlias = "str | tuple[str, ...]"


def merge_points(merge_at: Any) -> MergeAt:
    """One name as itself, several as a tuple; a sequence of one name means the name.

    Raises:
        ConfigError: Neither a name nor a list or tuple of names.
    """
    if isinstance(merge_at, str):
        return merge_at
    names = merge_at if isinstance(merge_at, list | tuple) else ()
    if not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"merge_at takes the name of a merge point, such as 'layer4', or several in the order "
            f"in which the network reaches them, such as ('layer2', 'layer4'), but got "
            f"{str(merge_at)[:80]}; list_merge_points(backbone) lists the names."
        )
    return names[0] if len(names) == 1 else tuple(names)


def points_of(text: str) -> MergeAt:
    """The merge points of a text such as "layer2+layer4".

    Raises:
        ConfigError: A name is missing.
    """
    names = [name.strip() for name in text.split("+")]
    if not all(names):
        raise ConfigError(
            f"Several merge points at once are written like layer2+layer4, but got {text[:80]!r}."
        )
    return merge_points(names)


def joined(merge_at: MergeAt) -> str:
    """All points as one text."""
    return merge_at if isinstance(merge_at, str) else ", ".join(merge_at)
