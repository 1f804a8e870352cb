"""Bytes from a pipe, which come once and can't be rewound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from siamcal.errors import MediaError

__all__ = ["PIPED", "Recorded", "opened_pipe"]

PIPED = (
    "MP4 and MOV have to be written to a file first, or made with "
    "ffmpeg -movflags frag_keyframe+empty_moov: their index comes last."
)
# More than any picture takes.
MOST = 1 << 26


def opened_pipe(path: Path) -> Any:
    """A named pipe, open for reading; this waits for the program that writes to it.

    Raises:
        MediaError: It may not be read.
    """
    try:
        return path.open("rb")
    except OSError as error:
        raise MediaError(f"The pipe {path} can't be read ({error.strerror}).") from error


class Recorded:
    """A pipe that remembers what was read from it until it is known what it holds.

    It has no `seek`, so that FFmpeg reads it in one go.

    Args:
        pipe: Buffered bytes.
    """

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._kept: bytearray | None = bytearray()

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, as soon as there are any; b"" at the end."""
        # Not `read`: it would wait until a camera had filled the whole buffer.
        content: bytes = self._pipe.read1(size)
        if self._kept is not None:
            self._kept += content
        return content

    def everything(self) -> bytes:
        """All bytes from the first on, as far as a picture could reach.

        Raises:
            MediaError: Nothing came at all.
        """
        assert self._kept is not None
        while len(self._kept) < MOST and self.read(1 << 20):
            pass
        if not self._kept:
            raise MediaError("Nothing came through the pipe. Does the program before it run?")
        return bytes(self._kept)

    def forget(self) -> None:
        """Remember nothing from here on."""
        self._kept = None
