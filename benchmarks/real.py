"""How well does a calibrator read a user's own recordings? By labels, or by what others see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from siamcal.benchmarks._real_clips import (
    CALIBRATED,
    RAW,
    SHAPES,
    SUBTRACTED,
    Clip,
    Tool,
    read_clip,
    tools_in,
)
from siamcal.benchmarks._real_labels import ClipLabels, labels_of, read_labels
from siamcal.benchmarks._real_measures import (
    AT_REST,
    BY_LABELS,
    BY_OTHERS,
    Limits,
    Span,
    at_rest,
    by_labels,
    by_others,
    over_people,
    with_spread,
)
from siamcal.benchmarks._real_report import Measured, draw, to_text

from siamcal.calibrators.statuses import au_statuses
from siamcal.environment import describe_environment
from siamcal.errors import ConfigError, SiamcalError
from siamcal.evaluation.two_tables import INTENSITIES
from siamcal.faces.engines import DEFAULT
from siamcal.files import make_folder, write_atomically, write_json
from siamcal.inference.many import ModelChoice
from siamcal.inference.recordings import Asked, Recording, find_recordings
from siamcal.inference.run import calibrator_facts
from siamcal.progress import progress_bar
from siamcal.registry import benchmarks

__all__ = ["real"]

NO_RAW = (
    "It has no null reference, so that its uncalibrated reading and baseline subtraction are left "
    "out."
)


@benchmarks.register("real")
def real(
    name: str,
    labels: Path | None = None,
    tables: str = "",
    calibrator: str | None = None,
    reference: str = "auto",
    output: Path = Path("runs/real"),
    every: int = 1,
    moves: float = Limits.moves,
    nothing: float = Limits.nothing,
    device: str = "auto",
    face_engine: str = DEFAULT,
) -> Measured:
    """A calibrator on your own recordings, by your labels or other tools' tables.

    Args:
        name: The clips: a video, a folder, a pattern or an @list, as `siamcal predict` takes them.
        labels: Table with the columns clip, frame and AU01, AU02, ..., and if wanted reference and
            person.
        tables: Folder of another tool's tables, named as the clips; several with commas.
        calibrator: A folder or hf-hub:owner/name; None takes the packaged one.
        reference: As `--reference` of `siamcal predict`, for clips whose list or labels name none.
        output: Folder of real.md, real.json and real.png. No picture of a person gets there.
        every: Every n-th frame is read.
        moves: Another reader's trace moves where its standard deviation is at least this share of
            its range.
        nothing: It sees nothing up to this share of its range.
        device: cpu, cuda, mps or auto.
        face_engine: What finds faces.

    Returns:
        The figures of real.json, printed as real.md.

    Raises:
        SiamcalError: An argument is wrong, or no clip could be read.
    """
    recordings = find_recordings([name], Asked.parse(reference))
    told = labels_of(read_labels(labels), recordings, labels) if labels else {}
    tools = tools_in(tables)
    make_folder(output)
    choice = ModelChoice(calibrator, "intensity", device, face_engine=face_engine)
    with choice.predictor() as predictor:
        clips, failed = _read_all(recordings, told, predictor, tools, every)
        facts = calibrator_facts(predictor)
        aus = list(predictor.config.aus)
        notes = [] if predictor.reads_raw else [NO_RAW]
    results = Measured(
        what=name,
        aus=aus,
        calibrator={"source": calibrator or "packaged", **facts},
        clips=[_clip_facts(clip, told) for clip in clips],
        people=len({clip.person for clip in clips}),
        failed=failed,
        limits={"moves": moves, "nothing": nothing, "every": every},
        notes=notes,
        **_measured(clips, told, tools, Limits(moves, nothing), aus),
        environment=describe_environment(),
    )
    results["statuses"] = {f"AU{au:02d}": status for au, status in au_statuses(results).items()}
    write_json(output / "real.json", results)
    write_atomically(output / "real.md", to_text(results) + "\n")
    draw(results, output / "real.png")
    return results


def _read_all(
    recordings: Sequence[Recording],
    labels: Mapping[str, ClipLabels],
    predictor: Any,
    tools: list[Tool],
    every: int,
) -> tuple[list[Clip], dict[str, str]]:
    """The clips that could be read, and name -> why another one couldn't."""
    clips, failed = [], {}
    for one in progress_bar(recordings, total=len(recordings), unit="clip"):
        own = labels.get(one.name, ClipLabels())
        asked = Asked("frame", number=own.reference) if own.reference else one.reference
        named = replace(one, person=own.person or one.person)
        try:
            clips.append(read_clip(named, asked, predictor, tools, every))
        except SiamcalError as error:
            failed[one.name] = str(error)
    if not clips:
        first, why = next(iter(failed.items()))
        raise ConfigError(f"None of {len(failed)} clips could be read; {first}: {why}")
    return clips, failed


def _measured(
    clips: Sequence[Clip],
    labels: Mapping[str, ClipLabels],
    tools: Sequence[Tool],
    limits: Limits,
    aus: Sequence[int],
) -> dict[str, Any]:
    """The sections labels, others and rest, and the rows that they are means of."""
    spans: dict[str, Span] = dict.fromkeys((CALIBRATED, RAW, SUBTRACTED), INTENSITIES)
    spans |= {SHAPES: (0.0, 1.0), **{tool.name: tool.span for tool in tools}}
    rows: dict[str, Any] = {"rest": _of(aus, at_rest(clips))}
    found: dict[str, Any] = {"labels": None, "others": []}
    if labels:
        rows["labels"] = _of(aus, by_labels(clips, labels, spans))
        found["labels"] = over_people(rows["labels"], BY_LABELS)
    for witness in [*(tool.name for tool in tools), SHAPES]:
        own = _of(aus, by_others(clips, witness, spans, limits))
        if len(own):
            rows[witness] = own
            independent = any(tool.independent for tool in tools if tool.name == witness)
            readers = over_people(own, BY_OTHERS)
            told = {"witness": witness, "independent": independent, "readers": readers}
            found["others"].append(told)
    found["rest"] = over_people(rows["rest"], AT_REST)
    with_spread(found["rest"], rows["rest"])
    found["each"] = {key: _records(own) for key, own in rows.items()}
    return found


def _of(aus: Sequence[int], rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the calibrator's AUs: other readers are measured where it can be."""
    return rows[rows["au"].isin(aus)]


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    kept = rows.astype(object).where(rows.notna(), None)
    return [
        {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
        for row in kept.to_dict("records")
    ]


def _clip_facts(clip: Clip, labels: Mapping[str, ClipLabels]) -> dict[str, Any]:
    told = {"clip": clip.name, "person": clip.person, "reference": clip.told}
    told |= {"frames": len(clip.numbers), "read": int(clip.found.sum())}
    told |= {"at_rest": int(clip.at_rest.sum()), "notes": clip.notes}
    if clip.name in labels:
        frames = {n for own in labels[clip.name].aus.values() for n in own}
        told["labelled"] = len(frames)
        told["labelled_and_read"] = len(frames & set(clip.numbers[clip.found].tolist()))
    return told
