"""The trunk of the landmark network, held against the network it is made of, run by LiteRT."""

import zipfile

import numpy as np
import pytest
import torch
from siamcal.backbones.face_trunk import FaceTrunk

from siamcal import CalibratingSiamese
from siamcal.files import asset
from siamcal.model.create import create_backbone
from siamcal.model.weights_file import read_tensors
from siamcal.training.networks import build_network
from siamcal.training.recipe import load_recipe

MAP = (1, 16, 16, 128)


@pytest.fixture(scope="module")
def landmark_network():
    """The original, with all tensors kept; `run(image)` gives the last map of MAP's shape."""
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    with zipfile.ZipFile(asset("face_landmarker.task")) as archive:
        content = archive.read("face_landmarks_detector.tflite")
    network = litert.Interpreter(
        model_content=content,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    network.allocate_tensors()
    place = max(
        t["index"] for t in network.get_tensor_details() if tuple(t["shape"]) == MAP
    )  # tensors are numbered in the order of the run

    def run(image: np.ndarray) -> np.ndarray:
        network.set_tensor(network.get_input_details()[0]["index"], image)
        network.invoke()
        return network.get_tensor(place)

    return run


@pytest.fixture(scope="module")
def trunk() -> FaceTrunk:
    network = build_network(load_recipe("synth"), 12, calibrated=False)
    return network.backbone.eval()


def test_the_trunk_is_the_landmark_networks(landmark_network, trunk) -> None:
    skimage = pytest.importorskip("skimage.data")
    face = skimage.astronaut()[:256, 100:356]
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (256, 256, 3), dtype=np.uint8)
    for picture in (face, noise):
        image = (picture / 255).astype(np.float32)[None]
        with torch.inference_mode():
            ours = trunk.trunk(torch.from_numpy(image).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        theirs = landmark_network(image)
        assert theirs.std() > 0.3
        np.testing.assert_allclose(ours.numpy(), theirs, atol=2e-5)


def test_the_weights_are_all_there_and_nothing_else() -> None:
    tensors = read_tensors(asset("face_trunk.safetensors"))
    trunk = {n for n, _ in FaceTrunk().named_parameters() if not n.startswith("head.")}
    assert set(tensors) == trunk
    assert sum(t.numel() for t in tensors.values()) == 129_232
    assert {t.dtype for t in tensors.values()} == {torch.float16}


def test_stages_have_the_sizes_that_are_said(trunk) -> None:
    sizes = {}
    handles = [
        getattr(trunk, name).register_forward_hook(
            lambda module, args, output, name=name: sizes.update({name: tuple(output.shape[1:])})
        )
        for name in ("stage1", "stage2", "stage3", "stage4", "pool")
    ]
    with torch.inference_mode():
        assert trunk(torch.rand(1, 3, 256, 256)).shape == (1, 72)
    for handle in handles:
        handle.remove()
    assert sizes == {
        "stage1": (16, 128, 128),
        "stage2": (32, 64, 64),
        "stage3": (64, 32, 32),
        "stage4": (128, 16, 16),
        "pool": (128, 8, 8),
    }


@pytest.mark.parametrize("merge_at", ["stage3", "head", "head.conv2", "head.fc"])
def test_its_places_are_legal_merge_points(merge_at) -> None:
    torch.manual_seed(0)
    model = CalibratingSiamese(create_backbone("face_trunk"), merge_at).eval()
    target, reference = torch.rand(2, 2, 3, 256, 256)
    caught = []
    module = model.backbone.get_submodule(merge_at)

    def catch(module, args):
        caught.append(args[0])

    with torch.inference_mode():
        handle = module.register_forward_pre_hook(catch)
        for image in (target, reference):
            model.backbone(image)
        handle.remove()
        handle = module.register_forward_pre_hook(lambda module, args: caught[1] - caught[0])
        expected = model.backbone(target)
        handle.remove()
        torch.testing.assert_close(model(target, reference), expected, atol=1e-5, rtol=1e-4)
