"""Does reading a long video need more and more memory?"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import av
from siamcal.benchmarks._sessions import Session
from siamcal.benchmarks._videos import FPS, SIZES, write_clip

from siamcal.errors import ConfigError
from siamcal.extras import needed_for
from siamcal.faces.media import Frame, FrameStream, open_media
from siamcal.inference import Predictor, load_model, predict_to_table, read_reference
from siamcal.inference.run import TableOptions
from siamcal.inference.selection import Selection
from siamcal.registry import benchmarks
from siamcal.synth.plan import ROBUSTNESS_PEOPLE

__all__ = ["memory"]

FRAMES = 50  # of the clip that is repeated
WARM = 60.0  # seconds of the video, after which nothing more should be needed
MEGABYTE = 1e6


@benchmarks.register("memory")
def memory(minutes: float = 60, every: int = 10, size: str = "480p") -> dict[str, Any]:
    """Memory of the process that reads a long video, after one minute of it and later.

    Args:
        minutes: Length of the video: a rendered clip of two seconds, again and again.
        every: Read every n-th frame; all are decoded.
        size: "480p" or "1080p".

    Returns:
        Frames of the video and those that were read; resident memory in megabytes after a minute
        of the video, at most behind it, and at the end.
    """
    if size not in SIZES or minutes * 60 <= WARM:
        raise ConfigError(
            f"size is {size!r} and minutes {minutes}; allowed: {' or '.join(SIZES)}, over 1."
        )
    session = Session(ROBUSTNESS_PEOPLE[0])
    pictures = [session.neutral(), *session.frames(list(range(FRAMES - 1)))]
    with tempfile.TemporaryDirectory() as folder, Predictor(load_model()) as predictor:
        clip, video = Path(folder) / "clip.mp4", Path(folder) / "video.mp4"
        write_clip(pictures, SIZES[size], clip)
        repeat(clip, round(minutes * 60 * FPS / FRAMES), video)
        reference = read_reference(str(clip), predictor)
        stream, meter = open_media(video), _Meter()
        summary = predict_to_table(
            replace(stream, frames=meter.watch(stream)),
            Path(folder) / "aus.csv",
            predictor=predictor,
            reference=reference,
            options=TableOptions(Selection(every=every)),
        )
    first, later = meter.warm, meter.later
    told = {"frames": meter.frames, "read": summary.successes}
    told |= {"after a minute, MB": round(first), "most behind it, MB": round(max(later))}
    return {**told, "at the end, MB": round(later[-1])}


def repeat(clip: Path, times: int, video: Path) -> None:
    """The clip's packets so many times in a row, without decoding them."""
    with av.open(str(clip)) as source, av.open(str(video), "w") as target:
        (stream,) = source.streams.video
        copy = target.add_stream_from_template(stream)
        packets = [packet for packet in source.demux(stream) if packet.size]
        kept = [(bytes(p), p.pts, p.dts, p.is_keyframe) for p in packets]
        assert stream.time_base is not None
        step = round(len(kept) / FPS / stream.time_base)
        for place in range(times):
            for data, pts, dts, key in kept:
                packet = av.Packet(data)
                packet.stream, packet.time_base = copy, stream.time_base
                packet.pts, packet.dts = (pts or 0) + place * step, (dts or 0) + place * step
                packet.is_keyframe = key
                target.mux(packet)


@dataclass
class _Meter:
    """Takes the process's resident memory while frames pass, once in ten seconds of the video."""

    warm: float = 0.0
    later: list[float] = field(default_factory=list)
    frames: int = 0

    def watch(self, stream: FrameStream) -> Iterator[Frame]:
        """The same frames."""
        with needed_for("Measuring memory", "bench"):
            import psutil

        process = psutil.Process()
        for frame in stream:
            self.frames += 1
            if self.frames % (10 * FPS) == 0 and frame.timestamp >= WARM - 10:
                now = process.memory_info().rss / MEGABYTE
                self.later.append(now)
                self.warm = self.warm or now
            yield frame
