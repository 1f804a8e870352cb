"""Pooled predictions of a cross-validated run: in memory, and as a Parquet file in its folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from siamcal.errors import ConfigError
from siamcal.table_files import read_table, write_parquet

_FILE = "predictions_{}.parquet"
_COLUMN = re.compile(r"(.+)_AU(\d{2,})")


@dataclass(frozen=True, eq=False)
class TaskPredictions:
    """Pooled validation predictions of one task.

    Attributes:
        task: "intensity" or "detection".
        aus: The A action units.
        table: (N) rows of the face set: participant, view, sequence, frame.
        labels: (N, A) intensities or occurrence; negative is invalid.
        preds: Method -> (N, A) intensities or logits.
    """

    task: str
    aus: tuple[int, ...]
    table: pd.DataFrame
    labels: np.ndarray
    preds: dict[str, np.ndarray]

    @property
    def participants(self) -> np.ndarray:
        """(N,) participant of each frame."""
        return self.table["participant"].to_numpy(dtype=str)

    def save(self, folder: Path) -> None:
        """Write one row a frame, with labels and predictions, as Parquet with a checksum."""
        frame = self.table.reset_index(drop=True).copy()
        for column, values in (("label", self.labels), *self.preds.items()):
            for a, au in enumerate(self.aus):
                frame[f"{column}_AU{au:02d}"] = values[:, a]
        write_parquet(frame, folder / _FILE.format(self.task))

    @classmethod
    def load(cls, folder: Path) -> list[TaskPredictions]:
        """What a run's folder holds, one for each task; labels and predictions are float64.

        Raises:
            ConfigError: A file is damaged or isn't siamcal's.
        """
        return [cls._read(file) for file in sorted(folder.glob(_FILE.format("*")))]

    @classmethod
    def _read(cls, file: Path) -> TaskPredictions:
        advice = "delete it and start the same `siamcal bench` again"
        try:
            frame = read_table(file)
        except ConfigError as error:
            raise ConfigError(f"{error} If you can't replace it, {advice}.") from None
        found = [m.groups() for m in map(_COLUMN.fullmatch, frame.columns) if m]
        aus = tuple(int(au) for method, au in found if method == "label")
        needed = [f"{m}_AU{au:02d}" for m in dict.fromkeys(m for m, _ in found) for au in aus]
        missing = [c for c in ("participant", *needed) if c not in frame.columns]
        if missing or not aus:
            wrong = ", ".join(missing[:5]) or "label_AUxx"
            raise ConfigError(f"{file} lacks the columns {wrong}; {advice}.")
        texts = [c for c in needed if frame[c].dtype.kind not in "biuf"]
        if texts or frame["participant"].isna().any():
            wrong = texts[0] if texts else "participant"
            raise ConfigError(f"{file}, column {wrong}: not what siamcal writes; {advice}.")
        values = {
            method: frame[[f"{method}_AU{au:02d}" for au in aus]].to_numpy(np.float64)
            for method in dict.fromkeys(method for method, _ in found)
        }
        table = frame[[name for name in frame.columns if not _COLUMN.fullmatch(name)]]
        task = file.stem.removeprefix(_FILE.partition("{")[0])
        return cls(task, aus, table, values.pop("label"), values)
