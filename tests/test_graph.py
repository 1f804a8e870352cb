"""The cut is exact: iResNet and timm's networks, in eval and train mode."""

import pytest
import torch

from siamcal import create_backbone, list_merge_points
from siamcal.errors import MergePointError
from siamcal.graph import split_network
from siamcal.graph.randomness import RandomState

torch.set_num_threads(1)


def small(name="ir18", **options):
    torch.manual_seed(0)
    return create_backbone(name, 7, widths=(4, 4, 6, 8, 8), input_size=32, **options)


def images(batch, size=32, seed=1):
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("merge_at", ["conv1", "layer2", "layer4", "layer3.1.conv2", "bn2", "fc"])
@pytest.mark.parametrize("mechanism", ["auto", "fx"])
def test_halves_equal_the_network_bit_for_bit(merge_at, mechanism):
    network = small().eval()
    split = split_network(network, merge_at, mechanism=mechanism)
    assert split.mechanism in ("hook", "shallow fx")
    for batch in (1, 2, 5):
        x = images(batch)
        assert torch.equal(split.post(split.pre(x)), network(x))


@pytest.mark.parametrize("merge_at", ["layer2", "fc", "output"])
def test_train_mode_equals_the_network_under_the_same_random_state(merge_at):
    network = small(dropout=0.4).train()
    split = split_network(network, merge_at)
    x = images(4)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    state = RandomState(torch.device("cpu"))
    expected = network(x)
    after = {k: v.clone() for k, v in network.state_dict().items()}
    network.load_state_dict(before)
    state.restore()
    assert torch.equal(split.run(x, lambda features: features), expected)
    assert all(torch.equal(v, after[k]) for k, v in network.state_dict().items())


def test_the_network_is_left_as_it_was():
    network = small(dropout=0.1).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    storage = {k: v.data_ptr() for k, v in network.state_dict().items()}
    attributes = {n: set(m.__dict__) for n, m in network.named_modules()}
    split_network(network, "layer3")
    list_merge_points(network)
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert {k: v.data_ptr() for k, v in after.items()} == storage
    assert {n: set(m.__dict__) for n, m in network.named_modules()} == attributes
    assert all(m.training for m in network.modules())


def test_wrapping_does_not_disturb_the_random_state():
    network = small()
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    split_network(network, "layer2")
    assert torch.equal(torch.rand(3), expected)


def test_merge_points_of_iresnet():
    points = {p.name: p for p in list_merge_points(create_backbone("ir_tiny", 72))}
    assert list(points)[-1] == "output"
    assert points["layer4"].shape == (64, 7, 7)
    assert points["fc"].shape == (128 * 4 * 4,)
    assert points["output"].shape == (72,)
    shares = [p.params_before for p in points.values()]
    assert shares == sorted(shares)
    assert 0.1 < points["layer4"].macs_before < points["fc"].macs_before < 1


@pytest.mark.parametrize("name", ["layer5", "layer4.7", "", "nonsense"])
def test_an_illegal_point_names_legal_ones(name):
    network = small()
    with pytest.raises(MergePointError) as error:
        split_network(network, name)
    legal = [p.name for p in list_merge_points(network)]
    assert any(repr(p) in str(error.value) for p in legal)


@pytest.mark.parametrize("name", ["resnet18", "resnet26d", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("where", [0.3, 0.6, 0.9])
def test_timm_is_exact(name, where):
    options = {"img_size": 64} if name.startswith("vit") else {}
    network = create_backbone(f"timm:{name}", 5, **options).eval()
    example = images(2, 64)
    points = list_merge_points(network, example)
    point = points[int(where * len(points))]
    split = split_network(network, point.name, example_inputs=example)
    x = images(3, 64)
    assert torch.equal(split.post(split.pre(x)), network(x))
