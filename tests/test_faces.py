"""Faces: found, placed, normalised; on scikit-image's astronaut, a public-domain photograph."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from siamcal.errors import ConfigError, FaceNotFoundError, MissingDependencyError
from siamcal.faces import FacePipeline, judge_reference
from siamcal.faces._mediapipe import import_vision
from siamcal.faces._quiet import quiet_stderr
from siamcal.faces.alignment import (
    CHIN,
    EYE_DISTANCE,
    EYE_LINE,
    close_crop,
    rigid_placement,
    transform_landmarks,
)
from siamcal.faces.illumination import normalise_illumination
from siamcal.faces.normalisation import GREY, SKULL_OUTLINE, face_oval, local_contrast
from siamcal.preprocessing import ALIGNMENTS, CONTRASTS, ILLUMINATIONS, MASKS, Preprocessing

GOLDEN = json.loads((Path(__file__).parent / "data" / "illumination_golden.json").read_text())


@pytest.fixture(scope="module")
def pipeline():
    with FacePipeline() as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def astronaut():
    return np.ascontiguousarray(data.astronaut())


@pytest.fixture(scope="module")
def face(pipeline, astronaut):
    return pipeline.detect(astronaut)[0]


def similarity(image, degrees=0.0, scale=1.0, shift=(0, 0), canvas=None):
    matrix = cv2.getRotationMatrix2D((224, 120), degrees, scale)
    matrix[:, 2] += shift
    return cv2.warpAffine(image, matrix, canvas or image.shape[1::-1], flags=cv2.INTER_AREA)


def with_settings(pipeline, image, face, **settings):
    before, pipeline.preprocessing = pipeline.preprocessing, Preprocessing(**settings)
    try:
        return pipeline.align(image, face)
    finally:
        pipeline.preprocessing = before


# --- detection -----------------------------------------------------------------------------------


def test_astronaut_has_one_face_where_it_is(pipeline, astronaut):
    (face,) = pipeline.detect(astronaut)
    assert face.landmarks.shape == (478, 3)
    assert face.landmarks.dtype == np.float32
    # Read off the picture by eye.
    assert np.allclose(face.landmarks[33, :2], (195, 101), atol=4)
    assert np.allclose(face.landmarks[263, :2], (255, 104), atol=4)
    assert np.allclose(face.landmarks[CHIN, :2], (221, 177), atol=5)
    assert 0.8 < face.score <= 1
    assert len(face.blendshapes) == 51
    assert face.blendshapes["mouthSmileLeft"] > 0.7
    assert face.blendshapes["jawOpen"] < 0.3


@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket", "retina"])
def test_pictures_without_a_face(pipeline, name):
    assert pipeline.detect(np.ascontiguousarray(getattr(data, name)())) == []


def test_no_face_is_an_error_that_says_what_a_face_needs(pipeline):
    with pytest.raises(FaceNotFoundError, match=r"300x200 pixels.*upright"):
        pipeline.crop(np.full((200, 300, 3), 90, np.uint8))


def test_a_small_face_in_a_wide_frame_is_found(pipeline, astronaut):
    frame = np.full((1080, 1920, 3), 70, np.uint8)
    frame[700:930, 1500:1730] = cv2.resize(
        astronaut[:300, 80:380], (230, 230), interpolation=cv2.INTER_AREA
    )
    (face,) = pipeline.detect(frame)
    assert 1500 < face.landmarks[33, 0] < face.landmarks[263, 0] < 1730


def test_a_picture_longer_than_opencv_counts_is_read(pipeline, astronaut):
    tall = np.zeros((33_000, 400, 3), np.uint8)
    tall[32_500:32_900] = cv2.resize(astronaut[:300, 80:380], (400, 400))
    (face,) = pipeline.detect(tall)
    assert np.allclose(face.landmarks[33, :2], (153, 32_635), atol=8)
    near = np.ascontiguousarray(tall[32_000:])
    assert np.abs(pipeline.align(tall, face).astype(int) - pipeline.crop(near)).mean() < 6


def test_a_face_that_fills_the_picture_is_found(pipeline, astronaut):
    tight = np.ascontiguousarray(astronaut[78:172, 186:266])
    (face,) = pipeline.detect(tight)
    assert np.allclose(face.landmarks[33, :2], (195 - 186, 101 - 78), atol=5)


def test_the_widest_of_two_faces_comes_first(pipeline, astronaut):
    small = cv2.resize(astronaut[:300, 80:380], (240, 240), interpolation=cv2.INTER_AREA)
    frame = np.full((400, 560, 3), 60, np.uint8)
    frame[50:290, 10:250] = small
    frame[50:350, 255:555] = astronaut[:300, 80:380]
    first, second = pipeline.detect(frame)
    assert first.box[2] > second.box[2]
    assert first.landmarks[33, 0] > 255 > second.landmarks[263, 0]
    alone = pipeline.crop(np.ascontiguousarray(frame[:, 250:]))
    assert np.abs(pipeline.crop(frame).astype(int) - alone).mean() < 6


def test_neighbouring_faces_keep_their_own_landmarks(pipeline, astronaut):
    head = astronaut[40:190, 160:290]
    frame = np.concatenate([head, head[:, ::-1], head], axis=1)
    frame = cv2.copyMakeBorder(frame, 60, 60, 60, 60, cv2.BORDER_CONSTANT)
    faces = pipeline.detect(frame)
    centres = sorted(float(f.landmarks[:, 0].mean()) for f in faces)
    assert len(centres) == 3
    assert np.all(np.diff(centres) > 100)


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
        [[0]],
    ],
    ids=["grey", "alpha", "float", "empty", "list"],
)
def test_what_is_no_rgb_frame_is_refused_with_a_way_out(pipeline, frame):
    with pytest.raises(ConfigError, match="read_image"):
        pipeline.crop(frame)


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 400, 3), (700, 5, 3)])
def test_odd_shapes_hold_no_face_and_break_nothing(pipeline, shape):
    assert pipeline.detect(np.full(shape, 100, np.uint8)) == []


def test_frames_may_be_views(pipeline, astronaut):
    flipped_twice = astronaut[:, ::-1][:, ::-1]
    bgr_view = astronaut[..., ::-1].copy()[..., ::-1]
    assert np.array_equal(pipeline.crop(flipped_twice), pipeline.crop(astronaut))
    assert np.array_equal(pipeline.crop(bgr_view), pipeline.crop(astronaut))


# --- alignment -----------------------------------------------------------------------------------


@pytest.mark.parametrize("align", ALIGNMENTS)
@pytest.mark.parametrize("illumination", ILLUMINATIONS)
def test_every_setting_gives_a_crop(pipeline, astronaut, face, align, illumination):
    seen = set()
    for contrast in CONTRASTS:
        for mask in MASKS:
            settings = {"align": align, "illumination": illumination}
            crop = with_settings(
                pipeline, astronaut, face, **settings, contrast=contrast, mask=mask, size=96
            )
            assert crop.shape == (96, 96, 3)
            assert crop.dtype == np.uint8
            seen.add(crop.tobytes())
    assert len(seen) == 4


def test_crops_are_the_same_every_time_and_do_not_depend_on_history(pipeline, astronaut):
    first = pipeline.crop(astronaut)
    pipeline.crop(similarity(astronaut, 15, 1.3))
    assert np.array_equal(pipeline.crop(astronaut), first)
    with FacePipeline() as other:
        assert np.array_equal(other.crop(astronaut), first)


@pytest.mark.parametrize(("degrees", "scale"), [(0, 0.7), (0, 1.6), (-20, 1.0), (25, 1.2)])
@pytest.mark.parametrize("align", ALIGNMENTS)
def test_roll_size_and_place_hardly_change_the_crop(pipeline, astronaut, align, degrees, scale):
    plain = {"align": align, "contrast": "none", "mask": "none"}
    still = with_settings(pipeline, astronaut, pipeline.detect(astronaut)[0], **plain)
    moved_frame = similarity(astronaut, degrees, scale, (60, 40), (600, 600))
    moved = with_settings(pipeline, moved_frame, pipeline.detect(moved_frame)[0], **plain)
    inside = slice(30, 82)
    difference = np.abs(still.astype(int) - moved)[inside, inside].mean()
    shuffled = np.abs(still.astype(int) - np.roll(still, 8, 1))[inside, inside].mean()
    assert difference < 12
    assert difference < 0.6 * shuffled


def test_the_rigid_crop_puts_the_eyes_where_it_says(face):
    placement = rigid_placement(face.landmarks)
    eyes = transform_landmarks(face.landmarks, placement.matrix(200))[[33, 133, 362, 263], :2]
    assert np.allclose(eyes.mean(0), (100, 200 * EYE_LINE), atol=1)
    assert np.hypot(*(eyes[3] - eyes[0])) == pytest.approx(200 * EYE_DISTANCE, rel=0.06)


def test_the_close_crop_lies_where_dlibs_chips_do(pipeline, astronaut, face):
    """dlib lays five points onto those of a mean face: eye corners and the base of the nose."""
    mean = np.array([[0.8596, 0.2135], [0.6461, 0.2290], [0.1206, 0.2137], [0.3341, 0.2291],
                     [0.4901, 0.6278]])  # fmt: skip
    size = 150
    goal = (0.25 + mean) / 1.5 * size
    points = face.landmarks[[263, 362, 33, 133, 2], :2].astype(float)
    # Least squares for (a, b, x, y): [[a, -b], [b, a]] @ point + (x, y).
    rows = [r for x, y in points for r in ((x, -y, 1, 0), (y, x, 0, 1))]
    a, b, x, y = np.linalg.lstsq(np.array(rows), goal.ravel(), rcond=None)[0]
    theirs = np.array([[a, -b, x], [b, a, y]])
    _, ours = close_crop(astronaut, face, size)
    inside = np.array([[30, 40], [120, 40], [75, 100], [40, 130], [110, 130]], float)
    frame = (inside - theirs[:, 2]) @ np.linalg.inv(theirs[:, :2]).T
    apart = np.hypot(*(frame @ ours[:, :2].T + ours[:, 2] - inside).T)
    assert apart.max() < 0.06 * size


def test_jaw_and_mouth_and_brows_have_no_say_in_the_rigid_crop(face):
    rigid = {33, 133, 263, 362, 168, 6, 197, 195}
    others = [i for i in range(478) if i not in rigid]
    moved = face.landmarks.copy()
    moved[others] += np.random.default_rng(0).normal(0, 20, (len(others), 3))
    assert rigid_placement(moved) == rigid_placement(face.landmarks)


def test_a_turned_head_is_not_enlarged(face):
    centred = face.landmarks - face.landmarks.mean(0)
    for degrees in (15, 30):
        turn = np.radians(degrees)
        rotation = np.array(
            [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
        )
        turned = rigid_placement(centred @ rotation.T)
        straight = rigid_placement(centred)
        assert turned.eye_distance == pytest.approx(straight.eye_distance, rel=1e-6)


def test_raised_brows_and_a_dropped_jaw_fit_the_rigid_crop(face):
    placed = transform_landmarks(face.landmarks, rigid_placement(face.landmarks).matrix(100))
    eye_distance = 100 * EYE_DISTANCE
    brows_up = placed[[105, 334], 1] - 0.25 * eye_distance
    jaw_down = placed[CHIN, 1] + 0.35 * eye_distance
    assert brows_up.min() > 0
    assert jaw_down < 100
    assert placed[[234, 454], 0].min() > 5
    assert placed[[234, 454], 0].max() < 95


def test_the_quad_reaches_from_jaw_end_to_jaw_end_and_below_the_chin(pipeline, astronaut, face):
    from siamcal.faces.alignment import ffhq_quad

    crop, matrix = ffhq_quad(astronaut, face, 112)
    assert max(crop.shape[:2]) == 112
    placed = transform_landmarks(face.landmarks, matrix)
    assert placed[127, 0] == pytest.approx(0, abs=1)
    assert placed[356, 0] == pytest.approx(crop.shape[1], abs=1)
    eyes = placed[[33, 160, 158, 133, 153, 144], :2].mean(0) / 2
    eyes = eyes + placed[[362, 385, 387, 263, 373, 380], :2].mean(0) / 2
    chin = np.hypot(*(placed[CHIN, :2] - eyes))
    assert eyes[1] == pytest.approx(0.5 * chin, abs=1)
    assert crop.shape[0] - eyes[1] == pytest.approx(1.05 * chin, abs=1.5)


def test_the_padded_quad_is_black_at_both_sides(pipeline, astronaut, face):
    crop = with_settings(pipeline, astronaut, face, align="ffhq_quad", contrast="none", mask="none")
    columns = crop.reshape(112, -1, 3).max((0, 2))
    empty = int((columns == 0).sum())
    assert 4 < empty < 40
    assert np.all(columns[: empty // 2] == 0)
    assert columns[56] > 100


def test_crops_at_the_frame_border_are_black_outside(pipeline, astronaut, face):
    cut = np.ascontiguousarray(astronaut[78:, :])
    (cut_face,) = pipeline.detect(cut)
    crop = with_settings(pipeline, cut, cut_face, contrast="none", mask="none")
    assert crop[:8].max() == 0
    assert crop[40:].max() > 100


# --- illumination --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("csn_released", "released (RGB array passed through BGR2YCrCb)"),
        ("csn_rgb", "channel-correct (RGB2YCrCb)"),
    ],
)
def test_illumination_equals_the_golden_file(kind, key):
    rgb = np.array(GOLDEN["rgb_in"], np.uint8)
    expected = np.array(GOLDEN[key]["rgb_out"], np.uint8)
    assert np.array_equal(normalise_illumination(rgb, kind), expected)


@pytest.mark.parametrize("kind", ["csn_released", "csn_rgb"])
@pytest.mark.parametrize("value", [0, 77, 255])
def test_a_constant_picture_passes_unchanged(kind, value):
    flat = np.full((5, 4, 3), value, np.uint8)
    result = normalise_illumination(flat, kind)
    assert np.array_equal(result, flat)
    assert result is not flat


def test_the_two_channel_orders_differ_on_skin(astronaut):
    released = normalise_illumination(astronaut, "csn_released")
    assert not np.array_equal(released, normalise_illumination(astronaut, "csn_rgb"))


# --- mask and contrast ---------------------------------------------------------------------------


def test_the_mask_does_not_know_the_jaw(face):
    """A dropped jaw, raised brows, a wide mouth: the mask stays bit for bit the same."""
    placed = transform_landmarks(face.landmarks, rigid_placement(face.landmarks).matrix(112))
    free = [33, 133, 263, 362, 168, 6, 197, 195, *SKULL_OUTLINE]
    others = [i for i in range(478) if i not in free]
    moved = placed.copy()
    moved[others] += np.random.default_rng(1).normal(0, 6, (len(others), 3)).astype(np.float32)
    moved[CHIN, 1] += 15
    assert np.array_equal(face_oval(moved, 112), face_oval(placed, 112))


def test_the_mask_holds_the_face_and_a_dropped_chin(face):
    placed = transform_landmarks(face.landmarks, rigid_placement(face.landmarks).matrix(112))
    mask = face_oval(placed, 112)
    assert set(np.unique(mask)) == {0, 255}
    assert 0.3 < (mask > 0).mean() < 0.65
    inside = [33, 263, 61, 291, 4, 105, 334, CHIN]
    for x, y in placed[inside, :2]:
        assert mask[int(y), int(x)] == 255
    chin = placed[CHIN]
    assert mask[int(chin[1] + 0.25 * 112 * EYE_DISTANCE), int(chin[0])] == 255
    for corner in ((0, 0), (0, 111), (111, 0), (111, 111)):
        assert mask[corner] == 0


def test_outside_the_mask_all_is_grey(pipeline, astronaut, face):
    for contrast in CONTRASTS:
        crop = with_settings(pipeline, astronaut, face, contrast=contrast)
        assert np.all(crop[0, [0, -1]] == GREY)
        assert np.all(crop[-1, [0, -1]] == GREY)


def test_local_contrast_forgets_exposure_and_colour(pipeline, astronaut, face):
    plain = with_settings(pipeline, astronaut, face, contrast="none", mask="none")
    dark = (plain * 0.55).astype(np.uint8)
    tinted = np.clip(plain.astype(float) * (1.0, 0.95, 0.8), 0, 255).astype(np.uint8)
    reference = local_contrast(plain).astype(int)
    for changed in (dark, tinted):
        before = np.abs(plain.astype(int) - changed).mean()
        assert np.abs(reference - local_contrast(changed)).mean() < 0.4 * before


def test_local_contrast_of_a_flat_picture_is_grey():
    flat = np.full((40, 40, 3), 93, np.uint8)
    assert np.all(local_contrast(flat) == GREY)
    assert np.all(local_contrast(flat, np.zeros((40, 40), np.uint8)) == GREY)


def test_the_background_cannot_reach_the_face(pipeline, astronaut, face):
    placed = rigid_placement(face.landmarks).matrix(112)
    mask = face_oval(transform_landmarks(face.landmarks, placed), 112)
    plain = with_settings(pipeline, astronaut, face, contrast="none", mask="none")
    other = plain.copy()
    other[mask == 0] = 255
    inside = mask > 0
    assert np.array_equal(local_contrast(plain, mask)[inside], local_contrast(other, mask)[inside])


# --- processes and installations -----------------------------------------------------------------


def test_nothing_is_logged_and_nothing_fails_at_exit():
    code = (
        "import numpy as np; from skimage import data; from siamcal.faces import FacePipeline\n"
        "p = FacePipeline(); a = np.ascontiguousarray(data.astronaut())\n"
        "for i in range(5): p.detect(np.ascontiguousarray(a[:, i:]))\n"
        "print('done')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "done\n"
    assert run.stderr == ""


def test_only_logs_are_dropped(capfd):
    with quiet_stderr():
        os.write(2, b"W0000 00:00:1795365317.288555 5227 face.cc:181] noise\nINFO: noise\n")
        os.write(2, b"somebody else\n")
    assert capfd.readouterr().err == "somebody else\n"

    def fail():
        with quiet_stderr():
            os.write(2, b"INFO: why it failed\n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert "why it failed" in capfd.readouterr().err


def test_a_pipeline_can_be_sent_to_a_worker(pipeline, astronaut):
    import pickle

    pipeline.crop(astronaut)
    with pickle.loads(pickle.dumps(pipeline)) as copy:
        assert copy.detector._process is None
        assert np.array_equal(copy.crop(astronaut), pipeline.crop(astronaut))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("libEGL.so.1: cannot open shared object file: No such file", "apt-get install libegl1"),
        ("libGLESv2.so.2: cannot open shared object file", "package libgles2"),
        ("libGL.so.1: cannot open shared object file", "package libgl1"),
        ("libwayland-x.so.9: cannot open shared object file", "apt-file search libwayland-x.so"),
        ("No module named 'mediapipe'", "pip install 'siamcal[mediapipe]'"),
    ],
)
def test_a_missing_library_is_answered_with_its_package(message, expected):
    def importer(name):
        raise (OSError if message.startswith("lib") else ImportError)(message)

    with pytest.raises(MissingDependencyError, match="The face engine 'mediapipe' needs") as caught:
        import_vision(importer)
    assert expected in str(caught.value)


# --- pose and neutrality -------------------------------------------------------------------------


def test_pose_follows_the_head(pipeline, astronaut, face):
    yaw, pitch, roll = face.pose
    assert abs(yaw) < 10
    assert abs(pitch) < 15
    (leaning,) = pipeline.detect(similarity(astronaut, -20))  # clockwise in the picture
    assert leaning.pose[2] - roll == pytest.approx(20, abs=5)
    (mirrored,) = pipeline.detect(np.ascontiguousarray(astronaut[:, ::-1]))
    assert mirrored.pose[2] == pytest.approx(-roll, abs=4)


def covered(image, centre, axes):
    mask = np.zeros(image.shape[:2], np.uint8)
    cv2.ellipse(mask, tuple(int(v) for v in centre), axes, 20, 0, 360, 255, -1)
    noise = cv2.GaussianBlur(
        np.random.default_rng(0).normal(0, 60, image.shape).astype(np.float32), (0, 0), 6
    )
    skin = np.clip(np.array((205, 150, 125)) + noise, 0, 255).astype(np.uint8)
    soft = cv2.GaussianBlur(mask, (0, 0), 1)[..., None] / 255.0
    return (image * (1 - soft) + skin * soft).astype(np.uint8)


def test_a_smile_is_no_reference_and_is_named(pipeline, astronaut, face):
    judgement = judge_reference(astronaut, face, pipeline.detector)
    assert not judgement.sound
    assert judgement.score > 1
    assert len(judgement.problems) == 1
    assert "a smile (mouthSmile 0.9" in judgement.problems[0]


@pytest.mark.parametrize(
    ("landmark", "axes", "words"),
    [(13, (26, 18), "cover the mouth"), (159, (10, 8), "seems to cover the")],
)
def test_a_hand_before_the_face_is_noticed(pipeline, astronaut, face, landmark, axes, words):
    frame = covered(astronaut, face.landmarks[landmark, :2], axes)
    (found,) = pipeline.detect(frame)
    assert words in " ".join(judge_reference(frame, found, pipeline.detector).problems)


def test_shut_eyes_turned_heads_and_small_faces_are_noticed(pipeline, astronaut, face):
    shapes = {**dict.fromkeys(face.blendshapes, 0.02), "eyeBlinkLeft": 0.8}
    far = replace(face, blendshapes=shapes, pose=(35.0, 0.0, 0.0))
    problems = " ".join(judge_reference(astronaut, far, pipeline.detector).problems)
    assert "eyes are shut" in problems
    assert "yaw 35" in problems
    assert "at rest" not in problems
    tiny = cv2.resize(astronaut[:250, 100:350], (110, 110), interpolation=cv2.INTER_AREA)
    (small,) = pipeline.detect(tiny)
    assert "face is small" in " ".join(judge_reference(tiny, small, pipeline.detector).problems)


def test_a_face_at_rest_is_sound(pipeline, astronaut, face):
    rest = replace(face, blendshapes=dict.fromkeys(face.blendshapes, 0.05))
    judgement = judge_reference(astronaut, rest, pipeline.detector)
    assert judgement.sound
    assert judgement.score < 1


# --- rendered faces: actions and poses that are known ---------------------------------------------


@pytest.fixture(scope="module", params=[1, 3])
def person(request):
    from rendered import RenderedPerson

    return RenderedPerson(request.param)


def test_a_turned_head_keeps_its_size_in_the_rigid_crop(pipeline, person):
    straight, *_ = pipeline.detect(person())
    for yaw in (-20, 20):
        turned, *_ = pipeline.detect(person(yaw=yaw))
        assert turned.pose[0] == pytest.approx(yaw, abs=7)
        size = rigid_placement(turned.landmarks).eye_distance
        # In the picture the eyes come 6 to 8 % nearer to each other.
        assert size == pytest.approx(rigid_placement(straight.landmarks).eye_distance, rel=0.055)


def test_no_action_moves_the_rigid_crop_or_the_mask_much(pipeline, person):
    outline = (
        *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
        *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
    )

    def measure(frame):
        face, *_ = pipeline.detect(frame)
        placement = rigid_placement(face.landmarks)
        placed = transform_landmarks(face.landmarks, placement.matrix(112))
        following = np.zeros((112, 112), np.uint8)
        cv2.fillPoly(following, [np.round(placed[list(outline), :2]).astype(np.int32)], 255)
        return placement, face_oval(placed, 112), following

    still, oval, following = measure(person())
    for au in (1, 4, 12, 20, 25, 26):
        moved, moved_oval, moved_following = measure(person({au: 5.0}))
        # MediaPipe sees the eyes nearer to each other under lowered brows: by 2.6 % on average
        # and up to 8 % in 24 people; of the other actions none is above 5 %.
        change = 0.07 if au == 4 else 0.05
        assert moved.eye_distance == pytest.approx(still.eye_distance, rel=change)
        shift = np.subtract(moved.centre, still.centre) / still.eye_distance
        assert np.abs(shift).max() < 0.04
        changed = (moved_oval != oval).sum() / (oval > 0).sum()
        assert changed < 0.06
        if au == 26:
            # A mask that followed the jaw would give AU26 away by its edge.
            assert changed < 0.6 * (moved_following != following).sum() / (following > 0).sum()
