"""Several merge points at once, held against plain forward hooks on a copy of the network."""

import copy
import json
import pickle
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from siamcal import CalibratingSiamese, Reference, create_backbone
from siamcal.calibrators.config import CalibratorConfig, read_config
from siamcal.errors import ConfigError, MergePointError, WeightsError
from siamcal.graph import split_network
from siamcal.inference import Predictor
from siamcal.inference.run import calibrator_facts
from siamcal.model.export import Encoder, Reader
from siamcal.model.heads import make_head
from siamcal.preprocessing import Preprocessing

torch.set_num_threads(1)

SIZE = 32
Merges = Sequence[Callable[[Tensor, Tensor], Tensor]]


class Residual(nn.Module):
    """Writes into what enters it; the shortcut passes its layers by."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(width, outputs, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(outputs)
        self.drop = nn.Dropout(0.3)
        self.side = nn.Conv2d(width, outputs, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(x)
        return self.drop(self.norm(self.conv(x))) + self.side(x)


class Branched(nn.Module):
    """Residual stages, and two branches that meet again between the second and the third."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.first, self.second = Residual(4, 6), Residual(6, 8)
        self.left, self.right = nn.Conv2d(8, 3, 1), nn.Conv2d(8, 5, 3, padding=1)
        self.third = Residual(8, 8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(self.stem(x) - 0.3))
        x = torch.cat([self.left(x), torch.tanh(self.right(x))], 1)
        return self.fc(self.third(x).mean((2, 3)))


def ir_tiny() -> nn.Module:
    return create_backbone("ir_tiny", 5, input_size=SIZE)


def convnet() -> nn.Module:
    return create_backbone("timm:mobilenetv3_small_050", 5)


def vit() -> nn.Module:
    sizes = {"img_size": SIZE, "patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2}
    return create_backbone("timm:vit_tiny_patch16_224", 5, **sizes)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "ir_tiny": (ir_tiny, ("layer2", "layer4")),
    "branched": (Branched, ("first", "second", "third")),
    "convnet": (convnet, ("blocks.2", "blocks.4")),
    "vit": (vit, ("blocks.1", "blocks.3")),
}
FORMS = ("anchored", "concatenated", "gated", "reference_minus_target")


def network(kind: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = NETWORKS[kind][0]()
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
    return made.eval()


def images(count: int, seed: int) -> Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def pair() -> tuple[Tensor, Tensor]:
    return images(2, 1), images(2, 2)


def wrapped(kind: str, merge: object = "concatenated", **options: object) -> CalibratingSiamese:
    """Two or three points, fitted, and with parameters that aren't where they started."""
    points = options.pop("merge_at", NETWORKS[kind][1])
    model = CalibratingSiamese(
        network(kind), points, merge=merge, example_inputs=images(2, 0), **options
    )
    if not model.fitted:
        model.fit_anchor(images(12, 5), [0, 1, 2, 3] * 3)
    generator = torch.Generator().manual_seed(9)
    parts = model.merge_form if isinstance(model.merge_form, nn.Module) else nn.Module()
    for parameter in parts.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


# -- the oracle -----------------------------------------------------------------------------------


class _StopError(Exception):
    """Ends the reference's forward at the last point: nothing behind it sees the reference."""


def recorded(net: nn.Module, points: Sequence[str], reference: Tensor) -> list[Tensor]:
    """What enters the modules of the plain network, copied before they write into it."""
    found: list[Tensor] = []

    def record(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        found.append(args[0].clone())
        if len(found) == len(points):
            raise _StopError

    handles = [net.get_submodule(p).register_forward_pre_hook(record) for p in points]
    try:
        net(reference)
    except _StopError:
        return found
    finally:
        for handle in handles:
            handle.remove()
    raise AssertionError("the last point wasn't reached")


def swapped(
    net: nn.Module, points: Sequence[str], merges: Merges, target: Tensor, known: Sequence[Tensor]
) -> Tensor:
    """The network's output with each module's input merged with what was recorded there."""
    handles = [
        net.get_submodule(point).register_forward_pre_hook(
            lambda _, args, merge=merge, own=own: (merge(args[0], own),)
        )
        for point, merge, own in zip(points, merges, known, strict=True)
    ]
    try:
        return net(target)
    finally:
        for handle in handles:
            handle.remove()


def oracle(model: CalibratingSiamese, kind: str, target: Tensor, reference: Tensor) -> Tensor:
    """The output of a model in eval mode, by hooks on another copy of the network."""
    net, points = network(kind), NETWORKS[kind][1]
    net.load_state_dict(model.unwrap().state_dict())
    with torch.no_grad():
        known = recorded(net, points, reference)
        known = [r.expand(len(target), *r.shape[1:]) if len(r) == 1 else r for r in known]
        return swapped(net, points, forms_of(model, len(points)), target, known)


def forms_of(model: CalibratingSiamese, count: int) -> list[Callable[[Tensor, Tensor], Tensor]]:
    """Copies of the merge forms, one for each point."""
    form = model.merge_form
    return list(copy.deepcopy(form)) if isinstance(form, nn.ModuleList) else [form] * count


# -- what is computed -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_hooks_on_the_plain_network_compute_the_same(kind: str, form: str) -> None:
    model = wrapped(kind, form)
    for count in (1, 2, 5):
        x, y = images(count, 1), images(count, 2)
        want = oracle(model, kind, x, y)
        assert torch.equal(model(x, y), want)
        encoded = model.encode(y)
        assert torch.equal(model(x, encoded), want)
        others = images(2, 7)  # sums of a batch of one may be rounded otherwise
        shared = oracle(model, kind, others, y[:1])
        torch.testing.assert_close(model(others, encoded[0]), shared, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(model(x, images(count, 4)), want)
        assert not torch.allclose(model.unwrap()(x), want)


@torch.no_grad()
def test_the_formula_by_hand() -> None:
    """Each point weighs its own features with its own layer, the reference's being never merged."""
    model, net = wrapped("branched"), network("branched")

    def merged(place: int, t: Tensor, r: Tensor) -> Tensor:
        form = model.merge_form[place]
        return F.conv2d(torch.cat([t, t - r], 1), form.weight[:, :, None, None], form.bias)

    def meet(v: Tensor) -> Tensor:
        return torch.cat([net.left(v), torch.tanh(net.right(v))], 1)

    x, y = images(3, 1), images(3, 2)
    r1 = net.stem(y) - 0.3
    r2 = net.first(r1.clone())
    r3 = meet(net.second(r2.clone()))
    y1 = merged(0, net.stem(x) - 0.3, r1)
    y2 = merged(1, net.first(y1), r2)
    y3 = merged(2, meet(net.second(y2)), r3)
    want = net.fc(net.third(y3).mean((2, 3)))
    torch.testing.assert_close(model(x, y), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", NETWORKS)
@torch.no_grad()
def test_references_of_several_frames_and_of_several_people(kind: str) -> None:
    model, net, points = wrapped(kind, "anchored"), network(kind), NETWORKS[kind][1]
    x, frames = images(4, 1), [images(2, seed) for seed in (2, 3, 4)]
    index = torch.tensor([1, 0, 1, 1])
    features = [recorded(net, points, frame) for frame in frames]
    columns = zip(*features, strict=True)
    medians = [torch.stack(column).median(0).values[index] for column in columns]
    # Three frames behind each reference, by which the shrinkage is estimated.
    told = {"frames": torch.full((4,), 3)}
    forms = [lambda t, r, f=f: f(t, r, **told) for f in forms_of(model, len(points))]
    want = swapped(net, points, forms, x, medians)
    pooled = model.encode(frames)
    assert torch.equal(model(x, pooled, index), want)
    assert torch.equal(model(x, pooled[index]), want)
    joined = Reference.cat([pooled[0], pooled[1]])
    assert torch.equal(model(x, joined, index), want)
    assert torch.equal(model(x, images(2, 2), index), oracle(model, kind, x, images(2, 2)[index]))


@pytest.mark.parametrize("last", ["third", "fc"])
@torch.no_grad()
def test_the_output_may_be_the_last_point(last: str) -> None:
    model = wrapped("branched", merge_at=("first", last, "output"))
    x, y, net = images(3, 1), images(3, 2), network("branched")
    points, forms = ("first", last), forms_of(model, 3)
    known = recorded(net, points, y)
    want = forms[2](swapped(net, points, forms[:2], x, known), net(y))
    assert torch.equal(model(x, y), want)
    assert torch.equal(model(x, model.encode(y)), want)


class TwoWays(nn.Module):
    """Two tensors of the image enter `join`, and a weight that isn't the image's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.side = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(3, 6, 3, 2)
        self.join, self.body, self.fc = Join(), nn.Conv2d(10, 8, 3), nn.Linear(8, 5)

    def forward(self, image: Tensor, weight: Tensor) -> Tensor:
        x = self.join(self.stem(image), weight, side=self.side(image))
        return self.fc(self.body(x).relu().mean((2, 3)))


class Join(nn.Module):
    def forward(self, x: Tensor, weight: Tensor, side: Tensor) -> Tensor:
        return torch.cat([x * weight[:, None, None, None], side], 1).tanh()


@torch.no_grad()
def test_several_tensors_and_inputs_at_a_point() -> None:
    """Each tensor has its own form; what isn't the image's is the target's all along."""
    torch.manual_seed(3)
    net = TwoWays().eval()
    example = {"image": images(2, 0), "weight": torch.rand(2)}
    model = CalibratingSiamese(
        net, ("join", "fc"), merge="anchored", example_inputs=example, image_inputs="image"
    )
    ours, theirs = ({"image": images(3, k), "weight": torch.rand(3)} for k in (1, 2))
    model.fit_anchor({"image": images(12, 5), "weight": torch.rand(12)}, [0, 1, 2, 3] * 3)
    forms = list(model.merge_form)
    assert [form.channels for form in forms] == [4, 6, 8]

    def parts(given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return net.stem(given["image"]), net.side(given["image"])

    def tail(x: Tensor, weight: Tensor, side: Tensor) -> Tensor:
        return net.body(net.join(x, weight, side)).relu().mean((2, 3))

    (x, side), (r, other) = parts(ours), parts(theirs)
    merged = forms[0](x, r), forms[1](side, other)
    last = tail(merged[0], ours["weight"], merged[1])
    want = net.fc(forms[2](last, tail(r, theirs["weight"], other)))
    assert torch.equal(model(ours, theirs), want)
    assert torch.equal(model(ours, model.encode(theirs)), want)


@pytest.mark.parametrize("merge_at", ["layer3", "layer3.0.conv2", "output"])
@pytest.mark.parametrize("kind", [tuple, list])
def test_a_sequence_of_one_name_means_the_name(merge_at: str, kind: type) -> None:
    x, y = images(3, 1), images(3, 2)
    model = CalibratingSiamese(network("ir_tiny"), kind([merge_at]))
    single = CalibratingSiamese(network("ir_tiny"), merge_at)
    assert (model.merge_at, model.merge) == (merge_at, single.merge)
    assert model.split.mechanism == single.split.mechanism
    assert torch.equal(model(x, y), single(x, y))
    assert torch.equal(model(x, single.encode(y)), single(x, y))


# -- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("form", ["anchored", "concatenated", "gated"])
def test_a_training_step_is_the_oracles(kind: str, form: str) -> None:
    """Outputs, gradients and running statistics, dropout drawn alike for both branches."""
    model = wrapped(kind, form).train()
    net, points = network(kind).train(), NETWORKS[kind][1]
    forms = forms_of(model, len(points))
    x, y = images(4, 1), images(4, 2)
    torch.manual_seed(1)
    got = model(x, y)
    got.square().sum().backward()
    torch.manual_seed(1)
    known = recorded(net, points, y)
    torch.manual_seed(1)
    want = swapped(net, points, forms, x, known)
    want.square().sum().backward()
    assert torch.equal(got, want)
    for name, parameter in net.named_parameters():
        assert torch.equal(model.unwrap().get_parameter(name).grad, parameter.grad), name
    for name, buffer in net.named_buffers():
        assert torch.equal(model.unwrap().get_buffer(name), buffer), name
    for place, own in enumerate(forms):
        for name, parameter in own.named_parameters():
            assert parameter.grad.abs().sum() > 0, name
            assert torch.equal(model.merge_form[place].get_parameter(name).grad, parameter.grad)


class Noise(nn.Module):
    """Known for its draws only by running."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.3, self.training)


@pytest.mark.parametrize("draws", ["each", "shared", "a function"])
def test_a_reference_of_its_own_is_read_without_dropout_up_to_the_last_point(draws: str) -> None:
    """Drawn apart for both branches, it would drown the difference; behind them it draws."""
    net, own = network("branched"), network("branched")
    if draws == "shared":  # one module before the last point and behind it
        own.second.drop = own.third.drop
    if draws == "a function":
        own.second.drop = Noise()
    points = NETWORKS["branched"][1]
    model = CalibratingSiamese(own, points, merge="concatenated", example_inputs=images(2, 0))
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    x, y = images(3, 1), images(3, 2)
    reference = model.encode(y)
    known = recorded(net, model.merge_at, y)
    for own, want in zip(reference.tensors, known, strict=True):
        assert torch.equal(own, want)
    net.third.drop.train()
    torch.manual_seed(4)
    want = swapped(net, model.merge_at, forms_of(model, 3), x, known)
    torch.manual_seed(4)
    got = model(x, reference)
    assert torch.equal(got, want)
    assert all(stage.drop.training for stage in (model.backbone.first, model.backbone.second))
    assert torch.autograd.grad(got.sum(), model.backbone.stem.weight)[0].abs().sum() > 0


def test_modes_and_frozen_statistics() -> None:
    model = wrapped("branched", freeze_pre_batchnorm=True)
    assert not any(m.training for m in model.modules())
    model.train()
    assert model.merge_form[1].training
    norms = {name: m.norm.training for name, m in model.backbone.named_children() if "d" in name}
    assert norms["second"] is False
    assert norms["third"] is True
    assert model.backbone.first.norm.training is False
    for points in (("first", "output"), "output"):
        whole = wrapped("branched", merge_at=points, freeze_pre_batchnorm=True).train()
        assert not any(m.training for m in whole.modules() if isinstance(m, nn.BatchNorm2d))


def test_gradient_checkpointing_changes_nothing() -> None:
    gradients = []
    for wanted in (False, True):
        model = wrapped("vit", "gated").train()
        model.unwrap().set_grad_checkpointing(wanted)
        model(images(2, 1), images(2, 2)).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert len(gradients[0]) == len(gradients[1])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


class Recomputed(Branched):
    """The second stage, at whose entrance a point lies, runs again in the backward pass."""

    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.reentrant = reentrant  # None: it doesn't
        for stage in (self.first, self.second):
            stage.act, stage.drop = nn.ReLU(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.stem(x))
        if self.training and self.reentrant is not None:
            x = checkpoint(lambda v: self.second(v), x, use_reentrant=self.reentrant)
        else:
            x = self.second(x)
        return self.left(x).mean((2, 3))


def recomputed(points: tuple[str, ...], reentrant: bool | None) -> CalibratingSiamese:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = Recomputed(reentrant)
    return CalibratingSiamese(net, points, merge="concatenated", example_inputs=images(2, 0))


@pytest.mark.parametrize("points", [("second", "left"), ("first", "second")])
def test_a_point_in_a_part_that_is_recomputed(points: tuple[str, ...]) -> None:
    gradients = []
    for reentrant in (None, False):
        model = recomputed(points, reentrant).train()
        model(*pair()).square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain, rtol=1e-5, atol=1e-6)
    model = recomputed(points, True).train()
    with pytest.raises(MergePointError, match=r"'second' .* use_reentrant=False"):
        model(*pair())
    with torch.no_grad():
        assert model(*pair()).isfinite().all()


# -- fitting, and reading without a reference -----------------------------------------------------


@pytest.mark.parametrize("kind", NETWORKS)
@torch.no_grad()
def test_each_anchor_is_the_mean_of_neutral_features_there(kind: str) -> None:
    model = CalibratingSiamese(
        network(kind), NETWORKS[kind][1], merge="anchored", example_inputs=images(2, 0)
    )
    with pytest.raises(ConfigError, match="fit_anchor"):
        model(images(1, 1), images(1, 2))
    model.fit_anchor(images(7, 5), batch_size=3)
    features = recorded(network(kind), NETWORKS[kind][1], images(7, 5))
    assert len(model.merge_form) == len(features)
    for form, known in zip(model.merge_form, features, strict=True):
        mean = known.mean(0)
        mean = mean.flatten(1) if known.ndim == 4 else mean.mT
        torch.testing.assert_close(form.anchor.data, mean, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_null_reference_stands_at_every_point() -> None:
    model = wrapped("branched", "concatenated", null_reference=True)
    model.fit_anchor(images(12, 5))
    net, x = network("branched"), images(3, 1)
    features = recorded(net, model.merge_at, images(12, 5))
    means = [f.mean(0, keepdim=True).expand(3, *f.shape[1:]) for f in features]
    want = swapped(net, model.merge_at, forms_of(model, 3), x, means)
    torch.testing.assert_close(model(x, None), want, rtol=1e-4, atol=1e-5)
    y = images(3, 2)
    dropped = torch.tensor([False, True, False])
    mixed = model(x, y, dropped=dropped)
    torch.testing.assert_close(mixed[1], want[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed[::2], model(x, y)[::2], rtol=1e-5, atol=1e-6)
    trust = model.trust(3 * images(3, 8) - 1)
    assert trust.shape == (3,)
    assert (trust < 1).all()
    assert model.same_person(y, y).score.allclose(torch.ones(3))


# -- saved and held apart -------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_state_dicts_and_copies_carry_every_form(form: str) -> None:
    model = wrapped("ir_tiny", form)
    x, y = images(3, 1), images(3, 2)
    want = model(x, y)
    other = CalibratingSiamese(
        create_backbone("ir_tiny", 5, input_size=SIZE).eval(), ["layer2", "layer4"], merge=form
    )
    other.load_state_dict(model.state_dict())
    copied, pickled = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    for one in (other, copied, pickled):
        assert torch.equal(one(x, y), want)
    if form != "reference_minus_target":
        names = [n for n in model.state_dict() if n.startswith("merge_form.1.")]
        assert names
    copied.backbone.layer3[0].conv1.weight += 1  # a copy has a network of its own
    assert torch.equal(model(x, y), want)
    assert not torch.equal(copied(x, y), want)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("adapter", [False, True])
@torch.no_grad()
def test_saved_and_loaded_bit_for_bit(tmp_path: Path, form: str, adapter: bool) -> None:
    model = wrapped("ir_tiny", form)
    told = {"preprocessing": Preprocessing(size=SIZE), "aus": ()}
    config = model.save_pretrained(tmp_path, adapter=adapter, **told)
    assert config.merge_at == read_config(tmp_path / "config.json").merge_at == ("layer2", "layer4")
    assert "`layer2` and `layer4`" in (tmp_path / "README.md").read_text()
    base = network("ir_tiny") if adapter else None
    loaded = CalibratingSiamese.from_pretrained(tmp_path, backbone=base)
    x, y = images(3, 1), images(3, 2)
    assert torch.equal(loaded(x, y), model(x, y))
    model.encode(y).save(tmp_path / "reference.safetensors")
    kept = loaded.load_reference(tmp_path / "reference.safetensors")
    assert torch.equal(loaded(x, kept), model(x, y))
    loaded.save_pretrained(tmp_path / "again", adapter=adapter)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


@torch.no_grad()
def test_a_saved_null_reference_is_that_of_all_points(tmp_path: Path) -> None:
    model = wrapped("ir_tiny", "gated", null_reference=True)
    model.fit_anchor(images(12, 5))
    model.save_pretrained(tmp_path, preprocessing=Preprocessing(size=SIZE), aus=())
    loaded = CalibratingSiamese.from_pretrained(tmp_path)
    x, y = pair()
    assert torch.equal(loaded(x, None), model(x, None))
    assert torch.equal(loaded(x, y, use_trust=True), model(x, y, use_trust=True))


@torch.no_grad()
def test_an_adapter_holds_what_lies_behind_the_first_point(tmp_path: Path) -> None:
    model = wrapped("ir_tiny")
    model.save_pretrained(tmp_path, adapter=True, preprocessing=Preprocessing(size=SIZE), aus=())
    other = network("ir_tiny")
    other.layer3[0].conv1.weight += 1  # between the points, where the adapter's own weights go
    x, y = images(3, 1), images(3, 2)
    loaded = CalibratingSiamese.from_pretrained(tmp_path, backbone=other)
    assert torch.equal(loaded(x, y), model(x, y))
    changed = network("ir_tiny")
    changed.layer1[0].conv1.weight += 1
    with pytest.raises(WeightsError, match="before 'layer2'"):
        CalibratingSiamese.from_pretrained(tmp_path, backbone=changed)


@torch.no_grad()
def test_references_belong_to_their_points_and_to_the_weights_before_the_last(
    tmp_path: Path,
) -> None:
    model, file = wrapped("ir_tiny"), tmp_path / "reference.safetensors"
    model.encode(images(2, 2)).save(file)
    between, behind = wrapped("ir_tiny"), wrapped("ir_tiny")
    between.backbone.layer3[0].conv1.weight += 0.01
    with pytest.raises(ConfigError, match="encoded by another network"):
        between.load_reference(file)
    behind.backbone.layer4[0].conv1.weight += 0.01
    assert torch.equal(behind(images(2, 1), behind.load_reference(file)), behind(*pair()))
    for points in ("layer4", ("layer2", "layer3"), ("layer2", "layer3", "layer4")):
        other = CalibratingSiamese(network("ir_tiny"), points, merge="concatenated")
        with pytest.raises(ConfigError, match="encoded at 'layer2, layer4'"):
            other(images(2, 1), model.encode(images(2, 2)))


@torch.no_grad()
def test_frames_are_read_as_by_the_model_itself(tmp_path: Path) -> None:
    head = make_head("intensity", 2)
    net = create_backbone("ir_tiny", num_outputs=head.num_outputs).eval()
    made = CalibratingSiamese(net, ("layer2", "layer4"), merge="concatenated", head=head)
    made.save_pretrained(tmp_path, aus=(1, 12))
    model = CalibratingSiamese.from_pretrained(tmp_path)
    generator = np.random.default_rng(1)
    crops = generator.integers(0, 256, (5, 112, 112, 3), np.uint8)
    frames = model.config.preprocessing.to_tensor(crops)
    with Predictor(model, batch_size=2) as predictor:
        each = predictor.read_each(crops, [3, 0])
        for place, own in zip((3, 0), each, strict=True):
            want = made(frames, frames[place : place + 1]).intensity.numpy()
            np.testing.assert_allclose(own, want, rtol=1e-4, atol=1e-5)
            read = predictor.read(crops, predictor.encode(crops[place]))
            np.testing.assert_allclose(read, want, rtol=1e-4, atol=1e-5)
        assert not np.allclose(each[0], each[1], rtol=1e-4, atol=1e-5)
        facts = json.loads(json.dumps(calibrator_facts(predictor)))
    assert facts["merge_at"] == ["layer2", "layer4"]


@torch.no_grad()
def test_exported_in_two_parts() -> None:
    model = wrapped("branched")
    x, y = images(5, 1), images(1, 2)
    encoder = torch.export.export(Encoder(model), (y,)).module()
    features = encoder(y)
    for got, want in zip(features, recorded(network("branched"), model.merge_at, y), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    shapes = ({0: torch.export.Dim.DYNAMIC}, (None,) * 3)
    program = torch.export.export(Reader(model), (images(2, 3), *features), dynamic_shapes=shapes)
    want = oracle(model, "branched", x, y)
    torch.testing.assert_close(program.module()(x, *features), want, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_threads_do_not_meet() -> None:
    model = wrapped("branched")
    single = CalibratingSiamese(model.unwrap(), "second", example_inputs=images(2, 0))
    x = images(3, 1)
    references = [model.encode(images(1, seed)) for seed in (2, 3)]
    wants = [model(x, reference) for reference in references]
    plain, one = model.unwrap()(x), single(x, images(1, 2))
    wrong: list[str] = []

    def read(place: int) -> None:
        for _ in range(20):
            if not torch.equal(model(x, references[place]), wants[place]):
                wrong.append(f"reference {place}")
            if not torch.equal(model.unwrap()(x), plain):
                wrong.append("the plain network")
            if not torch.equal(single(x, images(1, 2)), one):
                wrong.append("one merge point")

    threads = [threading.Thread(target=read, args=(place,)) for place in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@torch.no_grad()
def test_another_backbone_and_a_replica_are_cut_likewise() -> None:
    model = wrapped("branched")
    x, y = images(3, 1), images(3, 2)
    other = network("branched")
    other.second.conv.weight += 1
    replica = model.split.on(other)
    assert [point.network for point in replica.points] == [other] * 3
    found = replica.pre(y).tensors
    for got, want in zip(found, recorded(other, model.merge_at, y), strict=True):
        assert torch.equal(got, want)
    model.backbone = other
    assert torch.equal(model(x, y), oracle(model, "branched", x, y))
    assert model.unwrap() is other


@torch.no_grad()
def test_a_form_may_run_the_network_itself() -> None:
    net = network("branched")

    def form(target: Tensor, reference: Tensor) -> Tensor:
        net(images(1, 6))
        return 2 * target - reference

    model = CalibratingSiamese(net, ("first", "third"), merge=form, example_inputs=images(2, 0))
    want = CalibratingSiamese(
        net, ("first", "third"), merge=lambda t, r: 2 * t - r, example_inputs=images(2, 0)
    )
    assert torch.equal(model(*pair()), want(*pair()))


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "says"),
    [
        (("layer4", "layer2"), r"order in which IResNet .*write merge_at=\('layer2', 'layer4'\)"),
        (("layer2", "layer2"), r"each once.*write merge_at=\('layer2',\)"),
        (("output", "fc"), r"write merge_at=\('fc', 'output'\)"),
        (("layer3.0", "layer3"), r"write merge_at=\('layer3', 'layer3.0'\)"),
        (("layer2", "layer3.0.conv2"), r"all of the image enters.*Nearest legal.*'layer3.0'"),
        (("layer2", "layr4"), r"no module of that name.*Nearest legal merge points: 'layer4'"),
        (("layer2", ""), "no module of that name"),
    ],
)
def test_illegal_points_are_explained(points: tuple[str, ...], says: str) -> None:
    with pytest.raises(MergePointError, match=says):
        CalibratingSiamese(network("ir_tiny"), points, merge="concatenated")


@pytest.mark.parametrize("merge_at", [(), [], 4, None, ("layer2", 4), {"layer2", "layer4"}])
def test_what_names_no_points(merge_at: object) -> None:
    with pytest.raises(ConfigError, match="merge_at takes the name of a merge point"):
        CalibratingSiamese(network("ir_tiny"), merge_at)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="merge_at takes"):
        CalibratorConfig(merge_at=merge_at, task="raw", aus=())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"merge": "paper"}, r"'paper' is .* one merge point, but merge_at names 2 \(layer2, lay"),
        ({}, "'paper' is the difference at one merge point"),
        ({"merge": "concatenated", "branches": "concatenate"}, "use branches='separate'"),
        ({"merge": "concatenated", "mechanism": "fx"}, "'auto' or 'hook', but got 'fx'"),
        ({"merge": nn.Bilinear(2, 2, 2)}, "one Bilinear that is made already; pass the class"),
    ],
)
def test_what_is_for_one_point_only(options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        CalibratingSiamese(network("ir_tiny"), ("layer2", "layer4"), **options)


def test_features_alone_do_not_go_on() -> None:
    model = wrapped("ir_tiny")
    features, reference = model.split.pre(images(2, 1)), model.encode(images(2, 2))
    with pytest.raises(ConfigError, match=r"merges at 2 \(layer2, layer4\); pass the images"):
        model.from_features(features, reference)
    with pytest.raises(ConfigError, match=r"merges at 2 \(layer2, layer4\); encode the images"):
        model.encode_features(features)
    with pytest.raises(MergePointError, match="no second half"):
        model.split.post(features)


def test_configs_are_read_strictly() -> None:
    values = {"task": "intensity", "aus": (1, 12), "merge": "anchored"}
    assert CalibratorConfig(merge_at=["a", "b"], **values).merge_at == ("a", "b")
    assert CalibratorConfig(merge_at=["a"], **values).merge_at == "a"
    with pytest.raises(ConfigError, match=r"zero_at_reference .* names 2; set it to False"):
        CalibratorConfig(merge_at=("a", "b"), zero_at_reference=True, **values)
    with pytest.raises(ConfigError, match="names 17 merge points; 16 at most"):
        CalibratorConfig(merge_at=tuple("abcdefghijklmnopq"), **values)
    with pytest.raises(ConfigError, match="merge_at is empty"):
        CalibratorConfig(merge_at=("a", ""), **values)
    with pytest.raises(ConfigError, match="one merge point"):
        CalibratorConfig(merge_at=("a", "b"), **{**values, "merge": "paper"})


def test_one_cut_takes_one_name() -> None:
    with pytest.raises((MergePointError, ConfigError, TypeError)):
        split_network(network("ir_tiny"), ("layer2", "layer4"))  # type: ignore[arg-type]
