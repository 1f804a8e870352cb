"""One clip as several readers see it: the calibrator, what it is without its reference, others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from siamcal.errors import ConfigError, SiamcalError
from siamcal.evaluation.table_pairs import tables_in
from siamcal.faces import Face
from siamcal.faces.media import open_media
from siamcal.faces.media.opening import sound_frame
from siamcal.faces.neutrality import expression
from siamcal.inference.many import resolve_reference
from siamcal.inference.prediction import FrameResult, Predictor
from siamcal.inference.recordings import Asked, Recording
from siamcal.inference.references import PersonReference
from siamcal.inference.selection import Selection
from siamcal.inference.table import HIGHEST, LOWEST
from siamcal.recalibration.action_units import au_readings, readings_of_shapes, reads_shapes
from siamcal.recalibration.matching import Timeline, match, one_each, timeline_of
from siamcal.recalibration.people import load_table
from siamcal.recalibration.tools import SIAMCAL

__all__ = ["CALIBRATED", "RAW", "SHAPES", "SUBTRACTED", "Clip", "Tool", "read_clip", "tools_in"]

CALIBRATED = "calibrated"
RAW = "without the reference"
SUBTRACTED = "baseline subtraction"
SHAPES = "MediaPipe's blendshapes minus the reference's"
# A frame is at rest where no coefficient differs from the reference's by more than this share of
# what is no longer rest (`siamcal.faces.neutrality.expression`).
REST = 0.25


@dataclass(frozen=True)
class Tool:
    """Another tool's tables.

    Attributes:
        name: Of the tool, for tables.
        span: Its readings' lowest and highest value.
        tables: Clip -> table.
        independent: It neither is siamcal nor reads MediaPipe's blendshapes, which choose siamcal's
            references.
    """

    name: str
    span: tuple[float, float]
    tables: dict[str, Path]
    independent: bool = True


@dataclass(eq=False)
class Clip:
    """N frames of one person.

    Attributes:
        name: Of the clip.
        person: Whom it shows.
        numbers: (N,) frames, counted from 1.
        found: (N,) whether a face was read.
        readings: Reader -> AU -> (N,) readings, NaN where there is none.
        reference: Reader -> AU -> its reading of the reference frame.
        at_rest: (N,) frames at rest by MediaPipe's coefficients, without the reference itself.
        told: Where the reference comes from.
        notes: What is missing, in words.
    """

    name: str
    person: str
    numbers: np.ndarray
    found: np.ndarray
    readings: dict[str, dict[int, np.ndarray]] = field(default_factory=dict)
    reference: dict[str, dict[int, float]] = field(default_factory=dict)
    at_rest: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    told: str = ""
    notes: list[str] = field(default_factory=list)


def tools_in(folders: str) -> list[Tool]:
    """The tools whose tables lie in folders, named with commas between them.

    Raises:
        ConfigError: One isn't a folder, holds no tables, or those of several tools.
    """
    found: list[Tool] = []
    for folder in (Path(part.strip()) for part in folders.split(",") if part.strip()):
        if not folder.is_dir():
            raise ConfigError(f"tables={folder} isn't a folder of tables named as the clips are.")
        tables = tables_in(folder)
        loaded = [load_table(path, check_span=False) for path in tables.values()]
        kinds = {table.layout.tool for table in loaded}
        if len(kinds) > 1:
            titles = ", ".join(sorted(kind.title for kind in kinds))
            raise ConfigError(f"{folder} holds tables of several tools ({titles}): part them.")
        (tool,) = kinds
        taken = any(tool.title == one.name for one in found)
        name = f"{tool.title} ({folder.name})" if taken else tool.title
        independent = tool is not SIAMCAL and not any(map(reads_shapes, loaded))
        found.append(Tool(name, tool.span, tables, independent))
    return found


def read_clip(
    recording: Recording, asked: Asked, predictor: Predictor, tools: list[Tool], every: int
) -> Clip:
    """Read a clip by the calibrator and take what others read of it.

    Args:
        recording: The clip.
        asked: Its reference.
        predictor: The calibrator.
        tools: Other tools' tables.
        every: Every n-th frame is read.

    Raises:
        SiamcalError: It can't be read, or has no reference.
    """
    inputs = list(recording.inputs)
    person = resolve_reference(asked, inputs, predictor)
    stream = Selection(every).of(open_media(inputs))
    results = list(predictor.results(stream, person.features, person.measures))
    numbers = np.array([result.index + 1 for result in results])
    found = np.array([result.values is not None for result in results], dtype=bool)
    if not found.any():
        raise ConfigError(f"No frame of {recording.inputs[0]} has values: no face was found.")
    clip = Clip(recording.name, recording.person or recording.name, numbers, found)
    own = asked.kind in ("auto", "best", "frame")
    number = int(person.facts["frame"]) if own else 0
    clip.told = f"frame {number}" if own else str(asked)
    _add_own(clip, results, person, predictor)
    faces = [_with_expression(result.face, predictor) for result in results]
    _add_shapes(clip, faces, _reference_face(person, predictor), number)
    times = np.array([result.timestamp for result in results])
    line = Timeline(recording.name, numbers - 1.0, times if np.ptp(times) > 0 else None)
    for tool in tools:
        _add_tool(clip, tool, line, number)
    return clip


def _add_own(
    clip: Clip, results: list[FrameResult], person: PersonReference, predictor: Predictor
) -> None:
    aus = predictor.config.aus
    clip.readings[CALIBRATED] = _by_au(_stacked([r.values for r in results], len(aus)), aus)
    crops = person.crops
    if crops is not None:
        at_reference = predictor.read(crops, person.features).mean(axis=0)
        clip.reference[CALIBRATED] = _one(at_reference, aus)
    if not predictor.reads_raw:
        return
    raw = _stacked([r.raw for r in results], len(aus))
    clip.readings[RAW] = _by_au(raw, aus)
    if crops is None:
        clip.notes.append("the profile holds no picture: baseline subtraction left out")
        return
    neutral = predictor.read(crops, None).mean(axis=0)
    clip.reference[RAW] = _one(neutral, aus)
    clip.readings[SUBTRACTED] = _by_au(raw - neutral, aus)
    clip.reference[SUBTRACTED] = _one(neutral - neutral, aus)


def _with_expression(face: Face | None, predictor: Predictor) -> Face | None:
    """A face that was read: of one that was followed nothing told the expression."""
    return face if face is None or face.blendshapes else predictor.pipeline.described(face)


def _add_shapes(clip: Clip, faces: list[Face | None], face: Face | None, number: int) -> None:
    if face is None:
        clip.notes.append("the reference's picture isn't known: MediaPipe's readings left out")
        clip.at_rest = np.zeros(len(faces), dtype=bool)
        return
    neutral = readings_of_shapes(face.blendshapes)
    each = [readings_of_shapes(own.blendshapes) if own else {} for own in faces]
    clip.readings[SHAPES] = {
        au: np.array([own.get(au, np.nan) - rest for own in each]) for au, rest in neutral.items()
    }
    rest = expression(face)
    near = [
        own is not None and bool((np.abs(expression(own) - rest) < REST).all()) for own in faces
    ]
    clip.at_rest = np.array(near, dtype=bool) & clip.found & (clip.numbers != number)


def _add_tool(clip: Clip, tool: Tool, line: Timeline, number: int) -> None:
    """A tool's readings of the frames that were read; what is wrong with its table is a note."""
    path = tool.tables.get(clip.name)
    if path is None:
        clip.notes.append(f"no table of {tool.name} is called {clip.name}")
        return
    try:
        table = load_table(path, check_span=False, selected_by="time")
        if len(table.everyone) > 1:
            raise ConfigError(f"{path} is about {len(table.everyone)} people.")
        rows = one_each(table, np.ones(len(table.values), dtype=bool))
        here, there = match(line, timeline_of(table, rows)).rows()
    except SiamcalError as error:
        clip.notes.append(f"{tool.name} left out: {error}")
        return
    own: dict[int, np.ndarray] = {}
    for au, column in au_readings(table).items():
        own[au] = np.full(len(clip.numbers), np.nan)
        own[au][here] = column[rows][there]
    row = np.flatnonzero(clip.numbers == number)
    at_reference = {au: float(column[row[0]]) for au, column in own.items() if len(row)}
    if reads_shapes(table):
        # Coefficients have no zero of their own: people differ in them at rest.
        own = {au: column - at_reference.get(au, 0.0) for au, column in own.items()}
    clip.readings[tool.name], clip.reference[tool.name] = own, at_reference


def _reference_face(person: PersonReference, predictor: Predictor) -> Face | None:
    """The face of a reference, found again in its picture or frame; None of a profile."""
    remake = list(person.facts.get("remake", ()))
    if not remake or "profile" in person.facts or "frames" in person.facts:
        return None
    index = int(remake[-1]) - 1 if "--frame" in remake else 0
    stream = open_media(remake[:-2] if "--frame" in remake else remake)
    faces = predictor.pipeline.detect(sound_frame(stream, index).rgb, max_faces=1)
    return faces[0] if faces else None


def _stacked(values: list[np.ndarray | None], count: int) -> np.ndarray:
    """(N, A), NaN where nothing was read."""
    return np.stack([np.full(count, np.nan) if v is None else v for v in values]).astype(float)


def _by_au(values: np.ndarray, aus: tuple[int, ...]) -> dict[int, np.ndarray]:
    # As every table holds them.
    clipped = np.clip(values, LOWEST, HIGHEST)
    return dict(zip(aus, clipped.T, strict=True))


def _one(values: np.ndarray, aus: tuple[int, ...]) -> dict[int, float]:
    found: Mapping[int, np.ndarray] = _by_au(values[None], aus)
    return {au: float(column[0]) for au, column in found.items()}
