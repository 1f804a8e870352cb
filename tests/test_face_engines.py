"""The default engine against MediaPipe itself, as the oracle; and what each engine sends."""

import pickle
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated
from packets import alone_in_a_network, packets_tried, say
from rendered import RenderedPerson
from skimage import data
from videos import astronaut, head, write_video

from siamcal.errors import ConfigError, MissingDependencyError
from siamcal.faces import FaceDetector, FacePipeline, judge_reference
from siamcal.faces._litert import _interpreter, _with_output, task_member
from siamcal.faces.engines import ENGINES
from siamcal.inference import Predictor, load_model

OUTER_EYE_CORNERS = (33, 263)


@pytest.fixture(scope="module")
def litert():
    with FaceDetector() as detector:
        yield detector


@pytest.fixture(scope="module")
def oracle():
    with FaceDetector("mediapipe") as detector:
        yield detector


def in_frame(picture, height=720, width=1280, left=700, top=300):
    """A picture as a part of a wide frame, in which the face is found by tiles."""
    frame = np.full((height, width, 3), 90, np.uint8)
    frame[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return frame


@pytest.fixture(scope="module")
def pictures():
    """People at several sizes and turns, alone and side by side, and a photograph."""
    found = []
    for index, (yaw, pitch) in product(range(4), [(0, 0), (25, 0), (-30, 5)]):
        actions = {12: 3.0, 1: 2.0} if index % 2 else {25: 3.0, 4: 3.0}
        frame = RenderedPerson(index)(actions, yaw=yaw, pitch=pitch)
        found += [cv2.resize(frame, (side, side)) for side in (140, 480, 900)]
        found += [frame, in_frame(frame)]
    both = [RenderedPerson(index)() for index in (4, 5)]
    found.append(np.concatenate(both, axis=1))
    found += [cv2.resize(astronaut(), (side, side)) for side in (300, 512, 1200)]
    turn = cv2.getRotationMatrix2D((224, 120), 25, 1.2)
    found.append(cv2.warpAffine(astronaut(), turn, (512, 512)))
    found.append(np.ascontiguousarray(astronaut()[78:172, 186:266]))  # fills the picture
    return found


def differences(faces, others):
    """Landmarks in % of the eyes' distance, coefficients, degrees: (F, 478), (F, 51) and (F, 3)."""
    a, b = OUTER_EYE_CORNERS
    landmarks, shapes, angles = [], [], []
    for face, other in zip(faces, others, strict=True):
        unit = np.linalg.norm(other.landmarks[a] - other.landmarks[b]) / 100
        landmarks.append(np.linalg.norm(face.landmarks - other.landmarks, axis=1) / unit)
        assert face.blendshapes.keys() == other.blendshapes.keys()
        shapes.append([abs(face.blendshapes[n] - other.blendshapes[n]) for n in other.blendshapes])
        angles.append(np.abs(np.subtract(face.pose, other.pose)))
    return [np.array(landmarks), np.array(shapes), np.array(angles)]


def a_pixel_larger(picture, detector):
    """The faces in a picture that has a row and a column more, in the picture's coordinates."""
    moved = cv2.copyMakeBorder(picture, 1, 0, 1, 0, cv2.BORDER_REPLICATE)
    return [replace(f, landmarks=f.landmarks - (1, 1, 0)) for f in detector.detect(moved)]


def test_both_engines_tell_the_same(litert, oracle, pictures):
    ours, noise = [], []
    for picture in pictures:
        faces, theirs = litert.detect(picture), oracle.detect(picture)
        assert [face.box for face in faces] == [face.box for face in theirs]
        assert [f.score for f in faces] == pytest.approx([f.score for f in theirs], abs=1e-3)
        ours.append(differences(faces, theirs))
        again = a_pixel_larger(picture, oracle)
        if len(again) == len(theirs):
            noise.append(differences(again, theirs))
    limits = {"landmarks, %": 0.3, "coefficients": 0.02, "angles, degrees": 0.5}
    for (name, limit), of_ours, of_noise in zip(
        limits.items(),
        map(np.concatenate, zip(*ours, strict=True)),
        map(np.concatenate, zip(*noise, strict=True)),
        strict=True,
    ):
        for share in (50, 95, 99):
            found, own = np.percentile(of_ours, share), np.percentile(of_noise, share)
            told = f"{name}: {share} % of {of_ours.size} differ by at most {found:.4f};"
            say(f"{told} MediaPipe from itself, a pixel farther, by {own:.4f}")
            assert found < own
        assert np.percentile(of_ours, 95) < limit
        assert (np.median(of_ours, axis=1) < limit).mean() > 0.95  # of the faces


@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket"])
def test_neither_engine_sees_faces_where_there_are_none(litert, oracle, name):
    picture = np.ascontiguousarray(getattr(data, name)())
    assert litert.detect(picture) == oracle.detect(picture) == []


def test_a_copy_and_a_child_process_see_the_same(litert):
    import multiprocessing

    (face,) = litert.detect(astronaut())
    copy = pickle.loads(pickle.dumps(litert))
    assert copy.engine == "litert"
    assert np.array_equal(copy.detect(astronaut())[0].landmarks, face.landmarks)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        ((forked,),) = pool.map(litert.detect, [astronaut()])
    assert np.array_equal(forked.landmarks, face.landmarks)
    assert forked.blendshapes == face.blendshapes
    assert pickle.loads(pickle.dumps(FaceDetector("mediapipe"))).engine == "mediapipe"


def test_a_face_without_details_has_the_same_landmarks_and_is_not_judged(litert):
    (face,), (plain,) = (litert.detect(astronaut(), details=d) for d in (True, False))
    assert np.array_equal(plain.landmarks, face.landmarks)
    assert plain.blendshapes == {}
    assert np.isnan(plain.pose).all()
    with pytest.raises(ConfigError, match="details=True"):
        judge_reference(astronaut(), plain, litert)


def test_both_engines_judge_a_reference_alike(litert, oracle):
    for index in range(3):
        for actions in ({}, {12: 4.0, 25: 3.0}):
            frame = RenderedPerson(index)(actions)
            ours, theirs = (judge_reference(frame, *d.detect(frame), d) for d in (litert, oracle))
            assert ours.score == pytest.approx(theirs.score, abs=0.05)
            words = [[p.split(" (")[0] for p in j.problems] for j in (ours, theirs)]
            assert words[0] == words[1]


def test_the_packaged_calibrator_reads_the_same_by_both_engines(litert, oracle):
    model = load_model()
    readings = []
    for detector in (litert, oracle):
        pipeline = FacePipeline(model.config.preprocessing)
        pipeline.detector = detector
        predictor = Predictor(model, pipeline=pipeline)
        of_people = []
        for index in range(3):
            person = RenderedPerson(index)
            frames = [person({au: 4.0, 25: 2.0}, yaw=3.0 * au - 12) for au in (1, 4, 6, 12)]
            crops = np.stack([pipeline.crop(frame) for frame in frames])
            of_people.append(predictor.read(crops, predictor.encode(pipeline.crop(person()))))
        readings.append(np.concatenate(of_people))
    ours, theirs = readings
    say(f"{ours.size} readings differ by at most {np.abs(ours - theirs).max():.3f}")
    assert ours.std() > 0.5
    assert np.abs(ours - theirs).max() < 0.25
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.999


def test_the_mirrored_face_is_where_a_search_of_the_mirrored_frame_finds_it(litert):
    for frame in (in_frame(RenderedPerson(0)()), RenderedPerson(1)(yaw=20), astronaut()):
        (face,) = litert.detect(frame)
        (searched,) = litert.detect(np.ascontiguousarray(frame[:, ::-1]), details=False)
        known = litert.mirrored(frame, face)
        (landmarks, _, _) = differences([known], [searched])
        assert np.median(landmarks) < 2
    covered = in_frame(np.full((256, 256, 3), 90, np.uint8))
    (face,) = litert.detect(in_frame(RenderedPerson(0)()))
    assert litert.mirrored(covered, face) is None


def test_an_unknown_engine_is_refused_with_what_each_sends():
    with pytest.raises(ConfigError, match="'dlib' was given") as caught:
        FaceDetector("dlib")
    for name, told in ENGINES.items():
        assert f"'{name}' ({told})" in str(caught.value)


def test_without_litert_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'siamcal\[predict\]'"):
        _interpreter(num_threads=1)


def test_a_further_output_is_all_that_changes_in_a_network():
    name, shape = "face_landmarks_detector.tflite", (1, 16, 16, 128)
    before, after = map(unpacked, (task_member(name), _with_output(name, shape)))
    (graph,), (changed,) = before.subgraphs, after.subgraphs
    *outputs, last = changed.outputs.tolist()
    assert outputs == graph.outputs.tolist()
    assert last == max(n for n, t in enumerate(graph.tensors) if tuple(t.shape) == shape)
    changed.outputs = graph.outputs
    assert plain(after) == plain(before)


def unpacked(content):
    """Read by TFLite's own schema."""
    return schema_py_generated.ModelT.InitFromPackedBuf(content, 0)


def plain(value):
    """An unpacked table as dicts and lists."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list):
        return [plain(one) for one in value]
    if hasattr(value, "__dict__"):
        return {name: plain(one) for name, one in vars(value).items()}
    return value


# --- connections ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not alone_in_a_network(), reason="no network namespaces here")
def test_predict_opens_no_connection(tmp_path):
    clip = write_video(tmp_path / "clip.mp4", [head()] * 3)
    cv2.imwrite(str(tmp_path / "neutral.png"), head()[..., ::-1])
    siamcal = str(Path(sys.executable).with_name("siamcal"))
    tried = {}
    for engine in (None, "mediapipe"):
        command = [siamcal, "predict", str(clip), "--reference", str(tmp_path / "neutral.png")]
        command += ["-o", str(tmp_path / f"{engine}.csv")]
        command += [] if engine is None else ["--face-engine", engine]
        tried[engine or "default"] = packets_tried(command, tmp_path)
    say(f"packets tried: {tried}")
    assert tried["default"] == 0
    assert tried["mediapipe"] > 0  # so the count sees what is sent
    assert "contacts a server of its maker" in (tmp_path / "out").read_text()
