"""The page's other side: a video file read into a table, a plot and an overlay."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from siamcal.errors import ConfigError
from siamcal.inference import PersonReference, Predictor, choose_reference, read_reference
from siamcal.inference.outputs import read_sidecar
from siamcal.inference.overlay import overlay_of
from siamcal.inference.run import predict_to_table, sidecar_of
from siamcal.inference.traces import draw_traces, read_table, traces_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AUTO", "LIVE", "PICTURE", "REFERENCES", "RecordingReader", "Results"]

REFERENCES = AUTO, PICTURE, LIVE = (
    "the most neutral frame of the video",
    "a picture",
    "the neutral face of the tab Camera",
)


@dataclass(frozen=True, eq=False)
class Results:
    """What came of a video.

    Attributes:
        table: A row for each frame.
        said: What to know about it, in sentences.
        plot: PNG.
        overlay: MP4.
        files: All files, to take along.
    """

    table: pd.DataFrame
    said: tuple[str, ...]
    plot: Path
    overlay: Path
    files: tuple[Path, ...]


class RecordingReader:
    """Reads videos one at a time.

    Args:
        predictor: Model and face pipeline, of this reader alone.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self._one_at_a_time = threading.Lock()

    def read(
        self, video: str | Path | None, reference: PersonReference | str | Path, folder: Path
    ) -> Results:
        """Read a video as `siamcal predict --plot --overlay` does.

        Args:
            video: The file.
            reference: The person's; a picture of theirs; or `AUTO`.
            folder: For the files; nothing lies in it yet.

        Raises:
            ConfigError: No video was named.
            MediaError, FaceNotFoundError: Something can't be read, or shows no face.
        """
        if not video:
            raise ConfigError("There is no video yet: choose one first.")
        output = folder / f"{Path(video).stem}.csv"
        with self._one_at_a_time:
            person = self._person(reference, video)
            summary = predict_to_table(
                str(video), output, predictor=self.predictor, reference=person, overlay=True
            )
        table, told = read_table(output), read_sidecar(sidecar_of(output)) or {}
        draw_traces(table, told, traces_of(output))
        source = person.facts.get("source", "")
        frame = f", frame {person.facts['frame']}" if person.facts.get("frame", 1) != 1 else ""
        counted = f"{summary.frames} frames, {summary.successes} with values."
        said = (counted, f"Reference: {Path(source).name}{frame}.", *summary.warnings)
        files = (output, sidecar_of(output), traces_of(output), overlay_of(output))
        return Results(table, said, traces_of(output), overlay_of(output), files)

    def _person(
        self, reference: PersonReference | str | Path, video: str | Path
    ) -> PersonReference:
        if isinstance(reference, PersonReference):
            return reference
        if reference == AUTO:
            return choose_reference(str(video), self.predictor)
        return read_reference(reference, self.predictor)
