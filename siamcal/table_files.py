"""CSV and Parquet tables, of strangers too: read whole as they stand, or refused with a reason."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siamcal.errors import ConfigError
from siamcal.files import check_file, read_text, replacing

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["is_parquet", "read_table", "write_parquet"]

logger = logging.getLogger(__name__)

# A file of a kilobyte can claim any number of rows; these are ten times those of a large data set.
MAX_CELLS = 500_000_000
MAX_PARQUET_BYTES = 4 << 30
MAX_MEMORY = 8 << 30
_BATCH = 8192  # rows read before their memory is counted
_DIGEST = b"siamcal.digest"


def is_parquet(path: Path) -> bool:
    """Whether a table is Parquet, by its suffix; others are text."""
    return path.suffix.lower() in (".parquet", ".pq")


def read_table(path: Path) -> pd.DataFrame:
    """A table with a header: CSV (tabs in .tsv) with all cells as text, or Parquet as stored.

    Empty cells of text, in Parquet too, are "". What `write_parquet` wrote is held against its
    checksum; columns of lists or tables in a stranger's Parquet are left out.

    Raises:
        ConfigError: It can't be read, is cut off or damaged (with file and line), or takes more
            memory than any table of frames.
    """
    table = _parquet(path) if is_parquet(path) else _text(path)
    twice = sorted(set(table.columns[table.columns.duplicated()]))
    if twice:
        raise ConfigError(f"{path} has the column {', '.join(twice)[:200]} twice; keep one.")
    texts = [name for name in table.columns if table[name].dtype.kind not in "biufcmM"]
    for name in texts:
        if table[name].dtype.name == "category":  # takes no other values
            table[name] = table[name].astype(object)
    return table.fillna(dict.fromkeys(texts, ""))


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write a table with a checksum, without its index, atomically; `read_table` is the inverse."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    stored = pa.Table.from_pandas(table, preserve_index=False)
    facts = {**(stored.schema.metadata or {}), _DIGEST: _digest(_frame(stored))}
    with replacing(path) as place:
        pq.write_table(stored.replace_schema_metadata(facts), place, write_page_checksum=True)


def _text(path: Path) -> pd.DataFrame:
    import pandas as pd

    text = read_text(path)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ConfigError(f"{path}, line {line} holds zero bytes: it isn't text in UTF-8.")
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    rows: list[list[str]] = []
    try:
        for row in reader:
            if not row or (row == [""] and rows and len(rows[0]) > 1):
                continue
            if rows and len(row) != len(rows[0]):
                raise ConfigError(
                    f"{path}, line {reader.line_num} has {len(row)} cells, the header "
                    f"{len(rows[0])}; it is cut off or damaged. Mend or delete the line."
                )
            rows.append(row)
    except csv.Error as error:
        raise ConfigError(
            f"{path} can't be read as a table: {error} at line {reader.line_num}."
        ) from None
    if not rows:
        raise ConfigError(f"{path} is empty: it has no header.")
    # As pandas writes an index without a name.
    names = [name.strip() or f"Unnamed: {place}" for place, name in enumerate(rows[0])]
    return pd.DataFrame(rows[1:], columns=names, dtype=str)


def _parquet(path: Path) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_file(path, MAX_PARQUET_BYTES)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            cells = file.metadata.num_rows * len(file.schema_arrow.names)
            if cells > MAX_CELLS:
                raise _too_large(path, f"{cells:,} cells; at most {MAX_CELLS:,} are read")
            batches, memory = [], 0
            for batch in file.iter_batches(_BATCH):
                batches.append(batch)
                memory += batch.nbytes
                if memory > MAX_MEMORY:
                    raise _too_large(path, f"over {MAX_MEMORY:,} bytes in memory")
            stored = pa.Table.from_batches(batches, file.schema_arrow)
        frame = _frame(stored)
        digest = (stored.schema.metadata or {}).get(_DIGEST)
        if digest not in (None, _digest(frame)):
            raise ValueError("its values aren't those that were written")
    except ConfigError:
        raise
    except Exception as error:  # whatever a damaged file makes its readers raise
        raise ConfigError(
            f"{path} can't be read as Parquet ({_reason(error)}): it is damaged, or of another "
            "kind."
        ) from None
    return frame


def _frame(stored: pa.Table) -> pd.DataFrame:
    """Without pandas' own notes in the file, which a damaged or foreign one may have wrong."""
    import pyarrow as pa

    nested = [field.name for field in stored.schema if pa.types.is_nested(field.type)]
    if nested:
        logger.warning("columns of lists or tables are left out: %s", ", ".join(nested)[:200])
    index = [name for name in stored.column_names if name.startswith("__index_level_")]
    kept = [i for i, n in enumerate(stored.column_names) if n not in {*nested, *index}]
    return stored.select(kept).to_pandas(ignore_metadata=True)


def _digest(frame: pd.DataFrame) -> bytes:
    import pandas as pd

    digest = hashlib.sha256("\0".join(frame.columns).encode())
    digest.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    return digest.hexdigest().encode()


def _reason(error: Exception) -> str:
    text: Any = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def _too_large(path: Path, what: str) -> ConfigError:
    return ConfigError(f"{path} holds {what}. The file is damaged, or meant to exhaust the memory.")
