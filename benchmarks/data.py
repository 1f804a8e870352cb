"""How fast is the way from pictures on disk to batches, and from predictions to intervals?"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from siamcal.datasets import DatasetSource, FaceSet, load_dataset, prepare
from siamcal.environment import usable_cores
from siamcal.errors import ConfigError
from siamcal.evaluation.intervals import paired_difference
from siamcal.preprocessing import Preprocessing
from siamcal.registry import benchmarks

__all__ = ["Measurements", "data"]

# As many frames, participants and AUs as both views of DISFA's labels.
_DISFA = (27, 9690, 12)


class Measurements(dict[str, float]):
    """Name -> number, printed as a Markdown table."""

    def __str__(self) -> str:
        rows = [f"| {name} | {value:.4g} |" for name, value in self.items()]
        return "\n".join(["| measure | value |", "| --- | --- |", *rows])


@benchmarks.register("data")
def data(
    frames: int = 240, size: int = 112, workers: str = "1,2", batch_size: int = 64
) -> Measurements:
    """Crop rendered frames with 1, 2, ... processes, read batches, resample participants.

    Args:
        frames: Number of rendered frames, a multiple of 6.
        size: Side of the crops in pixels.
        workers: Numbers of processes, separated by commas.
        batch_size: Crops in a batch.

    Returns:
        Cropping in frames/s for each number of processes (starting them included), opening a
        finished cache in seconds, batches of crops in images/s and MB/s of one core, and the paired
        difference of two methods on a set as large as DISFA in seconds.

    Raises:
        ConfigError: An argument is out of range.
    """
    if frames < 6 or frames % 6:
        raise ConfigError(f"frames is {frames}; allowed: multiples of 6.")
    counts = [int(part) for part in str(workers).split(",") if part.strip().isdigit()]
    if not counts:
        raise ConfigError(f"workers is {workers!r}; allowed: numbers such as 1,2,4.")
    source = load_dataset("synth", size="tiny", frames=frames // 6)
    preprocessing = Preprocessing(size=size)
    found = Measurements({"processor cores": float(usable_cores()), "frames": float(frames)})
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            faces, seconds = _timed(_crop, source, preprocessing, Path(folder) / str(count), count)
            found[f"cropping, {count} processes, frames/s"] = frames / seconds
        _, found["opening a finished cache, s"] = _timed(
            _crop, source, preprocessing, Path(folder) / str(counts[-1]), 1
        )
        found.update(_batches(faces, batch_size))
    _, found["paired difference, size of DISFA, s"] = _timed(_resample)
    return found


def _timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def _crop(
    source: DatasetSource, preprocessing: Preprocessing, cache: Path, workers: int
) -> FaceSet:
    return prepare(source, preprocessing, cache=cache, workers=workers)


def _batches(faces: FaceSet, batch_size: int, seconds: float = 1.0) -> dict[str, float]:
    """Random batches from the memory map, as float tensors, for a second of processor time."""
    generator = np.random.default_rng(0)
    images, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        rows = generator.integers(0, len(faces), batch_size)
        images += len(faces.preprocessing.to_tensor(faces.images[rows]))
    rate = images / (time.process_time() - start)
    megabytes = rate * faces.images[0].nbytes / 1e6
    return {"batches of crops, images/s": rate, "batches of crops, MB/s": megabytes}


def _resample() -> None:
    people, each, num_aus = _DISFA
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 6, (people * each, num_aus)).astype(float)
    preds = [labels + generator.normal(0, spread, labels.shape) for spread in (1.0, 1.2)]
    names = np.repeat([f"P{i}" for i in range(people)], each)
    paired_difference("icc", preds[0], preds[1], labels, names)
