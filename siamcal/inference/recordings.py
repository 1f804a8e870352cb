"""What one command reads: recordings, whose each has a table, a person and a reference."""

from __future__ import annotations

import csv
import glob
import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from siamcal.errors import ConfigError, MediaError
from siamcal.faces.media.files import refuse_odd
from siamcal.faces.media.folders import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from siamcal.files import absent, read_text

__all__ = ["Asked", "Recording", "find_recordings", "parse_shard"]

PROFILE_SUFFIXES = (".siamcal", ".safetensors")
COLUMNS = ("video", "person", "reference")


@dataclass(frozen=True)
class Asked:
    """The reference a user names.

    Attributes:
        kind: "picture" (a picture, or the first frame of a video), "frame" (of the recording
            itself), "auto" (chosen from the recording), "best" (the same, sound or not),
            "profile", or "" (none was named).
        path: Of a picture or profile.
        number: Of a frame, from 1 on.
    """

    kind: str = ""
    path: str = ""
    number: int = 0

    @classmethod
    def parse(cls, text: str) -> Asked:
        """`auto`, `best`, `frame:12`, a profile (.siamcal, .safetensors) or a picture."""
        if text in ("", "auto", "best"):
            return cls(text)
        frame = re.fullmatch(r"frame:(\d+)", text)
        if frame:
            return cls("frame", number=int(frame[1]))
        profile = Path(text).suffix.lower() in PROFILE_SUFFIXES
        return cls("profile" if profile else "picture", text)

    def __str__(self) -> str:
        return f"frame:{self.number}" if self.kind == "frame" else self.path or self.kind


@dataclass(frozen=True)
class Recording:
    """A video, or pictures that belong together.

    Attributes:
        inputs: Files and folders, as `open_media` takes them.
        name: Of its table, without suffix.
        person: Who it shows, where that is known.
        reference: Of the person.
    """

    inputs: tuple[str, ...]
    name: str
    person: str = ""
    reference: Asked = Asked()


def find_recordings(inputs: Sequence[str], reference: Asked) -> list[Recording]:
    """All recordings that a command's inputs name, each once, in their order.

    A video is a recording; so are all pictures of one folder, and all pictures that are named one
    by one, together. Folders are searched to their ends, hidden files left out. `@list.txt` holds
    an input a line; `@list.csv` has a column `video` and, if wanted, `person` and `reference`
    (`auto`, `best`, `frame:12`, a picture, a profile; empty: as the command says), with names that
    start where the list lies. Patterns (`*.mp4`) that the shell left are expanded.

    Args:
        inputs: As a user names them.
        reference: For recordings whose list names none.

    Raises:
        MediaError: Something isn't there, a folder holds neither videos nor pictures, or something
            is a pipe, a socket or a device.
        ConfigError: A list can't be read, or names a video twice.
    """
    found: list[Recording] = []
    loose: list[str] = []
    for given in inputs:
        if given.startswith("@") and not Path(given).exists():
            found += _of_list(Path(given[1:]), reference)
            continue
        for path in _expanded(given):
            refuse_odd(path)
            if path.is_dir():
                found += _of_folder(path, reference)
            elif path.suffix.lower() in IMAGE_SUFFIXES:
                loose.append(str(path))
            else:
                found.append(Recording((str(path),), path.stem, reference=reference))
    if loose:
        name = Path(loose[0]).stem if len(loose) == 1 else "pictures"
        found.append(Recording(tuple(loose), name, reference=reference))
    return _named_apart(_once(found))


def parse_shard(text: str) -> tuple[int, int]:
    """`3/64` -> (3, 64): of 64 equal shares of the recordings the third.

    Raises:
        ConfigError: It isn't two whole numbers with 1 <= first <= second.
    """
    parts = re.fullmatch(r"(\d+)/(\d+)", text)
    share, of = (int(parts[1]), int(parts[2])) if parts else (0, 0)
    if not 1 <= share <= of:
        raise ConfigError(f"--shard takes a share like 3/64, from 1/64 to 64/64, but got {text!r}.")
    return share, of


def _expanded(given: str) -> list[Path]:
    path = Path(given)
    if not path.exists() and glob.has_magic(given):
        matches = sorted(glob.glob(given, recursive=True))
        if not matches:
            raise MediaError(f"Nothing matches {given}.")
        return [Path(match) for match in matches]
    if not path.exists():
        raise MediaError(absent(path))
    return [path]


def _of_folder(folder: Path, reference: Asked) -> list[Recording]:
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(place)
        files = sorted(here / name for name in names if not name.startswith("."))
        for file in files:
            refuse_odd(file)
        videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
        found += [Recording((str(v),), v.stem, reference=reference) for v in videos]
        pictures = [f for f in files if f.suffix.lower() in IMAGE_SUFFIXES]
        if pictures:
            inputs = (str(here),) if not videos else tuple(map(str, pictures))
            found.append(Recording(inputs, here.resolve().name, reference=reference))
    if not found:
        raise MediaError(
            f"The folder {folder} holds neither videos ({', '.join(sorted(VIDEO_SUFFIXES))}) nor "
            f"pictures ({', '.join(sorted(IMAGE_SUFFIXES))})."
        )
    return found


def _of_list(path: Path, reference: Asked) -> list[Recording]:
    text = read_text(path)
    if path.suffix.lower() == ".csv":
        return _of_table(path, text, reference)
    lines = [line.strip() for line in text.splitlines()]
    names = [_beside(path, line) for line in lines if line and not line.startswith("#")]
    if not names:
        raise ConfigError(f"The list {path} names nothing.")
    return find_recordings(names, reference)


def _of_table(path: Path, text: str, reference: Asked) -> list[Recording]:
    rows = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    columns = [name.strip() for name in rows.fieldnames or []]
    rows.fieldnames = columns
    unknown = [name for name in columns if name not in COLUMNS]
    if "video" not in columns or unknown:
        raise ConfigError(
            f"{path} must have the columns video and, if wanted, person and reference, but has "
            f"{', '.join(columns) or 'none'}."
        )
    found = []
    for row in rows:
        video = (row["video"] or "").strip()
        if not video:
            raise ConfigError(f"{path}, line {rows.line_num}: the cell of video is empty.")
        asked = Asked.parse((row.get("reference") or "").strip())
        if asked.path:
            asked = Asked(asked.kind, _beside(path, asked.path))
        for one in find_recordings([_beside(path, video)], asked if asked.kind else reference):
            person = (row.get("person") or "").strip()
            found.append(Recording(one.inputs, one.name, person, one.reference))
    if not found:
        raise ConfigError(f"{path} has no rows.")
    return found


def _beside(path: Path, name: str) -> str:
    return str(path.parent / Path(name).expanduser())


def _once(recordings: Iterable[Recording]) -> list[Recording]:
    """Each once: a folder and a file in it may both be named; two references may not."""
    kept: dict[tuple[str, ...], Recording] = {}
    for one in recordings:
        key = tuple(os.path.realpath(path) for path in one.inputs)
        other = kept.setdefault(key, one)
        if (other.person, other.reference) != (one.person, one.reference):
            raise ConfigError(
                f"{', '.join(one.inputs)} is named twice, with other persons or references: "
                f"{other.person or '-'}, {other.reference or '-'} and {one.person or '-'}, "
                f"{one.reference or '-'}. Keep one."
            )
    return list(kept.values())


def _named_apart(recordings: list[Recording]) -> list[Recording]:
    """Tables of like-named recordings are called by their folders too: `day1_clip`, `day2_clip`."""
    depth = 1
    names = [one.name for one in recordings]
    # Files may be told apart by their case, file systems not always.
    while twice := {n for n, count in Counter(map(str.lower, names)).items() if count > 1}:
        depth += 1
        for index, one in enumerate(recordings):
            if names[index].lower() in twice:
                names[index] = _longer_name(one, depth)
        if depth > 64:  # the same place, with other suffixes: clip.mp4 and clip.mov
            names = [f"{n}_{i}" if n.lower() in twice else n for i, n in enumerate(names, 1)]
    pairs = zip(recordings, names, strict=True)
    return [Recording(one.inputs, name, one.person, one.reference) for one, name in pairs]


def _longer_name(one: Recording, depth: int) -> str:
    path = Path(os.path.abspath(one.inputs[0]))
    parts = [part for part in path.parts[:-1] if part != path.anchor][-(depth - 1) :]
    # From the second round on with the suffix: it may be all that differs.
    return "_".join([*parts, path.name.replace(".", "_") if depth > 2 else one.name])
