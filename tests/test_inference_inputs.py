"""Readings don't depend on how a person's picture was handed over, and live rows come at once."""

import csv
import io
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image
from test_inference import make_calibrator
from videos import head, moved_frames, write_video

from siamcal.errors import ConfigError, MediaError
from siamcal.faces.media import Frame, FrameStream, open_media
from siamcal.inference import (
    Predictor,
    choose_reference,
    load_model,
    predict_to_table,
    read_reference,
)
from siamcal.inference.references import reference_frame


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_calibrator(tmp_path_factory.mktemp("calibrator"))


@pytest.fixture(scope="module")
def predictor(model):
    with Predictor(load_model(model), batch_size=4) as predictor:
        yield predictor


@pytest.fixture(scope="module")
def reference(predictor):
    return read_reference(head(), predictor)


def table_of(*arguments, **keywords):
    output = io.BytesIO()
    summary = predict_to_table(*arguments, output, **keywords)
    return list(csv.DictReader(io.StringIO(output.getvalue().decode()))), summary


def test_arrays_files_and_streams_give_the_same(tmp_path, predictor, reference):
    frames = list(moved_frames(5))
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, rgb in enumerate(frames):
        Image.fromarray(rgb).save(folder / f"{number}.png")
    given = [frames, np.stack(frames), str(folder), folder, open_media(folder)]
    tables = [table_of(g, predictor=predictor, reference=reference)[0] for g in given]
    assert [row["success"] for row in tables[0]] == ["1"] * 5
    readings = [[v for name, v in row.items() if name[:2] == "AU"] for row in tables[0]]
    for table in tables:
        assert [[v for name, v in row.items() if name[:2] == "AU"] for row in table] == readings
    values = [result.values for result in predictor.results(frames, reference)]
    alike = [result.values for result in predictor.results(iter(frames), reference.features)]
    assert np.array_equal(values, alike)


def test_a_reference_is_a_picture_an_array_or_read_before(tmp_path, predictor, reference):
    Image.fromarray(head()).save(tmp_path / "neutral.png")
    expected, _ = table_of([head()], predictor=predictor, reference=reference)
    for given in (head(), tmp_path / "neutral.png", str(tmp_path / "neutral.png")):
        assert table_of([head()], predictor=predictor, reference=given)[0] == expected
    for wrong in (head(), "neutral.png", None):
        with pytest.raises(ConfigError, match="is made by"):
            next(predictor.results([head()], wrong))
    with pytest.raises(ConfigError, match="finds the face in a whole frame"):
        predictor.encode(head())
    with pytest.raises(ConfigError, match=r"\(H, W, 3\) of uint8"):
        read_reference(head() / 255, predictor)


def test_a_strings_output_is_a_file(tmp_path, predictor, reference):
    summary = predict_to_table(
        [head()], str(tmp_path / "aus.csv"), predictor=predictor, reference=reference
    )
    assert summary.status == "complete"
    assert len((tmp_path / "aus.csv").read_text().splitlines()) == 2
    assert json.loads((tmp_path / "aus.json").read_text())["input"]["files"] == ["arrays"]


def test_a_stream_read_before_leaves_no_complete_table(tmp_path, predictor, reference):
    stream = open_media([head()])
    list(stream)
    with pytest.raises(MediaError, match="were read already"):
        predict_to_table(stream, tmp_path / "a.csv", predictor=predictor, reference=reference)
    assert json.loads((tmp_path / "a.json").read_text())["status"] == "failed"


@pytest.mark.parametrize("kind", ["camera", "live"])
def test_a_live_frames_row_does_not_wait_for_others(predictor, reference, kind):
    rows = [threading.Event() for _ in range(3)]
    in_time = []

    def frames():
        for index in range(4):
            # The scene stands still until the row of the frame before is there.
            if index:
                in_time.append(rows[index - 1].wait(20))
            yield Frame(index, index / 25, head(), "camera:0")

    stream = FrameStream(kind, ("camera:0",), None, None, frames())
    for result, row in zip(predictor.results(stream, reference), rows, strict=False):
        assert result.values is not None
        row.set()
    assert in_time == [True] * len(in_time)
    assert len(in_time) >= 2


def test_notes_of_the_reader_reach_the_table(tmp_path, predictor, reference):
    part = write_video(tmp_path / "part.ts", moved_frames(4, 128)).read_bytes()
    (tmp_path / "twice.ts").write_bytes(part * 2)
    rows, summary = table_of(tmp_path / "twice.ts", predictor=predictor, reference=reference)
    assert [row["timestamp"] for row in rows] == [f"{i / 25:.3f}" for i in range(8)]
    assert any("start again at frame 5" in warning for warning in summary.warnings)


def test_the_first_of_several_frames_as_the_reference_is_said(tmp_path, predictor):
    clip = write_video(tmp_path / "clip.mp4", moved_frames(4))
    person = read_reference(clip, predictor)
    assert any("holds 4 frames; the first was taken" in w for w in person.warnings)
    assert not any("first was taken" in w for w in read_reference(clip, predictor, 0).warnings)


def test_a_page_can_be_the_reference(tmp_path, predictor):
    first, *others = [Image.fromarray(frame) for frame in moved_frames(3)]
    first.save(tmp_path / "a.tiff", save_all=True, append_images=others)
    first.save(tmp_path / "b.png")
    third = reference_frame([tmp_path], predictor, 3)
    assert third.facts["frame"] == 3
    assert third.facts["source"].endswith("a.tiff")
    assert reference_frame([tmp_path], predictor, 4).facts["source"].endswith("b.png")


def test_a_pipe_is_not_read_for_the_reference_before(tmp_path, predictor):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MediaError, match="can be read only once"):
        choose_reference([str(tmp_path / "pipe")], predictor)
    with pytest.raises(MediaError, match="can be read only once"):
        reference_frame(["-"], predictor, 1)


@pytest.mark.slow
def test_names_in_latin_1_go_through_the_command(tmp_path, model):
    clip, neutral, output = (os.fsdecode(n) for n in (b"M\xfc.mkv", b"ruh\xe9.png", b"t\xe4t.csv"))
    write_video(tmp_path / "clip.mkv", moved_frames(3)).rename(tmp_path / clip)
    Image.fromarray(head()).save(tmp_path / "neutral.png")
    (tmp_path / "neutral.png").rename(tmp_path / neutral)
    asked = ["predict", clip, "--reference", neutral, "-o", output, "--model", str(model), "--json"]
    command = [sys.executable, "-m", "siamcal", *asked]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert len((tmp_path / output).read_text().splitlines()) == 4
    told = json.loads((tmp_path / os.fsdecode(b"t\xe4t.json")).read_text())
    assert told["input"]["files"] == [clip]
    assert told["reference"]["source"] == neutral
