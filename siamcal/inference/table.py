"""The table: columns as OpenFace writes them; how they are written is the format's business."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

# OpenFace writes 0 to 5 as well; what lies outside is the network's overshoot.
LOWEST, HIGHEST = 0.0, 5.0
DECIMALS = 3


class RowWriter(Protocol):
    """What a format of tables gives: rows are written as they come."""

    def write(self, row: Sequence[float]) -> None:
        """Write one row; its values stand in the order of the columns."""

    def flush(self) -> None:
        """Hand what is written to the operating system, as far as the format allows."""

    def close(self) -> None:
        """End the table; the file is closed by whoever opened it."""


class AURows:
    """Makes the rows.

    Intensity models give `AU01_r` (0 to 5) and `AU01_c`, which is 1 exactly where the written
    `AU01_r` reaches the AU's threshold (2); detection models give `AU01_c` alone. Rows without
    success hold zeros, as OpenFace's do: filter by `success == 1`.

    Args:
        aus: AU numbers in the order of the outputs.
        thresholds: Intensity from which an AU counts as present, in the order of `aus`.
        task: "intensity" or "detection".

    Attributes:
        columns: Name -> int or float, in the order of the table.
    """

    def __init__(self, aus: Sequence[int], thresholds: Sequence[float], task: str) -> None:
        self.thresholds = thresholds
        self.task = task
        self.columns: dict[str, type] = {"frame": int, "face_id": int}
        self.columns |= {"timestamp": float, "confidence": float, "success": int}
        if task == "intensity":
            self.columns |= {f"AU{au:02d}_r": float for au in aus}
        self.columns |= {f"AU{au:02d}_c": int for au in aus}

    def row(
        self, frame: int, timestamp: float, confidence: float, values: np.ndarray | None
    ) -> list[float]:
        """One row.

        Args:
            frame: 1-based number of the frame.
            timestamp: Seconds from the start.
            confidence: The face detector's score in [0, 1].
            values: (A,) intensities or logits; None for a frame without success.
        """
        start = [frame, 0, _rounded(timestamp), _rounded(confidence), int(values is not None)]
        if values is None:
            return start + [0] * (len(self.columns) - len(start))
        if self.task == "detection":
            return start + [int(logit >= 0) for logit in values]
        # Adding zero turns -0.0 into 0.0.
        written = [_rounded(v) for v in np.clip(values, LOWEST, HIGHEST) + 0.0]
        pairs = zip(written, self.thresholds, strict=True)
        return start + written + [int(value >= threshold) for value, threshold in pairs]


def _rounded(value: float) -> float:
    return float(f"{value:.{DECIMALS}f}")
