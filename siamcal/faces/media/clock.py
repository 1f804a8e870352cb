"""Timestamps that never run backwards."""

from __future__ import annotations

__all__ = ["Clock"]


class Clock:
    """Seconds since the start, frame by frame as they are shown.

    Where recordings were joined by copying bytes, timestamps start again: they are continued from
    the frame before. A single wrong timestamp moves its own frame only.

    Args:
        start: Timestamp of the recording's start, in seconds.
        step: Usual distance of two frames in seconds.
        name: The file, for the notes.
        notes: Takes a sentence where timestamps start again, or are missing.
    """

    def __init__(self, start: float, step: float, name: str, notes: list[str]) -> None:
        self.start, self.step = start, step
        self.name, self.notes = name, notes
        self.offset = 0.0
        self.last = -step
        self._before: float | None = None  # the offset before the latest jump, on trial
        self._frames = 0
        self._told: set[str] = set()

    def place(self, stamp: float) -> float:
        """Where a timestamp lies, as far as is known by now."""
        return stamp - self.start + self.offset

    def read(self, stamp: float | None) -> float:
        """Time of the next frame, in seconds.

        Args:
            stamp: What the file says, None where it says nothing.
        """
        self._frames += 1
        if stamp is None:
            time = self.last + self.step
            self._tell(
                "missing",
                f"has frames without timestamps: {1 / self.step:g} frames a second were taken",
            )
        else:
            time = self._forward(stamp)
        self.last = time
        return max(time, 0.0)

    def _forward(self, stamp: float) -> float:
        time, before = self.place(stamp), self._before
        self._before = None
        if before is not None:
            # The frame before jumped back. Where the old clock goes on, it was a slip.
            old = stamp - self.start + before
            if old >= self.last:
                self.offset = before
                return old
            self._tell(
                "again",
                f"has timestamps that start again at frame {self._frames - 1}, as in joined "
                f"recordings: they were continued from the frame before",
            )
        if time < self.last:
            self._before = self.offset
            self.offset += self.last + self.step - time
            return self.last + self.step
        return time

    def _tell(self, key: str, what: str) -> None:
        if key not in self._told:
            self._told.add(key)
            self.notes.append(f"{self.name} {what}.")
