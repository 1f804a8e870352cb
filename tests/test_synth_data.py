"""The rendered data set: dynamics, sampling, files, resuming, options."""

import dataclasses
import importlib
import json

import cv2
import numpy as np
import pandas as pd
import pytest

from siamcal.datasets import load_dataset
from siamcal.errors import ConfigError, DataNotFoundError
from siamcal.registry import recipes
from siamcal.synth.actions import AUS
from siamcal.synth.dynamics import draw_track
from siamcal.synth.frames import face_at, picture, run_task
from siamcal.synth.library import _render_all, ensure_rendered, manifest, rendered_folder, verify
from siamcal.synth.plan import (
    BENCHMARK_PEOPLE,
    CHECK_PEOPLE,
    SIZES,
    TRAINING_PEOPLE,
    TUNING_PEOPLE,
    Plan,
    draw_recording,
    make_plan,
    reference_frame,
    select_frames,
    tasks,
)
from siamcal.synth.traits import stream

SMALL = {
    "size": "tiny",
    "participants": 3,
    "frames": 4,
    "image_size": 96,
    "workers": 1,
    "first_person": 710_000,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("synth")


@pytest.fixture(scope="module")
def source(root):
    return load_dataset("synth", root, **SMALL)


def test_tables_hold_what_reports_need(source):
    table, people = source.table, source.participants_table
    assert len(table) == 12
    assert source.rendered
    assert source.aus == AUS
    truth = table[[f"truth_AU{au:02d}" for au in AUS]].to_numpy()
    labels = table[[f"AU{au:02d}" for au in AUS]].to_numpy()
    np.testing.assert_array_equal(labels, np.round(truth))
    assert ((labels >= 0) & (labels <= 5)).all()
    assert {"yaw", "pitch", "roll", "blink", "light_azimuth", "occlusion"} <= set(table)
    assert {"age", "sex", "skin_tone", "glasses", "beard", "rest_AU04", "wrinkle_AU04"} <= set(
        people
    )
    assert list(people["participant"]) == sorted(table["participant"].unique())


def test_one_open_eyed_neutral_reference_for_each_person_and_view(source):
    marked = source.table[source.table["is_reference"]]
    assert len(marked) == 3
    assert (marked[[f"truth_AU{au:02d}" for au in AUS]] == 0).all(axis=None)
    assert (marked["blink"] == 0).all()
    assert (marked["occlusion"] == "none").all()
    assert not marked["speaking"].any()


def test_folds_are_three_and_exclusive(source):
    assert len(source.folds) == 3
    people = [p for fold in source.folds for p in fold]
    assert sorted(people) == sorted(source.participants)
    assert len(set(people)) == len(people)


def test_pictures_are_jpegs_of_the_size(source):
    for path in source.table["source"]:
        image = cv2.imread(path)
        assert image.shape == (96, 96, 3)
        assert image.std() > 5


def test_any_frame_renders_alone_and_alike(root, source):
    plan = make_plan(**{k: v for k, v in SMALL.items() if k != "workers"})
    task = tasks(plan)[1]
    frame = int(select_frames(plan, task.person, 0)[2])
    first, quality, row = picture(plan, task, frame)
    for cache in (draw_recording, select_frames):
        cache.cache_clear()
    second, _, _ = picture(plan, task, frame)
    np.testing.assert_array_equal(first, second)
    ok, data = cv2.imencode(".jpg", first[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert (rendered_folder(plan, root) / row["source"]).read_bytes() == bytes(data)
    assert ok


def test_second_use_reads_the_disk(root, source, monkeypatch):
    library = importlib.import_module("siamcal.synth.library")
    monkeypatch.setattr(library, "_render_all", lambda *a: pytest.fail("rendered again"))
    again = load_dataset("synth", root, **SMALL)
    pd.testing.assert_frame_equal(again.table, source.table)


def test_interrupted_rendering_goes_on_where_it_stopped(tmp_path, root, source):
    plan = make_plan(**{k: v for k, v in SMALL.items() if k != "workers"})
    folder = rendered_folder(plan, tmp_path)
    folder.mkdir(parents=True)
    done = tasks(plan)[0]
    run_task(plan, done, str(folder))
    half = folder / "frames" / f"R{done.person:06d}"
    stamps = {p: p.stat().st_mtime_ns for p in half.rglob("*.jpg")}
    assert len(stamps) == 4
    # A task whose pictures are there, but not its table, was cut off and is rendered again.
    ensure_rendered(plan, tmp_path, workers=1)
    assert {p: p.stat().st_mtime_ns for p in half.rglob("*.jpg")} == stamps
    assert manifest(folder)["sha256"] == manifest(rendered_folder(plan, root))["sha256"]


@pytest.mark.slow
def test_processes_render_what_one_renders(tmp_path, root, source):
    plan = make_plan(**{k: v for k, v in SMALL.items() if k != "workers"})
    folder = rendered_folder(plan, tmp_path)
    folder.mkdir(parents=True)
    _render_all(plan, tasks(plan), folder, workers=2)
    ensure_rendered(plan, tmp_path, workers=1)
    assert manifest(folder)["sha256"] == manifest(rendered_folder(plan, root))["sha256"]


def test_changed_pictures_are_found(tmp_path):
    plan = make_plan("tiny", participants=1, frames=2, image_size=64, first_person=710_000)
    folder = ensure_rendered(plan, tmp_path, workers=1)
    assert verify(folder) == manifest(folder)["sha256"]
    victim = next(folder.rglob("*.jpg"))
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(DataNotFoundError, match="changed or deleted"):
        verify(folder)


def test_full_disk_is_told_before_work_starts(tmp_path, monkeypatch):
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(ConfigError, match="SIAMCAL_CACHE"):
        ensure_rendered(make_plan("full"), tmp_path)


def test_benchmarks_training_and_check_show_different_people():
    ranges = {name: set(SIZES[name].people) for name in SIZES}
    shown = ranges["tiny"] | ranges["small"] | ranges["full"]
    assert shown <= set(BENCHMARK_PEOPLE)
    assert ranges["training"] <= set(TRAINING_PEOPLE)
    assert not set(BENCHMARK_PEOPLE) & set(TRAINING_PEOPLE)
    shown_elsewhere = set(BENCHMARK_PEOPLE) | set(TRAINING_PEOPLE) | set(TUNING_PEOPLE)
    assert not set(CHECK_PEOPLE) & shown_elsewhere
    assert not set(TUNING_PEOPLE) & (set(BENCHMARK_PEOPLE) | set(TRAINING_PEOPLE))


def test_recipes_that_make_weights_use_training_people_only():
    for name in recipes.names():
        recipe = recipes.get(name)()
        if recipe.dataset != "synth":
            continue
        options = {k: v for k, v in recipe.dataset_options.items() if k != "workers"}
        plan = make_plan(options.pop("size", "small"), **options)
        if name.endswith("_start") or "calibrator" in name:
            assert set(plan.people) <= set(TRAINING_PEOPLE), name
        elif name == "synth":
            assert set(plan.people) <= set(BENCHMARK_PEOPLE), name


def test_full_has_disfas_numbers():
    plan = SIZES["full"]
    assert (plan.participants, plan.frames, plan.views) == (27, 4845, ("left", "right"))
    assert plan.total == 27 * 4845 * 2
    np.testing.assert_array_equal(select_frames(plan, 0, 0), np.arange(4845))


def test_keys_tell_plans_apart():
    plans = [
        Plan(),
        Plan(bias=0.0),
        Plan(seed=1),
        Plan(image_size=128),
        Plan(first_person=5),
        Plan(views=("left",)),
        Plan(clips=2),
        Plan(occlusion=0.5),
        Plan(frames=64),
    ]
    assert len({plan.key() for plan in plans}) == len(plans)
    assert Plan().key() == Plan().key()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "huge"}, "tiny, small, full"),
        ({"bias": 1.5}, "0 to 1"),
        ({"views": "top"}, "front, left, right"),
        ({"image_size": 8}, "64 to 2048"),
        ({"participants": 0}, "at least 1 participant"),
        ({"first_person": -1}, "negative"),
        ({"frames": 10, "length": 5}, "fewer than"),
    ],
)
def test_wrong_options_are_answered(options, message):
    with pytest.raises(ConfigError, match=message):
        load_dataset("synth", None, **options)


@pytest.fixture(scope="module")
def intensities():
    return np.concatenate([draw_track(stream(9, k), 2400).intensity for k in range(8)])


def test_each_action_rests_most_of_the_time(intensities):
    resting = (np.round(intensities) == 0).mean(0)
    assert (resting > 0.5).all()
    assert (resting < 0.92).all()
    often = [resting[AUS.index(au)] for au in (25, 6, 12)]
    rare = [resting[AUS.index(au)] for au in (9, 15, 20)]
    assert max(often) < min(rare)


def test_actions_that_belong_together_occur_together(intensities):
    correlation = np.corrcoef(intensities.T)

    def between(a, b):
        return correlation[AUS.index(a), AUS.index(b)]

    assert between(6, 12) > 0.4
    assert between(1, 2) > 0.4
    assert abs(between(12, 4)) < 0.2


def test_actions_rise_and_fall_smoothly(intensities):
    track = draw_track(stream(9, 99), 1200)
    assert np.abs(np.diff(track.intensity, axis=0)).max() < 2.0
    assert track.intensity.max() <= 5.0
    assert track.intensity.min() >= 0.0
    assert np.degrees(np.abs(track.pose)).max(0) == pytest.approx([20, 12, 9], abs=9)


def test_blinks_are_short_and_regular():
    track = draw_track(stream(4), 4845)
    closed = track.blink > 0.5
    starts = int((np.diff(closed.astype(int)) == 1).sum())
    assert 30 < starts < 130  # four minutes
    assert 0.01 < closed.mean() < 0.08


def test_short_recordings_work():
    for frames in (1, 2, 3):
        assert len(draw_track(stream(1), frames)) == frames


def test_sampling_prefers_rare_actions_and_keeps_rest():
    plan = make_plan("small")
    shown, whole = [], []
    for person in range(710_000, 710_012):
        track = draw_recording(plan, person, 0).track
        shown.append(np.round(track.intensity[select_frames(plan, person, 0)]))
        whole.append(np.round(track.intensity))
    active = [(np.concatenate(part) > 0).mean(0) for part in (shown, whole)]
    rare = [AUS.index(au) for au in (9, 15, 17, 20)]
    assert (active[0][rare] > active[1][rare]).all()
    assert (active[0] < 0.6).all()


def test_views_share_the_moment_and_differ_in_the_camera():
    plan = make_plan(
        "tiny", views=("left", "right"), participants=1, first_person=710_000, image_size=96
    )
    recording = draw_recording(plan, 710_000, 0)
    left, right = recording.cameras["left"], recording.cameras["right"]
    assert left.yaw > 0.05 > -0.05 > right.yaw
    pieces = {task.view: task for task in tasks(plan)}
    frame = int(select_frames(plan, 710_000, 0)[1])
    pictures = {view: picture(plan, task, frame) for view, task in pieces.items()}
    assert pictures["left"][2]["truth_AU12"] == pictures["right"][2]["truth_AU12"]
    assert np.abs(pictures["left"][0].astype(int) - pictures["right"][0]).mean() > 3


def test_light_drifts_within_a_clip():
    plan = make_plan("small")
    lights = [draw_recording(plan, person, 0).light for person in range(710_000, 710_030)]
    strong = max(lights, key=lambda light: light.drift)
    keys = [strong.at(t).key for t in np.linspace(0, strong.period, 20)]
    assert np.ptp(keys) > 0.1 * strong.key


def test_occlusion_is_an_option_and_spares_the_reference():
    plan = make_plan("small", occlusion=1.0)
    kinds = set()
    for person in range(710_000, 710_012):
        recording = draw_recording(plan, person, 0)
        kinds.add(recording.occluder)
        assert recording.occluded.any()
        if not recording.occluded.all():
            assert not recording.occluded[reference_frame(recording)]
    assert kinds == {"fingers", "hair", "mask"}
    assert draw_recording(make_plan("small"), 710_000, 0).occluder == "none"


def test_reference_face_is_nearly_straight():
    recording = draw_recording(make_plan("small"), 710_005, 0)
    face = face_at(recording, reference_frame(recording), neutral=True)
    assert not face.intensity.any()
    assert face.blink == 0
    assert not face.nuisance
    assert np.degrees(max(abs(face.yaw), abs(face.pitch), abs(face.roll))) < 10


def test_manifest_says_what_it_holds(root, source):
    plan = make_plan(**{k: v for k, v in SMALL.items() if k != "workers"})
    text = (rendered_folder(plan, root) / "manifest.json").read_text()
    assert json.loads(text)["plan"] == json.loads(json.dumps(dataclasses.asdict(plan)))
