"""The parts of `siamcal demo` without a browser; tests/test_demo_page.py drives one."""

import re
import socket
import sys

import cv2
import numpy as np
import pytest
import torch
from rendered import RenderedPerson
from test_inference import make_calibrator
from test_inference_cli import run  # noqa: F401
from videos import head, moved_frames, write_video

import siamcal.cli
from siamcal.calibrators.config import CalibratorConfig
from siamcal.calibrators.saving import save_calibrator
from siamcal.errors import ConfigError, FaceNotFoundError, NeutralFrameError
from siamcal.faces import FacePipeline
from siamcal.inference import Predictor, load_model, read_reference
from siamcal.inference.many import ModelChoice
from siamcal.model.create import create_backbone
from siamcal.model.heads import make_head
from siamcal.model.siamese import CalibratingSiamese
from siamcal.page.bars import bars, checklist
from siamcal.page.guidance import Check, Look, look_at
from siamcal.page.live import LiveReader, Reading, Sitting
from siamcal.page.recording import AUTO, RecordingReader
from siamcal.preprocessing import Preprocessing

AUS = (1, 12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    make_calibrator(folder / "model")
    cv2.imwrite(str(folder / "neutral.png"), head()[..., ::-1])
    write_video(folder / "clip.mp4", moved_frames(5))
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return str(folder / "model")


@pytest.fixture(scope="module")
def predictor(folder):
    with Predictor(load_model(folder / "model")) as predictor:
        yield predictor


@pytest.fixture(scope="module")
def pipeline():
    with FacePipeline() as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def person():
    return RenderedPerson(2, size=320)


def blurred(frame):
    return cv2.GaussianBlur(frame, (0, 0), 3.0)  # 4 % of this face's eyes' distance


def beside(frame):
    return np.hstack([frame, frame[:, ::-1]])


def masked(frame):
    return cv2.rectangle(frame.copy(), (85, 152), (240, 262), (200, 205, 210), -1)


BLACK = np.zeros((320, 320, 3), np.uint8)


@pytest.mark.parametrize(
    ("actions", "change", "bad"),
    [
        ({}, None, []),
        ({"actions": {6: 3, 12: 4}}, None, ["at rest"]),
        ({"yaw": 35.0}, None, ["straight"]),
        ({"blink": 1.0}, None, ["eyes open"]),
        ({}, blurred, ["sharp"]),
        ({}, beside, ["one face"]),
        ({}, lambda frame: cv2.resize(frame, (120, 120), interpolation=cv2.INTER_AREA), ["near"]),
        ({}, lambda frame: frame[:, : frame.shape[1] // 2 + 20], ["whole"]),
        ({}, masked, ["uncovered"]),
        ({}, lambda frame: BLACK, ["one face"]),
    ],
    ids=["sound", "smile", "turned", "shut", "blurred", "two", "far", "cut", "covered", "nobody"],
)  # fmt: skip
def test_guidance_says_what_is_wrong(person, pipeline, actions, change, bad):
    frame = person(**actions)
    look = look_at(frame if change is None else change(frame), pipeline)
    found = [check.name for check in look.checks if not check.good]
    assert set(bad) <= set(found)
    assert len(found) <= 3
    assert look.good is (not bad)
    assert all(bool(check.advice) is not check.good for check in look.checks)
    shown = checklist(look)
    assert ("Good as the neutral face." in shown) is look.good
    assert shown.count('class="bad"') == len(found)


def test_no_sentence_of_a_judgement_is_lost(person, pipeline, monkeypatch):
    """A sentence that guidance doesn't know stands as a point of its own."""

    class Judgement:
        problems = ("the nose is blue", "the eyes are shut or nearly so (eyeBlink 0.90)")

    monkeypatch.setattr("siamcal.page.guidance.judge_reference", lambda *_: Judgement)
    look = look_at(person(), pipeline)
    assert [c.advice for c in look.checks if not c.good] == [
        "open the eyes: the eyes are shut or nearly so (eyeBlink 0.90)",
        "the nose is blue",
    ]


def test_a_sitting_is_read_as_predict_reads(predictor):
    reader, sitting = LiveReader(predictor), Sitting()
    frames = list(moved_frames(3))
    with pytest.raises(ConfigError, match="start it first"):
        reader.take(sitting)
    before = reader.read(frames[0], sitting)
    assert before.calibrated is None
    assert before.look.face is not None
    person = reader.take(sitting)
    assert sitting.person is person
    assert np.array_equal(sitting.neutral, frames[0])
    live = [reader.read(frame, sitting).calibrated for frame in frames]
    expected = predictor.results(frames, read_reference(frames[0], predictor).features)
    for own, result in zip(live, expected, strict=True):
        np.testing.assert_allclose(own, result.values, atol=1e-4)
    assert reader.read(BLACK, sitting).calibrated is None
    with pytest.raises(FaceNotFoundError):
        reader.take(sitting)
    assert sitting.person is person  # the one before stays


def test_a_picture_is_a_neutral_face_too(predictor, folder):
    reader, sitting = LiveReader(predictor), Sitting()
    reader.take_file(folder / "neutral.png", sitting)
    assert np.array_equal(sitting.neutral, head())


def widths(html):
    return [float(text) for text in re.findall(r"width:([\d.]+)%", html)]


def test_bars_show_the_tables_numbers_side_by_side():
    config = CalibratorConfig(merge_at="x", task="intensity", aus=AUS)
    reading = Reading(Look(()), np.array([-0.4, 2.5]), np.array([7.0, 1.0]))
    html = bars(config, reading, raw=True)
    assert widths(html) == [0, 100, 50, 20]
    assert re.findall(r'number">([^<]+)', html) == ["0.00", "5.00", "2.50", "1.00"]
    assert "without the neutral face" in html
    html = bars(config, reading, raw=False)
    assert widths(html) == [0, 50]
    assert "without the neutral face" not in html
    html = bars(config, Reading(Look(()), np.array([np.nan, 1.0])), raw=True)
    assert re.findall(r'number">([^<]+)', html) == ["–", "–", "1.00", "–"]
    detection = CalibratorConfig(merge_at="x", task="detection", aus=AUS)
    html = bars(detection, Reading(Look(()), np.array([0.0, -800.0])), raw=False)
    assert widths(html) == [50, 0]
    assert re.findall(r'number">([^<]+)', html) == ["yes", "no"]


def test_names_are_no_html():
    look = Look((Check("a <b>", False, "<script>"),))
    assert "<script>" not in checklist(look)
    config = CalibratorConfig(merge_at="x", task="intensity", aus=(1,), au_names=("<script>",))
    assert "<script>" not in bars(config, None, raw=False)


def test_a_video_is_read_as_predict_reads(predictor, folder, run, tmp_path):  # noqa: F811
    (tmp_path / "page").mkdir()
    reader = RecordingReader(predictor)
    clip, neutral = folder / "clip.mp4", folder / "neutral.png"
    results = reader.read(clip, neutral, tmp_path / "page")
    code, _, _ = run(
        *(clip, "--reference", neutral, "-o", tmp_path / "clip.csv", "--plot", "--overlay")
    )
    assert code == 0
    for file in results.files:
        assert file.exists()
        if file.suffix == ".csv":
            assert file.read_bytes() == (tmp_path / file.name).read_bytes()
    assert results.said[0] == "5 frames, 5 with values."
    (tmp_path / "auto").mkdir()
    with pytest.raises(NeutralFrameError, match="a smile"):  # the astronaut never stops
        reader.read(clip, AUTO, tmp_path / "auto")
    with pytest.raises(ConfigError, match="no video yet"):
        reader.read(None, AUTO, tmp_path)


def command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["siamcal", "demo", *arguments])
    with pytest.raises(SystemExit) as stop:
        siamcal.cli.main()
    return stop.value.code, capsys.readouterr().err


def test_without_gradio_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, said = command(monkeypatch, capsys)
    assert code == 2
    assert "pip install 'siamcal[demo]'" in said


def test_a_port_that_is_taken(monkeypatch, capsys):
    pytest.importorskip("gradio", reason="pip install 'siamcal[demo]'")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        code, said = command(monkeypatch, capsys, "--port", port)
    assert code == 2
    assert f"Port {port} of this machine can't be used" in said
    assert "--port" in said


def test_only_this_machine_is_answered_and_asked(folder, tmp_path):
    pytest.importorskip("gradio", reason="pip install 'siamcal[demo]'")
    from starlette.testclient import TestClient

    from siamcal.page.app import _application, _import_gradio

    _import_gradio(str(tmp_path))
    client = TestClient(_application(ModelChoice(str(folder / "model")), tmp_path))
    answer = client.get("http://127.0.0.1/")
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert re.findall(r'(?:src|href)="(?:https?:)?//[^"]+', answer.text) == []
    assert client.get("http://somewhere.example/").status_code == 400
    assert 'analytics_enabled": false' in answer.text.replace('":f', '": f')


def test_without_the_neutral_face_where_the_calibrator_can(folder):
    head_module = make_head("intensity", 2)
    network = create_backbone("ir_tiny", num_outputs=head_module.num_outputs).eval()
    model = CalibratingSiamese(network, "layer4", head=head_module, null_reference=True)
    model.fit_anchor(torch.randn(6, 3, 112, 112), np.repeat(np.arange(3), 2))
    config = CalibratorConfig(
        merge_at="layer4", task="intensity", aus=AUS, preprocessing=Preprocessing(size=112)
    )
    save_calibrator(model, config, folder / "null")
    with Predictor(load_model(folder / "null")) as predictor:
        reader, sitting = LiveReader(predictor), Sitting()
        frame = next(iter(moved_frames(2)))
        before = reader.read(frame, sitting)
        assert before.calibrated is None
        reader.take_file(folder / "neutral.png", sitting)
        after = reader.read(frame, sitting)
        np.testing.assert_array_equal(after.raw, before.raw)
        (result,) = predictor.results([frame], sitting.person.features)
    np.testing.assert_allclose(after.raw, result.raw, atol=1e-5)
    np.testing.assert_allclose(after.calibrated, result.values, atol=1e-5)
    assert np.abs(after.raw - after.calibrated).max() > 1e-4
