"""Each backbone recipe names a legal merge point and the network's own size and normalisation."""

import pytest
import torch

from siamcal import create_backbone, list_merge_points
from siamcal.graph import input_spec
from siamcal.training.recipe import load_recipe

torch.set_num_threads(1)

NAMES = [
    "ir18",
    "ir50",
    "resnet50",
    "convnext_tiny",
    "vit_small",
    "swin_tiny",
    "efficientnet_b0",
    "mobilenetv4_conv_small",
    "mobilenetv3_small",
    "edgenext_small",
    "dlib_trunk",
]


@pytest.mark.parametrize("name", NAMES)
def test_recipe_fits_its_network(name):
    recipe = load_recipe(name)
    network = create_backbone(recipe.backbone, 6, **recipe.backbone_options)
    points = {p.name: p for p in list_merge_points(network)}
    assert recipe.merge_at in points
    assert 0.5 < points[recipe.merge_at].macs_before < 0.97
    assert recipe.note
    spec = input_spec(network)
    assert spec.shape == (3, recipe.preprocessing.size, recipe.preprocessing.size)
    assert spec.mean == pytest.approx(recipe.preprocessing.mean)
    assert spec.std == pytest.approx(recipe.preprocessing.std)
