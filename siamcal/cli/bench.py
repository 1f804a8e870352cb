"""`siamcal bench`: compare NCG, baseline subtraction and CSN; or run a named benchmark."""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from siamcal.cli import app
from siamcal.cli._settings import choose_recipe

if TYPE_CHECKING:
    from siamcal.training.recipe import Recipe

# Frames that one core finds, aligns and crops in a second (benchmarks/speed.py); rendering takes
# about as long.
FRAMES_A_SECOND = 60.0

EXAMPLES = """
Compare a plain network (NCG), baseline subtraction (BS) and the calibrated network (CSN) on people
none of them has seen, or run one of the named benchmarks (`siamcal ls benchmarks`).

Examples:

    siamcal bench                      # rendered people, minutes on two cores
    siamcal bench --bias 0             # the control: people alike at rest
    siamcal bench --backbone timm:resnet18 --merge-at layer4
    siamcal bench --backbone ir50 --dataset disfa --data-root /data/DISFA
    siamcal bench --dataset disfa --data-root /data/DISFA --table 6
    siamcal bench coverage             # a named benchmark

Tables go to stdout, progress to stderr. The run's folder, runs/NAME, gets recipe.json,
results.json, tables (Markdown, LaTeX, CSV), figures, predictions, checkpoints and the log; the same
command goes on where it was interrupted.
"""


@app.command(help=EXAMPLES)
def bench(
    context: typer.Context,
    benchmark: Annotated[
        str | None, typer.Argument(help="A named benchmark; without it: the comparison.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="ir50, timm:NAME, torchvision:NAME, ./my_net.py:build ...")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="synth (default), disfa, disfa-plus, unbc, manifest.")
    ] = None,
    data_root: Annotated[
        Path | None, typer.Option(help="Where the data lie; or set SIAMCAL_DISFA_ROOT etc.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A recipe's name, recipe.json or TOML file.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="intensity (default), detection or both.")
    ] = None,
    merge_at: Annotated[
        str | None, typer.Option(help="Merge point, several with commas, or 'all' of the paper's.")
    ] = None,
    methods: Annotated[str, typer.Option(help="Of ncg, bs, csn.")] = "ncg,bs,csn",
    table: Annotated[
        str | None, typer.Option(help="Reproduce a table of the paper: 2-6, S1-S9 or all.")
    ] = None,
    references: Annotated[
        str | None, typer.Option(help="protocol, auto, first, or a FILE of reference frames.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="synth: tiny, small or full.")] = None,
    bias: Annotated[
        float | None, typer.Option(min=0, max=1, help="synth: how much people differ at rest.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Repeat with these seeds, like 42,43,44.")
    ] = None,
    folds: Annotated[str | None, typer.Option(help="Run these folds only, like 0,1.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a recipe's field: --set epochs=1.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run's folder.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    workers: Annotated[int | None, typer.Option(help="Processes that prepare the data.")] = None,
    compile_network: Annotated[
        bool, typer.Option("--compile", help="Use torch.compile in training.")
    ] = False,
    tensorboard: Annotated[bool, typer.Option(help="Write TensorBoard logs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print results.json.")] = False,
) -> None:
    """Compare methods, or run a named benchmark."""
    settings = [*(settings or []), *["compile=true"] * compile_network]
    if benchmark:
        _named(benchmark, [*_given(context), *settings], as_json)
        return
    options = {"size": size, "bias": bias, "references": references}
    if table:
        _tables(table, dataset, data_root, settings, options, runs, workers, as_json)
        return
    chosen = choose_recipe(
        recipe=recipe,
        dataset=dataset,
        task=task,
        backbone=backbone,
        merge_at=None if merge_at and ("," in merge_at or merge_at == "all") else merge_at,
        options=options,
        settings=settings,
    )
    tasks = ("intensity", "detection") if task == "both" else (chosen.task,)
    results = run_comparison(
        chosen,
        runs / (name or _run_name(chosen, tasks)),
        data_root=data_root,
        tasks=tasks,
        methods=_methods(methods, merge_at, chosen),
        seeds=_numbers(seeds),
        folds=_numbers(folds),
        workers=workers,
        tensorboard=tensorboard,
    )
    _print_results(results, as_json)


def run_comparison(
    recipe: Recipe,
    folder: Path,
    *,
    data_root: Path | None,
    tasks: tuple[str, ...],
    methods: tuple[str, ...],
    seeds: list[int] | None = None,
    folds: list[int] | None = None,
    workers: int | None = None,
    tensorboard: bool = False,
) -> dict[str, Any]:
    """Load, prepare, say what will happen, compare, report; returns the results."""
    from siamcal.datasets import load_dataset
    from siamcal.datasets.crops.prepare import prepare
    from siamcal.evaluation.compare import compare
    from siamcal.evaluation.figures import write_figures
    from siamcal.evaluation.tables import write_report

    started = time.monotonic()
    outlook = _Outlook(recipe, folder, tasks, methods, len(seeds or [0]), folds)
    if recipe.dataset == "synth":  # loading it may render for a while: say so before
        outlook.tell_rendered()
    source = load_dataset(recipe.dataset, data_root, **recipe.dataset_options)
    if recipe.dataset != "synth":
        participants, number = len(source.participants), len(source.folds)
        num_aus = len(source.task_aus(recipe.task))
        outlook.tell(participants, len(source.table), number, num_aus, FRAMES_A_SECOND)
    folder.mkdir(parents=True, exist_ok=True)
    _log_to(folder / "log.txt")
    faces = prepare(source, recipe.preprocessing, workers=workers)
    comparison = compare(
        recipe,
        faces,
        folder,
        tasks=tasks,
        methods=methods,
        seeds=seeds,
        folds=folds,
        tensorboard=tensorboard,
    )
    write_report(comparison.results, folder)
    write_figures(comparison.results, comparison.predictions, folder / "figures")
    _say(f"Done in {(time.monotonic() - started) / 60:.1f} minutes; tables and figures: {folder}")
    return comparison.results


@dataclass(frozen=True)
class _Outlook:
    """What a comparison will do and about how long it takes on this machine."""

    recipe: Recipe
    folder: Path
    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    num_seeds: int
    folds: list[int] | None

    def tell_rendered(self) -> None:
        """Say it for the rendered people, before they are rendered."""
        from siamcal.synth.plan import make_plan

        plan = make_plan(**self.recipe.dataset_options)
        number, num_aus = min(3, plan.participants), 12
        self.tell(plan.participants, plan.total, number, num_aus, FRAMES_A_SECOND / 2)

    def tell(
        self, participants: int, frames: int, num_folds: int, num_aus: int, rate: float
    ) -> None:
        """Say it, given the data set's numbers and the rate (frames/s a core) of preparing it."""
        from siamcal.environment import usable_cores
        from siamcal.training.duration import estimate_seconds

        kinds = [False] * bool({"ncg", "bs"} & set(self.methods))
        kinds += [True] * sum(m.startswith("csn") for m in self.methods)
        folds_run = len(self.folds) if self.folds else num_folds
        repeats = len(self.tasks) * self.num_seeds
        training = repeats * estimate_seconds(
            self.recipe,
            frames,
            num_folds,
            num_aus=num_aus,
            calibrated=kinds,
            folds_run=folds_run,
        )
        preparing = frames / rate / (usable_cores())
        _say(
            f"{self.recipe.dataset}: {participants} participants, {frames} frames, "
            f"{folds_run} folds; {self.recipe.backbone}, merge at {self.recipe.merge_at}; "
            f"{', '.join(self.tasks)}; {repeats * folds_run * len(kinds)} trainings.\n"
            f"On this machine about {_minutes(training)} of training, and {_minutes(preparing)} "
            f"before it to prepare the faces, the first time.\n"
            f"Run folder: {self.folder} (the same command goes on where it was interrupted)."
        )


def _minutes(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    if minutes >= 180:
        return f"{minutes / 60:.0f} hours"
    return f"{minutes} minute{'s' * (minutes != 1)}"


def _methods(text: str, merge_at: str | None, recipe: Recipe) -> tuple[str, ...]:
    from siamcal.evaluation.compare import sweep_points

    methods = [m.strip() for m in text.split(",") if m.strip()]
    points = []
    if merge_at == "all":
        points = sweep_points(recipe)
    elif merge_at and "," in merge_at:
        points = [p.strip() for p in merge_at.split(",")]
    if points:
        methods = [m for m in methods if m != "csn"]
        methods += ["csn" if p == recipe.merge_at else f"csn@{p}" for p in points]
    return tuple(methods)


def _tables(
    table: str,
    dataset: str | None,
    data_root: Path | None,
    settings: list[str],
    options: dict[str, Any],
    runs: Path,
    workers: int | None,
    as_json: bool,
) -> None:
    """Run what tables of the paper need on one data set; print ours beside the paper's."""
    from siamcal.datasets.base import canonical_name
    from siamcal.errors import ConfigError
    from siamcal.evaluation.tables import paper_comparison, to_latex, to_markdown
    from siamcal.paper import TABLES, table_plan

    numbers = [n for n in TABLES if table.lower() == "all"] or table.upper().split(",")
    plans = {number: table_plan(number) for number in numbers}
    wanted = {entry[0] for plan in plans.values() for entry in plan}
    chosen = canonical_name(dataset) if dataset else None
    if chosen and chosen not in wanted:
        raise ConfigError(
            f"Table {table} has no results on {chosen!r}; it has {', '.join(sorted(wanted))}."
        )
    if not chosen and len(wanted) > 1 and data_root is not None:
        raise ConfigError(
            f"Table {table} needs {', '.join(sorted(wanted))}. Name one with --dataset, or set "
            "SIAMCAL_<DATASET>_ROOT for each instead of --data-root."
        )
    jobs: dict[tuple[str, str], list[str]] = {}
    for plan in plans.values():
        for place, task, planned in plan:
            if chosen in (None, place):
                known = jobs.setdefault((place, task), [])
                known += [m for m in planned if m not in known]
    results = {}
    for (place, task), methods in jobs.items():
        recipe = choose_recipe(dataset=place, task=task, options=options, settings=settings)
        # The paper's CSN is its Stage 4; at the recipe's own merge point both are one training.
        own = f"csn@{recipe.merge_at}"
        results[place, task] = run_comparison(
            recipe,
            runs / f"paper-{_run_name(recipe, (task,))}",
            data_root=data_root,
            tasks=(task,),
            methods=tuple(dict.fromkeys("csn" if m == own else m for m in methods)),
            workers=workers,
        )
    printed = {}
    for number in numbers:
        for (place, task), found in results.items():
            frame = paper_comparison(found, number, task)
            if len(frame):
                stem = runs / found["name"] / f"paper_table_{number}"
                title = f"Table {number}: {place}, AU {task}"
                stem.with_suffix(".md").write_text(to_markdown(frame, "method") + "\n")
                stem.with_suffix(".tex").write_text(to_latex(frame, title) + "\n")
                frame.to_csv(stem.with_suffix(".csv"), index_label="method")
                printed[title] = frame
    if as_json:
        rows = {t: f.reset_index(names="method").to_dict("records") for t, f in printed.items()}
        print(json.dumps(rows, indent=2))
        return
    for title, frame in printed.items():
        print(f"\n## {title}\n\n{to_markdown(frame, 'method')}")


def _given(context: typer.Context) -> list[str]:
    """The comparison's options that the command line names, as settings."""
    others = {"benchmark", "settings", "as_json", "compile_network"}
    return [
        f"{key}={value}"
        for key, value in context.params.items()
        if key not in others and (source := context.get_parameter_source(key))
        if source.name != "DEFAULT"
    ]


def _named(benchmark: str, settings: list[str], as_json: bool) -> None:
    """Run a registered benchmark with `--set key=value`, or `--key value`, as its arguments."""
    import inspect

    from siamcal.errors import ConfigError
    from siamcal.registry import benchmarks
    from siamcal.settings import parse_value

    function = benchmarks.get(benchmark)
    parameters = inspect.signature(function, eval_str=True).parameters
    arguments = {}
    for setting in settings:
        key, _, text = setting.partition("=")
        if key not in parameters:
            raise ConfigError(
                f"Benchmark {benchmark!r} has no argument {key!r}; it has {', '.join(parameters)}."
            )
        arguments[key] = parse_value(text, parameters[key].annotation, f"{benchmark}.{key}")
    found = function(**arguments)
    if found is not None:
        print(json.dumps(found, indent=2, default=str) if as_json else found)


def _print_results(results: dict[str, Any], as_json: bool) -> None:
    from siamcal.evaluation.tables import HONESTY, summary_table, to_markdown

    if as_json:
        print(json.dumps(results, indent=2))
        return
    for task in ("intensity", "detection"):
        table = summary_table(results, task)
        if len(table):
            print(f"\nAU {task}, mean over AUs [95 % interval from resampling participants]\n")
            print(to_markdown(table, "method"))
    if results["dataset"]["rendered"]:
        print(f"\n{HONESTY}")


def _run_name(recipe: Recipe, tasks: tuple[str, ...]) -> str:
    """A name that is the same for the same settings, so that a run is found again."""
    import hashlib

    from siamcal.settings import to_dict

    settings = {k: v for k, v in to_dict(recipe).items() if k != "task"}
    text = json.dumps(settings, sort_keys=True)
    backbone = "".join(c if c.isalnum() or c in "._-" else "_" for c in recipe.backbone)
    task = "both" if len(tasks) > 1 else tasks[0]
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    return f"{recipe.dataset}-{backbone}-{task}-{digest}"


def _numbers(text: str | None) -> list[int] | None:
    from siamcal.errors import ConfigError

    if not text:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"Expected whole numbers like 0,1,2, but got {text!r}.") from None


def _log_to(path: Path) -> None:
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("siamcal")
    root.setLevel(logging.INFO)
    root.addHandler(handler)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
    logging.getLogger("siamcal.cli").info(text)
