"""What a reviewer asks of a finished run, computed from its stored predictions.

Paired tests with corrected p-values, results by group, across against within participants,
Bland-Altman agreement, and predictors that never see an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from siamcal.errors import ConfigError, DataNotFoundError
from siamcal.evaluation.agreement import across_and_within, bland_altman
from siamcal.evaluation.blind import blind_results
from siamcal.evaluation.intervals import group_results, holm, paired_difference
from siamcal.evaluation.methods import label
from siamcal.evaluation.metrics import get_metric, mean_over_aus, metrics_of
from siamcal.evaluation.predictions import TaskPredictions
from siamcal.evaluation.sums import for_json
from siamcal.evaluation.tables import HONESTY, blind_table, to_markdown
from siamcal.files import read_json
from siamcal.table_files import read_table

__all__ = ["read_groups", "read_run", "review", "review_markdown"]

# How tables write that a participant's group isn't known.
MOST_SHOWN = 8  # runs that a message names
_UNKNOWN = ("", "na", "n/a", "nan", "none", "null", "<na>")


def read_run(folder: Path) -> tuple[dict[str, Any], list[TaskPredictions]]:
    """Results and predictions of a run's folder.

    Raises:
        DataNotFoundError: The folder holds no finished run.
        ConfigError: One of its files is damaged.
    """
    found = TaskPredictions.load(folder)
    if not (folder / "results.json").is_file() or not found:
        what = "holds no finished run (results.json and predictions_*.parquet)"
        raise DataNotFoundError(
            f"{folder} {what if folder.is_dir() else 'is no folder'}. {_finished(folder)}"
        )
    results = read_json(folder / "results.json")
    if fault := _fault(results):
        raise ConfigError(
            f"{folder / 'results.json'} {fault}; delete it and start the same `siamcal bench` "
            "again."
        )
    inside = {person for fold in results["dataset"]["folds"] for person in fold}
    for task in found:
        if strangers := sorted(set(task.participants) - inside):
            raise ConfigError(
                f"{folder}: predictions_{task.task}.parquet has {', '.join(strangers[:5])[:200]}, "
                "who is in no fold of results.json: they are of two runs. Start the same `siamcal "
                "bench` again."
            )
    return results, found


def _finished(folder: Path) -> str:
    """Which runs there are instead: beside the folder, and where siamcal bench puts them."""
    places = dict.fromkeys((folder.parent, Path("runs")))
    runs = [
        file.parent
        for place in places
        for file in sorted(place.glob("*/results.json"))
        if any(file.parent.glob("predictions_*.parquet"))
    ]
    if not runs:
        return "siamcal bench makes one and prints its folder."
    shown = ", ".join(map(str, runs[:MOST_SHOWN]))
    more = f" and {len(runs) - MOST_SHOWN} more" if len(runs) > MOST_SHOWN else ""
    return f"Finished are {shown}{more}."


def _fault(results: Any) -> str:
    """What of a run's results isn't as siamcal writes it, as far as it is read here, or ""."""
    table = results if isinstance(results, dict) else {}
    dataset = table.get("dataset")
    if not isinstance(dataset, dict):
        return "doesn't say what it was measured on"
    if not isinstance(table.get("name"), str):
        return "has no name"
    if not isinstance(dataset.get("rendered"), bool):
        return "doesn't say whether the people were rendered"
    folds = dataset.get("folds")
    listed = folds if isinstance(folds, list) else [None]
    if not all(isinstance(f, list) and all(isinstance(p, str) for p in f) for f in listed):
        return "doesn't list its folds' participants"
    return ""


def read_groups(path: Path, by: str, participants: Sequence[str]) -> dict[str, str]:
    """Participant -> group from a CSV or Parquet table with a column "participant".

    The table may list participants more than once (a manifest), as long as the group is the same.

    Raises:
        DataNotFoundError: The table isn't there.
        ConfigError: A column is missing, a participant is in two groups, or nobody is in any.
    """
    if not path.exists():
        raise DataNotFoundError(
            f"There is no table of participants {path}, so nobody's {by!r} is known. Name one that "
            "has it: --metadata TABLE.csv, with the columns participant and "
            f"{by}."
        )
    table = read_table(path)
    missing = [column for column in ("participant", by) if column not in table.columns]
    if missing:
        raise ConfigError(
            f"{path} has no column {' or '.join(repr(m) for m in missing)}; "
            f"it has {', '.join(map(str, table.columns))}."
        )
    pairs = table[["participant", by]].dropna().astype(str)
    pairs = pairs[~pairs[by].str.strip().str.lower().isin(_UNKNOWN)].drop_duplicates()
    torn = sorted(set(pairs["participant"][pairs["participant"].duplicated()]))
    if torn:
        raise ConfigError(f"{path} puts {', '.join(torn[:5])} into several groups of {by!r}.")
    groups = dict(zip(pairs["participant"], pairs[by], strict=True))
    if not set(groups) & set(participants):
        raise ConfigError(
            f"{path} lists none of the run's participants, such as {sorted(set(participants))[0]}."
        )
    return groups


def review(
    results: Mapping[str, Any],
    found: TaskPredictions,
    groups: Mapping[str, str] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """All statistics of one task, as plain JSON.

    Args:
        results: The run's `results.json`.
        found: Its predictions.
        groups: Participant -> group, for results by group.
        resamples: Resamples and permutations.
        seed: Of both.
    """
    options: Any = {"resamples": resamples, "seed": seed}
    out: dict[str, Any] = {
        "task": found.task,
        "participants": len(set(found.participants)),
        "frames": len(found.participants),
        "differences": _differences(found, options),
        "sanity": blind_results(found, results["dataset"]["folds"], seed),
    }
    if found.task == "intensity":
        out["across_within"] = {m: _across(found, p) for m, p in found.preds.items()}
        out["agreement"] = {m: _agreement(found, p, options) for m, p in found.preds.items()}
    if groups is not None:
        out["groups"] = {
            method: {
                metric: {
                    group: interval.to_dict(found.aus)
                    for group, interval in group_results(
                        metric, preds, found.labels, found.participants, groups, **options
                    ).items()
                }
                for metric in _reviewed(found.task)
            }
            for method, preds in found.preds.items()
        }
    return out


def _reviewed(task: str) -> list[str]:
    return [metric.name for metric in metrics_of(task) if metric.reviewed]


def _differences(found: TaskPredictions, options: Any) -> dict[str, Any]:
    pairs = [(a, b) for a in found.preds for b in found.preds if _is_worth_testing(a, b)]
    out: dict[str, Any] = {}
    for first, second in pairs:
        cells = {}
        for metric in _reviewed(found.task):
            difference = paired_difference(
                metric,
                found.preds[first],
                found.preds[second],
                found.labels,
                found.participants,
                **options,
            )
            cell = difference.to_dict(found.aus)
            corrected = holm(difference.per_au_p_value)
            cell["per_au_p_holm"] = dict(zip(cell["per_au"], for_json(corrected), strict=True))
            cells[metric] = cell
        out[f"{first}-{second}"] = cells
    return out


def _is_worth_testing(first: str, second: str) -> bool:
    """Calibrated against plain and against subtraction; subtraction against plain."""
    if first.startswith("csn"):
        return second in ("ncg", "bs")
    return (first, second) == ("bs", "ncg")


def _across(found: TaskPredictions, preds: np.ndarray) -> dict[str, Any]:
    both = across_and_within(preds, found.labels, found.participants)
    fields = {"across": both.across, "within": both.within, "bias_sd": both.bias_sd}
    out = {name: _by_au(values, found.aus) for name, values in fields.items()}
    out["undefined_participants"] = {
        f"AU{au:02d}": int(count) for au, count in zip(found.aus, both.undefined, strict=True)
    }
    return out


def _agreement(found: TaskPredictions, preds: np.ndarray, options: Any) -> dict[str, Any]:
    numbers = bland_altman(preds, found.labels, found.participants, **options)
    return {
        name: (_per_au if name.endswith("_interval") else _by_au)(values, found.aus)
        for name, values in vars(numbers).items()
    }


def _by_au(values: np.ndarray, aus: Sequence[int]) -> dict[str, Any]:
    return {"mean": for_json(mean_over_aus(values)), "per_au": _per_au(values, aus)}


def _per_au(values: np.ndarray, aus: Sequence[int]) -> dict[str, Any]:
    return {f"AU{au:02d}": v for au, v in zip(aus, for_json(values), strict=True)}


def review_markdown(
    results: Mapping[str, Any], reviews: Sequence[Mapping[str, Any]], by: str = "group"
) -> str:
    """The statistics as Markdown tables."""
    parts = [f"# {results['name']}: statistics"]
    if results["dataset"]["rendered"]:
        parts.append(HONESTY)
    for one in reviews:
        parts.append(
            f"## AU {one['task']}\n\n{one['participants']} participants, {one['frames']} frames. "
            f"Intervals: 95 %, from resampling participants. p: two-sided permutation test that "
            f"swaps the two methods' predictions of whole participants; per AU corrected by Holm."
        )
        parts += ["### Paired differences", _difference_table(one["differences"])]
        if "across_within" in one:
            parts += ["### Across and within participants", _across_table(one["across_within"])]
            parts += ["### Agreement (Bland-Altman)", _agreement_table(one["agreement"])]
        if "groups" in one:
            parts += [f"### By {by}", _group_table(one["groups"], by)]
        parts += ["### Predictors that see no image", blind_table(one["sanity"])]
    return "\n\n".join(parts) + "\n"


def _difference_table(differences: Mapping[str, Any]) -> str:
    rows = {}
    for pair, cells in differences.items():
        first, _, second = pair.rpartition("-")
        for name, cell in cells.items():
            metric = get_metric(name)
            sure = [au for au, p in cell["per_au_p_holm"].items() if p is not None and p < 0.05]
            rows[f"{label(first)} − {label(second)}, {metric.title}"] = {
                "difference": metric.text(cell["mean"], sign=True),
                "95 % interval": metric.range_text(cell["interval"], sign=True),
                "p": _text(cell["p_value"], 4),
                "AUs with p < .05": ", ".join(sure) or "none",
            }
    return _table(rows, "difference")


def _across_table(across: Mapping[str, Any]) -> str:
    rows = {
        label(method): {
            "ICC across": _text(cell["across"]["mean"]),
            "ICC within": _text(cell["within"]["mean"]),
            "SD of participants' bias": _text(cell["bias_sd"]["mean"]),
            "undefined ICCs left out": str(sum(cell["undefined_participants"].values())),
        }
        for method, cell in across.items()
    }
    return _table(rows, "method")


def _agreement_table(agreement: Mapping[str, Any]) -> str:
    rows = {}
    for method, cell in agreement.items():
        for au in cell["bias"]["per_au"]:
            low, high = cell["bias_interval"][au]
            rows[f"{label(method)}, {au}"] = {
                "bias": _text(cell["bias"]["per_au"][au], sign=True),
                "95 % interval": f"[{_text(low, sign=True)}, {_text(high, sign=True)}]",
                "limits of agreement": (
                    f"{_text(cell['lower']['per_au'][au], sign=True)} to "
                    f"{_text(cell['upper']['per_au'][au], sign=True)}"
                ),
                "SD between participants": _text(cell["between_sd"]["per_au"][au]),
                "slope": _text(cell["slope"]["per_au"][au], sign=True),
            }
    return _table(rows, "method, AU")


def _group_table(groups: Mapping[str, Any], by: str) -> str:
    rows: dict[str, dict[str, str]] = {}
    for method, metrics in groups.items():
        for name, cells in metrics.items():
            metric = get_metric(name)
            for group, cell in cells.items():
                row = rows.setdefault(f"{group}, {label(method)}", {})
                row["participants"] = str(cell["participants"])
                row[metric.title] = (
                    f"{metric.text(cell['mean'])} {metric.range_text(cell['interval'])}"
                )
    return _table(dict(sorted(rows.items())), f"{by}, method")


def _table(rows: Mapping[str, Mapping[str, str]], corner: str) -> str:
    return to_markdown(pd.DataFrame.from_dict(dict(rows), orient="index").fillna(""), corner)


def _text(value: float | None, decimals: int = 3, *, sign: bool = False) -> str:
    return "–" if value is None else f"{value:{'+' if sign else ''}.{decimals}f}"
