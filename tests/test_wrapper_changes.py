"""What is done to a network after wrapping counts; copies, replicas and threads keep apart."""

import copy
import gc
import io
import pickle
import threading
import weakref

import pytest
import torch
import torch.nn.functional as F
from oracle import Net, assert_same, calibrated, images, step
from torch import nn
from torch.nn.utils import parametrizations, prune

from siamcal import CalibratingSiamese, MergePointError, create_backbone
from siamcal.graph.split import FxSplit

torch.set_num_threads(1)
MECHANISMS = ("hook", "fx")


class Tuned(Net):
    """Has settings that its forward reads."""

    def __init__(self):
        super().__init__()
        self.temperature = 1.0
        self.options = {"scale": [1.0], "pool": "mean"}
        self.act = F.relu

    def forward(self, x):
        x = self.act(self.body(self.stem(x) * self.options["scale"][0]))
        x = x.mean((2, 3)) if self.options["pool"] == "mean" else x.amax((2, 3))
        return self.fc(x) / self.temperature


class Residual(Tuned):
    """The merge point lies beside a shortcut, so only torch.fx can cut it."""

    def forward(self, x):
        f = self.stem(x)
        f = f + self.body(f * self.options["scale"][0])
        return self.fc(self.act(f).mean((2, 3))) / self.temperature


def wrapped(network, place="body", **options):
    options.setdefault("example_inputs", images())
    return CalibratingSiamese(network, place, **options)


def check(model, network, place="body"):
    """The wrapped network gives what the network as it is now gives."""
    target, reference = images(), images(3, 2)
    expected = step(network, lambda: calibrated(network, place, target, reference))
    assert_same(step(network, lambda: model(target, reference)), expected)
    assert torch.equal(model(target, model.encode(reference)), expected[0][0])


class LoRA(nn.Module):
    """A layer with an addition of low rank, as PEFT wraps it."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        torch.manual_seed(1)
        self.down = nn.Conv2d(base.in_channels, 1, 1)
        self.up = nn.Conv2d(1, base.out_channels, 1)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


class ScaledConv(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) * 2


def _set(name, value):
    return lambda network: setattr(network, name, value)


def _dense(network):
    network.fc = nn.Linear(4, 5)


def _lora(network):
    network.body = LoRA(network.body)


def _lora_before(network):
    network.stem = LoRA(network.stem)


def _other_body(network):
    torch.manual_seed(7)
    network.body = nn.Conv2d(4, 4, 5, padding=2)


def _sequential(network):
    network.body = nn.Sequential(network.body, nn.GELU())


def _hook_before(network):
    network.body.register_forward_pre_hook(lambda m, args: (F.normalize(args[0]),))


def _hook_behind(network):
    network.body.register_forward_hook(lambda m, args, out: out * 3)


def _hook_on_network(network):
    network.register_forward_hook(lambda m, args, out: out.softmax(-1))


def _hook_on_stem(network):
    network.stem.register_forward_hook(lambda m, args, out: F.normalize(out))


def _options(network):
    network.options["scale"][0] = 2.0


def _pool(network):
    network.options["pool"] = "max"


def _parametrized(network):
    parametrizations.weight_norm(network.body)
    parametrizations.spectral_norm(network.stem)


def _pruned(network):
    prune.l1_unstructured(network.body, "weight", 0.5)


def _classes(network):
    network.body.__class__ = ScaledConv


def _patched(network):
    own = network.forward
    network.forward = lambda x: own(x) * 2


def _patched_body(network):
    own = network.body.forward
    network.body.forward = lambda x: own(x) * 2


CHANGES = [
    _set("temperature", 10.0), _set("act", torch.tanh), _dense, _lora, _lora_before, _other_body,
    _sequential, _hook_before, _hook_behind, _hook_on_network, _hook_on_stem, _options,
    _parametrized, _pruned, _classes, _patched_body,
]  # fmt: skip


@pytest.mark.parametrize("make", [Tuned, Residual])
@pytest.mark.parametrize("change", [*CHANGES, _pool], ids=lambda c: c.__qualname__.split(".")[0])
def test_a_change_after_wrapping_counts(make, change):
    network = make().eval()
    model = wrapped(network)
    model(images(), images(3, 2))
    change(network)
    network.eval()
    if make is Tuned:
        check(model, network)
        return
    # A hook replaces what enters `body` alone, so a fresh cut tells what is right here.
    fresh = wrapped(network)
    assert isinstance(fresh.split, FxSplit)
    assert torch.equal(model(images(), images(3, 2)), fresh(images(), images(3, 2)))


def test_a_patched_forward_counts():
    for mechanism in MECHANISMS:
        network = Tuned().eval()
        model = wrapped(network, mechanism=mechanism)
        before = model(images(), images(3, 2))
        _patched(network)
        torch.testing.assert_close(model(images(), images(3, 2)), before * 2)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_changes_and_back(mechanism):
    network = Tuned().eval()
    model = wrapped(network, mechanism=mechanism)
    for temperature in (1.0, 2.0, 1.0, 3.0):
        network.temperature = temperature
        check(model, network)


def test_a_change_that_makes_the_place_illegal_is_refused():
    """A shortcut comes to pass the merge module by: no silent number."""

    class Switched(Net):
        shortcut = False

        def forward(self, x):
            f = self.stem(x)
            f = f + self.body(f) if self.shortcut else self.body(f)
            return self.fc(f.mean((2, 3)))

    network = Switched().eval()
    model = wrapped(network, mechanism="fx")
    network.shortcut = True
    fresh = wrapped(network)
    assert torch.equal(model(images(), images(3, 2)), fresh(images(), images(3, 2)))


def test_a_change_with_which_the_trace_is_wrong_is_refused():
    class Evasive(Net):
        """Once told to, computes something else while it is traced."""

        evades = False

        def forward(self, x):
            return super().forward(x) + float(
                self.evades and torch.fx._symbolic_trace.is_fx_tracing()
            )

    network = Evasive().eval()
    model = wrapped(network, mechanism="fx")
    right = model(images(), images(3, 2))
    network.evades = True
    for _ in range(2):
        with pytest.raises(MergePointError, match=r"was changed after .* differs from the network"):
            model(images(), images(3, 2))
    network.evades = False
    assert torch.equal(model(images(), images(3, 2)), right)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_merge_module_that_is_gone(mechanism):
    network = Net().eval()
    model = wrapped(network, mechanism=mechanism)
    del network.body
    with pytest.raises((MergePointError, AttributeError), match="body"):
        model(images(), images(3, 2))


def test_timm_reset_classifier_and_a_deleted_block():
    options = {"img_size": 32, "patch_size": 16, "depth": 4}
    network = create_backbone("timm:vit_tiny_patch16_224", 3, **options).eval()
    model = CalibratingSiamese(network, "blocks.2")
    x, y = images(3, side=32), images(3, 2, side=32)
    for change in (
        lambda: network.reset_classifier(7, "avg"),
        lambda: network.blocks.__delitem__(3),
        lambda: network.blocks.insert(0, copy.deepcopy(network.blocks[0])),
    ):
        change()
        network.eval()
        assert torch.equal(model(x, y), calibrated(network, "blocks.2", x, y))


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_another_backbone_is_put_in(mechanism):
    model = wrapped(Net().eval(), mechanism=mechanism)
    old, new = model.backbone, Tuned().eval()
    with torch.no_grad():
        new.fc.weight.mul_(2)
    model.backbone = new
    check(model, new)
    assert model.unwrap() is new
    model(images(), images(3, 2)).sum().backward()
    assert new.stem.weight.grad is not None
    assert old.stem.weight.grad is None
    check(wrapped(old), old)


def test_another_backbone_without_the_place_is_refused():
    model = wrapped(Net().eval())
    model.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    with pytest.raises(MergePointError, match="no module of that name"):
        model(images(), images(3, 2))


# Several wrappers, and networks inside others


@pytest.mark.parametrize("places", [("body", "body"), ("body", "fc"), ("stem", "fc")])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_two_wrappers_share_a_network(places, mechanism):
    network = Tuned().eval()
    first, second = (wrapped(network, place, mechanism=mechanism) for place in places)
    x, y = images(), images(3, 2)
    for _ in range(2):
        assert torch.equal(first(x, y), calibrated(network, places[0], x, y))
        assert torch.equal(second(x, y), calibrated(network, places[1], x, y))
        assert torch.equal(network(x), Tuned().eval()(x))
    expected = second(x, y)
    del first
    gc.collect()
    assert torch.equal(second(x, y), expected)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_plain_network_never_meets_the_wrapper(mechanism):
    network, plain = Net().eval(), Net().eval()
    model = wrapped(network, mechanism=mechanism)
    for _ in range(2):
        model(images(), images(3, 2))
        assert torch.equal(network(images()), plain(images()))
    model.train()
    left = [step(n.train(), lambda n=n: n(images())) for n in (network, plain)]
    assert_same(*left)


def test_an_error_in_the_network_leaves_nothing_behind():
    network = Net().eval()
    model = wrapped(network, mechanism="hook")
    with pytest.raises(RuntimeError):
        model(torch.rand(3, 5, 8, 8), images(3, 2))
    with pytest.raises(RuntimeError):
        model(images(), torch.rand(3, 5, 8, 8))
    assert torch.equal(network(images()), Net().eval()(images()))
    check(model, network)


class Whole(nn.Module):
    """A network that holds a calibrated one, and uses the plain one too."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x, y):
        return self.inner(x, y) * self.scale + self.inner.backbone(x)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_calibrated_network_inside_another(mechanism):
    network = Net().eval()
    whole = Whole(wrapped(network, mechanism=mechanism)).eval()
    x, y = images(), images(3, 2)
    right = calibrated(network, "body", x, y) + network(x)
    assert torch.equal(whole(x, y), right)
    assert torch.equal(copy.deepcopy(whole)(x, y), right)
    whole(x, y).sum().backward()
    assert whole.scale.grad is not None


class OnPairs(Net):
    """Its body calibrates by itself, with a network wrapped before."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        x = self.body(self.stem(x))
        return self.fc(x.mean((2, 3)) + self.inner(x[:, :3], x[:, 1:]).mean(-1, keepdim=True))


def test_wrappers_within_wrappers():
    network = OnPairs(wrapped(Net().eval())).eval()
    model = wrapped(network)
    x, y = images(), images(3, 2)
    assert torch.equal(model(x, y), calibrated(network, "body", x, y))


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_form_that_runs_the_network_again(mechanism):
    """Re-entrance: the merge itself calls the plain and the calibrated network."""
    network = Net().eval()
    model = wrapped(network, mechanism=mechanism)
    other = wrapped(network, mechanism=mechanism)
    x, y = images(), images(3, 2)

    def form(target, reference):
        scale = network(x).mean() + other(x, y).mean()
        return (reference - target) * scale

    nested = wrapped(network, merge=form, mechanism=mechanism)
    scale = network(x).mean() + model(x, y).mean()
    feature = network.stem(y) - network.stem(x)
    right = network.fc(network.body(feature * scale).mean((2, 3)))
    torch.testing.assert_close(nested(x, y), right)


# Copies


def _saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "torch.save": _saved,
}


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_the_wrapper_is_its_own(mechanism, how):
    network = Tuned().eval()
    network.act = torch.tanh
    model = wrapped(network, mechanism=mechanism)
    x, y = images(), images(3, 2)
    expected = model(x, y)
    twin = COPIES[how](model)
    assert torch.equal(twin(x, y), expected)
    with torch.no_grad():
        twin.backbone.fc.weight.zero_()
    twin.backbone.temperature = 5.0
    check(twin, twin.backbone)
    assert torch.equal(model(x, y), expected)
    stored = model.encode(y)
    twin.load_state_dict(model.state_dict())
    twin.backbone.temperature = 1.0
    assert torch.equal(twin(x, stored), expected)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_the_plain_network_is_plain(mechanism, how):
    network = Net().eval()
    model = wrapped(network, mechanism=mechanism)
    model(images(), images(3, 2))
    twin = COPIES[how](network)
    assert torch.equal(twin(images()), network(images()))
    with torch.no_grad():
        twin.stem.weight.mul_(2)
    again = wrapped(twin, mechanism=mechanism)
    check(again, twin)
    check(model, network)


def test_wrappers_and_networks_are_freed():
    network = Net().eval()
    model = wrapped(network, mechanism="hook")
    model(images(), images(3, 2)).sum().backward()
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None
    assert not network.body._forward_pre_hooks
    alive = weakref.ref(network)
    del network
    gc.collect()
    assert alive() is None


# DataParallel


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("make", [Net, Tuned])
def test_replicas_of_data_parallel(mechanism, make):
    """As nn.DataParallel makes them: copies whose parameters are non-leaf tensors."""
    network = make().train()
    model = wrapped(network, mechanism=mechanism).train()
    replicas = []
    for scale in (1.0, 2.0):
        table = {m: m._replicate_for_data_parallel() for m in model.modules()}
        for module, replica in table.items():
            for name, child in module._modules.items():
                replica._modules[name] = table.get(child)
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    setattr(replica, name, parameter * scale)
        replicas.append(table[model])
    x, y = images(), images(3, 2)
    right = [calibrated(network, "body", x, y)]
    double = make().train()
    with torch.no_grad():
        for parameter in double.parameters():
            parameter.mul_(2)
    right.append(calibrated(double, "body", x, y))
    for replica, expected in zip(replicas, right, strict=True):
        torch.testing.assert_close(replica(x, y), expected)
        torch.testing.assert_close(replica(x, replica.encode(y)), expected)
    sum(r(x, y).sum() for r in replicas).backward()
    assert network.stem.weight.grad is not None
    assert torch.equal(model(x, y), right[0])


def test_functional_calls_and_ensembles():
    models = [wrapped(Net().eval()) for _ in range(3)]
    for number, model in enumerate(models):
        with torch.no_grad():
            model.backbone.fc.weight.add_(number)
    x, y = images(), images(3, 2)
    parameters, buffers = torch.func.stack_module_state(models)
    base = models[0]
    outputs = torch.vmap(lambda p, b: torch.func.functional_call(base, (p, b), (x, y)))(
        parameters, buffers
    )
    for output, model in zip(outputs, models, strict=True):
        torch.testing.assert_close(output, model(x, y))


# Threads


def run_threads(number, work):
    """Errors of `work(i)` in as many threads."""
    errors = []

    def guarded(i):
        try:
            work(i)
        except BaseException as error:  # what leaks is an error too
            errors.append(repr(error))

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


@pytest.mark.parametrize("make", [Net, Residual])
def test_eight_threads_share_one_stored_reference(make):
    network = make().eval()
    model = wrapped(network)
    assert isinstance(model.split, FxSplit) == (make is Residual)
    targets = [images(1, seed) for seed in range(8)]
    wrong = []
    with torch.no_grad():
        stored = model.encode(images(1, 50))
        right = [model(x, stored) for x in targets]

    def work(i):
        with torch.no_grad():
            for _ in range(500):
                if not torch.equal(model(targets[i], stored), right[i]):
                    wrong.append(i)

    assert run_threads(8, work) == []
    assert wrong == []


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_threads_that_encode_call_and_use_the_plain_network(mechanism):
    network = Net().eval()
    model, other = (wrapped(network, p, mechanism=mechanism) for p in ("body", "fc"))
    pairs = [(images(1, i), images(1, i + 50)) for i in range(6)]
    jobs = [
        lambda x, y: model(x, y),
        lambda x, y: model(x, model.encode(y)),
        lambda x, y: other(x, y),
        lambda x, y: network(x),
        lambda x, y: model.encode(y).tensors[0],
        lambda x, y: model(x, y, torch.tensor([0])),
    ]
    right = [job(*pair) for job, pair in zip(jobs, pairs, strict=True)]
    wrong = []

    def work(i):
        for _ in range(100):
            if not torch.equal(jobs[i](*pairs[i]), right[i]):
                wrong.append(i)

    assert run_threads(6, work) == []
    assert wrong == []


class Recomputing(Net):
    def forward(self, x):
        f = torch.utils.checkpoint.checkpoint(
            lambda v: self.body(self.stem(v)), x, use_reentrant=False
        )
        return self.fc(f.mean((2, 3)))


@pytest.mark.parametrize("make", [Net, Recomputing])
def test_one_thread_trains_the_plain_network_meanwhile(make):
    """Forward and backward passes in all threads, each of its own parameters' gradients."""
    network = make().train()
    model = wrapped(network).train()
    pairs = [(images(2, i), images(2, i + 50)) for i in range(4)]
    parameters = list(network.parameters())
    jobs = [lambda x, y: network(x), *[lambda x, y: model(x, y)] * 3]

    def gradients(i):
        return torch.autograd.grad(jobs[i](*pairs[i]).square().sum(), parameters)

    right = [gradients(i) for i in range(4)]
    wrong = []

    def work(i):
        for _ in range(25):
            for a, b in zip(gradients(i), right[i], strict=True):
                if not torch.allclose(a, b, rtol=1e-3, atol=1e-4):
                    wrong.append(i)

    assert run_threads(4, work) == []
    assert wrong == []
