"""A first look at what a command is to read, before anything is loaded that takes a second."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable

from siamcal.errors import MediaError
from siamcal.files import absent

__all__ = ["refuse_absent"]


def refuse_absent(names: Iterable[str | os.PathLike[str] | None], hint: str = "") -> None:
    """Refuse a file that isn't there; what may be no file's name is left to who reads it.

    Args:
        names: As a user gave them; None and "" for what was not given.
        hint: A sentence on what else may have been meant, behind the message.

    Raises:
        MediaError: One of them doesn't exist.
    """
    for name in names:
        text = os.fspath(name or "")
        if not text or os.path.exists(text) or glob.has_magic(text):
            continue
        if text == "-" or "://" in text or text.startswith(("camera", "@")):
            continue
        raise MediaError(f"{absent(text)} {hint}".rstrip())
