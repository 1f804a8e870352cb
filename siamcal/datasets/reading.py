"""What the readers of licensed data share: finding files in untidy folders, collecting faults."""

from __future__ import annotations

import filecmp
import logging
import os
import re
from collections.abc import Container, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from siamcal.datasets.base import COLUMNS, MaskedLabel, au_column, root_variable
from siamcal.errors import ConfigError, DataNotFoundError, LabelError
from siamcal.files import check_file, kind_of_file
from siamcal.paper import protocol
from siamcal.table_files import read_table

logger = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)

_PACKED = {".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2"}
# DISFA's longest label file has 60 kB.
MAX_LABEL_BYTES = 16 << 20

IMAGE_PATTERN = r"\.(?:jpe?g|png|bmp|tiff?)"


@dataclass(frozen=True)
class Problem:
    """One finding of a check.

    Attributes:
        level: "error" (training refuses) or "warning" (something is left out).
        place: File, folder or participant.
        text: What is wrong.
    """

    level: str
    place: str
    text: str


@dataclass
class Problems:
    """Collects findings, or, when strict, raises the first error and logs the warnings."""

    strict: bool = True
    found: list[Problem] = field(default_factory=list)
    masked: list[MaskedLabel] = field(default_factory=list)

    def error(self, place: str | Path, text: str, line: int | None = None) -> None:
        """A broken label: raised at once when strict.

        Raises:
            LabelError: When strict.
        """
        where = f"{place}, line {line}" if line is not None else str(place)
        if self.strict:
            raise LabelError(f"{where}: {text}")
        self.found.append(Problem("error", where, text))

    def warning(self, place: str | Path, text: str) -> None:
        """Something is left out or looks odd."""
        if self.strict:
            logger.warning("%s: %s", place, text)
        self.found.append(Problem("warning", str(place), text))

    def masked_below(self, root: Path) -> tuple[MaskedLabel, ...]:
        """The masked labels, their files as the data set's folder holds them."""
        return tuple(replace(m, file=os.path.relpath(m.file, root)) for m in self.masked)


@dataclass(frozen=True)
class Holder:
    """Where a data set comes from and how it lies on disk, for the message when it isn't there.

    Attributes:
        name: Registered name.
        title: Name as people and the paper's protocol write it.
        licence: Whom to ask for what.
        layout: Lines that show the expected folders.
    """

    name: str
    title: str
    licence: str
    layout: tuple[str, ...]

    def missing(self, root: Path | None, found: str = "") -> DataNotFoundError:
        """The error for data that aren't there."""
        given = "No folder was given." if root is None else found or f"{root} doesn't exist."
        if root is not None and root.is_dir():
            given += _seen(root)
        lines = "\n".join(f"    {line}" for line in self.layout)
        return DataNotFoundError(
            f"{self.title} isn't there. {given}\n"
            f"  Licence: {self.licence}\n"
            f"  Expected layout (spelling variants and nested copies are understood):\n{lines}\n"
            f"  Point at it: --data-root DIR, or export {root_variable(self.name)}=DIR. "
            f"Check it: siamcal data check {self.name} --data-root DIR"
        )

    def folder(self, root: Path | None) -> Path:
        """The root folder.

        Raises:
            DataNotFoundError: None was given, it doesn't exist, or it is a file.
        """
        if root is None or not root.exists():
            raise self.missing(root)
        if not root.is_dir():
            raise self.missing(root, f"{root} is a file, not a folder.")
        return root

    def folds(
        self, present: set[str], place: Path, problems: Problems
    ) -> tuple[tuple[str, ...], ...]:
        """The paper's folds, reduced to the participants who are there."""
        folds = protocol()[self.title]["folds_val"]
        expected = {p for fold in folds for p in fold}
        missing, extra = sorted(expected - present), sorted(present - expected)
        if missing:
            problems.warning(
                place,
                f"{len(present & expected)} of the protocol's {len(expected)} participants are "
                f"there; missing: {', '.join(missing)}. Results aren't comparable with the "
                f"paper's: add their files to {place}, or name who is missing beside each result.",
            )
        if extra:
            problems.warning(place, f"no fold of the protocol holds {', '.join(extra)}: left out.")
        return reduced(folds, present)


def _seen(root: Path) -> str:
    """What a folder does hold, by kinds of files: what isn't understood is named, not denied."""
    kinds: dict[str, list[str]] = {}
    for folder, names in walk_files(root):
        for name in names:
            place = os.path.relpath(folder / name, root)
            kinds.setdefault(Path(name).suffix.lower() or "files without a suffix", []).append(
                place
            )
    if not kinds:
        return " There is no file in it."
    most = sorted(kinds.items(), key=lambda kind: -len(kind[1]))[:4]
    packed = " Unpack it." * bool(_PACKED & kinds.keys())
    told = ", ".join(f"{len(places)} {kind} (such as {places[0]})" for kind, places in most)
    return f" It holds {told}.{packed}"


def walk_files(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """(folder, file names) under `root`, sorted, shallow folders first.

    Hidden files, macOS archives' leftovers and empty folders are passed over; links are followed
    once.

    Raises:
        DataNotFoundError: A folder may not be read, or holds a pipe, a socket or a device.
    """
    seen: set[str] = set()
    level = [root]
    while level:
        below: list[Path] = []
        for folder in level:
            real = os.path.realpath(folder)
            if real in seen:
                continue
            seen.add(real)
            files = []
            for entry in _entries(folder):
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                if entry.is_dir():
                    below.append(folder / entry.name)
                    continue
                if not entry.is_file():
                    _check_ordinary(folder / entry.name)
                files.append(entry.name)
            if files:
                yield folder, sorted(files)
        level = sorted(below)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataNotFoundError(f"The folder {folder} can't be read ({error.strerror}).") from None


def _check_ordinary(path: Path) -> None:
    """Refuse a pipe, whose reader would wait for ever; a link to nothing is a missing file."""
    try:
        kind = kind_of_file(path)
    except OSError:
        return
    raise DataNotFoundError(
        f"{path} is {kind}, not a file: no data set has one. Take it out of the folder."
    )


def keep_first(known: dict[Key, Path], key: Key, path: Path, problems: Problems) -> None:
    """Note a label file; another copy of it must be equal.

    Files of shallow folders come first: a nested copy doesn't replace the original.
    """
    first = known.setdefault(key, path)
    try:
        same = first == path or filecmp.cmp(first, path, shallow=False)
    except OSError as error:
        problems.error(path, f"can't be read ({error.strerror}).")
        return
    if not same:
        problems.error(path, f"differs from another copy of the same labels, {first}; keep one.")


def option(setting: str) -> str:
    """How an option of a data set is given: in Python, to `bench` and `train`, and to the check."""
    return (
        f"{setting} (bench and train: --set dataset_options.{setting}; data check: --set {setting})"
    )


def mask_foreign(
    foreign: Sequence[MaskedLabel], count: int, problems: Problems, of: str = "", text: str = ""
) -> bool:
    """Report labels outside 0-5, which are taken as not known; more than 1 % of them is an error.

    Args:
        foreign: Those labels; the file is its whole path.
        count: How many labels there are, of the file or the recording.
        problems: Takes the findings.
        of: What holds the labels, if not the file: " of the sequence".
        text: What the error says of the first label, if not its value.

    Returns:
        Whether the file or recording can be used.
    """
    if len(foreign) > count * 0.01:
        first = foreign[0]
        text = text or f"the intensity is {first.value:g}; allowed: 0 to 5."
        problems.error(
            first.file,
            f"{text} {len(foreign)} of {count} labels{of} are outside; at most 1 % would be taken "
            "as not known.",
            first.line,
        )
        return False
    for label in foreign:
        text = f"the intensity of AU{label.au} is {label.value:g}, outside 0 to 5"
        problems.warning(
            f"{label.file}, line {label.line}", f"{text}: taken as not known (masked)."
        )
    problems.masked += foreign
    return True


def read_label_text(path: Path, problems: Problems) -> list[str] | None:
    """Lines of a label file, or None (and an error) where it can't be read as text."""
    try:
        check_file(path, MAX_LABEL_BYTES)
        data = path.read_bytes()
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problems.error(path, "isn't text; the file is damaged. Copy it again.", line)
    except ConfigError as error:
        problems.error(path, f"isn't read. {error}")
    except OSError as error:
        problems.error(path, f"can't be read ({error.strerror}).")
    return None


def read_metadata(path: str | os.PathLike[str] | None) -> pd.DataFrame | None:
    """A table of participants (with a column "participant"), for results by group.

    Raises:
        DataNotFoundError: The file isn't there.
        ConfigError: It can't be read, has no column "participant", or one participant twice.
    """
    if path is None:
        return None
    path = Path(path).expanduser()
    if not path.exists():
        raise DataNotFoundError(f"The participants' table {path} doesn't exist.")
    table = read_table(path).astype(str).fillna("")
    if "participant" not in table.columns:
        raise ConfigError(
            f"{path} has the columns {', '.join(map(str, table.columns))}; one must be "
            f"'participant', the others hold groups (sex, age, ...)."
        )
    table["participant"] = table["participant"].str.strip()
    twice = table["participant"][table["participant"].duplicated()]
    if len(twice):
        raise ConfigError(f"{path} lists {', '.join(twice.unique())} more than once.")
    return table


def frame_table(
    participant: Any,
    view: str,
    sequence: Any,
    frame: Any,
    source: Any,
    source_index: Any,
    labels: Mapping[int, Any],
) -> pd.DataFrame:
    """Rows of `DatasetSource.table`, none of them a reference yet.

    Each argument is one value or one a row, `labels` AU -> intensities, one a row.
    """
    values = (participant, view, sequence, frame, source, source_index, False)
    columns = dict(zip(COLUMNS, values, strict=True))
    return pd.DataFrame(columns | {au_column(au): each for au, each in labels.items()})


def report_gaps(
    place: str | Path, unlabelled: list[str], lost: list[str], problems: Problems
) -> None:
    """Warn of frames without a label and of labelled ones without a picture."""
    if unlabelled:
        problems.warning(
            place, f"{len(unlabelled)} frames have no label ({examples(unlabelled)}): left out."
        )
    if lost:
        problems.warning(place, f"{len(lost)} labelled frames are missing ({examples(lost)}).")


def reduced(folds: Iterable[Iterable[str]], present: Container[str]) -> tuple[tuple[str, ...], ...]:
    """Folds without the participants that aren't there, and without folds that are empty then."""
    kept = (tuple(p for p in fold if p in present) for fold in folds)
    return tuple(fold for fold in kept if fold)


def examples(names: list[str], limit: int = 3) -> str:
    """The first few names: "a, b, c and 12 more"."""
    text = ", ".join(names[:limit])
    return text + (f" and {len(names) - limit} more" if len(names) > limit else "")


def last_number(stem: str) -> int | None:
    """The number at the end of a file's stem: "frame_0012" -> 12."""
    found = re.search(r"(\d+)$", stem)
    return int(found.group(1)) if found else None
