"""Worker processes that crop units.

They are started as commands, not by multiprocessing: so a user's script needs no
`if __name__ == "__main__"`, and notebooks and stdin work.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from siamcal.datasets.crops.units import Unit, crop_unit
from siamcal.errors import SiamcalError
from siamcal.preprocessing import Preprocessing

__all__ = ["crop_units", "main"]

# Messages of a worker: ("frames", n), ("done", unit number), ("failed", error).
Message = tuple[str, Any]

_COMMAND = "from siamcal.datasets.crops.workers import main; main()"


def crop_units(
    units: Sequence[Unit], preprocessing: Preprocessing, folder: Path, workers: int
) -> Generator[Message, None, None]:
    """Crop units and yield ("frames", n) and ("done", index) as they happen.

    Units are handed out in order, so they also end roughly in order.

    Raises:
        SiamcalError: A worker died or met an error; finished work stays.
    """
    if workers <= 1:
        yield from _in_this_process(units, preprocessing, folder)
        return
    todo: queue.SimpleQueue[tuple[int, Unit]] = queue.SimpleQueue()
    for numbered in enumerate(units):
        todo.put(numbered)
    messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
    processes = [_start() for _ in range(workers)]
    threads = [
        threading.Thread(
            target=_drive, args=(process, todo, messages, preprocessing, folder), daemon=True
        )
        for process in processes
    ]
    try:
        for thread in threads:
            thread.start()
        left = len(units)
        while left:
            kind, value = messages.get()
            if kind == "failed":
                raise value
            left -= kind == "done"
            yield kind, value
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
        for thread in threads:
            thread.join()


def _in_this_process(
    units: Sequence[Unit], preprocessing: Preprocessing, folder: Path
) -> Iterator[Message]:
    from siamcal.faces import FacePipeline

    with FacePipeline(preprocessing) as pipeline:
        for number, unit in enumerate(units):
            for count in crop_unit(unit, pipeline, folder):
                yield "frames", count
            yield "done", number


def _start() -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        # The parent's search path, so that an uninstalled checkout works too.
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        # One thread a worker: there are as many workers as cores.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-c", _COMMAND],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )


def _drive(
    process: subprocess.Popen[bytes],
    todo: queue.SimpleQueue[tuple[int, Unit]],
    messages: queue.SimpleQueue[Message],
    preprocessing: Preprocessing,
    folder: Path,
) -> None:
    """Thread of one worker: hand it units, pass its messages on."""
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        raise RuntimeError("a worker was started without pipes")
    unit = None
    try:
        while True:
            try:
                number, unit = todo.get_nowait()
            except queue.Empty:
                return
            pickle.dump((unit, preprocessing, folder), stdin)
            stdin.flush()
            while True:
                kind, value = pickle.load(stdout)
                if kind == "done":
                    messages.put(("done", number))
                    break
                messages.put((kind, value))
                if kind == "failed":
                    return
    except (EOFError, OSError, pickle.UnpicklingError):
        place = f" at {unit.frames[0][0]}" if unit else ""
        messages.put(
            (
                "failed",
                SiamcalError(
                    f"A process that crops faces died{place} (exit code {process.wait()}; -9 is "
                    f"often a lack of memory). Start again with fewer workers: what is done stays."
                ),
            )
        )
    finally:
        with contextlib.suppress(OSError):
            stdin.close()


def main() -> None:
    """Body of a worker: units from stdin, messages to stdout, until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    # What libraries print must not get between the messages.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with contextlib.suppress(BrokenPipeError):
        _serve(sys.stdin.buffer, output)


def _read_or_exit(stdin: BinaryIO, todo: queue.SimpleQueue[Any]) -> None:
    """Thread of a worker: pass units on; end the process when the parent is done or dead."""
    with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError):
        while True:
            todo.put(pickle.load(stdin))
    os._exit(0)


def _serve(stdin: BinaryIO, stdout: BinaryIO) -> None:
    def send(kind: str, value: Any) -> None:
        pickle.dump((kind, value), stdout)
        stdout.flush()

    import cv2
    import torch

    from siamcal.faces import FacePipeline

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    # Read beside the work, so that a parent's death is noticed at once: a worker that outlives it
    # would write into the files of the run that resumes.
    todo: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read_or_exit, args=(stdin, todo), daemon=True).start()
    pipeline = None
    while True:
        unit, preprocessing, folder = todo.get()
        try:
            pipeline = pipeline or FacePipeline(preprocessing)  # one preprocessing a run
            for count in crop_unit(unit, pipeline, folder):
                send("frames", count)
        except BrokenPipeError:
            raise
        except SiamcalError as error:
            send("failed", error)
        except Exception as error:
            send("failed", SiamcalError(f"Cropping {unit.frames[0][0]} failed: {error!r}"))
        else:
            send("done", None)
