"""Do the backbone recipes train and compare? Five networks of timm on a few rendered people."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from siamcal.environment import describe_environment, machine_line
from siamcal.evaluation.compare import Job
from siamcal.evaluation.run import run_comparison
from siamcal.evaluation.tables import to_markdown
from siamcal.files import make_folder
from siamcal.registry import benchmarks
from siamcal.training.choice import choose_recipe

__all__ = ["backbones"]

# Network -> settings of its own: a transformer is built for one input size.
NETWORKS: dict[str, str] = {
    "timm:mobilenetv3_small_100": "",
    "timm:mobilenetv4_conv_small": "",
    "timm:efficientnet_b0": "",
    "timm:edgenext_small": "",
    "timm:vit_small_patch16_224": "backbone_options.img_size={size}",
}
LIMITS = (
    "A tiny slice of rendered people, random start weights, a few steps: this shows that training "
    "and comparing work with each network, and says nothing about how well a backbone reads faces."
)


@benchmarks.register("backbones")
def backbones(
    output: str | Path = Path("runs/backbones"),
    networks: str = ",".join(NETWORKS),
    participants: int = 18,
    frames: int = 24,
    size: int = 96,
    steps: int = 80,
    batch_size: int = 16,
) -> str:
    """Train NCG and CSN of five backbone recipes for a few steps on a few rendered people.

    What `siamcal bench --backbone timm:NAME` does, on one of three participant-exclusive folds.

    Args:
        output: Folder of the runs and of `backbones.md`; finished runs are not repeated.
        networks: Backbones that have a recipe, separated by commas.
        participants: Number of people; a third of them is tested on.
        frames: Frames of each.
        size: Side of the network's input in pixels.
        steps: Optimisation steps of each training.
        batch_size: Targets per step.

    Returns:
        The table in Markdown.
    """
    output = Path(output)
    rows = {}
    for name in networks.split(","):
        own = NETWORKS.get(name, "").format(size=size)
        settings = [f"preprocessing.size={size}", f"steps={steps}", f"batch_size={batch_size}"]
        options = {"size": "tiny", "participants": participants, "frames": frames}
        rows[name] = _row(name, [*settings, *[own] * bool(own)], options, output)
    text = (
        f"# Backbone recipes\n\n{LIMITS}\n\n"
        f"{participants} people, {frames} frames each, {size} px, fold 0 of 3, batches of "
        f"{batch_size}; mean ICC(3,1) over the AUs; seconds of processor time for both trainings, "
        f"predictions and tables. {machine_line(describe_environment())}\n\n"
        f"{to_markdown(pd.DataFrame.from_dict(rows, orient='index'), 'backbone')}\n"
    )
    make_folder(output)
    (output / "backbones.md").write_text(text, encoding="utf-8")
    return text


def _row(name: str, settings: list[str], options: dict[str, Any], output: Path) -> dict[str, str]:
    """Train and compare with one network; its line of the table."""
    recipe = choose_recipe(backbone=name, options=options, settings=settings)
    started = time.process_time()
    folder = output / name.partition(":")[2]
    job = Job(recipe, folder, ("intensity",), folds=[0])
    results = run_comparison(job)
    seconds = time.process_time() - started
    iccs = {m: results["methods"][m]["intensity"]["icc"]["mean"] for m in job.methods}
    row = {"merge at": recipe.merge_at, "steps": str(recipe.steps)}
    row |= {m.upper(): "-" if v is None else f"{v:.3f}" for m, v in iccs.items()}
    return {**row, "s": f"{seconds:.0f}", "threads": str(torch.get_num_threads())}
