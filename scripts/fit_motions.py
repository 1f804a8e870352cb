"""Find the directions in which faces move: `geometry.motions` of face_landmarks.safetensors.

    python scripts/fit_motions.py               # about three minutes

Principal component analysis of how far the points of training people lie from where they lie in
the person's reference, both under the calibrator's noise; each direction is scaled by the spread
along it. `scripts/build_face_trunk.py` makes the rest of the file and keeps these directions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from siamcal.backbones.face_landmarks import MOTIONS, POINTS, FaceLandmarks

from siamcal.datasets import load_dataset, prepare
from siamcal.files import asset
from siamcal.inference.landmark_pass import LandmarkPass
from siamcal.model.weights import load_face_weights
from siamcal.model.weights_file import read_tensors, write_tensors
from siamcal.progress import progress_bar
from siamcal.training.augmentation import REFERENCES, TARGETS, copies_of
from siamcal.training.recipe import load_recipe

ASSET = Path(__file__).parent.parent / "siamcal" / "assets" / "face_landmarks.safetensors"
NAME = "geometry.motions.weight"
PEOPLE = 100
BATCH = 64


@torch.inference_mode()
def shapes_of(images: torch.Tensor, network: LandmarkPass) -> torch.Tensor:
    """Images (B, 3, S, S) -> aligned points (B, D)."""
    runs = [network.run(image, 1.0) for image in images.permute(0, 2, 3, 1).numpy()]
    points = torch.from_numpy(np.stack([run.points for run in runs]))
    return network.backbone.geometry.shape(points[:, POINTS])[0]


def directions_of(moves: np.ndarray) -> np.ndarray:
    """Moves (N, D) -> (MOTIONS, D), whose products with them have mean square 1 about the mean."""
    moves = moves - moves.mean(0)
    variances, axes = np.linalg.eigh(moves.T @ moves / len(moves))
    return (axes[:, ::-1] / np.sqrt(variances[::-1])).T[:MOTIONS]


def main() -> None:
    """Render, find the points, write."""
    recipe = load_recipe("calibrator")
    options = recipe.dataset_options | {"participants": PEOPLE}
    faces = prepare(load_dataset(recipe.dataset, **options), recipe.preprocessing)
    backbone = FaceLandmarks()
    load_face_weights(backbone, asset(ASSET.name))
    network = LandmarkPass(backbone.eval())
    rows = np.arange(len(faces))

    def shapes(of: np.ndarray, noise: object, stream: int) -> torch.Tensor:
        copies = np.ones(len(of), int)
        how = recipe.augmentation
        return shapes_of(copies_of(faces, of, copies, how, noise, stream), network)

    moves = [
        shapes(part, recipe.target_noise, TARGETS)
        - shapes(faces.reference_rows[part], recipe.reference_noise, REFERENCES)
        for part in progress_bar(np.split(rows, range(BATCH, len(rows), BATCH)), unit="batch")
    ]
    weight = torch.from_numpy(directions_of(torch.cat(moves).double().numpy()))
    state = read_tensors(ASSET) | {NAME: weight.half()}
    print(f"{ASSET.name}: sha256 {write_tensors(state, ASSET)}")


if __name__ == "__main__":
    main()
