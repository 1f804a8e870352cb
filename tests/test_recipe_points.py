"""Recipes with several merge points: read, refused, trained, compared, saved.

Outputs are held against plain forward hooks on the trained backbone.
"""

import dataclasses
import json
from pathlib import Path

import facesets
import numpy as np
import pytest
import torch
from facesets import squares
from torch import Tensor, nn
from torch.nn import functional as F

from siamcal.calibrators.config import CalibratorConfig
from siamcal.calibrators.saving import describe, load_calibrator, save_calibrator
from siamcal.datasets.base import FaceSet
from siamcal.errors import ConfigError, MergePointError
from siamcal.evaluation.compare import Job, compare
from siamcal.evaluation.methods import label, parse
from siamcal.evaluation.run import outlook, swept_methods
from siamcal.evaluation.tables import provenance, write_report
from siamcal.evaluation.trial import trainings
from siamcal.model.siamese import CalibratingSiamese
from siamcal.settings import override, to_dict
from siamcal.training.choice import choose_recipe
from siamcal.training.everyone import config_facts
from siamcal.training.identity import recipe_facts
from siamcal.training.loop import fit
from siamcal.training.prediction import predict
from siamcal.training.recipe import load_recipe

POINTS = ("layer2", "layer4")
RECIPE = dataclasses.replace(
    facesets.RECIPE, merge_at=POINTS, merge="concatenated", learning_rate=3e-3, steps=3
)


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> FaceSet:
    torch.set_num_threads(1)
    return squares(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="module")
def trained(faces) -> CalibratingSiamese:
    network = fit(RECIPE, faces, np.arange(len(faces)), calibrated=True)
    assert isinstance(network, CalibratingSiamese)
    return network


# -- read and written -----------------------------------------------------------------------------


def test_files_and_the_command_line_name_them_alike(tmp_path) -> None:
    told = 'name = "mine"\nmerge = "gated"\nmerge_at = ["layer2", "layer4"]\n'
    (tmp_path / "mine.toml").write_text(told)
    (tmp_path / "recipe.json").write_text(json.dumps(to_dict(RECIPE)))
    assert load_recipe(tmp_path / "mine.toml").merge_at == POINTS
    assert load_recipe(tmp_path / "recipe.json") == RECIPE
    plain = dataclasses.replace(RECIPE, merge_at="fc")
    for text in ("layer2,layer4", "[layer2, layer4]", "(layer2,layer4)"):
        assert override(plain, [f"merge_at={text}"]) == RECIPE
    assert override(RECIPE, ["merge_at=fc"]) == plain  # one name is no list
    assert override(RECIPE, ["steps=4"]).merge_at == POINTS
    # Modules of an nn.Sequential are called by numbers.
    assert override(RECIPE, ["merge_at=2,5"]).merge_at == ("2", "5")
    assert override(RECIPE, ["merge_at=2"]).merge_at == "2"
    assert dataclasses.replace(RECIPE, merge_at=["layer2"]).merge_at == "layer2"


def test_options_join_them_by_a_plus() -> None:
    settings = ["merge=gated"]
    chosen = choose_recipe(merge_at="layer2+layer4", backbone="ir_tiny", settings=settings)
    assert (chosen.merge_at, chosen.backbone) == (POINTS, "ir_tiny")
    # A network without a recipe of its own.
    other = {"backbone": "timm:mobilenetv3_small_050", "settings": settings}
    assert choose_recipe(merge_at="blocks.2 + blocks.4", **other).merge_at == (
        "blocks.2",
        "blocks.4",
    )
    # The methods of a sweep name its points; the recipe keeps its own.
    assert choose_recipe(merge_at="fc,layer2+layer4").merge_at == "head"
    with pytest.raises(ConfigError, match=r"written like layer2\+layer4, but got 'layer2\+'"):
        choose_recipe(merge_at="layer2+")


def test_methods_name_them() -> None:
    assert parse("csn:gated@layer2+layer4").merge_at == POINTS
    assert parse("frozen@layer2+layer4").merge_at == POINTS
    assert label("csn@layer2+layer4") == "CSN (layer2+layer4)"
    found = swept_methods(RECIPE, "ncg,csn", "layer3,layer2+layer4,layer2+fc")
    assert found == ("ncg", "csn@layer3", "csn", "csn@layer2+fc")
    with pytest.raises(ConfigError, match="written like"):
        parse("csn@+layer2")


def test_a_training_is_told_apart_by_its_points() -> None:
    facts = recipe_facts(RECIPE)
    assert facts["merge_at"] == ["layer2", "layer4"]
    for other in ("layer2", ("layer2", "layer3"), ("layer2", "layer3", "layer4")):
        assert recipe_facts(dataclasses.replace(RECIPE, merge_at=other)) != facts


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"freeze_pre": 2}, r"freeze_pre=2 is for one .* 2 \(layer2, layer4\); set freeze_pre=0"),
        ({"branches": "concatenate"}, "branches='concatenate' is for one merge point"),
        ({"compile": True}, "compile=True is for one merge point"),
        ({"zero_at_reference": True}, "set zero_at_reference=False, or name one"),
        ({"merge": "paper"}, "'anchored', 'gated' or 'concatenated'"),
        ({"merge_at": ()}, "merge_at takes the name of a merge point"),
        ({"merge_at": ("layer2", 4)}, "merge_at takes the name of a merge point"),
    ],
)
def test_what_is_for_one_point_is_refused_at_once(changes, says) -> None:
    with pytest.raises(ConfigError, match=says):
        dataclasses.replace(RECIPE, **changes)


def test_points_out_of_order_are_refused_before_a_step(faces) -> None:
    wrong = dataclasses.replace(RECIPE, merge_at=("layer4", "layer2"))
    with pytest.raises(MergePointError, match=r"write merge_at=\('layer2', 'layer4'\)"):
        fit(wrong, faces, np.arange(len(faces)), calibrated=True)
    frozen = dataclasses.replace(facesets.RECIPE, merge="gated", freeze_pre=1)
    with pytest.raises(ConfigError, match="freeze_pre=1 is for one merge point"):
        trainings(frozen, ["ncg", "csn@layer2+layer4"])


# -- computed -------------------------------------------------------------------------------------


def read(network: CalibratingSiamese, target: Tensor, reference: Tensor) -> Tensor:
    """Intensities by hooks on the plain backbone, `concatenated` written out at each point."""
    net, forms = network.unwrap(), network.merge_form
    known: dict[str, Tensor] = {}

    def keep(name: str):
        return lambda _, args: known.__setitem__(name, args[0].clone())

    def merge(name: str, form: nn.Module):
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
            t, r = args[0], known[name]
            weight, bias = form.state_dict()["weight"], form.state_dict()["bias"]
            both = torch.cat([t, t - r], 1)
            return (F.conv2d(both, weight[:, :, None, None], bias),)

        return hook

    def hooked(image: Tensor, hooks: list) -> Tensor:
        handles = [
            net.get_submodule(p).register_forward_pre_hook(h)
            for p, h in zip(POINTS, hooks, strict=True)
        ]
        try:
            return net(image)
        finally:
            for handle in handles:
                handle.remove()

    hooked(reference, [keep(name) for name in POINTS])
    output = hooked(target, [merge(p, f) for p, f in zip(POINTS, forms, strict=True)])
    return network.head(output).intensity


@torch.no_grad()
def test_a_trained_recipe_merges_at_each_point(faces, trained) -> None:
    assert trained.merge_at == POINTS
    for form in trained.merge_form:  # both were trained
        half = 0.5 * torch.eye(len(form.state_dict()["bias"]))
        assert not torch.allclose(form.state_dict()["weight"], torch.cat([half, half], 1))
    rows = np.flatnonzero(faces.participants == "P01")[:7]
    pictures = faces.preprocessing.to_tensor(faces.images[rows])
    reference = faces.preprocessing.to_tensor(faces.images[faces.reference_rows[rows]])
    want = read(trained, pictures, reference)
    found = predict(trained, faces, rows)
    np.testing.assert_allclose(found, want.numpy(), rtol=1e-4, atol=1e-5)


def test_it_is_saved_and_loaded_bit_for_bit(tmp_path: Path, faces, trained) -> None:
    config = describe(trained, **config_facts(RECIPE, faces))
    assert isinstance(config, CalibratorConfig)
    assert config.merge_at == POINTS
    save_calibrator(trained, config, tmp_path / "saved")
    loaded = load_calibrator(tmp_path / "saved")
    rows = np.arange(9)
    assert np.array_equal(predict(loaded, faces, rows), predict(trained, faces, rows))


def test_a_comparison_reads_and_reports_them(tmp_path: Path, faces) -> None:
    recipe = dataclasses.replace(facesets.RECIPE, merge="concatenated", steps=2)
    methods = ("ncg", "csn", "csn@layer2+layer4", "frozen@layer2+layer4")
    job = Job(recipe, tmp_path, ("intensity",), methods, folds=[0])
    assert "merge at layer2+layer4; " in outlook(job, 6, 96, 2, 2)
    found = compare(job, faces)
    write_report(found.results, tmp_path)
    assert "CSN (layer2+layer4)" in (tmp_path / "table.md").read_text()
    one = found.results["methods"]["csn"]["intensity"]["icc"]["mean"]
    assert one != found.results["methods"]["csn@layer2+layer4"]["intensity"]["icc"]["mean"]
    found.results["recipe"]["merge_at"] = list(POINTS)
    assert "merge at layer2, layer4, seed" in provenance(found.results)
