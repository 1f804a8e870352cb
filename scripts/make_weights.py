"""Make the weights that ship in the package, from rendered people who appear in no benchmark.

    python scripts/make_weights.py start        # siamcal/assets/ir_tiny_start.safetensors
    python scripts/make_weights.py calibrator   # siamcal/assets/calibrator/

Both are recipes (`siamcal show ir_tiny_start`, `siamcal show calibrator`) and resume where they
were interrupted. The start weights leave the last layer out, which is made anew for each task.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from pathlib import Path

from safetensors.torch import save_file

from siamcal.calibrators import train_everyone
from siamcal.datasets import load_dataset
from siamcal.datasets.prepare import prepare
from siamcal.recipe import load_recipe, to_dict
from siamcal.training import fit

ASSETS = Path(__file__).parent.parent / "siamcal" / "assets"


def start(runs: Path) -> None:
    """Train the plain network and keep all but its last layer."""
    recipe = load_recipe("ir_tiny_start")
    source = load_dataset(recipe.dataset, **recipe.dataset_options)
    faces = prepare(source, recipe.preprocessing)
    rows = faces.table.index.to_numpy()
    network = fit(recipe, faces, rows, calibrated=False, folder=runs / recipe.name)
    state = network.backbone.state_dict()
    tensors = {k: v.contiguous() for k, v in state.items() if not k.startswith("fc.")}
    metadata = {"recipe": json.dumps(to_dict(recipe)), "frames": str(len(faces))}
    path = ASSETS / "ir_tiny_start.safetensors"
    save_file(tensors, path, metadata=metadata)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def calibrator(runs: Path) -> None:
    """Train the calibrated network on everyone of its recipe."""
    recipe = load_recipe("calibrator")
    saved = train_everyone(recipe, runs / recipe.name)
    place = ASSETS / "calibrator"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(saved, place)
    print(f"{place}: {sum(f.stat().st_size for f in place.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["start", "calibrator"])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    {"start": start, "calibrator": calibrator}[arguments.what](arguments.runs)
