"""Learn from rendered people where two faces are one person's: siamcal/assets/identity.safetensors.

    python scripts/fit_identity.py              # about twenty minutes on one core

People that no benchmark shows, each in two sessions (light, camera, sensor, movements), half of
them in the varied look. In the second session every second pair of people has other hairstyles,
and glasses put on or off. `siamcal bench stranger` measures what comes of it on other people.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from siamcal.benchmarks._sessions import Session

from siamcal.faces import FacePipeline
from siamcal.faces.identity import ASSET, LENGTH, MapReader, identity_crop
from siamcal.progress import progress_bar
from siamcal.synth.plan import TRAINING_PEOPLE

ROOT = Path(__file__).parent.parent
FIRST_PERSON = 450_000
FRAMES = 6  # of each session, beside the face at rest
# Principal axes that are kept; 192 of them tell people apart a little better than 128.
AXES = 192
RIDGE = 1e-3  # of the mean variance within people


def crops_of(number: int, pipeline: FacePipeline) -> Iterator[np.ndarray]:
    """A person's faces in two sessions."""
    look = "varied" if number % 2 else "usual"
    for place in (0, 1):
        restyled = bool(place and number // 2 % 2)
        session = Session(number, place, look=look, restyled=restyled)
        for picture in (session.neutral(), *session.frames(session.draw(FRAMES))):
            for face in pipeline.detect(picture, max_faces=1):
                yield identity_crop(picture, face)


def learn(features: np.ndarray, people: np.ndarray) -> dict[str, np.ndarray]:
    """Probabilistic linear discriminant analysis on the strongest principal axes.

    Args:
        features: (N, LENGTH).
        people: (N,) whose.

    Returns:
        mean (LENGTH,), axes (LENGTH, D) on which one person's variance is 1, and between (D,), the
        variance of people on each.
    """
    mean = features.mean(0)
    _, _, directions = np.linalg.svd(features - mean, full_matrices=False)
    places = (features - mean) @ directions[:AXES].T
    numbers, sizes = np.unique(people, return_counts=True)
    centres = np.stack([places[people == number].mean(0) for number in numbers])
    rest = places - centres[np.searchsorted(numbers, people)]
    within = rest.T @ rest / (len(places) - len(numbers))
    between = np.cov(centres.T) - within / sizes.mean()
    within += RIDGE * np.trace(within) / AXES * np.eye(AXES)
    white = np.linalg.inv(np.linalg.cholesky(within))
    variance, turn = np.linalg.eigh(white @ between @ white.T)
    axes = directions[:AXES].T @ white.T @ turn
    return {"mean": mean, "axes": axes, "between": np.maximum(variance, 0)}


def main() -> None:
    """Render, learn, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--people", type=int, default=600)
    count = parser.parse_args().people
    numbers = range(FIRST_PERSON, FIRST_PERSON + count)
    assert numbers[-1] in TRAINING_PEOPLE
    read = MapReader()
    features, people = [], []
    with FacePipeline() as pipeline:
        for number in progress_bar(numbers, total=count, unit="person"):
            for crop in crops_of(number, pipeline):
                features.append(read(crop).astype(np.float16))
                people.append(number)
    learnt = learn(np.stack(features).astype(np.float64), np.array(people))
    assert learnt["mean"].shape == (LENGTH,)
    tensors = {name: torch.from_numpy(value).half().contiguous() for name, value in learnt.items()}
    path = ROOT / "siamcal" / "assets" / ASSET
    save_file(tensors, path, metadata={"people": str(count), "frames": str(len(people))})
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
