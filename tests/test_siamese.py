"""The wrapper: signs, references, branches, copies."""

import copy
import pickle

import pytest
import torch

from siamcal import CalibratingSiamese, Reference, create_backbone
from siamcal.errors import ConfigError

torch.set_num_threads(1)


def backbone(**options):
    torch.manual_seed(0)
    network = create_backbone("ir18", 7, widths=(4, 4, 6, 8, 8), input_size=32, **options)
    for module in network.modules():  # running statistics and shifts that aren't the identity
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.bias)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def images(batch, seed=1):
    return torch.rand(batch, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


class TestEqualInputs:
    """Equal inputs leave nothing of the image."""

    def test_inside_the_network_one_constant_vector(self):
        model = CalibratingSiamese(backbone(), "layer4")
        first, second = model(images(2, 1), images(2, 1)), model(images(2, 2), images(2, 2))
        assert torch.equal(first, second)
        assert torch.equal(first[0], first[1])
        assert not torch.equal(first[0], model.backbone.fc.bias)

    def test_at_fc_its_bias(self):
        model = CalibratingSiamese(backbone(), "fc")
        x = images(2)
        assert torch.equal(model(x, x), model.backbone.fc.bias.expand(2, -1))

    def test_at_output_zero(self):
        model = CalibratingSiamese(backbone(), "output")
        x = images(2)
        assert torch.equal(model(x, x), torch.zeros(2, 7))


def test_default_signs_are_the_authors():
    network = backbone()
    target, reference = images(2, 1), images(2, 2)
    at_output = CalibratingSiamese(network, "output")(target, reference)
    assert torch.equal(at_output, network(target) - network(reference))
    features = {}
    handle = network.fc.register_forward_pre_hook(
        lambda m, a: features.setdefault(len(features), a[0])
    )
    network(target), network(reference)
    handle.remove()
    at_fc = CalibratingSiamese(network, "fc")(target, reference)
    assert torch.equal(at_fc, network.fc(features[1] - features[0]))


def test_merge_may_be_named_or_a_function():
    network = backbone()
    target, reference = images(2, 1), images(2, 2)
    ours = CalibratingSiamese(network, "fc", merge="target_minus_reference")(target, reference)
    function = CalibratingSiamese(network, "fc", merge=lambda t, r: t - r)(target, reference)
    assert torch.equal(ours, function)
    assert not torch.equal(ours, CalibratingSiamese(network, "fc")(target, reference))
    with pytest.raises(ConfigError, match="reference_minus_target"):
        CalibratingSiamese(network, "fc", merge="minus")


@pytest.mark.parametrize("merge_at", ["layer4", "layer3.1.conv2", "fc", "output"])
def test_a_reference_encoded_once_equals_its_images(merge_at):
    model = CalibratingSiamese(backbone(), merge_at)
    targets, neutral = images(4, 1), images(2, 2)
    index = torch.tensor([1, 0, 0, 1])
    encoded = model.encode(neutral)
    assert len(encoded) == 2
    torch.testing.assert_close(model(targets, encoded[index]), model(targets, neutral[index]))
    torch.testing.assert_close(model(targets, encoded[1]), model(targets, neutral[1:]))


@pytest.mark.parametrize("branches", ["separate", "concatenate"])
@pytest.mark.parametrize("merge_at", ["layer4", "fc", "output"])
def test_an_index_says_whose_reference_is_whose(merge_at, branches):
    model = CalibratingSiamese(backbone(), merge_at, branches=branches)
    targets, neutral = images(4, 1), images(3, 2)
    index = torch.tensor([1, 0, 0, 2])
    each = model(targets, neutral[index])
    torch.testing.assert_close(model(targets, neutral, index), each)
    torch.testing.assert_close(model(targets, model.encode(neutral), index), each)
    one = model(targets, neutral[1:2])
    torch.testing.assert_close(model(targets, neutral, torch.ones(4, dtype=torch.long)), one)


@pytest.mark.parametrize("branches", ["separate", "concatenate"])
@pytest.mark.parametrize("shared", [False, True])
def test_dropout_before_the_merge_leaves_nothing_of_equal_inputs(branches, shared):
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.Dropout(0.5), torch.nn.Flatten(), torch.nn.LazyLinear(2)
    )
    network(images(1))
    model = CalibratingSiamese(network, "3", branches=branches, example_inputs=images(2)).train()
    index = torch.tensor([0, 1]) if shared else None
    equal = model(images(2), images(2), index)
    torch.testing.assert_close(equal, network[3].bias.expand(2, -1))
    assert network[1].training, "what was switched off is on again"


def test_gradients_flow_through_a_gathered_reference():
    model = CalibratingSiamese(backbone(), "layer4").train()
    targets, neutral, index = images(4, 1), images(2, 2), torch.tensor([1, 0, 0, 1])
    model(targets.requires_grad_(), model.encode(neutral.requires_grad_())[index]).sum().backward()
    assert targets.grad.abs().sum() > 0
    assert neutral.grad.abs().sum() > 0
    assert all(p.grad is not None for p in model.parameters())


def test_a_reference_can_be_saved_and_moved(tmp_path):
    model = CalibratingSiamese(backbone(), "layer4")
    encoded = model.encode(images(2, 2))
    encoded.save(tmp_path / "person.safetensors")
    loaded = Reference.load(tmp_path / "person.safetensors")
    assert loaded.merge_at == "layer4"
    assert torch.equal(model(images(2), loaded), model(images(2), encoded))
    assert loaded.to(torch.float64).tensors[0].dtype == torch.float64


def test_wrong_numbers_of_references_are_explained():
    model = CalibratingSiamese(backbone(), "layer4")
    with pytest.raises(ConfigError, match="3 references for 4 targets"):
        model(images(4), model.encode(images(3)))
    joint = CalibratingSiamese(backbone(), "layer4", branches="concatenate")
    with pytest.raises(ConfigError, match="3 references for 4 targets"):
        joint(images(4), images(3))
    other = CalibratingSiamese(backbone(), "layer3").encode(images(1))
    with pytest.raises(ConfigError, match="encode it with this model"):
        model(images(4), other)


def test_branches_differ_only_through_batchnorm():
    network = backbone()
    separate = CalibratingSiamese(network, "layer4")
    joint = CalibratingSiamese(network, "layer4", branches="concatenate")
    target, reference = images(3, 1), images(3, 2)
    torch.testing.assert_close(separate(target, reference), joint(target, reference))
    separate.train(), joint.train()
    assert not torch.allclose(separate(target, reference), joint(target, reference))
    same = joint(target, target)
    torch.testing.assert_close(same, same[:1].expand_as(same))


def test_copies_and_pickles_are_independent():
    model = CalibratingSiamese(backbone(), "layer4")
    target, reference = images(2, 1), images(2, 2)
    expected = model(target, reference)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.split.network is twin.backbone is not model.backbone
        assert torch.equal(twin(target, reference), expected)
        with torch.no_grad():
            twin.backbone.fc.bias += 1
        torch.testing.assert_close(twin(target, reference), expected + 1)
    assert torch.equal(model(target, reference), expected)


def test_unwrap_gives_back_the_same_object():
    network = backbone()
    model = CalibratingSiamese(network, "layer4")
    assert model.unwrap() is network
    assert list(model.state_dict()) == [f"backbone.{k}" for k in network.state_dict()]
