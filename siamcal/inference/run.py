"""One run of `siamcal predict`: a table that is complete up to its last row, and its sidecar."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import torch

import siamcal
from siamcal.errors import ConfigError
from siamcal.faces.engines import engine_version
from siamcal.faces.media import FrameStream, open_media
from siamcal.files import checksum_of_file, write_json
from siamcal.inference.models import RENDERED_NOTE
from siamcal.inference.outputs import (
    WRITTEN_BY,
    Output,
    check_outputs,
    is_stream,
    own_sidecar,
    own_table,
)
from siamcal.inference.overlay import check_overlay, overlaid, overlay_of, own_overlay
from siamcal.inference.prediction import FrameResult, Predictor
from siamcal.inference.references import PersonReference, read_reference
from siamcal.inference.selection import Selection, check_width, smoothed
from siamcal.inference.table import AURows, RowWriter
from siamcal.progress import progress_bar
from siamcal.registry import table_formats

__all__ = [
    "Summary",
    "TableOptions",
    "calibrator_facts",
    "predict_to_table",
    "reference_facts",
    "sidecar_of",
    "table_format",
    "table_outputs",
]

logger = logging.getLogger(__name__)

# So many frames with a problem are listed one by one in the sidecar; all of them are counted.
MAX_LISTED = 1000
# Longer than any row.
MOST_ROW_BYTES = 65536


@dataclass
class Summary:
    """What a run did; grows while it runs.

    Attributes:
        status: "running", "complete", "interrupted" or "failed".
        frames: Frames read; each has a row, or one for each face where everybody is read.
        rows: Rows written.
        successes: Rows with values.
        several_faces: Frames that showed more than one face.
        problems: Problem -> number of frames.
        flagged: Frames with problems: [{"frame": 3, "problem": "no face"}, ...].
        warnings: What the reader of the table should know.
    """

    status: str = "running"
    frames: int = 0
    rows: int = 0
    successes: int = 0
    several_faces: int = 0
    problems: dict[str, int] = field(default_factory=dict)
    flagged: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def count(self, result: FrameResult, *, new_frame: bool = True) -> None:
        """Take in one frame."""
        self.frames += new_frame
        self.rows += 1
        self.successes += result.values is not None
        self.several_faces += new_frame and result.faces > 1
        for problem in [result.problem] if result.problem else result.notes:
            kind = problem.split(" (")[0]
            self.problems[kind] = self.problems.get(kind, 0) + 1
        if result.quality and len(self.flagged) < MAX_LISTED:
            self.flagged.append({"frame": result.index + 1, "problem": result.quality})


@dataclass(frozen=True)
class TableOptions:
    """What of a recording is read, and how the table looks.

    Attributes:
        selection: Which frames.
        smooth: Intensities are the median over so many frames, an odd number; 1: as they are read.
        openface: Columns and zeros as OpenFace writes them; see `AURows`.

    Raises:
        ConfigError: `smooth` is even or below 1.
    """

    selection: Selection = field(default_factory=Selection)
    smooth: int = 1
    openface: bool = False

    def __post_init__(self) -> None:
        check_width(self.smooth)  # here, before a table is begun


def table_format(output: Path) -> Callable[[BinaryIO, Mapping[str, type]], RowWriter]:
    """The format that a file's suffix names.

    Raises:
        ConfigError: There is no such format.
    """
    suffix = output.suffix.lower().removeprefix(".")
    if suffix not in table_formats:
        *others, last = (f".{name}" for name in table_formats.names())
        known = f"{', '.join(others)} or {last}"
        raise ConfigError(f"A table is written as {known}, but {output} was named for it.")
    return table_formats.get(suffix)


def predict_to_table(
    stream: FrameStream | Any,
    output: str | Path | BinaryIO,
    *,
    predictor: Predictor,
    reference: PersonReference | Mapping[int, PersonReference] | Any,
    options: TableOptions | None = None,
    request: str = "",
    replace: bool = False,
    overlay: bool = False,
    warnings: Sequence[str] = (),
) -> Summary:
    """Read a stream of frames of one person into a table.

    Rows are flushed batch by batch: whatever stops the run, those written stay. Beside a file
    `aus.csv` a sidecar `aus.json` says what made it.

    Args:
        stream: Frames, from `siamcal.faces.media.open_media`, or what that takes: a file, RGB
            arrays (H, W, 3) of uint8.
        output: A file whose suffix names the format (`siamcal ls formats`), or an open binary
            stream, which gets CSV and no sidecar.
        predictor: Model and face pipeline.
        reference: The person's reference, or what `read_reference` takes; or number of a person ->
            reference: then everybody is read, with a row for each face and their number in
            `face_id` (`Predictor.results_of_people`).
        options: What is read, and how it is written.
        request: What a resuming run knows the same work by; kept in the sidecar.
        replace: A table that siamcal wrote there before may be replaced.
        overlay: Draw the readings into a video beside the table, `aus.mp4`.
        warnings: What the reader of the table should know besides.

    Returns:
        The counts. An interruption by the user ends the run with status "interrupted".

    Raises:
        ConfigError: The output can't be written or would destroy a file, no format has its suffix,
            or an option doesn't fit the stream; an overlay of what can be read only once.
        MediaError: The stream held nothing at all.
    """
    options = options or TableOptions()
    output = Path(output) if isinstance(output, str) else output
    stream = open_media(stream)
    if not isinstance(reference, PersonReference | Mapping):
        reference = read_reference(reference, predictor)
    if overlay:
        check_overlay(stream, output)
    sidecar, make_table = None, table_formats.get("csv")
    if isinstance(output, Path):
        make_table = table_format(output)
        check_outputs(table_outputs(output, overlay=overlay), stream.sources, replace=replace)
        sidecar = None if is_stream(output) else sidecar_of(output)
    rows = _rows(predictor, options, stream)
    chosen = options.selection.of(stream)
    summary = Summary(warnings=[*_warnings(reference), *warnings])
    facts = _facts(output, stream, chosen, predictor, reference, options, rows, request)
    # The sidecar first: by it a run that goes on after a kill knows the table as its own.
    _write_sidecar(sidecar, facts, summary)
    video = overlay_of(output) if overlay and isinstance(output, Path) else None
    source = (stream, options.selection, predictor, _numbers(reference))
    with _opened(output) as file, overlaid(video, *source) as drawn:
        table = make_table(file, rows.columns)
        try:
            results = _results(chosen, predictor, reference)
            results = drawn(smoothed(results, options.smooth))
            _fill(table, rows, chosen, results, predictor.batch_size, summary)
            summary.status = "complete"
        except KeyboardInterrupt:
            # Ctrl-C is how a camera is stopped, too, and whatever has no end.
            summary.status = "complete" if stream.live else "interrupted"
        except BaseException:
            summary.status = "failed"
            raise
        finally:
            table.close()
            _conclude(summary, chosen, whole=options.selection.whole)
            if sidecar is not None and isinstance(output, Path):
                facts["table"]["sha256"] = checksum_of_file(output)
            _write_sidecar(sidecar, facts, summary)
    return summary


def _numbers(reference: PersonReference | Mapping[int, PersonReference]) -> list[int] | None:
    """Of the people who are read; None: one person."""
    return sorted(reference) if isinstance(reference, Mapping) else None


def _rows(predictor: Predictor, options: TableOptions, stream: FrameStream) -> AURows:
    config = predictor.config
    return AURows(
        config.aus,
        config.thresholds,
        config.task,
        openface=options.openface,
        raw=predictor.reads_raw,
        pictures=stream.kind == "images",
    )


def _results(
    stream: FrameStream,
    predictor: Predictor,
    reference: PersonReference | Mapping[int, PersonReference],
) -> Iterator[FrameResult]:
    if isinstance(reference, PersonReference):
        known = (reference.features, reference.measures, reference.identity)
        return predictor.results(stream, *known)
    features = {number: one.features for number, one in reference.items()}
    measures = {number: one.measures for number, one in reference.items()}
    identities = {number: one.identity for number, one in reference.items()}
    return predictor.results_of_people(stream, features, measures, identities)


def _warnings(reference: PersonReference | Mapping[int, PersonReference]) -> list[str]:
    if isinstance(reference, PersonReference):
        return list(reference.warnings)
    return [f"Person {n}: {text}" for n, one in reference.items() for text in one.warnings]


def _facts(
    output: Path | BinaryIO,
    stream: FrameStream,
    chosen: FrameStream,
    predictor: Predictor,
    reference: PersonReference | Mapping[int, PersonReference],
    options: TableOptions,
    rows: AURows,
    request: str,
) -> dict[str, Any]:
    """What made a table."""
    return {
        WRITTEN_BY: f"siamcal {siamcal.__version__}",
        "table": {"file": output.name, "sha256": None} if isinstance(output, Path) else None,
        "input": {"kind": stream.kind, "files": list(stream.sources), "fps": chosen.fps},
        "options": asdict(options),
        "reference": reference_facts(reference),
        "calibrator": calibrator_facts(predictor),
        "columns": describe_columns(rows),
        "environment": _environment(predictor),
        "request": request,
    }


def reference_facts(
    reference: PersonReference | Mapping[int, PersonReference],
) -> dict[str, Any]:
    """Where a person's reference comes from, or everybody's by their numbers."""
    if isinstance(reference, PersonReference):
        return reference.facts
    return {"people": {str(number): one.facts for number, one in reference.items()}}


def table_outputs(output: Path, *, overlay: bool = False) -> list[Output]:
    """The files that a table comes with, for `check_outputs`."""
    if is_stream(output):
        return [(output, lambda _: False)]
    sidecar = sidecar_of(output)
    video = [(overlay_of(output), own_overlay)] if overlay else []
    return [(output, partial(own_table, sidecar=sidecar)), (sidecar, own_sidecar), *video]


def sidecar_of(output: Path) -> Path:
    """`aus.csv` -> `aus.json`; of another format `aus.parquet` -> `aus.parquet.json`."""
    if output.suffix.lower() == ".csv":
        return output.with_suffix(".json")
    return output.with_name(f"{output.name}.json")


def calibrator_facts(predictor: Predictor) -> dict[str, Any]:
    """The model card's facts, for the sidecar."""
    config = predictor.config
    copied = ("backbone", "merge_at", "merge", "training_data", "data_licence", "licence")
    return {
        "note": RENDERED_NOTE if config.rendered else "",
        "task": config.task,
        "aus": [
            {"au": au, "name": name, "threshold": threshold, "status": status}
            for au, name, threshold, status in zip(
                config.aus, config.au_names, config.thresholds, config.au_status, strict=True
            )
        ],
        "preprocessing": asdict(config.preprocessing),
        **{name: getattr(config, name) for name in copied},
        "licence_reason": config.licence_reason,
        "weights_checksum": config.weights_checksum,
    }


def _fill(
    table: RowWriter,
    rows: AURows,
    stream: FrameStream,
    results: Iterable[FrameResult],
    batch: int,
    summary: Summary,
) -> None:
    with progress_bar(total=stream.total, description="predict", unit="frame") as bar:
        last = -1
        for result in results:
            table.write(rows.row(result))
            new = result.index != last
            summary.count(result, new_frame=new)
            if summary.rows % batch == 0 or stream.live:
                table.flush()
            bar.update(new)
            last = result.index


def _conclude(summary: Summary, stream: FrameStream, *, whole: bool) -> None:
    said = [f"{count} frames: {kind}" for kind, count in summary.problems.items()]
    summary.warnings += [f"{text}." for text in said] + stream.notes
    if summary.frames and not summary.successes:
        summary.warnings.append("No frame has values: no face was found in any of them.")
    expected = 0 if stream.estimated or not whole else stream.total or 0
    if summary.status == "complete" and summary.frames < 0.95 * expected - 2:
        summary.warnings.append(
            f"The video announces {expected} frames, but {summary.frames} could be read: "
            f"it is damaged or cut off."
        )


_JUDGED_IN_WORDS = {
    "yaw": "degrees; positive where the nose points to the right of the picture",
    "pitch": "degrees; positive where the nose points down",
    "roll": "degrees; positive where the head leans to the right of the picture",
    "eye_opening": "height over width of the eyes, over the reference's: 1 as open, 0 shut",
    "occlusion": "how strongly something seems to cover the face; from 1 on quality says so",
    "sharpness": "finest detail of the face over the reference's; below 1 is more blurred",
    "face_size": "pixels between the outer eye corners",
    "brightness": "median grey level of the face, 0 to 255",
}


def describe_columns(rows: AURows) -> dict[str, str]:
    """What each column of a table means."""
    empty = "all AU columns are 0" if rows.openface else "the AU columns are empty"
    told = {
        "frame": "counted from 1",
        "face_id": "number of the person: always 0 where one person is read",
        "timestamp": "seconds from the start of the video; 0 for pictures without a rate",
        "confidence": "score of the face detector, 0 to 1",
        "success": f"1 where values were read; {empty} where it is 0",
    }
    if rows.task == "intensity":
        told["AU.._r"] = "intensity relative to the reference, clipped to 0 to 5"
        told["AU.._c"] = "1 exactly where AU.._r reaches the AU's threshold"
    else:
        told["AU.._c"] = "1 where the logit is not negative"
    if rows.raw:
        told["AU.._raw"] = "the reading without the person's reference, clipped to 0 to 5"
    if "quality" in rows.columns:
        told |= _JUDGED_IN_WORDS
        told["quality"] = "what speaks against the frame, in words; empty where nothing does"
    if "file" in rows.columns:
        told["file"] = "name of the picture"
    return told


def _environment(predictor: Predictor) -> dict[str, str]:
    return {
        "siamcal": siamcal.__version__,
        "torch": torch.__version__,
        "face_engine": engine_version(predictor.pipeline.detector.engine),
        "opencv": cv2.__version__,
        "av": version("av"),
        "python": platform.python_version(),
        "device": str(predictor.device),
    }


@contextmanager
def _opened(output: Path | BinaryIO) -> Iterator[BinaryIO]:
    """A full disk in the middle is an error in words; the whole rows before it stay."""
    try:
        if not isinstance(output, Path):
            yield output
            return
        with output.open("wb") as file:
            yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        place = output if isinstance(output, Path) else "The table"
        if isinstance(output, Path) and not is_stream(output):
            _leave_whole_rows(output)
        raise ConfigError(f"{place} can't be written ({error.strerror or error}).") from error


def _leave_whole_rows(path: Path) -> None:
    """Cut a text table behind its last line break, and say in its sidecar that the run failed.

    The disk may be full: nothing is written here that needs more of it.
    """
    with suppress(OSError):
        if path.suffix.lower() == ".csv":
            with path.open("r+b") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(end - MOST_ROW_BYTES, 0))
                tail = file.read()
                file.truncate(end - len(tail) + tail.rfind(b"\n") + 1)
        sidecar = sidecar_of(path)
        told = sidecar.read_bytes()
        ended = told.replace(b'"status": "running"', b'"status": "failed" ', 1)
        with sidecar.open("r+b") as file:
            file.write(ended)


def _write_sidecar(path: Path | None, facts: dict[str, Any], summary: Summary) -> None:
    if path is not None:
        write_json(path, {"status": summary.status, **facts, "result": asdict(summary)})
