"""Any other data set, described by one table: a row a frame, a column an AU."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from siamcal.datasets.base import COLUMNS, DatasetSource, au_column
from siamcal.datasets.manifest_labels import (
    from_zero,
    in_steps,
    letters_among,
    occurrence_aus,
    one_side,
    report_drift,
    report_duplicates,
)
from siamcal.datasets.reading import Holder, Problems, examples, last_number, read_metadata
from siamcal.datasets.references import choose_references, warn_of_active
from siamcal.errors import ConfigError
from siamcal.files import kind_of_file
from siamcal.registry import datasets
from siamcal.table_files import read_table

HOLDER = Holder(
    "manifest",
    "The table of your own data",
    "yours: the table names your files, nothing is copied.",
    (
        "TABLE.csv or TABLE.parquet (or a folder with manifest.csv) with the columns",
        "  path           image, or video; relative to the table's folder",
        "  participant    who",
        "  AU01, AU12 ..  intensity 0-5, or occurrence 0/1; empty or negative: not known",
        "and where they apply",
        "  frame          of a video: frame, from 0; of images: any number that orders them",
        "  view, sequence camera, recording",
        "  is_reference   1 for one neutral frame of each participant (and view), else 0",
        "  fold           number of the fold in which the participant is validated",
        "  other columns  groups, such as sex: the same in all rows of a participant",
    ),
)

_VIDEO_SUFFIXES = {".avi", ".mp4", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"}
_AU = re.compile(r"au_?0*(\d{1,2})(?:_r|_c)?", re.IGNORECASE)
_TRUE, _FALSE = {"1", "1.0", "true", "yes", "y"}, {"0", "0.0", "false", "no", "n", "", "nan"}
_MAX_INTENSITY = 5
_WHO = (
    " Name in each row who is shown: nobody may be in training and test, and each person has a "
    "neutral frame. Where every video or folder shows another person, its name will do; where some "
    "show the same, give them one name."
)
# With more participants than this, five folds instead of one for each.
_LEAVE_ONE_OUT = 10


@datasets.register("manifest")
def manifest(
    data_root: Path | None,
    *,
    references: str = "protocol",
    labels: str = "auto",
    threshold: int = 2,
    folds: int = 0,
    allow_mismatch: bool = False,
    invalid: str = "",
    scale: str | float = 5,
    sides: str = "",
    first_frame: int | str = "auto",
    metadata: str | None = None,
    problems: Problems | None = None,
) -> DatasetSource:
    """Your own data by a CSV or Parquet table: path, participant, AU columns, is_reference.

    Args:
        data_root: The table, or a folder with manifest.csv or manifest.parquet.
        references: "protocol" (the column is_reference), "auto", "first" or a file.
        labels: "intensity" (0-5), "occurrence" (0/1), "mixed" (columns of 0 and 1 are occurrence,
            the others intensity), or "auto": occurrence where no label exceeds 1.
        threshold: Lowest intensity that counts as present in detection.
        folds: Number of folds where the table has no column "fold"; 0: one a participant up to
            ten participants, else five.
        allow_mismatch: Read videos whose frames and labelled frames differ by over 1 %.
        invalid: Values that mean "not known", such as "9" or "9,-1" (negative and empty always do).
        scale: What the strongest intensity is written as: 5, 1, 100, or "A-E" (FACS letters).
        sides: How AU12L and AU12R become one AU: "max", "mean", "left" or "right".
        first_frame: Number of a video's first frame in the table: 0, 1, or "auto".
        metadata: CSV with a column "participant" and columns to group by.
        problems: Collects findings instead of raising the first (`siamcal data check`).

    Raises:
        DataNotFoundError: The table or all its files are missing.
        ConfigError: A column is missing or an option is wrong.
        LabelError: A value is broken; the message names file and line.
    """
    problems = problems or Problems()
    if labels not in ("auto", "intensity", "occurrence", "mixed"):
        raise ConfigError(f"labels is {labels!r}; allowed: auto, intensity, occurrence, mixed.")
    path = _find(data_root)
    raw = one_side(_load(path), sides, path)
    au_columns = _au_columns(raw, path)
    unknown = {float(v) for v in re.split(r"[,\s]+", str(invalid).strip()) if v}
    values = _values(in_steps(raw, au_columns, scale), au_columns, path, unknown, problems)
    table = _frames(raw, path, problems)
    table["source_index"] = from_zero(table, path, first_frame, problems)
    report_drift(table, problems, allow_mismatch)
    for au, column in values.items():
        table[au_column(au)] = column
    report_duplicates(table, path, problems)
    aus = tuple(sorted(values))
    present = occurrence_aus(values, au_columns, labels, str(scale) in ("5", "5.0"), path)
    table["is_reference"] = _references(raw, table, path, references, problems)
    people = sorted(set(table["participant"]))
    return DatasetSource(
        name="manifest",
        intensity_aus=tuple(au for au in aus if au not in present),
        detection_aus=aus,
        detection_thresholds={au: 1 if au in present else threshold for au in aus},
        folds=_folds(raw, table, path, folds, problems),
        table=table,
        participants_table=read_metadata(metadata) if metadata else _groups(raw, table),
        description=f"{path.name}: {len(people)} participants, {len(table)} frames",
        licence=HOLDER.licence,
        references=references,
    )


def _find(root: Path | None) -> Path:
    if root is None or not root.exists():
        raise HOLDER.missing(root)
    if not root.is_dir():  # read_table refuses what is no file either
        return root
    for name in ("manifest.csv", "manifest.parquet"):
        if (root / name).is_file():
            return root / name
    raise HOLDER.missing(root, f"{root} holds neither manifest.csv nor manifest.parquet.")


def _load(path: Path) -> pd.DataFrame:
    """All columns as text (CSV) or as stored (Parquet), names in lower case without spaces."""
    try:
        table = read_table(path)
    except ConfigError as error:
        raise ConfigError(f"{path} can't be read as a table: {error}") from None
    table.columns = [str(c).strip() for c in table.columns]
    lower = {c.lower(): c for c in table.columns}
    known = [*COLUMNS, "path", "fold"]
    table = table.rename(columns={lower[c]: c for c in known if c in lower})
    missing = [c for c in ("path", "participant") if c not in table.columns]
    if missing:
        raise ConfigError(
            f"{path} has no column {' and no column '.join(missing)}; it has "
            f"{', '.join(table.columns)}. Needed: path, participant and AU columns such as AU01."
            + _WHO
            * ("participant" in missing)
        )
    if table.empty:
        raise ConfigError(f"{path} has no rows.")
    return table


def _au_columns(raw: pd.DataFrame, path: Path) -> dict[int, str]:
    """AU -> column; intensities (AU01_r) go before occurrences (AU01_c) of the same AU."""
    found: dict[int, str] = {}
    for column in raw.columns:
        if match := _AU.fullmatch(column):
            au = int(match.group(1))
            if au not in found or column.lower().endswith("_r"):
                found[au] = column
    if not found:
        raise ConfigError(
            f"{path} has no AU column; it has {', '.join(raw.columns)}. Name them AU01, AU12, ..."
        )
    return found


def _values(
    raw: pd.DataFrame, columns: dict[int, str], path: Path, unknown: set[float], problems: Problems
) -> dict[int, np.ndarray]:
    values = {}
    for au, column in columns.items():
        text = raw[column].astype(str).str.strip()
        numbers = pd.to_numeric(raw[column], errors="coerce").to_numpy(np.float64)
        empty = text.str.lower().isin(["", "nan", "none", "<na>"]).to_numpy()
        numbers = np.where(np.isin(numbers, list(unknown)), -1.0, numbers)
        for row in np.flatnonzero(np.isnan(numbers) & ~empty):
            wrong = f"{column} is {text.iloc[row]!r}, not a number.{letters_among(text)}"
            problems.error(path, wrong, int(row) + 2)
        for row in np.flatnonzero(numbers > _MAX_INTENSITY):
            problems.error(
                path,
                f"{column} is {numbers[row]:g}; allowed: 0 to {_MAX_INTENSITY}, empty or negative "
                f"for not known. Where {numbers[row]:g} means not known: invalid={numbers[row]:g}. "
                f"Where the strongest intensity is another number: scale=100, say.",
                int(row) + 2,
            )
        values[au] = numbers
    return values


def _frames(raw: pd.DataFrame, path: Path, problems: Problems) -> pd.DataFrame:
    """The columns before the AUs."""
    given = raw["path"].astype(str)
    for row in np.flatnonzero((given.str.strip() == "").to_numpy())[:1]:
        problems.error(path, "the path is empty.", int(row) + 2)
    for row in np.flatnonzero((raw["participant"].astype(str).str.strip() == "").to_numpy())[:1]:
        problems.error(path, f"the participant is empty.{_WHO}", int(row) + 2)
    if (given.str.contains("\0", regex=False)).any():
        raise ConfigError(f"{path} holds zero bytes in the column path: it is damaged.")
    resolved = {p: str((path.parent / p).resolve()) for p in given.unique()}
    missing = _check_files(given, resolved, path, problems)
    if len(missing) == len(resolved):
        raise HOLDER.missing(
            path,
            f"None of the {len(resolved)} files in {path} exists, such as {resolved[missing[0]]}.",
        )
    if missing:
        problems.warning(path, f"{len(missing)} files don't exist: {examples(missing)}.")
    video = given.map(lambda p: Path(p).suffix.lower() in _VIDEO_SUFFIXES).to_numpy(bool)
    stems = {p: Path(p).stem if Path(p).suffix.lower() in _VIDEO_SUFFIXES else Path(p).parent.name
             for p in resolved}  # fmt: skip
    table = pd.DataFrame(
        {
            "participant": raw["participant"].astype(str).str.strip(),
            "view": raw["view"].astype(str).str.strip() if "view" in raw else "front",
            "sequence": raw["sequence"].astype(str) if "sequence" in raw else given.map(stems),
        }
    )
    frame = _frame_numbers(raw, table, video, path, problems)
    table["frame"] = frame
    table["source"] = given.map(resolved).to_numpy(dtype=object)
    table["source_index"] = np.where(video, frame, -1)
    table["is_reference"] = False
    return table


def _check_files(
    given: pd.Series, resolved: dict[str, str], path: Path, problems: Problems
) -> list[str]:
    """The paths where nothing lies; folders, pipes and devices are refused."""
    missing = []
    for name, full in resolved.items():
        try:
            kind = kind_of_file(full)
        except OSError:
            missing.append(name)
            continue
        if kind:
            row = int(np.flatnonzero((given == name).to_numpy())[0])
            problems.error(path, f"{name} is {kind}, not a picture or a video.", row + 2)
    return sorted(missing)


def _frame_numbers(
    raw: pd.DataFrame, table: pd.DataFrame, video: np.ndarray, path: Path, problems: Problems
) -> np.ndarray:
    if "frame" not in raw:
        if video.any():
            raise ConfigError(
                f"{path} names videos, such as {raw['path'][video].iloc[0]}, but has no column "
                f"'frame': the number of each row's frame in the video, from 0."
            )
        places = ["participant", "view", "sequence"]
        order = table.groupby(places, sort=False).cumcount()
        _report_order(raw, table.assign(order=order), places, path, problems)
        return order.to_numpy(np.int64)
    numbers = pd.to_numeric(raw["frame"], errors="coerce").to_numpy(np.float64)
    bad = np.isnan(numbers) | (numbers < 0) | (numbers != np.floor(numbers))
    for row in np.flatnonzero(bad)[:1]:
        problems.error(path, f"frame is {raw['frame'].iloc[row]!r}; allowed: 0, 1, 2, ...", row + 2)
    return np.where(bad, 0, numbers).astype(np.int64)


def _report_order(
    raw: pd.DataFrame, table: pd.DataFrame, places: list[str], path: Path, problems: Problems
) -> None:
    """Say that the rows' order counts where the pictures' numbers contradict it."""
    numbers = raw["path"].map(lambda p: last_number(Path(p).stem))
    if numbers.isna().any():
        return
    groups = table.assign(number=numbers).groupby(places)["number"]
    mixed = ["/".join(map(str, key)) for key, group in groups if not group.is_monotonic_increasing]
    if mixed:
        problems.warning(
            path,
            f"there is no column 'frame', and the rows of {examples(mixed)} aren't in the order of "
            "the numbers in their files' names: the order of the rows counts, also for the first "
            "frame as a reference. Sort the table, or add the column.",
        )


def _references(
    raw: pd.DataFrame, table: pd.DataFrame, path: Path, references: str, problems: Problems
) -> np.ndarray:
    if references != "protocol":
        return choose_references(table, references, {}, problems)
    if "is_reference" not in raw:
        raise ConfigError(
            f"{path} has no column is_reference. Mark one neutral frame of each participant, or "
            f"have them chosen: --references auto (or first, or a file)."
        )
    text = raw["is_reference"].astype(str).str.strip().str.lower()
    for row in np.flatnonzero((~text.isin(_TRUE | _FALSE)).to_numpy())[:1]:
        problems.error(path, f"is_reference is {text.iloc[row]!r}; allowed: 1 or 0.", int(row) + 2)
    marked = text.isin(_TRUE).to_numpy()
    without = sorted(set(table["participant"]) - set(table["participant"][marked]))
    if without:
        raise ConfigError(
            f"{path} marks no reference of {examples(without, 10)}. Set is_reference to 1 for one "
            f"neutral frame of each participant, or use --references auto."
        )
    several = Counter(zip(table["participant"][marked], table["view"][marked], strict=True))
    for (participant, view), count in sorted(several.items()):
        if count > 1:
            problems.warning(
                f"{participant} ({view})", f"{count} references are marked; the first one is used."
            )
    warn_of_active(table, marked, problems)
    return marked


def _folds(
    raw: pd.DataFrame, table: pd.DataFrame, path: Path, folds: int, problems: Problems
) -> tuple[tuple[str, ...], ...]:
    people = sorted(set(table["participant"]))
    if "fold" in raw:
        fold = raw["fold"].astype(str).str.strip()
        of_person = pd.DataFrame({"p": table["participant"], "f": fold}).drop_duplicates()
        torn = of_person["p"][of_person["p"].duplicated()]
        if len(torn):
            raise ConfigError(
                f"{path} puts {examples(sorted(set(torn)))} into several folds; a participant "
                f"must be wholly in one, or the test isn't on new people."
            )
        named = sorted(set(of_person["f"]) - {""}, key=lambda f: (len(f), f))
        return tuple(tuple(sorted(of_person["p"][of_person["f"] == f])) for f in named)
    if len(people) < 2:
        problems.warning(path, "there is one participant: nobody is left to train on.")
    if folds < 0 or folds > len(people):
        raise ConfigError(f"folds is {folds}; allowed: 0 to {len(people)} (the participants).")
    count = folds or (len(people) if len(people) <= _LEAVE_ONE_OUT else 5)
    return tuple(tuple(people[k::count]) for k in range(count))


def _groups(raw: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame | None:
    """Columns that hold one value for each participant."""
    known = {*COLUMNS, "path", "fold"}
    others = [c for c in raw.columns if c not in known and not _AU.fullmatch(c)]
    people = pd.DataFrame({"participant": table["participant"]})
    for column in others:
        if (raw.groupby(table["participant"])[column].nunique(dropna=False) == 1).all():
            people[column] = raw[column]
    if len(people.columns) == 1:
        return None
    return people.drop_duplicates("participant").reset_index(drop=True)
