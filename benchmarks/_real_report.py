"""What `siamcal bench real` says: tables in Markdown, and a picture."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from siamcal.calibrators.statuses import LEAST_CORRELATION, LEAST_PEOPLE, MOST_AT_REST
from siamcal.environment import machine_line
from siamcal.evaluation.figures import STYLE
from siamcal.evaluation.tables import to_markdown

__all__ = ["Measured", "draw", "to_text"]

_COLOURS = ("#1f6f8b", "#b9b9b9", "#c9a15a", "#7a6fa3", "#c4573a", "#6b9b5a")
_TITLES = {
    "correlation": "correlation",
    "mae": "MAE",
    "absent": "reading where the label is 0",
    "rest": "reading at rest",
    "slope": "part read",
    "nothing": "reading where it sees nothing",
    "reference": "reading of the reference",
    "ratio": "people's spread at rest / within",
}


class Measured(dict[str, Any]):
    """The figures of `real.json`, printed as `real.md`."""

    def __str__(self) -> str:
        return to_text(self)


def to_text(results: Mapping[str, Any]) -> str:
    """The tables, in Markdown."""
    parts = [_head(results)]
    if results["labels"]:
        parts += ["## Against the labels", _BY_LABELS, _means(results["labels"], _LABELLED)]
        parts += ["Correlation with the labels:", _each(results["labels"], "correlation")]
    for other in results["others"]:
        limits = results["limits"]
        parts += [f"## Against {other['witness']}", _BY_OTHERS.format(**limits)]
        parts += [_means(other["readers"], ("correlation", "nothing"))]
        parts += ["Rank correlation:", _each(other["readers"], "correlation")]
    parts += ["## At rest", _AT_REST, _means(results["rest"], ("reference", "rest", "ratio"))]
    parts += ["Mean reading of frames at rest:", _each(results["rest"], "rest")]
    parts += ["## What may be said of each AU", _statuses(results), _clips(results)]
    parts.append(machine_line(results["environment"]))
    return "\n\n".join(parts)


_OWN = ("calibrated", "without the reference", "baseline subtraction")
_LABELLED = ("correlation", "mae", "absent", "rest", "slope")
_BY_LABELS = (
    "Each figure is one person's, over that person's labelled frames, and then the mean over "
    "people; in brackets the AUs that have it. Correlation: Pearson's, of people in whom the label "
    "varies; a reading that stands still counts as 0. Reading at rest: where all labels of the "
    "frame are 0. Part read: by how much the reading rises with one step of the label. Readers in "
    "other units have a correlation only."
)
_BY_OTHERS = (
    "Agreement with another reader isn't accuracy. Rank correlation of each clip and AU in which "
    "that reader's trace moves (standard deviation at least {moves:g} of its range), the mean over "
    "a person's clips, then over people; a reading that stands still counts as 0. It sees nothing "
    "up to {nothing:g} of its range."
)
_AT_REST = (
    "Frames at rest are those in which every coefficient of MediaPipe is near the reference "
    "frame's. The last column: standard deviation over people of their mean reading at rest, over "
    "the mean standard deviation of one person's readings: 0 where people at rest read alike."
)


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Draw the correlation and the reading at rest of each AU as a PNG; dots are people."""
    found, rows, title = _drawn(results)
    rest = (results["labels"], rows) if results["labels"] else _resting(results)
    aus = [f"AU{au:02d}" for au in results["aus"]]
    names = list(dict.fromkeys([*found, *rest[0]]))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 6))
        axes = figure.subplots(2, 1, sharex=True)
        _bars(axes[0], found, names, aus, "correlation", rows)
        axes[0].axhline(LEAST_CORRELATION, color="#777777", lw=0.8, ls=":")
        axes[0].set(ylabel=title, ylim=(min(0, axes[0].get_ylim()[0]), 1.03))
        intensities = {n: cells for n, cells in rest[0].items() if _steps(n, cells)}
        _bars(axes[1], intensities, names, aus, "rest", rest[1])
        axes[1].axhline(MOST_AT_REST, color="#777777", lw=0.8, ls=":")
        axes[1].set(ylabel="reading at rest (steps)")
        axes[1].set_xticks(range(len(aus)), aus)
        text = f"{results['what']}: {results['people']} people, {len(results['clips'])} clips"
        figure.suptitle(text, x=0.125, ha="left", fontsize=10, y=0.94)
        place: Any = {"loc": "lower left", "bbox_to_anchor": (0, 1.0), "borderaxespad": 0.2}
        axes[0].legend(ncols=3, fontsize=8, **place)
        figure.subplots_adjust(top=0.86, hspace=0.12)
        figure.savefig(path, metadata={"Software": "siamcal bench real"})


def _drawn(results: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]], str]:
    """Readers' cells, the rows they are means of, and what they are."""
    if results["labels"]:
        return results["labels"], results["each"]["labels"], "correlation with the labels"
    if results["others"]:
        other = results["others"][0]
        rows = results["each"][other["witness"]]
        name = "\n".join(textwrap.wrap(other["witness"], 30))
        return other["readers"], rows, f"rank correlation with\n{name}"
    return {}, [], "correlation: nothing to compare with"


def _resting(results: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return results["rest"], results["each"]["rest"]


def _steps(name: str, cells: Mapping[str, Any]) -> bool:
    """Whether a reader's units are intensity steps."""
    return name in _OWN or cells["mean"].get("mae") is not None


def _bars(
    axes: Any,
    found: Mapping[str, Any],
    names: list[str],
    aus: list[str],
    figure: str,
    rows: list[dict[str, Any]],
) -> None:
    """A bar a reader and AU, of which each reader has the same place and colour everywhere."""
    width = 0.8 / max(len(names), 1)
    for place, name in enumerate(names):
        if name not in found:
            continue
        at = np.arange(len(aus)) + (place - (len(names) - 1) / 2) * width
        heights = [_number(found[name].get(au, {}).get(figure)) for au in aus]
        axes.bar(at, heights, 0.92 * width, color=_COLOURS[place % len(_COLOURS)], label=name)
        for x, au in zip(at, aus, strict=True):
            own = [r for r in rows if r["reader"] == name and f"AU{r['au']:02d}" == au]
            dots = [_number(r.get(figure)) for r in own]
            axes.plot([x] * len(dots), dots, "o", ms=2, color="#333333", alpha=0.5)


def _head(results: Mapping[str, Any]) -> str:
    calibrator, clips = results["calibrator"], results["clips"]
    frames, read = (sum(clip[key] for clip in clips) for key in ("frames", "read"))
    text = (
        f"# {results['what']}\n\n{results['people']} people, {len(clips)} clips, {frames} frames, "
        f"{read} of them with values. Calibrator: {calibrator['source']}, trained on "
        f"{calibrator['training_data']}."
    )
    text += "".join(f" {note}" for note in results["notes"])
    if results["failed"]:
        text += f" {len(results['failed'])} clips could not be read."
    return text


def _means(found: Mapping[str, Any], figures: tuple[str, ...]) -> str:
    rows = {}
    for reader, cells in found.items():
        mean = cells["mean"]
        rows[reader] = {
            _TITLES[name]: _text(mean.get(name)) + _count(mean, name) for name in figures
        }
    return to_markdown(pd.DataFrame.from_dict(rows, orient="index"), "mean over AUs")


def _count(mean: Mapping[str, Any], name: str) -> str:
    count = mean["aus"].get(name)
    return f" ({count})" if count and mean.get(name) is not None else ""


def _each(found: Mapping[str, Any], figure: str) -> str:
    """A row a reader, a column an AU; below them how many people the first one's is a mean of."""
    aus = sorted({au for cells in found.values() for au in cells if au != "mean"})
    rows = {
        reader: {au: _text(cells.get(au, {}).get(figure)) for au in aus}
        for reader, cells in found.items()
    }
    first = next(iter(found.values()), {})
    rows["people"] = {au: str(first.get(au, {}).get("people", {}).get(figure, 0)) for au in aus}
    return to_markdown(pd.DataFrame.from_dict(rows, orient="index"), "reader")


def _statuses(results: Mapping[str, Any]) -> str:
    by_status: dict[str, list[str]] = {}
    for au, status in results["statuses"].items():
        by_status.setdefault(status, []).append(au)
    lines = [f"- {status}: {', '.join(aus)}" for status, aus in by_status.items()]
    rule = (
        f"Shown on real faces takes at least {LEAST_PEOPLE} people who move it, a correlation of "
        f"at least {LEAST_CORRELATION:g} and at most {MOST_AT_REST:g} read at rest (docs/real.md)."
    )
    return "\n".join([*lines, "", rule])


def _clips(results: Mapping[str, Any]) -> str:
    rows = {}
    for clip in results["clips"]:
        shown = {key: str(clip.get(key, "")) for key in ("person", "reference", "frames", "read")}
        shown["at rest"] = str(clip["at_rest"])
        if "labelled" in clip:
            shown["labelled"] = str(clip["labelled"])
        rows[clip["clip"]] = shown
    table = to_markdown(pd.DataFrame.from_dict(rows, orient="index").fillna(""), "clip")
    notes = [f"- {clip['clip']}: {note}." for clip in results["clips"] for note in clip["notes"]]
    failed = [f"- {name} could not be read: {why}" for name, why in results["failed"].items()]
    return "\n".join(["## Clips", "", table, "", *notes, *failed]).rstrip()


def _text(value: float | None) -> str:
    return "–" if value is None else f"{round(value, 2) + 0.0:.2f}"


def _number(value: Any) -> float:
    return np.nan if value is None else float(value)
