"""One progress bar for everything that takes more than two seconds; it writes to stderr only."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

__all__ = ["progress_bar"]


def progress_bar(
    iterable: Iterable[Any] | None = None,
    *,
    total: int | None = None,
    description: str = "",
    unit: str = "it",
    initial: int = 0,
) -> tqdm:
    """A progress bar with rate and remaining time.

    Set `TQDM_DISABLE=1` to hide every bar. Where stderr is no terminal (a log file), it writes a
    line every ten seconds instead of drawing.

    Args:
        iterable: What to iterate; without it call `.update(n)` on the bar.
        total: Number of items, where the iterable has no length.
        description: What is being done.
        unit: Name of one item in the singular ("frame", "step").
        initial: Items done before, when work resumes.
    """
    terminal = sys.stderr.isatty()
    return tqdm(
        iterable,
        total=total,
        desc=description or None,
        unit=f" {unit}",
        initial=initial,
        file=sys.stderr,
        mininterval=0.2 if terminal else 10.0,
        dynamic_ncols=terminal,
        ncols=None if terminal else 100,
        delay=0.5,
    )
