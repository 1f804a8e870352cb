"""What random networks found, each as small as it gets; the right value is the hook's or the sum's.

The oracle is the plain network whose merge module's input is replaced by a forward pre-hook.
"""

import copy
import random

import pytest
import torch
from network_oracle import by_hook
from torch import nn
from torch.nn import functional as F

from siamcal import CalibratingSiamese, list_merge_points
from siamcal.errors import ConfigError, MergePointError
from siamcal.graph import split_network

torch.set_num_threads(1)


class Net(nn.Module):
    """A stem, something in between and a head; `body` is the subclass's."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.middle, self.head = nn.Linear(4, 4), nn.Identity(), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.body(self.stem(x)))


def images(seed=1, batch=3):
    return torch.randn(batch, 4, generator=torch.Generator().manual_seed(seed))


def test_a_shortcut_written_into_the_features_is_seen_behind_a_gate_at_zero():
    class Written(Net):
        def __init__(self):
            super().__init__()
            self.gate = nn.Parameter(torch.zeros(4))

        def body(self, x):
            y = self.middle(x + 1)
            y += self.gate * x
            return y

    network = Written()
    split = split_network(network, "middle", example_inputs=images())
    assert "fx" in split.mechanism
    assert "middle" not in [p.name for p in list_merge_points(network, images())]


def test_what_is_written_over_behind_the_merge_is_no_bypass():
    class Over(Net):
        def body(self, x):
            y = self.middle(x + 1)
            y -= 0.5 * y
            return y

    network = Over().eval()
    model = CalibratingSiamese(copy.deepcopy(network), "middle", example_inputs=images()).eval()
    assert model.split.mechanism == "hook"
    expected = by_hook(network, "middle", [True], images(2), images(3))
    torch.testing.assert_close(model(images(2), images(3)), expected)


def test_a_counter_that_the_forward_advances_is_no_bypass():
    class Counting(Net):
        def __init__(self):
            super().__init__()
            self.register_buffer("steps", torch.zeros(()))

        def body(self, x):
            self.steps += 1
            return self.middle(x / (1 + self.steps))

    network = Counting().eval()
    model = CalibratingSiamese(copy.deepcopy(network), "middle", example_inputs=images()).eval()
    assert model.split.mechanism == "hook"
    assert int(model.backbone.steps) == 0
    expected = by_hook(network, "middle", [True], images(2), images(3))
    torch.testing.assert_close(model(images(2), images(3)), expected)


@pytest.mark.parametrize("decide", [lambda x: bool(x.sum() > 0), lambda x: (x > 9).any().item()])
def test_a_decision_made_from_the_image_passes_no_merge_module_by(decide):
    class Deciding(Net):
        def body(self, x):
            flag = decide(x)
            y = self.middle(x + 1)
            return y * 2 if flag else y

    with pytest.raises(MergePointError, match="a number made from the image passes"):
        CalibratingSiamese(Deciding(), "middle", example_inputs=torch.rand(3, 4))


def test_a_number_used_before_the_merge_is_no_bypass():
    class Scaled(Net):
        def body(self, x):
            return self.middle(x * (1 + x.abs().mean().item()))

    network = Scaled().eval()
    model = CalibratingSiamese(copy.deepcopy(network), "middle", example_inputs=images()).eval()
    expected = by_hook(network, "middle", [True], images(2), images(3))
    torch.testing.assert_close(model(images(2), images(3)), expected)


def test_a_block_that_writes_into_what_the_merge_module_reads_too_runs_before_it():
    class Block(nn.Module):
        def forward(self, x):
            return x.relu_() * 3

    class Sharing(Net):
        def __init__(self):
            super().__init__()
            self.block = Block()

        def body(self, x):
            y = self.block(x)
            return y + torch.tanh(self.middle(x)) + x

    network = Sharing().eval()
    model = CalibratingSiamese(copy.deepcopy(network), "middle", example_inputs=images()).eval()
    target, reference = (network.stem(images(i)).relu() for i in (2, 3))
    d = reference - target
    assert model.split.mechanism == "full fx"
    torch.testing.assert_close(model(images(2), images(3)), network.head(3 * d + torch.tanh(d) + d))


def drop_by_function(x, module):
    return F.dropout(x, 0.5, module.training)


def scale_by_python(x, module):
    return x * random.uniform(0.5, 1.5) if module.training else x


@pytest.mark.parametrize("draw", [drop_by_function, scale_by_python])
@pytest.mark.parametrize("place", ["middle", "output"])
def test_equal_images_leave_no_difference_where_the_network_draws(draw, place):
    class Drawing(Net):
        def body(self, x):
            return self.middle(draw(x, self))

    model = CalibratingSiamese(Drawing().train(), place, example_inputs=images()).train()
    zero = model.backbone.head(torch.zeros(3, 4)) if place == "middle" else torch.zeros(3, 2)
    torch.testing.assert_close(model(images(2), images(2)), zero)
    torch.testing.assert_close(model(images(2), model.encode(images(2))), zero)


def test_draws_are_equal_where_a_part_alone_trains():
    class Part(nn.Module):
        def forward(self, x):
            return F.dropout(x, 0.5, self.training)

    class Uncertain(Net):
        def __init__(self):
            super().__init__()
            self.part = Part()

        def body(self, x):
            return self.middle(self.part(x))

    model = CalibratingSiamese(Uncertain(), "middle", example_inputs=images()).eval()
    model.backbone.part.train()  # Monte Carlo dropout
    zero = model.backbone.head(torch.zeros(3, 4))
    torch.testing.assert_close(model(images(2), images(2)), zero)
    torch.testing.assert_close(model(images(2), model.encode(images(2))), zero)


@pytest.mark.parametrize("draw", [random.random, lambda: torch.rand(()).item()])
def test_draws_in_a_block_that_is_skipped_at_random_are_known(draw):
    class Block(nn.Module):
        def forward(self, x):
            return F.dropout(x, 0.5, self.training)

    class Skipping(Net):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(Block() for _ in range(3))

        def body(self, x):
            for block in self.blocks:
                if not self.training or draw() > 0.5:
                    x = block(x)
            return self.middle(x)

    for seed in range(5):
        torch.manual_seed(seed)
        random.seed(seed)
        split = split_network(Skipping(), "middle", example_inputs=images())
        assert {"", "blocks.0", "blocks.1", "blocks.2"} == set(split.drawing)


def test_samples_that_can_not_be_told_apart_are_said_so():
    class Mixed(Net):
        def body(self, x):
            return self.middle(x * (1 + x.abs().mean().item()))

    model = CalibratingSiamese(Mixed(), "middle", example_inputs=images(batch=2) * 9).eval()
    encoded = model.encode(images(batch=2))
    with pytest.raises(ConfigError, match="can't be told apart"):
        model(images(), encoded, torch.tensor([0, 1, 0]))


def test_a_module_that_only_a_constant_enters_is_no_merge_point():
    """Seed 12667539: a module's second output was `zeros_like(x) + .5`, its first passed by."""

    class Pair(nn.Module):
        def forward(self, x):
            return x * 0.5, torch.zeros_like(x) + 0.5

    class Constant(Net):
        def __init__(self):
            super().__init__()
            self.pair = Pair()

        def forward(self, x):
            features = self.stem(x)
            _, constant = self.pair(features)
            return self.head(self.middle(constant)), features

    network = Constant()
    for verify in (True, False):
        with pytest.raises(MergePointError, match="no tensor that depends on the image"):
            CalibratingSiamese(network, "middle", example_inputs=images(), verify=verify)
    assert "middle" not in [p.name for p in list_merge_points(network, images())]
