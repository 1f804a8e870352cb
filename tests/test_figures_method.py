"""The picture of the method shows what the networks computed, and nothing else."""

import numpy as np
import pytest
import torch
from torch import nn

from siamcal.evaluation.figures_method import _plainest, _read, method_figure
from siamcal.inference.models import load_model


@pytest.fixture(scope="module")
def example():
    torch.manual_seed(0)
    model = load_model()
    crops = np.random.default_rng(0).integers(0, 255, (2, 256, 256, 3), dtype=np.uint8)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(3 * 256 * 256, 12)).eval()
    truth = np.linspace(0, 5, 12)
    return model, plain, crops, _read(plain, model, crops, truth)


def test_maps_and_readings_are_the_networks_own(example) -> None:
    model, plain, crops, found = example
    images = model.config.preprocessing.to_tensor(crops)
    seen = []
    backbone = model.unwrap()
    hook = backbone.get_submodule(model.merge_at).register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    with torch.no_grad():
        backbone(images)  # the plain network: nothing is merged
        hook.remove()
        neutral, target = seen[0].numpy()
        expected = model(images[1:], images[:1]).intensity[0]
        own = plain(images)
    for shown, values in (
        (found.neutral_map, neutral),
        (found.target_map, target),
        (found.difference, neutral - target),
    ):
        np.testing.assert_allclose(shown, np.sqrt((values**2).mean(0)), atol=1e-5)
    np.testing.assert_allclose(found.calibrated, expected.clip(0, 5), atol=1e-5)
    np.testing.assert_allclose((found.rest, found.plain), own.clip(0, 5), atol=1e-5)


def test_the_bars_are_the_readings(example) -> None:
    found = example[-1]
    axes = method_figure(found).axes[-1]
    shown = [found.aus.index(int(t.get_text()[2:])) for t in axes.get_xticklabels()]
    assert found.truth.argmax() in shown
    drawn = [[bar.get_height() for bar in bars] for bars in axes.containers]
    expected = [values[shown] for values in (found.plain, found.calibrated, found.truth)]
    np.testing.assert_allclose(drawn, expected)


def test_the_target_shows_one_strong_action_and_little_else() -> None:
    labels = np.array([[0.0, 0, 0], [5, 4, 5], [0, 3, 1], [2, 0, 0]])
    assert _plainest(labels) == 2
    assert _plainest(labels[[0, 3]]) == 1  # nothing strong: the strongest there is
