"""A recording with what was read from it drawn in, as an H.264 video, frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from siamcal.errors import ConfigError
from siamcal.faces.media import Frame, FrameStream, open_media
from siamcal.files import replacing
from siamcal.inference.ahead import ahead
from siamcal.inference.outputs import is_stream
from siamcal.inference.prediction import FrameResult, Predictor
from siamcal.inference.selection import Selection, frame_by_frame

if TYPE_CHECKING:
    from siamcal.inference.overlay_picture import OverlayPicture

__all__ = ["check_overlay", "overlaid", "overlay_of", "own_overlay"]

#: The comment in the file by which siamcal knows its own.
COMMENT = "siamcal predict --overlay"
# Pictures that have no times are shown so long each.
SECONDS_A_PICTURE = 1.0
CLOCK = 90_000  # ticks a second, as most recordings count
QUALITY = "20"  # x264's constant rate factor; letters stay sharp
# One thread, and no bits shared out over time (the "macroblock tree"): with them x264 made up to 17
# files of the same pictures in twenty runs, without one of them in sixty.
ALWAYS_ALIKE = {"threads": "1", "x264-params": "mbtree=0"}

Results = Iterable[FrameResult]


def overlay_of(output: Path) -> Path:
    """`aus.csv` -> `aus.mp4`."""
    return output.with_suffix(".mp4")


def own_overlay(path: Path) -> bool:
    """Whether a video was drawn by siamcal."""
    with suppress(av.FFmpegError, OSError, ValueError), av.open(str(path)) as container:
        return bool(container.metadata.get("comment", "") == COMMENT)
    return False


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

    chosen = selection.of(open_media(list(stream.sources)))
    picture = OverlayPicture(predictor.config, raw=predictor.reads_raw, people=people)
    timed = stream.kind != "images" or selection.fps is not None
    start = selection.start or 0.0
    with replacing(path) as place, _Video(place, path, picture, chosen.fps or 25.0) as video:

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


class _Video:
    """An MP4 that grows frame by frame; the first picture gives its size."""

    def __init__(self, place: Path, path: Path, picture: OverlayPicture, fps: float) -> None:
        self.path, self.picture, self.fps = path, picture, fps
        self._container: Any = av.open(str(place), "w", format="mp4")
        self._container.metadata["comment"] = COMMENT
        self._stream: Any = None
        self._last = -1
        # Frames before the first picture: they wait until the size is known.
        self._waiting: list[tuple[Sequence[FrameResult], float]] = []

    def __enter__(self) -> _Video:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        try:
            if kind is None:
                with self._told():
                    self._flush()
                    self._mux(self._stream.encode() if self._stream else ())
        finally:
            # Without an error before, this writes the index.
            with self._told() if kind is None else suppress(OSError, av.FFmpegError):
                self._container.close()

    def write(self, rgb: np.ndarray | None, results: Sequence[FrameResult], seconds: float) -> None:
        """Add a frame at its time."""
        with self._told():
            if rgb is None and self._stream is None:
                self._waiting.append((results, seconds))
                return
            waiting, self._waiting = self._waiting, []
            drawn = self.picture.draw(rgb, results)
            for earlier, time in waiting:
                self._encode(self.picture.draw(None, earlier), time)
            self._encode(drawn, seconds)

    def _flush(self) -> None:
        for results, seconds in self._waiting:
            self._encode(self.picture.draw(None, results), seconds)

    def _encode(self, drawn: np.ndarray, seconds: float) -> None:
        if self._stream is None:
            self._stream = self._open_stream(*drawn.shape[:2])
        frame = av.VideoFrame.from_ndarray(drawn, format="rgb24")
        # Two frames at one time, as damaged files have them, still follow each other.
        self._last = max(round(seconds * CLOCK), self._last + 1)
        frame.pts, frame.time_base = self._last, Fraction(1, CLOCK)
        self._mux(self._stream.encode(frame))

    def _open_stream(self, height: int, width: int) -> Any:
        rate = Fraction(self.fps).limit_denominator(1001)
        options = {"crf": QUALITY, "preset": "veryfast", **ALWAYS_ALIKE}
        stream: Any = self._container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, CLOCK)
        return stream

    def _mux(self, packets: Iterable[Any]) -> None:
        for packet in packets:
            self._container.mux(packet)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, av.FFmpegError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"{self.path} can't be written ({reason}).") from error
