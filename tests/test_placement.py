"""Where a crop lies, to the pixel: on pictures and points whose answer is known by heart."""

import itertools
import math

import cv2
import numpy as np
import pytest

from siamcal.faces.alignment import (
    LEFT_EYE_CORNERS,
    NOSE_BRIDGE,
    RIGHT_EYE_CORNERS,
    Placement,
    pad_to_square,
    rigid_placement,
    transform_landmarks,
    warp,
)
from siamcal.faces.boxes import Box, cut_window, overlap
from siamcal.faces.detection import _starts
from siamcal.faces.head_pose import angles
from siamcal.faces.normalisation import GREY, SKULL_OUTLINE, face_oval, local_contrast

PICTURE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)  # 8 wide


@pytest.mark.parametrize(
    ("matrix", "size", "expected"),
    [
        ([[1, 0, 0], [0, 1, 0]], (8, 6), PICTURE),
        ([[1, 0, -2], [0, 1, -1]], (5, 4), PICTURE[1:5, 2:7]),
        ([[-1, 0, 8], [0, -1, 6]], (8, 6), PICTURE[::-1, ::-1]),
        ([[-1, 0, 8], [0, 1, 0]], (8, 6), PICTURE[:, ::-1]),
        ([[0, -1, 6], [1, 0, 0]], (6, 8), np.rot90(PICTURE, -1)),
    ],
)
def test_whole_pixels_stay_what_they_are(matrix, size, expected) -> None:
    assert np.array_equal(warp(PICTURE, np.array(matrix, float), *size), expected)


def test_a_finer_crop_is_centred_too() -> None:
    twice = np.array([[2.0, 0, 0], [0, 2, 0]])
    found = warp(PICTURE, twice, 16, 12)[2:-2, 2:-2].astype(int)
    mirrored = warp(PICTURE[::-1, ::-1], twice, 16, 12)[::-1, ::-1][2:-2, 2:-2]
    assert np.abs(found - mirrored).max() <= 1
    # A fine pixel lies a quarter of the way to the next: 9, 3, 3 and 1 parts of 16.
    p = PICTURE.astype(float)
    expected = (9 * p[1, 1] + 3 * p[1, 0] + 3 * p[0, 1] + p[0, 0]) / 16
    np.testing.assert_allclose(found[0, 0], expected, atol=1.5)


@pytest.mark.parametrize("factor", [2, 4, 8, 16])
def test_a_coarser_crop_averages_all_that_lies_in_a_pixel(factor) -> None:
    rng = np.random.default_rng(1)
    fine = rng.integers(0, 256, (4 * factor, 5 * factor, 3), dtype=np.uint8)
    found = warp(fine, np.array([[1 / factor, 0, 0], [0, 1 / factor, 0]]), 5, 4)
    blocks = fine.reshape(4, factor, 5, factor, 3).mean((1, 3))
    assert np.abs(found - blocks).max() <= 1


@pytest.mark.parametrize("factor", [2.7, 3, 3.6, 5, 7.3])
@pytest.mark.parametrize("border", [cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE])
def test_a_crop_of_any_fineness_lies_where_it_should_and_doesn_t_flicker(factor, border) -> None:
    side, size = 400, 32
    y, x = np.mgrid[:side, :side] + 0.5
    noise = 60 * np.random.default_rng(2).choice([-1, 1], (side, side))
    plane = 120 + 0.15 * (x - side / 2) - 0.1 * (y - side / 2)
    matrix = Placement((170.0, 190.0), 0.3, factor).matrix(size, 0.5, 1 / size)
    inverse = np.linalg.inv(matrix[:, :2])
    v, u = np.mgrid[:size, :size] + 0.5
    there = (np.stack([u, v], -1) - matrix[:, 2]) @ inverse.T
    expected = 120 + 0.15 * (there[..., 0] - side / 2) - 0.1 * (there[..., 1] - side / 2)
    inside = ((there > factor) & (there < side - factor)).all(-1)
    for picture, most in ((plane, 1.5), (plane + noise, 60 / factor)):
        rgb = np.repeat(np.clip(picture, 0, 255).astype(np.uint8)[..., None], 3, 2)
        off = (warp(rgb, matrix, size, size, border)[..., 0] - expected)[inside]
        assert abs(off.mean()) < 1.2
        assert off.std() < most


@pytest.mark.parametrize("factor", [3.0, 4.0, 6.0])
def test_beyond_the_frame_a_coarser_crop_is_black_or_goes_on(factor) -> None:
    frame = np.full((101, 203, 3), 200, np.uint8)  # sides that no square divides
    matrix = np.array([[1 / factor, 0, 0.0], [0, 1 / factor, 0]])
    size = (math.ceil(203 / factor) + 3, math.ceil(101 / factor) + 3)
    black, same = (
        warp(frame, matrix, *size, border) for border in (cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE)
    )
    assert (same == 200).all()
    whole_x, whole_y = int(203 / factor) - 1, int(101 / factor) - 1
    assert (black[:whole_y, 1:whole_x][1:] == 200).all()
    assert (black[size[1] - 1] == 0).all()
    assert (black[:, size[0] - 1] == 0).all()
    # The edge itself lies where the frame ends: what is seen of the frame is its share.
    seen = black[whole_y // 2, :, 0].sum() / 200
    assert seen == pytest.approx(203 / factor, abs=0.35)


@pytest.mark.parametrize("side", [40, 90, 400])
@pytest.mark.parametrize("scale", [0.45, 0.6, 1.3])
def test_each_colour_is_resampled_by_itself(side, scale) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (side, side + 7, 3), dtype=np.uint8)
    centre, size = side / 2, 24
    matrix = Placement((centre, centre), 0.2, size / 3 / scale).matrix(size, 0.5, 1 / 3)
    for border in (cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE):
        whole = warp(frame, matrix, size, size, border)
        assert whole.shape == (size, size, 3)
        for colour in range(3):
            alone = warp(np.repeat(frame[..., colour, None], 3, 2), matrix, size, size, border)
            fine = round(1 / scale) or 1
            inner = matrix * fine
            inner[:, 2] += inner[:, :2] @ (0.5, 0.5) - 0.5
            one = cv2.warpAffine(
                frame[..., colour].copy(), inner, (size * fine, size * fine), borderMode=border
            )
            averaged = one.reshape(size, fine, size, fine).mean((1, 3))
            assert np.abs(whole[..., colour] - averaged).max() <= 1
            assert np.array_equal(whole[..., colour], alone[..., 0])


def test_a_placement_puts_the_eyes_where_it_says() -> None:
    angle = math.radians(20)
    placement = Placement((30.0, 40.0), angle, 12.0)
    matrix = placement.matrix(100, eye_line=0.3, eye_distance=0.5)
    along = 6 * np.array([math.cos(angle), math.sin(angle)])
    for sign, x in ((-1, 25), (0, 50), (1, 75)):
        point = np.array([30.0, 40.0]) + sign * along
        np.testing.assert_allclose(matrix[:, :2] @ point + matrix[:, 2], (x, 30))


def landmarks(size: int = 64) -> np.ndarray:
    """Points of a face in the middle of a picture, whose two halves mirror each other."""
    points = np.zeros((478, 3))
    points[list(NOSE_BRIDGE)] = [[32, y, z] for y, z in ((30, -2), (33, -3), (36, -4), (39, -5))]
    for place, x in zip(LEFT_EYE_CORNERS, (20, 28), strict=True):
        points[place] = (x, 28, 0)
    for place, x in zip(RIGHT_EYE_CORNERS, (44, 36), strict=True):
        points[place] = (x, 28, 0)
    turn = np.linspace(np.pi, 2 * np.pi, len(SKULL_OUTLINE))
    outline = np.stack([32 + 17 * np.cos(turn), 29 + 20 * np.sin(turn)], 1)
    points[list(SKULL_OUTLINE), :2] = outline
    return points * size / 64


def test_the_rigid_placement_of_a_turned_face() -> None:
    points = landmarks()
    still = rigid_placement(points)
    assert still.centre == pytest.approx((32, 28))
    assert still.angle == pytest.approx(0)
    for degrees, scale in ((25, 1.5), (-40, 0.7)):
        turn = math.radians(degrees)
        spin = scale * np.array(
            [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
        )
        moved = points.copy()
        moved[:, :2] = points[:, :2] @ spin.T + (5, 9)
        moved[:, 2] *= scale
        found = rigid_placement(moved)
        assert found.angle == pytest.approx(turn)
        assert found.eye_distance == pytest.approx(scale * still.eye_distance)
        assert found.centre == pytest.approx(tuple(spin @ (32, 28) + (5, 9)))


def test_the_oval_lies_in_the_middle_of_its_face() -> None:
    mask = face_oval(landmarks(), 80)
    assert set(np.unique(mask)) == {0, 255}
    inside = np.argwhere(mask).astype(float)
    assert inside[:, 1].mean() == pytest.approx(31.5, abs=0.1)
    # From the top of the skull at y = 9 to 1.62 eye distances below the eyes.
    bottom = 28 + 1.62 * rigid_placement(landmarks()).eye_distance
    assert inside[:, 0].min() == pytest.approx(9, abs=1)
    assert inside[:, 0].max() == pytest.approx(bottom - 1, abs=1)
    large = face_oval(landmarks(256), 320)
    assert (large > 0).mean() == pytest.approx((mask > 0).mean(), abs=0.01)


@pytest.mark.parametrize("deviation", [2, 6, 20])
def test_local_contrast_is_in_units_of_the_deviation_around(deviation) -> None:
    stripes = np.full((96, 96, 3), 120 - deviation, np.uint8)
    stripes[:, ::2] = 120 + deviation
    found = local_contrast(stripes)[40:56, 40:56, 0].astype(float)
    expected = 42 * deviation / math.sqrt(deviation**2 + 6**2)
    assert np.abs(found[:, 1::2] - (GREY - expected)).max() < 3
    assert np.abs(found[:, ::2] - (GREY + expected)).max() < 3


def test_padding_centres_and_the_matrix_says_so() -> None:
    matrix = np.array([[1.0, 0, 5], [0, 1, 7]])
    padded, moved = pad_to_square(PICTURE, matrix, 13)
    assert padded.shape == (13, 13, 3)
    assert np.array_equal(padded[3:9, 2:10], PICTURE)
    assert padded.sum() == PICTURE.sum()
    assert moved.tolist() == [[1, 0, 7], [0, 1, 10]]


def test_landmarks_follow_the_matrix_and_depth_its_scale() -> None:
    matrix = np.array([[0.0, -2, 1], [2, 0, 3]])  # a quarter turn, twice as large
    found = transform_landmarks(np.array([[1.0, 2, 3], [0, 0, -1]]), matrix)
    assert found.tolist() == [[-3, 5, 6], [1, 3, -2]]


def turned(yaw: float = 0, pitch: float = 0, roll: float = 0) -> np.ndarray:
    """A pose matrix with y up and z towards the camera."""
    a, b, c = (math.radians(v) for v in (yaw, pitch, roll))
    about_y = [[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]]
    about_x = [[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]]
    about_z = [[math.cos(c), math.sin(c), 0], [-math.sin(c), math.cos(c), 0], [0, 0, 1]]
    return np.array(about_y) @ np.array(about_x) @ np.array(about_z)


@pytest.mark.parametrize("pose", [(20, 0, 0), (0, 15, 0), (0, 0, -30), (-40, 0, 0), (30, -20, 0)])
def test_angles_are_positive_to_the_right_and_down(pose) -> None:
    """Right of the picture is +x and down is -y in this frame."""
    assert angles(turned(*pose)) == pytest.approx(pose)


def test_windows_overlap_and_cover_the_picture() -> None:
    for length, side in ((640, 320), (1920, 1080), (330, 320), (320, 320)):
        starts = _starts(length, side)
        assert starts[0] == 0
        assert starts[-1] == length - side
        assert all(b - a <= side * 2 / 3 + 1 for a, b in itertools.pairwise(starts))


def test_a_window_beyond_the_picture_is_black_there() -> None:
    for left, top, right, bottom in ((-2, -1, 4, 5), (3, 2, 11, 9), (-3, -3, 12, 12), (1, 1, 4, 4)):
        found = cut_window(PICTURE, left, top, right, bottom)
        wide = np.pad(PICTURE, ((20, 20), (20, 20), (0, 0)))
        assert np.array_equal(found, wide[top + 20 : bottom + 20, left + 20 : right + 20])


def test_overlap_is_intersection_over_union() -> None:
    one = Box(0, 0, 4, 2, 1)
    assert overlap(one, one) == 1
    assert overlap(one, Box(2, 0, 4, 2, 1)) == pytest.approx(4 / 12)
    assert overlap(one, Box(3, 1, 4, 4, 1)) == pytest.approx(1 / 23)
    assert overlap(one, Box(4, 0, 4, 2, 1)) == overlap(one, Box(5, 5, 1, 1, 1)) == 0
