"""What a run writes never destroys what is there."""

import hashlib
import json
import os
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_inference import make_calibrator
from test_inference_cli import run  # noqa: F401
from videos import head, moved_frames, write_video

from siamcal.errors import ConfigError, SiamcalError
from siamcal.faces.media import open_media
from siamcal.inference import Predictor, load_model, predict_to_table, read_reference
from siamcal.inference.outputs import check_outputs


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(make_calibrator(tmp_path_factory.mktemp("calibrator")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    Image.fromarray(head()).save(folder / "neutral.png")
    write_video(folder / "clip.mp4", moved_frames(4))
    (folder / "pictures").mkdir()
    for number in range(3):
        Image.fromarray(head()).save(folder / "pictures" / f"{number}.png")
    return folder


def digests(*places):
    files = [f for place in places for f in sorted(place.rglob("*")) if f.is_file()]
    return {f: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


COMMAND = ("clip.mp4", "--reference", "neutral.png")


class TestNothingIsDestroyed:
    @pytest.fixture(autouse=True)
    def _unharmed(self, folder, tmp_path):
        (tmp_path / "mine.csv").write_text("subject,age\n1,30\n")
        (tmp_path / "mine.json").write_text('{"subject": 1}')
        (tmp_path / "mine.siamcal").write_bytes(b"a letter")
        os.link(folder / "clip.mp4", tmp_path / "linked.csv")
        (tmp_path / "pointing.csv").symlink_to(folder / "neutral.png")
        before = digests(folder, tmp_path)
        yield
        assert digests(folder, tmp_path) == before

    @pytest.mark.parametrize("extra", [(), ("--overwrite",), ("--resume",)])
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (("-o", "{tmp}/mine.csv"), "siamcal didn't write it"),
            (("-o", "{tmp}/sub/../mine.csv"), "siamcal didn't write it|can't be made"),
            (("-o", "{tmp}/linked.csv"), "is an input"),
            (("-o", "{tmp}/pointing.csv"), "is an input"),
            (("-o", "{tmp}/a.csv", "--save-profile", "clip.mp4"), "is an input"),
            (("-o", "{tmp}/a.csv", "--save-profile", "neutral.png"), "is an input"),
            (("-o", "{tmp}/a.csv", "--save-profile", "{tmp}/mine.siamcal"), "didn't write it"),
            (("-o", "{tmp}/a.csv", "--save-profile", "{tmp}/a.csv"), "share the file"),
            (("-o", "{tmp}/a.csv", "--save-profile", "{tmp}/a.json"), "share the file"),
        ],
    )
    def test_files_of_others(self, run, tmp_path, options, words, extra):  # noqa: F811
        (tmp_path / "mine.json").rename(tmp_path / "kept.json")
        given = [text.format(tmp=tmp_path) for text in options]
        try:
            code, out, err = run(*COMMAND, *given, *extra)
        finally:
            (tmp_path / "kept.json").rename(tmp_path / "mine.json")
        assert (code, out) == (2, "")
        assert re.search(words, err)

    def test_a_json_file_where_the_sidecar_would_lie(self, run, tmp_path):  # noqa: F811
        (tmp_path / "mine.csv").rename(tmp_path / "kept.csv")
        code, _, err = run(*COMMAND, "-o", tmp_path / "mine.csv", "--overwrite")
        assert code == 2
        assert "mine.json is there already, and siamcal didn't write it" in err
        assert not (tmp_path / "mine.csv").exists()
        (tmp_path / "kept.csv").rename(tmp_path / "mine.csv")

    def test_pictures_of_the_folder_that_is_read(self, run):  # noqa: F811
        code, _, err = run(
            "pictures", "--reference", "neutral.png", "-o", "pictures/0.csv", "--save-profile",
            "pictures/1.png",
        )  # fmt: skip
        assert code == 2
        assert "1.png is an input" in err


def test_own_tables_are_replaced_when_asked(run, tmp_path):  # noqa: F811
    output = tmp_path / "new" / "folders" / "aus.csv"
    assert run(*COMMAND, "-o", output)[0] == 0
    first = output.read_bytes()
    code, _, err = run(*COMMAND, "-o", output)
    assert code == 2
    assert "--overwrite replaces it" in err
    assert run(*COMMAND, "-o", output, "--overwrite")[0] == 0
    assert output.read_bytes() == first
    # A table that was worked on since is the user's.
    output.write_text(output.read_text() + "9,0,,,,\n")
    code, _, err = run(*COMMAND, "-o", output, "--overwrite")
    assert code == 2
    assert "changed since" in err


def test_resume_keeps_a_complete_table_of_the_same_request(run, tmp_path):  # noqa: F811
    output = tmp_path / "aus.csv"
    assert run(*COMMAND, "-o", output)[0] == 0
    written = output.stat().st_mtime_ns
    code, _, err = run(*COMMAND, "-o", output, "--resume")
    assert code == 0
    assert "complete already" in err
    assert output.stat().st_mtime_ns == written
    code, _, err = run(*COMMAND, "-o", output, "--resume", "--every", "2")
    assert code == 0
    assert len(output.read_text().splitlines()) == 3


def test_an_empty_file_is_no_loss(run, tmp_path):  # noqa: F811
    (tmp_path / "aus.csv").touch()
    assert run(*COMMAND, "-o", tmp_path / "aus.csv")[0] == 0


def test_a_full_disk_leaves_whole_rows_and_says_so(model, folder, tmp_path, monkeypatch):
    from siamcal.inference.formats.csv import CsvWriter

    rows = []

    def write(self, row):
        rows.append(row)
        self.file.write(b"1,0,0.0" if len(rows) > 2 else b"1,2,3\n")
        if len(rows) > 2:
            self.file.flush()
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(CsvWriter, "write", write)
    output = tmp_path / "aus.csv"
    with Predictor(load_model(model)) as predictor:
        person = read_reference(folder / "neutral.png", predictor)
        with pytest.raises(ConfigError, match="No space left"):
            predict_to_table(
                open_media(folder / "clip.mp4"), output, predictor=predictor, reference=person
            )
    assert output.read_text().splitlines()[1:] == ["1,2,3", "1,2,3"]
    assert json.loads((tmp_path / "aus.json").read_text())["status"] == "failed"


def test_parquet_holds_what_csv_holds(run, tmp_path):  # noqa: F811
    code, _, _ = run("pictures", "--reference", "neutral.png", "-o", tmp_path / "a.parquet")
    assert code == 0
    assert run("pictures", "--reference", "neutral.png", "-o", tmp_path / "a.csv")[0] == 0
    one, other = pd.read_parquet(tmp_path / "a.parquet"), pd.read_csv(tmp_path / "a.csv")
    assert list(one.columns) == list(other.columns)
    assert list(one["file"]) == ["0.png", "1.png", "2.png"]
    numbers = one.select_dtypes("number").columns
    assert np.array_equal(one[numbers].to_numpy(float), other[numbers].to_numpy(float))


def test_folders_that_cannot_be_made_are_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SiamcalError, match="can't be made"):
        check_outputs([(tmp_path / "file" / "a.csv", lambda _: False)], [])


def test_a_plot_lies_beside_the_table(run, tmp_path):  # noqa: F811
    code, _, _ = run(*COMMAND, "-o", tmp_path / "aus.csv", "--plot")
    assert code == 0
    with Image.open(tmp_path / "aus.png") as image:
        assert image.info["Software"] == "siamcal predict"
        drawn = np.asarray(image.convert("RGB"), np.int16)
    # Twelve curves in the colour of readings.
    reading = np.abs(drawn - (0x1F, 0x6F, 0x8B)).max(2) < 40
    assert (np.diff(reading.any(1).astype(int)) == 1).sum() >= 12
    assert run(*COMMAND, "-o", tmp_path / "aus.csv", "--plot", "--overwrite")[0] == 0
    Image.fromarray(head()).save(tmp_path / "aus.png")
    code, _, err = run(*COMMAND, "-o", tmp_path / "aus.csv", "--plot", "--overwrite")
    assert code == 2
    assert "aus.png is there already, and siamcal didn't write it" in err
