"""Steps of one stream that overlap: each in a thread of its own, in order, a few items ahead."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

__all__ = ["ahead"]

Item = TypeVar("Item")

# Seconds until a thread is left behind that a camera or a pipe keeps waiting.
_PATIENCE = 5.0


def ahead(items: Iterable[Item], depth: int = 2) -> Generator[Item, None, None]:
    """The same items in the same order, made in a thread while the caller works on earlier ones.

    Decoders and networks leave Python's lock while they work. An error or interruption inside
    `items` is raised here after all items before it. Closing the generator ends the thread.

    Args:
        items: Iterated over in the thread only.
        depth: So many items at most are made before they are asked for.
    """
    made: queue.SimpleQueue[tuple[Item | None, BaseException | None]] = queue.SimpleQueue()
    room = threading.Semaphore(depth)
    closed = threading.Event()

    def make() -> None:
        end: Any = StopIteration()
        try:
            for item in items:
                made.put((item, None))
                room.acquire()
                if closed.is_set():
                    return
        except BaseException as error:  # Ctrl-C in a camera's loop, too
            end = error
        made.put((None, end))

    thread = threading.Thread(target=make, name="siamcal-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, end = made.get()
            if isinstance(end, StopIteration):
                return
            if end is not None:
                raise end
            room.release()
            yield item  # type: ignore[misc]
    finally:
        closed.set()
        room.release()
        thread.join(_PATIENCE)
