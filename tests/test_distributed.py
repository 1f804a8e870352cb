"""Two processes on one global batch give the single process's result."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from siamcal.evaluation import metrics

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parent / "distributed_training.py"


def run(
    folder: Path, processes: int, references_per: str, batchnorm: str = "frozen"
) -> list[np.ndarray]:
    """Predictions of each process."""
    folder.mkdir()
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
        launch += ["--num_processes", str(processes), "--mixed_precision", "no"]
        launch += ["--dynamo_backend", "no", "--main_process_port", "0"]
    found = subprocess.run(
        [*launch, str(SCRIPT), str(folder), references_per, batchnorm],
        env={**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    return [np.load(folder / f"preds{rank}of{processes}.npy") for rank in range(processes)]


@pytest.mark.parametrize("references_per", ["target", "participant"])
def test_two_processes_give_the_metrics_of_one(tmp_path: Path, references_per: str) -> None:
    from facesets import squares

    # With BatchNorm in training mode a process normalises by its share: another training.
    one, *_ = run(tmp_path / "one", 1, references_per)
    two, *_ = run(tmp_path / "two", 2, references_per)
    faces = squares(tmp_path)
    labels = faces.labels((1, 12))[faces.fold(0)[1]]
    for metric in (metrics.icc, metrics.mae):
        np.testing.assert_allclose(metric(one, labels), metric(two, labels), atol=1e-5)
    np.testing.assert_allclose(one, two, atol=1e-4)


def test_every_process_ends_with_the_same_network(tmp_path: Path) -> None:
    first, second = run(tmp_path / "run", 2, "target", "training")
    assert np.array_equal(first, second)
