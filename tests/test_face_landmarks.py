"""The landmark network as a whole, held against the networks it is made of, run by LiteRT."""

import numpy as np
import pytest
import torch
from siamcal.backbones._landmark_network import Alignment
from siamcal.backbones.face_landmarks import PLACES, POINTS, READ, RIGID, FaceLandmarks
from videos import astronaut

from siamcal import CalibratingSiamese
from siamcal.calibrators.saving import describe
from siamcal.errors import ConfigError
from siamcal.faces._litert import Network
from siamcal.faces.face_mesh import _READ, BLENDSHAPES
from siamcal.files import asset
from siamcal.graph import Features
from siamcal.inference import Predictor
from siamcal.inference.landmark_pass import landmark_pass
from siamcal.model.create import create_backbone
from siamcal.model.heads import make_head
from siamcal.model.weights import load_face_weights
from siamcal.model.weights_file import read_tensors
from siamcal.preprocessing import Preprocessing

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def network() -> FaceLandmarks:
    network = create_backbone("face_landmarks", num_outputs=24)
    load_face_weights(network, asset("face_landmarks.safetensors"))
    return network.eval()


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.ascontiguousarray(astronaut()[:256, 100:356])


def images(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255


def test_points_and_coefficients_are_the_originals(network, picture) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    for rgb in (picture, picture[:, ::-1], noise):
        points = Network("face_landmarks_detector.tflite")(rgb[None], 1 / 255)[0].reshape(478, 3)
        (coefficients,) = Network("face_blendshapes.tflite")(points[None, READ, :2])
        with torch.inference_mode():
            ours = network.landmarks(network.trunk(images(rgb.copy())))
            read = network.geometry.blendshapes(ours[:, : len(READ), :2])
        assert points.std() > 20
        np.testing.assert_allclose(ours[0], points[list(POINTS)], atol=2e-3)
        np.testing.assert_allclose(read[0], coefficients.ravel(), atol=2e-4)
    assert len(BLENDSHAPES) + 1 == read.shape[1]


def test_points_are_those_that_faces_are_found_with() -> None:
    assert list(READ) == _READ
    assert set(RIGID) <= set(POINTS)


def test_alignment_is_the_orthogonal_procrustes_solution() -> None:
    """Against the singular value decomposition, on noisy faces turned by up to 45 degrees."""
    rng = np.random.default_rng(1)
    goal = np.array(PLACES)
    align = Alignment(range(len(RIGID)), torch.tensor(PLACES))
    for _ in range(20):
        yaw, pitch, roll = rng.uniform(-0.8, 0.8, 3)
        turns = [
            np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]]),
            np.array(
                [
                    [1, 0, 0],
                    [0, np.cos(pitch), -np.sin(pitch)],
                    [0, np.sin(pitch), np.cos(pitch)],
                ]
            ),
            np.array(
                [[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]]
            ),
        ]
        seen = 90 * goal @ turns[0] @ turns[1] @ turns[2] + rng.normal(0, 2, goal.shape) + 100
        centred, centred_goal = seen - seen.mean(0), goal - goal.mean(0)
        u, values, vt = np.linalg.svd(centred.T @ centred_goal)
        expected = centred @ (u @ vt) * values.sum() / (centred**2).sum()
        aligned, turn = align(torch.from_numpy(seen).float()[None])
        np.testing.assert_allclose(aligned[0], expected, atol=2e-4)
        np.testing.assert_allclose(turn[0], u @ vt, atol=2e-4)


def test_a_face_that_only_turns_and_moves_keeps_its_shape(network) -> None:
    face = torch.tensor(PLACES) * 85 + 128
    points = torch.zeros(1, len(POINTS), 3)
    points[0, [POINTS.index(p) for p in RIGID]] = face
    turn = torch.tensor([[0.9, 0, 0.436], [0, 1, 0], [-0.436, 0, 0.9]])
    moved = (points - 128) @ turn * 1.3 + 90
    still, other = (network.geometry.align(p)[0] for p in (points, moved))
    rigid = network.geometry.align.rigid
    torch.testing.assert_close(still[:, rigid], other[:, rigid], atol=2e-3, rtol=0)


def test_the_weights_are_all_there_and_nothing_else() -> None:
    tensors = read_tensors(asset("face_landmarks.safetensors"))
    whole = FaceLandmarks(motions=True)
    own = {n: p.shape for n, p in whole.named_parameters() if not n.startswith("head.")}
    assert {name: tensor.shape for name, tensor in tensors.items()} == own
    assert {t.dtype for t in tensors.values()} == {torch.float16}
    assert asset("face_landmarks.safetensors").stat().st_size < 2.4e6


@pytest.mark.parametrize("merge", ["reference_minus_target", "concatenated"])
def test_map_and_geometry_cross_the_merge(network, merge) -> None:
    """Against a hook that merges what enters the head."""
    torch.manual_seed(0)
    model = CalibratingSiamese(network, "head", merge=merge).eval()
    assert [tuple(shape[1:]) for shape in model.split.shapes] == [
        (128, 8, 8),
        (3 * len(READ) + 61,),
    ]
    target, reference = torch.rand(2, 2, 3, 256, 256)
    caught = []
    with torch.inference_mode():
        handle = network.head.register_forward_pre_hook(lambda m, args: caught.append(args))
        network(target), network(reference)
        handle.remove()

        def merged(module, args):
            pairs = zip(*caught, strict=True)
            if merge == "concatenated":
                return tuple(t - 0.5 * r for t, r in pairs)  # as it starts
            return tuple(r - t for t, r in pairs)

        handle = network.head.register_forward_pre_hook(merged)
        expected = network(target)
        handle.remove()
        torch.testing.assert_close(model(target, reference), expected, atol=1e-4, rtol=1e-3)


def test_motions_tell_how_far_points_went_along_axes_that_cross_at_right_angles(picture) -> None:
    network = create_backbone("face_landmarks", num_outputs=3, motions=True).eval()
    load_face_weights(network, asset("face_landmarks.safetensors"))
    plain = create_backbone("face_landmarks", num_outputs=3).eval()
    load_face_weights(plain, asset("face_landmarks.safetensors"))
    axes = network.geometry.motions.weight.detach().double().numpy()
    lengths = np.linalg.norm(axes, axis=1)
    assert np.all(np.diff(lengths) > 0)  # the widest movement first, where the least is a step
    angles = (axes / lengths[:, None]) @ (axes / lengths[:, None]).T
    np.testing.assert_allclose(angles, np.eye(len(axes)), atol=2e-3)
    with torch.inference_mode():
        points = network.landmarks(network.trunk(images(picture)))
        told, all_told = network.geometry(points)[0], plain.geometry(points)[0]
    shape, rest = all_told[: 3 * len(READ)], all_told[3 * len(READ) :]
    np.testing.assert_allclose(
        told[: len(axes)], axes @ shape.double().numpy(), rtol=1e-4, atol=1e-3
    )
    torch.testing.assert_close(told[len(axes) :], rest)
    assert network.geometry.width == len(told) == 141


@pytest.mark.parametrize("mechanism", ["hook", "fx"])
def test_either_reading_is_alone_at_times_in_training_only(network, mechanism) -> None:
    """In the network as it runs and cut by torch.fx: both, the map's, the geometry's."""
    torch.manual_seed(0)
    backbone = create_backbone("face_landmarks", num_outputs=3, dropout=0.0, left_out=0.35)
    model = CalibratingSiamese(backbone, "head", merge="concatenated", mechanism=mechanism).eval()
    target, reference = torch.rand(2, 2, 3, 256, 256)
    caught = []
    handle = backbone.head.mix.register_forward_hook(lambda m, args, out: caught.append(args))
    with torch.no_grad():
        plain = model(target, reference)
        ((of_map, of_geometry),) = caught
        torch.testing.assert_close(plain, (of_map + of_geometry) / 2)
        handle.remove()
        model.train()
        for module in model.modules():  # all else stays as it is
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
        found = torch.cat([model(target, reference) for _ in range(40)])
    choices = torch.stack([plain, of_map, of_geometry]).repeat(1, 40, 1)
    distance = (found - choices).abs().amax(2)
    assert float(distance.min(0).values.max()) < 1e-5
    counts = np.bincount(distance.argmin(0), minlength=3)
    assert np.all(np.abs(counts - 80 * np.array([0.3, 0.35, 0.35])) < 18)


@pytest.mark.parametrize("left_out", [-0.1, 0.6])
def test_no_more_than_half_is_left_out(left_out) -> None:
    with pytest.raises(ConfigError, match=r"left_out is .*; allowed: 0 to 0\.5"):
        create_backbone("face_landmarks", left_out=left_out)


class TestLandmarkPass:
    """The network run by LiteRT in the place of torch, where both give the same."""

    @pytest.fixture(params=["face_trunk", "face_landmarks", "motions"])
    def backbone(self, request):
        torch.manual_seed(0)
        options = {"motions": True} if request.param == "motions" else {}
        name = "face_trunk" if request.param == "face_trunk" else "face_landmarks"
        backbone = create_backbone(name, num_outputs=12, **options)
        load_face_weights(backbone, asset(f"{name}.safetensors"))
        return backbone.eval()

    def test_gives_what_the_backbone_gives(self, backbone, picture) -> None:
        model = CalibratingSiamese(backbone, "head", merge="concatenated").eval()
        known = landmark_pass(backbone, "head", model.split.pre)
        crops = np.stack([picture, picture[:, ::-1]])
        reference = model.encode(images(picture))
        with torch.inference_mode():
            expected = model(torch.from_numpy(crops).permute(0, 3, 1, 2) / 255, reference)
            ours = model.from_features(Features(known(crops, 1 / 255)), reference, post=known.head)
        torch.testing.assert_close(ours, expected, atol=2e-4, rtol=1e-3)
        assert float(expected[0].sub(expected[1]).abs().max()) > 1e-2

    def test_is_refused_for_other_weights_places_and_networks(self, backbone) -> None:
        model = CalibratingSiamese(backbone, "head").eval()
        assert landmark_pass(backbone, "head.map", model.split.pre) is None
        with torch.no_grad():
            backbone.get_parameter("stage3.0.reduce.weight")[0, 0, 0, 0] += 1e-4
        assert landmark_pass(backbone, "head", model.split.pre) is None
        other = create_backbone("ir_tiny", num_outputs=12)
        assert landmark_pass(other, "head", CalibratingSiamese(other, "layer4").split.pre) is None

    def test_a_predictor_uses_it_and_reads_the_same(self, backbone, picture) -> None:
        torch.manual_seed(1)
        head = make_head("intensity", 2)
        model = CalibratingSiamese(backbone, "head", head=head).eval()
        plain = Preprocessing(size=256, align="rigid_wide", contrast="none", mask="none")
        model.config = describe(model, aus=(1, 2), preprocessing=plain)
        with Predictor(model) as predictor:
            reference = predictor.encode(picture)
            fast = predictor.read(picture[None, :, ::-1], reference)
            assert predictor._pass is not None
            predictor.__dict__["_pass"] = None
            slow = predictor.read(picture[None, :, ::-1], reference)
        np.testing.assert_allclose(fast, slow, atol=2e-4)
