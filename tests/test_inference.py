"""From frames of one person to a table: complete, consistent, and never lost."""

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from videos import astronaut, head, moved_frames, write_video

import siamcal.cli
from siamcal import create_backbone
from siamcal.calibrators.saving import CalibratorConfig, load_calibrator, save_calibrator
from siamcal.errors import ConfigError, FaceNotFoundError, MediaError, NeutralFrameError
from siamcal.faces import FacePipeline
from siamcal.faces.media import Frame, FrameStream, open_media
from siamcal.inference import (
    FrameResult,
    Predictor,
    choose_reference,
    load_model,
    load_profile,
    predict_to_table,
    read_reference,
    save_profile,
)
from siamcal.inference.formats.csv import CsvWriter
from siamcal.inference.references import reference_frame
from siamcal.inference.table import AURows
from siamcal.model.heads import drawn_to_zero, make_head
from siamcal.model.siamese import CalibratingSiamese
from siamcal.preprocessing import Preprocessing
from siamcal.registry import table_formats

AUS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
torch.set_num_threads(1)


def make_calibrator(folder, task="intensity", seed=0, **facts):
    """An untrained calibrator whose outputs fill the range of intensities."""
    torch.manual_seed(seed)
    head_module = make_head(task, len(AUS))
    network = create_backbone("ir_tiny", num_outputs=head_module.num_outputs)
    last = [m for m in network.modules() if isinstance(m, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.bias.copy_(torch.linspace(-1, 6, last.out_features))
        if task == "detection":
            last.bias.copy_(torch.linspace(-2, 2, last.out_features))
        last.weight.mul_(20)
    model = CalibratingSiamese(network.eval(), "layer4", head=head_module)
    config = CalibratorConfig(
        merge_at="layer4",
        task=task,
        aus=AUS,
        training_data="computer graphics",
        rendered=True,
        preprocessing=Preprocessing(size=112),
        **facts,
    )
    save_calibrator(model, config, folder)
    return folder


@pytest.fixture(scope="module")
def calibrator(tmp_path_factory):
    return make_calibrator(tmp_path_factory.mktemp("calibrator"))


@pytest.fixture(scope="module")
def predictor(calibrator):
    with Predictor(load_model(calibrator), batch_size=4) as predictor:
        yield predictor


@pytest.fixture(scope="module")
def neutral(tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "neutral.png"
    Image.fromarray(head()).save(path)
    return path


@pytest.fixture(scope="module")
def reference(neutral, predictor):
    return read_reference(neutral, predictor)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", moved_frames(10))


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def written(aus, thresholds, task, *rows, **options):
    """Rows of (frame, timestamp, confidence, values), through CSV and back."""
    file, table = io.BytesIO(), AURows(aus, thresholds, task, **options)
    writer = CsvWriter(file, table.columns)
    for number, timestamp, confidence, values in rows:
        writer.write(table.row(FrameResult(number - 1, timestamp, "a.png", values, confidence)))
    writer.close()
    return rows_of(file.getvalue().decode())


def stream_of(frames, kind="video"):
    return FrameStream(kind, ("memory",), None, 25.0, iter(frames))


def frame(index, rgb, problem=""):
    return Frame(index, index / 25, rgb, "memory", problem)


@pytest.mark.parametrize("packaged", [False, True])
def test_every_frame_against_each_of_some_is_what_one_reference_after_another_gives(
    packaged, predictor
):
    used = Predictor(load_model()) if packaged else predictor
    crops = np.stack([used.pipeline.crop(rgb) for rgb in moved_frames(6)])
    found = used.read_each(crops, [4, 1], raw=True)
    expected = [used.read(crops, used.encode(crops[place])) for place in (4, 1)]
    expected += [used.read(crops, None)] if used.reads_raw else []
    assert used.reads_raw == packaged
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(found[0] - found[1]).max() > 1e-2


@pytest.mark.parametrize("packaged", [False, True])
def test_what_is_read_of_the_reference_against_itself_is_taken_off(packaged, calibrator):
    model = load_model() if packaged else load_calibrator(calibrator).eval()
    model.config = replace(model.config, zero_at_reference=True, soft_zero=0.0)
    with Predictor(model) as used:
        crops = np.stack([used.pipeline.crop(rgb) for rgb in moved_frames(4)])
        reference = used.encode(crops[0])
        images = used.config.preprocessing.to_tensor(crops)
        with torch.inference_mode():
            plain = model(images, images[:1]).intensity.numpy()  # the network without a Predictor
        expected = plain - np.maximum(plain[0], 0)
        np.testing.assert_allclose(used.read(crops, reference), expected, atol=2e-3)
        assert np.clip(used.read(crops[:1], reference), 0, 5).max() < 2e-3
        assert plain[0].max() > 1e-2  # or nothing was tested
        own, raw = used.read_both(crops, reference)
        np.testing.assert_allclose(own, expected, atol=2e-3)
        if raw is not None:
            np.testing.assert_array_equal(raw, used.read(crops, None))
        model.config = replace(model.config, zero_at_reference=False)
    with Predictor(model) as used:
        np.testing.assert_allclose(used.read(crops, reference), plain, atol=2e-3)


def test_rest_is_mapped_to_zero_and_the_top_of_the_range_stays(calibrator, tmp_path):
    """Saved so; against the network without a Predictor and the formula, number by number."""
    load_calibrator(calibrator).save_pretrained(tmp_path, rest_to_zero=True)
    model = load_calibrator(tmp_path).eval()
    with Predictor(model) as used:
        crops = np.stack([used.pipeline.crop(rgb) for rgb in moved_frames(4)])
        reference = used.encode(crops[0])
        images = used.config.preprocessing.to_tensor(crops)
        with torch.inference_mode():
            plain = model(images, images[:1]).intensity.numpy()
        found = used.read(crops, reference)
    for own, read in zip(plain.T, found.T, strict=True):
        rest = own[0]
        mapped = [(x - rest) * 5 / (5 - rest) if x > rest else x - rest for x in own]
        np.testing.assert_allclose(read, np.clip(mapped, 0, 5), atol=2e-3)
    assert found[1:].max() > 0.05  # or nothing was tested


def test_what_is_near_zero_is_drawn_to_it_and_keeps_its_order(calibrator):
    model = load_calibrator(calibrator).eval()
    with Predictor(model) as used:
        crops = np.stack([used.pipeline.crop(rgb) for rgb in moved_frames(4)])
        reference = used.encode(crops[0])
        used.config = replace(model.config, soft_zero=0.0)
        plain, raw = used.read_both(crops, reference)
        used.config = replace(model.config, soft_zero=0.25)
        soft, raw_too = used.read_both(crops, reference)
    expected = np.sign(plain) * plain**2 / (np.abs(plain) + 0.25)
    np.testing.assert_allclose(soft, expected, atol=1e-6)
    assert np.abs(soft - plain).max() > 0.01
    for au in range(plain.shape[1]):
        assert (np.diff(soft[np.argsort(plain[:, au]), au]) >= 0).all()
    np.testing.assert_array_equal(raw, raw_too)  # without a reference nothing is drawn anywhere
    large = drawn_to_zero(np.array([0.25, 5.0, -5.0]), 0.25)
    np.testing.assert_allclose(large, [0.125, 5 - 0.238, 0.238 - 5], atol=1e-3)


def test_only_intensities_are_taken_off(calibrator):
    config = load_calibrator(calibrator).config
    with pytest.raises(ConfigError, match="zero_at_reference is for intensities"):
        replace(config, task="detection", zero_at_reference=True)
    with pytest.raises(ConfigError, match="zero_at_reference"):
        replace(config, zero_at_reference=1)
    with pytest.raises(ConfigError, match="rest_to_zero is for intensities"):
        replace(config, task="detection", zero_at_reference=False, rest_to_zero=True)
    with pytest.raises(ConfigError, match="set one to False"):
        replace(config, zero_at_reference=True, rest_to_zero=True)
    with pytest.raises(ConfigError, match="soft_zero is for intensities"):
        replace(config, task="detection", zero_at_reference=False, soft_zero=0.1)
    with pytest.raises(ConfigError, match="soft_zero"):
        replace(config, soft_zero=1.5)


# --- the table -----------------------------------------------------------------------------------


def test_columns_are_openfaces(predictor, reference, clip, tmp_path):
    predict_to_table(open_media(clip), tmp_path / "a.csv", predictor=predictor, reference=reference)
    with (tmp_path / "a.csv").open() as file:
        header = file.readline().strip()
    assert header == (
        "frame,face_id,timestamp,confidence,success,"
        "AU01_r,AU02_r,AU04_r,AU05_r,AU06_r,AU09_r,AU12_r,AU15_r,AU17_r,AU20_r,AU25_r,AU26_r,"
        "AU01_c,AU02_c,AU04_c,AU05_c,AU06_c,AU09_c,AU12_c,AU15_c,AU17_c,AU20_c,AU25_c,AU26_c,"
        "yaw,pitch,roll,eye_opening,occlusion,sharpness,face_size,brightness,quality"
    )


def test_every_frame_of_a_video_is_a_row(predictor, reference, clip, tmp_path):
    import pandas as pd

    output = tmp_path / "aus.csv"
    summary = predict_to_table(open_media(clip), output, predictor=predictor, reference=reference)
    assert (summary.status, summary.frames, summary.successes) == ("complete", 10, 10)
    table = pd.read_csv(output)
    assert list(table.frame) == list(range(1, 11))
    assert np.allclose(table.timestamp, np.arange(10) / 25, atol=1e-3)
    assert (table.success == 1).all()
    assert (table.face_id == 0).all()
    assert table.confidence.between(0.5, 1).all()
    intensities = table.filter(regex="_r$").to_numpy()
    assert intensities.min() >= 0
    assert intensities.max() <= 5
    assert intensities.std(0).max() > 0.01
    present = table.filter(regex="_c$").to_numpy()
    assert np.array_equal(present == 1, intensities >= 2)
    assert set(np.unique(present)) == {0, 1}


@pytest.mark.parametrize(
    "value", [1.9994, 1.9995, 1.99951, 1.9996, 2.0, 2.0004, np.nextafter(2, 0)]
)
def test_presence_never_contradicts_the_written_intensity(value):
    row_of_frame = (1, 0.0, 1.0, np.array([value, -value]))
    (row,) = written([1, 12], [2.0, 2.0], "intensity", row_of_frame)
    assert row["AU01_c"] == str(int(float(row["AU01_r"]) >= 2))
    assert (row["AU12_r"], row["AU12_c"]) == ("0.000", "0")


def test_the_table_clips_to_the_scale_and_knows_thresholds():
    first, second = written(
        [1, 12, 43],
        [2.0, 2.0, 1.0],
        "intensity",
        (1, 0.0, 1.0, np.array([7.3, -0.0, 1.2])),
        (2, 0.04, 0.0, None),
    )
    assert [first[k] for k in ("AU01_r", "AU12_r", "AU43_r")] == ["5.000", "0.000", "1.200"]
    assert [first[k] for k in ("AU01_c", "AU12_c", "AU43_c")] == ["1", "0", "1"]
    assert second["success"] == "0"
    assert all(v == "" for k, v in second.items() if k.startswith("AU"))


def test_a_detection_calibrator_gives_presence_alone(tmp_path, neutral, clip):
    folder = make_calibrator(tmp_path / "detection", "detection")
    with Predictor(load_model(folder)) as predictor:
        person = read_reference(neutral, predictor)
        file = io.BytesIO()
        predict_to_table(open_media(clip), file, predictor=predictor, reference=person)
        logits = [r.values for r in predictor.results(open_media(clip), person.features)]
    rows = rows_of(file.getvalue().decode())
    assert not any(name.endswith("_r") for name in rows[0])
    present = [[int(row[f"AU{au:02d}_c"]) for au in AUS] for row in rows]
    assert np.array_equal(np.array(present), np.stack(logits) >= 0)
    assert 0 < np.mean(present) < 1


def test_a_logit_of_zero_is_present_in_the_table_as_in_the_metrics():
    (row,) = written([1, 2, 4], [2.0] * 3, "detection", (1, 0.0, 1.0, np.array([0.0, 1e-6, -1e-6])))
    assert [row[f"AU{au:02d}_c"] for au in (1, 2, 4)] == ["1", "1", "0"]


# Made by the writer of CSV before it was one format of several.
CSV = """\
frame,face_id,timestamp,confidence,success,AU01_r,AU12_r,AU01_c,AU12_c
1,0,0.000,0.988,1,2.000,0.000,1,0
2,0,0.040,0.000,0,0,0,0,0
3,0,12.346,1.000,1,5.000,1.999,1,0
"""


def test_openfaces_csv_is_written_to_the_byte():
    file, table = io.BytesIO(), AURows([1, 12], [2.0, 2.0], "intensity", openface=True)
    writer = CsvWriter(file, table.columns)
    for number, time, confidence, values in (
        (1, 0.0, 0.98765, np.array([1.9996, -3.0], np.float32)),
        (2, 0.04, 0.0, None),
        (3, 12.3456, 1.0, np.array([5.7, 1.9994], np.float32)),
    ):
        writer.write(table.row(FrameResult(number - 1, time, "a.mp4", values, confidence)))
    writer.close()
    assert file.getvalue().decode() == CSV


class LinesWriter:
    """Lines of JSON."""

    def __init__(self, file, columns):
        self.file, self.columns, self.flushed, self.closed = file, columns, 0, False
        LinesWriter.last = self

    def write(self, row):
        typed = zip(self.columns.items(), row, strict=True)
        told = {name: "" if value is None else kind(value) for (name, kind), value in typed}
        self.file.write(json.dumps(told).encode() + b"\n")

    def flush(self):
        self.flushed += 1
        self.file.flush()

    def close(self):
        self.closed = True


@pytest.fixture
def lines(monkeypatch):
    known = {**table_formats._entries, "csv": CsvWriter}
    monkeypatch.setattr(table_formats, "_entries", known)
    table_formats.register("jsonl")(LinesWriter)
    return LinesWriter


def test_a_format_registered_at_run_time_writes_the_table(
    lines, predictor, reference, tmp_path, capsys, monkeypatch
):
    frames = [frame(index, head()) for index in range(8)] + [frame(8, np.zeros_like(head()))]
    output = tmp_path / "aus.JSONL"
    predict_to_table(stream_of(frames), output, predictor=predictor, reference=reference)
    csv_output = tmp_path / "aus.csv"
    predict_to_table(stream_of(frames), csv_output, predictor=predictor, reference=reference)
    told = [json.loads(line) for line in output.read_text().splitlines()]
    expected = rows_of(csv_output.read_text())
    assert [list(row) for row in told] == [list(row) for row in expected]
    as_text = [[f"{v:.3f}" if isinstance(v, float) else str(v) for v in r.values()] for r in told]
    assert as_text == [list(row.values()) for row in expected]
    assert lines.last.closed
    assert lines.last.flushed >= 2  # batch by batch, not at the end alone
    assert json.loads((tmp_path / "aus.JSONL.json").read_text())["status"] == "complete"

    monkeypatch.setattr(sys, "argv", ["siamcal", "ls", "formats"])
    with pytest.raises(SystemExit) as stop:
        siamcal.cli.main()
    assert not stop.value.code
    listed = capsys.readouterr().out
    assert "jsonl" in listed
    assert "Lines of JSON." in listed
    assert "Comma-separated" in listed


def test_an_unknown_format_is_answered_with_the_known_ones(lines, predictor, reference, tmp_path):
    with pytest.raises(ConfigError, match=r"\.csv, \.jsonl or \.parquet, but .*aus\.xyz"):
        predict_to_table(
            stream_of([]), tmp_path / "aus.xyz", predictor=predictor, reference=reference
        )
    assert not list(tmp_path.iterdir())


# --- values --------------------------------------------------------------------------------------


def test_the_reference_itself_gives_the_same_vector_for_every_picture(predictor, tmp_path):
    """At layer4 equal inputs leave a difference of zero, whatever the picture shows."""
    vectors = []
    for name, picture in (("a", head()), ("b", head()[:, ::-1]), ("c", astronaut())):
        Image.fromarray(np.ascontiguousarray(picture)).save(tmp_path / f"{name}.png")
        person = read_reference(tmp_path / f"{name}.png", predictor)
        (result,) = predictor.results(open_media(tmp_path / f"{name}.png"), person.features)
        vectors.append(result.values)
    assert np.allclose(vectors[0], vectors[1], atol=1e-4)
    assert np.allclose(vectors[0], vectors[2], atol=1e-4)


def test_values_do_not_depend_on_the_batch(calibrator, predictor, reference, clip):
    whole = [r.values for r in predictor.results(open_media(clip), reference.features)]
    single = Predictor(predictor.model, batch_size=1, pipeline=predictor.pipeline)
    alone = [r.values for r in single.results(open_media(clip), reference.features)]
    assert np.allclose(np.stack(whole), np.stack(alone), atol=1e-3)


def test_values_equal_the_model_on_crop_and_reference(predictor, neutral, clip):
    person = read_reference(neutral, predictor)
    results = list(predictor.results(open_media(clip), person.features))
    frames = [f.rgb for f in open_media(clip)]
    convert = predictor.config.preprocessing.to_tensor
    reference = convert(predictor.pipeline.crop(head()))
    for index in (0, 7):
        target = convert(predictor.pipeline.crop(frames[index]))
        with torch.inference_mode():
            expected = predictor.model(target, reference).intensity[0].numpy()
        assert np.allclose(results[index].values, expected, atol=1e-3)


# --- frames that fail ----------------------------------------------------------------------------


def test_frames_without_face_broken_ones_and_crowds_are_flagged(predictor, reference, tmp_path):
    small = np.full((256, 512, 3), 60, np.uint8)
    small[:, :256] = head()
    small[20:236, 276:492] = head(216)
    frames = [
        frame(0, head()),
        frame(1, np.full((256, 256, 3), 99, np.uint8)),
        frame(2, None, "it can't be decoded (bits)"),
        frame(3, head(), "the decoder marks it as damaged"),
        frame(4, small),
        frame(5, head()),
    ]
    output = tmp_path / "aus.csv"
    summary = predict_to_table(stream_of(frames), output, predictor=predictor, reference=reference)
    rows = rows_of(output.read_text())
    assert [row["success"] for row in rows] == ["1", "0", "0", "0", "1", "1"]
    assert [row["confidence"] == "0.000" for row in rows] == [False, True, True, True, False, False]
    assert [row["frame"] for row in rows] == list("123456")
    assert summary.several_faces == 1
    told = json.loads((tmp_path / "aus.json").read_text())["result"]
    assert [f["frame"] for f in told["flagged"]] == [2, 3, 4, 5]
    assert told["problems"]["no face"] == 1
    assert any("1 frames: several faces" in w for w in told["warnings"])


def test_a_stream_without_any_face_is_a_table_of_failures_with_a_warning(
    predictor, reference, tmp_path
):
    blank = np.zeros((64, 64, 3), np.uint8)
    summary = predict_to_table(
        stream_of(frame(i, blank) for i in range(70)),
        tmp_path / "none.csv",
        predictor=predictor,
        reference=reference,
    )
    assert (summary.frames, summary.successes) == (70, 0)
    assert any("No frame has values" in w for w in summary.warnings)


def test_a_network_that_gives_nan_is_a_failure_not_a_number(predictor, reference, monkeypatch):
    def spoiled(crops, _):
        values = np.ones((len(crops), len(AUS)), np.float32)
        values[0, 3] = np.nan
        return values, None

    monkeypatch.setattr(predictor, "read_both", spoiled)
    results = list(predictor.results([frame(0, head()), frame(1, head())], reference.features))
    assert results[0].values is None
    assert "finite" in results[0].problem
    assert results[1].values is not None


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), "interrupted"), (MediaError("gone"), "failed")]
)
def test_what_was_read_before_a_stop_is_written(predictor, reference, tmp_path, error, status):
    def frames():
        for index in range(7):
            yield frame(index, head())
        raise error

    output = tmp_path / "aus.csv"
    run = lambda: predict_to_table(  # noqa: E731
        stream_of(frames()), output, predictor=predictor, reference=reference
    )
    if status == "failed":
        with pytest.raises(MediaError, match="gone"):
            run()
    else:
        assert run().status == "interrupted"
    assert [row["success"] for row in rows_of(output.read_text())] == ["1"] * 7
    told = json.loads((tmp_path / "aus.json").read_text())
    assert told["status"] == status
    assert told["result"]["frames"] == 7


@pytest.mark.slow
def test_a_killed_run_keeps_its_rows(calibrator, neutral, tmp_path):
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from videos import head
from siamcal.inference import *
from siamcal.faces.media import Frame, FrameStream
picture = head()
def frames():
    for index in range(40):
        yield Frame(index, index / 25, picture, "memory")
    os._exit(9)
with Predictor(load_model({str(calibrator)!r}), batch_size=4) as predictor:
    reference = read_reference({str(neutral)!r}, predictor)
    stream = FrameStream("video", ("memory",), None, 25.0, frames())
    import pathlib
    predict_to_table(stream, pathlib.Path({str(tmp_path / "aus.csv")!r}), predictor=predictor,
                   reference=reference)
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 9, run.stderr
    rows = rows_of((tmp_path / "aus.csv").read_text())
    assert len(rows) >= 28  # all but a batch of 4 and 2 * (2 + 1) frames read ahead
    assert all(row["success"] == "1" and row["AU26_c"] in "01" for row in rows)
    assert json.loads((tmp_path / "aus.json").read_text())["status"] == "running"


def test_a_video_shorter_than_it_says_is_reported(predictor, reference):
    stream = FrameStream("video", ("x",), 100, 25.0, iter([frame(0, head())]))
    summary = predict_to_table(stream, io.BytesIO(), predictor=predictor, reference=reference)
    assert any("announces 100 frames, but 1" in w for w in summary.warnings)


def test_an_output_that_cannot_be_written_is_an_error_in_words(predictor, reference, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="can't be made"):
        predict_to_table(
            stream_of([]), tmp_path / "file" / "a.csv", predictor=predictor, reference=reference
        )


# --- the sidecar ---------------------------------------------------------------------------------


def test_the_sidecar_says_what_made_the_table(tmp_path, neutral, clip):
    statuses = ("shown on real faces",) + ("experimental",) * 5 + ("not validated",) * 6
    folder = make_calibrator(tmp_path / "model", au_status=statuses)
    with Predictor(load_model(folder)) as predictor:
        person = read_reference(neutral, predictor)
        predict_to_table(
            open_media(clip), tmp_path / "aus.csv", predictor=predictor, reference=person
        )
    told = json.loads((tmp_path / "aus.json").read_text())
    assert told["status"] == "complete"
    assert "rendered" in told["calibrator"]["note"]
    assert told["calibrator"]["aus"][0] == {
        "au": 1,
        "name": "inner brow raiser",
        "threshold": 2.0,
        "status": "shown on real faces",
    }
    assert [au["status"] for au in told["calibrator"]["aus"]] == list(statuses)
    assert told["calibrator"]["preprocessing"]["align"] == "rigid"
    assert len(told["calibrator"]["weights_checksum"]) == 64
    assert told["reference"]["source"] == str(neutral)
    assert told["input"]["files"] == [str(clip)]
    assert told["environment"]["face_engine"].startswith("litert 2")
    assert any("a smile" in w for w in told["result"]["warnings"])
    assert not list(tmp_path.glob("*.partial"))


# --- references ----------------------------------------------------------------------------------


def test_bad_references_are_refused_in_words(predictor, tmp_path):
    Image.fromarray(np.full((80, 80, 3), 80, np.uint8)).save(tmp_path / "blank.png")
    (tmp_path / "text.png").write_text("x")
    with pytest.raises(FaceNotFoundError, match=r"blank\.png.*at rest, with open eyes"):
        read_reference(tmp_path / "blank.png", predictor)
    for name, words in (("text.png", "can't be read"), ("no.png", "doesn't exist"), ("", "folder")):
        with pytest.raises(MediaError, match=words):
            read_reference(tmp_path / name, predictor)


def test_a_frame_of_the_input_can_be_the_reference(predictor, clip, tmp_path):
    person = reference_frame([clip], predictor, 4)
    assert person.facts["frame"] == 4
    frames = [f.rgb for f in open_media(clip)]
    crop = predictor.pipeline.crop(frames[3])
    expected = predictor.encode(crop)
    assert torch.equal(person.features.tensors[0], expected.tensors[0])
    with pytest.raises(MediaError, match="has 10 frames; frame 11"):
        reference_frame([clip], predictor, 11)
    for name in ("a.png", "b.png"):
        Image.fromarray(head()).save(tmp_path / name)
    assert reference_frame([tmp_path], predictor, 2).facts["source"].endswith("b.png")
    with pytest.raises(MediaError, match="There are 2 images; 3"):
        reference_frame([tmp_path], predictor, 3)


def test_the_chosen_reference_has_no_hand_before_the_face(predictor, tmp_path):
    from test_faces import covered

    for index, picture in enumerate(moved_frames(8)):
        if index not in (5,):
            (face, *_) = predictor.pipeline.detect(picture)
            middle = face.landmarks[13, :2] + (0, 6)
            width = np.linalg.norm(face.landmarks[33] - face.landmarks[263])
            picture = covered(picture, middle, (int(0.6 * width), int(0.4 * width)))
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
    with pytest.raises(NeutralFrameError, match="7 times something seems to cover the mouth"):
        choose_reference([tmp_path], predictor)
    person = choose_reference([tmp_path], predictor, sound_only=False)
    assert person.facts["kind"] == "chosen automatically"
    assert any("chosen automatically" in w for w in person.warnings)
    # One open mouth that smiles among seven covered ones: typical is not the same as neutral, but
    # a covered face must never pass as sound.
    if person.facts["frame"] != 6:
        assert any("cover" in w for w in person.warnings)


@pytest.mark.parametrize("index", [1, 5])
def test_the_chosen_reference_is_the_neutral_frame(predictor, tmp_path, index):
    from rendered import RenderedPerson

    person = RenderedPerson(index)
    states = [
        ({12: 5.0}, {}),
        ({26: 5.0, 25: 4.0}, {}),
        ({1: 4.0, 2: 5.0}, {}),
        ({}, {"blink": 1.0}),
        ({}, {}),
        ({}, {"yaw": 30}),
        ({4: 5.0, 12: 2.0}, {}),
    ]
    for number, (actions, pose) in enumerate(states, start=1):
        Image.fromarray(person(actions, **pose)).save(tmp_path / f"{number}.png")
    assert choose_reference([tmp_path], predictor).facts["frame"] == 5


def test_choosing_needs_a_face(predictor, tmp_path):
    Image.fromarray(np.zeros((80, 80, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(FaceNotFoundError, match="no reference frame can be chosen"):
        choose_reference([tmp_path], predictor)


# --- profiles ------------------------------------------------------------------------------------


def test_a_profile_gives_the_same_values(predictor, reference, clip, tmp_path):
    path = tmp_path / "people" / "anna.safetensors"
    save_profile(reference, path, predictor)
    loaded = load_profile(path, predictor)
    assert torch.equal(loaded.features.tensors[0], reference.features.tensors[0])
    assert loaded.facts["source"] == reference.facts["source"]
    assert loaded.warnings == reference.warnings


def test_a_profile_belongs_to_its_calibrator(predictor, reference, tmp_path):
    path = tmp_path / "anna.safetensors"
    save_profile(reference, path, predictor)
    other = load_model(make_calibrator(tmp_path / "other", seed=1))
    with Predictor(other) as another, pytest.raises(ConfigError, match="another calibrator"):
        load_profile(path, another)
    changed = load_calibrator(make_calibrator(tmp_path / "same"))
    changed.config = replace(changed.config, preprocessing=Preprocessing(size=112, mask="none"))
    with Predictor(changed) as another, pytest.raises(ConfigError, match="preprocessing"):
        load_profile(path, another)


def test_a_profile_says_which_engine_found_its_face(predictor, reference, tmp_path):
    path = tmp_path / "anna.safetensors"
    save_profile(reference, path, predictor)
    pipeline = FacePipeline(predictor.config.preprocessing, "mediapipe")
    with Predictor(predictor.model, pipeline=pipeline) as another:
        loaded = load_profile(path, another)
    assert loaded.warnings[:-1] == reference.warnings
    assert "found by 'litert', this run's are by 'mediapipe'" in loaded.warnings[-1]


def test_damaged_profiles_are_refused_in_words(predictor, reference, tmp_path):
    path = tmp_path / "anna.safetensors"
    with pytest.raises(ConfigError, match="There is no profile"):
        load_profile(path, predictor)
    save_profile(reference, path, predictor)
    content = path.read_bytes()
    for broken in (b"", b"hello", content[:100], content[:-50]):
        path.write_bytes(broken)
        with pytest.raises(ConfigError, match=r"is no profile|damaged"):
            load_profile(path, predictor)
    reference.features.save(path)  # a bare Reference says nothing of its calibrator
    with pytest.raises(ConfigError, match="is no profile"):
        load_profile(path, predictor)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="can't be made"):
        save_profile(reference, tmp_path / "file" / "x.safetensors", predictor)


# --- models --------------------------------------------------------------------------------------


def test_the_task_must_be_the_calibrators(calibrator, tmp_path):
    assert load_model(calibrator, "intensity").config.task == "intensity"
    with pytest.raises(ConfigError, match="--task detection was asked for"):
        load_model(calibrator, "detection")
    detection = make_calibrator(tmp_path, "detection")
    with pytest.raises(ConfigError, match="does detection"):
        load_model(detection, "intensity")


def test_a_model_without_aus_is_refused(tmp_path):
    model = CalibratingSiamese(create_backbone("ir_tiny", num_outputs=4).eval(), "layer4")
    config = CalibratorConfig(merge_at="layer4", task="raw", aus=())
    save_calibrator(model, config, tmp_path)
    with pytest.raises(ConfigError, match="'raw'"):
        load_model(tmp_path)


def test_devices_that_are_not_there_are_named():
    from siamcal.inference.models import choose_device

    assert choose_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match="'cpu' always can"):
        choose_device("abacus")
