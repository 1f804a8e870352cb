"""The table as Parquet: small, typed, and readable only once it is complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

from siamcal.inference.table import Cell
from siamcal.registry import table_formats

# Rows are held until a group is full: a group of few rows costs more than its rows.
ROWS_A_GROUP = 8192


@table_formats.register("parquet")
class ParquetWriter:
    """Apache Parquet, written a group of 8,192 rows at a time; empty cells are nulls.

    Args:
        file: Where to write.
        columns: Name -> type.
    """

    def __init__(self, file: BinaryIO, columns: Mapping[str, type]) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        kinds = {int: pa.int64(), float: pa.float64(), str: pa.string()}
        self.schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
        self._writer = parquet.ParquetWriter(file, self.schema)
        self._rows: list[dict[str, Any]] = []

    def write(self, row: Sequence[Cell]) -> None:
        """Write one row."""
        self._rows.append(dict(zip(self.schema.names, row, strict=True)))
        if len(self._rows) >= ROWS_A_GROUP:
            self._write_group()

    def flush(self) -> None:
        """Nothing: without its end a Parquet file can't be read, whatever lies on the disk."""

    def close(self) -> None:
        """Write the rest and the end."""
        if self._rows:
            self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        import pyarrow as pa

        self._writer.write_table(pa.Table.from_pylist(self._rows, self.schema))
        self._rows = []
