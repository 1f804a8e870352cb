"""References: joined, chosen, saved, and held against the network that made them."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from siamcal import CalibratingSiamese, Reference
from siamcal.errors import ConfigError, OutOfRangeError
from siamcal.graph import BatchLayout

torch.set_num_threads(1)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.stem = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.body = nn.Conv2d(8, 8, 3)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        x = self.body(self.norm(self.stem(x)) * self.scale).flatten(2).transpose(1, 2)
        return self.fc(self.attend(x, x, x, need_weights=False)[0].mean(1))


class TwoInputs(Net):
    def forward(self, x, weight):
        return super().forward(x) * weight


def images(batch, seed=1, size=12):
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def wrapped(merge_at="body", mechanism="auto", **options):
    return CalibratingSiamese(
        Net().eval(), merge_at, example_inputs=images(2), mechanism=mechanism, **options
    )


@pytest.fixture(scope="module")
def model():
    return wrapped()


class TestJoined:
    @pytest.mark.parametrize("merge_at", ["body", "output"])
    def test_references_of_any_number(self, merge_at):
        model = wrapped(merge_at)
        people = images(4, 2)
        joined = Reference.cat([model.encode(people[:1]), model.encode(people[1:])])
        assert len(joined) == 4
        torch.testing.assert_close(model(images(4), joined), model(images(4), people))

    def test_the_layout_decides_where_samples_lie(self):
        tensors = torch.arange(24.0).reshape(2, 6, 2)
        for layout in (BatchLayout(1), BatchLayout(1, 2), BatchLayout(1, 2, sample_first=False)):
            whole = Reference([tensors], [layout], "x")
            parts = [whole[i] for i in range(len(whole))]
            assert torch.equal(Reference.cat(parts).tensors[0], tensors)
            assert torch.equal(
                Reference.cat([whole[1:], whole[:1]])[-1].tensors[0], parts[0].tensors[0]
            )

    def test_a_list_in_the_call(self, model):
        people = images(2, 2)
        want = model(images(2), people)
        each = [model.encode(people[:1]), model.encode(people[1:])]
        for given in (each, [people[:1], people[1:]], [people[0], people[1]]):
            torch.testing.assert_close(model(images(2), given), want)
        torch.testing.assert_close(model([images(2)[0], images(2)[1]], people), want)

    def test_of_other_places_models_or_sizes_is_refused(self, model):
        one = model.encode(images(1))
        with pytest.raises(ConfigError, match=r"'body' .* and at 'fc'"):
            Reference.cat([one, wrapped("fc").encode(images(1))])
        with pytest.raises(ConfigError, match="images of one size"):
            Reference.cat([one, model.encode(images(1, size=16))])
        with pytest.raises(ConfigError, match="two networks"):
            Reference.cat([one, wrapped().encode(images(1))])
        with pytest.raises(ConfigError, match="a Tensor among 2 values"):
            Reference.cat([one, images(1)])
        with pytest.raises(ConfigError, match="one or more References, but got none"):
            Reference.cat([])


class TestIndex:
    @pytest.mark.parametrize(
        "index",
        [[1, 0, 2], (1, 0, 2), np.array([1, 0, 2]), torch.tensor([1, 0, 2], dtype=torch.int32),
         [-2, 0, -1], np.array([1, 0, 2], dtype=np.uint8)],
        ids=str,
    )  # fmt: skip
    def test_whole_numbers_in_any_form(self, model, index):
        people, targets = images(3, 2), images(3)
        want = model(targets, people[[1, 0, 2]])
        torch.testing.assert_close(model(targets, people, index), want)
        torch.testing.assert_close(model(targets, model.encode(people), index), want)
        torch.testing.assert_close(model(targets, model.encode(people)[index]), want)

    def test_one_number_serves_all_targets(self, model):
        people = model.encode(images(3, 2))
        want = model(images(3), people[2])
        for index in (2, -1, np.int64(2), torch.tensor(2)):
            assert torch.equal(model(images(3), people, index), want)

    def test_a_mask_chooses_and_is_no_index(self, model):
        people = model.encode(images(3, 2))
        mask = [True, False, True]
        for form in (mask, np.array(mask), torch.tensor(mask)):
            assert torch.equal(people[form].tensors[0], people[[0, 2]].tensors[0])
        with pytest.raises(ConfigError, match=r"mask of 2 .* 3 samples"):
            people[[True, False]]
        with pytest.raises(ConfigError, match="whole numbers; got booleans"):
            model(images(3), people, mask)

    @pytest.mark.parametrize(
        ("index", "error", "words"),
        [
            (torch.tensor([0.0, 1.0]), ConfigError, "0 to 2, but got torch.float32"),
            ([0.5, 1.0], ConfigError, "whole numbers"),
            ("ab", ConfigError, "whole numbers, but got a str"),
            ([0, 3], OutOfRangeError, "Position 3 is out of range: there are 3 references"),
            ([0, -4], OutOfRangeError, "Position -4"),
            ([0, 1, 2], ConfigError, "3 references for 2 targets"),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("encoded", [False, True])
    def test_what_cant_be_one(self, model, index, error, words, encoded):
        people = model.encode(images(3, 2)) if encoded else images(3, 2)
        with pytest.raises(error, match=words):
            model(images(2), people, index)

    def test_a_reference_can_be_gone_through(self, model):
        people = model.encode(images(3, 2))
        assert [len(one) for one in people] == [1, 1, 1]


class TestWhatIsNoImage:
    @pytest.mark.parametrize("branches", ["separate", "concatenate"])
    @pytest.mark.parametrize(
        ("target", "reference", "words"),
        [
            (images(2), None, r"reference is None.*tensor 2x3x12x12.*model.unwrap\(\)"),
            (None, images(2), "target is None"),
            (images(2).numpy(), images(2), "torch.from_numpy"),
            (images(2), images(2).numpy(), r"reference is a ndarray of shape \(2, 3, 12, 12\)"),
            (images(2)[0], images(2), r"target is a tensor 3x12x12.*image\[None\]"),
            (images(2), images(2)[0], "reference is a tensor 3x12x12"),
            (images(2), "anna.png", "reference is a str"),
            (images(2), [], "reference is a list of 0"),
            (images(3), images(2), "2 references for 3 targets"),
            (images(2), [images(1), images(1, size=16)], "images of one size"),
            (images(2), [images(1), None], "a list of 2 .a tensor 1x3x12x12, None"),
        ],
        ids=range(11),
    )
    def test_is_answered_in_words(self, branches, target, reference, words):
        mechanism = "fx" if branches == "concatenate" else "auto"
        model = wrapped(mechanism=mechanism, branches=branches)
        with pytest.raises(ConfigError, match=words):
            model(target, reference)

    def test_images_of_another_size(self, model):
        with pytest.raises(ConfigError, match="image of the targets' size"):
            model(images(2), images(2, size=16))
        assert torch.isfinite(wrapped("fc")(images(2), images(2, size=16))).all()

    def test_inputs_of_another_structure_are_told_in_counts(self):
        pair = (images(2), torch.tensor(3.0))
        model = CalibratingSiamese(TwoInputs().eval(), "body", example_inputs=pair, mechanism="fx")
        torch.testing.assert_close(model(pair, pair), model(pair, model.encode(pair)))
        with pytest.raises(ConfigError, match="wrapped with a tuple of 2") as raised:
            model({"x": images(2)}, {"x": images(2)})
        assert "a dict of 1 ('x': a tensor 2x3x12x12)" in str(raised.value)
        assert "TreeSpec" not in str(raised.value)

    def test_branches_of_two_structures(self):
        model = wrapped(mechanism="fx", branches="concatenate")
        with pytest.raises(ConfigError, match="one structure"):
            model(images(2), (images(2),))

    def test_without_layouts_features_of_another_shape_arent_broadcast(self):
        reference = Reference([torch.rand(1, 4)], [None], "x")
        with pytest.raises(ConfigError, match="can't be told apart"):
            reference.matched([torch.rand(3, 4)])


class TestWhoseItIs:
    def test_saved_and_loaded(self, model, tmp_path):
        people = model.encode(images(3, 2))
        people[1:].save(tmp_path / "p.safetensors")
        want = model(images(2), people[1:])
        for loaded in (
            Reference.load(tmp_path / "p.safetensors"),
            Reference.load(tmp_path / "p.safetensors", model=model),
            model.load_reference(tmp_path / "p.safetensors"),
        ):
            assert torch.equal(model(images(2), loaded), want)
            assert torch.equal(model(images(2), loaded, [0, 1]), want)

    @pytest.mark.parametrize("mechanism", ["hook", "fx"])
    @pytest.mark.parametrize("change", ["stem.weight", "norm.running_mean", "norm.bias", "scale"])
    def test_another_network_is_refused(self, mechanism, change, tmp_path):
        model, other = wrapped(mechanism=mechanism), wrapped(mechanism=mechanism)
        people, path = model.encode(images(2, 2)), tmp_path / "p.safetensors"
        people.save(path)
        assert torch.equal(other(images(2), people), model(images(2), people))  # equal weights
        with torch.no_grad():
            other.unwrap().state_dict()[change].add_(1)
        fresh = wrapped(mechanism=mechanism)
        fresh.unwrap().load_state_dict(other.unwrap().state_dict())
        for call in (
            lambda: other.load_reference(path),
            lambda: Reference.load(path, model=other),
            lambda: other(images(2), Reference.load(path)),
            lambda: other(images(2), Reference.load(path)[0]),
            lambda: fresh(images(2), model.encode(images(2, 2))),
        ):
            with pytest.raises(ConfigError, match=r"weights before 'body'.* differ"):
                call()

    @pytest.mark.parametrize("mechanism", ["hook", "fx"])
    def test_what_lies_behind_the_merge_may_change(self, mechanism, tmp_path):
        model, other = wrapped(mechanism=mechanism), wrapped(mechanism=mechanism)
        model.encode(images(2, 2)).save(tmp_path / "p.safetensors")
        with torch.no_grad():
            for part in (other.backbone.body, other.backbone.attend, other.backbone.fc):
                for parameter in part.parameters():
                    parameter.add_(1)
        people = other.load_reference(tmp_path / "p.safetensors")
        torch.testing.assert_close(other(images(2), people), other(images(2), images(2, 2)))

    def test_training_after_encoding_leaves_a_reference_that_isnt_saved(self, tmp_path):
        model = wrapped()
        people = model.encode(images(2, 2))
        with torch.no_grad():
            model.backbone.stem.weight.add_(1)
        with pytest.raises(ConfigError, match=r"changed .* since"):
            people.save(tmp_path / "p.safetensors")
        with pytest.raises(ConfigError, match=r"changed .* since"):
            wrapped()(images(2), people)

    def test_encoded_in_training_it_is_bound_too(self, tmp_path):
        model = wrapped().train()
        people = model.encode(images(4, 2))
        people.save(tmp_path / "p.safetensors")
        assert len(model.load_reference(tmp_path / "p.safetensors")) == 4
        assert model.training

    def test_nothing_is_left_by_the_check(self, model, tmp_path):
        state = copy.deepcopy(model.state_dict())
        torch.manual_seed(3)
        before = torch.get_rng_state()
        model.train()
        model.encode(images(1).detach()).save(tmp_path / "a.safetensors")
        model.eval()
        model.load_state_dict(state)
        model.encode(images(1)).save(tmp_path / "p.safetensors")
        model.load_reference(tmp_path / "p.safetensors")
        assert torch.equal(torch.get_rng_state(), before)
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
        assert len(model.backbone.stem._forward_pre_hooks) == 0

    def test_a_pickled_one_needs_its_model_named(self, model, tmp_path):
        people = pickle.loads(pickle.dumps(model.encode(images(2, 2))))
        assert torch.equal(model(images(2), people), model(images(2), images(2, 2)))
        with pytest.raises(ConfigError, match="model=model"):
            people.save(tmp_path / "p.safetensors")
        people.save(tmp_path / "p.safetensors", model=model)
        assert len(model.load_reference(tmp_path / "p.safetensors")) == 2

    def test_copies_of_a_model_know_their_own(self, model):
        people = model.encode(images(2, 2))
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(twin(images(2), people), model(images(2), people))
            assert twin.origin.split is twin.split

    def test_another_place_is_refused(self, model, tmp_path):
        other = wrapped("fc")
        other.encode(images(1)).save(tmp_path / "p.safetensors")
        with pytest.raises(ConfigError, match="encoded at 'fc'"):
            model.load_reference(tmp_path / "p.safetensors")

    @pytest.mark.parametrize("kind", ["cut short", "other", "text", "missing", "empty"])
    def test_damaged_files(self, model, tmp_path, kind):
        path = tmp_path / "p.safetensors"
        model.encode(images(1)).save(path)
        data = path.read_bytes()
        if kind == "other":
            from safetensors.torch import save_file

            save_file({"x": torch.ones(2)}, path)
        elif kind == "missing":
            path.unlink()
        else:
            path.write_bytes({"cut short": data[:-40], "text": b"hello", "empty": b""}[kind])
        with pytest.raises(ConfigError, match="missing, damaged or holds no Reference"):
            Reference.load(path)
