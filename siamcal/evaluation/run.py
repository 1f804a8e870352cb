"""Whole comparisons: load and prepare the data, say what will happen, compare, report.

What happens is told to this module's logger at level INFO; the command line shows it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from siamcal.datasets import load_dataset
from siamcal.datasets.base import DatasetSource, canonical_name
from siamcal.datasets.crops.prepare import missing_bytes, prepare
from siamcal.datasets.synth import plan_of
from siamcal.errors import ConfigError
from siamcal.evaluation.compare import Job, checkpoint_facts, compare
from siamcal.evaluation.figures import write_figures
from siamcal.evaluation.methods import AUTO, parse
from siamcal.evaluation.outlook import (
    FRAMES_A_SECOND,
    check_folds,
    check_networks,
    check_room,
    check_task,
    outlook,
    size_text,
)
from siamcal.evaluation.tables import paper_comparison, to_latex, to_markdown, write_report
from siamcal.files import make_folder
from siamcal.model.places import points_of
from siamcal.paper import TABLES, table_plan
from siamcal.parallel import check_workers
from siamcal.settings import to_dict
from siamcal.synth.actions import AUS
from siamcal.training.checkpoint import load_trained
from siamcal.training.choice import choose_recipe
from siamcal.training.identity import digest_of_source, recipe_facts
from siamcal.training.points import sweep_points
from siamcal.training.recipe import Recipe
from siamcal.training.start import start_note

__all__ = ["loaded", "outlook", "reproduce_tables", "run_comparison", "run_name", "swept_methods"]

logger = logging.getLogger(__name__)


def run_comparison(job: Job, source: DatasetSource | None = None) -> dict[str, Any]:
    """Load, prepare, compare and report; finished parts of the run's folder are not run again.

    Args:
        job: What to compare.
        source: Its data set where it is loaded already.

    Returns:
        The results, as in the folder's `results.json`.
    """
    started = time.monotonic()
    recipe = job.recipe
    check_workers(job.workers)
    for seed in job.seeds or ():  # a wrong one is refused before hours of work
        dataclasses.replace(recipe, seed=seed)
    if recipe.dataset == "synth" and source is None:
        # Loading it may render for a while: say so, or refuse, before.
        if recipe.checkpoint:
            load_trained(recipe, len(AUS))
        plan = plan_of(recipe.dataset_options)
        size = plan.participants, plan.total, min(3, plan.participants), len(AUS)
        logger.info(_checked(job, *size, FRAMES_A_SECOND / 2))
    source = source or load_dataset(recipe.dataset, job.data_root, **recipe.dataset_options)
    if recipe.dataset != "synth":
        check_task(job, source)
        people, aus = len(source.participants), len(source.task_aus(recipe.task))
        logger.info(_checked(job, people, len(source.table), len(source.folds), aus))
    if facts := checkpoint_facts(job, source):  # a wrong one is refused before faces are prepared
        logger.info(_of_checkpoint(job, facts))
    make_folder(job.folder)
    with _log_to(job.folder / "log.txt"):
        faces = prepare(source, recipe.preprocessing, workers=job.workers)
        comparison = compare(job, faces)
        write_report(comparison.results, job.folder)
        write_figures(comparison.results, comparison.predictions, job.folder / "figures")
        minutes = (time.monotonic() - started) / 60
        logger.info(f"Done in {minutes:.1f} minutes; tables and figures: {job.folder}")
    return comparison.results


def loaded(recipe: Recipe, data_root: Path | None) -> DatasetSource | None:
    """The data set of a recipe; None for rendered people.

    Those take long to render, and the recipe says all that is in them.
    """
    if recipe.dataset == "synth":
        return None
    return load_dataset(recipe.dataset, data_root, **recipe.dataset_options)


def _checked(
    job: Job, people: int, frames: int, folds: int, aus: int, rate: float = FRAMES_A_SECOND
) -> str:
    """The outlook of a comparison, if nothing speaks against beginning it."""
    check_folds(job, folds, may_grow=bool(job.recipe.checkpoint))
    room = check_networks(job, aus, folds)
    check_room([job.folder], [room], "The trained networks of this run need")
    return outlook(job, people, frames, folds, aus, rate, room)


def _of_checkpoint(job: Job, facts: Mapping[str, Any]) -> str:
    """What is taken for granted of a checkpoint, so that its user can say no."""
    crop = job.recipe.preprocessing
    lines = [
        f"NCG is {job.recipe.backbone} with {facts['file']}, as it is; all people are tested: it "
        "must have been trained on none of them.",
        f"Its {facts['outputs']} outputs ({facts['layout']}) are read as {job.recipe.task} of "
        f"{', '.join(facts['order'])}, in this order.",
        f"It gets crops of {crop.size} px, align={crop.align}, contrast={crop.contrast}, "
        f"mask={crop.mask}, mean={crop.mean}, std={crop.std}; they should be what it was trained "
        "on (--set preprocessing.KEY=value).",
    ]
    if facts["layout"] == "one intensity an AU" and any(
        parse(m).kind == "csn" for m in job.methods
    ):
        lines.append("It has no ordinal logits: CSN is trained by the MSE and cosine losses.")
    return "\n".join(lines)


def swept_methods(recipe: Recipe, methods: str, merge_at: str | None = None) -> tuple[str, ...]:
    """Names of methods from text, at each merge point of a sweep.

    Args:
        recipe: All settings; a method at its merge point has its plain name.
        methods: Names with commas, like "ncg,bs,csn".
        merge_at: Merge points with commas ("A+B": both at once), or "all" of `sweep_points`: CSN is
            taken at each; of a checkpoint, which trains nothing by itself, those named of "frozen"
            and "csn". "auto": these two at the point that the training people choose. One or None:
            no sweep.
    """
    names = [m.strip() for m in methods.split(",") if m.strip()]
    for name in names:
        parse(name)  # an unknown one fails here, before anything is rendered
    if merge_at == AUTO:
        chosen = {m for m in names if parse(m).kind in ("frozen", "csn") and "@" not in m}
        if not chosen:
            raise ConfigError(
                f"--merge-at {AUTO} chooses the merge point of frozen and csn, but the methods are "
                f"{', '.join(names)}; add one of them, or leave --merge-at out."
            )
        return tuple(f"{m}@{AUTO}" if m in chosen else m for m in names)
    if not merge_at or (merge_at != "all" and "," not in merge_at):
        return tuple(names)
    points = [p.strip() for p in merge_at.split(",") if p.strip()]
    if merge_at == "all":
        points = sweep_points(recipe)
    kinds = ["csn"]
    if recipe.checkpoint:
        kinds = [kind for kind in ("frozen", "csn") if kind in names]
    swept = [k if points_of(p) == recipe.merge_at else f"{k}@{p}" for k in kinds for p in points]
    return (*(m for m in names if m not in kinds), *swept)


def run_name(recipe: Recipe, tasks: Sequence[str], source: DatasetSource | None = None) -> str:
    """A name that is the same for the same settings, files and labels: a run is found again by it.

    Args:
        recipe: All settings.
        tasks: Of the run.
        source: The data set, where the recipe alone doesn't say what is in it.
    """
    settings = {k: v for k, v in recipe_facts(recipe).items() if k != "task"}
    if source is not None:
        settings["data"] = digest_of_source(source)
    text = json.dumps(settings, sort_keys=True)
    backbone = "".join(c if c.isalnum() or c in "._-" else "_" for c in recipe.backbone)
    task = "both" if len(tasks) > 1 else tasks[0]
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    return f"{recipe.dataset}-{backbone}-{task}-{digest}"


def reproduce_tables(
    table: str,
    runs: Path,
    *,
    dataset: str | None = None,
    data_root: Path | None = None,
    options: dict[str, Any] | None = None,
    settings: Sequence[str] = (),
    workers: int | None = None,
    drop_checkpoints: bool = False,
) -> dict[str, pd.DataFrame]:
    """Run what tables of the paper need and set ours beside the paper's.

    Args:
        table: Numbers of tables ("2", "S1,S2") or "all".
        runs: Folder of all runs; each run's folder gets its part of the tables as files.
        dataset: Only this data set's part.
        data_root: Where its data lie.
        options: Options of the data set.
        settings: Changes of the recipes, `key=value`.
        workers: Processes that prepare the data.
        drop_checkpoints: Delete the trained networks of each run when its results are written.

    Returns:
        Title -> table.

    Raises:
        ConfigError: A table has nothing on the data set, or needs several and one folder is named.
        UnknownNameError: The paper has no such table.
        DataNotFoundError: A data set isn't there; nothing was trained then.
    """
    numbers = list(TABLES) if table.lower() == "all" else table.upper().split(",")
    # All data sets are read, and found whole, before the first training.
    jobs: list[tuple[Job, DatasetSource | None]] = []
    for (place, task), methods in _needed(numbers, dataset, data_root).items():
        recipe = choose_recipe(dataset=place, task=task, options=options, settings=settings)
        # The paper's CSN is its Stage 4; at the recipe's own merge point both are one training.
        own = f"csn@{recipe.merge_at}"
        source = loaded(recipe, data_root)
        folder = runs / f"paper-{run_name(recipe, (task,), source)}"
        once = tuple(dict.fromkeys("csn" if m == own else m for m in methods))
        job = Job(recipe, folder, (task,), once, data_root, workers=workers)
        jobs.append((dataclasses.replace(job, drop_checkpoints=drop_checkpoints), source))
    _check_all(jobs)
    found = {(j.recipe.dataset, j.recipe.task): run_comparison(j, source) for j, source in jobs}
    tables = {}
    for number in numbers:
        for (place, task), results in found.items():
            frame = paper_comparison(results, number, task)
            if len(frame):
                note = start_note(results["recipe"])
                title = f"Table {number}: {place}, AU {task}" + f". {note}" * bool(note)
                stem = runs / results["name"] / f"paper_table_{number}"
                text = f"{title}\n\n{to_markdown(frame, 'method')}\n"
                stem.with_suffix(".md").write_text(text)
                stem.with_suffix(".tex").write_text(to_latex(frame, title) + "\n")
                frame.to_csv(stem.with_suffix(".csv"), index_label="method")
                tables[title] = frame
    return tables


def _check_all(jobs: Sequence[tuple[Job, DatasetSource | None]]) -> None:
    """Refuse before the first of several jobs what any of them would refuse: weights, disk, points.

    Data sets that are missing were refused when they were loaded.
    """
    crops: dict[Path, int] = {}
    networks: dict[Path, int] = {}
    for job, source in jobs:
        if source is not None:
            check_task(job, source)
            aus = len(source.task_aus(job.recipe.task))
            networks[job.folder] = check_networks(job, aus, len(source.folds))
            folder, missing = missing_bytes(source, job.recipe.preprocessing)
            crops[folder] = missing
    if all(job.drop_checkpoints for job, _ in jobs):  # one run's networks at a time
        networks = {f: n for f, n in networks.items() if n == max(networks.values())}
    needed = {**crops, **networks}
    what = "The crops of these data sets and the trained networks need"
    check_room(list(needed), list(needed.values()), what)
    note = start_note(to_dict(jobs[0][0].recipe))
    room = size_text(sum(networks.values()))
    total = f"{len(jobs)} runs; trained networks of up to {room}."
    logger.info(f"{note}\n{total}" if note else total)


def _needed(
    numbers: Sequence[str], dataset: str | None, data_root: Path | None
) -> Mapping[tuple[str, str], list[str]]:
    """What has to be trained for the tables: (data set, task) -> methods."""
    plan = [entry for number in numbers for entry in table_plan(number)]
    wanted = ", ".join(sorted({place for place, _, _ in plan}))
    chosen = canonical_name(dataset) if dataset else None
    jobs: dict[tuple[str, str], list[str]] = {}
    for place, task, methods in plan:
        if chosen in (None, place):
            known = jobs.setdefault((place, task), [])
            known += [m for m in methods if m not in known]
    named = ",".join(numbers)
    if chosen and not jobs:
        raise ConfigError(f"Table {named} has no results on {chosen!r}; it has {wanted}.")
    if not chosen and "," in wanted and data_root is not None:
        raise ConfigError(
            f"Table {named} needs {wanted}. Name one with --dataset, or set "
            "SIAMCAL_<DATASET>_ROOT for each instead of --data-root."
        )
    return jobs


@contextlib.contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Everything siamcal logs goes to this file too."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("siamcal")
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
