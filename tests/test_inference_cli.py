"""`siamcal predict` as a user runs it: every bad input ends in one clean message and code 2."""

import csv
import json
import os
import sys
import threading

import numpy as np
import pytest
from PIL import Image
from test_inference import make_calibrator
from videos import damage, head, moved_frames, write_video

import siamcal.cli


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(make_calibrator(tmp_path_factory.mktemp("calibrator")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One of every kind of input."""
    folder = tmp_path_factory.mktemp("inputs")
    still = Image.fromarray(head())
    still.save(folder / "neutral.jpg")
    write_video(folder / "clip.mp4", moved_frames(8))
    write_video(folder / "corrupt.mp4", moved_frames(12), g="4", bf="0")
    damage(folder / "corrupt.mp4", 6)
    write_video(folder / "nobody.mp4", [np.full((128, 128, 3), 90, np.uint8)] * 3)
    write_video(folder / "cut.mp4", moved_frames(8))
    (folder / "cut.mp4").write_bytes((folder / "cut.mp4").read_bytes()[:4000])
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("not a video")
    alpha = head(256)
    opaque = np.full((256, 256, 1), 255, np.uint8)
    Image.fromarray(np.concatenate([alpha, opaque], 2)).save(folder / "alpha.png")
    Image.fromarray(head()[..., 1]).save(folder / "grey.png")
    Image.fromarray(head()[..., 1].astype(np.uint16) * 257).save(folder / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 3
    still.rotate(180).save(folder / "turned.jpg", exif=exif, quality=95)
    pair = np.full((256, 512, 3), 60, np.uint8)
    pair[:, :256] = head()
    pair[20:236, 276:492] = head(216)
    Image.fromarray(pair).save(folder / "two.png")
    (folder / "many").mkdir()
    for number in (1, 2, 10):
        still.save(folder / "many" / f"{number}.png")
    (folder / "many" / "3.png").write_text("broken")
    (folder / "many" / "notes.txt").write_text("x")
    still.save(folder / "claims.png")
    (folder / "claims.png").rename(folder / "claims.mp4")
    return folder


@pytest.fixture
def run(monkeypatch, capsys, folder, model):
    def run(*arguments, with_model=True):
        given = [str(a) for a in arguments] + (["--model", model] if with_model else [])
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["siamcal", "predict", *given])
        code = 0
        try:
            siamcal.cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return run


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_video_with_a_reference(run, tmp_path):
    code, out, err = run("clip.mp4", "--reference", "neutral.jpg", "-o", tmp_path / "aus.csv")
    assert (code, out) == (0, "")
    assert "trained on rendered faces" in err
    assert "8 frames, 8 with values" in err
    assert "a smile" in err
    rows = table(tmp_path / "aus.csv")
    assert [row["success"] for row in rows] == ["1"] * 8
    assert json.loads((tmp_path / "aus.json").read_text())["status"] == "complete"


def test_a_pipe_is_read_where_it_is_named_alone(run, tmp_path):
    clip, pipe = write_video(tmp_path / "clip.mkv", moved_frames(3)), tmp_path / "pipe"
    os.mkfifo(pipe)
    threading.Thread(target=lambda: pipe.write_bytes(clip.read_bytes()), daemon=True).start()
    code, _, err = run(pipe, "--reference", "neutral.jpg", "-o", tmp_path / "aus.csv")
    assert code == 0, err
    assert [row["success"] for row in table(tmp_path / "aus.csv")] == ["1"] * 3
    for refused in (("clip.mp4", pipe), (pipe, "-o", f"{tmp_path / 'tables'}/")):
        code, _, err = run("--reference", "neutral.jpg", *refused)
        assert code == 2
        assert "is a pipe. One is read only where it is named alone" in err
    code, _, err = run("clip.mp4", "--reference", pipe, "-o", tmp_path / "b.csv")
    assert code == 2
    assert "is a pipe" in err


@pytest.mark.parametrize(
    "name", ["alpha.png", "grey.png", "deep.png", "turned.jpg", "claims.mp4", "neutral.jpg"]
)
def test_pictures_of_every_kind_have_a_face(run, tmp_path, name):
    # turned.jpg lies upside down: without its EXIF rotation no face would be found.
    code, _, _ = run(name, "--reference", "neutral.jpg", "-o", tmp_path / "aus.csv")
    assert code == 0
    (row,) = table(tmp_path / "aus.csv")
    assert row["success"] == "1"
    code, _, _ = run("neutral.jpg", "--reference", name, "-o", tmp_path / "again.csv")
    assert code == 0


@pytest.mark.parametrize(
    ("name", "flagged", "rows"), [("corrupt.mp4", "7", 12), ("two.png", "1", 1)]
)
def test_doubtful_frames_are_flagged(run, tmp_path, name, flagged, rows):
    code, _, err = run(name, "--reference", "neutral.jpg", "-o", tmp_path / "aus.csv")
    assert code == 0
    assert len(table(tmp_path / "aus.csv")) == rows
    told = json.loads((tmp_path / "aus.json").read_text())["result"]
    assert flagged in [str(f["frame"]) for f in told["flagged"]]
    assert "Warning:" in err


def test_nobody_in_the_video(run, tmp_path):
    code, _, err = run("nobody.mp4", "--reference", "neutral.jpg", "-o", tmp_path / "aus.csv")
    assert code == 0
    assert [row["success"] for row in table(tmp_path / "aus.csv")] == ["0"] * 3
    assert "No frame has values" in err


def test_a_folder_of_images(run, tmp_path):
    code, _, _ = run("many", "--reference", "many/1.png", "-o", tmp_path / "aus.csv")
    assert code == 0
    rows = table(tmp_path / "aus.csv")
    assert [row["success"] for row in rows] == ["1", "1", "0", "1"]
    told = json.loads((tmp_path / "aus.json").read_text())
    assert [f.rsplit("/")[-1] for f in told["input"]["files"]] == [
        *("1.png", "2.png", "3.png", "10.png")
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["empty.mp4", "--reference", "neutral.jpg"], "0 bytes"),
        (["text.mp4", "--reference", "neutral.jpg"], "neither an image nor a video"),
        (["cut.mp4", "--reference", "neutral.jpg"], "neither an image nor a video"),
        (["absent.mp4", "--reference", "neutral.jpg"], "doesn't exist"),
        (["clip.mp4", "clip.mp4", "--reference", "neutral.jpg"], "is a video among 2 inputs"),
        (["clip.mp4", "--reference", "absent.jpg"], "doesn't exist"),
        (["clip.mp4", "--plot", "sheet.png", "--reference", "neutral.jpg"], "take no path"),
        (["clip.mp4", "--reference", "empty.mp4"], "0 bytes"),
        (["clip.mp4", "--reference", "nobody.mp4"], "No face was found in the reference"),
        (["clip.mp4", "--reference-frame", "99"], "has 8 frames; frame 99"),
        (["nobody.mp4", "--reference", "auto"], "no reference frame can be chosen"),
        (["clip.mp4"], "None was given"),
        (["clip.mp4", "--reference", "neutral.jpg", "--reference-frame", "1"], "name one"),
        (["clip.mp4", "--profile", "absent.safetensors"], "There is no profile"),
        (["clip.mp4", "--profile", "neutral.jpg"], "is no profile"),
        (["clip.mp4", "--reference", "neutral.jpg", "--task", "detection"], "--task detection"),
        (["clip.mp4", "--reference", "neutral.jpg", "--device", "abacus"], "'cpu' always can"),
        (["camera:97", "--reference", "neutral.jpg"], "can't be opened"),
        (["camera:0", "--reference", "auto"], "can't be opened|no frames yet"),
        (["many/notes.txt", "--reference", "neutral.jpg"], "neither an image nor a video"),
        (["clip.mp4", "--reference", "neutral.jpg", "--candidates", "c.png"], "none is chosen so"),
        (["clip.mp4", "--reference", "auto", "--candidates", "c.jpg"], "draws a PNG"),
        (["clip.mp4", "--reference", "auto", "--candidates", "grey.png"], "didn't write it"),
        (
            ["clip.mp4", "--everyone", "--reference", "auto", "--candidates", "c.png"],
            "of one person; here none is chosen so",
        ),
    ],
    ids=lambda v: "_".join(v).replace("--", "") if isinstance(v, list) else "",
)
def test_bad_input_is_one_message_and_code_2(run, tmp_path, arguments, words):
    import re

    code, out, err = run(*arguments, "-o", tmp_path / "aus.csv")
    assert code == 2
    assert out == ""
    assert re.search(words, err)
    assert err.count("siamcal:") == 1
    # Nothing was written before the inputs were known to be good.
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "words"),
    [("aus.txt", "written as .csv"), ("clip.mp4", "as .csv")],
)
def test_bad_outputs(run, tmp_path, output, words):
    code, _, err = run("clip.mp4", "--reference", "neutral.jpg", "-o", tmp_path / output)
    assert code == 2
    assert words in err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_full_disk_is_an_error_in_words(run, tmp_path):
    (tmp_path / "aus.csv").symlink_to("/dev/full")
    code, _, err = run("clip.mp4", "--reference", "neutral.jpg", "-o", tmp_path / "aus.csv")
    assert code == 2
    assert "aus.csv can't be written (No space left on device)" in err


def test_without_output_the_table_goes_to_stdout(run):
    code, out, err = run("neutral.jpg", "--reference", "neutral.jpg")
    assert code == 0
    lines = out.strip().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("frame,face_id,timestamp")
    assert "Note:" in err


def test_json_summary(run, tmp_path):
    code, out, _ = run("clip.mp4", "--reference-frame", 2, "-o", tmp_path / "aus.csv", "--json")
    assert code == 0
    told = json.loads(out)
    assert (told["frames"], told["successes"], told["status"]) == (8, 8, "complete")
    code, _, err = run("clip.mp4", "--reference-frame", 2, "--json")
    assert code == 2
    assert "-o FILE" in err


def test_profiles_spare_the_reference(run, tmp_path):
    profile = tmp_path / "anna.safetensors"
    first = ["clip.mp4", "--reference", "neutral.jpg", "--save-profile", profile]
    assert run(*first, "-o", tmp_path / "a.csv")[0] == 0
    assert run("clip.mp4", "--profile", profile, "-o", tmp_path / "b.csv")[0] == 0
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()


def test_help_has_examples(run):
    code, out, _ = run("--help", with_model=False)
    assert code == 0
    assert "siamcal predict clip.mp4 --reference neutral.jpg -o aus.csv" in out
