"""Videos as frames in order of presentation; what can't be decoded leaves a flagged frame."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from siamcal.errors import MediaError
from siamcal.faces.media.clock import Clock
from siamcal.faces.media.files import reason
from siamcal.faces.media.frames import Frame, FrameStream
from siamcal.faces.media.piped import Recorded
from siamcal.faces.media.upright import Upright

__all__ = ["is_picture", "open_container", "video_stream"]

# Playlists and the like inside a local file may name others; none leads into a network.
LOCAL_ONLY = {"protocol_whitelist": "file,crypto,data"}
# Seconds for a network address to answer, and between two frames.
PATIENCE = (20.0, 30.0)
USUAL_RATE = 30.0
HEIF_BRANDS = {"heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1", "avif", "avis"}


def video_stream(container: Any, name: str, *, live: bool = False) -> FrameStream:
    """The frames of the track that is meant.

    Args:
        container: What `open_container` gave.
        name: What it is called in frames and messages.
        live: Whether it comes through a pipe or from an address.

    Raises:
        MediaError: It holds no video.
    """
    notes: list[str] = []
    track = _chosen_track(container, name, notes)
    fps = float(track.average_rate) if track.average_rate else None
    total, announced = (None, None) if live else _header(container, track)
    frames = _video_frames(container, track, announced, name, notes)
    kind = "live" if live else "video"
    return FrameStream(kind, (name,), total, fps, frames, notes, estimated=True)


def is_picture(container: Any) -> bool:
    """Whether FFmpeg takes the file for an image or an animation, or for one tile of it."""
    form: str = container.format.name
    tiled = container.metadata.get("major_brand") in HEIF_BRANDS
    return tiled or form.endswith("_pipe") or form in {"image2", "gif", "apng"}


def open_container(where: Path | Recorded | str, name: str) -> Any:
    """An opened container that holds at least one track of pictures, covers included.

    Raises:
        MediaError: It can't be read, or holds no pictures.
    """
    import av

    av.logging.set_level(av.logging.PANIC)  # decoders' complaints become flagged frames
    # Old recorders write names in their country's alphabet.
    how: dict[str, Any] = {"metadata_errors": "replace"}
    if isinstance(where, Path):
        # Only an absolute path is no address, whatever colons or dashes the file's name holds.
        where, how["options"] = str(where.absolute()), LOCAL_ONLY
    elif isinstance(where, str):
        how |= {"timeout": PATIENCE, "options": {"rtsp_flags": "prefer_tcp"}}
    try:
        container = av.open(where, **how)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise MediaError(_unreadable(where, name, error)) from error
    kinds = {stream.type for stream in container.streams}
    if "video" not in kinds:
        container.close()
        raise MediaError(f"{name} holds no pictures, only {' and '.join(sorted(kinds))}.")
    return container


def _unreadable(where: Any, name: str, error: Exception) -> str:
    why = f"({reason(error)})"
    if isinstance(where, str) and "://" in where:
        return f"{name} can't be opened {why}. Check the address and that the sender runs."
    if not isinstance(where, str):
        return (
            f"What comes from {name} is no video that can be read as it comes {why}. MP4 and MOV "
            f"have to be written to a file first, or made with ffmpeg -movflags frag_keyframe."
        )
    return (
        f"{name} is neither an image nor a video that can be read {why}. "
        f"Check that it was copied completely; ffmpeg -i FILE out.mp4 repairs many videos."
    )


def _chosen_track(container: Any, name: str, notes: list[str]) -> Any:
    """The track that players show: the default one, of several the largest; never a cover."""
    from av.stream import Disposition

    still = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
    moving = [track for track in container.streams.video if not track.disposition & still]
    readable = [track for track in moving if track.codec_context is not None]
    if not readable:
        others = sorted({stream.type for stream in container.streams} - {"video"})
        container.close()
        if moving:
            raise MediaError(f"{name} is a video of a coding that isn't known here. Convert it.")
        raise MediaError(f"{name} holds no video, only {' and '.join([*others, 'a cover'])}.")
    chosen = max(
        readable, key=lambda t: (bool(t.disposition & Disposition.default), t.width * t.height)
    )
    if len(moving) > 1:
        notes.append(
            f"{name} holds {len(moving)} video tracks; number {moving.index(chosen) + 1} "
            f"({chosen.width}x{chosen.height}) was read, as players do."
        )
    return chosen


def _header(container: Any, track: Any) -> tuple[int | None, float | None]:
    """(number of frames, seconds) of the track by the file's header."""
    rate = float(track.average_rate) if track.average_rate else None
    seconds = None
    if track.duration and track.time_base:
        seconds = float(track.duration * track.time_base)
    elif "DURATION" in track.metadata:  # Matroska: 00:01:02.400000000
        hours, minutes, rest = track.metadata["DURATION"].split(":")
        seconds = int(hours) * 3600 + int(minutes) * 60 + float(rest)
    elif len(container.streams) == 1 and container.duration:
        seconds = container.duration / 1e6
    if not track.frames:
        # With sound the whole may be longer than its pictures: good for an estimate only.
        usual = seconds or (container.duration or 0) / 1e6
        return round(usual * rate) if usual and rate else None, seconds
    # What a trimmed clip still holds of before its start and after its end isn't shown.
    frames = int(track.frames) - sum(entry.is_discard for entry in track.index_entries)
    # FFmpeg believes the size of an AVI that breaks off, not its header.
    return frames, max(seconds or 0.0, frames / rate if rate else 0.0)


def _video_frames(
    container: Any, track: Any, announced: float | None, name: str, notes: list[str]
) -> Iterator[Frame]:
    import av

    # Frame threads report an error packets later, and the wrong frame would be flagged.
    track.thread_type = "SLICE"
    start = (container.start_time or 0) / av.time_base
    clock = Clock(start, 1 / float(track.average_rate or USUAL_RATE), name, notes)
    upright = Upright(track.sample_aspect_ratio, name, notes)
    broken: list[tuple[float, str]] = []  # heap of (time, why), waiting for their turn
    index, first, end = 0, None, 0.0
    try:
        for event in _decoded(container, track):
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
        for lost, why in sorted(broken):
            yield Frame(index, max(lost, clock.last, 0.0), None, name, why)
            index, end = index + 1, max(end, lost + clock.step)
        _judge_length(end - (first or 0.0), index, announced, clock, notes)
    finally:
        container.close()
    if index == 0:
        raise MediaError(f"{name} is a video without a single frame that can be decoded.")


def _judge_length(
    read: float, frames: int, announced: float | None, clock: Clock, notes: list[str]
) -> None:
    # By time, not by frames: recorders of screens leave out frames in which nothing happens.
    if announced and read < 0.95 * announced - 2 * clock.step:
        notes.append(
            f"{clock.name} announces {announced:.1f} s, but only {read:.1f} s ({frames} frames) "
            f"could be read: it is damaged or cut off."
        )


def _decoded(container: Any, track: Any) -> Iterator[Any]:
    """Decoded frames, or (time in seconds or None, reason) for packets that fail."""
    import av

    packets = container.demux(track)
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
            if packet.size and not packet.is_discard:
                when = None if packet.pts is None else float(packet.pts * packet.time_base)
                yield when, f"it can't be decoded ({reason(error)})"
