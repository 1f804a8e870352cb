"""All readers of files, by the room they belong to."""

from __future__ import annotations

from fuzz import data, settings, weights

__all__ = ["READERS"]

READERS = (*settings.READERS, *data.READERS, *weights.READERS)
