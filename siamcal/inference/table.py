"""The table: columns as OpenFace writes them; how they are written is the format's business."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from siamcal.inference.prediction import FrameResult

# OpenFace writes 0 to 5 as well; what lies outside is the network's overshoot.
LOWEST, HIGHEST = 0.0, 5.0
DECIMALS = 3
#: What is told of a frame's face, by the names of `siamcal.faces.quality.TargetQuality`.
JUDGED = (
    *("yaw", "pitch", "roll", "eye_opening", "occlusion", "sharpness", "face_size", "brightness"),
)

#: A cell; None is an empty one.
Cell = float | str | None


class RowWriter(Protocol):
    """What a format of tables gives: rows are written as they come."""

    def write(self, row: Sequence[Cell]) -> None:
        """Write one row; its cells stand in the order of the columns."""

    def flush(self) -> None:
        """Hand what is written to the operating system, as far as the format allows."""

    def close(self) -> None:
        """End the table; the file is closed by whoever opened it."""


class AURows:
    """Makes the rows.

    Intensity models give `AU01_r` (0 to 5) and `AU01_c`, which is 1 exactly where the written
    `AU01_r` reaches the AU's threshold (2); detection models give `AU01_c` alone.

    Args:
        aus: AU numbers in the order of the outputs.
        thresholds: Intensity from which an AU counts as present, in the order of `aus`.
        task: "intensity" or "detection".
        openface: Columns and zeros as OpenFace writes them: rows without success hold 0 in all
            AU columns (filter by `success == 1`). Else their cells are empty, pictures have a
            column `file`, the columns `JUDGED` tell of the face, and `quality` says in words what
            is wrong with a frame.
        raw: Rows carry uncalibrated readings too, as `AU01_raw`.
        pictures: The frames are picture files.

    Attributes:
        columns: Name -> int, float or str, in the order of the table.
    """

    def __init__(
        self,
        aus: Sequence[int],
        thresholds: Sequence[float],
        task: str,
        *,
        openface: bool = False,
        raw: bool = False,
        pictures: bool = False,
    ) -> None:
        self.thresholds, self.task = thresholds, task
        self.openface, self.raw = openface, raw and not openface
        self.columns: dict[str, type] = {"frame": int, "face_id": int}
        self.columns |= {"timestamp": float, "confidence": float, "success": int}
        if task == "intensity":
            self.columns |= {f"AU{au:02d}_r": float for au in aus}
        self.columns |= {f"AU{au:02d}_c": int for au in aus}
        self._read = len(self.columns) - 5  # AU columns
        if self.raw:
            self.columns |= {f"AU{au:02d}_raw": float for au in aus}
        if not openface:
            self.columns |= dict.fromkeys(JUDGED, float)
            self.columns["quality"] = str
            self.columns |= {"file": str} if pictures else {}
        self._pictures = pictures

    def row(self, result: FrameResult) -> list[Cell]:
        """The row of one frame."""
        sound = result.values is not None
        # Names that are no UTF-8 (an old disk, an archive) are written with a replacement mark.
        name = os.fsencode(Path(result.source).name).decode("utf-8", "replace")
        number = 0 if result.face_id is None and self.openface else result.face_id
        cells: list[Cell] = [result.index + 1, number, _rounded(result.timestamp)]
        cells += [_rounded(result.confidence), int(sound)]
        cells += self._values(result.values)
        if self.raw:
            raw = result.raw if result.raw is not None else [None] * len(self.thresholds)
            cells += [None if v is None else written_value(v) for v in raw]
        if not self.openface:
            told = [getattr(result.judged, name, None) for name in JUDGED]
            cells += [None if v is None else _rounded(v) for v in told]
            cells.append(result.quality or None)
            cells += [name] if self._pictures else []
        return cells

    def _values(self, values: np.ndarray | None) -> list[Cell]:
        if values is None:
            return [0 if self.openface else None] * self._read
        if self.task == "detection":
            return [int(logit >= 0) for logit in values]
        written = [written_value(value) for value in values]
        pairs = zip(written, self.thresholds, strict=True)
        return [*written, *(int(value >= threshold) for value, threshold in pairs)]


def written_value(value: float) -> float:
    """An intensity as the table holds it: clipped to 0 to 5, three decimals."""
    # Adding zero turns -0.0 into 0.0.
    return _rounded(min(max(float(value), LOWEST), HIGHEST) + 0.0)


def _rounded(value: float) -> float:
    return float(f"{value:.{DECIMALS}f}")
