"""Plain checkpoints, timm's optimiser helpers, BatchNorm's two statistics."""

import logging

import pytest
import torch
from torch import nn

from siamcal import CalibratingSiamese, create_backbone
from siamcal.errors import WeightsError
from siamcal.model.batchnorm_gap import LARGE_GAP, batchnorm_gap, warn_of_gap

torch.set_num_threads(1)


class Net(nn.Module):
    def __init__(self, seed=0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.norm(self.stem(x)).mean((2, 3)))


class Holder(nn.Module):
    """Names that coincide with the wrapper's own."""

    def __init__(self, seed=0) -> None:
        super().__init__()
        self.backbone = Net(seed)
        self.head = nn.Linear(2, 2)

    def forward(self, x):
        return self.head(self.backbone(x))


def images(batch, seed=1):
    return torch.rand(batch, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def wrapped(network=None, merge_at="fc", **options):
    network = (network or Net()).eval()
    return CalibratingSiamese(network, merge_at, example_inputs=images(2), **options)


class TestPlainCheckpoints:
    @pytest.mark.parametrize("strict", [True, False])
    @pytest.mark.parametrize("assign", [True, False])
    def test_go_into_the_backbone(self, strict, assign):
        model, other = wrapped(), Net(1)
        found = model.load_state_dict(other.state_dict(), strict=strict, assign=assign)
        assert not found.missing_keys
        assert not found.unexpected_keys
        for name, value in other.state_dict().items():
            assert torch.equal(model.unwrap().state_dict()[name], value)

    def test_a_head_that_isnt_there_is_told(self):
        model = wrapped(head=nn.Linear(2, 2))
        found = model.load_state_dict(Net(1).state_dict(), strict=False)
        assert found.missing_keys == ["head.weight", "head.bias"]
        with pytest.raises(RuntimeError, match=r"Missing key.*head.weight"):
            model.load_state_dict(Net(1).state_dict())

    def test_its_own_state_dict_stays_its_own(self):
        model, other = wrapped(), wrapped(Net(1))
        model.load_state_dict(other.state_dict())
        assert torch.equal(model.backbone.fc.bias, other.backbone.fc.bias)
        assert model.load_state_dict({}, strict=False).missing_keys

    def test_names_that_coincide_go_where_more_of_them_fit(self):
        model, plain = wrapped(Holder(), "head", head=nn.Linear(2, 2)), Holder(1)
        head = model.head.weight.clone()
        model.load_state_dict(plain.state_dict(), strict=False)
        assert torch.equal(model.backbone.head.weight, plain.head.weight)
        assert torch.equal(model.backbone.backbone.fc.weight, plain.backbone.fc.weight)
        assert torch.equal(model.head.weight, head)

    @pytest.mark.parametrize("strict", [True, False])
    def test_nothing_that_fits_is_an_error(self, strict):
        model = wrapped()
        for prefix in ("module.", "_orig_mod."):
            state = {prefix + k: v for k, v in model.state_dict().items()}
            with pytest.raises(WeightsError, match=f"all begin with '{prefix}'"):
                model.load_state_dict(state, strict=strict)
        with pytest.raises(WeightsError, match=r"model.unwrap\(\).load_state_dict"):
            model.load_state_dict({"conv9.weight": torch.ones(1)}, strict=strict)

    def test_inside_another_module_and_under_ddp(self):
        outer = nn.ModuleDict({"model": wrapped()})
        other = nn.ModuleDict({"model": wrapped(Net(1))})
        outer.load_state_dict(other.state_dict())
        assert torch.equal(outer["model"].backbone.fc.bias, other["model"].backbone.fc.bias)


def named_groups(model, groups, key, prefix=""):
    names = {id(p): n.removeprefix(prefix) for n, p in model.named_parameters()}
    return {names[id(p)]: g[key] for g in groups for p in g["params"]}


NETWORKS = {
    "vit": ("timm:vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "depth": 3}, "blocks.2"),
    "convnext": ("timm:convnext_atto", {"depths": (1, 1, 2, 1)}, "stages.2"),
    "resnet": ("timm:resnet10t", {}, "layer4"),
}


class TestTimmsOptimiserHelpers:
    @pytest.fixture(scope="class", params=NETWORKS)
    def pair(self, request):
        name, options, merge_at = NETWORKS[request.param]
        network = create_backbone(name, 5, **options)
        example = torch.rand(2, 3, 32, 32)
        return network, CalibratingSiamese(
            network, merge_at, example_inputs=example, head=nn.Linear(5, 3)
        )

    def test_weight_decay(self, pair):
        from timm.optim import create_optimizer_v2

        plain, decays = pair[0], []
        for model, prefix in ((plain, ""), (pair[1], "backbone.")):
            made = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05)
            decays.append(named_groups(model, made.param_groups, "weight_decay", prefix))
        assert {k: v for k, v in decays[1].items() if not k.startswith("head.") or k in decays[0]} \
            == decays[0]  # fmt: skip

    @pytest.mark.parametrize("coarse", [True, False])
    def test_layer_decay(self, pair, coarse):
        from timm.models import group_parameters
        from timm.optim import param_groups_layer_decay

        plain, model = pair
        layers = group_parameters(plain, plain.group_matcher(coarse=coarse), reverse=True)
        ours = group_parameters(model, model.group_matcher(coarse=coarse), reverse=True)
        last = max(layers.values())
        assert {
            n.removeprefix("backbone."): v for n, v in ours.items() if n[:4] == "back"
        } == layers
        assert ours["head.weight"] == ours["head.bias"] == last
        scales = []
        for network, prefix in ((plain, ""), (model, "backbone.")):
            groups = param_groups_layer_decay(network, layer_decay=0.7)
            scales.append(named_groups(network, groups, "lr_scale", prefix))
        names = [n for n, _ in plain.named_parameters()]
        assert {n: scales[1][n] for n in names} == {n: scales[0][n] for n in names}

    def test_a_network_without_them_has_none_wrapped_either(self):
        assert not hasattr(wrapped(), "no_weight_decay")
        assert not hasattr(wrapped(), "group_matcher")

    def test_a_matcher_that_is_a_function(self):
        network = Net()
        network.group_matcher = lambda coarse=False: lambda name: 0 if "stem" in name else 1
        matcher = wrapped(network).group_matcher()
        assert [matcher(n) for n in ("backbone.stem.bias", "backbone.fc.bias")] == [0, 1]
        assert matcher("head.weight") == (float("inf"),)


class TestBatchNormGap:
    def test_is_none_where_running_statistics_are_the_batchs(self):
        model = wrapped(merge_at="output")
        x = images(8)
        for _ in range(200):
            model.train()(x, x)
        assert batchnorm_gap(model, x, x.flip(0)) < 0.2

    def test_is_large_where_branches_were_normalised_apart(self, caplog):
        model = wrapped()
        nn.init.constant_(model.backbone.norm.running_mean, 3)
        references, targets = images(4, 1), images(4, 2) + 40
        state = {k: v.clone() for k, v in model.state_dict().items()}
        for training in (False, True):
            model.train(training)
            assert batchnorm_gap(model, targets, references, [1, 0, 2, 3]) > LARGE_GAP
            assert batchnorm_gap(model, targets, references) > LARGE_GAP
            assert all(m.training is training for m in model.modules())
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
        with caplog.at_level(logging.WARNING):
            warn_of_gap(LARGE_GAP)
            assert not caplog.records
            warn_of_gap(batchnorm_gap(model, targets, references))
        assert "branches='concatenate'" in caplog.text

    def test_frozen_or_without_batchnorm_there_is_none(self):
        frozen = wrapped(freeze_pre_batchnorm=True)
        assert batchnorm_gap(frozen, images(4), images(4, 2)) == 0
        assert batchnorm_gap(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), images(4)) == 0

    def test_of_a_plain_network(self):
        network = Net()
        nn.init.constant_(network.norm.running_mean, 30)
        assert batchnorm_gap(network, images(4)) > LARGE_GAP
