"""The paper's crop as its authors released it, on scikit-image's astronaut."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from skimage import data

from siamcal.errors import ConfigError, FaceNotFoundError
from siamcal.faces import FacePipeline
from siamcal.faces.alignment import transform_landmarks
from siamcal.faces.released import JAW_9, face_axes, released_quad, through_jpeg
from siamcal.paper import PAPER_PREPROCESSING
from siamcal.preprocessing import Preprocessing
from siamcal.registry import recipes
from siamcal.training.recipe import load_recipe

PAPER = ("disfa_", "unbc_")


@pytest.fixture(scope="module")
def pipeline():
    with FacePipeline(PAPER_PREPROCESSING) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def astronaut():
    return np.ascontiguousarray(data.astronaut())


@pytest.fixture(scope="module")
def face(pipeline, astronaut):
    return pipeline.detect(astronaut)[0]


def extents(face):
    """Left, right, up and down from the middle of the eyes, along the axes."""
    points = face.landmarks[:, :2].astype(float)
    eyes, x, y = face_axes(points)
    down = (points[JAW_9] - eyes) @ y
    return (eyes - points[127]) @ x, (points[356] - eyes) @ x, down / 2, down * 1.05


def test_the_extents_are_projections(astronaut, face):
    """A jaw point that moves across the face changes nothing; the full distance would."""
    left, right, up, down = extents(face)
    crop, _ = released_quad(astronaut, face, 112)
    assert crop.shape[0] == 112
    assert crop.shape[1] == int(112 * (left + right) / (up + down))
    _, x, _ = face_axes(face.landmarks[:, :2].astype(float))
    moved = face.landmarks.copy()
    moved[JAW_9, :2] += 25 * x
    again, _ = released_quad(astronaut, replace(face, landmarks=moved), 112)
    assert again.shape == crop.shape
    assert np.abs(again.astype(int) - crop).max() <= 2  # float32 landmarks


def test_sides_are_cut_not_rounded(astronaut, face):
    left, right, up, down = extents(face)
    widths = set()
    for size in range(100, 130):
        exact = size * (left + right) / (up + down)
        width = released_quad(astronaut, face, size)[0].shape[1]
        assert width == int(exact)
        widths.add(width != round(exact))
    assert widths == {True, False}


def test_pixels_are_read_bilinearly_half_a_pixel_to_the_right_and_down(astronaut, face):
    crop, _ = released_quad(astronaut, face, 112)
    left, right, up, down = extents(face)
    eyes, x, y = face_axes(face.landmarks[:, :2].astype(float))
    columns = (np.arange(crop.shape[1]) + 0.5) / crop.shape[1] * (left + right) - left
    rows = (np.arange(crop.shape[0]) + 0.5) / crop.shape[0] * (up + down) - up
    places = eyes + rows[:, None, None] * y + columns[None, :, None] * x  # (h, w, 2)
    # Pixel centres lie at .5, and the released code adds .5.
    maps = places.astype(np.float32)
    expected = cv2.remap(astronaut, maps[..., 0], maps[..., 1], cv2.INTER_LINEAR)
    inside = slice(20, 92)
    apart = np.abs(crop.astype(int) - expected)[inside, inside]
    assert apart.mean() < 0.7  # Pillow cuts to whole grey levels
    without_half = cv2.remap(astronaut, maps[..., 0] - 0.5, maps[..., 1] - 0.5, cv2.INTER_LINEAR)
    assert np.abs(crop.astype(int) - without_half)[inside, inside].mean() > 4 * apart.mean()


def test_the_matrix_says_where_landmarks_lie(astronaut, face):
    crop, matrix = released_quad(astronaut, face, 112)
    placed = transform_landmarks(face.landmarks, matrix)
    scale = 112 / sum(extents(face)[2:])
    assert placed[127, 0] == pytest.approx(-0.5 * scale, abs=0.1)
    assert placed[356, 0] == pytest.approx(crop.shape[1] - 0.5 * scale, abs=0.1)
    assert placed[JAW_9, 1] == pytest.approx(112 - 0.05 / 1.55 * 112 - 0.5 * scale, abs=0.5)


def test_large_faces_are_reduced_first(pipeline, astronaut):
    """Four times as large: reading single pixels of it would alias."""
    large = cv2.resize(astronaut, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    large_face = pipeline.detect(large)[0]
    size = 60
    assert sum(extents(large_face)[2:]) / size > 4
    crop, matrix = released_quad(large, large_face, size)
    small_face = replace(large_face, landmarks=large_face.landmarks / 4,
                         box=tuple(v / 4 for v in large_face.box))  # fmt: skip
    other, small_matrix = released_quad(astronaut, small_face, size)
    assert crop.shape == other.shape
    assert np.abs(crop.astype(int) - other)[10:50, 10:40].mean() < 6
    assert matrix[:, :2] * 4 == pytest.approx(small_matrix[:, :2])


def test_what_lies_outside_the_margins_is_black(astronaut, face):
    small = (face.box[0] + 20, face.box[1] + 20, face.box[2] - 40, face.box[3] - 40)
    crop, matrix = released_quad(astronaut, replace(face, box=small), 112)
    top = small[1] + int(-0.2 * small[3])
    row = matrix[1, 1] * (top - 2) + matrix[1, 0] * (small[0] + small[2] / 2) + matrix[1, 2]
    assert row > 2
    assert crop[: int(row) - 1].max() == 0


def test_jpeg_is_what_a_file_would_hold(tmp_path, pipeline, astronaut, face):
    without = replace(PAPER_PREPROCESSING, jpeg=0)
    try:
        pipeline.preprocessing = without
        crop = pipeline.align(astronaut, face)
    finally:
        pipeline.preprocessing = PAPER_PREPROCESSING
    stored = pipeline.align(astronaut, face)
    cv2.imwrite(str(tmp_path / "crop.jpg"), crop[..., ::-1])  # OpenCV's own quality is 95
    np.testing.assert_array_equal(stored, cv2.imread(str(tmp_path / "crop.jpg"))[..., ::-1])
    assert 0 < np.abs(stored.astype(int) - crop).mean() < 8
    assert np.abs(through_jpeg(crop, 50).astype(int) - crop).mean() > 2


def test_one_pass_misses_what_a_search_finds(astronaut):
    wide = np.full((1500, 2000, 3), 90, np.uint8)
    wide[600:900, 800:1100] = cv2.resize(astronaut[:300, 80:380], (300, 300))
    with FacePipeline(PAPER_PREPROCESSING) as once:
        with pytest.raises(FaceNotFoundError):
            once.crop(wide)
        assert once.detect(wide) == []  # what is predicted is searched as the training was
        once.preprocessing = replace(PAPER_PREPROCESSING, detection="search")
        assert once.crop(wide).max() > 100
        assert len(once.detect(wide)) == 1


def test_where_one_pass_finds_a_face_both_make_the_same_crop(pipeline, astronaut):
    crop = pipeline.crop(astronaut)
    with FacePipeline(replace(PAPER_PREPROCESSING, detection="search")) as search:
        np.testing.assert_array_equal(search.crop(astronaut), crop)


@pytest.mark.parametrize("name", recipes.names())
def test_only_the_papers_recipes_crop_its_way(name):
    crop = load_recipe(name).preprocessing
    if name.startswith(PAPER):
        # The released code writes a crop in its frame's format: UNBC's are .png.
        jpeg = 0 if name.startswith("unbc") else 95
        assert crop == replace(PAPER_PREPROCESSING, jpeg=jpeg)
        assert (crop.align, crop.detection) == ("csn_quad", "once")
    else:
        assert (crop.align != "csn_quad", crop.detection, crop.jpeg) == (True, "search", 0)


@pytest.mark.parametrize("changed", [{"align": "csn_quad"}, {"detection": "once"}, {"jpeg": 95}])
def test_caches_and_runs_notice_each_new_setting(tmp_path, changed):
    from facesets import RECIPE, squares

    from siamcal.datasets.crops.prepare import missing_bytes
    from siamcal.training.identity import recipe_facts

    source = squares(tmp_path, people=2, frames=2).source
    crops = RECIPE.preprocessing, replace(RECIPE.preprocessing, **changed)
    one, other = (missing_bytes(source, crop, tmp_path / "cache")[0] for crop in crops)
    assert one != other
    facts = [recipe_facts(replace(RECIPE, preprocessing=crop)) for crop in crops]
    assert facts[0] != facts[1]
    assert not {"detection", "jpeg"} & facts[0]["preprocessing"].keys()  # names of runs stay


@pytest.mark.parametrize("wrong", [{"jpeg": 101}, {"jpeg": -1}, {"jpeg": 9.5}, {"detection": "no"}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Preprocessing(**wrong)
