"""Forms of the merge: what their names mean, forms with parameters, saved and loaded ones."""

import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from calibrators import predictions, rewrite, stirred, tiny
from torch import Tensor, nn

from siamcal.calibrators.config import CalibratorConfig
from siamcal.calibrators.saving import load_calibrator, save_calibrator
from siamcal.cli.listing import list_things
from siamcal.errors import ConfigError, WeightsError
from siamcal.model.create import create_backbone
from siamcal.model.merges.differences import reference_minus_target, target_minus_reference
from siamcal.model.siamese import CalibratingSiamese
from siamcal.model.weights_file import read_header, read_tensors, write_tensors
from siamcal.registry import merges
from siamcal.settings import from_dict, override, to_dict
from siamcal.training.networks import build_network
from siamcal.training.objective import make_optimizer
from siamcal.training.recipe import Recipe, load_recipe

torch.set_num_threads(1)


class Gated(nn.Module):
    """Difference under a gate that is trained."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.full(shape, 0.5))
        self.mix = nn.Conv2d(shape[1], shape[1], 1)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)

    def forward(self, target: Tensor, reference: Tensor) -> Tensor:
        return self.mix(target) + self.gate * (reference - target)


class OwnGate(nn.Module):
    """A user's own module, which knows its size."""

    def __init__(self, start: float = 0.25, channels: int = 64) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.full((channels, 1, 1), start))

    def forward(self, target: Tensor, reference: Tensor) -> Tensor:
        return self.gate * (reference - target)


@pytest.fixture
def gated(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Registered for the length of one test."""
    merges.names()
    monkeypatch.setattr(merges, "_entries", dict(merges._entries))
    merges.register("own_gated")(Gated)
    yield "own_gated"
    monkeypatch.undo()
    assert "own_gated" not in merges


def images(batch: int, seed: int) -> Tensor:
    return torch.rand(batch, 3, 112, 112, generator=torch.Generator().manual_seed(seed))


def moved(model: CalibratingSiamese) -> CalibratingSiamese:
    """Its merge's tensors are none that a constructor gives."""
    stirred(model.merge_form)
    return model


# What the names mean


@pytest.mark.parametrize("place", ["layer4", "fc", "output"])
def test_a_name_means_the_same_sign_at_every_place(place: str) -> None:
    signs = {"reference_minus_target": lambda t, r: r - t, "target_minus_reference": torch.sub}
    authors = "target_minus_reference" if place == "output" else "reference_minus_target"
    default = tiny(merge_at=place)
    assert default.merge == authors
    for name, function in signs.items():
        model, own = tiny(merge_at=place, merge=name), tiny(merge_at=place, merge=function)
        assert (model.merge, own.merge) == (name, "custom")
        assert torch.equal(predictions(model), predictions(own))
        assert torch.equal(predictions(model), predictions(default)) == (name == authors)
    paper = tiny(merge_at=place, merge="paper")
    assert paper.merge == authors
    assert torch.equal(predictions(paper), predictions(default))


def test_a_registered_function_is_known_by_its_name() -> None:
    assert tiny(merge=target_minus_reference).merge == "target_minus_reference"
    assert tiny(merge_at="output", merge=reference_minus_target).merge == "reference_minus_target"


@pytest.mark.parametrize("name", ["target_minus_referenc", None])
def test_an_unknown_form_is_answered_with_the_known_ones(name: str | None) -> None:
    with pytest.raises(
        ConfigError, match=r"No merge form .* Known: .*paper, reference_minus_target"
    ):
        tiny(merge=name)


def test_a_config_takes_registered_names_only(gated: str) -> None:
    facts = {"task": "raw", "aus": ()}
    assert CalibratorConfig(merge_at="output", **facts).merge == "target_minus_reference"
    assert CalibratorConfig(merge_at="fc", **facts).merge == "reference_minus_target"
    assert CalibratorConfig(merge_at="fc", merge=gated, **facts).merge == gated
    with pytest.raises(
        ConfigError, match=r"No merge form is called 'own_gate'\. Did you mean 'own_gated'"
    ):
        CalibratorConfig(merge_at="fc", merge="own_gate", **facts)
    with pytest.raises(ConfigError, match="must be str"):
        CalibratorConfig(merge_at="fc", merge=4, **facts)  # type: ignore[arg-type]


def test_a_recipe_takes_registered_names_only(gated: str, tmp_path: Path) -> None:
    base = Recipe(name="example")
    assert base.merge == "paper"
    assert Recipe(name="example", merge=gated).merge == gated
    near = "Did you mean 'target_minus_reference'"
    with pytest.raises(ConfigError, match=near):
        Recipe(name="example", merge="target_minus_ref")
    with pytest.raises(ConfigError, match=near):
        override(base, ["merge=target_minus_ref"])
    (tmp_path / "mine.toml").write_text('name = "mine"\nmerge = "target_minus_ref"\n')
    with pytest.raises(ConfigError, match=near):
        load_recipe(tmp_path / "mine.toml")


# A form with parameters, registered at run time


def test_a_new_form_is_one_registration(
    gated: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    list_things("merges", as_json=True)
    listed = {row["name"]: row["what"] for row in json.loads(capsys.readouterr().out)}
    assert listed[gated] == "Difference under a gate that is trained."
    assert {"paper", "reference_minus_target", "target_minus_reference"} < set(listed)

    recipe = Recipe(name="mine", backbone="ir_tiny", merge_at="layer3", merge=gated)
    assert from_dict(to_dict(recipe), Recipe) == recipe
    model = build_network(recipe, 3, calibrated=True)
    assert isinstance(model, CalibratingSiamese)
    assert model.merge == gated
    optimizer = make_optimizer(model, recipe)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    model.train()
    model(images(4, 1), images(4, 2)).intensity.square().mean().backward()
    optimizer.step()
    now = dict(model.named_parameters())
    for name in ("merge_form.0.gate", "merge_form.0.mix.weight", "backbone.fc.weight"):
        assert not torch.equal(now[name], before[name])
    last = {id(p) for p in optimizer.param_groups[1]["params"]}
    assert last == {id(now[n]) for n in ("backbone.fc.weight", "backbone.fc.bias")}

    model.eval()
    config = model.save_pretrained(tmp_path, aus=(1, 12, 25))
    assert config.merge == gated
    loaded = CalibratingSiamese.from_pretrained(tmp_path)
    assert loaded.merge == gated
    assert torch.equal(loaded.state_dict()["merge_form.0.gate"], now["merge_form.0.gate"])
    assert torch.equal(predictions(loaded), predictions(model.eval()))


def test_a_form_is_made_for_each_tensor_with_one_samples_shape(gated: str) -> None:
    model = tiny(merge_at="layer4", merge=gated)
    assert [m.gate.shape for m in model.merge_form] == [(1, 64, 7, 7)]
    inside = tiny(merge_at="layer4.0.conv2", merge=gated)  # the shortcut crosses beside the branch
    assert len(inside.merge_form) == len(inside.split.layouts) == 2
    for merge_at in ("layer4", "layer4.0.conv2"):
        model = tiny(merge_at=merge_at, merge=gated)
        for form in model.merge_form:
            form.gate.data.fill_(1)
        assert torch.equal(predictions(model), predictions(tiny(merge_at=merge_at)))


def test_making_a_form_leaves_the_network_as_it_was(gated: str) -> None:
    network = stirred(create_backbone("ir_tiny", num_outputs=5)).train().double()
    before = copy.deepcopy(network.state_dict())
    model = CalibratingSiamese(network, "layer4", merge=gated)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert all(m.training for m in model.modules())
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert not any(m.training for m in model.eval().merge_form.modules())
    assert {p.dtype for p in model.float().merge_form.parameters()} == {torch.float32}


@pytest.mark.parametrize("branches", ["separate", "concatenate"])
def test_references_and_copies_go_through_the_form(gated: str, branches: str) -> None:
    model = moved(tiny(merge=gated, branches=branches))
    targets, neutral, index = images(3, 1), images(2, 2), torch.tensor([1, 0, 1])
    expected = model(targets, neutral[index])
    torch.testing.assert_close(model(targets, model.encode(neutral), index), expected)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(targets, neutral[index]), expected)
        with torch.no_grad():
            twin.merge_form[0].gate.zero_()
    torch.testing.assert_close(model(targets, neutral[index]), expected)


# Saved and loaded


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_saved_and_loaded_bit_for_bit(gated: str, tmp_path: Path, adapter: bool, own: bool) -> None:
    model = moved(tiny(merge=OwnGate() if own else gated))
    config = save_calibrator(model, None, tmp_path, adapter=adapter)
    assert config.merge == ("custom" if own else gated)
    names = set(read_header(tmp_path / "model.safetensors"))
    assert {n for n in names if n.startswith("merge.")} == (
        {"merge.gate"} if own else {"merge.0.gate", "merge.0.mix.weight", "merge.0.mix.bias"}
    )
    public = stirred(create_backbone("ir_tiny", num_outputs=5)) if adapter else None
    if own:
        with pytest.raises(ConfigError, match="merge="):
            load_calibrator(tmp_path, backbone=public)
    loaded = load_calibrator(tmp_path, backbone=public, merge=OwnGate() if own else None)
    assert torch.equal(predictions(loaded), predictions(model))
    save_calibrator(loaded, None, tmp_path / "again", adapter=adapter)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_a_class_of_ones_own_is_passed_back(tmp_path: Path) -> None:
    model = moved(tiny(merge=Gated))
    assert model.merge == "custom"
    model.save_pretrained(tmp_path)
    loaded = CalibratingSiamese.from_pretrained(tmp_path, merge=Gated)
    assert torch.equal(predictions(loaded), predictions(model))
    with pytest.raises(WeightsError, match=r"lacks 1 tensors, merge\.gate"):
        load_calibrator(tmp_path, merge=OwnGate())


def test_precision_of_the_form_is_kept(gated: str, tmp_path: Path) -> None:
    model = moved(tiny(merge=gated)).to(torch.bfloat16)
    save_calibrator(model, None, tmp_path)
    dtypes = {p.dtype for p in load_calibrator(tmp_path).merge_form.parameters()}
    assert dtypes == {torch.bfloat16}


def changed_file(folder: Path, **changes: Tensor | None) -> None:
    tensors = read_tensors(folder / "model.safetensors") | changes
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    rewrite(folder, weights_checksum=write_tensors(kept, folder / "model.safetensors"))


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize(
    ("name", "tensor", "says"),
    [
        ("merge.0.gate", None, r"lacks 1 tensors, merge\.0\.gate"),
        ("merge.0.more", torch.ones(1), r"has beyond the network 1 tensors, merge\.0\.more"),
        ("merge.0.gate", torch.ones(1, 64, 7, 6), r"don't fit the network: merge\.0\.gate"),
    ],
)
def test_a_form_that_does_not_fit_is_refused(
    gated: str, tmp_path: Path, name: str, tensor: Tensor | None, says: str, adapter: bool
) -> None:
    model = moved(tiny(merge=gated))
    save_calibrator(model, None, tmp_path, adapter=adapter)
    public = stirred(create_backbone("ir_tiny", num_outputs=5)) if adapter else None
    changed_file(tmp_path, **{name: tensor})
    with pytest.raises(WeightsError, match=says):
        load_calibrator(tmp_path, backbone=public)


def test_a_difference_brings_no_tensors(tmp_path: Path) -> None:
    save_calibrator(tiny(), None, tmp_path)
    changed_file(tmp_path, **{"merge.0.gate": torch.ones(1)})
    with pytest.raises(WeightsError, match=r"has beyond the network 1 tensors, merge\.0\.gate"):
        load_calibrator(tmp_path)
    assert load_calibrator(tmp_path, strict=False).merge == "reference_minus_target"


def test_an_adapter_without_its_head_is_refused(tmp_path: Path) -> None:
    model = tiny(nn.Linear(5, 2))
    save_calibrator(model, None, tmp_path, adapter=True)
    changed_file(tmp_path, **{"head.bias": None})
    public = stirred(create_backbone("ir_tiny", num_outputs=5))
    with pytest.raises(WeightsError, match=r"lacks 1 tensors, head\.bias"):
        load_calibrator(tmp_path, backbone=public, head=nn.Linear(5, 2))


def test_a_form_unknown_here_is_named(
    gated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_calibrator(tiny(merge=gated), None, tmp_path)
    monkeypatch.delitem(merges._entries, gated)
    with pytest.raises(ConfigError, match=r"config\.json: No merge form is called 'own_gated'"):
        load_calibrator(tmp_path)
