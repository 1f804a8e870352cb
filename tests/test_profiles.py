"""Profiles: made of one or several frames, private, bound to their calibrator, never in the way."""

import stat
import sys

import pytest
from PIL import Image
from rendered import RenderedPerson
from safetensors import safe_open
from test_inference import make_calibrator
from videos import write_video

import siamcal.cli
from siamcal.errors import ConfigError
from siamcal.inference import (
    Predictor,
    calibrate,
    load_model,
    load_profile,
    save_profile,
)
from siamcal.inference.candidates import own_candidates


@pytest.fixture(scope="module")
def predictor():
    with Predictor(load_model()) as predictor:
        yield predictor


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    person = RenderedPerson(1)
    for number, (actions, turn) in enumerate([({}, 0), ({}, 5), ({}, -5), ({12: 5.0, 6: 4.0}, 0)]):
        Image.fromarray(person(actions, yaw=turn)).save(folder / f"{number}.png")
    pictures = [person({12: 4.0})] * 3 + [person()] * 3 + [person({1: 5.0, 2: 5.0})] * 3
    write_video(folder / "clip.mp4", pictures)
    return folder


@pytest.fixture
def run(monkeypatch, capsys, folder):
    def run(*arguments):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["siamcal", *map(str, arguments)])
        code = 0
        try:
            siamcal.cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return run


def names_in(path):
    with safe_open(path, framework="pt") as file:
        return set(file.keys()), file.metadata()


def test_a_bad_frame_among_several_hardly_counts_and_is_told(predictor, folder):
    frames = [folder / f"{n}.png" for n in range(4)]
    pooled = calibrate(frames, predictor)
    assert pooled.features.frames.tolist() == [4]
    reads = [facts["reads"] for facts in pooled.facts["frames"]]
    assert max(reads[:3]) < 0.35 < 0.5 < reads[3]
    assert any("3.png: it reads" in text for text in pooled.warnings)
    assert any("3.png: Reference: the face isn't at rest" in text for text in pooled.warnings)
    assert not any("0.png" in text for text in pooled.warnings)


def test_a_recording_gives_its_neutral_frame(predictor, folder):
    assert 4 <= calibrate(folder / "clip.mp4", predictor).facts["frame"] <= 6
    assert calibrate(folder / "clip.mp4", predictor, frame=8).facts["frame"] == 8
    both = calibrate([folder / "clip.mp4", folder / "0.png"], predictor)
    assert [facts["kind"] for facts in both.facts["frames"]] == ["chosen automatically", "picture"]
    for inputs, frame in (([], None), ([folder / "0.png", folder / "1.png"], 1)):
        with pytest.raises(ConfigError, match="calibrate takes pictures"):
            calibrate(inputs, predictor, frame=frame)


def test_a_profile_is_private_and_holds_no_picture_unless_asked(predictor, folder, tmp_path):
    person = calibrate([folder / "0.png", folder / "1.png"], predictor)
    path = tmp_path / "p01.siamcal"
    save_profile(person, path, predictor)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert all(name == "identity" or name.startswith("features.") for name in names_in(path)[0])
    loaded = load_profile(path, predictor)
    assert loaded.crops is None
    assert loaded.measures == person.measures
    save_profile(person, path, predictor, image=True, replace=True)
    assert load_profile(path, predictor).crops.shape == person.crops.shape
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_files_of_others_and_inputs_stay(predictor, folder, tmp_path):
    person = calibrate(folder / "0.png", predictor)
    path = tmp_path / "notes.siamcal"
    path.write_text("mine")
    for replace in (False, True):
        with pytest.raises(ConfigError, match="siamcal didn't write it"):
            save_profile(person, path, predictor, replace=replace)
    assert path.read_text() == "mine"
    with pytest.raises(ConfigError, match="is an input"):
        save_profile(person, folder / "0.png", predictor, replace=True)
    save_profile(person, tmp_path / "own.siamcal", predictor)
    with pytest.raises(ConfigError, match="there already"):
        save_profile(person, tmp_path / "own.siamcal", predictor)


def test_another_calibrator_is_told_the_command_that_remakes_it(predictor, folder, tmp_path):
    path = tmp_path / "p01.siamcal"
    save_profile(calibrate(folder / "clip.mp4", predictor, frame=5), path, predictor)
    command = f"siamcal calibrate {folder / 'clip.mp4'} --frame 5 -o {path}"
    assert names_in(path)[1]["remake"] == command
    other = load_model(make_calibrator(tmp_path / "other"))
    with Predictor(other) as another, pytest.raises(ConfigError) as refused:
        load_profile(path, another)
    assert command in str(refused.value)


def test_the_command_makes_what_predict_takes(run, tmp_path):
    profile = tmp_path / "p01.siamcal"
    code, _, err = run("calibrate", "0.png", "1.png", "-o", profile)
    assert code == 0
    assert "0.png: judgement 0." in err
    assert "against all together" in err
    assert run("calibrate", "0.png", "-o", profile)[0] == 2
    assert run("calibrate", "0.png", "-o", profile, "--overwrite")[0] == 0
    assert run("predict", "3.png", "--profile", profile, "-o", tmp_path / "a.csv")[0] == 0
    assert run("predict", "3.png", "--reference", "0.png", "-o", tmp_path / "b.csv")[0] == 0
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()
    saved = ["--reference", "0.png", "--save-profile", tmp_path / "p02.siamcal"]
    assert run("predict", "3.png", *saved, "-o", tmp_path / "c.csv")[0] == 0
    assert names_in(tmp_path / "p02.siamcal")[1]["remake"].startswith("siamcal calibrate 0.png")
    assert stat.S_IMODE((tmp_path / "p02.siamcal").stat().st_mode) == 0o600


def test_the_candidates_of_a_recording_are_drawn_where_asked(run, folder, tmp_path):
    sheet, output = tmp_path / "sheet.png", tmp_path / "p.siamcal"
    code, _, err = run("calibrate", "clip.mp4", "-o", output, "--candidates", sheet)
    assert code == 0, err
    assert own_candidates(sheet)
    for inputs, words in [
        (["clip.mp4", "0.png"], "name one video, or one folder of pictures"),
        (["0.png"], "name one video"),
        (["clip.mp4", "--frame", "2"], "names one already"),
    ]:
        other = tmp_path / "other.siamcal"
        code, _, err = run("calibrate", *inputs, "-o", other, "--candidates", tmp_path / "o.png")
        assert code == 2
        assert words in err
        assert not (tmp_path / "o.png").exists()
    code, _, err = run("calibrate", "clip.mp4", "-o", tmp_path / "q.siamcal", "--candidates", sheet)
    assert "is there already" in err
