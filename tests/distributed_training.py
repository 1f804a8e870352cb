"""Started by test_distributed.py under `accelerate launch`: train on squares, save predictions."""

import dataclasses
import os
import sys
from pathlib import Path

import facesets
import numpy as np
import torch
from facesets import squares

from siamcal.training.loop import fit
from siamcal.training.prediction import predict
from siamcal.training.recipe import Augmentation

RECIPE = dataclasses.replace(
    facesets.RECIPE,
    steps=8,
    batch_size=13,  # odd, and 9 at an epoch's end: the shares need filling up
    # Adam divides by the gradient's size: higher rates make rounding visible.
    learning_rate=1e-4,
    learning_rate_last=1e-4,
    augmentation=Augmentation(),
)


def main(folder: Path, references_per: str, freeze: str) -> None:
    torch.set_num_threads(1)
    data = folder / f"data{torch.randint(10**9, ()).item()}"
    data.mkdir()
    faces = squares(data)
    recipe = dataclasses.replace(
        RECIPE, references_per=references_per, freeze_batchnorm=freeze == "frozen"
    )
    training, validation = faces.fold(0)
    network = fit(recipe, faces, training, calibrated=True)
    processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    preds = predict(network, faces, validation)
    rank = os.environ.get("RANK", 0)
    np.save(folder / f"preds{rank}of{processes}.npy", preds)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
