"""Figures of a comparison, made with matplotlib from the results and predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from siamcal.evaluation.agreement import bland_altman as agreement
from siamcal.evaluation.methods import AUTO, METHODS, label
from siamcal.evaluation.metrics import get_metric, metrics_of
from siamcal.evaluation.predictions import TaskPredictions
from siamcal.evaluation.sums import spread
from siamcal.files import make_folder
from siamcal.model.places import joined, merge_points

SWEEP_COLOURS = matplotlib.colormaps["viridis"]
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.dpi": 130,
    "savefig.bbox": "tight",
}


def write_figures(
    results: dict[str, Any], predictions: dict[str, TaskPredictions], folder: Path
) -> list[Path]:
    """Write all figures that the results allow as PNG files into `folder`."""
    make_folder(folder)
    made = []
    with matplotlib.rc_context(STYLE):
        for task, found in predictions.items():
            metric = metrics_of(task)[0].name
            made.append(_save(per_au_bars(results, task, metric), folder / f"per_au_{task}.png"))
            if task == "intensity":
                made.append(_save(over_time(found), folder / "over_time.png"))
                made.append(_save(bias(results), folder / "bias_per_participant.png"))
                made.append(_save(scatter(found), folder / "scatter.png"))
                made.append(_save(bland_altman(found), folder / "bland_altman.png"))
                made.append(_save(across_within(results), folder / "across_within.png"))
            if any(m.startswith("csn@") and not m.endswith(f"@{AUTO}") for m in found.preds):
                made.append(_save(sweep(results, task), folder / f"merge_sweep_{task}.png"))
    return made


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path)
    return path


def _colour(method: str, methods: list[str]) -> Any:
    if method in METHODS:
        return METHODS[method].colour
    swept = [m for m in methods if m not in METHODS]
    return SWEEP_COLOURS(0.15 + 0.7 * swept.index(method) / max(1, len(swept) - 1))


def _main(found: TaskPredictions) -> list[str]:
    """The three methods that have a panel each."""
    return [m for m in ("ncg", "bs", "csn") if m in found.preds] or list(found.preds)[:3]


def _axis(metric: str) -> str:
    found = get_metric(metric)
    return found.title + (" (lower is better)" * (not found.higher_is_better))


def _subtitle(axes: Axes, results: dict[str, Any]) -> None:
    data = results["dataset"]
    faces = "rendered people" if data["rendered"] else "participants"
    axes.text(
        1.0,
        1.02,
        f"{data['name']}: {data['participants']} {faces}, {data['frames']} frames, "
        f"{results['recipe']['backbone']}",
        transform=axes.transAxes,
        ha="right",
        fontsize=7,
        color="#666666",
    )


def per_au_bars(results: dict[str, Any], task: str, metric: str) -> Figure:
    """One group of bars an AU, one bar a method, with 95 % intervals."""
    methods = [m for m, cells in results["methods"].items() if task in cells]
    cells = {m: results["methods"][m][task][metric] for m in methods}
    names = [*next(iter(cells.values()))["per_au"], "mean"]
    figure = Figure(figsize=(9, 3.2))
    axes = figure.subplots()
    width = 0.8 / len(methods)
    for number, method in enumerate(methods):
        cell = cells[method]
        values = np.array([*cell["per_au"].values(), cell["mean"]], dtype=float)
        ranges = np.array([*cell["per_au_interval"].values(), cell["interval"]], dtype=float)
        x = np.arange(len(names)) + (number - (len(methods) - 1) / 2) * width
        axes.bar(x, values, width * 0.92, color=_colour(method, methods), label=label(method))
        error = np.abs(ranges.T - values)
        axes.errorbar(x, values, error, fmt="none", ecolor="#333333", elinewidth=0.7)
    axes.axvline(len(names) - 1.5, color="#bbbbbb", linewidth=0.8)
    axes.set_xticks(np.arange(len(names)), names)
    axes.set_ylabel(_axis(metric))
    axes.legend(ncols=min(6, len(methods)), loc="lower left", bbox_to_anchor=(-0.03, 1.06))
    _subtitle(axes, results)
    return figure


def over_time(found: TaskPredictions) -> Figure:
    """Predicted and true intensity over the frames of one participant.

    Shown is the median participant, by the three AUs whose plain prediction is furthest from the
    truth at rest, and these AUs: as much as calibration is for in the middle of all people. The
    caption of the figure says so.
    """
    shown = ("ncg", "bs", "csn")
    methods: list[str] = [m for m in shown if m in found.preds] or list(found.preds)[:1]
    plain = found.preds[methods[0]]
    people = found.participants
    rest = np.where(found.labels == 0, np.abs(plain), np.nan)
    names = np.unique(people)
    offsets = np.array([np.nanmean(rest[people == name], axis=0) for name in names])  # (P, A)
    active = np.array([(found.labels[people == name] >= 2).any(axis=0) for name in names])
    offsets = np.nan_to_num(np.where(active, offsets, 0.0))
    order = np.argsort(np.sort(offsets, axis=1)[:, -3:].sum(axis=1), kind="stable")
    person = names[order[len(order) // 2]]
    chosen = np.argsort(offsets[names == person][0])[::-1][:3]
    table = found.table.reset_index(drop=True)
    mine = table[table["participant"].astype(str) == person]
    mine = mine[mine["view"] == mine["view"].iloc[0]].sort_values(["sequence", "frame"])
    rows = mine.index.to_numpy()[:400]
    figure = Figure(figsize=(9, 1.5 * len(chosen) + 0.4))
    panels = figure.subplots(len(chosen), 1, sharex=True, squeeze=False)
    for axes, a in zip(panels[:, 0], sorted(chosen), strict=True):
        axes.fill_between(
            range(len(rows)), np.maximum(found.labels[rows, a], 0), color="#dddddd", label="true"
        )
        for method in methods:
            colour = _colour(method, methods)
            axes.plot(found.preds[method][rows, a], color=colour, lw=1.2, label=label(method))
        axes.set_ylim(-1, 5.2)
        axes.set_ylabel(f"AU{found.aus[a]}")
    panels[0, 0].legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0))
    panels[0, 0].set_title(
        f"participant {person}: median of the resting offsets under NCG", fontsize=7, loc="right"
    )
    panels[-1, 0].set_xlabel("frames that were read (sequences one after another)")
    return figure


def bias(results: dict[str, Any]) -> Figure:
    """Mean error of each participant, before and after calibration, sorted by NCG's."""
    values = results["bias_per_participant"]
    methods = [m for m in ("ncg", "bs", "csn") if m in values]
    people = sorted(values[methods[0]], key=lambda p: values[methods[0]][p] or 0.0)
    figure = Figure(figsize=(9, 2.8))
    axes = figure.subplots()
    for method in methods:
        heights = np.array([values[method][p] for p in people], dtype=float)
        name = f"{label(method)} (SD {spread(heights):.2f})"
        axes.plot(heights, "o", ms=4, color=METHODS[method].colour, label=name)
    axes.axhline(0, color="#333333", lw=0.8)
    axes.set_xticks([])
    axes.set_xlabel(f"{len(people)} participants, sorted by their NCG bias")
    axes.set_ylabel("mean error (0-5 scale)")
    axes.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0))
    _subtitle(axes, results)
    return figure


def scatter(found: TaskPredictions) -> Figure:
    """Distribution of predictions at each true intensity, all AUs together."""
    methods = _main(found)
    figure = Figure(figsize=(3 * len(methods), 2.8))
    panels = figure.subplots(1, len(methods), sharey=True, squeeze=False)
    for axes, method in zip(panels[0], methods, strict=True):
        levels = [found.preds[method][np.round(found.labels) == v] for v in range(6)]
        shown = [(v, np.clip(p, -1.5, 6.5)) for v, p in enumerate(levels) if len(p) > 1]
        parts = axes.violinplot(
            [p for _, p in shown], [v for v, _ in shown], widths=0.8, showmedians=True
        )
        for body in parts["bodies"]:
            body.set_facecolor(_colour(method, methods))
            body.set_alpha(0.6)
        axes.plot([0, 5], [0, 5], color="#333333", lw=0.8, ls=":")
        axes.set_title(label(method), fontsize=9)
        axes.set_xlabel("true intensity")
    panels[0, 0].set_ylabel("predicted")
    return figure


def bland_altman(found: TaskPredictions) -> Figure:
    """Difference against mean of prediction and label, with bias and 95 % limits of agreement.

    The frames of all AUs together; bias and limits (divisor n - 1) are
    `siamcal.evaluation.agreement.bland_altman`'s.
    """
    methods = _main(found)
    figure = Figure(figsize=(3 * len(methods), 2.8))
    panels = figure.subplots(1, len(methods), sharey=True, squeeze=False)
    for axes, method in zip(panels[0], methods, strict=True):
        valid = found.labels >= 0
        preds, labels = found.preds[method][valid], found.labels[valid]
        gap, middle = preds - labels, (preds + labels) / 2
        axes.hexbin(middle, gap, gridsize=40, bins="log", cmap="Greys", linewidths=0)
        numbers = agreement(found.preds[method], found.labels, found.participants, pooled=True)
        bias, lower, upper = (float(v[0]) for v in (numbers.bias, numbers.lower, numbers.upper))
        for height in (bias, lower, upper):
            axes.axhline(height, color=_colour(method, methods), lw=1)
        axes.set_title(f"{label(method)}: {bias:+.2f} ± {upper - bias:.2f}", fontsize=9)
        axes.set_xlabel("mean of prediction and label")
    panels[0, 0].set_ylabel("prediction − label")
    return figure


def across_within(results: dict[str, Any]) -> Figure:
    """Pooled against within-participant ICC, one point an AU and method."""
    figure = Figure(figsize=(3.6, 3.4))
    axes = figure.subplots()
    methods = [m for m, cells in results["methods"].items() if "intensity" in cells]
    for method in methods:
        cells = results["methods"][method]["intensity"]
        x = np.array(list(cells["icc_within"]["per_au"].values()), dtype=float)
        y = np.array(list(cells["icc"]["per_au"].values()), dtype=float)
        axes.plot(x, y, "o", ms=4, color=_colour(method, methods), label=label(method))
    axes.plot([0, 1], [0, 1], color="#333333", lw=0.8, ls=":")
    axes.set_xlabel("within-participant ICC")
    axes.set_ylabel("pooled ICC")
    axes.legend(loc="lower right", fontsize=7)
    return figure


def sweep(results: dict[str, Any], task: str) -> Figure:
    """Mean of the main metric over merge points, with 95 % intervals and NCG's line."""
    metric = metrics_of(task)[0].name
    methods = [
        m
        for m in results["methods"]
        if m.startswith("csn") and not m.endswith(f"@{AUTO}") and task in results["methods"][m]
    ]
    cells = [results["methods"][m][task][metric] for m in methods]
    own = joined(merge_points(results["recipe"]["merge_at"]))
    names = [m.partition("@")[2] or own for m in methods]
    means = np.array([cell["mean"] for cell in cells], dtype=float)
    ranges = np.array([cell["interval"] for cell in cells], dtype=float)
    figure = Figure(figsize=(5, 3))
    axes = figure.subplots()
    axes.errorbar(
        range(len(names)), means, np.abs(ranges.T - means), fmt="o-", color=METHODS["csn"].colour
    )
    if "ncg" in results["methods"]:
        plain = results["methods"]["ncg"][task][metric]["mean"]
        axes.axhline(plain, color=METHODS["ncg"].colour, label=label("ncg"))
        axes.legend()
    axes.set_xticks(range(len(names)), names)
    axes.set_xlabel("merge point")
    axes.set_ylabel(f"mean {_axis(metric)}")
    return figure
