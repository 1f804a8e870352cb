"""CSV tables of which some cells are replaced, and every other byte stays as it is."""

from __future__ import annotations

import re
from array import array
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from siamcal.errors import ConfigError

__all__ = ["Replacement", "TextTable"]

# One cell: quotes and spaces around a number, which stay, or around a word for "nothing was read".
# No part can match what the one before it can: a cell of 100,000 blanks or digits costs no time.
_NUMBER = re.compile(
    r'(\s*(?:"\s*)?)([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)(\s*(?:"\s*)?)', re.ASCII
)
_NOTHING = re.compile(r"(?:-?nan(?:\([^)]*\))?|na|n/a|<na>|null|none)?", re.IGNORECASE)
# A column with at most so many decimals is written with its own number of them, or three if it has
# fewer (a mean of several rows needs more than OpenFace's two); others with all their digits.
MOST_DECIMALS, FEWEST_DECIMALS = 6, 3
# OpenFace's longest lines have 12,000 characters.
_LONGEST = 4 << 20

# New values (N,) and where they replace the old ones, (N,) bool.
Replacement = tuple[np.ndarray, np.ndarray]


class TextTable:
    """A CSV file, read line by line twice: for its numbers, and when it is written anew.

    Args:
        path: The file.

    Attributes:
        columns: Names in the header, without spaces and quotes around them.

    Raises:
        ConfigError: It can't be read, isn't text, or has no header.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as file:
            header = next(_records(file), None)
        if header is None or not header[1].strip():
            raise ConfigError(f"{path} is empty: it has no header.")
        names = _cells(header[1].removeprefix("\ufeff").rstrip("\r\n"))
        self.columns = [name.strip().strip('"').strip() for name in names]
        self._lines: array[int] = array("q")
        self._values: dict[str, np.ndarray] = {}
        self._decimals: dict[str, int | None] = {}

    def read(self, numeric: Collection[str], texts: Collection[str]) -> dict[str, np.ndarray]:
        """Columns as (N,) float64, NaN where nothing stands, or as (N,) str.

        Raises:
            ConfigError: A row has more or fewer cells than the header, or a cell is no number.
        """
        places = [(self.columns.index(name), name) for name in numeric]
        values = {name: array("d") for name in numeric}
        told: dict[str, list[str]] = {name: [] for name in texts}
        decimals: dict[str, int | None] = dict.fromkeys(numeric, 0)
        with self._opened() as file:
            for line, text in _rows(file):
                cells = self._row(line, text)
                self._lines.append(line)
                for column, name in places:
                    cell = cells[column]
                    number = _NUMBER.fullmatch(cell)
                    if number is None:
                        values[name].append(self._nothing(line, name, cell))
                        continue
                    values[name].append(float(number[2]))
                    known = decimals[name]
                    if known is not None:
                        decimals[name] = _decimals(number[2], known)
                for name, kept in told.items():
                    kept.append(cells[self.columns.index(name)].strip().strip('"').strip())
        self._values = {name: np.array(each) for name, each in values.items()}
        self._decimals = decimals
        for name, each in self._values.items():
            if np.isinf(each).any():
                where = self.place(int(np.flatnonzero(np.isinf(each))[0]))
                raise ConfigError(f"{where}, column {name}: the number is too large to be stored.")
        return self._values | {name: np.array(each, dtype=str) for name, each in told.items()}

    def place(self, row: int) -> str:
        """File and line of a 0-based row."""
        return f"{self.path}, line {self._lines[row]}"

    def stored(self, name: str, values: np.ndarray, whole: bool = False) -> np.ndarray:
        """The numbers that a column will hold when `values` are written, (N,) float64.

        Args:
            name: The column.
            values: (N,) new numbers.
            whole: They are 0 or 1.
        """
        digits = self._digits(name, whole)
        if digits is None:
            return values + 0.0
        return np.array([float(f"{v:.{digits}f}") for v in values]) + 0.0

    def write(self, path: Path, new: Mapping[str, Replacement], whole: Collection[str]) -> None:
        """Write the table with some cells replaced.

        A cell whose number doesn't change keeps its text.

        Args:
            path: Another file.
            new: Column -> new numbers, and where.
            whole: Columns of 0 and 1.
        """
        places = [
            (self.columns.index(name), values, where, self._values[name], name)
            for name, (values, where) in new.items()
        ]
        digits = {name: self._digits(name, name in whole) for name in new}
        row = 0
        with (
            self._opened() as file,
            path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as out,
        ):
            for number, (_, text) in enumerate(_records(file)):
                if number == 0 or not text.strip():
                    out.write(text)
                    continue
                body = text.rstrip("\r\n")
                cells = _cells(body)
                for column, values, where, old, name in places:
                    if where[row] and values[row] != old[row]:
                        cells[column] = _replaced(cells[column], values[row], digits[name])
                out.write(",".join(cells) + text[len(body) :])
                row += 1

    def _digits(self, name: str, whole: bool) -> int | None:
        known = self._decimals[name]
        if whole:
            return known or 0
        return None if known is None else max(known, FEWEST_DECIMALS)

    def _row(self, line: int, text: str) -> list[str]:
        cells = _cells(text.rstrip("\r\n"))
        if len(cells) != len(self.columns):
            raise ConfigError(
                f"{self.path}, line {line} has {len(cells)} cells, the header {len(self.columns)}; "
                f"it is cut off or damaged. Mend or delete the line."
            )
        return cells

    def _nothing(self, line: int, name: str, cell: str) -> float:
        if not _NOTHING.fullmatch(cell.strip().removeprefix('"').removesuffix('"').strip()):
            raise ConfigError(
                f"{self.path}, line {line}, column {name}: {cell.strip()!r:.100} isn't a finite "
                f"number like 0.25. Leave the cell empty where nothing was read."
            )
        return float("nan")

    @contextmanager
    def _opened(self) -> Iterator[IO[str]]:
        try:
            with self.path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
                yield file
        except OSError as error:
            raise ConfigError(f"{self.path} can't be read ({error.strerror or error}).") from error


def _records(file: IO[str]) -> Iterator[tuple[int, str]]:
    """(1-based line where it begins, text with its line end); a quoted cell may hold line ends."""
    begun, at = "", 0
    for line, text in enumerate(iter(lambda: file.readline(_LONGEST), ""), start=1):
        if len(text) + len(begun) >= _LONGEST:
            raise ConfigError(
                f"{file.name}, line {at or line} is longer than {_LONGEST:,} characters: it is no "
                "table of readings, or damaged."
            )
        if "\0" in text:
            raise ConfigError(
                f"{file.name}, line {line} holds zero bytes: it isn't text in UTF-8. Save the "
                f"table as CSV in UTF-8."
            )
        at = at if begun else line
        begun += text
        if begun.count('"') % 2 == 0:
            yield at, begun
            begun = ""
    if begun:
        raise ConfigError(f"{file.name}, line {at}: a quotation mark isn't closed.")


def _rows(file: IO[str]) -> Iterator[tuple[int, str]]:
    """Records that hold data: neither the header nor empty lines."""
    records = _records(file)
    next(records)
    return ((line, text) for line, text in records if text.strip())


def _cells(text: str) -> list[str]:
    pieces = text.split(",")
    if '"' not in text:
        return pieces
    cells: list[str] = []
    for piece in pieces:
        if cells and cells[-1].count('"') % 2:
            cells[-1] += "," + piece
        else:
            cells.append(piece)
    return cells


def _decimals(number: str, known: int) -> int | None:
    """The larger number of decimals, or None where a column has too many or exponents."""
    count = len(number.partition(".")[2])
    return None if count > MOST_DECIMALS or "e" in number or "E" in number else max(known, count)


def _replaced(cell: str, value: float, digits: int | None) -> str:
    found = _NUMBER.fullmatch(cell)
    assert found is not None  # only cells that hold a number are replaced
    written = repr(float(value)) if digits is None else f"{value:.{digits}f}"
    return found[1] + written + found[3]
