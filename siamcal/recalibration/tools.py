"""Which tool wrote a table, told by its columns, and what its columns mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from siamcal.errors import ConfigError

__all__ = ["TOOLS", "Layout", "Tool", "layout_of"]

# The categories of MediaPipe's FaceLandmarker but `_neutral`, which reads no action; ARKit, whose
# names these are, also has tongueOut.
_SHAPES = """browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff
    cheekSquintLeft cheekSquintRight eyeBlinkLeft eyeBlinkRight eyeLookDownLeft eyeLookDownRight
    eyeLookInLeft eyeLookInRight eyeLookOutLeft eyeLookOutRight eyeLookUpLeft eyeLookUpRight
    eyeSquintLeft eyeSquintRight eyeWideLeft eyeWideRight jawForward jawLeft jawOpen jawRight
    mouthClose mouthDimpleLeft mouthDimpleRight mouthFrownLeft mouthFrownRight mouthFunnel mouthLeft
    mouthLowerDownLeft mouthLowerDownRight mouthPressLeft mouthPressRight mouthPucker mouthRight
    mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper mouthSmileLeft mouthSmileRight
    mouthStretchLeft mouthStretchRight mouthUpperUpLeft mouthUpperUpRight noseSneerLeft
    noseSneerRight tongueOut"""
BLENDSHAPES = frozenset(_SHAPES.split())
# Any of these shows that AU01, AU02, ... are py-feat's: other tables call their labels so, too.
PY_FEAT_MARKS = frozenset(
    ["FaceScore", "FaceRectX", "Identity", "approx_time", "Identity_1", "mesh_x_0"]
)
# These hold names, which mean the same person in every table; the others are a tool's numbers.
NAME_COLUMNS = ("person", "participant", "subject")
PERSON_COLUMNS = ("face_id", "face", "Identity", *NAME_COLUMNS)
FRAME_COLUMNS = ("frame", "frame_idx")
CONFIDENCE_COLUMNS = ("confidence", "FaceScore")
TIME_COLUMNS = ("timestamp", "timestamp_ms", "frame_time_in_ms")


@dataclass(frozen=True)
class Tool:
    """What is known of a tool's tables.

    Attributes:
        name: As `--tool` takes it.
        title: For messages.
        looked_for: Columns by which it is recognised, in words.
        reading: Pattern of the columns that hold readings.
        marks: Of these columns one must be there; none are needed where it is empty.
        presence: Reading's column -> the column of 0 and 1 that belongs to it, or "".
        presences: Pattern of all columns of 0 and 1.
        span: Lowest and highest value.
        beyond: How far a value may lie outside of the span: regressions overshoot.
        threshold: From this calibrated reading on an AU counts as present.
        first_frame: Number that it gives to the first frame of a recording.
    """

    name: str
    title: str
    looked_for: str
    reading: re.Pattern[str]
    span: tuple[float, float]
    marks: frozenset[str] = frozenset()
    presence: Callable[[str], str] = lambda reading: ""
    presences: re.Pattern[str] = re.compile(r"(?!)")
    beyond: float = 0.0
    threshold: float = 0.0
    first_frame: int = 1


def _openface_presence(reading: str) -> str:
    return reading[:-1] + "c"


def _libreface_presence(reading: str) -> str:
    return reading.removesuffix("_intensity")


_SHAPE = "|".join(sorted(BLENDSHAPES))

TOOLS = (
    Tool(
        "openface",
        "OpenFace 2",
        "AU01_r, AU02_r, ... (0 to 5)",
        re.compile(r"AU\d\d_r"),
        (0.0, 5.0),
        presence=_openface_presence,
        presences=re.compile(r"AU\d\d_c"),
        threshold=1.0,
    ),
    Tool(
        "libreface",
        "LibreFace",
        "au_1_intensity, au_2_intensity, ... (0 to 5)",
        re.compile(r"au_\d+_intensity"),
        (0.0, 5.0),
        presence=_libreface_presence,
        presences=re.compile(r"au_\d+"),
        beyond=2.5,
        threshold=1.0,
        first_frame=0,
    ),
    Tool(
        "py-feat",
        "py-feat",
        "AU01, AU02, ... (0 to 1) with FaceScore, FaceRectX, Identity or approx_time",
        # Its newer detectors write the blendshapes, too.
        re.compile(rf"AU\d\d|{_SHAPE}"),
        (0.0, 1.0),
        marks=PY_FEAT_MARKS,
        beyond=0.5,
        first_frame=0,
    ),
    Tool(
        "blendshapes",
        "MediaPipe's blendshapes",
        "browInnerUp, jawOpen, ... (0 to 1)",
        re.compile(_SHAPE),
        (0.0, 1.0),
    ),
)
# siamcal writes OpenFace's columns and more; `people` tells them apart by these and their content.
SIAMCAL_FIRST = ("frame", "face_id", "timestamp", "confidence", "success")
SIAMCAL_MORE = re.compile(
    r"AU\d\d_raw|yaw|pitch|roll|eye_opening|occlusion|sharpness|face_size|brightness|quality|file"
)
SIAMCAL = Tool(
    "siamcal",
    "siamcal predict",
    "frame, face_id, timestamp, confidence, success, AU01_r, ..., AU01_c, ...",
    TOOLS[0].reading,
    (0.0, 5.0),
    presence=_openface_presence,
    presences=TOOLS[0].presences,
    threshold=2.0,
)
_NAMES = {tool.name: tool for tool in (*TOOLS, SIAMCAL)}


@dataclass(frozen=True)
class Layout:
    """The columns of one table that matter; "" where there is none.

    Attributes:
        tool: Whose table it is.
        readings: Columns that are calibrated, in their order.
        presences: Reading -> its column of 0 and 1.
        left: Columns of 0 and 1 without a reading; they stay as they are.
        frame: Number of the frame.
        time: Time of the frame.
        success: 0 where nothing was read.
        confidence: The face's score.
        people: Columns that may tell people apart.
        names: Those of them that name the same person in every table.
    """

    tool: Tool
    readings: tuple[str, ...]
    presences: dict[str, str] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    frame: str = ""
    time: str = ""
    success: str = ""
    confidence: str = ""
    people: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def numeric(self, selected_by: str) -> list[str]:
        """Columns that must hold numbers.

        Args:
            selected_by: "frames", "time" or "". A column by which nothing is selected may hold
                anything, like a picture's name or a date.
        """
        told = [self.success, self.confidence]
        told += [self.frame] * (selected_by == "frames") + [self.time] * (selected_by == "time")
        return [*self.readings, *self.presences.values(), *(name for name in told if name)]


def layout_of(columns: Sequence[str], place: str, tool: str | None, person: str | None) -> Layout:
    """Tell the tool and the meaning of a table's columns.

    Args:
        columns: Names, without the spaces that OpenFace writes.
        place: The file, for messages.
        tool: Name of the tool, or None to recognise it.
        person: Column that tells people apart; "none": there is one person; None: by known names.

    Raises:
        ConfigError: No tool or several fit, a column is there twice, or `person` isn't there.
    """
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise ConfigError(
            f"{place} has the column {twice[0]!r} {columns.count(twice[0])} times; which one is "
            f"meant can't be told. Give each column one name."
        )
    found = _tool(columns, place, tool)
    readings = tuple(name for name in columns if found.reading.fullmatch(name))
    presences = {r: found.presence(r) for r in readings if found.presence(r) in columns}
    left = [n for n in columns if found.presences.fullmatch(n) and n not in presences.values()]
    if person not in (None, "none") and person not in columns:
        raise ConfigError(f"{place} has no column {person!r} for --person; {_listed(columns)}.")
    people = (person,) if person else tuple(n for n in PERSON_COLUMNS if n in columns)
    return Layout(
        found,
        readings,
        presences,
        tuple(left),
        frame=_first(FRAME_COLUMNS, columns),
        time=_first(TIME_COLUMNS, columns),
        success=_first(("success",), columns),
        confidence=_first(CONFIDENCE_COLUMNS, columns),
        people=() if person == "none" else people,
        # Whoever says which column tells people apart says that of all tables.
        names=() if person == "none" else (person,) if person else NAME_COLUMNS,
    )


def _tool(columns: Sequence[str], place: str, name: str | None) -> Tool:
    if name is not None:
        if name not in _NAMES:
            raise ConfigError(f"--tool {name!r} isn't known; it is one of {', '.join(_NAMES)}.")
        tool = _NAMES[name]
        if not any(map(tool.reading.fullmatch, columns)):
            raise ConfigError(
                f"{place} has none of the columns of {tool.title}: {tool.looked_for}. "
                f"{_listed(columns)}."
            )
        return tool
    fitting = [tool for tool in TOOLS if _fits(tool, columns)]
    if [tool.name for tool in fitting] == ["py-feat", "blendshapes"]:
        fitting = fitting[:1]
    if len(fitting) > 1:
        raise ConfigError(
            f"{place} has columns of {' and of '.join(t.title for t in fitting)}; name the one "
            f"that is meant: --tool {' or '.join(t.name for t in fitting)}."
        )
    if not fitting:
        raise ConfigError(f"{place} isn't a table of readings that is known. {_unknown(columns)}")
    return fitting[0]


def _fits(tool: Tool, columns: Sequence[str]) -> bool:
    named = [name for name in columns if tool.reading.fullmatch(name)]
    if tool.marks:
        named = [name for name in named if name not in BLENDSHAPES]
        return bool(named) and bool(tool.marks & set(columns))
    return bool(named)


def _unknown(columns: Sequence[str]) -> str:
    looked = "\n".join(f"    {tool.title}: {tool.looked_for}" for tool in TOOLS)
    said = f"{_listed(columns)}. Looked for, in just this spelling:\n{looked}"
    if len(columns) == 1 and re.search(r"[;\t]", columns[0]):
        return f"Its columns aren't separated by commas; write it with commas and points. {said}"
    if any(re.fullmatch(r"AU\d\d_c", name) for name in columns):
        return f"AU.._c alone, 0 or 1, are no readings: the readings behind are lost. {said}"
    if any(re.fullmatch(r"AU\d\d", name) for name in columns):
        return f"AU01, ... alone may be anybody's: --tool py-feat if they lie in 0 to 1. {said}"
    return said


def _listed(columns: Sequence[str], limit: int = 12) -> str:
    shown = ", ".join(columns[:limit])
    more = f" and {len(columns) - limit} more" if len(columns) > limit else ""
    return f"Its columns are {shown}{more}"


def _first(names: Sequence[str], columns: Sequence[str]) -> str:
    return next((name for name in names if name in columns), "")
