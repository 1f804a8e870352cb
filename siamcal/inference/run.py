"""One run of `siamcal predict`: a table that is complete up to its last row, and its sidecar."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import torch

import siamcal
from siamcal.calibrators.saving import CalibratorConfig
from siamcal.errors import ConfigError
from siamcal.faces.media import FrameStream, open_media
from siamcal.files import write_json
from siamcal.inference.models import RENDERED_NOTE
from siamcal.inference.prediction import FrameResult, Predictor
from siamcal.inference.references import PersonReference, read_reference
from siamcal.inference.table import AURows, RowWriter
from siamcal.progress import progress_bar
from siamcal.registry import table_formats

__all__ = ["Summary", "calibrator_facts", "predict_to_table", "sidecar_of", "table_format"]

logger = logging.getLogger(__name__)

# So many frames with a problem are listed one by one in the sidecar; all of them are counted.
MAX_LISTED = 1000


@dataclass
class Summary:
    """What a run did; grows while it runs.

    Attributes:
        status: "running", "complete", "interrupted" or "failed".
        frames: Rows written.
        successes: Rows with values.
        several_faces: Frames that showed more than one face.
        problems: Problem -> number of frames.
        flagged: Frames with problems: [{"frame": 3, "problem": "no face"}, ...].
        warnings: What the reader of the table should know.
    """

    status: str = "running"
    frames: int = 0
    successes: int = 0
    several_faces: int = 0
    problems: dict[str, int] = field(default_factory=dict)
    flagged: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def count(self, result: FrameResult) -> None:
        """Take in one frame."""
        self.frames += 1
        self.successes += result.values is not None
        self.several_faces += result.faces > 1
        problem = result.problem
        if not problem and result.faces > 1:
            problem = "several faces, the widest was taken"
        if problem:
            kind = problem.split(" (")[0]
            self.problems[kind] = self.problems.get(kind, 0) + 1
            if len(self.flagged) < MAX_LISTED:
                self.flagged.append({"frame": result.index + 1, "problem": problem})


def table_format(output: Path) -> Callable[[BinaryIO, Mapping[str, type]], RowWriter]:
    """The format that a file's suffix names.

    Raises:
        ConfigError: There is no such format.
    """
    suffix = output.suffix.lower().removeprefix(".")
    if suffix not in table_formats:
        known = " or ".join(f".{name}" for name in table_formats.names())
        raise ConfigError(f"A table is written as {known}, but {output} was named for it.")
    return table_formats.get(suffix)


def predict_to_table(
    stream: FrameStream | Any,
    output: str | Path | BinaryIO,
    *,
    predictor: Predictor,
    reference: PersonReference | Any,
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
        reference: The person's reference, or what `read_reference` takes.

    Returns:
        The counts. An interruption by the user ends the run with status "interrupted".

    Raises:
        ConfigError: The output can't be written, or no format has its suffix.
        MediaError: The stream held nothing at all.
    """
    output = Path(output) if isinstance(output, str) else output
    stream = open_media(stream)
    if not isinstance(reference, PersonReference):
        reference = read_reference(reference, predictor)
    summary = Summary(warnings=list(reference.warnings))
    config = predictor.config
    facts = {
        "input": {"kind": stream.kind, "files": list(stream.sources), "fps": stream.fps},
        "reference": reference.facts,
        "calibrator": calibrator_facts(predictor),
        "columns": _columns(config),
        "environment": _environment(predictor),
    }
    rows = AURows(config.aus, config.thresholds, config.task)
    if isinstance(output, Path):
        sidecar, make_table = sidecar_of(output), table_format(output)
    else:
        sidecar, make_table = None, table_formats.get("csv")
    with _opened(output) as file:
        table = make_table(file, rows.columns)
        _write_sidecar(sidecar, facts, summary)
        try:
            _fill(table, rows, stream, predictor, reference, summary)
            summary.status = "complete"
        except KeyboardInterrupt:
            # Ctrl-C is how a camera is stopped, too, and whatever has no end.
            summary.status = "complete" if stream.live else "interrupted"
        except BaseException:
            summary.status = "failed"
            raise
        finally:
            table.close()
            _conclude(summary, stream)
            _write_sidecar(sidecar, facts, summary)
    return summary


def sidecar_of(output: Path) -> Path:
    """`aus.csv` -> `aus.json`; a table `aus.json` -> `aus.run.json`."""
    return output.with_suffix(".run.json" if output.suffix.lower() == ".json" else ".json")


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
    predictor: Predictor,
    reference: PersonReference,
    summary: Summary,
) -> None:
    with progress_bar(total=stream.total, description="predict", unit="frame") as bar:
        for result in predictor.results(stream, reference.features):
            told = (result.index + 1, result.timestamp, result.confidence, result.values)
            table.write(rows.row(*told))
            summary.count(result)
            if summary.frames % predictor.batch_size == 0 or stream.live:
                table.flush()
            bar.update()


def _conclude(summary: Summary, stream: FrameStream) -> None:
    said = [f"{count} frames: {kind}" for kind, count in summary.problems.items()]
    summary.warnings += [f"{text}." for text in said] + stream.notes
    if summary.frames and not summary.successes:
        summary.warnings.append("No frame has values: no face was found in any of them.")
    expected = 0 if stream.estimated else stream.total or 0
    if summary.status == "complete" and summary.frames < 0.95 * expected - 2:
        summary.warnings.append(
            f"The video announces {expected} frames, but {summary.frames} could be read: "
            f"it is damaged or cut off."
        )


def _columns(config: CalibratorConfig) -> dict[str, str]:
    return {
        "frame": "counted from 1",
        "face_id": "always 0: the widest face; a table is about one person",
        "timestamp": "seconds from the start of the video; 0 for images",
        "confidence": "score of the face detector, 0 to 1",
        "success": "1 where values were read; all others are 0 where it is 0",
        "AU.._r": "intensity relative to the reference, clipped to 0 to 5"
        if config.task == "intensity"
        else "not in this table",
        "AU.._c": "1 exactly where AU.._r reaches the AU's threshold"
        if config.task == "intensity"
        else "1 where the logit is not negative",
    }


def _environment(predictor: Predictor) -> dict[str, str]:
    return {
        "siamcal": siamcal.__version__,
        "torch": torch.__version__,
        "mediapipe": version("mediapipe"),
        "opencv": cv2.__version__,
        "av": version("av"),
        "python": platform.python_version(),
        "device": str(predictor.device),
    }


@contextmanager
def _opened(output: Path | BinaryIO) -> Iterator[BinaryIO]:
    """A full disk in the middle is an error in words; the rows before it stay."""
    try:
        if not isinstance(output, Path):
            yield output
            return
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("wb") as file:
            yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        place = output if isinstance(output, Path) else "The table"
        raise ConfigError(f"{place} can't be written ({error.strerror or error}).") from error


def _write_sidecar(path: Path | None, facts: dict[str, Any], summary: Summary) -> None:
    if path is not None:
        write_json(path, {"status": summary.status, **facts, "result": asdict(summary)})
