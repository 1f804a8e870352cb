"""Which pictures of a recording are its originals, and which label each of them has."""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siamcal.datasets.reading import IMAGE_PATTERN, Problems, examples, option
from siamcal.errors import ConfigError
from siamcal.faces.media.playlists import leading, only_itself
from siamcal.files import kind_of_file

__all__ = [
    "Series",
    "best_series",
    "count_frames",
    "first_number",
    "is_derived",
    "joined_parts",
    "mismatch",
    "series_in",
    "shifts",
    "tolerance",
    "unclear_numbering",
]

# Frames and labels may differ by this share of a recording; more is another frame rate.
_SHARE = 0.01

_IMAGE = re.compile(rf"(.*?)(\d+)({IMAGE_PATTERN})", re.IGNORECASE)
# Words of folders that hold what a program made of the frames.
_DERIVED = re.compile(
    r"(?<![a-z])(?:re)?(?:aligned|alignment|align|simaligned|crop|crops|cropped|openface|face|faces|"
    r"facecrops|warped|masked|masks?|landmarks?|thumbs?|thumbnails?|preview|previews|resized|scaled|"
    r"normali[sz]ed|overlay|annotated|heatmaps?|flow|opticalflow|processed|preprocessed|mtcnn|dlib|"
    r"retinaface|libreface|pyfeat|augmented)(?![a-z])"
)


@dataclass(frozen=True)
class Series:
    """Pictures of one folder whose names differ in their number only.

    Attributes:
        folder: Where they lie (of parts: the folder that holds the parts).
        files: Number in the name -> file.
        derived: Whether the path says that a program made them of the frames.
    """

    folder: Path
    files: Mapping[int, Path]
    derived: bool = False

    def __str__(self) -> str:
        sample = next(iter(self.files.values())).name
        return f"{self.folder} ({len(self.files)} pictures like {sample})"


def tolerance(count: int) -> int:
    """How many of `count` labelled frames may be missing or be too many: 1 %, at least one."""
    return max(1, int(count * _SHARE))


def is_derived(inside: Path) -> bool:
    """Whether a path within the data set names aligned, cropped or drawn-on pictures."""
    words = (re.sub(r"(?<=[a-z])(?=[A-Z])", "_", part).lower() for part in inside.parts)
    return any(_DERIVED.search(word) for word in words)


def series_in(folder: Path, names: Iterable[str], root: Path) -> list[Series]:
    """The numberings of a folder's pictures, the longest first.

    `1.jpg`, `frame_0001.jpg`, `0001.jpg` and `1.png` are four of them; they are never mixed.
    """
    found: dict[tuple[str, str], list[tuple[str, Path]]] = {}
    for name in names:
        if match := _IMAGE.fullmatch(name):
            key = (match.group(1).lower(), match.group(3).lower())
            found.setdefault(key, []).append((match.group(2), folder / name))
    derived = is_derived(folder.relative_to(root))
    lists = [part for members in found.values() for part in _by_padding(members)]
    series = [Series(folder, {int(n): path for n, path in part}, derived) for part in lists]
    return sorted(series, key=lambda each: -len(each.files))


def _by_padding(members: list[tuple[str, Path]]) -> list[list[tuple[str, Path]]]:
    """Numbers that stand twice (1 and 0001) belong to two numberings."""
    if len({int(number) for number, _ in members}) == len(members):
        return [members]
    widths = {len(number) for number, _ in members if number[0] == "0" and len(number) > 1}
    parts = [[m for m in members if len(m[0]) == width] for width in sorted(widths)]
    plain = [m for m in members if m[0] == str(int(m[0]))]
    return [part for part in [*parts, plain] if part]


def joined_parts(found: list[Series]) -> list[Series]:
    """Series that lie in numbered folders beside each other (part0, part1) as one.

    They are one where no number stands in two of them.
    """
    groups: dict[tuple[Path, str], list[Series]] = {}
    for each in found:
        stem = re.sub(r"\d+", "#", each.folder.name)
        groups.setdefault((each.folder.parent, stem), []).append(each)
    result: list[Series] = []
    for (parent, _), parts in groups.items():
        numbers = [n for part in parts for n in part.files]
        folders = {part.folder for part in parts}
        if len(folders) < 2 or len(folders) < len(parts) or len(set(numbers)) < len(numbers):
            result += parts
            continue
        files = {n: path for part in parts for n, path in part.files.items()}
        result.append(Series(parent, files, parts[0].derived))
    return result


def best_series(
    found: list[Series], count: int, place: str, problems: Problems, first: int = 1
) -> Series | None:
    """The most complete original; a warning names what is used and what is passed over.

    Args:
        found: Candidates, shallow folders first.
        count: How many frames have labels.
        place: For the warning.
        problems: Takes it.
        first: Number of the first label; of equals, the series that counts so too is taken.
    """
    if not found:
        return None

    def rank(each: Series) -> tuple[bool, bool, int, int, bool]:
        gap = abs(len(each.files) - count)
        whole = gap <= tolerance(count)
        return (each.derived, not whole, -_area(each) if whole else 0, gap,
                min(each.files) != first)  # fmt: skip

    best = min(found, key=rank) if len(found) > 1 else found[0]
    others = [str(each) for each in found if each is not best]
    if others:
        problems.warning(place, f"{best} is used; passed over: {examples(others)}.")
    elif best.derived:
        problems.warning(
            place,
            f"{best} is used, but the path says that the pictures were aligned, cropped or drawn "
            f"on, and the originals aren't there.",
        )
    return best


def _area(series: Series) -> int:
    """Pixels of one of the pictures, by its header; 0 where it can't be read."""
    from PIL import Image

    middle = sorted(series.files)[len(series.files) // 2]
    try:
        with Image.open(series.files[middle]) as picture:
            return picture.width * picture.height
    except Exception:  # Pillow's plug-ins raise nearly everything on broken files
        return 0


def mismatch(
    place: str | Path,
    frames: int,
    labels: int,
    problems: Problems,
    allow: bool = False,
    what: str = "labels",
) -> bool:
    """Whether frames and labels differ by more than 1 %: an error, or, if allowed, a warning.

    Args:
        place: Folder or video.
        frames: How many pictures it has.
        labels: How many frames have labels.
        problems: Takes the finding.
        allow: The option allow_mismatch.
        what: What `labels` counts.

    Returns:
        True where the recording is refused.
    """
    if abs(frames - labels) <= tolerance(labels):
        return False
    text = f"{frames} frames, but {labels} {what}"
    if allow:
        problems.warning(place, f"{text} (allow_mismatch): frame k is taken as label k.")
        return False
    ratio = frames / labels
    cause = "the frames were extracted or re-encoded at another frame rate" if ratio > 1 else (
        "frames are missing, or were extracted at another frame rate"
    )  # fmt: skip
    problems.error(
        place,
        f"{text}: frame k wouldn't show what label k says. Likely {cause} (there are {ratio:.3g} "
        f"frames a label). Extract all frames of the distributed video without a frame rate of "
        f"your own, or, if the numbers do fit, set {option('allow_mismatch=true')}.",
    )
    return True


def shifts(
    numbers: Mapping[Any, Collection[int]],
    labelled: Mapping[Any, range],
    usual: Collection[int],
) -> dict[tuple[Hashable, Hashable], int | None]:
    """Number of a picture - number of its label, of each recording; None where it can't be told.

    Lost frames shorten a recording at its ends, so both ends bound the shift. Where they leave
    two possible ones, recordings that agree in one half of their key (the other camera of the
    person, other people of the same camera) decide, if they are of one mind.

    Args:
        numbers: (participant, camera or the like) -> numbers of its pictures.
        labelled: The same keys -> numbers of the labels.
        usual: Shifts that occur: (0, -1) where labels count from 1.

    Returns:
        The same keys -> shift, or None.
    """
    result: dict[tuple[Hashable, Hashable], int | None] = {
        key: _own_shift(own, labelled[key], usual) for key, own in numbers.items()
    }
    clear = {key: shift for key, shift in result.items() if shift is not None}
    for key in result.keys() - clear.keys():
        bounds = _bounds(numbers[key], labelled[key])
        near = {s for k, s in clear.items() if k[0] == key[0] or k[1] == key[1]}
        # Where no end is lost, others can't say more than the recording itself.
        if len(near) == 1 and bounds[0] <= next(iter(near)) <= bounds[1]:
            result[key] = near.pop()
    return result


def _bounds(numbers: Collection[int], labelled: range) -> tuple[int, int]:
    start, end = min(numbers) - labelled[0], max(numbers) - labelled[-1]
    return min(start, end), max(start, end)


def _own_shift(numbers: Collection[int], labelled: range, usual: Collection[int]) -> int | None:
    low, high = _bounds(numbers, labelled)
    possible = [shift for shift in usual if low <= shift <= high]
    return possible[0] if len(possible) == 1 else None


def first_number(value: int | str) -> int | None:
    """The option first_frame: a whole number from 0, or None for "auto".

    Raises:
        ConfigError: It is neither.
    """
    if str(value) == "auto":
        return None
    if not str(value).isdigit():
        raise ConfigError(f"first_frame is {value!r}; allowed: auto, or a number such as 0 or 1.")
    return int(value)


def unclear_numbering(
    place: str | Path,
    numbers: Collection[int],
    labelled: range,
    problems: Problems,
    has_option: bool = True,
) -> None:
    """The error where it can't be told which picture belongs to which label."""
    remedy = (
        f"Say the number of the picture that belongs to the first label, {labelled[0]} or another: "
        f"{option(f'first_frame={labelled[0]}')}."
        if has_option
        else "Rename the pictures as their label files are named, or, if the names are right: "
        f"{option('allow_mismatch=true')}."
    )
    problems.error(
        place,
        f"the pictures are numbered {min(numbers)} to {max(numbers)} ({len(numbers)}), the labels "
        f"{labelled[0]} to {labelled[-1]} ({len(labelled)}): it can't be told whether the first or "
        f"the last frame is missing or too many, and all labels may be off by one. {remedy}",
    )


def count_frames(name: str | Path) -> tuple[int, str]:
    """Packets of a video (one a frame), without decoding all of them.

    Returns:
        The count and "", or -1 and what is wrong with the file.
    """
    import av

    try:
        if kind := kind_of_file(name):
            return -1, f"unreadable: {kind}"
        # An absolute path is no address, whatever the file's name holds.
        with av.open(str(Path(name).absolute()), options=only_itself()) as container:
            if not container.streams.video:
                return -1, "unreadable: no pictures in it"
            stream = container.streams.video[0]
            next(container.decode(stream))
            container.seek(0)
            return sum(1 for packet in container.demux(stream) if packet.size), ""
    except (av.error.FFmpegError, OSError, StopIteration, ValueError) as error:
        return -1, f"unreadable: {leading(error, name) or error}"
