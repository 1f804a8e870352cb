"""Readings and guidance as HTML: plain boxes, no script, nothing fetched."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from siamcal.inference.table import HIGHEST, written_value
from siamcal.inference.traces import GAP, RAW, READING, REFERENCE

if TYPE_CHECKING:
    from siamcal.calibrators.config import CalibratorConfig
    from siamcal.page.guidance import Look
    from siamcal.page.live import Reading

__all__ = ["STYLE", "bars", "checklist"]

STYLE = f"""
.aus {{ width: 100%; border-collapse: collapse; font-size: 14px; }}
.aus, .aus tr, .aus th, .aus td {{ border: 0 !important; }}
.aus th, .aus td {{ padding: 3px 10px 3px 0; text-align: left; font-weight: normal; }}
.aus .name {{ white-space: nowrap; width: 1%; }}
.aus .scale {{ width: 40%; }}
.aus .track {{ position: relative; height: 14px; background: {GAP}; border-left: 3px solid
  {REFERENCE}; }}
.aus .bar {{ height: 100%; }}
.aus .mark {{ position: absolute; top: -2px; bottom: -2px; width: 1px; background: #999999; }}
.aus .number {{ font-variant-numeric: tabular-nums; width: 3em; text-align: right; }}
.checks {{ list-style: none; padding: 0; margin: 0; font-size: 14px; }}
.checks li {{ padding: 2px 0; }}
.checks .good::before {{ content: "✓"; color: {READING}; font-weight: bold; margin-right: 8px; }}
.checks .bad::before {{ content: "✗"; color: {REFERENCE}; font-weight: bold; margin-right: 8px; }}
.verdict {{ font-weight: bold; padding-bottom: 6px; }}
footer {{ display: none !important; }}
"""


def checklist(look: Look | None) -> str:
    """The points of a frame, each with what to do."""
    if look is None:
        return '<p class="verdict">Start the camera.</p>'
    items = [
        f'<li class="{"good" if c.good else "bad"}">{escape(c.name)}'
        + (f": {escape(c.advice)}" if c.advice else "")
        + "</li>"
        for c in look.checks
    ]
    verdict = "Good as the neutral face." if look.good else "Not good as the neutral face yet:"
    return f'<p class="verdict">{verdict}</p><ul class="checks">{"".join(items)}</ul>'


def bars(config: CalibratorConfig, reading: Reading | None, *, raw: bool) -> str:
    """All AUs, calibrated and, where the calibrator can, without the reference side by side.

    Args:
        config: Of the calibrator.
        reading: Of a frame; None before the first.
        raw: Whether there is a column for readings without the reference.
    """
    columns = [("calibrated", READING, reading.calibrated if reading else None)]
    if raw:
        columns.append(("without the neutral face", RAW, reading.raw if reading else None))
    head = "".join(f'<th colspan="2">{name}</th>' for name, _, _ in columns)
    rows = []
    for place, (au, name) in enumerate(zip(config.aus, config.au_names, strict=True)):
        cells = "".join(_cell(config, values, place, colour) for _, colour, values in columns)
        rows.append(f'<tr><td class="name"><b>AU{au}</b> {escape(name)}</td>{cells}</tr>')
    return f'<table class="aus"><tr><th></th>{head}</tr>{"".join(rows)}</table>'


def _cell(config: CalibratorConfig, values: np.ndarray | None, place: int, colour: str) -> str:
    detection = config.task == "detection"
    share, number = 0.0, "–"
    if values is not None and np.isfinite(values[place]):
        value = float(values[place])
        if detection:
            share, number = 1 / (1 + math.exp(-max(value, -50.0))), "yes" if value >= 0 else "no"
        else:
            share, number = written_value(value) / HIGHEST, f"{written_value(value):.2f}"
    mark = 0.5 if detection else config.thresholds[place] / HIGHEST
    return (
        f'<td class="scale"><div class="track">'
        f'<div class="bar" style="width:{share:.1%};background:{colour}"></div>'
        f'<div class="mark" style="left:{mark:.1%}"></div></div></td>'
        f'<td class="number">{number}</td>'
    )
