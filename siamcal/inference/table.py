"""The table: columns as OpenFace writes them, rows on disk as soon as they are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

import numpy as np

__all__ = ["AUTable"]

# OpenFace writes 0 to 5 as well; what lies outside is the network's overshoot.
LOWEST, HIGHEST = 0.0, 5.0
DECIMALS = 3


class AUTable:
    """Writes rows as comma-separated text.

    Intensity models give `AU01_r` (0 to 5) and `AU01_c`, which is 1 exactly where the written
    `AU01_r` reaches the AU's threshold (2); detection models give `AU01_c` alone. Rows without
    success hold zeros, as OpenFace's do: filter by `success == 1`.

    Args:
        stream: Where to write; flushed after every call of `write`.
        aus: AU numbers in the order of the outputs.
        thresholds: Intensity from which an AU counts as present, in the order of `aus`.
        task: "intensity" or "detection".
    """

    def __init__(
        self, stream: TextIO, aus: Sequence[int], thresholds: Sequence[float], task: str
    ) -> None:
        self.stream = stream
        self.thresholds = np.asarray(thresholds, float)
        self.task = task
        self.columns = ["frame", "face_id", "timestamp", "confidence", "success"]
        if task == "intensity":
            self.columns += [f"AU{au:02d}_r" for au in aus]
        self.columns += [f"AU{au:02d}_c" for au in aus]
        self.rows = 0
        self.stream.write(",".join(self.columns) + "\n")
        self.stream.flush()

    def write(
        self, frame: int, timestamp: float, confidence: float, values: np.ndarray | None
    ) -> None:
        """Write one row.

        Args:
            frame: 1-based number of the frame.
            timestamp: Seconds from the start.
            confidence: The face detector's score in [0, 1].
            values: (A,) intensities or logits; None for a frame without success.
        """
        cells = [
            str(frame),
            "0",
            f"{timestamp:.3f}",
            f"{confidence:.3f}",
            str(int(values is not None)),
        ]
        if values is None:
            cells += ["0"] * (len(self.columns) - 5)
        elif self.task == "intensity":
            written = [f"{v:.{DECIMALS}f}" for v in np.clip(values, LOWEST, HIGHEST) + 0.0]
            cells += written
            present = np.array([float(text) for text in written]) >= self.thresholds
            cells += [str(int(p)) for p in present]
        else:
            cells += [str(int(logit >= 0)) for logit in values]
        self.stream.write(",".join(cells) + "\n")
        self.rows += 1

    def flush(self) -> None:
        """Hand everything written to the operating system: a crash can't lose it any more."""
        self.stream.flush()
