"""Training and prediction of calibrated and plain networks.

Everything random is a function of (seed, step): the order of the frames, the augmentation and the
dropout. So an interrupted run resumes bit for bit from model, optimiser and step alone, NCG and
CSN see the same batches in the same order, and any number of processes shares one global batch.

From the bottom up: `networks` and `batches`, `objective` (loss, optimiser, learning rates),
`checkpoints` and `log`, the `loop` over all of them; `prediction` and `duration` need no loop.
"""

from siamcal.training.batches import Batch, BatchSource, task_labels
from siamcal.training.duration import estimate_seconds, seconds_per_step
from siamcal.training.loop import fit
from siamcal.training.networks import NonCalibrated, TrainingStep, build_network
from siamcal.training.prediction import predict

__all__ = [
    "Batch",
    "BatchSource",
    "NonCalibrated",
    "TrainingStep",
    "build_network",
    "estimate_seconds",
    "fit",
    "predict",
    "seconds_per_step",
    "task_labels",
]
