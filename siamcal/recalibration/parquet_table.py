"""Parquet tables of which some columns are replaced."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from siamcal.errors import ConfigError
from siamcal.recalibration.text_table import Replacement

__all__ = ["ParquetTable"]


class ParquetTable:
    """A Parquet file; the interface is that of `TextTable`.

    Raises:
        ConfigError: It can't be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.table = pq.read_table(path, partitioning=None, page_checksum_verification=True)
            # OpenFace's spaces survive a conversion.
            self.columns = [name.strip() for name in self.table.column_names]
        except Exception as error:  # whatever a damaged file makes its reader raise
            raise ConfigError(f"{path} can't be read as Parquet ({str(error)[:200]}).") from error

    def read(self, numeric: Collection[str], texts: Collection[str]) -> dict[str, np.ndarray]:
        """Columns as (N,) float64, NaN for null, or as (N,) str.

        Raises:
            ConfigError: A column isn't numeric, or holds infinity.
        """
        found = {}
        for name in numeric:
            column = self._column(name)
            kind = column.type
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or _boolean(kind)):
                raise ConfigError(
                    f"{self.path}, column {name} is of type {kind}; numbers are needed."
                )
            if _boolean(kind):
                column = column.cast(pa.int8())
            try:
                values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
            except pa.ArrowInvalid as error:  # whole numbers that no float holds
                raise ConfigError(f"{self.path}, column {name}: {error}.") from None
            if np.isinf(values).any():
                where = self.place(int(np.flatnonzero(np.isinf(values))[0]))
                raise ConfigError(f"{where}, column {name}: the number is infinite.")
            found[name] = np.array(values)
        for name in texts:
            try:
                told = self._column(name).to_pylist()
            except UnicodeDecodeError:
                raise ConfigError(f"{self.path}, column {name} holds what isn't text.") from None
            found[name] = np.array(["" if v is None else str(v) for v in told], dtype=str)
        return found

    def place(self, row: int) -> str:
        """File and 1-based number of a 0-based row."""
        return f"{self.path}, row {row + 1}"

    def stored(self, name: str, values: np.ndarray, whole: bool = False) -> np.ndarray:
        """The numbers that a column will hold when `values` are written, (N,) float64."""
        kind = self._column(name).type
        if whole or not pa.types.is_floating(kind):
            return values + 0.0
        return values.astype(kind.to_pandas_dtype()).astype(np.float64) + 0.0

    def write(self, path: Path, new: Mapping[str, Replacement], whole: Collection[str]) -> None:
        """Write the table with some columns replaced; integer readings become float64."""
        table = self.table
        for name, (values, where) in new.items():
            index = self.columns.index(name)
            field = table.schema.field(index)
            old = table.column(index)
            kind = field.type if pa.types.is_floating(field.type) or name in whole else pa.float64()
            kept = old.cast(kind).to_pylist()
            mixed = [
                new if new_here else was
                for new, new_here, was in zip(values, where, kept, strict=True)
            ]
            array = pa.array([_plain(v, kind) for v in mixed], type=kind)
            table = table.set_column(index, field.with_type(kind), array)
        pq.write_table(table, path)

    def _column(self, name: str) -> pa.ChunkedArray:
        return self.table.column(self.columns.index(name))


def _boolean(kind: pa.DataType) -> bool:
    return pa.types.is_boolean(kind)


def _plain(value: float | None, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if pa.types.is_floating(kind):
        return np.float16(value) if pa.types.is_float16(kind) else float(value)
    return bool(value) if _boolean(kind) else int(value)
