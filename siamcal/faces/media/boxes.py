"""The outermost boxes of MP4, MOV and HEIC files (ISO/IEC 14496-12)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

__all__ = ["missing_bytes", "recordings"]


def recordings(path: Path) -> int:
    """How many recordings were joined by copying bytes; players show the first."""
    return sum(kind == b"moov" for kind, _ in _boxes(path))


def missing_bytes(file: Path | io.BytesIO) -> int:
    """How many bytes lack at the end of a file that was cut off, at least."""
    return max(lacking for _, lacking in _boxes(file))


def _boxes(file: Path | io.BytesIO) -> Iterator[tuple[bytes, int]]:
    """(kind, bytes that lack) of each box."""
    with file.open("rb") if isinstance(file, Path) else nullcontext(file) as content:
        length, start = content.seek(0, io.SEEK_END), 0
        while start < length:
            content.seek(start)
            head = content.read(16)
            size = int.from_bytes(head[:4], "big")
            if size == 1:
                size = int.from_bytes(head[8:16], "big")
            start = start + size if size else length  # 0: up to the end
            yield head[4:8], max(start - length, 0)
