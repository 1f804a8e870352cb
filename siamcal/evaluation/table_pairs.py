"""Two folders of tables: which table of one belongs to which of the other."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from siamcal.errors import ConfigError, DataNotFoundError, SiamcalError
from siamcal.evaluation.two_tables import Options, TableAgreement, agree

__all__ = ["Pairs", "agree_on_all", "find_pairs", "tables_in"]

SUFFIXES = (".csv", ".parquet", ".pq")
# What `siamcal predict` writes beside its tables.
_SUMMARY = re.compile(r"summary(-\d+-of-\d+)?\.csv")


@dataclass(frozen=True)
class Pairs:
    """Tables of two folders, or two tables.

    Attributes:
        pairs: (name, A's table, B's table).
        alone_a: Names without a table of B.
        alone_b: Names without a table of A.
    """

    pairs: tuple[tuple[str, Path, Path], ...]
    alone_a: tuple[str, ...] = ()
    alone_b: tuple[str, ...] = ()


def find_pairs(a: Path, b: Path) -> Pairs:
    """Pair two tables, or the tables of two folders by their names without suffix.

    Raises:
        DataNotFoundError: Something isn't there.
        ConfigError: One is a folder and the other isn't, or no name is in both.
    """
    for path in (a, b):
        if not path.exists():
            raise DataNotFoundError(f"{path} doesn't exist (looked in {Path.cwd()}).")
    if a.is_dir() != b.is_dir():
        raise ConfigError(f"One of {a} and {b} is a folder: name two tables, or two folders.")
    if a.samefile(b):
        what = "folder" if a.is_dir() else "file"
        raise ConfigError(f"{a} and {b} are one {what}; agreement is of two tables.")
    if not a.is_dir():
        return Pairs(((a.stem, a, b),))
    mine, theirs = tables_in(a), tables_in(b)
    both = [name for name in mine if name in theirs]
    if not both:
        raise ConfigError(
            f"No table of {a} has the name of one of {b}: {_some(mine)} against {_some(theirs)}. "
            f"Tables of one recording need the same name."
        )
    return Pairs(
        tuple((name, mine[name], theirs[name]) for name in both),
        tuple(name for name in mine if name not in theirs),
        tuple(name for name in theirs if name not in mine),
    )


def tables_in(folder: Path) -> dict[str, Path]:
    """Name without suffix -> the table, of all CSV and Parquet files in a folder.

    Raises:
        ConfigError: Two have one name, or it holds none.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    files = [f for f in files if f.name[0] != "." and not _SUMMARY.fullmatch(f.name)]
    twice = [name for name, count in Counter(f.stem for f in files).items() if count > 1]
    if twice:
        raise ConfigError(f"{folder} has several tables called {twice[0]}; keep one of them there.")
    if not files:
        raise ConfigError(f"{folder} holds no tables ({', '.join(SUFFIXES)}).")
    return {path.stem: path for path in files}


def agree_on_all(
    pairs: Pairs, options: Options | None = None
) -> tuple[list[TableAgreement], dict[str, str]]:
    """Agreement of each pair, and name -> why there is none; of one pair alone that is raised."""
    found, failed = [], {}
    for name, a, b in pairs.pairs:
        try:
            found.append(agree(a, b, options, name))
        except SiamcalError as error:
            if len(pairs.pairs) == 1:
                raise
            failed[name] = str(error)
    return found, failed


def _some(names: dict[str, Path], limit: int = 4) -> str:
    shown = ", ".join(list(names)[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
