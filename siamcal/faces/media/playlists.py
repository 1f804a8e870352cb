"""Files that lead to others: playlists and the like. None is followed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

__all__ = ["leading", "only_itself"]

_JOIN = "Make one recording of it and name that"
# FFmpeg's formats that open what a file names, or what lies beside it, and what to do instead. What
# is opened so may be a pipe, which is waited for for ever, as are the end of a playlist that has
# none and of one that names itself.
LEADING = {
    "hls": ("a playlist (HLS)", f"{_JOIN}: ffmpeg -i FILE -c copy joined.mkv"),
    "dash": ("a playlist (DASH)", f"{_JOIN}: ffmpeg -i FILE -c copy joined.mkv"),
    "imf": ("a playlist (IMF)", f"{_JOIN}: ffmpeg -f imf -i FILE joined.mkv"),
    "concat": (
        "a list of recordings (ffconcat)",
        f"{_JOIN}: ffmpeg -f concat -i FILE -c copy joined.mkv",
    ),
    "sdp": (
        "the description of a stream in a network (SDP)",
        "Name the sender's address (rtsp://...), or write the stream to a file first",
    ),
    "vobsub": ("an index of subtitles (VobSub)", "Name the video itself"),
    "mlv": ("a recording in parts (Magic Lantern)", "Convert it: ffmpeg -i FILE out.mp4"),
    # By its name alone, like img%03d.dpx.
    "image2": ("named like a series of pictures", "Name the pictures, or their folder"),
}
# Of a device, a program or an address.
_NO_FILES = ("avisynth", "dvdvideo", "lavfi", "rtp", "rtsp", "sap", "vapoursynth")


@cache
def only_itself() -> dict[str, str]:
    """FFmpeg's options by which a file or pipe is read and nothing that it leads to."""
    import av

    formats = av.formats_available.difference(LEADING, _NO_FILES)
    # Should a format that isn't known above open others, none lies in a network.
    return {
        "format_whitelist": ",".join(sorted(formats)),
        "protocol_whitelist": "file,crypto,data",
    }


def leading(error: BaseException, name: str | Path) -> str:
    """What is said of a file that leads to others; "" of errors with another cause.

    Args:
        error: FFmpeg's, where a file was opened with `only_itself`.
        name: What the file is called.
    """
    log = getattr(error, "log", None)
    if not log or not log[2].startswith("Format not on whitelist"):
        return ""
    other = (f"of the kind {log[1]}", "Convert it: ffmpeg -i FILE out.mp4")
    what, instead = LEADING.get(log[1], other)
    return (
        f"{name} is {what}: it leads to others, which is never followed, since they "
        f"may be pipes or lie in a network. {instead}."
    )
