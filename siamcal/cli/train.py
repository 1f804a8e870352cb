"""`siamcal train`: train one calibrator on everyone and save it, ready to predict or push."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from siamcal.cli import COMPARE, app
from siamcal.cli._options import Compile, Settings, Tensorboard, Workers
from siamcal.errors import ConfigError
from siamcal.training.choice import SWEEPS, choose_recipe

EXAMPLES = """
Train a recipe on all participants of its data set and save the calibrator. Given the folder of a
comparison (`siamcal bench`), its recipe is trained and the calibrator put beside its results.

Examples:

    siamcal train synth
    siamcal train runs/synth-ir_tiny-intensity-0f3a9c    # a comparison's recipe
    siamcal train disfa_intensity --data-root DISFA --set weights=backbone.pth
    accelerate launch --num_processes 4 -m siamcal \\
        train disfa_intensity --data-root DISFA

The folder printed at the end is what `siamcal predict --model` and `siamcal push` take.
"""


@app.command(help=EXAMPLES, rich_help_panel=COMPARE)
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe, its file, or a run's folder.")],
    dataset: Annotated[str | None, typer.Option(help="Another data set than the recipe's.")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Where the data lie.")] = None,
    task: Annotated[str | None, typer.Option(help="intensity or detection.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Another backbone.")] = None,
    merge_at: Annotated[
        str | None, typer.Option(help="Another merge point; A+B: both at once.")
    ] = None,
    settings: Settings = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder of the run.")
    ] = None,
    workers: Workers = None,
    compile_network: Compile = False,
    tensorboard: Tensorboard = False,
) -> None:
    """Train on everyone and save the calibrator."""
    settings = [*(settings or []), *["compile=true"] * compile_network]
    from siamcal.registry import recipes
    from siamcal.training.everyone import train_everyone

    if task == "both":
        raise ConfigError(
            "A calibrator has one task: train it with --task intensity, and another one with "
            "--task detection."
        )
    if merge_at and ("," in merge_at or merge_at in SWEEPS):
        raise ConfigError(
            f"A training has one merge point, or several at once as in layer2+layer4, but got "
            f"--merge-at {merge_at}; siamcal bench --merge-at {merge_at} compares points."
        )
    run = Path(recipe)
    is_run = (run / "recipe.json").is_file()
    named = recipe in recipes or run.suffix in (".json", ".toml")
    if not is_run and not named and (len(run.parts) > 1 or run.is_dir()):
        what = "holds no recipe.json" if run.is_dir() else "is no folder"
        raise ConfigError(f"{run} {what}. Name a run of siamcal bench, or see siamcal ls recipes.")
    chosen = choose_recipe(
        recipe=str(run / "recipe.json") if is_run else recipe,
        dataset=dataset,
        task=task,
        backbone=backbone,
        merge_at=merge_at,
        settings=settings,
    )
    folder = output or (run if is_run else Path("runs") / f"{chosen.name}-everyone")
    saved = train_everyone(
        chosen,
        folder,
        data_root=data_root,
        workers=workers,
        tensorboard=tensorboard,
    )
    print(f"Saved {saved}", file=sys.stderr)
    print(saved)
