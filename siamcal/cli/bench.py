"""`siamcal bench`: compare NCG, baseline subtraction and CSN; or run a named benchmark."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from siamcal.cli import COMPARE, app
from siamcal.cli._options import Compile, Settings, Tensorboard, Workers
from siamcal.errors import ConfigError
from siamcal.training.choice import choose_recipe

EXAMPLES = """
Compare a plain network (NCG), baseline subtraction (BS) and the calibrated network (CSN) on people
none of them has seen, or run one of the named benchmarks (`siamcal ls benchmarks`).

Examples:

    siamcal bench                      # rendered people, minutes on two cores
    siamcal bench --bias 0             # the control: people alike at rest
    siamcal bench --recipe ir_tiny     # a network trained whole
    siamcal bench --backbone timm:resnet18 --merge-at layer4
    siamcal bench --backbone ./my_net.py:build --checkpoint my_weights.pth \\
        --merge-at auto --dataset manifest --data-root table.csv
    siamcal bench --dataset disfa --data-root DISFA --set weights=backbone.pth
    siamcal bench --table 6 --data-root DISFA --set weights=backbone.pth
    siamcal bench coverage             # a named benchmark
    siamcal bench study merges --quick # what the forms of the merge are worth
    siamcal bench real clips/ --labels labels.csv   # on your recordings

Tables go to stdout, progress to stderr. The run's folder, runs/NAME, gets recipe.json,
results.json, tables (Markdown, LaTeX, CSV), figures, predictions, checkpoints and the log; the same
command goes on where it was interrupted.
"""


Benchmark = Annotated[
    str | None, typer.Argument(help="A named benchmark; without it: the comparison.")
]
What = Annotated[
    str | None, typer.Argument(help="Which, of a benchmark that has several: bench study merges.")
]
Labels = Annotated[Path | None, typer.Option(help="Of `bench real`: your labels of the clips.")]
Quick = Annotated[bool, typer.Option("--quick", help="Of a study: minutes, to see that it works.")]
Backbone = Annotated[
    str | None, typer.Option(help="ir50, timm:NAME, torchvision:NAME, ./my_net.py:build ...")
]
Dataset = Annotated[
    str | None, typer.Option(help="synth (default), disfa, disfa-plus, unbc, manifest.")
]
DataRoot = Annotated[
    Path | None, typer.Option(help="Where the data lie; or set SIAMCAL_DISFA_ROOT etc.")
]
Recipe = Annotated[str | None, typer.Option(help="A recipe's name, recipe.json or TOML file.")]
Task = Annotated[str | None, typer.Option(help="intensity (default), detection or both.")]
MergeAt = Annotated[
    str | None,
    typer.Option(
        help="Merge point, several with commas (A+B: both at once), 'all' of the paper's, or "
        "'auto': chosen in each fold on its training people."
    ),
]
Checkpoint = Annotated[
    str | None,
    typer.Option(help="State dict of your trained network (--backbone), compared as it is."),
]
Methods = Annotated[
    str | None,
    typer.Option(
        help="Of ncg, bs, bss, outputs, frozen, frozen:outputs, csn, csn:FORM; by itself: what the "
        "recipe is for."
    ),
]
Table = Annotated[
    str | None, typer.Option(help="Reproduce a table of the paper: 2-6, S1-S9 or all.")
]
References = Annotated[
    str | None, typer.Option(help="protocol, auto, first, or a FILE of reference frames.")
]
Size = Annotated[str | None, typer.Option(help="synth: tiny, small or full.")]
Bias = Annotated[
    float | None, typer.Option(min=0, max=1, help="synth: how much people differ at rest.")
]
Seeds = Annotated[str | None, typer.Option(help="Repeat with these seeds, like 42,43,44.")]
Folds = Annotated[str | None, typer.Option(help="Run these folds only, like 0,1.")]
DropCheckpoints = Annotated[
    bool,
    typer.Option(
        "--drop-checkpoints", help="Delete the trained networks when the results are written."
    ),
]
Name = Annotated[str | None, typer.Option(help="Name of the run's folder.")]
Runs = Annotated[Path, typer.Option(help="Folder of all runs.")]
ResultsAsJson = Annotated[bool, typer.Option("--json", help="Print results.json.")]


@app.command(help=EXAMPLES, rich_help_panel=COMPARE)
def bench(
    context: typer.Context,
    benchmark: Benchmark = None,
    what: What = None,
    backbone: Backbone = None,
    checkpoint: Checkpoint = None,
    dataset: Dataset = None,
    data_root: DataRoot = None,
    recipe: Recipe = None,
    task: Task = None,
    merge_at: MergeAt = None,
    methods: Methods = None,
    table: Table = None,
    references: References = None,
    size: Size = None,
    bias: Bias = None,
    seeds: Seeds = None,
    folds: Folds = None,
    settings: Settings = None,
    name: Name = None,
    runs: Runs = Path("runs"),
    workers: Workers = None,
    compile_network: Compile = False,
    tensorboard: Tensorboard = False,
    drop_checkpoints: DropCheckpoints = False,
    quick: Quick = False,
    labels: Labels = None,
    as_json: ResultsAsJson = False,
) -> None:
    """Compare methods, or run a named benchmark. Long because every option is told here."""
    settings = [*(settings or []), *["compile=true"] * compile_network]
    _show_log()
    if benchmark:
        named = [f"name={what}"] * bool(what) + ["quick=true"] * quick
        run_named(benchmark, [*named, *_given(context), *settings], as_json)
        return
    if labels:
        raise ConfigError(
            f"--labels {labels} is for recordings: siamcal bench real CLIPS --labels {labels}. A "
            f"comparison takes labels from its data set."
        )
    from siamcal.evaluation import run
    from siamcal.evaluation.compare import Job
    from siamcal.evaluation.methods import default_methods

    options = {"size": size, "bias": bias, "references": references}
    shared: dict[str, Any] = {"dataset": dataset, "options": options, "settings": settings}
    if table:
        _refuse_beside_table(context)
        shared |= {"workers": workers, "drop_checkpoints": drop_checkpoints}
        tables = run.reproduce_tables(table, runs, data_root=data_root, **shared)
        _print_tables(tables, as_json)
        return
    chosen = choose_recipe(
        recipe=recipe,
        task=task,
        backbone=backbone,
        merge_at=merge_at,
        checkpoint=checkpoint,
        **shared,
    )
    tasks = ("intensity", "detection") if task == "both" else (chosen.task,)
    defaults = default_methods(
        chosen.merge, trained=bool(chosen.checkpoint), intensity=tasks == ("intensity",)
    )
    named_methods = run.swept_methods(chosen, methods or ",".join(defaults), merge_at)
    source = run.loaded(chosen, data_root)
    results = run.run_comparison(
        Job(
            chosen,
            runs / (name or run.run_name(chosen, tasks, source)),
            tasks,
            named_methods,
            data_root,
            seeds=_numbers(seeds),
            folds=_numbers(folds),
            workers=workers,
            tensorboard=tensorboard,
            drop_checkpoints=drop_checkpoints,
        ),
        source,
    )
    _print_results(results, as_json)


def _refuse_beside_table(context: typer.Context) -> None:
    """A table of the paper fixes what is compared: nothing given is set aside without a word."""
    taken = {"table", "runs", "dataset", "data_root", "size", "bias", "references", "settings"}
    taken |= {"workers", "as_json", "compile_network", "drop_checkpoints"}
    others = [s.partition("=")[0] for s in _given(context)]
    wrong = [f"--{name.replace('_', '-')}" for name in others if name not in taken]
    if wrong:
        raise ConfigError(
            f"--table runs the paper's own comparison and takes no {', '.join(wrong)}; leave it "
            "out, or leave --table out to compare something else."
        )


def _given(context: typer.Context) -> list[str]:
    """The comparison's options that the command line names, as settings."""
    others = {"benchmark", "what", "quick", "settings", "as_json", "compile_network"}
    return [
        f"{key}={value}"
        for key, value in context.params.items()
        if key not in others and (source := context.get_parameter_source(key))
        if source.name != "DEFAULT"
    ]


def run_named(benchmark: str, settings: list[str], as_json: bool) -> None:
    """Run a registered benchmark with `--set key=value`, or `--key value`, as its arguments."""
    import inspect

    from siamcal.registry import benchmarks
    from siamcal.settings import parse_value

    function = benchmarks.get(benchmark)
    parameters = inspect.signature(function, eval_str=True).parameters
    arguments = {}
    for setting in settings:
        key, _, text = setting.partition("=")
        if key == "name" and key not in parameters:
            raise ConfigError(f"Benchmark {benchmark!r} is one alone and takes no {text!r}.")
        if key not in parameters:
            raise ConfigError(
                f"Benchmark {benchmark!r} has no argument {key!r}; it has {', '.join(parameters)}."
            )
        arguments[key] = parse_value(text, parameters[key].annotation, f"{benchmark}.{key}")
    needed = [n for n, p in parameters.items() if p.default is p.empty and n not in arguments]
    if needed:
        raise ConfigError(
            f"Benchmark {benchmark!r} needs its {needed[0]}: siamcal bench {benchmark} NAME."
        )
    found = function(**arguments)
    if found is not None:
        print(json.dumps(found, indent=2, default=str) if as_json else found)


def _print_tables(tables: dict[str, Any], as_json: bool) -> None:
    from siamcal.evaluation.tables import to_markdown

    if as_json:
        rows = {t: f.reset_index(names="method").to_dict("records") for t, f in tables.items()}
        print(json.dumps(rows, indent=2))
        return
    for title, frame in tables.items():
        print(f"\n## {title}\n\n{to_markdown(frame, 'method')}")


def _print_results(results: dict[str, Any], as_json: bool) -> None:
    from siamcal.evaluation.tables import HONESTY, summary_table, to_markdown
    from siamcal.training.start import start_note

    if as_json:
        print(json.dumps(results, indent=2))
        return
    for task in ("intensity", "detection"):
        table = summary_table(results, task)
        if len(table):
            print(f"\nAU {task}, mean over AUs [95 % interval from resampling participants]\n")
            print(to_markdown(table, "method"))
            if note := start_note(results["recipe"]):
                print(f"\n{note}")
    if results["dataset"]["rendered"]:
        print(f"\n{HONESTY}")


def _numbers(text: str | None) -> list[int] | None:
    if not text:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"--seeds and --folds take whole numbers like 0,1,2, but got {text!r}."
        ) from None


def _show_log() -> None:
    """What a comparison tells its logger goes to stderr."""
    logger = logging.getLogger("siamcal.evaluation.run")
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.StreamHandler())
