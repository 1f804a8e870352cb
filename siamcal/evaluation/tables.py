"""Results as tables: Markdown, LaTeX, CSV; everything is read from `results.json` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from siamcal.environment import machine_line
from siamcal.evaluation.methods import label
from siamcal.evaluation.metrics import Metric, get_metric
from siamcal.model.places import joined, merge_points
from siamcal.paper import paper_table
from siamcal.training.start import start_note

__all__ = [
    "HONESTY",
    "blind_table",
    "choice_table",
    "metric_table",
    "paper_comparison",
    "summary_table",
    "to_latex",
    "to_markdown",
    "write_report",
]

HONESTY = (
    "Rendered faces: these numbers show that the machinery works and how much calibration can help "
    "where people differ at rest. They never say how well real faces are read."
)


def summary_table(results: dict[str, Any], task: str) -> pd.DataFrame:
    """Means over AUs with 95 % intervals: one row a method, then the paired differences.

    Where the paper has the same cell, a column shows its value and one the difference; an asterisk
    marks a paper value inside our interval.
    """
    rows = {}
    for method, cells in results["methods"].items():
        if task not in cells:
            continue
        row = {}
        for name, cell in cells[task].items():
            metric = get_metric(name)
            row[metric.title] = _with_interval(cell, metric)
            paper = results["paper"].get(method, {}).get(task, {}).get(name)
            if paper is not None:
                row[f"{metric.title}, paper"] = _against_paper(cell, paper["mean"], metric)
        rows[label(method)] = row
    for pair, cells in results["differences"].items():
        if task not in cells:
            continue
        first, _, second = pair.rpartition("-")
        rows[f"{label(first)} − {label(second)}"] = {
            get_metric(name).title: _with_interval(cell, get_metric(name), sign=True)
            for name, cell in cells[task].items()
        }
    return pd.DataFrame.from_dict(rows, orient="index").fillna("")


def _with_interval(cell: dict[str, Any], metric: Metric, *, sign: bool = False) -> str:
    return (
        f"{metric.text(cell['mean'], sign=sign)} {metric.range_text(cell['interval'], sign=sign)}"
    )


def _against_paper(cell: dict[str, Any], paper: float, metric: Metric) -> str:
    mean, (low, high) = cell["mean"], cell["interval"]
    if mean is None:
        return metric.text(paper)
    inside = low is not None and high is not None and low <= paper <= high
    gap = metric.text(mean - paper, sign=True)
    return f"{metric.text(paper)} ({gap}){'*' if inside else ''}"


def metric_table(results: dict[str, Any], task: str, metric: str) -> pd.DataFrame:
    """One metric an AU: a row a method (and its row in the paper), a column an AU and the mean."""
    rows = {}

    def row(mean: float | None, per_au: dict[str, Any], sign: bool = False) -> dict[str, str]:
        values = {**per_au, "mean": mean}
        return {au: get_metric(metric).text(v, sign=sign) for au, v in values.items()}

    for method, cells in results["methods"].items():
        if task not in cells:
            continue
        cell = cells[task][metric]
        rows[label(method)] = row(cell["mean"], cell["per_au"])
        paper = results["paper"].get(method, {}).get(task, {}).get(metric)
        if paper is not None:
            printed = paper.get("per_au") or {}
            theirs = {au: printed.get(au) for au in cell["per_au"]}
            rows[f"{label(method)}, paper"] = row(paper["mean"], theirs)
    difference = results["differences"].get("csn-ncg", {}).get(task, {}).get(metric)
    if difference:
        name = f"{label('csn')} − {label('ncg')}"
        rows[name] = row(difference["mean"], difference["per_au"], sign=True)
    return pd.DataFrame.from_dict(rows, orient="index")


def paper_comparison(results: dict[str, Any], table: str, task: str) -> pd.DataFrame:
    """A table of the paper beside ours: one row a method and metric.

    Columns: ours, our 95 % interval, the paper's value, the difference, whether the paper's value
    lies in our interval; then "ours / paper" for each AU that the paper prints. Rows of methods
    that weren't run (other people's) hold the paper's values alone.
    """
    rows = {}
    ours = "ours, random start" if start_note(results["recipe"]) else "ours"
    for cell in paper_table(table):
        if cell["dataset"] != results["dataset"]["name"] or cell["task"] != task:
            continue
        metric = get_metric(cell["metric"])
        own = _own_cell(results, cell["method"], task, metric.name)
        row = {"paper": metric.text(cell["mean"])}
        if own:
            low, high = own["interval"]
            known = None not in (own["mean"], low, high)
            row = {
                ours: metric.text(own["mean"]),
                "95 % interval": metric.range_text(own["interval"]),
                **row,
                "difference": metric.text(own["mean"] - cell["mean"], sign=True) if known else "",
                "inside": ("yes" if low <= cell["mean"] <= high else "no") if known else "",
            }
        for au, value in cell["per_au"].items():
            mine = f"{metric.text(own['per_au'].get(au))} / " if own else ""
            row[au] = f"{mine}{metric.text(value)}"
        rows[f"{cell['name']}, {metric.title}"] = row
    frame = pd.DataFrame.from_dict(rows, orient="index")
    first = [c for c in (ours, "95 % interval", "paper", "difference", "inside") if c in frame]
    return frame[[*first, *sorted(c for c in map(str, frame) if c not in first)]].fillna("")


def _own_cell(results: dict[str, Any], method: str | None, task: str, metric: str) -> Any:
    if method == f"csn@{results['recipe']['merge_at']}":
        method = "csn"
    return results["methods"].get(method, {}).get(task, {}).get(metric)


def provenance(results: dict[str, Any]) -> str:
    """On what data, seeds, people and versions a result was made, in one paragraph."""
    data, recipe = results["dataset"], results["recipe"]
    seeds, own = list(results["seeds"]), str(recipe["seed"])
    seed = f"{own} (all of {', '.join(seeds)}: last table)" if len(seeds) > 1 else own
    options = ", ".join(f"{k}={v}" for k, v in recipe["dataset_options"].items())
    text = (
        f"Data set {data['name']}{f' ({options})' if options else ''}: {data['participants']} "
        f"participants, {data['frames']} frames ({data['dropped_frames']} dropped), "
        f"{len(data['folds'])} participant-exclusive folds. Backbone {recipe['backbone']}, merge "
        f"at {_merge_at(results)}, seed {seed}. Intervals: 95 %, from resampling participants. "
        f"{machine_line(results['environment'])}"
    )
    if facts := results.get("checkpoint"):
        text += (
            f"\n\nNCG is the network of {facts['file']} (SHA-256 {facts['sha256'][:16]}), not "
            f"trained here; its {facts['outputs']} outputs ({facts['layout']}) are read in the "
            f"order {', '.join(facts['order'])}. That it was trained on none of the people tested "
            "is its user's word."
        )
    return f"{text}\n\n{HONESTY}" if data["rendered"] else text


def _merge_at(results: dict[str, Any]) -> str:
    """The merge point; of a choice, what the folds of the first seed chose."""
    for seeds in results.get("merge_points", {}).values():
        chosen = [choice["chosen"] for choice in next(iter(seeds.values())).values()]
        return "/".join(dict.fromkeys(chosen)) + " (chosen in each fold on its training people)"
    return joined(merge_points(results["recipe"]["merge_at"]))


def choice_table(results: dict[str, Any], task: str) -> pd.DataFrame:
    """Merge points that were chosen: one row a fold (and seed), a column a candidate.

    Empty where none was chosen. Cells are the mean over AUs on the fold's training people.
    """
    rows = {}
    for seed, folds in results.get("merge_points", {}).get(task, {}).items():
        for fold, choice in folds.items():
            metric = get_metric(choice["metric"])
            cells = {p: metric.text(v) for p, v in choice["values"].items()}
            cells |= dict.fromkeys(choice["refused"], "refused")
            several = len(results["merge_points"][task]) > 1
            name = f"{fold}, seed {seed}" if several else fold
            rows[name] = {"chosen": choice["chosen"], **cells}
    return pd.DataFrame.from_dict(rows, orient="index").fillna("")


def markdown(results: dict[str, Any]) -> str:
    """The whole report as Markdown."""
    note = start_note(results["recipe"])
    noted = [note] * bool(note)  # beside every table: tables are copied one by one
    parts = [f"# {results['name']}", *noted, provenance(results)]
    for task in _tasks(results):
        parts += [f"## AU {task}", to_markdown(summary_table(results, task), "method"), *noted]
        metrics = next(iter(c[task] for c in results["methods"].values() if task in c))
        for metric in metrics:
            table = to_markdown(metric_table(results, task, metric), "method")
            parts += [f"### {get_metric(metric).title}", table, *noted]
        chosen = choice_table(results, task)
        if len(chosen):
            title = "### Merge point, chosen on the training people"
            note = "What the frozen, anchored network reads there (mean over AUs): no test label."
            parts += [title, note, to_markdown(chosen, "fold"), *noted]
        if task in results["sanity"]:
            parts += ["### Constant and chance predictors", blind_table(results["sanity"][task])]
    if results["seeds"]:
        parts += ["## Seeds", to_markdown(_seed_table(results), "seed"), *noted]
    if any("paper" in c for t in _tasks(results) for c in summary_table(results, t).columns):
        parts.append("Paper columns: value (ours minus paper's); * inside our 95 % interval.")
    return "\n\n".join(parts) + "\n"


def _tasks(results: dict[str, Any]) -> list[str]:
    return sorted({t for cells in results["methods"].values() for t in cells}, reverse=True)


def blind_table(cells: dict[str, Any]) -> str:
    """Means of the predictors that see no image, as Markdown."""
    rows = {
        name: {get_metric(m).title: get_metric(m).text(v) for m, v in values.items()}
        for name, values in cells.items()
    }
    return to_markdown(pd.DataFrame(rows).T, "predictor")


def _seed_table(results: dict[str, Any]) -> pd.DataFrame:
    rows = {
        seed: {
            f"{label(method)} {get_metric(metric).title}": value
            for method, tasks in methods.items()
            for metrics in tasks.values()
            for metric, value in metrics.items()
            if get_metric(metric).headline
        }
        for seed, methods in results["seeds"].items()
    }
    frame = pd.DataFrame.from_dict(rows, orient="index").astype(float)
    spread = pd.DataFrame({"mean": frame.mean(), "standard deviation": frame.std()}).T
    return pd.concat([frame, spread]).map(lambda v: f"{v:.3f}")


def to_markdown(table: pd.DataFrame, corner: str) -> str:
    """A data frame of texts as a Markdown table."""
    head = [corner, *map(str, table.columns)]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    lines += [
        "| " + " | ".join([str(index), *map(str, row)]) + " |"
        for index, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    return "\n".join(lines)


def to_latex(table: pd.DataFrame, caption: str) -> str:
    """A data frame of texts as a LaTeX table (needs the package booktabs)."""
    escaped = table.rename(index=_latex, columns=_latex).map(_latex)
    columns = "l" + "r" * len(table.columns)
    head = " & ".join(["", *escaped.columns]) + r" \\"
    body = [
        " & ".join([str(index), *row]) + r" \\"
        for index, row in zip(escaped.index, escaped.to_numpy(), strict=True)
    ]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_latex(caption)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _latex(text: Any) -> str:
    out = str(text).replace("−", "$-$").replace("–", "--")
    for sign in "&%_#":
        out = out.replace(sign, "\\" + sign)
    return out


def write_report(results: dict[str, Any], folder: Path) -> None:
    """Write `table.md`, `table.tex` and `table.csv` into a run's folder."""
    (folder / "table.md").write_text(markdown(results))
    latex, rows = [], []
    note = start_note(results["recipe"])
    for task in _tasks(results):
        caption = f"{results['name']}: AU {task}" + f". {note}" * bool(note)
        latex.append(to_latex(summary_table(results, task), caption))
        for method, cells in results["methods"].items():
            for metric, cell in cells.get(task, {}).items():
                values = {**cell["per_au"], "mean": cell["mean"]}
                rows += [
                    {"task": task, "method": method, "metric": metric, "au": au, "value": value}
                    | ({"start": "random"} if note else {})
                    for au, value in values.items()
                ]
    (folder / "table.tex").write_text("\n\n".join(latex) + "\n")
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
