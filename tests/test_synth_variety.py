"""The varied look: only what it says differs from the usual one, and labels follow what is seen."""

import dataclasses

import numpy as np
import pytest

from siamcal.faces import FaceDetector
from siamcal.synth.actions import AUS
from siamcal.synth.frames import picture
from siamcal.synth.plan import TRAINING_PEOPLE, draw_person, draw_recording, make_plan, tasks
from siamcal.synth.render import Face, render
from siamcal.synth.variety import COMPANIONS, STOPS, is_changed

# Of the training people, as only these are shown so.
FIRST, COUNT = TRAINING_PEOPLE.stop - 1000, 60
USUAL = make_plan("training", first_person=FIRST, participants=COUNT)
VARIED = dataclasses.replace(USUAL, look="varied")
AU5 = AUS.index(5)


@pytest.fixture(scope="module")
def clips():
    """(person, clip, usual recording, varied recording)."""
    return [
        (n, c, draw_recording(USUAL, n, c), draw_recording(VARIED, n, c))
        for n in USUAL.people
        for c in range(4)
    ]


def test_unchanged_clips_are_the_usual_ones_but_for_closed_eyes(clips) -> None:
    unchanged = [clip for clip in clips if not is_changed(0, *clip[:2])]
    assert 0.4 < len(unchanged) / len(clips) < 0.6
    for _, clip, usual, varied in unchanged:
        others = [k for k in range(len(AUS)) if AUS[k] not in (5, 25, 26)]
        np.testing.assert_array_equal(
            usual.track.intensity[:, others], varied.track.intensity[:, others]
        )
        np.testing.assert_array_equal(usual.track.pose, varied.track.pose)
        if clip != 1:  # which shares the first clip's session
            assert usual.light == varied.light or is_changed(0, _, clip)


def test_speech_is_labelled_and_a_dropped_jaw_parts_the_lips(clips) -> None:
    lips, jaw = AUS.index(25), AUS.index(26)
    spoken = 0
    for _, _, usual, varied in clips:
        moves = varied.track.nuisance
        assert not {"speech_jaw", "speech_lips"} & set(moves)
        assert (varied.track.intensity[:, lips] >= 0.69 * varied.track.intensity[:, jaw]).all()
        if not varied.track.intensity.any():
            continue
        silent = ~usual.track.speaking
        np.testing.assert_allclose(
            varied.track.intensity[silent, jaw], usual.track.intensity[silent, jaw], atol=0.5
        )
        talking = usual.track.nuisance["speech_jaw"] > 0.5
        more = varied.track.intensity[:, jaw] - usual.track.intensity[:, jaw]
        room = usual.track.intensity[:, jaw] < 3
        assert (more[talking & room] > 1).all()
        spoken += int((talking & room).sum())
    assert spoken > 100


def test_au5_is_nothing_behind_closed_lids(clips) -> None:
    closed = 0
    for _, _, usual, varied in clips:
        shut = varied.track.blink > 0.9
        closed += int(shut.sum())
        assert (varied.track.intensity[shut, AU5] <= 0.5).all()
        wide = varied.track.blink == 0
        alive = varied.track.intensity.any()
        if alive:
            np.testing.assert_array_equal(
                varied.track.intensity[wide, AU5], usual.track.intensity[wide, AU5]
            )
    assert closed > 1500


def test_a_sixth_of_the_clips_rest_all_the_time_while_the_head_moves(clips) -> None:
    still = [varied for *_, varied in clips if not varied.track.intensity.any()]
    assert 0.1 < len(still) / len(clips) < 0.25
    for recording in still:
        assert not recording.track.nuisance
        assert recording.track.pose.std(0).min() > 0.01


def test_heads_go_further_and_stop_where_it_is_said(clips) -> None:
    def furthest(place):
        return np.percentile([np.abs(clip[place].track.pose).max(0) for clip in clips], 90, 0)

    assert (furthest(3) > 1.2 * furthest(2)).all()
    for *_, varied in clips:
        assert (np.abs(varied.track.pose) <= np.array(STOPS) + 1e-9).all()


def test_two_clips_share_a_session_and_the_others_have_their_own() -> None:
    person = VARIED.first_person
    first, second, third, _ = (draw_recording(VARIED, person, clip) for clip in range(4))
    assert (first.light, first.cameras, first.sensor) == (
        second.light,
        second.cameras,
        second.sensor,
    )
    assert first.sensor != third.sensor
    assert not np.array_equal(first.track.intensity, second.track.intensity)


def test_to_another_session_people_come_with_other_hair_glasses_and_beards() -> None:
    usual = [draw_person(USUAL, n) for n in USUAL.people]
    first = [draw_person(VARIED, n) for n in USUAL.people]
    later = [draw_person(VARIED, n, 2) for n in USUAL.people]
    assert [p.hair_style for p in usual] == [p.hair_style for p in first]
    worn = [(a, b) for a, b in zip(first, later, strict=True)]
    assert 0.15 < np.mean([a.hair_style != b.hair_style for a, b in worn]) < 0.6
    assert 0.1 < np.mean([a.glasses != b.glasses for a, b in worn]) < 0.45
    assert any(a.beard != b.beard for a, b in worn)
    for a, b in worn:
        assert b.sex == "male" or b.beard == "none"
        assert b.hair_style not in ("undercut", "mop", "frizz")
        same = dataclasses.replace(
            b, hair_style=a.hair_style, hair_front=a.hair_front, glasses=a.glasses, beard=a.beard
        )
        assert same.row() == a.row()
        assert np.array_equal(same.rest, a.rest)


def test_glasses_are_put_on_between_sessions_and_not_between_their_clips() -> None:
    person = next(
        n
        for n in USUAL.people
        if draw_person(VARIED, n, 2).glasses != draw_person(VARIED, n).glasses
    )
    still = draw_recording(VARIED, person, 0)
    first, second, third = (
        picture(VARIED, task, 5, recording=still, neutral=True)[0].astype(int)
        for task in tasks(VARIED)
        if task.person == person and task.clip < 3
    )
    face = np.s_[60:150, 60:200]
    assert np.abs(first - second)[face].mean() < 4  # another sensor noise
    assert np.abs(first - third)[face].mean() > 2 * np.abs(first - second)[face].mean()


def test_companions_move_with_their_action_only() -> None:
    from siamcal.synth.person import build_person
    from siamcal.synth.scene import draw_background

    traits = draw_person(VARIED, VARIED.first_person)
    assert set(traits.companions) == set(COMPANIONS)
    alone = dataclasses.replace(traits, companions={})
    recording = draw_recording(VARIED, VARIED.first_person, 0)
    background = draw_background(np.random.default_rng(0), 128)

    def shown(who, level):
        face = Face.alone(12, level)
        light, camera = recording.light.at(0), recording.cameras["front"]
        return render(build_person(who), face, light, camera, background)

    np.testing.assert_array_equal(shown(traits, 0.0), shown(alone, 0.0))
    assert np.abs(shown(traits, 5.0) - shown(alone, 5.0)).max() > 0.05


def test_faces_are_found_and_a_picture_is_always_the_same() -> None:
    plan = dataclasses.replace(VARIED, participants=8)
    found = total = 0
    with FaceDetector() as detector:
        for task in tasks(plan)[::3]:
            rgb, _, row = picture(plan, task, 200)
            again, *_ = picture(plan, task, 200)
            np.testing.assert_array_equal(rgb, again)
            found += bool(detector.detect(rgb, max_faces=1))
            total += 1
            assert row["AU05"] <= np.ceil(5 * (1 - row["blink"]))
    assert found >= total - 1
