"""A recording's readings over time, as one picture: calibrated, raw, gaps and the reference."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from siamcal.errors import ConfigError
from siamcal.inference.table import HIGHEST, LOWEST

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["draw_traces", "drawn_by", "own_picture", "read_table", "traces_of"]

SOFTWARE = "siamcal predict"
READING, RAW, GAP, REFERENCE = "#1f6f8b", "#c9a15a", "#ececec", "#c4573a"
# Of several people, by their numbers; then they begin again.
PEOPLE = ("#1f6f8b", "#c4573a", "#6b9b5a", "#c9a15a", "#7a6fa3", "#444444", "#d08fb0", "#66b2c4")
MOST_COLUMNS = 4  # of the legend


def traces_of(output: Path) -> Path:
    """`aus.csv` -> `aus.png`."""
    return output.with_suffix(".png")


def own_picture(path: Path) -> bool:
    """Whether a picture was drawn by `draw_traces`."""
    return drawn_by(path, SOFTWARE)


def drawn_by(path: Path, software: str) -> bool:
    """Whether a picture says that it was drawn by `software`."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return str(image.info.get("Software", "")).startswith(software)
    except (OSError, UnidentifiedImageError, ValueError):
        return False


def read_table(path: Path) -> pd.DataFrame:
    """A table that siamcal wrote.

    Raises:
        ConfigError: It is of a format that can't be read back.
    """
    import pandas as pd

    readers: dict[str, Any] = {".csv": pd.read_csv, ".parquet": pd.read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"{path} can't be drawn: only {' and '.join(readers)} are read back.")
    return reader(path)


def draw_traces(table: pd.DataFrame, told: dict[str, Any], path: Path) -> None:
    """Draw a table into a PNG: of one person with raw readings and gaps, of several a line each.

    Args:
        table: As `siamcal predict` writes it.
        told: Its sidecar.
        path: The picture.
    """
    import matplotlib
    from matplotlib.figure import Figure

    kind = "r" if any(str(name).endswith("_r") for name in table.columns) else "c"
    names = [name for name in map(str, table.columns) if name.endswith(f"_{kind}")]
    aus = {f"AU{facts['au']:02d}": facts for facts in told["calibrator"]["aus"]}
    timed = bool((table["timestamp"] > 0).any())
    people = _by_person(table) if "people" in told["reference"] else {}
    height = 0.62 * len(names) + 1.1
    style: Any = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context({**style, "figure.dpi": 120}):
        figure = Figure(figsize=(9, height))
        rows = figure.subplots(len(names), sharex=True, squeeze=False)
        for axes, name in zip(rows[:, 0], names, strict=True):
            if "people" in told["reference"]:
                _draw_people(axes, people, name, told, timed=timed)
            else:
                x = table["timestamp"] if timed else table["frame"]
                _draw_one(axes, table, x, name)
                _mark_reference(axes, table, x, told)
            _label(axes, name, aus[name[:4]])
        rows[-1, 0].set_xlabel("seconds" if timed else "frame")
        figure.suptitle(_title(told), x=0.01, ha="left", fontsize=9)
        handles, labels = rows[0, 0].get_legend_handles_labels()
        columns = min(max(len(labels), 1), MOST_COLUMNS)
        place: Any = {"loc": "upper right", "frameon": False, "fontsize": 8}
        legend_rows = math.ceil(len(labels) / columns)
        figure.legend(handles, labels, ncols=columns, **place)
        top = 1 - (0.05 + 0.2 * max(legend_rows, 1)) / height
        figure.tight_layout(h_pad=0.3, rect=(0, 0, 1, top))
        figure.savefig(path, metadata={"Software": SOFTWARE})


def _by_person(table: pd.DataFrame) -> dict[int, pd.DataFrame]:
    """Number of a person who was read -> a row for each frame, empty where they weren't read."""
    times = table.groupby("frame")["timestamp"].first()
    read = table[table["success"] == 1]
    found = {}
    for number in sorted(read["face_id"].unique()):
        rows = read[read["face_id"] == number].set_index("frame").reindex(times.index)
        found[int(number)] = rows.assign(timestamp=times).reset_index()
    return found


def _draw_people(
    axes: Any, people: dict[int, pd.DataFrame], name: str, told: dict[str, Any], *, timed: bool
) -> None:
    """A line a person, and a dashed one at their reference where it is a frame of the video."""
    for place, (number, rows) in enumerate(people.items()):
        x = rows["timestamp"] if timed else rows["frame"]
        colour = PEOPLE[place % len(PEOPLE)]
        marker = "o" if len(rows) < 40 else None
        axes.plot(x, rows[name], color=colour, lw=1.1, marker=marker, ms=2.5)
        axes.lines[-1].set_label(f"person {number}")
        own = told["reference"]["people"].get(str(number), {})
        _mark_reference(axes, rows, x, {**told, "reference": own}, colour=colour, label=None)


def _draw_one(axes: Any, table: Any, x: Any, name: str) -> None:
    values = table[name].where(table["success"] == 1)
    marker = "o" if len(table) < 40 else None
    raw = f"{name[:4]}_raw"
    if raw in table:
        axes.plot(x, table[raw], color=RAW, lw=0.8, label="without the reference")
    axes.plot(x, values, color=READING, lw=1.2, marker=marker, ms=2.5, label="calibrated")
    _shade(axes, np.asarray(x, float), (table["success"] != 1).to_numpy())


def _label(axes: Any, name: str, facts: dict[str, Any]) -> None:
    intensity = name.endswith("_r")
    if intensity:
        axes.axhline(facts["threshold"], color="#999999", lw=0.5, ls=":")
    axes.set_ylim((LOWEST - 0.15, HIGHEST + 0.15) if intensity else (-0.1, 1.1))
    axes.set_yticks([0, facts["threshold"], 5] if intensity else [0, 1])
    axes.margins(x=0.01)
    label = textwrap.fill(facts["name"], 22)
    axes.set_ylabel(f"AU{facts['au']}\n{label}", rotation=0, ha="right", va="center", fontsize=7)


def _shade(axes: Any, x: np.ndarray, failed: np.ndarray) -> None:
    """Grey where nothing was read."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], failed.astype(int), [0]])))
    step = float(np.median(np.diff(x))) if len(x) > 1 else 1.0
    for number, (first, last) in enumerate(zip(edges[::2], edges[1::2] - 1, strict=True)):
        label = "nothing read" if number == 0 else None
        axes.axvspan(x[first] - step / 2, x[last] + step / 2, color=GAP, lw=0, label=label)


def _mark_reference(
    axes: Any,
    table: Any,
    x: Any,
    told: dict[str, Any],
    *,
    colour: str = REFERENCE,
    label: str | None = "reference",
) -> None:
    """A line at the reference, where it is a frame of the same recording."""
    facts = told["reference"]
    if facts.get("source") not in told["input"]["files"] or told["input"]["kind"] != "video":
        return
    rows = np.flatnonzero(table["frame"] == facts.get("frame"))
    if len(rows):
        place = float(np.asarray(x)[rows[0]])
        axes.axvline(place, color=colour, lw=1, ls="--", label=label)


def _title(told: dict[str, Any]) -> str:
    files = [Path(name).name for name in told["input"]["files"]]
    what = files[0] if len(files) == 1 else f"{len(files)} pictures from {files[0]}"
    facts = told["reference"]
    if "people" in facts:
        return f"{what}  ·  each relative to their own reference"
    source = Path(str(facts.get("profile") or facts.get("source", ""))).name
    frame = f", frame {facts['frame']}" if facts.get("frame", 1) != 1 else ""
    return f"{what}  ·  relative to {source}{frame}"
