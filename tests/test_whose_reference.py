"""A reference that is another person's is noticed; the right one isn't doubted."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
from crowds import film
from rendered import RenderedPerson
from siamcal.benchmarks.memory import memory
from siamcal.benchmarks.stranger import stranger
from test_inference import make_calibrator
from videos import head, write_video

from siamcal.faces import FaceDetector
from siamcal.faces.identity import IdentityReader, identity_crop
from siamcal.inference import (
    Predictor,
    load_model,
    load_profile,
    predict_to_table,
    read_reference,
    save_profile,
)
from siamcal.inference.stranger import (
    FIRST_ONE_IN,
    LIMITS,
    ONE_IN,
    SOON_ONE_IN,
    STRANGER,
    SURE,
    StrangerWatch,
)

PEOPLE = (1, 0)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    with Predictor(load_model(make_calibrator(tmp_path_factory.mktemp("calibrator")))) as predictor:
        yield predictor


@pytest.fixture(scope="module")
def shown():
    """Frames of two people who act and turn, and each at rest."""
    frames = []
    for index in range(2):
        person = RenderedPerson(index)
        acting = [
            person({12: 3 * np.sin(n / 3) ** 2, 4: 2 * np.cos(n / 4) ** 2}, yaw=12 * np.sin(n / 5))
            for n in range(24)
        ]
        frames.append((person(), acting))
    return frames


def flagged(predictor, pictures, reference, folder):
    """How many rows say that it is another person."""
    clip = write_video(folder / "clip.mp4", pictures, crf="12")
    summary = predict_to_table(
        clip, folder / "aus.csv", predictor=predictor, reference=reference, replace=True
    )
    return summary.problems.get(STRANGER, 0)


def test_one_in_the_clip_one_in_the_reference(predictor, shown, tmp_path) -> None:
    for person in range(2):
        for whose in range(2):
            neutral, acting = read_reference(shown[whose][0], predictor), shown[person][1]
            found = flagged(predictor, acting, neutral, tmp_path)
            assert found == (0 if person == whose else 24), (person, whose, found)


def test_another_comes_in_midway(predictor, shown, tmp_path) -> None:
    pictures = shown[0][1] + shown[1][1] * 2
    neutral = read_reference(shown[0][0], predictor)
    found = flagged(predictor, pictures, neutral, tmp_path)
    assert 36 <= found <= 48
    table = (tmp_path / "aus.csv").read_text().splitlines()[1:]
    assert not any(STRANGER in row for row in table[:24])


def test_pictures_are_judged_one_by_one(predictor, shown) -> None:
    neutral = read_reference(shown[0][0], predictor)
    pictures = [shown[0][1][0], shown[1][1][0], shown[0][1][9]]
    known = (neutral.features, neutral.measures, neutral.identity)
    results = predictor.results(pictures, *known)
    assert [STRANGER in result.notes for result in results] == [False, True, False]


def test_a_real_face_is_its_own_whatever_the_camera_does() -> None:
    plain = head(320)
    noise = np.random.default_rng(0).normal(0, 8, plain.shape)
    turned = cv2.warpAffine(
        plain, cv2.getRotationMatrix2D((160, 160), 20, 1), (320, 320), borderMode=cv2.BORDER_REFLECT
    )
    changed = {
        "dark": plain * 0.25,
        "bright": plain * 1.3,
        "warm": plain * (1.1, 1.0, 0.75),
        "lit from the side": plain * np.linspace(0.5, 1.4, 320)[:, None],
        "noisy": plain + noise,
        "blurred": cv2.GaussianBlur(plain, (0, 0), 2.5),
        "small": cv2.resize(plain, (128, 128), interpolation=cv2.INTER_AREA),
        "turned": turned,
        "grey": plain.mean(2, keepdims=True).repeat(3, 2),
    }
    reader = IdentityReader()
    with FaceDetector() as detector:

        def place(picture):
            rgb = np.clip(picture, 0, 255).astype(np.uint8)
            return reader(identity_crop(rgb, detector.detect(rgb)[0]))

        own, other = place(plain), place(RenderedPerson(0)())
        likeness = {name: reader.likeness(own, place(picture)) for name, picture in changed.items()}
        assert min(likeness.values()) > SURE, likeness
        assert reader.likeness(own, other) < LIMITS[0]


def test_likeness_is_the_correlation_of_places_whose_values_have_the_mean_0() -> None:
    places = np.random.default_rng(0).normal(size=(2, 128))
    places -= places.mean(1, keepdims=True)
    expected = np.corrcoef(places)[0, 1]
    assert IdentityReader.likeness(3 * places[0], places[1]) == pytest.approx(expected)


class Scripted:
    """A reader that finds the places it was given, one after the other, and counts them."""

    likeness = staticmethod(IdentityReader.likeness)

    def __init__(self, *places) -> None:
        self.places, self.looks = places, []

    def watch(self, count, frame, doubted=(), followed=True):
        """What is said of so many faces; which of them were looked at is in `looks`."""
        watch = StrangerWatch(np.array([1.0, 0.0]), self, followed=followed)
        said = []
        for self.now in range(count):
            said.append(watch(frame[0], frame[1], doubted=self.now in doubted))
        return said

    def __call__(self, crop):
        self.looks.append(self.now)
        return np.array(self.places[min(len(self.looks), len(self.places)) - 1])


@pytest.fixture(scope="module")
def frame():
    rgb = head()
    with FaceDetector() as detector:
        return rgb, detector.detect(rgb)[0]


def test_faces_that_are_surely_the_persons_are_seldom_looked_at(frame) -> None:
    sure, unsure = Scripted((1.0, 0.1)), Scripted((0.75, 0.66))
    assert not any(sure.watch(100, frame) + unsure.watch(100, frame))
    assert sure.looks == [0, ONE_IN, 2 * ONE_IN]
    first = [0, FIRST_ONE_IN, 2 * FIRST_ONE_IN, 3 * FIRST_ONE_IN]
    assert unsure.looks == [*first, first[-1] + ONE_IN, first[-1] + 2 * ONE_IN]


def test_a_face_that_begins_to_look_otherwise_is_looked_at_soon(frame) -> None:
    other = Scripted((1.0, 0.1), (0.0, 1.0))
    said = other.watch(30, frame, doubted=[4, 5])
    assert other.looks[:2] == [0, SOON_ONE_IN]
    assert said == [""] * SOON_ONE_IN + [STRANGER] * (30 - SOON_ONE_IN)
    late = Scripted((1.0, 0.1), (0.0, 1.0))
    late.watch(30, frame, doubted=[25])
    assert late.looks[:2] == [0, 25]


def test_several_faces_decide_together_and_single_ones_for_themselves(frame) -> None:
    # A cosine of .67: more than the limit of one face, less than that of several.
    doubtful = (0.67, np.sqrt(1 - 0.67**2))
    assert LIMITS[0] < 0.67 < LIMITS[1]
    said = Scripted(doubtful).watch(12, frame)
    assert said == [""] * FIRST_ONE_IN + [STRANGER] * (12 - FIRST_ONE_IN)
    alone = Scripted(doubtful, (0.0, 1.0), (1.0, 0.0), doubtful)
    assert alone.watch(4, frame, followed=False) == ["", STRANGER, "", ""]
    assert alone.looks == [0, 1, 2, 3]


def test_a_profile_knows_whose_it_is_and_a_sidecar_does_not(predictor, shown, tmp_path) -> None:
    neutral = read_reference(shown[0][0], predictor)
    save_profile(neutral, tmp_path / "a.siamcal", predictor)
    loaded = load_profile(tmp_path / "a.siamcal", predictor)
    np.testing.assert_array_equal(loaded.identity, neutral.identity)
    assert loaded.warnings == neutral.warnings
    assert flagged(predictor, shown[1][1], loaded, tmp_path) == 24
    told = json.loads((tmp_path / "aus.json").read_text())
    assert "identity" not in told["reference"]
    assert "another person's" in " ".join(told["result"]["warnings"])


@pytest.mark.parametrize("age", ["of another version", "before it was kept"])
def test_an_older_profile_says_that_it_isnt_checked(
    predictor, shown, tmp_path, monkeypatch, age
) -> None:
    picture = tmp_path / "anna.png"
    cv2.imwrite(str(picture), shown[0][0][:, :, ::-1])
    neutral = read_reference(picture, predictor)
    if age == "before it was kept":
        neutral = dataclasses.replace(neutral, identity=None)
    save_profile(neutral, tmp_path / "a.siamcal", predictor)
    monkeypatch.setattr(predictor.identity, "key", age)
    loaded = load_profile(tmp_path / "a.siamcal", predictor)
    assert loaded.identity is None
    (said,) = set(loaded.warnings) - set(neutral.warnings)
    assert said.startswith("Reference: the profile was made by an earlier version of siamcal")
    assert f"siamcal calibrate {picture} -o {tmp_path / 'a.siamcal'}" in said
    assert flagged(predictor, shown[1][1], loaded, tmp_path) == 0


def test_profiles_of_two_people_that_were_swapped(predictor, tmp_path) -> None:
    frames = [picture for picture, _ in film(PEOPLE, "stand", 12)]
    clip = write_video(tmp_path / "both.mp4", frames, crf="12")
    alone = {
        n: read_reference(next(film((p,), "stand", 1))[0], predictor) for n, p in enumerate(PEOPLE)
    }
    # The wider face, number 0, is the second one's.
    for order, flagged in (((1, 0), range(1)), ((0, 1), range(18, 25))):
        references = {number: alone[whose] for number, whose in enumerate(order)}
        summary = predict_to_table(
            clip, tmp_path / "aus.csv", predictor=predictor, reference=references, replace=True
        )
        assert summary.problems.get(STRANGER, 0) in flagged, order


@pytest.mark.slow
def test_the_benchmark_tells_right_from_wrong() -> None:
    table = stranger(people=3, frames=12)
    rows = {row.split(" | ")[0].strip("| "): row.split(" | ") for row in table.splitlines()[2:]}
    assert float(rows["another person's"][4]) > 0.7  # of all faces
    for name in ("right, same session", "right, another session"):
        assert float(rows[name][4]) < 0.2


@pytest.mark.slow
def test_memory_is_measured_over_a_long_video() -> None:
    told = memory(minutes=1.5, every=100)
    assert (told["frames"], told["read"]) == (2250, 23)
    assert told["after a minute, MB"] > 50
    assert told["most behind it, MB"] >= told["at the end, MB"] > 50
