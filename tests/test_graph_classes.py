"""One small network for each way in which cutting networks went wrong (and the cure's proof).

Each class states what its calibrated output must be, so that a cut that merely puts the halves
together again isn't enough.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from siamcal import CalibratingSiamese, list_merge_points
from siamcal.errors import MergePointError
from siamcal.graph import tracing
from siamcal.graph.randomness import RandomState

torch.set_num_threads(1)


def images(batch=2, seed=1, side=8):
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))


def wrap(network, merge_at="body", **options):
    torch.manual_seed(0)
    return CalibratingSiamese(network.eval(), merge_at, example_inputs=images(), **options)


class Net(nn.Module):
    """stem -> body -> head; subclasses override what lies between."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(4, 5)

    def features(self, x):
        return self.stem(x)

    def rest(self, f, x=None):
        return self.head(self.body(f).mean((2, 3)))

    def forward(self, x):
        return self.rest(self.features(x))


def check(network, mechanism, merge_at="body", **options):
    """The halves are the network, and the calibrated output is `rest` of the difference."""
    if "fx" in mechanism:
        options["mechanism"] = "fx"
    model = wrap(network, merge_at, **options)
    assert model.split.mechanism == mechanism
    for batch in (1, 3):
        x, y = images(batch, 1), images(batch, 2)
        assert torch.equal(model.split.post(model.split.pre(x)), network(x))
        expected = network.rest(network.features(y) - network.features(x))
        assert torch.equal(model(x, y), expected)
        assert torch.equal(model(x, model.encode(y)), expected)
    return model


# 1. Control flow that depends on the shape


class Padded(nn.Module):
    def forward(self, x):
        if x.shape[-1] % 3:
            x = F.pad(x, (0, 3 - x.shape[-1] % 3))
        return x


class ControlFlowAside(Net):
    def __init__(self):
        super().__init__()
        self.pad = Padded()

    def features(self, x):
        return self.pad(self.stem(x))


class ControlFlowOnTheWay(Net):
    def features(self, x):
        if x.shape[-1] % 3:
            x = F.pad(x, (0, 1))
        return self.stem(x)


def test_control_flow_in_another_module_stays_opaque():
    check(ControlFlowAside(), "shallow fx")


def test_control_flow_on_the_way_is_left_to_the_hook():
    check(ControlFlowOnTheWay(), "hook")


# 2. The training mode baked into the graph


class Training(Net):
    def features(self, x):
        f = F.dropout(self.stem(x), 0.5, training=self.training)
        return f * 2 if self.training else f

    def rest(self, f, x=None):
        return super().rest(F.dropout(f, 0.3, training=self.training))


@pytest.mark.parametrize("training", [False, True])
def test_each_training_mode_has_its_own_graph(training):
    network = Training()
    model = wrap(network, mechanism="fx")
    assert model.split.mechanism == "shallow fx"
    model.train(training)
    x = images()
    state = RandomState(torch.device("cpu"))
    expected = network(x)
    state.restore()
    assert torch.equal(model.split.post(model.split.pre(x)), expected)


def test_a_mode_set_for_a_part_only_is_followed():
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Identity()

        def forward(self, x):
            return self.body(x * 3 if self.training else x)

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Inner()

        def forward(self, x):
            return self.inner(x) + (1 if self.training else 0)

    network = Outer()
    model = wrap(network, "inner.body")
    model.train()
    network.inner.eval()
    x = images()
    assert torch.equal(model.split.post(model.split.pre(x)), x + 1)


# 3. Shape reads and asserts that seem to carry the image across


class ShapeReads(Net):
    def forward(self, x):
        batch, _, height, width = x.shape
        torch._assert(height == 8, "wrong height")
        f = self.features(x)
        unused = f.flatten(2).transpose(1, 2)
        torch._assert(unused.shape[-1] == 4, "wrong width")
        g = self.body(f)
        return self.head(g.reshape(batch, 4, height * width).mean(2))


def test_shapes_pass_and_do_not_drag_the_image_along():
    model = check(ShapeReads(), "shallow fx")
    assert len(model.split.layouts) == 1
    joint = wrap(ShapeReads(), branches="concatenate")
    torch.testing.assert_close(joint(images(), images(seed=2)), model(images(), images(seed=2)))
    shared = (images(3), images(2, 2), torch.tensor([1, 0, 1]))  # sizes of an uneven batch
    torch.testing.assert_close(joint(*shared), model(*shared))
    torch.testing.assert_close(
        model(images(3), images(1, 2)), model(images(3), images(1, 2).expand(3, -1, -1, -1))
    )


# 4. In-place writes that no data flow shows


class InPlace(Net):
    def features(self, x):
        f = self.stem(x)
        view = f.flatten(2)
        view[:, :, 1:] += 1.0
        view.mul_(2)
        return f


class InPlaceBehind(Net):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1))

    def rest(self, f, x=None):
        return self.head((self.body(f) + f).mean((2, 3)))


def test_writes_before_the_merge_happen_before_it():
    check(InPlace(), "shallow fx")


def test_a_write_behind_the_merge_reaches_every_reader():
    network = InPlaceBehind()
    model = wrap(network)
    x, y = images(), images(seed=2)
    expected = network.rest(network.features(y) - network.features(x))
    encoded = model.encode(y)
    before = encoded.tensors[0].clone()
    assert torch.equal(model(x, encoded), expected)
    assert torch.equal(encoded.tensors[0], before)


# 5. Constants that the trace computes


class Constants(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.tensor(2.0))
        self.plain = torch.arange(4.0)

    def features(self, x):
        ramp = torch.linspace(0, 1, 8)
        return self.stem(x) * self.scale.abs() * ramp + self.plain.view(1, 4, 1, 1)


class BranchOnBuffer(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.tensor(2.0))

    def features(self, x):
        f = self.stem(x)
        return f * 2 if self.scale > 1 else f


def test_constants_and_buffers_are_read_when_the_network_runs():
    network = Constants()
    model = check(network, "shallow fx")
    network.scale.fill_(5.0)
    x = images()
    assert torch.equal(model.split.post(model.split.pre(x)), network(x))
    assert not [k for m in network.modules() for k in m.__dict__ if "constant" in k]
    model.double()
    network.plain = network.plain.double()
    x = x.double()
    torch.testing.assert_close(model.split.post(model.split.pre(x)), network(x))


def test_control_flow_on_a_buffer():
    check(BranchOnBuffer(), "shallow fx")


# 6. Caches that would keep a trace's stand-ins


class Cached(Net):
    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.randn(4))
        self.cache = {}
        self.last = None

    def features(self, x):
        f = self.stem(x)
        self.last = f
        if self.training:
            return f + self.bias.view(1, 4, 1, 1)
        if "bias" not in self.cache:
            self.cache["bias"] = self.bias.view(1, 4, 1, 1) * 2
        return f + self.cache["bias"]


@pytest.mark.parametrize("warm", [False, True])
def test_caches_hold_no_stand_ins_afterwards(warm):
    network = Cached().eval()
    expected = copy.deepcopy(network)(images())
    if warm:
        network(images())
    check(network, "hook")
    with pytest.raises(MergePointError, match="writes the attribute 'last'"):
        wrap(network, mechanism="fx")
    assert all(isinstance(v, torch.Tensor) for v in network.cache.values())
    assert torch.equal(network(images()), expected)
    assert isinstance(network.last, torch.Tensor)


# 7. Tensors that cross but don't depend on the image


class Positions(nn.Module):
    """Made from the feature's shape alone; a trace can't see that."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(64))

    def forward(self, f):
        return self.table[: f.shape[-1]].sin()


class Rotary(Net):
    def __init__(self):
        super().__init__()
        self.rope = Positions()

    def forward(self, x):
        f = self.stem(x)
        rope = self.rope(f)
        return self.rest(f, rope)

    def rest(self, f, rope=None):
        rope = self.rope(f) if rope is None else rope
        return self.head((self.body(f) * rope).mean((2, 3)))


def test_positional_encodings_pass_as_they_are():
    model = check(Rotary(), "shallow fx")
    assert sum(model.split.differenced) == 1


# 8. Lists, tuples and dicts that cross


class Several(nn.Module):
    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1)
        self.body = Joined()

    def pair(self, x):
        return self.one(x), self.two(x)

    def forward(self, x):
        a, b = self.pair(x)
        values = {"list": [a, b], "tuple": (a, (b,)), "dict": {"a": a, "rest": {"b": b}}}
        return self.body(values[self.kind])


class Joined(nn.Module):
    def forward(self, values):
        a, b = torch.utils._pytree.tree_leaves(values)
        return a.mean((2, 3)).exp() * b.amax((2, 3))


@pytest.mark.parametrize("kind", ["list", "tuple", "dict"])
def test_containers_are_differenced_tensor_by_tensor(kind):
    network = Several(kind)
    model = wrap(network)
    assert model.split.differenced == (True, True)
    x, y = images(), images(seed=2)
    assert torch.equal(model.split.post(model.split.pre(x)), network(x))
    difference = [r - t for t, r in zip(network.pair(x), network.pair(y), strict=True)]
    assert torch.equal(model(x, y), network.body(difference))


class TupleStage(nn.Module):
    def forward(self, x):
        return {"deep": [x * 2, x.shape], "flat": x + 1}


class OpaqueContainer(Net):
    def __init__(self):
        super().__init__()
        self.stage = TupleStage()

    def forward(self, x):
        out = self.stage(self.stem(x))
        return self.rest(out["deep"][0], out)

    def rest(self, f, out=None):
        return super().rest(f) + out["flat"].mean((2, 3)).sum(1, keepdim=True)


def test_tensors_inside_an_opaque_result_are_differenced_too():
    network = OpaqueContainer()
    model = wrap(network)
    x, y = images(), images(seed=2)
    fx, fy = network.stem(x), network.stem(y)
    torch.testing.assert_close(
        model(x, y), network.rest(fy * 2 - fx * 2, {"flat": (fy + 1) - (fx + 1)})
    )


# 9. An opaque module whose result is iterated


class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        return [self.conv(x), self.conv(x) * 2]


class Iterated(Net):
    def __init__(self):
        super().__init__()
        self.stem = Pyramid()

    def features(self, x):
        return sum(f + 1 for f in self.stem(x))


def test_an_iterated_list_needs_the_full_trace():
    check(Iterated(), "full fx")


# 10. A merge module that does nothing


class Nothing(Net):
    def __init__(self):
        super().__init__()
        self.place = nn.Identity()

    def rest(self, f, x=None):
        return super().rest(self.place(f))


def test_an_identity_is_a_place_too():
    check(Nothing(), "shallow fx", "place")


# A merge module inside one that a full trace takes as a single step


class Adapter(nn.Module):
    """Looks at the shape, so it can't be traced; timm marks such modules as untraceable."""

    def __init__(self):
        super().__init__()
        self.ffn = nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, f):
        f = self.ffn(f)
        return self.norm(F.avg_pool2d(f, 2) if f.shape[-1] % 4 == 0 else f)


class Adapted(Net):
    def __init__(self):
        super().__init__()
        self.adapter = Adapter()

    def rest(self, f, x=None):
        return super().rest(self.adapter(f))


class Encoded(Net):
    """Torch's own layers are single steps too, and hold others."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def features(self, x):
        return self.encoder.layers[0](self.stem(x).flatten(2).mT)

    def rest(self, f, x=None):
        return self.head(self.encoder.layers[1](f).mean(1))

    def forward(self, x):
        return self.head(self.encoder(self.stem(x).flatten(2).mT).mean(1))


@pytest.fixture
def untraceable(monkeypatch):
    """Adapter as timm marks its own; each module that is taken as one step is such a one."""
    marked = tracing._untraceable
    monkeypatch.setattr(tracing, "_untraceable", lambda: ((*marked()[0], Adapter), marked()[1]))


def test_a_place_inside_an_opaque_module_is_left_to_the_hook(untraceable):
    check(Adapted(), "hook", "adapter.ffn")


def test_a_place_inside_a_layer_of_torch_is_left_to_the_hook():
    check(Encoded(), "hook", "encoder.layers.1")


# 11. A second reader behind a hook


class Shortcut(ControlFlowOnTheWay):
    def rest(self, f, x=None):
        return self.head((self.body(f) + f).mean((2, 3)))


def test_a_bypass_is_refused_not_answered_wrongly():
    network = Shortcut()
    with pytest.raises(MergePointError, match="passes 'body' by") as error:
        wrap(network)
    assert "'stem'" in str(error.value)
    assert "'head'" in str(error.value)


class Muted(Shortcut):
    """The bypass is closed at the start (as zero-initialised scales are) but not for ever."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(()))

    def rest(self, f, x=None):
        return self.head((self.body(f) + self.gain * f).mean((2, 3)))


def test_a_bypass_that_is_muted_at_the_start_is_refused_too():
    with pytest.raises(MergePointError, match="passes 'body' by"):
        wrap(Muted())


def test_the_same_shortcut_is_exact_by_fx():
    class Traceable(Shortcut):
        def features(self, x):
            return self.stem(x)

    check(Traceable(), "shallow fx")


# Values that can't be differenced, places that aren't any


class Indices(Net):
    def forward(self, x):
        f = self.stem(x).mean((2, 3))
        order = f.argsort(1)
        g = self.body(f.gather(1, order)[:, :, None, None])
        return self.head(g.mean((2, 3)).gather(1, order))


def test_integers_that_depend_on_the_image_are_refused_and_not_listed():
    with pytest.raises(MergePointError, match=r"int64 that depends on the image"):
        wrap(Indices())
    points = [p.name for p in list_merge_points(Indices(), images())]
    assert points == ["stem", "head", "output"]


class Masked(Net):
    """A mask of the image's own shape, and a decision by a parameter: no place is lost to them."""

    def __init__(self):
        super().__init__()
        self.level = nn.Parameter(torch.tensor(0.5))

    def rest(self, f, x=None):
        keep = torch.ones_like(f[:1, :1]).cumsum(-1) > 2
        gain = (self.level > 0.1).float()
        return self.head((self.body(f) * keep * gain).mean((2, 3)))


def test_masks_that_do_not_depend_on_the_image_cost_no_place():
    points = [p.name for p in list_merge_points(Masked(), images())]
    assert points == ["stem", "body", "body.0", "body.1", "head", "output"]
    check(Masked(), "shallow fx")


class Reused(Net):
    def __init__(self):
        super().__init__()
        self.act = nn.ReLU()
        self.unused = nn.Linear(2, 2)

    def rest(self, f, x=None):
        return super().rest(self.act(self.body(self.act(f))))


@pytest.mark.parametrize(
    ("place", "reason"),
    [("act", "called 2 times"), ("unused", "isn't called"), ("nowhere", "no module of that name")],
)
def test_a_place_that_is_none_is_explained(place, reason):
    with pytest.raises(MergePointError, match=reason) as error:
        wrap(Reused(), place)
    assert any(f"'{p}'" in str(error.value) for p in ("stem", "body", "head", "body.0", "body.1"))


def test_a_place_the_image_does_not_reach_is_refused():
    class Tokens(Net):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.randn(1, 5))
            self.embed = nn.Linear(5, 5)

        def rest(self, f, x=None):
            return super().rest(f) + self.embed(self.token)

    with pytest.raises(MergePointError, match="no tensor that depends on the image"):
        wrap(Tokens(), "embed")


class Evasive(Net):
    """Computes something else while it is traced, as a network with a tracing branch may."""

    def features(self, x):
        traced = torch.fx._symbolic_trace.is_fx_tracing()
        return self.stem(x) + float(traced)


def test_verification_catches_a_wrong_trace():
    check(Evasive(), "hook")
    with pytest.raises(MergePointError, match="differs from the network"):
        wrap(Evasive(), mechanism="fx")
    assert wrap(Evasive(), mechanism="fx", verify=False).split.mechanism == "shallow fx"


def test_torchscript_is_calibrated_behind_it_only():
    script = torch.jit.trace(Net().eval(), images())
    with pytest.raises(MergePointError, match="pass the module it was made from"):
        wrap(script)
    model = wrap(script, "output")
    x, y = images(3, 1), images(3, 2)
    assert torch.equal(model(x, y), script(x) - script(y))


def all_networks():
    kinds, found = [Net], []
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
        found.append(kind)
    return found


@pytest.mark.parametrize("network", all_networks())
def test_every_listed_place_can_be_cut(network, untraceable):
    points = list_merge_points(network(), images())
    assert points
    for point in points:
        wrap(network(), point.name)
