"""Frozen parts, precision, randomness, state and recomputation: as in the plain network."""

import contextlib
import copy
import random
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracle import (
    Net,
    assert_right,
    assert_same,
    calibrated,
    images,
    restore,
    states,
    step,
)
from torch import nn
from torch.utils.checkpoint import checkpoint

from siamcal import CalibratingSiamese, MergePointError, create_backbone, list_merge_points

torch.set_num_threads(1)
PLACES = ("stem", "body", "fc")


class NoGrad(Net):
    def forward(self, x):
        with torch.no_grad():
            x = self.stem(x)
        return self.fc(self.body(x).mean((2, 3)))


class NoGradFunction(Net):
    @torch.no_grad()
    def frozen(self, x):
        return self.stem(x)

    def forward(self, x):
        return self.fc(self.body(self.frozen(x)).mean((2, 3)))


class Inference(Net):
    def forward(self, x):
        with torch.inference_mode():
            x = self.stem(x)
        return self.fc(self.body(x.clone()).mean((2, 3)))


class Detached(Net):
    def forward(self, x):
        return self.fc(self.body(self.stem(x).detach()).mean((2, 3)))


class FrozenBehind(Net):
    def forward(self, x):
        x = self.body(self.stem(x))
        with torch.no_grad():
            scale = x.std((1, 2, 3), keepdim=True)
        return self.fc((x / scale).mean((2, 3)))


class FrozenLayer(Net):
    def __init__(self):
        super().__init__()
        self.stem.requires_grad_(False)


class GradientScaled(Net):
    def forward(self, x):
        x = self.stem(x)
        x = x * 0.1 + x.detach() * 0.9
        return self.fc(self.body(x).mean((2, 3)))


class SwitchesGrad(Net):
    """Freezes by a setting, as transfer learning does."""

    def __init__(self):
        super().__init__()
        self.freeze = True

    def forward(self, x):
        with torch.set_grad_enabled(not self.freeze and torch.is_grad_enabled()):
            x = self.stem(x)
        return self.fc(self.body(x).mean((2, 3)))


class Island(Net):
    """Computes one part in full precision."""

    def forward(self, x):
        x = self.body(self.stem(x))
        with torch.autocast("cpu", enabled=False):
            x = F.normalize(x.float().flatten(2).mean(-1), dim=-1)
        return self.fc(x)


class LowPrecision(Net):
    """Computes one part in low precision."""

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            x = self.stem(x)
        return self.fc(self.body(x.float()).mean((2, 3)))


class Buffer(Net):
    """Counts its steps, and warms up."""

    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.steps += 1
        return super().forward(x) * (self.steps / 10).clamp(max=1)


class Centred(Net):
    """Keeps a running mean by hand."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        x = self.stem(x)
        if self.training:
            self.mean.lerp_(x.detach().mean((0, 2, 3)), 0.1)
        return self.fc(self.body(x - self.mean[:, None, None]).mean((2, 3)))


class Exchanged(Net):
    """Puts a new tensor in place of its buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        x = self.body(self.stem(x)).mean((2, 3))
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return self.fc(x - self.mean)


class BatchNorm(Net):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(self.stem, nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.body = nn.Sequential(self.body, nn.BatchNorm2d(4), nn.ReLU(inplace=True))


class InPlace(Net):
    def forward(self, x):
        x = self.stem(x)
        x += 1
        x[:, 0] *= 2
        x = self.body(x.relu_())
        x[:, :, 0] = 0
        return self.fc(x.mean((2, 3)).mul_(2))


class ReadsNumbers(Net):
    """Branches and scales by numbers that leave torch, behind the merge."""

    def forward(self, x):
        x = self.body(self.stem(x))
        if x.mean().item() > 0:
            x = x * 2
        return self.fc(x.mean((2, 3)) * float(x.abs().max()))


class Numpy(Net):
    def forward(self, x):
        x = self.body(self.stem(x)).mean((2, 3))
        order = np.argsort(x.detach().numpy(), 1)
        return self.fc(x.gather(1, torch.from_numpy(order)))


class Sorted(Net):
    """Integers made of the image, behind the merge."""

    def forward(self, x):
        x = self.body(self.stem(x)).flatten(2).mean(-1)
        best = x.topk(2).indices
        return self.fc(x.masked_fill(F.one_hot(best, 4).sum(1) == 0, 0))


class LoopOverTime(Net):
    def forward(self, x):
        x = self.body(self.stem(x)).mean(2)
        return self.fc(torch.stack([x[..., i] * i for i in range(x.shape[-1])]).sum(0))


FAITHFUL = [
    NoGrad, NoGradFunction, Inference, Detached, FrozenBehind, FrozenLayer, GradientScaled,
    SwitchesGrad, Island, LowPrecision, Buffer, Centred, Exchanged, BatchNorm, InPlace,
    ReadsNumbers, Numpy, Sorted, LoopOverTime,
]  # fmt: skip


@pytest.mark.parametrize("make", FAITHFUL)
@pytest.mark.parametrize("place", PLACES)
def test_a_step_leaves_what_the_plain_network_leaves(make, place):
    names = [p.name for p in list_merge_points(make(), images())]
    if place in names:
        assert_right(make().eval(), place, images(), images(3, 2))
    else:
        with pytest.raises(MergePointError):
            CalibratingSiamese(make(), place, example_inputs=images(), mechanism="hook")


REFUSED_BY_FX = {
    NoGrad: "gets no gradient from the network",
    NoGradFunction: "gets no gradient from the network",
    Inference: "gets no gradient from the network",
    SwitchesGrad: "gets no gradient from the network",
    Buffer: "written in front of the merge",
    Exchanged: "buffer",
    FrozenBehind: "gradient of",
    LowPrecision: "output differs",
    ReadsNumbers: "control flow",
    Numpy: "Proxy",
    LoopOverTime: "Proxy",
}


@pytest.mark.parametrize("make", FAITHFUL)
def test_a_cut_by_torch_fx_is_right_or_refused(make):
    if make not in REFUSED_BY_FX:
        assert_right(make().eval(), "body", images(), images(3, 2), mechanism="fx")
        return
    with pytest.raises(MergePointError, match=f"fx: .*{REFUSED_BY_FX[make]}"):
        CalibratingSiamese(make().eval(), "body", example_inputs=images(), mechanism="fx")


@pytest.mark.parametrize("make", [Island, LowPrecision, Net, BatchNorm])
@pytest.mark.parametrize("mechanism", ["auto", "fx"])
def test_precision_under_autocast(make, mechanism):
    network, target, reference = make().eval(), images(), images(3, 2)
    try:
        model = CalibratingSiamese(network, "body", example_inputs=target, mechanism=mechanism)
    except MergePointError:
        assert mechanism == "fx"
        return
    with torch.autocast("cpu", torch.bfloat16):
        right = calibrated(network, "body", target, reference)
        actual = model(target, reference)
    assert actual.dtype == right.dtype
    assert torch.equal(actual, right)


# Randomness


class LayerDrop(Net):
    """Skips layers by Python's generator, never the one where the branches merge."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(4))

    def forward(self, x):
        x = self.stem(x)
        for i, layer in enumerate(self.layers):
            if i == 2 or not self.training or random.random() > 0.5:
                x = layer(x)
        return self.fc(x.mean((2, 3)))


class NumpyDrop(LayerDrop):
    def forward(self, x):
        x = self.stem(x)
        for i, layer in enumerate(self.layers):
            if i == 2 or not self.training or np.random.rand() > 0.5:
                x = layer(x)
        return self.fc(x.mean((2, 3)))


class Noise(LayerDrop):
    def forward(self, x):
        x = self.stem(x)
        if self.training:
            x = x + torch.randn(x.shape) * 0.1
        x = self.layers[2](x)
        if self.training:
            x = x * torch.empty(x.shape[0], 1, 1, 1).bernoulli_(0.5)
        return self.fc(x.mean((2, 3)))


class Functional(LayerDrop):
    def forward(self, x):
        x = F.dropout2d(self.stem(x), 0.5, self.training)
        return self.fc(F.dropout(self.layers[2](x).mean((2, 3)), 0.5, self.training))


class Recurrent(LayerDrop):
    def __init__(self):
        super().__init__()
        self.layers[1] = nn.LSTM(4, 4, 2, batch_first=True, dropout=0.5)

    def forward(self, x):
        x = self.layers[1](self.stem(x).mean(-1).mT)[0].mT[..., None]
        return self.fc(self.layers[2](x).mean((2, 3)))


class Transformer(LayerDrop):
    def __init__(self):
        super().__init__()
        layers = [nn.TransformerEncoderLayer(4, 2, 8, 0.5, batch_first=True) for _ in range(4)]
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        x = self.stem(x).flatten(2).mT
        for layer in self.layers:
            x = layer(x)
        return self.fc(x.mean(1))


class Shuffled(LayerDrop):
    """Mixes the samples of a batch, as mixup inside a network does."""

    def forward(self, x):
        x = self.stem(x)
        if self.training:
            x = x + x[torch.randperm(len(x))]
        return self.fc(self.layers[2](x).mean((2, 3)))


RANDOM = [LayerDrop, NumpyDrop, Noise, Functional, Recurrent, Transformer, Shuffled]


@pytest.mark.parametrize("make", RANDOM)
def test_draws_are_the_plain_networks_at_each_step(make):
    network = make().train()
    plain = copy.deepcopy(network)
    model = CalibratingSiamese(network, "layers.2", example_inputs=images()).train()
    outputs = []
    for seed in range(6):
        target, reference = images(3, seed), images(3, seed + 20)
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        state = states()
        right = calibrated(plain, "layers.2", target, reference)
        after = states()
        restore(state)
        outputs.append(model(target, reference))
        assert torch.equal(outputs[-1], right)
        assert torch.equal(states()[0], after[0])
        assert states()[1] == after[1]
    model(images(), images()).sum().backward()


@pytest.mark.parametrize("make", RANDOM)
@pytest.mark.parametrize("how", ["both", "encode", "index"])
def test_equal_images_leave_no_difference_in_training(make, how):
    network = make().train()
    model = CalibratingSiamese(network, "layers.2", example_inputs=images()).train()
    seen = []
    network.layers[2].register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    x = images()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(5):
            seen.clear()
            if how == "both":
                model(x, x)
            elif how == "encode":
                model(x, model.encode(x))
            else:
                model(x, x, torch.arange(3))
            difference = float(seen[-1].abs().max())
            assert difference < 1e-6 or any("can't be switched off" in str(w.message) for w in said)
    assert not said or how != "both"
    assert all(m.training for m in model.modules())


def attention(**options):
    torch.manual_seed(0)
    size = {"img_size": 32, "patch_size": 16, "depth": 4}
    return create_backbone("timm:vit_tiny_patch16_224", 3, **size, **options)


@pytest.mark.parametrize(
    "option", ["attn_drop_rate", "proj_drop_rate", "pos_drop_rate", "drop_path_rate"]
)
@pytest.mark.parametrize("how", ["both", "encode"])
def test_dropout_of_attention(option, how):
    network = attention(**{option: 0.5}).train()
    model = CalibratingSiamese(network, "blocks.2").train()
    seen, x = [], images(3, side=32)
    network.blocks[2].register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    model(x, x if how == "both" else model.encode(x))
    assert float(seen[-1].abs().max()) < 1e-5


class AlwaysDrawing(Net):
    """Monte Carlo dropout: draws in evaluation too, behind the merge."""

    def forward(self, x):
        return self.fc(F.dropout(self.body(self.stem(x)), 0.5, True).mean((2, 3)))


class DrawingBefore(Net):
    def forward(self, x):
        return self.fc(self.body(F.dropout(self.stem(x), 0.5, True)).mean((2, 3)))


@pytest.mark.parametrize("make", [AlwaysDrawing, DrawingBefore])
def test_monte_carlo_dropout(make):
    assert_right(make().eval(), "body", images(), images(3, 2))


def test_monte_carlo_dropout_before_the_merge_is_said():
    model = CalibratingSiamese(DrawingBefore(), "body", example_inputs=images()).eval()
    with pytest.warns(UserWarning, match="can't be switched off"):
        model(images(), model.encode(images()))


# State


class Writes(Net):
    """Leaves a loss, a map and a counter in attributes."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def forward(self, x):
        f = self.body(self.stem(x))
        self.l_aux = f.square().mean()
        self.maps = {"last": f}
        self.count += 1
        return self.fc(f.mean((2, 3)))


@pytest.mark.parametrize("training", [False, True])
def test_attributes_that_a_forward_writes(training):
    network = Writes().train(training)
    plain = copy.deepcopy(network)
    model = CalibratingSiamese(network, "body", example_inputs=images()).train(training)
    count = network.count
    right = calibrated(plain, "body", images(), images(3, 2))
    assert torch.equal(model(images(), images(3, 2)), right)
    assert torch.equal(network.l_aux, plain.l_aux)
    assert torch.equal(network.maps["last"], plain.maps["last"])
    assert network.count == count + 1
    (network.l_aux + right.sum()).backward()
    assert network.stem.weight.grad is not None


def test_a_trace_is_refused_where_attributes_are_written():
    with pytest.raises(MergePointError, match="writes the attribute"):
        CalibratingSiamese(Writes(), "body", example_inputs=images(), mechanism="fx")


def test_a_counter_advances_by_each_run():
    network = Buffer().train()
    model = CalibratingSiamese(network, "body", example_inputs=images()).train()
    assert network.steps == 0
    for _ in range(3):
        model(images(), images(3, 2))
    assert network.steps == 6  # the reference's run to the merge point counts too


class Caches(Net):
    """Fills a cache that depends on the size, as position embeddings do."""

    def __init__(self):
        super().__init__()
        self.cache = {}

    def forward(self, x):
        key = tuple(x.shape[-2:])
        if key not in self.cache:
            self.cache[key] = torch.linspace(0, 1, key[0])[:, None].expand(key)
        return self.fc(self.body(self.stem(x) + self.cache[key]).mean((2, 3)))


@pytest.mark.parametrize("mechanism", ["auto", "fx"])
def test_caches(mechanism):
    try:
        model = assert_right(Caches().eval(), "body", images(), images(3, 2), mechanism=mechanism)
    except MergePointError:
        assert mechanism == "fx"
        return
    other = images(3, side=12)
    try:
        actual = model(other, other.flip(0))
    except MergePointError:
        assert mechanism == "fx"
        return
    assert torch.equal(actual, calibrated(Caches().eval(), "body", other, other.flip(0)))


# Recomputation


class Checkpointed(Net):
    def __init__(self, reentrant):
        super().__init__()
        self.reentrant = reentrant
        self.blocks = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(4))

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            again = {"use_reentrant": self.reentrant}
            x = checkpoint(block, x, **again) if self.training else block(x)
        return self.fc(x.mean((2, 3)))


class CheckpointedGroups(Checkpointed):
    """One checkpoint over several blocks, the merge module in its middle."""

    def group(self, x):
        for block in self.blocks:
            x = F.relu(block(x))
        return x

    def forward(self, x):
        x = self.stem(x)
        if self.training:
            x = checkpoint(self.group, x, use_reentrant=self.reentrant)
        else:
            x = self.group(x)
        return self.fc(x.mean((2, 3)))


def counted(network, run):
    """Forwards of the blocks in a forward and backward pass, and the step itself."""
    calls = [0]

    def count(*_):
        calls[0] += 1

    handles = [b.register_forward_pre_hook(count) for b in network.blocks]
    left = step(network, run)
    for handle in handles:
        handle.remove()
    return calls[0], left


@pytest.mark.parametrize("make", [Checkpointed, CheckpointedGroups])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("place", ["blocks.0", "blocks.2", "fc"])
def test_checkpoints_recompute_and_their_gradients_are_right(make, reentrant, place):
    network = make(reentrant).train()
    plain = copy.deepcopy(network)
    target, reference = images(), images(3, 2)
    model = CalibratingSiamese(network, place, example_inputs=target).train()
    if reentrant and make is CheckpointedGroups and place == "blocks.2":
        with pytest.raises(MergePointError, match="use_reentrant=False"):
            model(target, reference)
        with torch.no_grad():
            model(target, reference)
        return
    calls, actual = counted(network, lambda: model(target, reference))
    # The oracle without checkpoints: its own hook wouldn't be there when they run again.
    plain.eval()
    expected = step(plain, lambda: calibrated(plain, place, target, reference))
    assert_same((*actual[:3], expected[3]), expected)
    before = {"blocks.0": 0, "blocks.2": 2, "fc": 4}[place]
    assert calls >= 2 * 4 + before


class Again(torch.autograd.Function):
    """A recomputation of one's own, as reversible networks and other libraries have it."""

    @staticmethod
    def forward(ctx, run, x, *parameters):
        ctx.run = run
        ctx.save_for_backward(x, *parameters)
        with torch.no_grad():
            return run(x)

    @staticmethod
    def backward(ctx, gradient):
        x, *parameters = ctx.saved_tensors
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            y = ctx.run(x)
        return None, *torch.autograd.grad(y, [x, *parameters], gradient)


class Recomputed(Net):
    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def forward(self, x):
        x = self.stem(x)
        run = (lambda v: self.body(v * 2)) if self.inside else self.body
        return self.fc(Again.apply(run, x, *self.body.parameters()).mean((2, 3)))


@pytest.mark.parametrize("inside", [False, True])
def test_a_recomputation_of_ones_own_around_the_merge_point(inside):
    """Its gradients wouldn't reach the reference; without gradients it is right."""
    network = Recomputed(inside).train()
    model = CalibratingSiamese(network, "body", example_inputs=images()).train()
    target, reference = images(), images(3, 2)
    with pytest.raises(MergePointError, match="no gradient would reach the reference"):
        model(target, reference)
    with torch.no_grad():
        right = calibrated(network, "body", target, reference)
        assert torch.equal(model(target, reference), right)
        assert torch.equal(model(target, model.encode(reference)), right)
    network(images()).sum().backward()
    assert torch.isfinite(network.body.weight.grad).all()


def test_an_unknown_run_of_the_merge_module_in_a_backward_pass_is_refused():
    network = Net().train()
    model = CalibratingSiamese(network, "body", example_inputs=images()).train()

    def again(gradient):
        network.body(torch.zeros(1, 4, 8, 8))

    output = model(images(), images(3, 2))
    output.register_hook(again)
    with pytest.raises(MergePointError, match="runs again in a backward pass"):
        output.sum().backward()
    del output
    plain = network(images())
    plain.register_hook(again)
    plain.sum().backward()


@pytest.mark.parametrize("place", ["stem", "fc"])
def test_a_recomputation_of_ones_own_before_or_behind_the_merge_point(place):
    network = Recomputed(True).train()
    assert_right(network, place, images(), images(3, 2))


@pytest.mark.parametrize("when", ["before", "after"])
def test_checkpoints_of_timm(when):
    network = attention()
    plain = copy.deepcopy(network).train()
    if when == "before":
        network.set_grad_checkpointing(True)
    model = CalibratingSiamese(network, "blocks.2").train()
    if when == "after":
        network.set_grad_checkpointing(True)
    target, reference = images(3, side=32), images(3, 2, side=32)
    calls, actual = counted(network, lambda: model(target, reference))
    expected = step(plain, lambda: calibrated(plain, "blocks.2", target, reference))
    assert calls == 12
    assert_same((*actual[:3], expected[3]), expected)


def test_checkpoints_of_steps_that_overlap():
    """Two forwards before their backward passes: each recomputes with its own reference."""
    network = CheckpointedGroups(False).train()
    plain = copy.deepcopy(network).eval()
    pairs = [(images(3, s), images(3, s + 10)) for s in range(3)]
    model = CalibratingSiamese(network, "blocks.2", example_inputs=images()).train()
    losses = [model(x, y).square().sum() for x, y in pairs]
    network(images()).sum().backward()
    network.zero_grad()
    for number in (2, 0, 1):
        losses[number].backward()
    sum(calibrated(plain, "blocks.2", x, y).square().sum() for x, y in pairs).backward()
    for p, q in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_images_and_a_stored_reference():
    network = Net().eval()
    model = CalibratingSiamese(network, "body", example_inputs=images())
    grads = []
    for run in (
        lambda x, y: model(x, y),
        lambda x, y: model(x, model.encode(y)),
        lambda x, y: calibrated(network, "body", x, y),
    ):
        x, y = images().requires_grad_(), images(3, 2).requires_grad_()
        grads.append(torch.autograd.grad(run(x, y).square().sum(), [x, y]))
    for ours in grads[:2]:
        for a, b in zip(ours, grads[2], strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "context",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)],
)
@pytest.mark.parametrize("mechanism", ["hook", "fx"])
def test_wrapping_inside_a_context(context, mechanism):
    network = Net().eval()
    with context():
        model = CalibratingSiamese(network, "body", example_inputs=images(), mechanism=mechanism)
        names = [p.name for p in list_merge_points(network, images())]
    assert names == ["stem", "body", "fc", "output"]
    for inside in (contextlib.nullcontext, context):
        with inside():
            right = calibrated(network, "body", images(), images(3, 2))
            assert torch.equal(model(images(), images(3, 2)), right)
    model.train()(images(), images(3, 2)).sum().backward()
    assert network.stem.weight.grad is not None
