"""Runs over many recordings that are killed, again and again, and resumed: the same bytes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from rendered import RenderedPerson
from test_inference import make_calibrator
from videos import write_video

CLIPS, KILLS, FRAMES = 20, 10, 6


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Twenty clips of four rendered people, a neutral picture of each, and a list of all."""
    folder = tmp_path_factory.mktemp("study")
    make_calibrator(folder / "calibrator")
    lines = ["video,person,reference"]
    people = [RenderedPerson(index, size=192) for index in range(4)]
    for index, person in enumerate(people):
        Image.fromarray(person()).save(folder / f"{index}.png")
    for clip in range(CLIPS):
        person = people[clip % len(people)]
        frames = [person({12: (n + clip) % 5, 4: n / 2}) for n in range(FRAMES)]
        write_video(folder / f"clip{clip:02d}.mp4", frames)
        lines.append(f"clip{clip:02d}.mp4,p{clip % 4},{clip % 4}.png")
    (folder / "study.csv").write_text("\n".join(lines))
    return folder


def command(study, output, *extra):
    told = [sys.executable, "-m", "siamcal", "predict", f"@{study / 'study.csv'}", "--resume"]
    return [*told, "--model", str(study / "calibrator"), "-o", str(output), *map(str, extra)]


@pytest.fixture(scope="module")
def whole(study, tmp_path_factory):
    """All tables, of a run that nobody disturbed."""
    output = tmp_path_factory.mktemp("whole")
    ended = subprocess.run(command(study, output), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    found = tables(output)
    assert len(found) == CLIPS + 1
    assert set(pd.read_csv(output / "summary.csv")["frames"]) == {FRAMES}
    return found


def tables(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("[!.]*.csv"))}


def sidecars(folder):
    return len(list(folder.glob("*.json")))


def wait_for(folder, count, child):
    """Until so many recordings were begun, or the run ended."""
    deadline = time.monotonic() + 120
    while sidecars(folder) < count and child.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("jobs", [1, 2])
def test_kill_9_at_ten_moments(study, whole, tmp_path, jobs) -> None:
    rng = random.Random(jobs)
    torn = 0
    for kill in range(KILLS):
        child = subprocess.Popen(
            command(study, tmp_path, "--jobs", jobs), stderr=subprocess.DEVNULL
        )
        wait_for(tmp_path, 1 + kill * (CLIPS - 2) // KILLS, child)
        time.sleep(rng.uniform(0, 0.15))
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL, "it had ended before"
        found = tables(tmp_path)
        torn += any(found[name] != whole[name] for name in found)
    assert torn  # at least one kill left something unfinished
    ended = subprocess.run(command(study, tmp_path), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert tables(tmp_path) == whole
    assert len(list(tmp_path.iterdir())) == 2 * CLIPS + 1  # nothing half-written lies about


def ray_worker(parent):
    """A process of this run that reads a recording now; None where there is none."""
    import psutil

    for process in psutil.Process(parent).children(recursive=True):
        try:
            if process.name().startswith("ray::_read") or "ray::_read" in process.cmdline():
                return process.pid
        except psutil.Error:
            continue
    return None


def test_one_of_two_ray_workers_is_killed(study, whole, tmp_path) -> None:
    pytest.importorskip("ray", reason="ray isn't installed (pip install 'siamcal[ray]')")
    pytest.importorskip("psutil", reason="psutil isn't installed, by which the worker is found")
    options = ("--engine", "ray", "--jobs", 2)
    child = subprocess.Popen(command(study, tmp_path, *options), stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path, 4, child)
    worker = None
    while worker is None and child.poll() is None:
        worker = ray_worker(child.pid)
    assert worker is not None, child.communicate()
    os.kill(worker, signal.SIGKILL)
    _, err = child.communicate(timeout=300)
    assert child.returncode == 0, err
    assert tables(tmp_path) == whole
    assert Path(tmp_path / "summary.csv").exists()
