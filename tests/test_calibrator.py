"""`Calibrator` in scripts: files, arrays and pictures alike, the same numbers as the command."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_inference import make_calibrator
from videos import head, moved_frames, write_video

from siamcal import Calibrator
from siamcal.errors import ConfigError, FaceNotFoundError, NeutralFrameError
from siamcal.faces.media import open_media
from siamcal.inference import predict_to_table, save_profile


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrator")
    make_calibrator(folder / "model")
    Image.fromarray(head()).save(folder / "neutral.png")
    write_video(folder / "clip.mp4", moved_frames(5))
    return folder


@pytest.fixture
def calibrator(folder, shared):
    shared.person = None
    return shared


@pytest.fixture(scope="module")
def shared(folder):
    with Calibrator.from_pretrained(folder / "model") as shared:
        yield shared


def test_files_arrays_and_pictures_give_the_same(calibrator, folder):
    given = [folder / "neutral.png", str(folder / "neutral.png"), head(), Image.fromarray(head())]
    frame = next(iter(moved_frames(5)))
    readings = []
    for neutral in given:
        calibrator.calibrate(neutral)
        readings.append(calibrator.read(frame))
    assert list(readings[0].index)[:3] == ["AU01", "AU02", "AU04"]
    for reading in readings[1:]:
        assert np.array_equal(reading, readings[0])
    assert np.array_equal(calibrator.read(Image.fromarray(frame)), readings[0])


def test_a_video_is_the_commands_table(calibrator, folder):
    calibrator.calibrate(folder / "neutral.png")
    table = calibrator.read_video(folder / "clip.mp4")
    file = io.BytesIO()
    predict_to_table(
        open_media(folder / "clip.mp4"),
        file,
        predictor=calibrator.predictor,
        reference=calibrator.person,
    )
    written = pd.read_csv(io.BytesIO(file.getvalue()))
    assert list(table.columns) == list(written.columns)
    numbers = written.select_dtypes("number").columns
    np.testing.assert_array_equal(table[numbers].to_numpy(float), written[numbers].to_numpy(float))
    assert len(calibrator.read_video(folder / "clip.mp4", every=2, start=0.04)) == 2


def test_a_profile_and_a_video_calibrate_too(calibrator, folder, tmp_path):
    person = calibrator.calibrate(folder / "neutral.png")
    expected = calibrator.read(head())
    save_profile(person, tmp_path / "anna.siamcal", calibrator.predictor)
    calibrator.calibrate(tmp_path / "anna.siamcal")
    assert np.array_equal(calibrator.read(head()), expected)
    with pytest.raises(NeutralFrameError, match="a smile"):
        calibrator.calibrate(folder / "clip.mp4")
    chosen = calibrator.calibrate(folder / "clip.mp4", sound_only=False)
    assert chosen.facts["kind"] == "chosen automatically"


def test_what_is_missing_is_said(calibrator, folder):
    with pytest.raises(ConfigError, match="call calibrate"):
        calibrator.read(head())
    with pytest.raises(ConfigError, match="call calibrate"):
        calibrator.read_video(folder / "clip.mp4")
    with pytest.raises(FaceNotFoundError, match="arrays"):
        calibrator.calibrate(np.zeros((200, 200, 3), np.uint8))
    calibrator.calibrate(head())
    with pytest.raises(FaceNotFoundError, match="no face"):
        calibrator.read(np.zeros((200, 200, 3), np.uint8))
    with pytest.raises(ConfigError, match="RGB array"):
        calibrator.read(head().astype(float))


def test_its_repr_tells_the_person(calibrator, folder):
    assert "nobody yet" in repr(calibrator)
    calibrator.calibrate(folder / "neutral.png")
    assert "neutral.png" in repr(calibrator)
    assert "AU1, AU2" in repr(calibrator)
