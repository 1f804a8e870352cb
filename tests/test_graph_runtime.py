"""What users do to a network goes on working after wrapping; randomness is shared in training."""

import copy
import gc
import pickle

import pytest
import torch
import torch.distributed as dist
from torch import nn

from siamcal import CalibratingSiamese, create_backbone, list_merge_points
from siamcal.graph import split_network
from siamcal.graph.randomness import RandomState
from siamcal.graph.roles import largest_difference

torch.set_num_threads(1)

# Twenty families with dropout or stochastic depth before and behind the merge.
STOCHASTIC = {
    "ir18": {"widths": (4, 4, 6, 8, 8), "input_size": 64, "dropout": 0.4},
    "timm:resnet18": {"drop_path_rate": 0.3, "drop_rate": 0.2},
    "timm:resnetv2_18": {"drop_path_rate": 0.3},
    "timm:convnext_atto": {"drop_path_rate": 0.5},
    "timm:vit_tiny_patch16_224": {"img_size": 64, "drop_path_rate": 0.3, "pos_drop_rate": 0.2},
    "timm:deit_tiny_patch16_224": {"img_size": 64, "proj_drop_rate": 0.3, "attn_drop_rate": 0.2},
    "timm:cait_xxs24_224": {"img_size": 64, "drop_path_rate": 0.2, "drop_rate": 0.3},
    "timm:xcit_nano_12_p16_224": {"img_size": 64, "drop_path_rate": 0.3},
    "timm:pit_ti_224": {"drop_path_rate": 0.3},
    "timm:levit_128s": {"drop_path_rate": 0.3, "drop_rate": 0.3},
    "timm:efficientnet_b0": {"drop_path_rate": 0.4, "drop_rate": 0.2},
    "timm:mobilenetv3_small_050": {"drop_path_rate": 0.4, "drop_rate": 0.2},
    "timm:ghostnet_050": {"drop_rate": 0.2},
    "timm:regnetx_002": {"drop_path_rate": 0.3, "drop_rate": 0.3},
    "timm:edgenext_xx_small": {"drop_path_rate": 0.3},
    "timm:poolformerv2_s12": {"drop_path_rate": 0.3},
    "timm:mambaout_femto": {"drop_path_rate": 0.3},
    "timm:starnet_s050": {"drop_path_rate": 0.3},
    "timm:fasternet_t0": {"drop_path_rate": 0.3},
    "timm:inception_next_atto": {"drop_path_rate": 0.3},
}


def identity(target, reference):
    return target


@pytest.mark.parametrize("name", STOCHASTIC)
def test_training_equals_the_plain_network_when_the_difference_is_replaced(name):
    torch.manual_seed(0)
    options = STOCHASTIC[name]
    plain = create_backbone(name, 5, **options).train()
    network = copy.deepcopy(plain)
    side = 224 if name.startswith(("timm:pit", "timm:levit")) else 64
    x, y = torch.rand(3, 3, side, side), torch.rand(3, 3, side, side)
    points = [p.name for p in list_merge_points(network, x) if "." in p.name or "4" in p.name]
    place = points[len(points) // 2]
    model = CalibratingSiamese(network, place, merge=identity, example_inputs=x).train()

    state = RandomState(torch.device("cpu"))
    expected = plain(x)
    expected.square().sum().backward()
    state.restore()
    actual = model(x, y)
    actual.square().sum().backward()
    assert torch.equal(actual, expected)
    assert not torch.equal(plain(x), expected), "nothing was drawn"
    for (key, p), q in zip(plain.named_parameters(), network.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), key
        assert p.grad is None or torch.equal(p.grad, q.grad), key


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.drop = nn.Dropout(0.5)
        self.body = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        x = self.body(self.drop(self.stem(x)))
        return self.head(x.mean((2, 3)))


class Untraceable(Dropping):
    def forward(self, x):
        if x.shape[-1] % 3 == 0:
            x = x[..., :-1]
        return super().forward(x)


class Scales(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.norm(self.conv(x))
        return [x, x.roll(1, -1)]


class Listed(Dropping):
    """Iterates over what a module returns, which a trace with opaque modules can't."""

    def __init__(self):
        super().__init__()
        self.stem = Scales()

    def forward(self, x):
        x = self.body(self.drop(sum(f * 2 for f in self.stem(x))))
        return self.head(x.mean((2, 3)))


MECHANISMS = {"shallow fx": Dropping, "full fx": Listed, "hook": Untraceable}


def asked(mechanism):
    return "fx" if "fx" in mechanism else "auto"


def pair(batch=2, seed=1, side=9):
    g = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(batch, 3, side, side, generator=g) for _ in range(2))


@pytest.mark.parametrize("mechanism", MECHANISMS)
class TestWhatIsDoneToTheWrappedNetwork:
    """Deployment, training set-ups and copies, for each way of cutting."""

    def wrapped(self, mechanism, dtype=torch.float32):
        network = MECHANISMS[mechanism]().to(dtype).eval()
        model = CalibratingSiamese(
            network, "body", example_inputs=pair()[0], mechanism=asked(mechanism)
        )
        assert model.split.mechanism == mechanism
        return model

    def test_it_stays_the_same_object_with_the_same_contents(self, mechanism):
        network = MECHANISMS[mechanism]().train()
        network.drop.eval()
        names = {k: v.clone() for k, v in network.state_dict().items()}
        attributes = {n: dict(vars(m)) for n, m in network.named_modules()}
        modes = {n: m.training for n, m in network.named_modules()}
        options = {"example_inputs": pair()[0], "mechanism": asked(mechanism)}
        model = CalibratingSiamese(network, "body", **options)
        model.eval()(*pair())
        assert model.unwrap() is network
        after = network.state_dict()
        assert list(after) == list(names)
        assert all(torch.equal(after[k], v) for k, v in names.items())
        model.train()
        network.drop.eval()
        assert {n: m.training for n, m in network.named_modules()} == modes
        for name, module in network.named_modules():
            assert vars(module).keys() == attributes[name].keys()
            # One hook waits at the merge module for as long as it is wrapped.
            waits = name == "body" and mechanism == "hook"
            assert len(module._forward_pre_hooks) == waits
            assert not module._forward_hooks
            assert "forward" not in vars(module)
        assert list(model.state_dict()) == ["backbone." + k for k in names]
        del model
        gc.collect()
        assert not network.body._forward_pre_hooks

    def test_train_and_eval_reach_every_part(self, mechanism):
        model = self.wrapped(mechanism)
        x, y = pair()
        steady = model(x, y)
        model.train()
        assert all(m.training for m in model.modules())
        assert not torch.equal(model(x, y), steady)
        model.eval()
        assert not any(m.training for m in model.modules())

    def test_freezing(self, mechanism):
        model = self.wrapped(mechanism).requires_grad_(False)
        assert not model(*pair()).requires_grad
        model.unwrap().body.requires_grad_(True)
        model(*pair()).sum().backward()
        got = {n.split(".")[0] for n, p in model.unwrap().named_parameters() if p.grad is not None}
        assert got == {"body"}

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_precision(self, mechanism, dtype):
        model = self.wrapped(mechanism).to(dtype)
        fresh = self.wrapped(mechanism, dtype)
        plain = MECHANISMS[mechanism]().eval().to(dtype)
        x, y = (t.to(dtype) for t in pair())
        assert torch.equal(model.split.post(model.split.pre(x)), plain(x))
        assert torch.equal(model(x, y), fresh(x, y))
        assert torch.equal(model(x, model.encode(y)), fresh(x, y))
        assert model(x, y).dtype == dtype
        ours, theirs = model.state_dict(), fresh.state_dict()
        assert list(ours) == list(theirs)
        assert all(
            torch.equal(v, theirs[k]) and v.dtype == theirs[k].dtype for k, v in ours.items()
        )

    def test_half_is_half(self, mechanism):
        model = self.wrapped(mechanism).half()
        x, y = (t.half() for t in pair())
        assert {p.dtype for p in model.parameters()} == {torch.float16}
        assert model(x, y).dtype == torch.float16
        back = model.float()
        assert back(x.float(), y.float()).dtype == torch.float32

    def test_moving_to_another_device(self, mechanism):
        model = self.wrapped(mechanism)
        x, y = pair()
        expected, state = model(x, y), copy.deepcopy(model.state_dict())
        model.to("meta")
        assert model(x.to("meta"), y.to("meta")).device.type == "meta"
        model.to_empty(device="cpu").load_state_dict(state)
        assert torch.equal(model(x, y), expected)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_moving_to_cuda_and_back(self, mechanism):
        model = self.wrapped(mechanism)
        x, y = pair()
        expected = model(x, y)
        model.cuda()
        torch.testing.assert_close(model(x.cuda(), y.cuda()).cpu(), expected, rtol=1e-3, atol=1e-4)
        assert torch.equal(model.cpu()(x, y), expected)

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
    def test_copies_are_independent(self, mechanism, copied):
        model = self.wrapped(mechanism)
        x, y = pair()
        twin = copied(model)
        expected = model(x, y)
        assert torch.equal(twin(x, y), expected)
        with torch.no_grad():
            twin.unwrap().body.weight.zero_()
        assert torch.equal(model(x, y), expected)
        assert not torch.equal(twin(x, y), expected)
        assert twin.train().split.network is twin.unwrap()
        assert twin(x, y).requires_grad

    def test_torch_compile(self, mechanism):
        model = self.wrapped(mechanism)
        compiled = torch.compile(model, backend="eager")
        x, y = pair()
        torch.testing.assert_close(compiled(x, y), model(x, y))
        torch.testing.assert_close(compiled(x, model.encode(y)), model(x, y))

    def test_ddp(self, mechanism, tmp_path):
        dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
        try:
            self.compare_with_ddp(mechanism)
        finally:
            # What still holds the group's threads must go first: joining them later, with the
            # interpreter's lock held, can wait for ever.
            gc.collect()
            dist.destroy_process_group()

    def compare_with_ddp(self, mechanism):
        model = self.wrapped(mechanism).train()
        model.unwrap().drop.p = 0.0
        twin = copy.deepcopy(model)
        parallel = nn.parallel.DistributedDataParallel(twin)
        x, y = pair(4)
        expected, actual = model(x, y), parallel(x, y)
        assert torch.equal(actual, expected)
        expected.sum().backward()
        actual.sum().backward()
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad)

    def test_wrapping_costs_few_forwards(self, mechanism):
        network, runs = MECHANISMS[mechanism]().eval(), dict.fromkeys(("stem", "body", "head"), 0)

        def count(name):
            def hook(module, args, output):
                runs[name] += isinstance(args[0], torch.Tensor)  # and not a stand-in

            return hook

        for name in runs:
            network.get_submodule(name).register_forward_hook(count(name))
        split = split_network(network, "body", example_inputs=pair()[0], mechanism=asked(mechanism))
        assert split.mechanism == mechanism
        # Traced code is also held against the network in what a step leaves behind.
        assert 1 <= max(runs.values()) <= (5 if mechanism == "hook" else 20)


@pytest.mark.parametrize("network", [Dropping, Untraceable])
class TestRandomnessBeforeTheMerge:
    """Equal inputs differ by nothing even in training, however the reference is given."""

    def wrapped(self, network):
        model = CalibratingSiamese(network(), "body", example_inputs=torch.rand(2, 3, 8, 8))
        return model.train()

    def test_both_branches_draw_the_same(self, network):
        model, x = self.wrapped(network), torch.rand(4, 3, 8, 8)
        nothing = model(x, x)
        assert torch.allclose(nothing, nothing[:1].expand_as(nothing))

    def test_nothing_is_drawn_where_that_is_impossible(self, network):
        model, x = self.wrapped(network), torch.rand(2, 3, 8, 8)
        encoded = model.encode(x)
        nothing = model(x, encoded)
        assert torch.allclose(nothing, nothing[:1].expand_as(nothing))
        one = model(x[:1].expand(3, -1, -1, -1), x[:1])
        assert torch.allclose(one, one[:1].expand_as(one), atol=1e-6)
        assert all(m.training for m in model.modules())


def test_batchnorm_before_the_merge_can_be_frozen():
    network = Dropping()
    model = CalibratingSiamese(
        network, "body", example_inputs=torch.rand(2, 3, 8, 8), freeze_pre_batchnorm=True
    ).train()
    before = network.stem[1].running_mean.clone()
    model(torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8)).sum().backward()
    assert torch.equal(network.stem[1].running_mean, before)
    assert network.stem[1].weight.grad is not None
    assert model.training
    assert network.body.training


def tiny(**options):
    torch.manual_seed(0)
    return create_backbone("ir18", 5, widths=(4, 4, 6, 8, 8), input_size=32, **options).eval()


def test_precision_and_freezing_follow_the_network():
    network = tiny()
    model = CalibratingSiamese(network, "layer4")
    x, y = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    network.requires_grad_(False)
    assert not model(x, y).requires_grad
    network.layer4.requires_grad_(True)
    model(x, y).sum().backward()
    assert network.layer4[0].conv1.weight.grad is not None
    assert network.conv1.weight.grad is None
    exact = model(x, y)
    model.bfloat16()
    low = model(x.bfloat16(), y.bfloat16())
    assert low.dtype == torch.bfloat16
    assert torch.allclose(low.float(), exact, atol=0.2)
    model.double()
    assert torch.allclose(model(x.double(), y.double()).float(), exact, atol=0.2)
    network.fc = nn.Linear(network.fc.in_features, 2).double()
    assert model(x.double(), y.double()).shape == (2, 2)


def test_torch_compile_gives_the_same():
    model = CalibratingSiamese(tiny(), "layer4")
    compiled = torch.compile(model, backend="eager")
    x, y = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(compiled(x, y), model(x, y))
    torch.testing.assert_close(compiled(x, model.encode(y)), model(x, y))
    model.train()
    compiled(x, y).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("place", ["layer4", "fc"])
def test_wrapping_costs_at_most_five_forwards(place):
    network = tiny()
    first, last = [], []
    network.conv1.register_forward_hook(lambda *a: first.append(1))
    network.fc.register_forward_hook(lambda *a: last.append(1))
    split_network(network, place)
    assert max(len(first), len(last)) <= 5


def test_wrapping_ir50_costs_at_most_five_forwards():
    network = create_backbone("ir50", 72)
    calls = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, *a: calls.append(module))
    CalibratingSiamese(network, "layer4")
    assert 0 < max(map(calls.count, set(calls))) <= 5


class Two(nn.Module):
    """Two inputs by keyword, two outputs in a dict."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.points = nn.Linear(6, 4)
        self.body = nn.Linear(4, 5)

    def forward(self, image, *, landmarks, scale=2.0):
        f = self.conv(image).mean((2, 3)) * scale + self.points(landmarks)
        return {"au": self.body(f), "points": landmarks}


@pytest.mark.parametrize("place", ["body", "output"])
def test_several_inputs_by_keyword_and_a_chosen_output(place):
    torch.manual_seed(0)
    network = Two().eval()

    def sample(seed, batch=2):
        g = torch.Generator().manual_seed(seed)
        return {
            "image": torch.rand(batch, 3, 8, 8, generator=g),
            "landmarks": torch.rand(batch, 6, generator=g),
        }

    model = CalibratingSiamese(network, place, example_inputs=sample(0), output="au")
    x, y = sample(1), sample(2)
    assert torch.equal(model.split.post(model.split.pre(x)), network(**x)["au"])
    assert torch.allclose(model(x, model.encode(y)), model(x, y))
    equal = model(x, x)
    expected = network.body.bias.expand(2, -1) if place == "body" else torch.zeros(2, 5)
    assert torch.equal(equal, expected)


class GraphOfUnits(nn.Module):
    """The form of ME-GraphAU: a ResNet without `fc`, a linear block, a graph of nearest nodes."""

    def __init__(self, units=6):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = tiny()
        self.backbone.fc = nn.Identity()
        self.global_linear = nn.Linear(8 * 4, 16)
        self.nodes = nn.ModuleList(nn.Linear(16, 16) for _ in range(units))
        self.centres = nn.Parameter(torch.randn(units, 16))

    def forward(self, x):
        x = self.global_linear(self.backbone(x))
        nodes = torch.stack([node(x) for node in self.nodes], 1)
        alike = nodes.detach() @ nodes.detach().transpose(1, 2)
        near = (alike >= alike.topk(3)[0][..., -1:]).float()
        nodes = nn.functional.normalize(near @ nodes, dim=-1)
        return (nodes * self.centres).sum(-1)


@pytest.mark.parametrize("place", ["backbone.layer4", "global_linear"])
def test_a_known_form_of_au_network(place):
    network = GraphOfUnits().eval()
    example = torch.rand(2, 3, 32, 32)
    model = CalibratingSiamese(network, place, example_inputs=example)
    assert model(torch.rand(4, 3, 32, 32), example[:1]).shape == (4, 6)
    assert torch.equal(model.split.post(model.split.pre(example)), network(example))


def test_largest_difference_is_zero_only_for_equal_bits():
    a = torch.tensor([1.0, float("nan")])
    assert largest_difference([a], [a.clone()]) == 0
    assert largest_difference([torch.ones(2)], [torch.ones(2) + 1e-7]) > 0
    assert largest_difference([torch.ones(2)], [torch.ones(3)]) == float("inf")
