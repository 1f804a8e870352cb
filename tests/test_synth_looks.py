"""The shifted look: the same people and labels, nothing else as the usual look draws it."""

import dataclasses

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from siamcal.cli.data import data_app
from siamcal.datasets import load_dataset
from siamcal.errors import ConfigError
from siamcal.faces import FaceDetector
from siamcal.synth.frames import picture
from siamcal.synth.person import build_person
from siamcal.synth.plan import (
    Plan,
    draw_person,
    draw_recording,
    make_plan,
    reference_frame,
    select_frames,
    tasks,
)
from siamcal.synth.render import encode_picture, expose
from siamcal.synth.scene import Light, Sensor

# Nobody the ranges were tuned on.
FIRST, COUNT = 730_000, 200
USUAL = make_plan("small", first_person=FIRST, participants=COUNT)
SHIFTED = dataclasses.replace(USUAL, look="shifted")


@pytest.fixture(scope="module")
def drawn():
    """Everything drawn for some people, without a picture: look -> (traits, recordings)."""
    return {
        plan.look: (
            [draw_person(plan, n) for n in plan.people],
            [draw_recording(dataclasses.replace(plan, length=65), n, 0) for n in plan.people],
        )
        for plan in (USUAL, SHIFTED)
    }


def test_the_usual_look_keeps_its_keys_and_draws():
    """Keys and numbers as they were before there was another look."""
    assert make_plan("small").key() == "ce9f6cb39c71ed7a"
    assert make_plan("training", occlusion=1.0).key() == "8ec5f708941a57cb"
    views = make_plan("tiny", views=("left", "right"), bias=0.0)
    assert views.key() == "4b463a939190b688"
    assert len({Plan().key(), Plan(look="shifted").key(), Plan(look="usual").key()}) == 2


def test_settings_of_the_usual_look_change_no_pixel():
    """Against the formula of the sensor, written out here."""
    rng = np.random.default_rng(0)
    light = rng.random((32, 32, 3)).astype(np.float32)
    plain = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    noise = 3 * np.random.default_rng(5).standard_normal(light.shape, np.float32)
    wanted = np.clip(255 * plain + noise, 0, 255)
    given = expose(light, Sensor(noise=3.0), np.random.default_rng(5))
    assert np.abs(given - wanted).max() < 1.5
    lamp = Light(0.3, 0.4, 0.9, 0.45, 0.15, 0.0, 0.0, 5.0)
    assert lamp.at(1.7) == lamp


def test_both_looks_show_the_same_people_and_movements(drawn):
    for usual, shifted in zip(drawn["usual"][0], drawn["shifted"][0], strict=True):
        for name in ("number", "sex", "age", "origin", "weights", "permanent", "brows", "glasses"):
            assert getattr(usual, name) == getattr(shifted, name), name
        np.testing.assert_array_equal(usual.rest, shifted.rest)
        np.testing.assert_array_equal(usual.gain, shifted.gain)
    for person in (FIRST, FIRST + 1):
        before, after = (draw_recording(plan, person, 0) for plan in (USUAL, SHIFTED))
        for name in ("intensity", "pose", "gaze", "blink", "speaking"):
            np.testing.assert_array_equal(getattr(before.track, name), getattr(after.track, name))
        np.testing.assert_array_equal(
            select_frames(USUAL, person, 0), select_frames(SHIFTED, person, 0)
        )
        assert reference_frame(before) == reference_frame(after)
        meshes = [build_person(draw_person(plan, person)) for plan in (USUAL, SHIFTED)]
        np.testing.assert_array_equal(meshes[0].neutral, meshes[1].neutral)
        np.testing.assert_array_equal(meshes[0].reach, meshes[1].reach)


# What is compared, and the share of usual draws that may lie within the shifted ones' range.
NUISANCES = {
    "redness": (lambda t, r: t.redness, 0.02),
    "distance": (lambda t, r: r.cameras["front"].distance, 0.0),
    "camera pitch": (lambda t, r: r.cameras["front"].pitch, 0.03),
    "noise": (lambda t, r: r.sensor.noise, 0.03),
    "lens": (lambda t, r: r.sensor.blur, 0.15),
    "JPEG": (lambda t, r: r.sensor.quality, 0.0),
    "exposure": (lambda t, r: r.sensor.exposure, 0.03),
    "red": (lambda t, r: r.sensor.balance[0], 0.0),
    "gamma": (lambda t, r: r.sensor.gamma, 0.0),
    "vignetting": (lambda t, r: r.sensor.vignette, 0.0),
    "chroma noise": (lambda t, r: r.sensor.chroma, 0.0),
    "flicker": (lambda t, r: r.light.flicker, 0.0),
}


@pytest.mark.parametrize("name", NUISANCES)
def test_each_nuisance_lies_beyond_the_usual(drawn, name):
    """Usual draws fall between or beside the shifted ranges, which may stand on either side."""
    value, allowed = NUISANCES[name]
    usual, shifted = (np.array([value(*x) for x in zip(*drawn[k], strict=True)]) for k in drawn)
    middle = np.median(usual)
    within = np.zeros(len(usual), bool)
    for side in (shifted[shifted < middle], shifted[shifted >= middle]):
        if len(side):
            within |= (usual >= side.min()) & (usual <= side.max())
    assert within.mean() <= allowed
    assert len(np.unique(np.round(shifted, 6))) > 5, "people differ"


def test_light_comes_from_where_it_never_does_or_is_coloured(drawn):
    usual, shifted = ([r.light for r in drawn[look][1]] for look in ("usual", "shifted"))
    lowest = min(light.elevation for light in usual)
    widest = max(abs(light.azimuth) for light in usual)
    tints = max(abs(light.warmth) for light in usual)
    kinds = [
        (s.elevation < lowest, abs(s.azimuth) > widest, abs(s.warmth) > tints) for s in shifted
    ]
    assert all(any(kind) for kind in kinds)
    assert (np.mean(kinds, axis=0) > 0.2).all()
    lamp = max(shifted, key=lambda light: light.flicker)
    keys = [dataclasses.replace(lamp, drift=0.0).at(t).sky for t in np.arange(40) / 20]
    assert np.ptp(keys) > lamp.flicker * lamp.sky


def test_hair_and_beards_are_others(drawn):
    usual, shifted = drawn["usual"][0], drawn["shifted"][0]
    colours = np.array([t.hair_srgb for t in usual])
    distance = [np.linalg.norm(colours - t.hair_srgb, axis=1).min() for t in shifted]
    assert np.quantile(distance, 0.1) > 10
    for sex in ("female", "male"):
        styles = [{t.hair_style for t in who if t.sex == sex} for who in (usual, shifted)]
        assert not styles[0] & styles[1]
    assert all(t.beard == "none" for t in shifted if t.sex == "female")


def test_clips_differ_and_views_share_the_moment():
    plan = make_plan("training", look="shifted", first_person=FIRST, participants=1)
    clips = [draw_recording(plan, FIRST, clip) for clip in range(plan.clips)]
    assert len({clip.light for clip in clips}) == len({c.sensor for c in clips}) == plan.clips
    plan = make_plan("tiny", look="shifted", first_person=FIRST, views=("left", "right"))
    cameras = draw_recording(plan, FIRST, 0).cameras
    assert cameras["left"].yaw > 0.05 > -0.05 > cameras["right"].yaw


def test_tables_of_both_looks_hold_the_same_labels(tmp_path):
    options = {"size": "tiny", "participants": 2, "frames": 3, "image_size": 96, "workers": 1}
    usual, shifted = (
        load_dataset("synth", tmp_path, **options, look=look, first_person=FIRST)
        for look in ("usual", "shifted")
    )
    same = [c for c in usual.table if c.startswith(("AU", "truth", "gaze", "blink", "is_ref"))]
    same += ["participant", "sequence", "frame", "yaw", "roll", "speaking"]
    assert usual.table[same].equals(shifted.table[same])
    assert "look shifted" in shifted.description
    assert "look" not in usual.description
    for first, second in zip(usual.table["source"], shifted.table["source"], strict=True):
        assert np.abs(cv2.imread(first).astype(int) - cv2.imread(second)).mean() > 10


@pytest.mark.parametrize("look", ["dark", "", 3])
def test_other_looks_are_refused(look):
    with pytest.raises(ConfigError, match="allowed: usual, shifted"):
        load_dataset("synth", None, look=look)


def test_command_draws_a_sheet(tmp_path):
    sheet = str(tmp_path / "sheet.png")
    options = ["--participants", "1", "--image-size", "64", "--look", "shifted"]
    done = CliRunner().invoke(data_app, ["preview", sheet, *options])
    assert done.exit_code == 0, done.output
    assert cv2.imread(sheet).std() > 5


@pytest.mark.slow
def test_faces_are_found_in_shifted_frames():
    plan = dataclasses.replace(SHIFTED, participants=22)
    found = []
    with FaceDetector() as detector:
        for task in tasks(plan):
            frames = select_frames(plan, task.person, 0)
            for frame in frames[:: len(frames) // 3][:3]:
                image, quality, _ = picture(plan, task, int(frame))
                data = np.frombuffer(encode_picture(image, ".jpg", quality), np.uint8)
                stored = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
                found.append(bool(detector.detect(stored, max_faces=1)))
    assert len(found) == 66
    assert np.mean(found) >= 0.97
