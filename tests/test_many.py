"""Many recordings in one command: each its table, whatever order, process or share made it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from test_inference import make_calibrator
from test_inference_cli import run  # noqa: F401
from videos import head, moved_frames, write_video

from siamcal.errors import ConfigError, MediaError
from siamcal.faces.media import open_media
from siamcal.inference.many import ModelChoice, _predictor, _shared_reference, predict_many
from siamcal.inference.recordings import Asked, find_recordings, parse_shard


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(make_calibrator(tmp_path_factory.mktemp("calibrator")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    Image.fromarray(head()).save(folder / "neutral.png")
    clips = folder / "clips"
    for day in ("day1", "day2"):
        (clips / day).mkdir(parents=True)
        write_video(clips / day / "anna.mp4", moved_frames(3 if day == "day1" else 4))
    write_video(clips / "berta.mp4", moved_frames(2))
    (clips / "broken.mp4").write_bytes(b"\0" * 4000)
    (clips / "._berta.mp4").write_bytes(b"\0\5\26\7")
    (clips / "stills").mkdir()
    for number in (2, 10):
        Image.fromarray(head()).save(clips / "stills" / f"{number}.png")
    (folder / "list.csv").write_text(
        "video, person, reference\n"
        "clips/day1/anna.mp4,anna,neutral.png\n"
        "clips/day2/anna.mp4,anna,frame:2\n"
        "clips/berta.mp4,berta,\n"
    )
    (folder / "list.txt").write_text("# all of it\nclips/day1/anna.mp4\n\nclips/berta.mp4\n")
    return folder


def names(*inputs, cwd, monkeypatch):
    monkeypatch.chdir(cwd)
    return [one.name for one in find_recordings(inputs, Asked("auto"))]


def test_folders_patterns_and_lists(folder, monkeypatch):
    at = {"cwd": folder, "monkeypatch": monkeypatch}
    assert names("clips", **at) == ["berta", "broken", "day1_anna", "day2_anna", "stills"]
    assert names("clips/day*/*.mp4", **at) == ["day1_anna", "day2_anna"]
    assert names("clips/**/anna.mp4", "clips/berta.mp4", **at) == [
        "day1_anna",
        "day2_anna",
        "berta",
    ]
    assert names("@list.txt", **at) == ["anna", "berta"]
    assert names("clips/stills/2.png", "clips/stills/10.png", **at) == ["pictures"]
    assert names("clips/berta.mp4", "clips/../clips/berta.mp4", **at) == ["berta"]
    with pytest.raises(MediaError, match=r"Nothing matches clips/\*\.mov"):
        names("clips/*.mov", **at)


def test_names_that_differ_in_suffix_or_case_alone(tmp_path, monkeypatch):
    for name in ("a.mp4", "a.mov", "A.avi"):
        (tmp_path / name).write_bytes(b"x")
    found = names(".", cwd=tmp_path, monkeypatch=monkeypatch)
    assert len({name.lower() for name in found}) == 3


def test_a_list_says_who_and_which_reference(folder, monkeypatch):
    monkeypatch.chdir("/")
    found = find_recordings([f"@{folder / 'list.csv'}"], Asked("auto"))
    assert [one.person for one in found] == ["anna", "anna", "berta"]
    assert [str(one.reference) for one in found] == [str(folder / "neutral.png"), "frame:2", "auto"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("clip,who\nx,y\n", "must have the columns video"),
        ("video\n", "has no rows"),
        ("video,person\n,anna\n", "line 2: the cell of video is empty"),
        ("video\nabsent.mp4\n", "doesn't exist"),
        ("video,person\nclips/berta.mp4,a\nclips/berta.mp4,b\n", "named twice"),
    ],
)
def test_bad_lists(folder, tmp_path, text, words):
    (folder / "bad.csv").write_text(text)
    with pytest.raises((ConfigError, MediaError), match=words):
        find_recordings([f"@{folder / 'bad.csv'}"], Asked("auto"))


@pytest.mark.parametrize("text", ["0/3", "4/3", "x", "1", "1/0", "-1/3"])
def test_bad_shares(text):
    with pytest.raises(ConfigError, match="3/64"):
        parse_shard(text)


@pytest.fixture(scope="module")
def whole(folder, model, tmp_path_factory):
    """Every table of the folder, made in one process."""
    output = tmp_path_factory.mktemp("tables")
    reference = Asked("picture", str(folder / "neutral.png"))
    recordings = find_recordings([str(folder / "clips")], reference)
    done = predict_many(recordings, output, model=ModelChoice(model))
    return output, done


def tables(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in sorted(folder.glob("*.csv"))}


def test_a_broken_file_costs_itself_alone(whole):
    output, done = whole
    summary = pd.read_csv(output / "summary.csv", keep_default_na=False)
    assert list(summary["table"]) == [one.work.output.name for one in done]
    assert list(summary["status"]) == ["complete", "failed", "complete", "complete", "complete"]
    assert list(summary["frames"]) == [2, 0, 3, 4, 2]
    assert "neither an image nor a video" in summary["warnings"][1]
    assert sorted(f.stem for f in output.glob("*.csv")) == [
        *("berta", "day1_anna", "day2_anna", "stills", "summary"),
    ]
    assert list(pd.read_csv(output / "stills.csv")["file"]) == ["2.png", "10.png"]


def test_a_second_clip_costs_little_beyond_its_frames(folder, tmp_path):
    """Models and references of a command are loaded once; processor time of all threads."""
    reference = Asked("picture", str(folder / "neutral.png"))
    first, second = find_recordings(
        [str(folder / "clips" / day / "anna.mp4") for day in ("day1", "day2")], reference
    )
    choice = ModelChoice()
    predict_many([first], tmp_path / "first", model=choice)
    started = time.process_time()
    predict_many([second], tmp_path / "second", model=choice)
    whole = time.process_time() - started
    person = _shared_reference(reference, choice)
    started = time.process_time()
    known = (person.features, person.measures, person.identity)
    list(_predictor(choice).results(open_media(list(second.inputs)), *known))
    beyond = whole - (time.process_time() - started)
    assert beyond < 0.3


def test_processes_and_shares_give_the_same_bytes(whole, folder, run, tmp_path):  # noqa: F811
    clips = folder / "clips"
    told = ("--reference", folder / "neutral.png", "-o", tmp_path)
    for share in ("1/2", "2/2"):
        code, out, err = run(clips, *told, "--shard", share, "--jobs", 2)
        assert (code, out) == (1 if share == "2/2" else 0, "")
    assert "broken.mp4" in err
    found, expected = tables(tmp_path), tables(whole[0])
    assert {"summary-1-of-2.csv", "summary-2-of-2.csv"} <= set(found)
    assert {k: v for k, v in found.items() if "summary" not in k} == {
        k: v for k, v in expected.items() if "summary" not in k
    }
    code, _, err = run(clips, *told)
    assert code == 2
    assert "--resume" in err
    code, _, err = run(clips, *told, "--resume")
    assert code == 1
    assert "(4 were complete)" in err
    assert (tmp_path / "summary.csv").read_bytes() == (whole[0] / "summary.csv").read_bytes()


def test_without_a_reference_nothing_is_begun(run, tmp_path):  # noqa: F811
    code, _, err = run("@list.csv", "-o", tmp_path / "out")
    assert code == 2
    assert "1 of 3 recordings have no reference (berta" in err
    assert not (tmp_path / "out").exists()
    code, _, err = run("@list.csv", "-o", tmp_path / "out.csv", "--reference", "auto")
    assert code == 2
    assert "@list is for many recordings" in err


def test_somebody_elses_table_stops_all(run, tmp_path):  # noqa: F811
    (tmp_path / "day2_anna.csv").write_text("mine")
    code, _, err = run("clips", "--reference", "neutral.png", "-o", tmp_path, "--overwrite")
    assert code == 2
    assert "siamcal didn't write it" in err
    assert [f.name for f in tmp_path.iterdir()] == ["day2_anna.csv"]


@pytest.mark.slow
def test_kill_9_and_resume_give_the_same_bytes(whole, folder, model, tmp_path):
    command = [sys.executable, "-m", "siamcal", "predict", str(folder / "clips"), "--model", model]
    command += ["--reference", str(folder / "neutral.png"), "-o", str(tmp_path), "--resume"]
    for moment in range(2):
        child = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("*.json"))) <= moment and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 1, ended.stderr
    found, expected = tables(tmp_path), tables(whole[0])
    assert found == expected
    assert json.loads((tmp_path / "berta.json").read_text())["status"] == "complete"


def test_ray_gives_the_same_bytes(whole, folder, model, tmp_path):
    pytest.importorskip("ray")
    reference = Asked("picture", str(folder / "neutral.png"))
    recordings = find_recordings([str(folder / "clips")], reference)
    done = predict_many(recordings, tmp_path, model=ModelChoice(model), engine="ray", jobs=2)
    assert sum(bool(one.error) for one in done) == 1
    assert tables(tmp_path) == tables(whole[0])
