"""What arXiv:2409.00240 reports, looked up by data set, method and metric.

The values are the paper's printed ones. Where a printed per-AU value can't be read, the authors'
own output (the notebook beside their released code) stands in for it, and the cell says so.
"""

from __future__ import annotations

import copy
import json
from functools import lru_cache
from typing import Any

from siamcal.errors import UnknownNameError
from siamcal.files import asset
from siamcal.preprocessing import Preprocessing

__all__ = [
    "PAPER_PREPROCESSING",
    "TABLES",
    "paper_aus",
    "paper_cell",
    "paper_table",
    "protocol",
    "table_plan",
]

# Of frames that are .jpg, as those of DISFA and DISFA+: the released code writes each crop in its
# frame's format. UNBC's .png have jpeg=0.
PAPER_PREPROCESSING = Preprocessing(
    align="csn_quad",
    illumination="csn_released",
    contrast="none",
    mask="none",
    detection="once",
    jpeg=95,
)

TABLES = ("2", "3", "4", "5", "6", "S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9")

# As the paper and its protocol write them -> siamcal's names.
_DATASETS = {"DISFA": "disfa", "DISFA+": "disfa-plus", "UNBC-McMaster": "unbc"}

# Merge points in the names of the released iResNet-50: "StageK" merges at the entrance of layerK.
_METHODS = {
    "IR50 (NCG)": "ncg",
    "IR50 (OFC w/ BS)": "bs",
    "CSN-IR50 (OFC)": "csn",
    "CSN-IR50-Stage1": "csn@layer1",
    "CSN-IR50-Stage2": "csn@layer2",
    "CSN-IR50-Stage3": "csn@layer3",
    "CSN-IR50-Stage4": "csn@layer4",
    "CSN-IR50-FC": "csn@fc",
    "CSN-IR50-Output": "csn@output",
}

# The paper's CSN is Stage 4, printed under both names.
_SAME_METHOD = {"csn": "csn@layer4", "csn@layer4": "csn"}


def paper_table(table: str) -> list[dict[str, Any]]:
    """All cells of a table in the paper's order.

    Args:
        table: A key of `TABLES`; "Table 2" and "s5" are understood too.

    Returns:
        Cells with `table, dataset, task, metric, method` (siamcal's name, None for other people's
        methods), `name` (as printed), `mean`, `per_au` ({"AU01": value}), `from_notebook` (AUs
        whose value is the authors' notebook's), `note`.

    Raises:
        UnknownNameError: The paper has no such table.
    """
    return copy.deepcopy(list(_cells()[_table_key(table)]))


def paper_cell(
    dataset: str, method: str, metric: str, *, table: str | None = None
) -> dict[str, Any] | None:
    """One cell of the paper, or None where the paper has none.

    Args:
        dataset: "disfa", "disfa-plus" or "unbc".
        method: "ncg", "bs", "csn", "csn@layer1" .. "csn@output", or a name as printed.
        metric: A key of `siamcal.evaluation.metrics.METRICS`.
        table: Look in this table only. Without it, the table that prints most AUs is taken.
    """
    wanted = {method, _SAME_METHOD.get(method, method)}
    places = TABLES if table is None else (_table_key(table),)
    found = [
        cell
        for key in places
        for cell in _cells()[key]
        if cell["dataset"] == dataset.replace("_", "-")
        and cell["metric"] == metric
        and (cell["method"] in wanted or cell["name"] == method)
    ]
    if not found:
        return None
    # Most printed AUs first; the exact method name before its synonym; then the paper's order.
    best = min(
        found,
        key=lambda c: (len(c["from_notebook"]) + 100 * (not c["per_au"]), c["method"] != method),
    )
    return copy.deepcopy(best)


def table_plan(table: str) -> list[tuple[str, str, tuple[str, ...]]]:
    """What has to be trained for a table: (data set, task, methods) in the paper's order."""
    plan: dict[tuple[str, str], list[str]] = {}
    for cell in paper_table(table):
        if cell["method"] is not None:
            methods = plan.setdefault((cell["dataset"], cell["task"]), [])
            if cell["method"] not in methods:
                methods.append(cell["method"])
    return [(dataset, task, tuple(methods)) for (dataset, task), methods in plan.items()]


def paper_aus(dataset: str, task: str) -> tuple[int, ...]:
    """AU numbers of a data set ("disfa", "disfa-plus", "unbc") in the order of the outputs."""
    facts = protocol()[next(key for key, name in _DATASETS.items() if name == dataset)]
    return tuple(facts.get(f"aus_{task}") or facts["aus"])


@lru_cache(maxsize=1)
def protocol() -> dict[str, Any]:
    """Folds, AUs and hand-picked references of the paper (github.com/ShuangquanFeng/CSN)."""
    text = asset("protocol/splits_and_references.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def _table_key(table: str) -> str:
    key = str(table).strip().upper().removeprefix("TABLE").strip()
    if key not in TABLES:
        raise UnknownNameError(
            f"The paper has no table {table!r} with results. It has {', '.join(TABLES)}."
        )
    return key


@lru_cache(maxsize=1)
def _cells() -> dict[str, list[dict[str, Any]]]:
    raw = json.loads(asset("protocol/paper_tables.json").read_text(encoding="utf-8"))
    return {key: [_cell(key, entry) for entry in raw[f"Table {key}"]] for key in TABLES}


def _cell(table: str, entry: dict[str, Any]) -> dict[str, Any]:
    from siamcal.evaluation.metrics import METRICS  # numpy, which a recipe does without

    printed = entry["per_au"] or {}
    notebook = (entry.get("authors_notebook") or {}).get("per_au") or {}
    names = list(notebook or printed)
    values = {
        name: printed[name] if printed.get(name) is not None else notebook.get(name)
        for name in names
    }
    return {
        "table": table,
        "dataset": _DATASETS[entry["dataset"]],
        "task": "intensity" if entry["task"] == "AU intensity estimation" else "detection",
        "metric": next(m.name for m in METRICS.values() if m.title == entry["metric"]),
        "method": _METHODS.get(entry["method"]),
        "name": entry["method"],
        "mean": entry["average"],
        "per_au": {_au(name): value for name, value in values.items()},
        "from_notebook": [
            _au(n) for n in names if printed.get(n) is None and values[n] is not None
        ],
        "note": entry.get("note") or entry.get("average_check") or "",
    }


def _au(name: str) -> str:
    """The paper's "AU1" as "AU01"."""
    return f"AU{int(name.removeprefix('AU')):02d}"
