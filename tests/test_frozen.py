"""Training behind a frozen first part: held against training on the images themselves."""

import dataclasses

import numpy as np
import pytest
import torch
from facesets import RECIPE, squares
from torch import nn

from siamcal.errors import ConfigError, SiamcalError
from siamcal.graph import BatchLayout
from siamcal.preprocessing import Preprocessing
from siamcal.training import networks
from siamcal.training.batches import BatchSource, task_labels
from siamcal.training.frozen import Behind, keep_features
from siamcal.training.loop import fit
from siamcal.training.networks import build_network
from siamcal.training.objective import Objective, make_optimizer
from siamcal.training.prediction import predict
from siamcal.training.recipe import Augmentation, Recipe

FROZEN = dataclasses.replace(
    RECIPE, freeze_pre=2, steps=4, augmentation=Augmentation(brightness=0.2, contrast=0.2)
)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return squares(tmp_path_factory.mktemp("squares"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SIAMCAL_CACHE", str(tmp_path / "cache"))


def trained_on_images(recipe: Recipe, faces, rows, *, calibrated: bool) -> nn.Module:
    """The same training without features, cut or loop: the whole network, its first part in eval
    mode and without gradients by a list of its modules."""
    labels = task_labels(faces, recipe.task)
    network = build_network(recipe, labels.shape[1], calibrated=calibrated)
    backbone = network.backbone
    first = [backbone.conv1, backbone.bn1, backbone.prelu, backbone.layer1]
    for module in first:
        module.requires_grad_(False)
    source = BatchSource(recipe, faces, rows, labels)
    objective = Objective(recipe, labels[rows], torch.device("cpu"))
    optimizer = make_optimizer(network, recipe)
    network.train()
    for module in first:
        module.eval()
    for step in range(len(source)):
        batch = source[step]
        seed = np.random.default_rng([recipe.seed, 3, step]).integers(2**62)
        torch.manual_seed(int(seed))
        inputs = (batch.targets, batch.references[batch.reference_index])
        output = network(*inputs) if calibrated else network(batch.targets)
        objective(output, batch.labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    return network.eval()


@pytest.mark.parametrize("calibrated", [True, False])
def test_kept_features_train_as_images_do(faces, calibrated) -> None:
    rows, validation = faces.fold(0)
    recipe = dataclasses.replace(FROZEN, schedule="constant")
    kept = fit(recipe, faces, rows, calibrated=calibrated)
    whole = trained_on_images(recipe, faces, rows, calibrated=calibrated)
    states = kept.state_dict(), whole.state_dict()
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], atol=2e-5, rtol=2e-4, msg=name)
    # Both predict alike, from images and from kept features.
    behind = Behind(kept, recipe)
    features = keep_features(behind, faces, recipe, recipe.freeze_pre)
    fast = predict(kept, faces, validation, frozen=(behind, features))
    np.testing.assert_allclose(fast, predict(kept, faces, validation), atol=1e-4)


def test_what_lies_before_the_merge_keeps_its_start_weights(faces) -> None:
    start = build_network(FROZEN, len(faces.source.intensity_aus), calibrated=True).state_dict()
    end = fit(FROZEN, faces, faces.fold(0)[0], calibrated=True).state_dict()
    before = ("backbone.conv1", "backbone.bn1", "backbone.prelu", "backbone.layer1")
    for name, value in start.items():
        same = torch.equal(value, end[name])
        assert same == name.startswith(before) or "num_batches" in name or value.numel() == 1, name


def test_an_interrupted_computation_goes_on(faces, monkeypatch) -> None:
    network = build_network(FROZEN, len(faces.source.intensity_aus), calibrated=True)
    behind = Behind(network, FROZEN)
    monkeypatch.setattr("siamcal.training.kept._SAVE_SECONDS", 0.0)
    pack, calls = behind.pack, []

    def interrupted(images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return pack(images)

    with monkeypatch.context() as patch:
        patch.setattr(behind, "pack", interrupted)
        with pytest.raises(KeyboardInterrupt):
            keep_features(behind, faces, FROZEN, 1)
    done = len(calls)
    with monkeypatch.context() as patch:
        patch.setattr(behind, "pack", lambda images: (calls.append(len(images)), pack(images))[1])
        kept = keep_features(behind, faces, FROZEN, 1)
    rows = np.arange(len(faces))
    images = faces.preprocessing.to_tensor(faces.images[rows])
    torch.testing.assert_close(kept.take(rows), behind.pack(images), atol=1e-5, rtol=1e-4)
    assert len(calls) - done < 2 * len(faces) / 8  # not all again
    again = keep_features(behind, faces, FROZEN, 1)
    np.testing.assert_array_equal(again.values, kept.values)


def test_other_weights_augmentation_or_point_are_other_features(faces) -> None:
    def folder_of(recipe: Recipe, copies: int) -> str:
        network = build_network(recipe, len(faces.source.intensity_aus), calibrated=True)
        behind = Behind(network, recipe)
        return str(keep_features(behind, faces, recipe, copies).values.filename)

    recipes = {
        "same": FROZEN,
        "seed": dataclasses.replace(FROZEN, seed=FROZEN.seed + 1),  # random start weights
        "point": dataclasses.replace(FROZEN, merge_at="layer4"),
        "augmentation": dataclasses.replace(FROZEN, augmentation=Augmentation(brightness=0.3)),
    }
    places = {name: folder_of(recipe, 1) for name, recipe in recipes.items()}
    assert len(set(places.values())) == len(places)
    assert folder_of(FROZEN, 1) == places["same"] != folder_of(FROZEN, 0)


class Shared(nn.Module):
    """One convolution on both sides of the merge point."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.middle = nn.ReLU()
        self.fc = nn.Linear(3, 4)

    def forward(self, x):
        return self.fc(self.conv(self.middle(self.conv(x))).mean((2, 3)))


def test_what_cannot_be_frozen_is_refused() -> None:
    from siamcal import CalibratingSiamese

    shared = CalibratingSiamese(
        Shared(), "middle", example_inputs=torch.rand(2, 3, 8, 8), mechanism="fx"
    )
    recipe = dataclasses.replace(FROZEN, merge_at="middle", preprocessing=Preprocessing(size=8))
    with pytest.raises(ConfigError, match=r"conv\.bias.*both sides"):
        Behind(shared, recipe)
    with pytest.raises(ConfigError, match="nothing to train"):
        dataclasses.replace(FROZEN, merge_at="output")
    with pytest.raises(ConfigError, match="shared"):
        dataclasses.replace(FROZEN, augmentation=Augmentation(shared=True))
    with pytest.raises(ConfigError, match="copies"):
        dataclasses.replace(FROZEN, freeze_pre=-1)


@pytest.mark.parametrize("layout", [BatchLayout(), BatchLayout(1), BatchLayout(0, 3)])
@pytest.mark.parametrize("sample_first", [True, False])
def test_packing_is_undone(layout, sample_first) -> None:
    layout = dataclasses.replace(layout, sample_first=sample_first)
    shape = [5, 4, 2]
    shape[layout.dim] = 6 * layout.groups
    tensor = torch.rand(shape)
    one = list(shape)
    one[layout.dim] = layout.groups
    rows = layout.to_rows(tensor)
    assert torch.equal(layout.from_rows(rows, torch.Size(one)), tensor)
    for place in range(6):  # each row is that sample's
        sample = layout.select(tensor, torch.tensor([place]))
        assert torch.equal(rows[place], sample.flatten())


@pytest.mark.parametrize("calibrated", [True, False])
def test_fused_layers_give_the_same_features(faces, calibrated) -> None:
    network = build_network(FROZEN, 2, calibrated=calibrated)
    behind = Behind(network, FROZEN)
    packer = behind.packer(4)
    assert packer != behind.pack  # they were fused
    images = torch.rand(4, 3, 32, 32)
    torch.testing.assert_close(packer(images), behind.pack(images), atol=1e-4, rtol=1e-4)
    odd = torch.rand(3, 3, 32, 32)
    assert torch.equal(packer(odd), behind.pack(odd))


def test_what_cannot_be_fused_is_computed_as_it_is(faces, monkeypatch) -> None:
    network = build_network(FROZEN, 2, calibrated=True)
    behind = Behind(network, FROZEN)
    monkeypatch.setattr(torch.jit, "freeze", lambda module: lambda images: images * 0)
    monkeypatch.setattr(torch.jit, "optimize_for_inference", lambda module: module)
    with pytest.raises(RuntimeError):
        torch.allclose(torch.zeros(2), torch.zeros(3, 3, 4))
    assert behind.packer(4) == behind.pack  # other shapes raise, other values differ


def test_only_a_cut_that_passed_its_proof_is_taken_for_proved(monkeypatch) -> None:
    monkeypatch.setattr(networks, "_PROVED", set())
    wrong = dataclasses.replace(FROZEN, merge_at="layer9")
    for _ in range(2):
        with pytest.raises(SiamcalError):
            build_network(wrong, 2, calibrated=True)
        assert networks.not_yet_proved(wrong)
    build_network(FROZEN, 2, calibrated=True)
    assert not networks.not_yet_proved(FROZEN)
    assert networks.not_yet_proved(dataclasses.replace(FROZEN, backbone="./net.py:build"))
