"""`siamcal bench study NAME`: what each part of calibration is worth, on people nobody trained on.

Networks are trained on some rendered people and read the sixty of the default job, who are shown
as usual, in the shifted look (skin, hair, cameras, light, blur, noise and compression that no
training saw), and as people who are alike at rest (`bias` 0). Several seeds; participants are the
unit of all intervals.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from siamcal.benchmarks._studies import STUDIES, Arm, Study, neutral_frames, with_references

from siamcal.datasets import load_dataset
from siamcal.datasets.base import DatasetSource, FaceSet
from siamcal.datasets.crops.prepare import prepare
from siamcal.environment import describe_environment, machine_line
from siamcal.errors import ConfigError, UnknownNameError
from siamcal.evaluation.intervals import MetricInterval, metric_interval, paired_difference
from siamcal.evaluation.tables import HONESTY, to_markdown
from siamcal.evaluation.trial import Trial
from siamcal.files import write_atomically, write_json
from siamcal.preprocessing import Preprocessing
from siamcal.recalibration.calibration import OutputCalibration
from siamcal.registry import benchmarks
from siamcal.training.batches import task_labels
from siamcal.training.recipe import Recipe

__all__ = ["StudyTable", "study"]

logger = logging.getLogger(__name__)

SETS: dict[str, dict[str, Any]] = {
    "usual": {},
    "shifted look": {"look": "shifted"},
    "alike at rest": {"bias": 0.0},
}
TRAINING = {"size": "training", "participants": 60}
QUICK_TRAINING = {"size": "training", "participants": 18, "frames": 24}
QUICK_TESTED = {"size": "small", "participants": 12, "frames": 24}
QUICK = {"epochs": 6, "freeze_pre": 1}
COLOURS = dict(zip(SETS, ("#1f6f8b", "#c4573a", "#9aa5b1"), strict=True))
METRICS = ("icc", "icc_within", "mae")


@dataclass(frozen=True)
class StudyTable:
    """A finished study.

    Attributes:
        name: Of the study.
        results: As in the JSON file.
    """

    name: str
    results: dict[str, Any]

    def __str__(self) -> str:
        return self.to_markdown()

    def to_markdown(self) -> str:
        """Question, table and what it was made on."""
        found = self.results
        rows = {arm: _cells(found["arms"][arm]) for arm in found["arms"]}
        table = to_markdown(pd.DataFrame.from_dict(rows, orient="index").fillna(""), "arm")
        made = (
            f"{found['tested']} people, {found['frames']} frames, never seen in training; trained "
            f"on {found['trained']} others; seeds {', '.join(map(str, found['seeds']))} (all "
            "frames of all seeds pooled). Intervals: 95 %, from resampling participants. "
            f"{machine_line(found['environment'])}"
        )
        title = f"# Study: {self.name}\n\n{found['question']}"
        return f"{title}\n\n{table}\n\n{made}\n\n{HONESTY}\n"


@benchmarks.register("study")
def study(
    name: str,
    output: str | Path = Path("runs/studies"),
    seeds: str = "42,43,44",
    quick: bool = False,
    workers: int | None = None,
) -> StudyTable:
    """What a part of calibration is worth: start, merges, points, shrinkage, references, ...

    Args:
        name: One of the studies; a wrong name is answered with all of them.
        output: Folder of the results (NAME.md, NAME.json, NAME.png) and trainings.
        seeds: Of the trainings, with commas.
        quick: A few people, frames and steps, one seed: minutes, to see that it works.
        workers: Processes that render and crop.

    Raises:
        UnknownNameError: There is no such study.
    """
    if name not in STUDIES:
        raise UnknownNameError(f"No study is called {name!r}; there are {', '.join(STUDIES)}.")
    chosen, output = STUDIES[name](), Path(output)
    folder = output / ("quick" if quick else "trainings")
    numbers = _numbers("42" if quick else seeds)
    started = time.monotonic()
    people = People(quick, workers)
    preds = {
        seed: _readings(chosen, seed, people, folder / f"seed{seed}", quick) for seed in numbers
    }
    results = _results(chosen, preds, people)
    results |= {
        "seeds": numbers,
        "environment": describe_environment(),
        "seconds": round(time.monotonic() - started, 1),
    }
    table = StudyTable(name, results)
    place = output / (f"{name}-quick" if quick else name)
    write_json(place.with_suffix(".json"), results)
    write_atomically(place.with_suffix(".md"), table.to_markdown())
    _draw(table, place.with_suffix(".png"))
    return table


class People:
    """The rendered people of a study, cropped for any preprocessing.

    Args:
        quick: Few of them.
        workers: Processes that render and crop.
    """

    def __init__(self, quick: bool, workers: int | None) -> None:
        self._quick, self._workers = quick, workers
        self._kept: dict[tuple[str, Preprocessing], FaceSet] = {}

    def faces(self, place: str, preprocessing: Preprocessing) -> FaceSet:
        """Those who are trained on ("training"), or one of SETS."""
        key = place, preprocessing
        if key not in self._kept:
            options = QUICK_TRAINING if self._quick else TRAINING
            if place != "training":
                options = {**(QUICK_TESTED if self._quick else {"size": "small"}), **SETS[place]}
            source = load_dataset("synth", workers=self._workers, **options)
            self._kept[key] = prepare(source, preprocessing, workers=self._workers)
        return self._kept[key]


def _readings(
    chosen: Study, seed: int, people: People, folder: Path, quick: bool
) -> dict[str, dict[str, np.ndarray]]:
    """Set -> arm -> (N, A)."""
    found: dict[str, dict[str, np.ndarray]] = {place: {} for place in SETS}
    trials: dict[str, Trial] = {}
    for arm in chosen.arms:
        recipe = dataclasses.replace(arm.made(), seed=seed)
        if quick:
            # Several merge points can't be frozen.
            copies = min(recipe.freeze_pre, QUICK["freeze_pre"])
            recipe = dataclasses.replace(recipe, **QUICK | {"freeze_pre": copies})
        training = people.faces("training", recipe.preprocessing)
        key = f"{arm.recipe or 'synth'}-{_digest(recipe)}"
        if key not in trials:
            rows = np.arange(len(training))
            trials[key] = Trial(recipe, training, rows, folder / key, "everyone")
        trials[key].shrinkage = arm.shrinkage
        for place in SETS:
            tested = people.faces(place, recipe.preprocessing)
            found[place][arm.name] = _of_arm(arm, trials[key], tested)
    return found


def _of_arm(arm: Arm, trial: Trial, tested: FaceSet) -> np.ndarray:
    """(N, A) readings of all frames."""
    rows = np.arange(len(tested))
    if arm.method == "outputs quantile":
        return _by_quantiles(trial, tested)
    if isinstance(arm.references, int):
        return trial.predict([arm.method], tested, rows, pool=_pool(tested, arm.references))[
            arm.method
        ]
    if arm.references == "none":
        return trial.predict([arm.method], tested, rows, without_reference=True)[arm.method]
    return trial.predict([arm.method], with_references(tested, arm.references), rows)[arm.method]


def _pool(tested: FaceSet, count: int) -> dict[int, np.ndarray]:
    """Reference row -> up to `count` resting frames of the person, the reference first."""
    resting = neutral_frames(tested, np.arange(len(tested)))
    people = tested.participants
    pool = {}
    for reference in np.unique(tested.reference_rows):
        others = resting[(people[resting] == people[reference]) & (resting != reference)]
        pool[int(reference)] = np.concatenate([[reference], others])[:count]
    return pool


def _by_quantiles(trial: Trial, tested: FaceSet) -> np.ndarray:
    """The plain network's numbers alone, by the quantiles of all frames of each person."""
    own = trial.predict(["ncg"], tested, np.arange(len(tested)))["ncg"]
    others = trial.predict(["ncg"], trial.faces, trial.training)["ncg"]
    calibration = OutputCalibration(mode="quantile", span=(0.0, 5.0))
    calibration.fit(others, trial.faces.participants[trial.training])
    out = np.empty_like(own)
    people = tested.participants
    for name in np.unique(people):
        mine = np.flatnonzero(people == name)
        out[mine] = calibration(own[mine], own[mine])
    return out


def _results(
    chosen: Study, preds: Mapping[int, dict[str, dict[str, np.ndarray]]], people: People
) -> dict[str, Any]:
    recipe = chosen.arms[0].made()
    training = people.faces("training", recipe.preprocessing)
    tested = people.faces("usual", recipe.preprocessing)
    arms: dict[str, Any] = {arm.name: {} for arm in chosen.arms}
    for place in SETS:
        for arm in chosen.arms:
            faces = people.faces(place, arm.made().preprocessing)
            labels = np.tile(task_labels(faces, "intensity"), (len(preds), 1))
            names = np.tile(faces.participants.astype(str), len(preds))
            values = {a.name: _pooled(preds, place, a.name) for a in chosen.arms}
            cells: dict[str, Any] = {
                metric: _kept(
                    metric_interval(metric, values[arm.name], labels, names), faces.source
                )
                for metric in METRICS
            }
            for other in _against(arm, chosen.arms):
                if values[other].shape == values[arm.name].shape:
                    difference = paired_difference(
                        "icc", values[arm.name], values[other], labels, names
                    )
                    cells[f"icc - {other}"] = _kept(difference, faces.source)
            arms[arm.name][place] = cells
    return {
        "question": chosen.question,
        "arms": arms,
        "trained": len(training.source.participants),
        "tested": len(tested.source.participants),
        "frames": len(tested),
    }


def _kept(found: MetricInterval, source: DatasetSource) -> dict[str, Any]:
    """What the file holds: of each AU the value alone."""
    cell = found.to_dict(source.intensity_aus)
    return {name: cell[name] for name in ("mean", "interval", "per_au")}


def _pooled(
    preds: Mapping[int, dict[str, dict[str, np.ndarray]]], place: str, arm: str
) -> np.ndarray:
    return np.concatenate([found[place][arm] for found in preds.values()])


def _against(arm: Arm, arms: Sequence[Arm]) -> list[str]:
    """What stays as it is of the same start, as far as it stands above: NCG, BS, mapped outputs."""
    start = arm.recipe, dict(arm.changes) if arm.recipe else {}
    above = arms[: arms.index(arm)]
    alike = [a for a in above if (a.recipe, dict(a.changes) if a.recipe else {}) == start]
    return [a.name for a in alike if a.method in ("ncg", "bs", "outputs")]


def _cells(arm: Mapping[str, Any]) -> dict[str, str]:
    """A row of the table."""
    row = {}
    for place, cells in arm.items():
        row[f"ICC, {place}"] = _with_interval(cells["icc"])
        if place == "usual":
            row["within"] = f"{cells['icc_within']['mean']:.3f}"
            row["MAE"] = f"{cells['mae']['mean']:.3f}"
        for name, cell in cells.items():
            if name.startswith("icc - ") and place != "alike at rest":
                kind = next((k for k in ("BS", "outputs") if k in name), "NCG")
                row[f"- {kind}, {place}"] = _with_interval(cell, sign=True)
    return row


def _with_interval(cell: Mapping[str, Any], *, sign: bool = False) -> str:
    if cell["mean"] is None:
        return ""
    form = "+.3f" if sign else ".3f"
    low, high = cell["interval"]
    interval = "" if low is None else f" [{low:{form}}, {high:{form}}]"
    return f"{cell['mean']:{form}}{interval}"


def _draw(table: StudyTable, path: Path) -> None:
    """Mean ICC of each arm with its interval, in each set."""
    import matplotlib
    from matplotlib.figure import Figure

    from siamcal.evaluation.figures import STYLE

    arms = table.results["arms"]
    heights = np.arange(len(arms))[::-1]
    with matplotlib.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(7.2, 0.3 * len(arms) + 1.2))
        axes = figure.subplots()
        for number, (place, colour) in enumerate(COLOURS.items()):
            cells = [arm[place]["icc"] for arm in arms.values()]
            means = np.array([c["mean"] for c in cells], dtype=float)
            ends = np.array([c["interval"] for c in cells], dtype=float)
            y = heights + 0.22 * (1 - number)
            spans = np.abs(ends.T - means)
            axes.errorbar(means, y, xerr=spans, fmt="o", ms=4, color=colour, lw=1, label=place)
        axes.set_yticks(heights, list(arms))
        axes.set_xlabel("mean ICC(3,1) over AUs, 95 % interval over participants")
        axes.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0), fontsize=8)
        figure.savefig(path)


def _digest(recipe: Recipe) -> str:
    import hashlib

    from siamcal.settings import to_dict

    return hashlib.sha256(repr(sorted(to_dict(recipe).items())).encode()).hexdigest()[:8]


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"seeds takes whole numbers like 42,43,44, but got {text!r}.") from None
