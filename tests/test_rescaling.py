"""Readings scaled to the labels' spread on people who were left out."""

import dataclasses

import numpy as np
import pytest
import torch
from facesets import RECIPE, squares

from siamcal.calibrators.saving import load_calibrator
from siamcal.errors import ConfigError
from siamcal.model.heads import IntensityHead, make_head
from siamcal.training.recipe import Noise
from siamcal.training.rescaling import factors_of, noisy_readings, split_people


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return squares(tmp_path_factory.mktemp("squares"), people=6, frames=16)


def test_factors_are_roots_of_ratios_of_spreads_within_bounds() -> None:
    rng = np.random.default_rng(0)
    labels = rng.uniform(0, 5, (400, 5))
    readings = labels * [0.8, 0.1, 1.5, 0.0, 0.8] + 0.3
    readings[:, 4] = labels[:, 4] * 0.8
    labels[::2, 4] = -1  # half of them unlabelled
    found = factors_of(readings, labels)
    assert found == pytest.approx((1.25**0.5, 2.0, 1.0, 1.0, 1.25**0.5), abs=2e-3)


def test_people_are_left_out_whole(faces) -> None:
    trained, left_out = split_people(faces, 2)
    names = set(faces.participants[left_out])
    assert len(names) == 2
    assert not names & set(faces.participants[trained])
    assert len(trained) + len(left_out) == len(faces)


def test_the_head_multiplies_intensities_only() -> None:
    raw = torch.rand(3, 12)
    plain, scaled = IntensityHead(2)(raw), make_head("intensity", 2, (1.5, 2.0))(raw)
    torch.testing.assert_close(scaled.intensity, plain.intensity * torch.tensor([1.5, 2.0]))
    torch.testing.assert_close(scaled.ordinal_logits, plain.ordinal_logits)
    with pytest.raises(ValueError, match="one factor for each of 2 AUs"):
        IntensityHead(2, (1.0,))


def test_a_training_is_scaled_and_the_factors_are_saved(faces, tmp_path, monkeypatch) -> None:
    from siamcal.calibrators.saving import describe, save_calibrator
    from siamcal.training import everyone

    monkeypatch.setenv("SIAMCAL_CACHE", str(tmp_path / "cache"))
    recipe = dataclasses.replace(RECIPE, rescale_people=2, target_noise=Noise(blur=2, jpeg=30))
    rows, left_out = everyone._rows(recipe, faces)
    assert set(rows) | set(left_out) == set(range(len(faces)))
    with pytest.raises(ConfigError, match="leaves nobody to train on"):
        everyone._rows(dataclasses.replace(recipe, rescale_people=6), faces)
    network = everyone.fit(dataclasses.replace(recipe, steps=3), faces, rows, calibrated=True)
    readings, labels = noisy_readings(network, faces, left_out, recipe)
    assert readings.shape == labels.shape == (len(left_out), 2)
    network.head = make_head("intensity", 2, (1.25, 1.5))
    config = describe(network, aus=(1, 2), preprocessing=recipe.preprocessing)
    save_calibrator(network, config, tmp_path / "saved")
    loaded = load_calibrator(tmp_path / "saved")
    assert loaded.config.scale == (1.25, 1.5)
    images = faces.preprocessing.to_tensor(faces.images[:4])
    with torch.no_grad():
        ours, theirs = (m(images, images.flip(0)).intensity for m in (network, loaded))
    torch.testing.assert_close(ours, theirs)
