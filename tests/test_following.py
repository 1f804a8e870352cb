"""One run of the landmark network a frame gives what finding the face anew gives."""

import dataclasses

import cv2
import numpy as np
import pytest
from rendered import RenderedPerson
from videos import moved_frames

from siamcal.faces import Face, FacePipeline
from siamcal.faces.alignment import from_crop, rigid_placement, wide_crop
from siamcal.faces.boxes import Box, overlap
from siamcal.faces.face_mesh import SIDE
from siamcal.faces.media.frames import Frame, FrameStream
from siamcal.inference import Predictor, load_model, read_reference
from siamcal.inference.following import FaceFollower
from siamcal.inference.seeing import OnePerson
from siamcal.preprocessing import Preprocessing

WIDE = Preprocessing(size=256, align="rigid_wide", contrast="none", mask="none")
REFINED = dataclasses.replace(WIDE, align="rigid_refined")


@pytest.fixture(scope="module")
def person() -> RenderedPerson:
    return RenderedPerson(1)


@pytest.fixture(scope="module")
def predictor():
    with Predictor(load_model()) as made:
        yield made


@pytest.fixture
def follower(predictor) -> FaceFollower:
    made = predictor._follower()
    assert made is not None
    return made


def stream(frames) -> FrameStream:
    some = (Frame(i, i / 25, rgb, "clip") for i, rgb in enumerate(frames))
    return FrameStream("video", ("clip",), len(frames), 25.0, some)


def moved(rgb: np.ndarray, x: float, y: float = 0.0, degrees: float = 0.0) -> np.ndarray:
    side = rgb.shape[0]
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), degrees, 1.0)
    matrix[:, 2] += (x, y)
    return cv2.warpAffine(rgb, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE)


def spread(landmarks: list[np.ndarray]) -> np.ndarray:
    """Of the places that faces are given: centre in eye distances, logarithm of the size."""
    places = [rigid_placement(points) for points in landmarks]
    size = np.array([place.eye_distance for place in places])
    centre = np.array([place.centre for place in places]) / size.mean()
    return np.array([*centre.std(0), np.log(size).std()])


class TestRefining:
    def test_a_crop_s_landmarks_lie_where_a_detector_s_lie(self, person) -> None:
        # A circle's centre, seen in the frame and in the crop, under a turn and a change of size.
        rgb = person()
        with FacePipeline(WIDE) as pipeline:
            face = pipeline.detect(rgb)[0]
        _, matrix = wide_crop(np.zeros_like(rgb), face, SIDE)
        at = np.array([[100.0, 120.0, 5.0]])
        inside = (at[:, :2] + 0.5) @ matrix[:, :2].T + matrix[:, 2] - 0.5
        scale = np.sqrt(np.linalg.det(matrix[:, :2]))
        back = from_crop(np.concatenate([inside, at[:, 2:] * scale], 1), matrix)
        np.testing.assert_allclose(back, at, atol=1e-3)
        # And in pixels: a bright dot is found where it was drawn.
        dot = np.zeros_like(rgb)
        cv2.circle(dot, (100, 120), 6, (255, 255, 255), -1, cv2.LINE_AA)
        seen = wide_crop(dot, face, SIDE)[0][..., 0].astype(float)
        y, x = np.mgrid[:SIDE, :SIDE]
        middle = [[(seen * x).sum() / seen.sum(), (seen * y).sum() / seen.sum(), 0]]
        np.testing.assert_allclose(from_crop(np.array(middle), matrix)[0, :2], (100, 120), atol=0.1)

    def test_places_vary_less_with_noise(self, person) -> None:
        noise = np.random.default_rng(0)
        clean = person({12: 2, 25: 2}).astype(float)
        found, refined = [], []
        with FacePipeline(WIDE) as pipeline, FacePipeline(REFINED) as other:
            for _ in range(8):
                rgb = np.clip(clean + noise.normal(0, 8, clean.shape), 0, 255).astype(np.uint8)
                found.append(pipeline.detect(rgb)[0].landmarks)
                refined.append(other.detect(rgb)[0].landmarks)
        assert spread(refined).sum() < 0.7 * spread(found).sum()

    def test_it_is_the_same_place_but_for_noise(self, person) -> None:
        rgb = person()
        with FacePipeline(WIDE) as pipeline, FacePipeline(REFINED) as other:
            face, again = pipeline.detect(rgb)[0], other.detect(rgb)[0]
        one, other = rigid_placement(face.landmarks), rigid_placement(again.landmarks)
        assert np.hypot(*np.subtract(one.centre, other.centre)) < 0.02 * one.eye_distance
        assert other.eye_distance == pytest.approx(one.eye_distance, rel=0.03)
        assert (again.box, again.score) == (face.box, face.score)
        np.testing.assert_allclose(again.pose, face.pose, atol=6)

    def test_a_copy_for_another_process_loads_its_own_network(self, person) -> None:
        import pickle

        with FacePipeline(REFINED) as pipeline:
            own = pipeline.crop(person())
            with pickle.loads(pickle.dumps(pipeline)) as other:
                np.testing.assert_array_equal(other.crop(person()), own)


def at(index: int, rgb: np.ndarray, seconds: float | None = None) -> Frame:
    return Frame(index, index / 25 if seconds is None else seconds, rgb, "clip")


class TestFollower:
    def test_nothing_is_followed_before_a_lone_face_was_found(self, follower, person) -> None:
        rgb = person()
        assert follower(at(0, rgb)) is None
        face = FacePipeline(REFINED).detect(rgb)[0]
        follower.take(at(0, rgb), [face, face])
        assert follower(at(1, rgb)) is None
        follower.take(at(1, rgb), [face])
        assert follower(at(2, rgb)) is not None

    def test_gives_the_face_that_is_found_anew(self, follower, person) -> None:
        pipeline = FacePipeline(REFINED)
        first, second = person(), moved(person({12: 3, 25: 2}), 3, 2, 2)
        follower.take(at(0, first), pipeline.detect(first))
        face, run, looked = follower(at(1, second, 0.2))
        assert looked
        anew = pipeline.detect(second)[0]
        eyes = np.linalg.norm(anew.landmarks[33] - anew.landmarks[263])
        apart = np.linalg.norm((face.landmarks - anew.landmarks)[:, :2], axis=1) / eyes
        assert np.median(apart) < 0.02
        assert face.box == anew.box
        assert face.score == anew.score
        np.testing.assert_allclose(face.pose, anew.pose, atol=1.5)
        assert not face.blendshapes
        mouth = [f.blendshapes["mouthSmileLeft"] for f in (pipeline.described(face), anew)]
        assert mouth[0] == pytest.approx(mouth[1], abs=0.08)
        # The run's image is the calibrator's crop, but for what NEAR leaves.
        points = from_crop(run.points, wide_crop(second, anew, SIDE)[1])
        assert np.median(np.linalg.norm((points - face.landmarks)[:, :2], axis=1)) < 0.05 * eyes

    def test_a_jump_is_found_anew(self, follower, person) -> None:
        pipeline = FacePipeline(REFINED)
        rgb = person()
        follower.take(at(0, rgb), pipeline.detect(rgb))
        assert follower(at(1, moved(rgb, 60))) is None
        assert follower(at(2, np.zeros_like(rgb))) is None

    def test_only_plain_crops_are_followed(self) -> None:
        assert FaceFollower.fits(FacePipeline(REFINED))
        assert FaceFollower.fits(FacePipeline(dataclasses.replace(REFINED, detection="once")))
        for other in (WIDE, Preprocessing(), dataclasses.replace(REFINED, illumination="csn_rgb")):
            assert not FaceFollower.fits(FacePipeline(other))


class TestLooking:
    """A followed face's frames are searched for other faces ten times a second."""

    @pytest.fixture
    def searches(self, follower, monkeypatch) -> list[int]:
        """Takes the height of each frame that is searched."""
        boxes, made = follower._detector.boxes, []
        monkeypatch.setattr(
            follower._detector, "boxes", lambda rgb: made.append(len(rgb)) or boxes(rgb)
        )
        return made

    @pytest.mark.parametrize(
        ("rate", "expected"),
        [
            (25, [0, 0, 1, 0, 0, 1]),
            (30, [0, 0, 1, 0, 0, 1]),
            (15, [0, 1, 0, 1, 0, 1]),
            (8, [1] * 6),
        ],
    )
    def test_how_often(self, follower, searches, person, rate, expected) -> None:
        rgb, start = person(), 100.0
        follower.take(at(0, rgb, start), FacePipeline(REFINED).detect(rgb))
        looked = [follower(at(i, rgb, start + i / rate)).looked for i in range(1, 7)]
        assert looked == [bool(value) for value in expected]
        assert len(searches) == sum(expected)

    def test_frames_without_times_are_all_searched(self, follower, searches, person) -> None:
        rgb = person()
        follower.take(at(0, rgb, 0.0), FacePipeline(REFINED).detect(rgb))
        assert all(follower(at(i, rgb, 0.0)).looked for i in range(1, 4))
        assert len(searches) == 3

    def test_a_face_that_is_not_where_it_was_expected_is_searched_for(
        self, follower, person
    ) -> None:
        rgb = person()
        follower.take(at(0, rgb), FacePipeline(REFINED).detect(rgb))
        assert not follower(at(1, rgb)).looked
        assert follower(at(2, moved(rgb, 6))).looked

    def test_the_box_moves_along(self, follower, person) -> None:
        rgb, pipeline = person(), FacePipeline(REFINED)
        follower.take(at(0, rgb), pipeline.detect(rgb))
        before = Box(*pipeline.detect(rgb)[0].box)
        for step in (1, 2):  # a fiftieth of the eyes' distance each
            followed = follower(at(step, moved(rgb, 0.6 * step, 0.6 * step)))
            assert not followed.looked
        box = Box(*followed.face.box)
        assert (box.left - before.left, box.top - before.top) == pytest.approx((1.2, 1.2), abs=0.5)
        assert overlap(box, before) > 0.9

    def test_somebody_who_comes_in_is_noticed_within_a_tenth_of_a_second(
        self, predictor, person
    ) -> None:
        small = cv2.resize(person(), (160, 160), interpolation=cv2.INTER_AREA)
        own = person()[:160, 48:208]
        both = np.concatenate([own, small], axis=1)
        alone = np.concatenate([own, np.full_like(small, 90)], axis=1)
        reference = predictor.encode(predictor.pipeline.crop(alone))
        shown = [alone, alone, both, both, both, both, alone, alone]
        results = list(predictor.results(stream(shown), reference))
        assert [r.faces for r in results] == [1, 1, 1, 2, 2, 2, 1, 1]
        noted = ["several faces" in r.quality for r in results]
        assert noted == [r.faces > 1 for r in results]
        assert all(r.values is not None for r in results)

    def test_somebody_else_in_the_same_place_is_noticed_at_once(self, predictor, person) -> None:
        other = RenderedPerson(4)
        reference = predictor.encode(predictor.pipeline.crop(person()))
        results = list(predictor.results(stream([person()] * 5 + [other()] * 5), reference))
        noted = ["another person's than before" in r.quality for r in results]
        assert noted == 5 * [False] + 5 * [True]

    def test_closed_eyes_are_seen_in_every_frame(self, predictor, person) -> None:
        reference = read_reference(person(), predictor)
        shown = [person(), *(person(blink=b) for b in (0.0, 0.2, 1.0, 1.0, 1.0, 0.0))]
        known = (reference.features, reference.measures)
        results = list(predictor.results(stream(shown), *known))
        closed = ["closed eyes" in r.quality for r in results]
        assert closed == [False, False, False, True, True, True, False]
        # Only there the expression was read.
        assert [bool(r.face.blendshapes) for r in results] == [
            True,
            False,
            False,
            *3 * [True],
            False,
        ]


class TestReading:
    def test_a_video_is_read_in_about_one_run_a_frame(self, predictor, person, monkeypatch) -> None:
        frames = [moved(person({12: 3 * np.sin(i / 4) ** 2}), np.sin(i / 3)) for i in range(12)]
        reference = predictor.encode(predictor.pipeline.crop(person()))
        runs = []
        ran = FaceFollower.__call__
        monkeypatch.setattr(FaceFollower, "__call__", lambda *a: runs.append(ran(*a)) or runs[-1])
        fast = [result.values for result in predictor.results(stream(frames), reference)]
        assert [run is not None for run in runs] == [False] + 11 * [True]
        monkeypatch.setattr(Predictor, "_follower", lambda self: None)
        slow = [result.values for result in predictor.results(stream(frames), reference)]
        assert np.abs(np.subtract(fast, slow)).mean() < 0.1
        assert np.corrcoef(np.array(fast)[:, 6], np.array(slow)[:, 6])[0, 1] > 0.95  # AU 12

    def test_the_same_video_gives_the_same_readings(self, predictor) -> None:
        frames = list(moved_frames(8))
        reference = predictor.encode(predictor.pipeline.crop(frames[0]))
        first, again = (
            np.stack([r.values for r in predictor.results(stream(frames), reference)])
            for _ in range(2)
        )
        np.testing.assert_array_equal(first, again)

    def test_a_face_that_comes_and_goes(self, predictor, person) -> None:
        shown, gone = person(), np.full((256, 256, 3), 90, np.uint8)
        reference = predictor.encode(predictor.pipeline.crop(shown))
        frames = [shown, shown, gone, gone, moved(shown, 30), moved(shown, 31)]
        results = list(predictor.results(stream(frames), reference))
        assert [r.values is not None for r in results] == [True, True, False, False, True, True]
        assert results[2].problem == "no face"

    def test_two_faces_are_found_anew(self, predictor, person) -> None:
        small = cv2.resize(person(), (160, 160), interpolation=cv2.INTER_AREA)
        both = np.concatenate([person()[:160, 48:208], small], axis=1)
        alone = np.concatenate([person()[:160, 48:208], np.full_like(small, 90)], axis=1)
        find = OnePerson(predictor.pipeline, None, followed=True, follower=predictor._follower())
        counts = [find(Frame(i, 0.0, f, ""))[0][0].faces for i, f in enumerate([alone, both])]
        assert counts[0] == 1
        with FacePipeline(REFINED) as pipeline:
            assert counts[1] == len(pipeline.detect(both, max_faces=4))

    def test_pictures_aren_t_followed(self, predictor, person, monkeypatch) -> None:
        monkeypatch.setattr(FaceFollower, "__call__", lambda *_: pytest.fail("followed"))
        frames = [Frame(i, 0.0, person(), f"{i}.png") for i in range(2)]
        images = FrameStream("images", ("a", "b"), 2, None, iter(frames))
        reference = predictor.encode(predictor.pipeline.crop(person()))
        assert all(r.values is not None for r in predictor.results(images, reference))


def test_a_known_face_is_described_as_when_it_is_found(person) -> None:
    rgb = person({12: 3})
    with FacePipeline(WIDE) as pipeline:
        found = pipeline.detect(rgb)[0]
        (box,) = pipeline.detector.boxes(rgb)
        again = pipeline.detector.described(found.landmarks, box)
    assert isinstance(again, Face)
    assert again.box == found.box
    assert again.score == found.score
    np.testing.assert_allclose(again.pose, found.pose, atol=0.05)
    for name, value in found.blendshapes.items():
        assert again.blendshapes[name] == pytest.approx(value, abs=5e-3), name
