"""Rendered people: geometry, identity, action units, pictures."""

import dataclasses

import numpy as np
import pytest

from siamcal.synth import shading
from siamcal.synth.actions import AUS, NUISANCES, action_shapes, nuisance_shapes
from siamcal.synth.mesh import PARTS, load_mesh
from siamcal.synth.occluders import KINDS, cover
from siamcal.synth.person import build_person
from siamcal.synth.raster import add_shapes, depth_map, project, rasterise, vertex_normals
from siamcal.synth.render import Face, expose, render
from siamcal.synth.scene import Camera, Light, Sensor, rotation
from siamcal.synth.traits import draw_traits, stream
from siamcal.synth.wrinkles import draw_wrinkles, wrinkle_depth

SIZE = 96
LIGHT = Light(0.3, 0.4, 0.9, 0.45, 0.15, 0.0, 0.0, 5.0)
CAMERA = Camera(0.62, 11.0, (0.0, 0.0), 0.0, 0.0)
WALL = np.full((SIZE, SIZE, 3), 0.2, np.float32)
# Numbers that no benchmark size and no recipe uses.
PERSON = 710_000


@pytest.fixture(scope="module")
def person():
    return build_person(draw_traits(0, PERSON))


def look(person, face=None, **changes):
    camera = dataclasses.replace(CAMERA, **changes)
    return render(person, face or Face(np.zeros(12)), LIGHT, camera, WALL)


def test_mesh_holds_what_the_renderer_needs():
    mesh = load_mesh()
    assert len(mesh.actions) == 52
    assert len(mesh.identities) > 350
    assert set(np.unique(mesh.part)) == set(PARTS.values())
    assert mesh.triangles.max() < len(mesh.base)
    eyes = [mesh.base[mesh.part == PARTS[n]].mean(0) for n in ("left_eye", "right_eye")]
    assert eyes[0][0] == pytest.approx(-eyes[1][0], abs=0.01)
    assert not any("baby" in name or "child" in name for name in mesh.identities)


@pytest.mark.parametrize(("au", "place"), [(1, "inner"), (2, "outer"), (4, "inner"), (4, "outer")])
def test_brow_actions_move_as_far_as_in_people(au, place):
    """.08 to .15 inter-ocular distances at level 5 on the brow itself."""
    mesh = load_mesh()
    base = mesh.base
    distance = np.ptp([base[mesh.part == PARTS[n]].mean(0)[0] for n in ("left_eye", "right_eye")])
    low, high = {"inner": (0.08, 0.20), "outer": (0.40, 0.54)}[place]
    brow = (mesh.part == 0) & (base[:, 2] > 1.0) & (np.abs(base[:, 1] - 7.45) < 0.075)
    brow &= (base[:, 0] > low) & (base[:, 0] < high)
    moved = np.linalg.norm(action_shapes()[AUS.index(au)][brow], axis=1) / distance
    assert brow.sum() >= 3
    assert 0.08 <= moved.mean() <= 0.15


def test_each_action_moves_its_own_part_of_the_face():
    mesh = load_mesh()
    brow = (mesh.part == 0) & (mesh.base[:, 1] > 7.42) & (mesh.base[:, 2] > 0.9)
    mouth = (mesh.part == 0) & (mesh.base[:, 1] < 6.75) & (mesh.base[:, 2] > 0.9)
    shift = np.linalg.norm(action_shapes(), axis=2)  # (12, V)
    for au in (1, 2, 4, 5):
        row = shift[AUS.index(au)]
        assert row[brow].max() > 5 * row[mouth].max() or row[mouth].max() < 1e-6
    for au in (12, 15, 17, 20, 25, 26):
        row = shift[AUS.index(au)]
        assert row[mouth].max() > 0.02
        assert row[brow].max() < 0.01


def test_shapes_add_up_linearly():
    neutral, shapes = load_mesh().base, action_shapes()
    weights = np.linspace(0, 1, 12)
    moved = add_shapes(neutral, shapes, weights)
    np.testing.assert_allclose(moved, neutral + np.tensordot(weights, shapes, 1), atol=1e-12)
    np.testing.assert_array_equal(add_shapes(neutral, shapes, np.zeros(12)), neutral)


def test_normals_of_a_plane_point_up():
    points = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    normals = vertex_normals(points, np.array([[0, 1, 2], [1, 3, 2]], np.int32))
    np.testing.assert_allclose(normals, np.tile([0, 0, 1.0], (4, 1)), atol=1e-6)


def test_nearer_triangle_wins_and_back_faces_are_left_out():
    points = np.array([[-1.0, -1, 0], [1, -1, 0], [0, 1, 0], [-1, -1, 1], [1, -1, 1], [0, 1, 1]])
    xy, near = project(points, 4.0, 10.0, 8.0, 8.0)
    triangles = np.array([[0, 1, 2], [3, 4, 5], [5, 4, 3]], np.int32)
    material = np.zeros(3, np.uint8)
    hits, depth = np.full((16, 16), -1, np.int32), np.zeros((16, 16), np.float32)
    rasterise(
        xy,
        near,
        triangles,
        material,
        9,
        9,
        np.zeros((6, 2), np.float32),
        np.zeros((1, 1), np.float32),
        hits,
        depth,
    )
    assert hits[8, 8] == 1
    assert hits[0, 0] == -1
    assert set(np.unique(hits)) <= {-1, 0, 1}
    flipped = np.full((16, 16), -1, np.int32)
    rasterise(
        xy,
        near,
        triangles[2:],
        material[2:],
        9,
        9,
        np.zeros((6, 2), np.float32),
        np.zeros((1, 1), np.float32),
        flipped,
        np.zeros((16, 16), np.float32),
    )
    assert (flipped == -1).all()


def test_depth_map_keeps_the_nearest_surface():
    points = np.array([[-1.0, -1, 0], [1, -1, 0], [0, 1, 0], [-1, -1, 2], [1, -1, 2], [0, 1, 2]])
    seen = depth_map(points, np.array([[0, 1, 2], [3, 4, 5]], np.int32), np.zeros(2, bool), 16, 6.0)
    assert seen[8, 8] == pytest.approx(2.0)
    assert seen[0, 0] < -1e8


def test_a_turned_head_turns_the_right_way():
    np.testing.assert_allclose(rotation(0, 0, 0), np.eye(3), atol=1e-12)
    front = rotation(np.pi / 6, 0, 0) @ np.array([0, 0, 1.0])
    assert front[0] > 0.4  # positive yaw: towards the subject's left, +x
    turned = rotation(0.3, 0.2, 0.1)
    np.testing.assert_allclose(turned @ turned.T, np.eye(3), atol=1e-12)


def test_same_person_same_picture(person):
    again = build_person(draw_traits(0, PERSON))
    first, second = look(person, Face.alone(12, 3.0)), look(again, Face.alone(12, 3.0))
    np.testing.assert_array_equal(first, second)
    noisy = [expose(first, Sensor(1.0, 2.0), stream(1, 2, 3)) for _ in range(2)]
    np.testing.assert_array_equal(noisy[0], noisy[1])


@pytest.mark.parametrize("au", AUS)
def test_each_action_shows_and_grows(person, au):
    rest = look(person)
    half, full = look(person, Face.alone(au, 2.5)), look(person, Face.alone(au, 5.0))
    change = [float(np.abs(picture - rest).mean()) for picture in (half, full)]
    assert change[0] > 2e-4
    assert change[1] > change[0]


def test_bias_scales_resting_face_and_wrinkles_and_nothing_else():
    none, half, full = (draw_traits(0, 710_003, bias) for bias in (0.0, 0.5, 1.0))
    assert not none.rest.any()
    assert not any(none.permanent.values())
    np.testing.assert_allclose(half.rest, full.rest / 2)
    assert np.abs(full.rest).max() > 0.05
    same = [f.name for f in dataclasses.fields(full) if f.name not in {"rest", "permanent", "gain"}]
    for name in same:
        assert getattr(none, name) == getattr(full, name), name
    np.testing.assert_array_equal(none.gain, full.gain)


def test_people_differ_and_cover_the_looks():
    people = [draw_traits(0, number) for number in range(710_000, 710_120)]
    assert {p.sex for p in people} == {"female", "male"}
    assert {p.glasses for p in people} >= {"none", "round", "oval", "square", "wide"}
    assert {p.beard for p in people} >= {"none", "stubble", "moustache", "goatee", "full"}
    assert len({p.hair_style for p in people}) >= 7
    assert not any(p.beard != "none" for p in people if p.sex == "female")
    tones = np.array([p.skin_tone for p in people])
    assert tones.min() < 0.25 < 0.75 < tones.max()
    rest = np.array([p.rest for p in people])
    assert (rest.std(0)[:11] > 0.02).all()
    assert 0.1 < (rest[:, :11] != 0).mean() < 0.35, "a few strong traits, not a little of all"
    assert (rest[:, AUS.index(25)] >= 0).all(), "lips can't be more than closed"


def test_lids_close_and_references_have_open_eyes(person):
    """With a full blink no eye is left in the picture; at rest both are seen."""
    for size in (0.0, 1.0):
        seen = _eye_samples(person, Face(np.zeros(12), blink=size))
        if size == 0.0:
            open_samples = seen
    assert open_samples > 30
    assert seen <= 0.08 * open_samples


def _eye_samples(person, face):
    from siamcal.synth import render as module

    points, _ = module._place(
        person, module._mesh(person, face), face, rotation(CAMERA.yaw, CAMERA.pitch, 0.0)
    )
    xy, near = project(points, 2 * 160 * CAMERA.face_share / 1.85, CAMERA.distance, 160, 160)
    hits = np.full((320, 320), -1, np.int32)
    rasterise(
        xy,
        near,
        person.triangles,
        person.material,
        shading.HAIR,
        255,
        person.uv,
        person.coverage,
        hits,
        np.zeros((320, 320), np.float32),
    )
    return int((person.material[hits[hits >= 0]] == shading.EYE).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_occluders_cover_part_of_the_face(person, kind):
    covered = cover(person, kind, stream(3, 4))
    change = np.abs(look(covered) - look(person)).max(2) > 0.01
    assert 0.003 < change.mean() < 0.6


def test_props_stay_before_the_face():
    number = next(n for n in range(710_000, 710_100) if draw_traits(0, n).glasses != "none")
    worn = build_person(draw_traits(0, number))
    bare = build_person(dataclasses.replace(worn.traits, glasses="none"))
    assert len(worn.triangles) > len(bare.triangles)
    assert (worn.material == shading.PROP).any()
    assert not (bare.material == shading.PROP).any()


def test_light_comes_from_where_it_says(person):
    pictures = [
        render(
            person,
            Face(np.zeros(12)),
            dataclasses.replace(LIGHT, azimuth=a, fill=0.0, sky=0.1),
            CAMERA,
            WALL,
        )
        for a in (-1.0, 1.0)
    ]
    left, right = SIZE // 4, 3 * SIZE // 4
    rows = slice(SIZE // 3, 2 * SIZE // 3)
    for picture, sign in zip(pictures, (-1, 1), strict=True):
        face = picture[rows, SIZE // 3 : 2 * SIZE // 3].mean(2)
        half = face.shape[1] // 2
        assert sign * (face[:, half:].mean() - face[:, :half].mean()) > 0.01
    assert left < right


def test_wrinkles_follow_their_action():
    maps = draw_wrinkles(stream(5))
    assert not wrinkle_depth(maps, {4: 0.0}).any()
    single, double = wrinkle_depth(maps, {4: 0.4}), wrinkle_depth(maps, {4: 0.8})
    np.testing.assert_allclose(double, 2 * single, rtol=1e-5)
    assert wrinkle_depth(maps, {4: 0.5, 12: 0.5}).sum() > single.sum()


def test_nuisances_are_unlabelled_movements(person):
    assert len(nuisance_shapes()) == len(NUISANCES)
    rest = look(person)
    for name in ("pucker", "press", "puff", "speech_jaw"):
        moved = look(person, Face(np.zeros(12), nuisance={name: 0.8}))
        assert np.abs(moved - rest).max() > 0.01, name
