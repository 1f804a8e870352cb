"""Make the weights that ship in the package, from rendered people who appear in no benchmark.

    python scripts/make_weights.py start        # siamcal/assets/ir_tiny_start.safetensors
    python scripts/make_weights.py calibrator   # siamcal/assets/calibrator/
    siamcal bench calibrator --set output=benchmarks/results/calibrator
    python scripts/make_weights.py card         # siamcal/assets/calibrator/README.md, from these

The first two are recipes (`siamcal show ir_tiny_start`, `siamcal show calibrator`) and resume where
they were interrupted. The start weights leave the last layer out, which is made anew for each task.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import shutil
from pathlib import Path

from safetensors.torch import save_file

from siamcal.calibrators.card import model_card
from siamcal.calibrators.saving import load_calibrator, save_calibrator
from siamcal.datasets import load_dataset
from siamcal.datasets.crops.prepare import prepare
from siamcal.files import write_json
from siamcal.graph.record import CutRecord
from siamcal.inference.models import CUT_FILE
from siamcal.model.create import create_backbone
from siamcal.model.weights import load_face_weights
from siamcal.settings import to_dict
from siamcal.training.everyone import train_everyone
from siamcal.training.loop import fit
from siamcal.training.recipe import load_recipe
from siamcal.training.start import weights_path

ROOT = Path(__file__).parent.parent
ASSETS, RESULTS = ROOT / "siamcal" / "assets", ROOT / "benchmarks" / "results"


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
    """Train the calibrated network on everyone of its recipe; kept is what its start lacks."""
    recipe = load_recipe("calibrator")
    model = load_calibrator(train_everyone(recipe, runs / recipe.name))
    base = create_backbone(recipe.backbone, **model.config.backbone_arguments)
    load_face_weights(base, weights_path(recipe.weights))
    config = dataclasses.replace(model.config, base_model=f"{recipe.weights}.safetensors")
    place = ASSETS / "calibrator"
    shutil.rmtree(place, ignore_errors=True)
    save_calibrator(model, config, place, adapter=True, base=base, half=True)
    write_json(place / CUT_FILE, to_dict(CutRecord.of(load_calibrator(place).split)))
    print(f"{place}: {sum(f.stat().st_size for f in place.iterdir()) / 1e6:.1f} MB")


def card(runs: Path) -> None:
    """Write the packaged calibrator's card from what was measured."""
    results = json.loads((RESULTS / "calibrator" / "results.json").read_text(encoding="utf-8"))
    model = load_calibrator(ASSETS / "calibrator")
    path = ASSETS / "calibrator" / "README.md"
    path.write_text(model_card(model.config, results), encoding="utf-8")
    print(path)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["start", "calibrator", "card"])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    {"start": start, "calibrator": calibrator, "card": card}[arguments.what](arguments.runs)
