"""Worker processes: results as they come, from anywhere, and nobody left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from siamcal.errors import DataNotFoundError, SiamcalError
from siamcal.parallel import in_processes

# Processes that work for longer than any test, and say who they are. No main guard on purpose.
ENDLESS = """
import os, time
from pathlib import Path
from siamcal.parallel import in_processes

def work(number):
    (Path({folder!r}) / str(os.getpid())).touch()
    time.sleep(600)

list(in_processes(work, range(4), 2, "waits"))
"""


def square(number):
    return number * number


def threads(_):
    import cv2
    import torch

    libraries = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    return (
        os.getpid(),
        cv2.getNumThreads(),
        torch.get_num_threads(),
        *map(os.environ.get, libraries),
    )


def fail(number):
    if number == 3:
        raise DataNotFoundError("nothing there")
    return number


def die(number):
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def slow_after_first(number):
    if number:
        time.sleep(600)
    return os.getpid()


def wait_for_each_other(folder):
    """Two items end only where both are worked on at once."""
    place = Path(folder)
    (place / str(os.getpid())).touch()
    while len(list(place.iterdir())) < 2:
        time.sleep(0.01)
    return os.getpid()


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def eventually(condition):
    """Wait for what must come; pytest's own patience ends the test where it doesn't."""
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it never came")


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_gives_its_result(workers):
    assert sorted(in_processes(square, range(20), workers, "squares")) == [n * n for n in range(20)]


def test_workers_work_at_the_same_time(tmp_path):
    pids = set(in_processes(wait_for_each_other, [str(tmp_path)] * 2, 2, "waits"))
    assert len(pids) == 2
    assert os.getpid() not in pids


def test_a_worker_has_one_thread():
    for pid, *numbers in in_processes(threads, range(2), 2, "counts"):
        assert pid != os.getpid()
        assert numbers == [1, 1, "1", "1", "1"]


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_come_as_they_are(workers):
    with pytest.raises(DataNotFoundError, match=r"^nothing there$"):
        list(in_processes(fail, range(9), workers, "fails"))


def test_a_killed_worker_is_an_error_in_words_and_the_next_run_works():
    words = r"A process that dies died \(exit code .*-9.*memory\)\. Start again with fewer workers"
    with pytest.raises(SiamcalError, match=words):
        list(in_processes(die, range(6), 2, "dies"))
    assert sorted(in_processes(square, range(3), 2, "squares")) == [0, 1, 4]


def test_closing_ends_the_workers_without_a_word(recwarn):
    with contextlib.closing(in_processes(slow_after_first, range(4), 2, "waits")) as results:
        pid = next(results)
    eventually(lambda: not alive(pid))
    assert not recwarn.list


def test_a_script_on_stdin_works():
    script = (
        "from siamcal.parallel import in_processes\n"
        "factor = 3\n"
        "print(sorted(in_processes(lambda n: factor * n, range(4), 2, 'multiplies')))\n"
    )
    done = subprocess.run([sys.executable, "-"], input=script, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[0, 3, 6, 9]\n", "")


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_nobody_outlives_the_parent(tmp_path, stop):
    pids, script = tmp_path / "pids", tmp_path / "run.py"
    pids.mkdir()
    script.write_text(ENDLESS.format(folder=str(pids)))
    parent = subprocess.Popen(
        [sys.executable, script], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    eventually(lambda: len(list(pids.iterdir())) == 2)
    if stop == signal.SIGINT:
        os.killpg(parent.pid, stop)  # as a terminal does it: everyone gets the signal
    else:
        parent.kill()
    _, said = parent.communicate(timeout=300)
    assert parent.returncode == -stop
    assert said.count("Traceback") == (stop == signal.SIGINT)  # the parent's; none of the workers'
    eventually(lambda: not any(alive(int(pid.name)) for pid in pids.iterdir()))
