"""A recording with what was read from it drawn in: decoded once more while it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from siamcal.errors import ConfigError
from siamcal.faces.media import Frame, FrameStream, open_media
from siamcal.files import replacing
from siamcal.inference.ahead import ahead
from siamcal.inference.outputs import is_stream
from siamcal.inference.prediction import FrameResult, Predictor
from siamcal.inference.selection import Selection, frame_by_frame

__all__ = ["check_overlay", "overlaid", "overlay_of", "own_overlay"]

# Pictures that have no times are shown so long each.
SECONDS_A_PICTURE = 1.0

Results = Iterable[FrameResult]


def overlay_of(output: Path) -> Path:
    """`aus.csv` -> `aus.mp4`."""
    return output.with_suffix(".mp4")


def own_overlay(path: Path) -> bool:
    """Whether a video was drawn by siamcal."""
    from siamcal.inference.overlay_video import is_own

    return is_own(path)


def check_overlay(stream: FrameStream, output: Path | Any) -> None:
    """Refuse what can't be read a second time: the overlay needs the pictures again.

    Args:
        stream: What is read.
        output: The table, beside which the video will lie.

    Raises:
        ConfigError: It is a camera, a pipe, an address or arrays; or the table is no file.
    """
    if not isinstance(output, Path) or is_stream(output):
        raise ConfigError("--overlay draws beside a table: write the table into a file.")
    if stream.live or not all(Path(name).is_file() for name in stream.sources):
        raise ConfigError(
            f"--overlay reads the recording twice, and {stream.sources[0]} can be read only once. "
            "Record it into a file first, and read that."
        )


@contextmanager
def overlaid(
    path: Path | None,
    stream: FrameStream,
    selection: Selection,
    predictor: Predictor,
    people: Sequence[int] | None = None,
) -> Iterator[Callable[[Results], Iterator[FrameResult]]]:
    """Yield what draws results on their way; the video is there when the block ends without error.

    The recording is decoded a second time, a few frames ahead, and never held as a whole.

    Args:
        path: The video; None: nothing is drawn.
        stream: What the results are read from.
        selection: Which of its frames.
        predictor: What reads them.
        people: Numbers of those who are read; None: one person.

    Raises:
        ConfigError: The video can't be written, or the recording changed in between.
    """
    if path is None:
        yield iter
        return
    from siamcal.inference.overlay_picture import OverlayPicture
    from siamcal.inference.overlay_video import OverlayVideo

    chosen = selection.of(open_media(list(stream.sources)))
    picture = OverlayPicture(predictor.config, raw=predictor.reads_raw, people=people)
    timed = stream.kind != "images" or selection.fps is not None
    start = selection.start or 0.0
    with replacing(path) as place, OverlayVideo(place, path, picture, chosen.fps or 25.0) as video:

        def draw(results: Results) -> Iterator[FrameResult]:
            with closing(ahead(chosen)) as frames:
                for number, together in enumerate(frame_by_frame(results)):
                    first, frame = together[0], next(frames, None)
                    _check_pair(frame, first, path)
                    seconds = first.timestamp - start if timed else number * SECONDS_A_PICTURE
                    video.write(frame.rgb if frame else None, together, seconds)
                    yield from together

        yield draw


def _check_pair(frame: Frame | None, result: FrameResult, path: Path) -> None:
    if frame is None or frame.index != result.index:
        raise ConfigError(
            f"{result.source} gave other frames when it was read again for {path}: it changed "
            "meanwhile. Read it again when it is complete."
        )
