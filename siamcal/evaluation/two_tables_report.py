"""What `siamcal agree` says: for a terminal, as CSV, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd

from siamcal.errors import ConfigError
from siamcal.evaluation.table_pairs import Pairs
from siamcal.evaluation.tables import to_markdown
from siamcal.evaluation.two_tables import AUAgreement, Side, TableAgreement

__all__ = ["FORMATS", "as_facts", "as_table", "check_format", "means", "to_text", "write_agreement"]

FORMATS = (".csv", ".json", ".md")
_DECIMALS = {"frames": 0, "lag_frames": 0, "pairs": 0}
_TITLES = {
    "frames": "frames",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "icc": "ICC(3,1)",
    "mean_a": "mean A",
    "mean_b": "mean B",
    "difference": "A − B",
    "absolute_difference": "abs(A − B)",
    "lag_frames": "lag, frames",
    "lag_seconds": "lag, s",
    "lag_pearson": "Pearson there",
}
_MEANS = ("pearson", "spearman", "icc", "difference", "absolute_difference", "lag_seconds")
_WAYS = {"frame": "frame number", "time": "time"}


def as_table(found: Sequence[TableAgreement]) -> pd.DataFrame:
    """A row a pair and AU, as numbers; NaN where a figure isn't defined."""
    names = ["pair", *(field.name for field in fields(AUAgreement))]
    rows = [{"pair": one.name, **asdict(au)} for one in found for au in one.aus]
    return pd.DataFrame(rows, columns=names)


def means(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """Mean of each figure over a table's rows, by "pair" or "au", and how many rows have one.

    The last row, "all", is the mean over all pairs of a recording and an AU.
    """
    groups = [(key, rows) for key, rows in table.groupby(by, sort=by == "au")]
    rows = {}
    for key, group in [*groups, ("all", table)]:
        counts = {f"{name}_pairs": int(group[name].notna().sum()) for name in _MEANS}
        rows[_au_name(key) if by == "au" and key != "all" else str(key)] = {
            "pairs": len(group),
            **{name: group[name].astype(float).mean() for name in _MEANS},
            **counts,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def as_facts(
    found: Sequence[TableAgreement], pairs: Pairs, failed: Mapping[str, str]
) -> dict[str, Any]:
    """Everything, ready for JSON."""
    told: dict[str, Any] = {"pairs": [_pair_facts(one) for one in found]}
    if len(pairs.pairs) > 1:
        table = as_table(found)
        told["means"] = {
            by: json.loads(means(table, by).to_json(orient="index")) for by in ("pair", "au")
        }
        told["failed"] = dict(failed)
        told |= {"only_a": list(pairs.alone_a), "only_b": list(pairs.alone_b)}
    return told


def to_text(found: Sequence[TableAgreement], pairs: Pairs, failed: Mapping[str, str]) -> str:
    """As Markdown: one pair's figures, or of several pairs their means and each one's."""
    if len(pairs.pairs) == 1:
        return _one(found[0])
    parts = []
    if found:
        table = as_table(found)
        for by, what in (("pair", "each pair, mean over its AUs"), ("au", "each AU, over pairs")):
            shown = _means_text(means(table, by))
            parts.append(f"{what}:\n\n{to_markdown(shown, by.replace('au', 'AU'))}")
        parts.append(_counted(table))
        parts += [_one(one) for one in found]
    parts += [f"Not compared: {name}: {why}" for name, why in failed.items()]
    for where, names in (("A", pairs.alone_a), ("B", pairs.alone_b)):
        if names:
            parts.append(f"Only in {where}: {', '.join(names)}")
    return "\n\n".join(parts)


def write_agreement(
    path: Path, found: Sequence[TableAgreement], pairs: Pairs, failed: Mapping[str, str]
) -> None:
    """Write the figures; the suffix tells as what."""
    from siamcal.files import write_atomically, write_json

    if path.suffix.lower() == ".json":
        write_json(path, as_facts(found, pairs, failed))
    elif path.suffix.lower() == ".csv":
        write_atomically(path, as_table(found).to_csv(index=False, lineterminator="\n"))
    else:
        write_atomically(path, to_text(found, pairs, failed) + "\n")


def check_format(path: Path) -> None:
    """Refuse a file of another kind.

    Raises:
        ConfigError: With those there are.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"Agreement is written as {', '.join(FORMATS)}, but {path} was named.")


def _one(one: TableAgreement) -> str:
    lines = [f"A: {_side(one.a)}", f"B: {_side(one.b)}"]
    lines.append(f"Matched by {_WAYS[one.matching.by]}.")
    lines += [f"Note: {note}." for note in one.notes]
    rows = {_au_name(au.au): _shown(au) for au in one.aus}
    table = pd.DataFrame.from_dict(rows, orient="index").rename(columns=_TITLES)
    text = f"{one.name}\n\n" + "\n".join(f"- {line}" for line in lines)
    return f"{text}\n\n{to_markdown(_texts(table), 'AU')}{_legend(one)}"


def _shown(au: AUAgreement) -> dict[str, Any]:
    return {name: value for name, value in asdict(au).items() if name != "au"}


def _side(side: Side) -> str:
    failed = "".join(f", {count} left out ({why})" for why, count in side.failed.items())
    return f"{side.path} ({side.tool}), {side.rows} rows{failed}"


def _legend(one: TableAgreement) -> str:
    told = []
    if any(au.lag_pearson is not None for au in one.aus):
        told.append("A positive lag: B shows everything so much later than A.")
    if one.a.span != one.b.span:
        told.append("The units differ, so that levels can't be compared.")
    return "\n\n" + " ".join(told) if told else ""


def _means_text(found: pd.DataFrame) -> pd.DataFrame:
    """Means, with the number of pairs behind those that some pairs don't have."""
    shown = _texts(found[["pairs", *_MEANS]].rename(columns={"pairs": "clip-AU pairs", **_TITLES}))
    for name in _MEANS:
        if _TITLES[name] in shown:
            fewer = found[f"{name}_pairs"].lt(found["pairs"]) & found[name].notna()
            counts = " (" + found[f"{name}_pairs"].astype(int).astype(str) + ")"
            shown[_TITLES[name]] += counts.where(fewer, "")
    return shown


def _counted(table: pd.DataFrame) -> str:
    count, total = int(table["pearson"].notna().sum()), len(table)
    return (
        f"{total} pairs of a recording and an AU, {count} with a correlation (in the others a "
        f"table reads one value throughout). Nothing is pooled: each figure is a mean over such "
        f"pairs, in brackets how many where some don't have it."
    )


def _texts(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers as texts; columns without any are left out."""
    whole = {_TITLES.get(name, name) for name in _DECIMALS} | {"clip-AU pairs"}
    shown = {}
    for name in table.columns[table.notna().any()]:
        sign = "+" if name in ("A − B", "lag, s", "lag, frames") else ""
        digits = 0 if name in whole else 3
        column = table[name].astype(float)
        shown[name] = ["–" if pd.isna(v) else f"{v:{sign}.{digits}f}" for v in column]
    return pd.DataFrame(shown, index=table.index)


def _au_name(au: Any) -> str:
    return f"AU{int(au):02d}"


def _pair_facts(one: TableAgreement) -> dict[str, Any]:
    return {
        "pair": one.name,
        **{
            name: {"file": s.path, "tool": s.tool, "rows": s.rows, "left_out": s.failed}
            for name, s in (("a", one.a), ("b", one.b))
        },
        "matched_by": one.matching.by,
        "fps": one.matching.fps,
        "notes": list(one.notes),
        "aus": [asdict(au) for au in one.aus],
    }
