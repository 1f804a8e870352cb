"""A hand before the face is noticed, one beside it isn't, and none is seen where there is none."""

import hashlib
import pickle
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from rendered import RenderedPerson
from videos import astronaut

from siamcal.faces import FaceDetector, FacePipeline, judge_reference
from siamcal.faces._litert import _interpreter
from siamcal.faces.hands import REACHES, PalmDetector
from siamcal.faces.measures import FaceMeasures, measure_face
from siamcal.faces.media import Frame, FrameStream
from siamcal.faces.quality import judge_target
from siamcal.files import asset
from siamcal.inference import Predictor, choose_reference, load_model
from siamcal.inference.hand_watch import ONE_IN, SOONER, HandWatch
from siamcal.inference.references import read_reference
from siamcal.synth.occluders import cover

ROOT = Path(__file__).parent.parent
PEOPLE = (0, 1, 2, 3, 5)
HAND = "a hand before the face"


class Covered(RenderedPerson):
    """With fingers or hair before the face."""

    def __init__(self, index, kind, seed=0):
        super().__init__(index)
        self.person = cover(self.person, kind, np.random.default_rng(seed))


class Counting(FaceDetector):
    """Notes the windows in which it looked for hands."""

    def __init__(self):
        super().__init__()
        self.looked = []

    def hand_odds(self, rgb, face, reach):
        self.looked.append(reach)
        return super().hand_odds(rgb, face, reach)


@pytest.fixture(scope="module")
def detector():
    with FaceDetector() as detector:
        yield detector


@pytest.fixture(scope="module")
def hands():
    """Pictures of people with a hand before the face."""
    return [Covered(index, "fingers", seed)() for index in PEOPLE for seed in (0, 1)]


def strength(detector, picture):
    return detector.hand(picture, detector.detect(picture, max_faces=1)[0])


def test_hands_before_faces_are_noticed_and_none_without(detector, hands):
    seen = [strength(detector, picture) > 1 for picture in hands]
    assert sum(seen) >= 8, seen
    actions = ({}, {12: 4.0, 25: 3.0}, {26: 4.0, 25: 3.0})
    bare = [RenderedPerson(i)(a, yaw=y) for i in PEOPLE for a in actions for y in (0, 15)]
    assert not [s for s in (strength(detector, p) for p in [*bare, astronaut()]) if s > 1]


def test_a_hand_before_somebody_elses_face_is_not_ones_own(detector, hands):
    both = np.hstack([RenderedPerson(1)(), hands[0]])
    mine, other = sorted(detector.detect(both), key=lambda face: face.box[0])
    assert detector.hand(both, mine) < 1 < detector.hand(both, other)


def test_palms_are_decoded_as_by_the_formula(hands):
    """Every box of the network by itself, and the mean of those that share enough with the best."""
    detector = PalmDetector()
    run = _interpreter(model_path=str(asset("palm_detection_lite.tflite")), num_threads=1)
    run.allocate_tensors()
    checked = 0
    for picture in hands:
        window = cv2.resize(picture, (192, 192))
        run.set_tensor(run.get_input_details()[0]["index"], window[None] / np.float32(255))
        run.invoke()
        values, logits = (run.get_tensor(o["index"])[0] for o in run.get_output_details())
        found = detector(window, least=0.5)
        boxes = list(boxes_by_the_formula(values, logits[:, 0], 0.5))
        assert bool(found) == bool(boxes)
        if not boxes:
            continue
        best = max(boxes, key=lambda box: box[0])
        same = [box for box in boxes if shared(best[1], box[1]) > 0.3]
        weights = [box[0] for box in same]
        np.testing.assert_allclose(found[0].score, best[0], rtol=1e-5)
        for ours, place in ((found[0].corners, 1), (found[0].points.ravel(), 2)):
            mean = np.average([box[place] for box in same], axis=0, weights=weights)
            np.testing.assert_allclose(ours, mean, atol=1e-2)
        checked += 1
    assert checked >= 5


def boxes_by_the_formula(values, logits, least):
    """(score, corners, points) in pixels: 2 boxes a cell of 8 pixels, then 6 a cell of 16."""
    for place, (box, logit) in enumerate(zip(values, logits, strict=True)):
        cell, step, row = (place // 2, 8, 24) if place < 1152 else ((place - 1152) // 6, 16, 12)
        x, y = (cell % row + 0.5) * step, (cell // row + 0.5) * step
        score = 1 / (1 + np.exp(-float(logit)))
        if score < least:
            continue
        left, top = x + box[0] - box[2] / 2, y + box[1] - box[3] / 2
        points = [v + (x, y)[i % 2] for i, v in enumerate(box[4:])]
        yield score, (left, top, left + box[2], top + box[3]), points


def shared(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return both / (sum(areas) - both)


def test_strands_of_hair_are_noticed_against_the_reference_only(detector):
    noticed = []
    for index in PEOPLE:
        own, hair = (
            measured(detector, p) for p in (RenderedPerson(index)(), Covered(index, "hair")())
        )
        noticed.append("something before the face" in judge_target(hair, own).notes)
        assert judge_target(hair, hair).occlusion < 1, "a fringe is the person's own"
        old = {k: v for k, v in own.to_dict().items() if k not in ("strands", "hand")}
        assert judge_target(own, FaceMeasures.from_dict(old)).occlusion < 1
        told = judge_target(hair, FaceMeasures.from_dict(old)).occlusion
        assert told <= judge_target(hair, own).occlusion, "an old profile says nothing of hair"
    assert sum(noticed) >= 4, noticed


def measured(detector, picture):
    return measure_face(picture, detector.detect(picture, max_faces=1)[0])


def test_a_hand_speaks_against_a_reference(detector, hands):
    picture = next(p for p in hands if strength(detector, p) > 1)
    (face, *_) = detector.detect(picture, max_faces=1)
    problems = judge_reference(picture, face, detector).problems
    assert any("seems to cover the face (a hand, in the picture)" in text for text in problems)


def test_a_recording_is_looked_at_now_and_then_and_at_a_hand_more_often(hands):
    with Counting() as detector:
        bare = RenderedPerson(1)()
        covered = next(p for p in hands if strength(detector, p) > 1)
        frames = [bare] * 45 + [covered] * 30 + [bare] * 45
        faces = {id(p): detector.detect(p, max_faces=1)[0] for p in (bare, covered)}
        detector.looked.clear()
        watch, told, looks = HandWatch(detector, followed=True), [], []
        for picture in frames:
            told.append(watch(picture, faces[id(picture)]) > 1)
            looks.append(len(detector.looked))
        assert looks[44] == 4, "two at the start, then one in 20"
        assert set(detector.looked) == set(REACHES), "the windows take turns"
        assert not any(told[:45])
        assert all(told[45 + 2 * ONE_IN : 75])
        assert not any(told[75 + 2 * SOONER :])
        detector.looked.clear()
        watch = HandWatch(detector, followed=True)
        covers = [watch(bare, faces[id(bare)], cover) for cover in [0.2] * 6 + [0.9] * 6]
        assert len(detector.looked) == 3, "two at the start, one where more covers it"
        assert covers == [watch(bare, faces[id(bare)], 0.9)] * 12
        alone = HandWatch(detector, followed=False)
        assert [alone(p, faces[id(p)]) > 1 for p in (covered, bare)] == [True, False]


def stream(pictures, kind):
    frames = (Frame(i, i / 2, rgb, "clip") for i, rgb in enumerate(pictures))
    return FrameStream(kind, ("clip",), len(pictures), 2.0, frames)


def test_frames_with_a_hand_are_flagged_and_are_no_reference(hands):
    """A person at rest whose hand lies on the face half of the time."""
    person, hand = RenderedPerson(1), Covered(1, "fingers", 1)
    turns = np.linspace(-3, 3, 14)
    pictures = [*(hand(yaw=t) for t in turns), *(person(yaw=t) for t in turns[:12])]
    with Predictor(load_model()) as predictor:
        chosen = choose_reference(stream(pictures, "video"), predictor)
        assert chosen.facts["frame"] > len(turns)
        reference = read_reference(person(), predictor)
        for kind in ("video", "images"):
            results = predictor.results(
                stream(pictures, kind), reference.features, reference.measures
            )
            notes = [HAND in result.notes for result in results]
            assert sum(notes[: len(turns)]) >= len(turns) - 2
            late = 0 if kind == "images" else 2 * SOONER  # after the hand has gone
            assert not any(notes[len(turns) + late :])


def test_everybodys_hands_are_their_own(hands):
    with Predictor(load_model()) as predictor:
        people = [RenderedPerson(1)(), hands[0]]
        both = np.hstack(people)
        references = {n: read_reference(p, predictor) for n, p in enumerate((people[0], people[0]))}
        found = predictor.results_of_people(
            stream([both] * 3, "video"), {n: r.features for n, r in references.items()}
        )
        noted = {(r.face.box[0] > 256, HAND in r.notes) for r in found}
    assert noted == {(False, False), (True, True)}


def test_everybodys_pictures_are_looked_at_one_by_one(hands):
    """What one picture shows says nothing of the next, where they don't follow one another."""
    person, hand = RenderedPerson(1), Covered(1, "fingers", 1)
    pictures = [hand(), person(yaw=1), hand(yaw=1), person(yaw=2)]
    with Predictor(load_model()) as predictor:
        reference = read_reference(person(), predictor)
        found = predictor.results_of_people(
            stream(pictures, "images"), {0: reference.features}, {0: reference.measures}
        )
        assert [HAND in result.notes for result in found] == [True, False, True, False]


def test_a_copy_in_another_process_sees_the_same(hands):
    with FacePipeline() as pipeline:
        first = strength(pipeline.detector, hands[0])
        copy = pickle.loads(pickle.dumps(pipeline))
        assert strength(copy.detector, hands[0]) == first


def test_the_networks_are_those_of_the_wheel():
    told = (ROOT / "siamcal" / "assets" / "ATTRIBUTION.md").read_text()
    for name in ("palm_detection_lite.tflite", "hand_landmark_lite.tflite"):
        start, end = re.search(rf"`{name}` \(sha256 `(\w+)…(\w+)`\)", told).groups()
        found = hashlib.sha256(asset(name).read_bytes()).hexdigest()
        assert found.startswith(start)
        assert found.endswith(end)
    command = [sys.executable, str(ROOT / "scripts" / "fetch_networks.py"), "--check"]
    assert (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.count(
            "as expected"
        )
        == 3
    )
