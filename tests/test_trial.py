"""Methods of a comparison, held against sums and hooks written out here."""

import dataclasses

import numpy as np
import pytest
import torch
from facesets import RECIPE, squares

from siamcal.errors import ConfigError
from siamcal.evaluation.methods import METHODS, default_methods, label, pairs, parse
from siamcal.evaluation.trial import Trial
from siamcal.recalibration.rest import rest_to_zero
from siamcal.training.recipe import Augmentation

FROZEN = dataclasses.replace(
    RECIPE, steps=3, freeze_pre=1, augmentation=Augmentation(brightness=0.1)
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SIAMCAL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return squares(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    return squares(tmp_path_factory.mktemp("others"), people=3, seed=5)


def test_names_of_methods() -> None:
    assert parse("csn:anchored@layer3").form == "anchored"
    assert parse("csn:anchored@layer3").merge_at == "layer3"
    assert parse("frozen@fc").trained == "ncg"
    assert parse("csn").trained == "csn"
    assert parse("frozen:outputs@fc").trained == parse("outputs").trained == "ncg"
    wrong = (
        "outputs@fc",
        "outputs:anchored",
        "frozen:anchored",
        "frozen:",
        "sub",
        "ncg@layer3",
        "bs:anchored",
        "csn:",
        "csn@",
        "csn:anchord",
        "bss@fc",
    )
    for name in wrong:
        with pytest.raises(ConfigError):
            parse(name)
    assert label("csn:anchored@layer3") == "CSN (anchored, layer3)"
    assert label("csn@layer3") == "CSN (layer3)"
    assert default_methods("paper") == ("ncg", "bs", "csn")
    assert set(default_methods("concatenated")) == set(METHODS) - {"outputs", "frozen:outputs"}
    as_it_is = default_methods("concatenated", trained=True)
    assert as_it_is == ("ncg", "bs", "bss", "outputs", "frozen", "frozen:outputs")
    occurrence = default_methods("paper", trained=True, intensity=False)
    assert occurrence == ("ncg", "bs", "bss", "frozen")
    assert label("frozen:outputs@fc") == "frozen, outputs mapped (fc)"
    assert pairs(["ncg", "bs", "csn"]) == [("csn", "ncg"), ("csn", "bs")]
    assert ("csn@fc", "bs") not in pairs(["ncg", "bs", "csn@fc"])


@pytest.mark.parametrize("recipe", [RECIPE, FROZEN], ids=["images", "kept features"])
def test_methods_that_need_no_training_of_their_own(faces, others, recipe, tmp_path) -> None:
    recipe = dataclasses.replace(recipe, steps=3)
    training = faces.fold(0)[0]
    trial = Trial(recipe, faces, training, tmp_path, "some", shrinkage=0.75)
    rows = np.arange(len(others))[::3]
    methods = ["bs", "bss", "frozen", "ncg", "frozen:outputs", "outputs"]
    found = trial.predict(methods, others, rows)
    assert list(found) == methods

    plain = trial._networks["ncg"][0].eval()
    to_tensor = faces.preprocessing.to_tensor
    references = others.reference_rows[rows]
    anchors = np.unique(faces.reference_rows[training])

    def read(which, places):
        with torch.inference_mode():
            return plain(to_tensor(which.images[places])).intensity.numpy()

    own, neutral, mean = read(others, rows), read(others, references), read(faces, anchors).mean(0)
    np.testing.assert_allclose(found["ncg"], own, atol=1e-4)
    np.testing.assert_allclose(found["bs"], own - neutral, atol=1e-4)
    shrunken = own - mean - 0.75 * (neutral - mean)
    np.testing.assert_allclose(found["bss"], shrunken, atol=1e-4)
    np.testing.assert_allclose(found["outputs"], mapped(own, neutral), atol=1e-3)

    # The frozen network: its features, caught and replaced by hooks on the plain one.
    module = plain.backbone.get_submodule(recipe.merge_at)
    caught = []
    handle = module.register_forward_pre_hook(lambda module, args: caught.append(args[0]))
    for which, places in ((others, rows), (others, references), (faces, anchors)):
        read(which, places)
    handle.remove()
    resting, anchor = caught[1], caught[2].mean(0)

    def moved(features):
        calibrated = features - 0.75 * (resting - anchor)
        handle = module.register_forward_pre_hook(lambda module, args: calibrated)
        try:
            return read(others, rows)
        finally:
            handle.remove()

    expected, rest = moved(caught[0]), moved(resting)
    np.testing.assert_allclose(found["frozen"], expected, atol=1e-3)
    np.testing.assert_allclose(found["frozen:outputs"], mapped(expected, rest), atol=2e-3)
    at_rest = rows == references
    assert at_rest.any()
    assert np.abs(found["frozen"][at_rest]).max() > 0.01  # what the frozen network alone leaves
    assert np.abs(found["frozen:outputs"][at_rest]).max() < 1e-5


def mapped(readings, rest):
    """The monotone map written out: rest to 0, 5 to 5."""
    above = np.maximum(readings - rest, 0)
    return np.clip(above * 5 / (5 - rest), 0, 5)


def test_rest_at_the_top_is_shifted() -> None:
    readings, rest = np.array([[6.0, 3.0], [5.5, 1.0], [2.0, 4.0]]), np.array([[5.5, 1.0]])
    found = rest_to_zero(readings, rest, np.zeros(3, int))
    np.testing.assert_allclose(found, [[0.5, 2.5], [0, 0], [0, 3.75]])


def test_rest_is_read_of_the_reference_against_itself(faces, others, tmp_path) -> None:
    trial = Trial(RECIPE, faces, faces.fold(0)[0], tmp_path, "some")
    rows = np.arange(len(others))
    own = others.reference_rows
    strange = dataclasses.replace(others, reference_rows=np.roll(own, 16))  # of the one before
    network, _ = trial._untrained(trial._plain(), parse("frozen:outputs"))
    assert network.merge_options == {"shrinkage": "estimated"}
    _, fixed = trial._untrained(trial._plain(), parse("frozen"))
    assert fixed.merge_options == {"shrinkage": 0.75}
    for which in (others, strange):
        found = trial.predict(["frozen:outputs"], which, rows)["frozen:outputs"]
        targets, resting = (
            faces.preprocessing.to_tensor(which.images[of]) for of in (rows, which.reference_rows)
        )
        with torch.inference_mode():
            readings = network(targets, resting).intensity.numpy()
            rest = network(resting, resting).intensity.numpy()
        np.testing.assert_allclose(found, mapped(readings, rest), atol=1e-3)


def test_occurrence_has_no_range_to_map_in(faces, tmp_path) -> None:
    recipe = dataclasses.replace(RECIPE, task="detection")
    trial = Trial(recipe, faces, faces.fold(0)[0], tmp_path, "some")
    with pytest.raises(ConfigError, match=r"outputs maps rest to 0 .* which detection hasn't"):
        trial.predict(["ncg", "outputs"], faces, faces.fold(0)[1])


def test_a_pool_of_one_is_the_reference_and_of_several_their_middle(
    faces, others, tmp_path
) -> None:
    trial = Trial(FROZEN, faces, faces.fold(0)[0], tmp_path, "some")
    rows = np.arange(len(others))
    methods = ["bs", "outputs", "frozen", "frozen:outputs", "csn:target_minus_reference"]
    plain = trial.predict([*methods, "ncg"], others, rows)
    one = {int(r): np.array([r]) for r in np.unique(others.reference_rows)}
    again = trial.predict(methods, others, rows, pool=one)
    for method in methods:
        np.testing.assert_allclose(plain[method], again[method], atol=1e-5)
    three = {r: np.arange(r, r + 3) for r in one}
    pooled = trial.predict(["bs"], others, rows, pool=three)["bs"]
    for reference, frames in three.items():
        mine = others.reference_rows == reference
        middle = np.median(plain["ncg"][frames], axis=0)
        np.testing.assert_allclose(pooled[mine], plain["ncg"][mine] - middle, atol=1e-5)


def test_trainings_are_shared_between_tested_sets(faces, others, tmp_path) -> None:
    trial = Trial(FROZEN, faces, faces.fold(0)[0], tmp_path, "some")
    first = trial.predict(["csn"], others, np.arange(6))["csn"]
    network = trial._networks["csn"][0]
    trial.predict(["csn"], faces, faces.fold(0)[1])
    assert trial._networks["csn"][0] is network
    np.testing.assert_array_equal(trial.predict(["csn"], others, np.arange(6))["csn"], first)
