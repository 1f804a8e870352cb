"""Learn from rendered people where two faces are one person's: siamcal/assets/identity.safetensors.

    python scripts/fit_identity.py              # about ten minutes on one core

People that no benchmark shows, in the varied look: at rest and acting in one session (light,
camera, sensor), at rest in another, and there with another hairstyle, and glasses put on or off.
`siamcal bench stranger` measures what comes of it on other people.
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
from siamcal.faces.descriptor import LENGTH, DescriptorReader
from siamcal.faces.identity import ASSET, identity_crop
from siamcal.progress import progress_bar
from siamcal.synth.plan import TRAINING_PEOPLE

ROOT = Path(__file__).parent.parent
FIRST_PERSON = 460_000
FRAMES = 4  # in which the person acts
# Chosen on 150 other rendered people, and so that the limit that tells them apart tells real ones
# apart, too (31 of them, looked at; docs/predict.md): rendered faces lie nearer together than real
# ones unless most of what they share is taken off.
RIDGE = 1.0  # variance of one person that is supposed in any direction, of the mean one
CENTRE = 0.75  # of the rendered faces' mean


def pictures_of(number: int) -> Iterator[np.ndarray]:
    """A person's seven pictures."""
    first = Session(number, look="varied")
    yield first.neutral()
    yield from first.frames(first.draw(FRAMES))
    yield Session(number, 1, look="varied").neutral()
    yield Session(number, 1, look="varied", other_style=True).neutral()


def learn(descriptors: np.ndarray, people: np.ndarray) -> dict[str, np.ndarray]:
    """What is taken from descriptors, and axes on which one person's differ alike.

    Args:
        descriptors: (N, LENGTH).
        people: (N,) whose.

    Returns:
        mean (LENGTH,) and axes (LENGTH, LENGTH).
    """
    mean = descriptors.mean(0)
    numbers = np.unique(people)
    centres = np.stack([descriptors[people == number].mean(0) for number in numbers])
    rest = descriptors - centres[np.searchsorted(numbers, people)]
    within = rest.T @ rest / (len(descriptors) - len(numbers))
    variance, turn = np.linalg.eigh(within)
    axes = turn / np.sqrt(variance + RIDGE * variance.mean())
    return {"mean": CENTRE * mean, "axes": axes}


def main() -> None:
    """Render, learn, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--people", type=int, default=150)
    count = parser.parse_args().people
    numbers = range(FIRST_PERSON, FIRST_PERSON + count)
    assert numbers[-1] in TRAINING_PEOPLE
    read = DescriptorReader()
    descriptors, people = [], []
    with FacePipeline() as pipeline:
        for number in progress_bar(numbers, total=count, unit="person"):
            for picture in pictures_of(number):
                for face in pipeline.detect(picture, max_faces=1):
                    descriptors.append(read(identity_crop(picture, face)))
                    people.append(number)
    learnt = learn(np.stack(descriptors).astype(np.float64), np.array(people))
    assert learnt["mean"].shape == (LENGTH,)
    tensors = {n: torch.from_numpy(value).float().contiguous() for n, value in learnt.items()}
    path = ROOT / "siamcal" / "assets" / ASSET
    save_file(tensors, path, metadata={"people": str(count), "frames": str(len(people))})
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
