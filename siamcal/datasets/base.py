"""What every data set is: a table of frames with labels, folds of people, one reference each."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from siamcal.errors import ConfigError
from siamcal.files import checksum_of_file
from siamcal.preprocessing import Preprocessing
from siamcal.registry import datasets

__all__ = [
    "COLUMNS",
    "DatasetSource",
    "FaceSet",
    "MaskedLabel",
    "au_column",
    "canonical_name",
    "check_options",
    "detection_targets",
    "load_dataset",
    "root_variable",
]

# The columns that stand before the AU columns, in this order.
COLUMNS = ("participant", "view", "sequence", "frame", "source", "source_index", "is_reference")

INVALID = -1.0


def au_column(au: int) -> str:
    """Name of an AU's column: 1 -> "AU01"."""
    return f"AU{au:02d}"


def detection_targets(
    labels: np.ndarray, aus: Sequence[int], thresholds: dict[int, int]
) -> np.ndarray:
    """Intensities -> occurrence: 1 from the AU's threshold on, 0 below, -1 where invalid.

    Args:
        labels: (N, A) intensities 0-5; NaN or negative is invalid.
        aus: The A action units.
        thresholds: AU -> lowest intensity that counts as present; 2 where it isn't named.

    Returns:
        (N, A) float32.
    """
    limits = np.array([thresholds.get(au, 2) for au in aus], dtype=np.float32)  # (A,)
    valid = labels >= 0
    present = np.where(valid, labels, 0.0) >= limits
    return np.where(valid, present, INVALID).astype(np.float32)


@dataclass(frozen=True)
class MaskedLabel:
    """A label outside the scale, taken as not known.

    Attributes:
        file: Label file, below the data set's folder.
        line: Its line, from 1.
        au: The action unit.
        value: What stands there.
    """

    file: str
    line: int
    au: int
    value: float


@dataclass(frozen=True, eq=False)
class DatasetSource:
    """A data set before its faces are cropped.

    Attributes:
        name: Registered name ("disfa").
        intensity_aus: AUs of the intensity task, ascending.
        detection_aus: AUs of the detection task, ascending.
        folds: The validation participants of each fold; everyone else trains.
        table: One row a frame. Columns: participant, view, sequence (str), frame (int, as the data
            set counts), source (path of an image or video), source_index (0-based frame of the
            video, -1 for an image), is_reference (bool), AU01.. (float; NaN or negative is an
            invalid label).
        detection_thresholds: AU -> lowest intensity that counts as present; 2 where not named.
        participants_table: Metadata, one row a participant (column "participant"), or None.
        description: One line for listings.
        licence: Whom to ask and what is allowed.
        rendered: True where the people are computer graphics.
        references: How the reference frames were chosen.
        fps: Frames per second of the recordings, where known.
        masked_labels: Labels outside the scale, which the table holds as invalid.
    """

    name: str
    intensity_aus: tuple[int, ...]
    detection_aus: tuple[int, ...]
    folds: tuple[tuple[str, ...], ...]
    table: pd.DataFrame
    detection_thresholds: dict[int, int] = field(default_factory=dict)
    participants_table: pd.DataFrame | None = None
    description: str = ""
    licence: str = ""
    rendered: bool = False
    references: str = "protocol"
    fps: float | None = None
    masked_labels: tuple[MaskedLabel, ...] = ()

    def __post_init__(self) -> None:
        wanted = [*COLUMNS, *(au_column(au) for au in self.aus)]
        missing = [column for column in wanted if column not in self.table.columns]
        if missing:
            raise ConfigError(
                f"The table of data set '{self.name}' lacks {', '.join(missing)}; it needs "
                f"{', '.join(COLUMNS)} and a column AUxx for each action unit."
            )
        listed = [participant for fold in self.folds for participant in fold]
        twice = sorted({p for p in listed if listed.count(p) > 1})
        if twice:
            raise ConfigError(
                f"The folds of data set '{self.name}' overlap: {', '.join(twice)}. "
                f"Each participant may be validated in one fold only."
            )

    @property
    def aus(self) -> tuple[int, ...]:
        """All AUs of either task, ascending."""
        return tuple(sorted({*self.intensity_aus, *self.detection_aus}))

    @property
    def participants(self) -> tuple[str, ...]:
        """All participants, sorted."""
        return tuple(sorted(self.table["participant"].unique()))

    def task_aus(self, task: str) -> tuple[int, ...]:
        """The AUs of `task` ("intensity" or "detection")."""
        if task not in ("intensity", "detection"):
            raise ConfigError(f"The task is {task!r}; allowed: 'intensity', 'detection'.")
        return self.intensity_aus if task == "intensity" else self.detection_aus

    def select(self, participants: Sequence[str]) -> DatasetSource:
        """The same data set with these participants only; folds left empty vanish."""
        keep = set(participants)
        unknown = sorted(keep - set(self.participants))
        if unknown:
            raise ConfigError(
                f"Data set '{self.name}' has no participant {', '.join(unknown)}; "
                f"it has {', '.join(self.participants)}."
            )
        folds = tuple(tuple(p for p in fold if p in keep) for fold in self.folds)
        table = self.table[self.table["participant"].isin(keep)].reset_index(drop=True)
        people = self.participants_table
        if people is not None:
            people = people[people["participant"].isin(keep)].reset_index(drop=True)
        return replace(
            self, table=table, folds=tuple(f for f in folds if f), participants_table=people
        )


@dataclass(frozen=True, eq=False)
class FaceSet:
    """A data set whose faces are cropped: what training and evaluation read.

    Attributes:
        source: The data set this was made from.
        preprocessing: How the crops were made.
        images_path: File of the crops, uint8 (N, S, S, 3): raw bytes, or `.npy`.
        table: The N rows whose face was found, index 0..N-1, columns as in `source.table`.
        reference_rows: (N,) int64, for each frame the row of its participant's reference (of the
            same view where that view has one).
        dropped: The rows left out, with a column "reason".
        replaced_references: Participants whose own reference frame was dropped, with the frame
            that took its place; columns as in `table`.
    """

    source: DatasetSource
    preprocessing: Preprocessing
    images_path: Path
    table: pd.DataFrame
    reference_rows: np.ndarray
    dropped: pd.DataFrame
    replaced_references: pd.DataFrame = field(default_factory=pd.DataFrame)

    @cached_property
    def images(self) -> np.ndarray:
        """uint8 (N, S, S, 3), memory-mapped and read-only."""
        if self.images_path.suffix == ".npy":
            return np.load(self.images_path, mmap_mode="r")
        size = self.preprocessing.size
        shape = (len(self.table), size, size, 3)
        return np.memmap(self.images_path, mode="r", dtype=np.uint8, shape=shape)

    @property
    def crops_digest(self) -> str:
        """SHA-256 of the file of the crops; read once as long as the file isn't written to."""
        stat = self.images_path.stat()
        return _digest_of(self.images_path, stat.st_size, stat.st_mtime_ns)

    def __len__(self) -> int:
        return len(self.table)

    def __getstate__(self) -> dict[str, Any]:
        # Without the open map: pickling one copies the whole file into memory.
        return {key: value for key, value in self.__dict__.items() if key != "images"}

    def labels(self, aus: Sequence[int]) -> np.ndarray:
        """Intensities (N, A) float32 of these AUs; invalid labels are -1."""
        values = self.table[[au_column(au) for au in aus]].to_numpy(np.float32)
        return np.where(values >= 0, values, np.float32(INVALID))

    def detection_labels(self, aus: Sequence[int]) -> np.ndarray:
        """Occurrence (N, A) float32 of these AUs: 1, 0, or -1 where invalid."""
        return detection_targets(self.labels(aus), aus, self.source.detection_thresholds)

    @property
    def participants(self) -> np.ndarray:
        """(N,) participant of each row."""
        return self.table["participant"].to_numpy(dtype=object)

    def fold(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the training and of the validation participants of fold `index`, ascending."""
        validation = self.table["participant"].isin(self.source.folds[index]).to_numpy()
        return np.flatnonzero(~validation), np.flatnonzero(validation)


@lru_cache(maxsize=64)
def _digest_of(path: Path, size: int, changed: int) -> str:
    return checksum_of_file(path)


def canonical_name(name: str) -> str:
    """Names are written with hyphens; `disfa_plus` and `DISFA+` are understood too."""
    return name.strip().lower().replace("+", "-plus").replace("_", "-")


def root_variable(name: str) -> str:
    """Environment variable that holds a data set's folder: SIAMCAL_DISFA_PLUS_ROOT."""
    return f"SIAMCAL_{canonical_name(name).replace('-', '_').upper()}_ROOT"


def load_dataset(
    name: str, data_root: str | os.PathLike[str] | None = None, **options: Any
) -> DatasetSource:
    """Read a data set's tables and labels (no image is opened).

    Args:
        name: A registered name, see `siamcal ls datasets`.
        data_root: Folder (or, for "manifest", table) of the data. Default: the environment
            variable SIAMCAL_<NAME>_ROOT.
        **options: Options of that data set, such as `references="auto"`.

    Raises:
        UnknownNameError: No data set has that name.
        DataNotFoundError: The data aren't there; the message says how to get them.
        LabelError: A label file is broken; the message names file and line.
        ConfigError: The data set has no such option.
    """
    key = canonical_name(name)
    function = datasets.get(key)
    check_options(key, options)
    root = data_root if data_root is not None else os.environ.get(root_variable(key)) or None
    return function(None if root is None else Path(root).expanduser(), **options)


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse options that a data set doesn't have.

    Raises:
        ConfigError: The message names those that it has.
    """
    key = canonical_name(name)
    own = ("data_root", "problems")  # of `siamcal data check`
    allowed = [p for p in inspect.signature(datasets.get(key)).parameters if p not in own]
    wrong = sorted(set(options) - set(allowed))
    if wrong:
        raise ConfigError(
            f"Data set '{key}' has no option {', '.join(wrong)}; "
            f"it has {', '.join(allowed) or 'none'}."
        )
