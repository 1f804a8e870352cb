"""Who is who from frame to frame: crossing, leaving and coming back."""

from itertools import permutations

import numpy as np
import pytest
from crowds import film

from siamcal.faces.appearance import LENGTH, describe_appearance
from siamcal.faces.detection import FaceDetector
from siamcal.inference.tracks import FaceTracker, _assigned, appearance_distance


@pytest.fixture(scope="module")
def detector():
    with FaceDetector() as detector:
        yield detector


def numbers_of(people, scene, detector, count=24, seed=0, keep=lambda frame: True):
    """Person -> the numbers that their faces got, where nobody stands before them."""
    tracker, found = FaceTracker(), {}
    for frame, (rgb, places) in enumerate(film(people, scene, count, seed)):
        if not keep(frame):
            continue
        faces = detector.detect(rgb)
        where = np.array(places)
        for face, number in zip(faces, tracker.update(frame, rgb, faces), strict=True):
            away = np.hypot(*(where - face.landmarks[:, :2].mean(0)).T)
            own = int(np.argmin(away))
            others = np.hypot(*(where - where[own]).T)
            if away[own] < 50 and np.sort(others)[1] > 70:
                found.setdefault(people[own], []).append(number)
    return found


@pytest.mark.parametrize(
    ("people", "scene"), [((0, 1), "cross"), ((5, 6), "leave"), ((14, 15), "stand")]
)
def test_everybody_keeps_their_number(detector, people, scene):
    found = numbers_of(people, scene, detector)
    assert all(len(set(numbers)) == 1 for numbers in found.values()), found
    assert len({numbers[0] for numbers in found.values()}) == 2
    assert min(map(len, found.values())) >= 6


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (2, 3), (3, 3), (4, 2)])
def test_faces_go_to_tracks_at_the_least_cost_of_all(shape):
    costs = np.random.default_rng(0)
    for _ in range(30):
        cost = costs.random(shape)
        cost[costs.random(shape) < 0.3] = np.inf  # no face of that track
        few, many = sorted(shape)
        ways = [list(enumerate(way)) for way in permutations(range(many), few)]
        if shape[0] > shape[1]:
            ways = [[(row, column) for column, row in way] for way in ways]
        finite = np.where(np.isfinite(cost), cost, 1e6)
        best = min(ways, key=lambda way: sum(finite[pair] for pair in way))
        assert sorted(_assigned(cost)) == sorted(p for p in best if np.isfinite(cost[p]))


def test_nobody_goes_nowhere():
    assert [_assigned(np.empty(shape)) for shape in ((0, 2), (2, 0), (0, 0))] == [[], [], []]


def test_frames_may_be_left_out(detector):
    found = numbers_of((0, 1), "cross", detector, count=40, keep=lambda frame: frame % 3 == 0)
    assert all(len(set(numbers)) == 1 for numbers in found.values()), found


def test_another_person_in_the_same_place_is_another_number(detector):
    tracker = FaceTracker()
    numbers, doubted = [], []
    for start, person in ((0, 2), (6, 4)):
        for frame, (rgb, _) in enumerate(film((person,), "stand", 6), start):
            faces = detector.detect(rgb)
            numbers.append(tracker.update(frame, rgb, faces))
            doubted.append(tracker.doubts(numbers[-1][0]))
    assert numbers == [[0]] * 6 + [[1]] * 6
    # Who is new is doubted, and nobody who goes on looking the same.
    assert doubted == [True, *[False] * 5] * 2


def test_a_face_that_looks_otherwise_is_doubted_until_its_looks_are_known(detector):
    (rgb, _), *_ = film((5,), "stand", 1)
    (face,) = detector.detect(rgb)
    tracker = FaceTracker()
    shades = [rgb] * 3 + [(rgb * (1.0, 0.85, 0.65)).astype(np.uint8)] * 20
    doubted = []
    for frame, shown in enumerate(shades):
        assert tracker.update(frame, shown, [face]) == [0]
        doubted.append(tracker.doubts(0))
    assert doubted[:3] == [True, False, False]
    assert doubted[3]
    assert not doubted[-1]


def test_looks_outside_the_picture_do_not_count(detector):
    (rgb, _), *_ = film((0,), "stand", 1)
    (face,) = detector.detect(rgb)
    looks = describe_appearance(rgb, face)
    assert looks.shape == (LENGTH,)
    assert np.isfinite(looks).all()
    bottom = round(face.landmarks[:, 1].max()) + 10
    cut = describe_appearance(rgb[:bottom], face)
    assert np.isnan(cut[21:30]).all()
    assert appearance_distance(looks, cut) < 0.01


def test_a_face_that_is_followed_in_between_is_learnt_as_fast(detector):
    (rgb, _), *_ = film((5,), "stand", 1)
    (face,) = detector.detect(rgb)
    darker = rgb - rgb // 12
    each, now_and_then = FaceTracker(), FaceTracker()
    for frame, shown in enumerate((rgb, darker, darker, darker)):
        assert each.update(frame, shown, [face]) == [0]
        if frame in (1, 2):
            now_and_then.move(frame, 0, face)
        else:
            assert now_and_then.update(frame, shown, [face]) == [0]
    (one,), (other,) = each._tracks, now_and_then._tracks
    assert appearance_distance(one.looks, describe_appearance(rgb, face)) > 0.1
    np.testing.assert_allclose(one.looks, other.looks, rtol=1e-5)
    np.testing.assert_allclose(one.centre, other.centre)
    np.testing.assert_allclose(one.speed, other.speed)
    assert (one.seen, one.size) == (other.seen, other.size)
