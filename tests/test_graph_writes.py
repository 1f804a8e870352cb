"""Buffers and attributes that a forward writes, in networks that torch.fx cuts inside branches.

What is expected is computed by hand from the layers, d being the difference of the stem's features.
"""

import copy
import random

import pytest
import torch
from test_random_networks import examine
from torch import nn
from torch.nn import functional as F

from siamcal import CalibratingSiamese
from siamcal.errors import MergePointError

torch.set_num_threads(1)


class Branched(nn.Module):
    """A stem, two branches of which `middle` is cut, and a head; `body` is the subclass's."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.side = nn.Linear(4, 4), nn.Linear(4, 4)
        self.middle, self.head = nn.Linear(4, 4), nn.Linear(4, 2)
        self.register_buffer("average", torch.zeros(4))
        self.register_buffer("spread", torch.ones(4))

    def update(self, x):
        self.average.mul_(0.9).add_(0.1 * x.detach().mean(0))

    def forward(self, x):
        return self.head(self.body(self.stem(x)))


def images(seed=1):
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(seed))


def wrapped(network, **options):
    network = copy.deepcopy(network).eval()
    return CalibratingSiamese(network, "middle", example_inputs=images(), **options).eval()


def features(network):
    """The stem's features of target 2 and reference 3, and their difference."""
    target, reference = network.stem(images(2)), network.stem(images(3))
    return target, reference, reference - target


@pytest.mark.parametrize("seed", [10616, 10920, 20537, 52, 476])
def test_averages_that_nobody_reads_end_as_in_the_oracle(seed):
    network, found = examine(random.Random(seed))
    assert any("fx" in o.detail for o in found)
    assert not [o for o in found if o.result == "wrong"], network.source()


@pytest.mark.parametrize("verify", [True, False])
def test_statistics_of_a_branch_behind_the_merge_do_not_move_the_cut(verify):
    class Watched(Branched):
        def body(self, x):
            a = torch.relu(self.side(x))
            self.update(a)
            return a + torch.tanh(self.middle(x))

    network = Watched()
    model = wrapped(network, verify=verify)
    *_, d = features(network)
    side = torch.relu(network.side(d))
    expected = network.head(side + torch.tanh(network.middle(d)))
    assert model.split.mechanism == "shallow fx"
    torch.testing.assert_close(model(images(2), images(3)), expected)
    torch.testing.assert_close(model.backbone.average, 0.1 * side.detach().mean(0))


def test_statistics_of_what_lies_before_the_merge_count_each_branch():
    class Watched(Branched):
        def body(self, x):
            self.update(x)
            return torch.relu(x) + torch.tanh(self.middle(x))

    network = Watched()
    model = wrapped(network)
    target, reference, d = features(network)
    expected = network.head(torch.relu(d) + torch.tanh(network.middle(d)))
    torch.testing.assert_close(model(images(2), images(3)), expected)
    means = [v.detach().mean(0) for v in (target, reference)]
    ends = [0.09 * a + 0.1 * b for a, b in (means, means[::-1])]
    assert any(torch.allclose(model.backbone.average, end) for end in ends)


def test_a_counter_in_front_of_the_merge_that_only_what_lies_behind_reads_is_refused():
    """The plain network counts the reference's forward too; the part behind would count once."""

    class Counting(Branched):
        def body(self, x):
            self.average.add_(1)
            return x / self.average + torch.tanh(self.middle(x))

    with pytest.raises(MergePointError, match="'average' is written in front of the merge"):
        wrapped(Counting())


def read_on_both_sides(self, x):
    self.update(x)
    return torch.relu(x) - self.average + self.middle(x - self.average)


def read_before_it_is_written(self, x):
    a = torch.relu(x) - self.average
    self.update(x)
    return a + self.middle(x)


def written_from_both_sides(self, x):
    a = self.side(x)
    self.update(torch.relu(x) + a)
    return a + torch.tanh(self.middle(x))


def written_by_out(self, x):
    torch.add(self.average, x.detach().mean(0), out=self.average)
    return torch.relu(x) - self.average + self.middle(x - self.average)


def written_by_a_function(self, x):
    y = F.batch_norm(x, self.average, self.spread, training=True)
    return torch.relu(x) - self.average + self.middle(y)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            read_on_both_sides,
            "'average' is written from the image before the merge and read behind",
        ),
        (read_before_it_is_written, "'average' is read behind the merge as it is before"),
        (written_from_both_sides, "'average' is written from values of both sides"),
        (written_by_out, "'average' is written from the image before the merge and read behind"),
        (written_by_a_function, "'average' is (written from|read behind)"),
    ],
)
def test_a_buffer_that_no_side_of_the_merge_can_write_alone_is_refused(body, reason, verify):
    network = type("Net", (Branched,), {"body": body})()
    with pytest.raises(MergePointError, match=reason):
        wrapped(network, verify=verify)


def test_a_running_mean_read_behind_the_merge_is_refused_by_every_mechanism():
    class Reading(Branched):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

        def body(self, x):
            return self.middle(self.norm(x)) - self.norm.running_mean

    with pytest.raises(
        MergePointError, match=r"hook: .*passes 'middle' by; fx: 'norm.running_mean'"
    ):
        wrapped(Reading())


def test_a_normalisation_on_both_sides_of_the_merge_is_no_way_around_it():
    class Shared(Branched):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

        def body(self, x):
            return self.norm(self.middle(self.norm(x)))

    assert wrapped(Shared()).split.mechanism == "hook"


class Keeping(nn.Module):
    """Keeps what it gets, and gives its double."""

    kept = None

    def forward(self, x):
        self.kept = x.detach()
        return 2 * x


class Adding(nn.Module):
    """Adds what another module keeps."""

    def __init__(self, other):
        super().__init__()
        self.others = [other]

    def forward(self, x):
        return x + self.others[0].kept


def test_what_a_block_keeps_for_another_one_behind_the_merge_is_differenced():
    class Remembering(Branched):
        def __init__(self):
            super().__init__()
            self.first = Keeping()
            self.last = Adding(self.first)

        def body(self, x):
            x = self.first(x)
            return self.last(torch.relu(x) + torch.tanh(self.middle(x)))

    network = Remembering().eval()
    model = CalibratingSiamese(network, "middle", example_inputs=images()).eval()
    *_, d = features(network)
    expected = network.head(torch.relu(2 * d) + torch.tanh(network.middle(2 * d)) + d)
    assert model.split.mechanism == "full fx"
    torch.testing.assert_close(model(images(2), images(3)), expected)
