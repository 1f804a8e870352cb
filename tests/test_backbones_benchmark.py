"""The benchmark of the backbone recipes trains, compares and says what it doesn't show."""

from pathlib import Path

import pytest
import torch
from siamcal.benchmarks.backbones import LIMITS, NETWORKS, backbones

from siamcal.training.choice import choose_recipe
from siamcal.training.networks import build_network

torch.set_num_threads(1)


@pytest.mark.slow
def test_a_run_writes_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIAMCAL_CACHE", str(tmp_path / "cache"))
    name = "timm:mobilenetv3_small_100"
    text = backbones(tmp_path, name, participants=6, frames=4, size=32, steps=2, batch_size=4)
    assert LIMITS in text
    assert f"| {name} | blocks.4 | 2 |" in text
    assert (tmp_path / "backbones.md").read_text() == text
    assert (tmp_path / "mobilenetv3_small_100" / "results.json").is_file()


@pytest.mark.parametrize("name", NETWORKS)
def test_its_networks_have_recipes_and_take_the_size(name: str) -> None:
    own = NETWORKS[name].format(size=96)
    recipe = choose_recipe(backbone=name, settings=["preprocessing.size=96", *[own] * bool(own)])
    assert recipe.weights == ""
    model = build_network(recipe, 12, calibrated=True).eval()
    assert model.merge_at == recipe.merge_at
    output = model(torch.rand(2, 3, 96, 96), torch.rand(1, 3, 96, 96))
    assert output.intensity.shape == (2, 12)
