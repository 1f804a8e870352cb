"""Opening a video: what it is, which of its tracks is meant, and what its header says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from siamcal.errors import MediaError
from siamcal.faces.media.decoding import Video, frames_in
from siamcal.faces.media.files import reason
from siamcal.faces.media.frames import FrameStream
from siamcal.faces.media.piped import PIPED, Recorded
from siamcal.faces.media.playlists import leading, only_itself

__all__ = ["is_picture", "open_container", "video_stream"]

# Seconds for a network address to answer, and between two frames.
PATIENCE = (20.0, 30.0)
MATROSKA_DURATION = r"(\d+):(\d+):(\d+\.?\d*)"  # 00:01:02.400000000
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
    frames = frames_in(Video(container, track, name, notes, announced, live))
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
        MediaError: It can't be read, leads to other files, or holds no pictures.
    """
    import av

    av.logging.set_level(av.logging.PANIC)  # decoders' complaints become flagged frames
    # Old recorders write names in their country's alphabet. PyAV 19 takes them by itself.
    old = int(av.__version__.partition(".")[0]) < 19
    how: dict[str, Any] = {"metadata_errors": "replace"} if old else {}
    if isinstance(where, Path):
        # Only an absolute path is no address, whatever colons or dashes the file's name holds.
        where, how["options"] = str(where.absolute()), only_itself()
    elif isinstance(where, str):
        how |= {"timeout": PATIENCE, "options": {"rtsp_flags": "prefer_tcp"}}
    else:
        how["options"] = only_itself()
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
    if leads := leading(error, name):
        return leads
    why = f"({reason(error)})"
    if isinstance(where, str) and "://" in where:
        return f"{name} can't be opened {why}. Check the address and that the sender runs."
    if not isinstance(where, str):
        return f"What comes from {name} is no video that can be read as it comes {why}. {PIPED}"
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
    elif noted := re.fullmatch(MATROSKA_DURATION, track.metadata.get("DURATION", "")):
        seconds = int(noted[1]) * 3600 + int(noted[2]) * 60 + float(noted[3])
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
