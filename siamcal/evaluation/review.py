"""What a reviewer asks of a finished run, computed from its stored predictions.

Paired tests with corrected p-values, results by group, across against within participants,
Bland-Altman agreement, and predictors that never see an image.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from siamcal.errors import ConfigError, DataNotFoundError
from siamcal.evaluation.intervals import (
    across_and_within,
    bland_altman,
    group_results,
    holm,
    paired_difference,
    sanity_predictors,
)
from siamcal.evaluation.metrics import TASK_OF_METRIC, compute, mean_over_aus
from siamcal.evaluation.tables import HONESTY, METRIC_NAMES, label, to_markdown

__all__ = ["StoredPredictions", "read_groups", "read_run", "review", "review_markdown"]

_COLUMN = re.compile(r"(.+)_AU(\d{2})")
_MAIN_METRICS = {"intensity": ("icc", "icc_within", "mae"), "detection": ("f1", "accuracy")}


@dataclass(frozen=True, eq=False)
class StoredPredictions:
    """Pooled validation predictions of one task, as a run keeps them.

    Attributes:
        task: "intensity" or "detection".
        aus: The A action units.
        participants: (N,).
        labels: (N, A) intensities or occurrence; negative is invalid.
        preds: Method -> (N, A) intensities or logits.
    """

    task: str
    aus: tuple[int, ...]
    participants: np.ndarray
    labels: np.ndarray
    preds: dict[str, np.ndarray]


def read_run(folder: Path) -> tuple[dict[str, Any], list[StoredPredictions]]:
    """Results and predictions of a run's folder.

    Raises:
        DataNotFoundError: The folder holds no finished run.
    """
    files = sorted(folder.glob("predictions_*.parquet"))
    if not (folder / "results.json").is_file() or not files:
        raise DataNotFoundError(
            f"{folder} holds no finished run (results.json and predictions_*.parquet). "
            f"Make one: siamcal bench --name {folder.name or 'NAME'}"
        )
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return results, [_read_predictions(file) for file in files]


def _read_predictions(file: Path) -> StoredPredictions:
    table = pd.read_parquet(file)
    found = [(m.group(1), int(m.group(2))) for m in map(_COLUMN.fullmatch, table.columns) if m]
    aus = tuple(dict.fromkeys(au for method, au in found if method == "label"))
    methods = list(dict.fromkeys(method for method, _ in found if method != "label"))

    def values(method: str) -> np.ndarray:
        return table[[f"{method}_AU{au:02d}" for au in aus]].to_numpy(np.float64)

    return StoredPredictions(
        file.stem.removeprefix("predictions_"),
        aus,
        table["participant"].to_numpy(dtype=str),
        values("label"),
        {method: values(method) for method in methods},
    )


def read_groups(path: Path, by: str, participants: Sequence[str]) -> dict[str, str]:
    """Participant -> group from a CSV or Parquet table with a column "participant".

    The table may list participants more than once (a manifest), as long as the group is the same.

    Raises:
        DataNotFoundError: The table isn't there.
        ConfigError: A column is missing, a participant is in two groups, or nobody is in any.
    """
    if not path.is_file():
        raise DataNotFoundError(f"The participants' table {path} doesn't exist.")
    parquet = path.suffix.lower() in (".parquet", ".pq")
    table = pd.read_parquet(path) if parquet else pd.read_csv(path, dtype=str)
    missing = [column for column in ("participant", by) if column not in table.columns]
    if missing:
        raise ConfigError(
            f"{path} has no column {' or '.join(repr(m) for m in missing)}; "
            f"it has {', '.join(map(str, table.columns))}."
        )
    pairs = table[["participant", by]].dropna().astype(str).drop_duplicates()
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
    found: StoredPredictions,
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
    options = {"resamples": resamples, "seed": seed}
    out: dict[str, Any] = {
        "task": found.task,
        "participants": len(set(found.participants)),
        "frames": len(found.participants),
        "differences": _differences(found, options),
        "sanity": _sanity(results, found, seed),
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
                for metric in _MAIN_METRICS[found.task]
            }
            for method, preds in found.preds.items()
        }
    return out


def _differences(found: StoredPredictions, options: dict[str, int]) -> dict[str, Any]:
    pairs = [(a, b) for a in found.preds for b in found.preds if _is_worth_testing(a, b)]
    out: dict[str, Any] = {}
    for first, second in pairs:
        cells = {}
        for metric in _MAIN_METRICS[found.task]:
            difference = paired_difference(
                metric,
                found.preds[first],
                found.preds[second],
                found.labels,
                found.participants,
                resamples=options["resamples"],
                seed=options["seed"],
            )
            cell = difference.to_dict(found.aus)
            corrected = holm(difference.per_au_p_value)
            cell["per_au_p_holm"] = {
                f"AU{au:02d}": None if np.isnan(p) else float(p)
                for au, p in zip(found.aus, corrected, strict=True)
            }
            cells[metric] = cell
        out[f"{first}-{second}"] = cells
    return out


def _is_worth_testing(first: str, second: str) -> bool:
    """Calibrated against plain and against subtraction; subtraction against plain."""
    if first.startswith("csn"):
        return second in ("ncg", "bs")
    return (first, second) == ("bs", "ncg")


def _sanity(results: Mapping[str, Any], found: StoredPredictions, seed: int) -> dict[str, Any]:
    """Blind predictors, each fold's made from the other folds' labels as training would."""
    folds = [set(fold) for fold in results["dataset"]["folds"]]
    member = np.full(len(found.participants), -1)
    for number, fold in enumerate(folds):
        member[np.isin(found.participants, list(fold))] = number
    blind: dict[str, np.ndarray] = {}
    for number in np.unique(member):
        inside = member == number
        outside = ~inside if (~inside).any() else inside
        made = sanity_predictors(
            found.labels[outside], int(inside.sum()), task=found.task, seed=seed + int(number)
        )
        for name, preds in made.items():
            blind.setdefault(name, np.full(found.labels.shape, np.nan))[inside] = preds
    metrics = [metric for metric, task in TASK_OF_METRIC.items() if task == found.task]
    return {
        name: {
            metric: _number(mean_over_aus(compute(metric, preds, found.labels, found.participants)))
            for metric in metrics
        }
        for name, preds in blind.items()
    }


def _across(found: StoredPredictions, preds: np.ndarray) -> dict[str, Any]:
    both = across_and_within(preds, found.labels, found.participants)
    fields = {"across": both.across, "within": both.within, "bias_sd": both.bias_sd}
    out = {name: _by_au(values, found.aus) for name, values in fields.items()}
    out["undefined_participants"] = {
        f"AU{au:02d}": int(count) for au, count in zip(found.aus, both.undefined, strict=True)
    }
    return out


def _agreement(
    found: StoredPredictions, preds: np.ndarray, options: dict[str, int]
) -> dict[str, Any]:
    numbers = bland_altman(preds, found.labels, found.participants, **options)
    out: dict[str, Any] = {
        name: _by_au(getattr(numbers, name), found.aus)
        for name in ("bias", "sd", "lower", "upper", "between_sd", "slope")
    }
    for name in ("bias_interval", "lower_interval", "upper_interval"):
        out[name] = {
            f"AU{au:02d}": [_number(v) for v in pair]
            for au, pair in zip(found.aus, getattr(numbers, name), strict=True)
        }
    return out


def _by_au(values: np.ndarray, aus: Sequence[int]) -> dict[str, Any]:
    per_au = {f"AU{au:02d}": _number(v) for au, v in zip(aus, values, strict=True)}
    return {"mean": _number(mean_over_aus(values)), "per_au": per_au}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


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
        parts += ["### Predictors that see no image", _sanity_table(one["sanity"])]
    return "\n\n".join(parts) + "\n"


def _difference_table(differences: Mapping[str, Any]) -> str:
    rows = {}
    for pair, cells in differences.items():
        first, _, second = pair.rpartition("-")
        for metric, cell in cells.items():
            low, high = cell["interval"]
            sure = [au for au, p in cell["per_au_p_holm"].items() if p is not None and p < 0.05]
            rows[f"{label(first)} − {label(second)}, {METRIC_NAMES[metric]}"] = {
                "difference": _text(cell["mean"], sign=True),
                "95 % interval": f"[{_text(low, sign=True)}, {_text(high, sign=True)}]",
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
        for metric, cells in metrics.items():
            for group, cell in cells.items():
                row = rows.setdefault(f"{group}, {label(method)}", {})
                row["participants"] = str(cell["participants"])
                low, high = cell["interval"]
                row[METRIC_NAMES[metric]] = f"{_text(cell['mean'])} [{_text(low)}, {_text(high)}]"
    return _table(dict(sorted(rows.items())), f"{by}, method")


def _sanity_table(sanity: Mapping[str, Any]) -> str:
    rows = {
        name: {METRIC_NAMES[metric]: _text(value) for metric, value in cells.items()}
        for name, cells in sanity.items()
    }
    return _table(rows, "predictor")


def _table(rows: Mapping[str, Mapping[str, str]], corner: str) -> str:
    return to_markdown(pd.DataFrame.from_dict(dict(rows), orient="index").fillna(""), corner)


def _text(value: float | None, decimals: int = 3, *, sign: bool = False) -> str:
    return "–" if value is None else f"{value:{'+' if sign else ''}.{decimals}f}"
