"""Work in processes of one thread each, with joblib: results as they come, nobody left behind."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from siamcal.errors import ConfigError, SiamcalError

__all__ = ["check_workers", "end_with", "in_processes"]

Item = TypeVar("Item")
Result = TypeVar("Result")

# Seconds after which idle workers end, and with them the memory they hold.
_IDLE = 5
# Seconds between two looks for the parent: less than a run that resumes takes to start.
_LOOK = 0.05


def check_workers(workers: int | None) -> None:
    """Refuse a number of processes below 1.

    Raises:
        ConfigError: The message says what is allowed.
    """
    if workers is not None and workers < 1:
        raise ConfigError(
            f"workers is a number of processes from 1 on, but got {workers}; leave it out for one "
            "a core."
        )


def in_processes(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, work: str
) -> Generator[Result, None, None]:
    """Call a function with each item, in worker processes; yield results as they come.

    The caller's script needs no `if __name__ == "__main__"`; notebooks and stdin work. Items are
    begun in order. Ctrl-C, closing the generator and the death of this process end the workers.

    Args:
        function: What is done to an item.
        items: What it is done to.
        workers: Number of processes; up to 1: in this process.
        work: What a worker does, for messages ("crops faces").

    Raises:
        SiamcalError: A worker was killed. Errors of `function` are raised as they are.
    """
    if workers <= 1:
        yield from map(function, items)
        return
    import joblib
    from joblib.externals.loky.process_executor import ShutdownExecutorError

    with joblib.parallel_config(
        "loky",
        n_jobs=workers,
        max_nbytes=None,
        inner_max_num_threads=1,
        initializer=_start,
        initargs=(os.getpid(),),
        idle_worker_timeout=_IDLE,
    ):
        pool = joblib.Parallel(return_as="generator_unordered", batch_size=1)
    results = None
    try:
        results = pool(joblib.delayed(function)(item) for item in items)
        for result in results:  # noqa: UP028 - `yield from` would close it before the block below
            yield result
    except (BrokenProcessPool, ShutdownExecutorError) as error:
        codes = re.search(r"\{(.*)\}", str(error))
        raise SiamcalError(
            f"A process that {work} died (exit code {codes[1] if codes else 'unknown'}; -9 is "
            "often a lack of memory). Start again with fewer workers: what is done stays."
        ) from error
    finally:
        with warnings.catch_warnings():  # joblib warns of results that nobody took
            warnings.simplefilter("ignore")
            if results is not None:
                results.close()


def _start(parent: int) -> None:
    """Prepare a worker: one thread, Ctrl-C is the parent's to handle, and it dies with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OPENCV_FOR_THREADS_NUM"] = "1"  # joblib sets those of the other libraries
    end_with(parent)


def end_with(parent: int) -> None:
    """From now on this process ends as soon as `parent`, its own, has ended, however that came.

    A worker that outlives its parent would write into the files of the run that resumes.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
