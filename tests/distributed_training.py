"""Started by test_distributed.py under `accelerate launch`: train on squares, save predictions."""

import dataclasses
import os
import sys
from pathlib import Path

import numpy as np
import torch
from facesets import squares

from siamcal.preprocessing import Preprocessing
from siamcal.recipe import Recipe
from siamcal.training import fit, predict

RECIPE = Recipe(
    name="squares",
    dataset="squares",
    backbone="ir_tiny",
    backbone_options={"input_size": 32},
    merge_at="layer2",
    preprocessing=Preprocessing(size=32, contrast="none", mask="none"),
    steps=8,
    batch_size=12,
    # BatchNorm in training mode sees each process's share of the batch: another training.
    freeze_batchnorm=True,
)


def main(folder: Path, references_per: str) -> None:
    torch.set_num_threads(1)
    data = folder / f"data{torch.randint(10**9, ()).item()}"
    data.mkdir()
    faces = squares(data)
    recipe = dataclasses.replace(RECIPE, references_per=references_per)
    training, validation = faces.fold(0)
    network = fit(recipe, faces, training, calibrated=True)
    preds = predict(network, faces, validation)
    if int(os.environ.get("RANK", 0)) == 0:
        np.save(folder / "preds.npy", preds)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
