"""Two tables' readings of one recording over time, and against each other, as one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from siamcal.evaluation.figures import STYLE
from siamcal.evaluation.two_tables import AUAgreement, TableAgreement

__all__ = ["SOFTWARE", "draw_agreement"]

SOFTWARE = "siamcal agree"
COLOUR_A, COLOUR_B = "#1f6f8b", "#c4573a"
ROW_HEIGHT = 1.15  # inches
_STYLE: Any = {"font.size": 8, "axes.grid": False}


def draw_agreement(found: TableAgreement, path: Path) -> None:
    """Draw a row for each AU: both traces, and beside them B against A.

    Where the units differ, B's axis stands on the right of the traces.

    Args:
        found: Of one pair.
        path: The picture, a PNG.
    """
    height = ROW_HEIGHT * len(found.aus) + 0.9
    with matplotlib.rc_context({**STYLE, **_STYLE}):
        figure = Figure(figsize=(10.5, height))
        rows = figure.subplots(
            len(found.aus),
            2,
            squeeze=False,
            gridspec_kw={"width_ratios": [6, 1], "wspace": 0.2, "hspace": 0.32},
        )
        for (traces, scatter), au in zip(rows, found.aus, strict=True):
            _draw_traces(traces, found, au)
            _draw_scatter(scatter, found, au)
            if au is not found.aus[-1]:
                traces.tick_params(labelbottom=False)
        by_time = found.matching.by == "time"
        rows[-1, 0].set_xlabel("seconds" if by_time else "frame, the first is 0")
        rows[0, 1].set_title("B against A", fontsize=8)
        _write_title(figure, found, height)
        figure.savefig(path, metadata={"Software": SOFTWARE})


def _draw_traces(axes: Any, found: TableAgreement, au: AUAgreement) -> None:
    right = axes if _same_units(found) else axes.twinx()
    sides = ((found.a, found.matching.a), (found.b, found.matching.b))
    for where, (side, places), colour in zip(
        (axes, right), sides, (COLOUR_A, COLOUR_B), strict=True
    ):
        values, order = side.readings[au.au], np.argsort(places)
        marker = "o" if len(places) < 40 else None
        where.plot(places[order], values[order], color=colour, lw=1.1, marker=marker, ms=2.5)
    if right is not axes:
        right.spines["right"].set_visible(True)
        axes.tick_params(axis="y", colors=COLOUR_A)
        right.tick_params(axis="y", colors=COLOUR_B)
    axes.margins(x=0.01)
    r = "" if au.pearson is None else f"\nr = {au.pearson:.2f}"
    label = f"AU{au.au:02d}{r}"
    axes.set_ylabel(label, rotation=0, ha="right", va="center", labelpad=10)


def _draw_scatter(axes: Any, found: TableAgreement, au: AUAgreement) -> None:
    here, there = found.matching.rows()
    x, y = found.a.readings[au.au][here], found.b.readings[au.au][there]
    axes.scatter(x, y, s=5, alpha=0.35, color="#444444", lw=0)
    both = ~(np.isnan(x) | np.isnan(y))
    if _same_units(found) and both.any():
        ends = [min(x[both].min(), y[both].min()), max(x[both].max(), y[both].max())]
        margin = 0.06 * (ends[1] - ends[0]) or 0.1
        axes.plot(ends, ends, color="#999999", lw=0.6, ls=":")
        axes.set(xlim=(ends[0] - margin, ends[1] + margin), aspect="equal")
        axes.set_ylim(axes.get_xlim())
    else:
        axes.set_box_aspect(1)
    axes.locator_params(nbins=3)


def _same_units(found: TableAgreement) -> bool:
    return found.a.span == found.b.span


def _write_title(figure: Any, found: TableAgreement, height: float) -> None:
    sides = (("A", found.a, COLOUR_A), ("B", found.b, COLOUR_B))
    for line, (name, side, colour) in enumerate(sides):
        text = f"{name}: {Path(side.path).name} ({side.tool})"
        place = 0.9 + (0.42 - 0.19 * line) / height
        figure.text(0.125, place, text, color=colour, fontsize=9, ha="left")
    figure.subplots_adjust(top=0.9, bottom=0.5 / height)
