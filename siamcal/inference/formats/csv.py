"""The table as comma-separated text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import BinaryIO

from siamcal.inference.table import DECIMALS, Cell
from siamcal.registry import table_formats


@table_formats.register("csv")
class CsvWriter:
    """Comma-separated text in UTF-8, with columns as OpenFace writes them.

    Args:
        file: Where to write.
        columns: Name -> type.
    """

    def __init__(self, file: BinaryIO, columns: Mapping[str, type]) -> None:
        self.file = file
        self._line(columns)
        self.flush()

    def write(self, row: Sequence[Cell]) -> None:
        """Write one row: integers as they are, floats with three decimals, None as nothing."""
        self._line(f"{v:.{DECIMALS}f}" if isinstance(v, float) else v for v in row)

    def flush(self) -> None:
        """Hand everything written to the operating system: a crash can't lose it any more."""
        self.file.flush()

    def close(self) -> None:
        """Nothing ends a CSV file but its last row."""
        self.flush()

    def _line(self, cells: Iterable[Cell]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(list(cells))
        self.file.write(text.getvalue().encode())
