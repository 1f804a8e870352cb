"""Videos as frames in order of presentation; what can't be decoded leaves a flagged frame."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from siamcal.errors import MediaError
from siamcal.faces.media.clock import Clock
from siamcal.faces.media.files import reason
from siamcal.faces.media.frames import Frame
from siamcal.faces.media.piped import PIPED
from siamcal.faces.media.upright import Upright

__all__ = ["Video", "frames_in"]

USUAL_RATE = 30.0


@dataclass(frozen=True)
class Video:
    """An opened video and the track of it that is meant.

    Attributes:
        container: PyAV's container.
        track: Its track.
        name: What it is called in frames and messages.
        notes: Takes sentences on what was found while reading.
        announced: Seconds that the header promises, where it does.
        live: Whether it comes through a pipe or from an address.
    """

    container: Any
    track: Any
    name: str
    notes: list[str]
    announced: float | None
    live: bool


def frames_in(video: Video) -> Iterator[Frame]:
    """All frames of the track, each with its time; closes the container at the end.

    Raises:
        MediaError: Not a single one can be decoded.
    """
    import av

    track, name = video.track, video.name
    # Frame threads report an error packets later, and the wrong frame would be flagged.
    track.thread_type = "SLICE"
    start = (video.container.start_time or 0) / av.time_base
    clock = Clock(start, 1 / float(track.average_rate or USUAL_RATE), name, video.notes)
    upright = Upright(track.sample_aspect_ratio, name, video.notes)
    broken: list[tuple[float, str]] = []  # heap of (time, why), waiting for their turn
    index, first, end = 0, None, 0.0
    try:
        for event in _decoded(video):
            if isinstance(event, tuple):
                when = clock.last + clock.step if event[0] is None else clock.place(event[0])
                heapq.heappush(broken, (when, event[1]))
                continue
            earlier = max(clock.last, 0.0)
            time = clock.read(event.time)
            problem = "the decoder marks it as damaged" if event.is_corrupt else ""
            while broken and broken[0][0] <= time:
                lost, why = heapq.heappop(broken)
                if lost == time:  # an error was reported, and the frame came all the same
                    problem = why
                    continue
                yield Frame(index, max(lost, earlier), None, name, why)
                index += 1
            yield Frame(index, time, upright.rgb(event), name, problem)
            index += 1
            first = time if first is None else first
            end = time + max(clock.step, float((event.duration or 0) * (event.time_base or 0)))
        if first is None:
            raise MediaError(_nothing(video, broken))
        for lost, why in sorted(broken):
            end = max(end, lost + clock.step)
            yield Frame(index, end - clock.step, None, name, why)
            index += 1
        _judge_length(video, end - first, index, clock.step)
    finally:
        video.container.close()


def _nothing(video: Video, broken: list[tuple[float, str]]) -> str:
    why = f": {broken[0][1]}" if broken else ""
    return (
        f"{video.name} is a video without a single frame that can be decoded{why}."
        + f" {PIPED}" * video.live
    )


def _judge_length(video: Video, read: float, frames: int, step: float) -> None:
    # By time, not by frames: recorders of screens leave out frames in which nothing happens.
    if video.announced and read < 0.95 * video.announced - 2 * step:
        video.notes.append(
            f"{video.name} announces {video.announced:.1f} s, but only {read:.1f} s ({frames} "
            f"frames) could be read: it is damaged or cut off."
        )


def _decoded(video: Video) -> Iterator[Any]:
    """Decoded frames, or (time in seconds or None, reason) for packets that fail."""
    import av

    packets = video.container.demux(video.track)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, OSError, ValueError) as error:
            # The file ends in the middle: what was read before stays valid.
            yield None, f"the file breaks off here ({reason(error)})"
            return
        try:
            yield from packet.decode()
        except (av.error.FFmpegError, ValueError) as error:
            # What lies before the start of a trimmed clip isn't shown, broken or not.
            if packet.size and not packet.is_discard:
                when = None if packet.pts is None else float(packet.pts * packet.time_base)
                yield when, f"it can't be decoded ({reason(error)})"
