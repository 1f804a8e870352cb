"""Second inputs, images of other kinds and outputs of every kind: equal to the plain network."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from oracle import Net, assert_right, calibrated, images
from torch import nn
from transformers.modeling_outputs import ImageClassifierOutput

from siamcal import CalibratingSiamese, MergePointError
from siamcal.errors import ConfigError

torch.set_num_threads(1)


def rand(*shape, seed=3):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


class Adjacency(Net):
    """A head that mixes the features by a graph of the example's kind."""

    def forward(self, x, adjacency):
        f = self.body(self.stem(x)).flatten(2).mean(-1)
        return self.fc((adjacency @ f[..., None])[..., 0])


class Shared(Net):
    """One adjacency for all samples."""

    def forward(self, x, adjacency):
        return self.fc(self.body(self.stem(x)).mean((2, 3)) @ adjacency)


class Prompts(Net):
    """CLIP's form: features against text features."""

    def forward(self, image, prompts):
        f = F.normalize(self.fc(self.body(self.stem(image)).mean((2, 3))), dim=-1)
        return f @ F.normalize(prompts, dim=-1).T


class Landmarks(Net):
    """Features sampled at landmarks behind the merge."""

    def forward(self, image, landmarks):
        f = self.body(self.stem(image))
        sampled = F.grid_sample(f, landmarks[:, None] * 2 - 1, align_corners=False)
        return self.fc(sampled[:, :, 0].mean(-1))


class Masked(Net):
    """A padding mask, boolean, that is used before and behind the merge."""

    def forward(self, image, mask=None):
        f = self.stem(image)
        if mask is not None:
            f = f * mask[:, None]
        f = self.body(f)
        if mask is not None:
            f = f.masked_fill(~mask[:, None], 0)
        return self.fc(f.mean((2, 3)))


class Ids(Net):
    """An integer input that picks an embedding behind the merge."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 4)

    def forward(self, image, ids):
        return self.fc(self.body(self.stem(image)).mean((2, 3)) * self.table(ids))


class Nested(Net):
    """One dict of everything, as data loaders give it."""

    def forward(self, batch):
        f = self.body(self.stem(batch["image"]) + batch["extra"]["shift"][:, None, None, None])
        return self.fc(f.mean((2, 3)) * batch["extra"]["scales"][0])


class TakesItAll(Net):
    """The second input enters the merge module itself."""

    class Body(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, f, gain, *, bias=None):
            f = self.conv(f) * gain[:, None, None, None]
            return f if bias is None else f + bias

    def __init__(self):
        super().__init__()
        self.body = self.Body()

    def forward(self, image, gain, bias):
        return self.fc(self.body(self.stem(image), gain, bias=bias).mean((2, 3)))


class FromShape(Net):
    """Masks and positions made of the image's size."""

    def forward(self, x):
        f = self.body(self.stem(x))
        grid = torch.arange(x.shape[-1], device=x.device) / x.shape[-1]
        mask = torch.ones(x.shape[0], 1, *x.shape[2:], device=x.device).tril()
        mask = mask * torch.zeros_like(x[:, :1]).add(0.5)
        return self.fc((f * mask + grid).mean((2, 3)))


class Options(Net):
    """Settings by keyword, with defaults."""

    def forward(self, x, scale=2.0, pool="mean", return_dict=True, other=None):
        f = self.body(self.stem(x)) * scale
        f = f.mean((2, 3)) if pool == "mean" else f.amax((2, 3))
        return {"au": self.fc(f)} if return_dict else self.fc(f)


def both(target, reference):
    """Inputs of target and reference: the images differ, and so does all else."""
    return {"target": target, "reference": reference}


CASES = {
    "a graph for each sample": (
        Adjacency,
        both((images(3), rand(3, 4, 4)), (images(3, 2), rand(3, 4, 4, seed=4))),
    ),
    "equal graphs": (
        Adjacency,
        both(
            (images(3), rand(4, 4).expand(3, 4, 4).contiguous()),
            (images(3, 2), rand(4, 4, seed=4).expand(3, 4, 4).contiguous()),
        ),
    ),
    "a graph for all": (Shared, both((images(3), rand(4, 4)), (images(3, 2), rand(4, 4, seed=4)))),
    "as many nodes as samples": (
        Shared,
        both((images(4), rand(4, 4)), (images(4, 2), rand(4, 4, seed=4))),
    ),
    "prompts": (Prompts, both((images(3), rand(5, 2)), (images(3, 2), rand(5, 2, seed=4)))),
    "as many prompts as samples": (
        Prompts,
        both((images(3), rand(3, 2)), (images(3, 2), rand(3, 2, seed=4))),
    ),
    "landmarks by keyword": (
        Landmarks,
        both(
            {"image": images(3), "landmarks": rand(3, 5, 2)},
            {"image": images(3, 2), "landmarks": rand(3, 5, 2, seed=4)},
        ),
    ),
    "a mask": (
        Masked,
        both((images(3), rand(3, 8, 8) > 0.3), (images(3, 2), rand(3, 8, 8, seed=4) > 0.3)),
    ),
    "a mask of all": (
        Masked,
        both((images(3), rand(3, 8, 8) > -1), (images(3, 2), rand(3, 8, 8) > -1)),
    ),
    "no mask": (Masked, both((images(3), None), (images(3, 2), None))),
    "integers": (
        Ids,
        both((images(3), torch.tensor([1, 0, 5])), (images(3, 2), torch.tensor([2, 2, 6]))),
    ),
    "one integer": (Ids, both((images(1), torch.tensor([1])), (images(1, 2), torch.tensor([2])))),
    "a dict in a tuple": (
        Nested,
        both(
            ({"image": images(3), "extra": {"shift": rand(3), "scales": [rand(3, 4)]}},),
            (
                {
                    "image": images(3, 2),
                    "extra": {"shift": rand(3, seed=4), "scales": [rand(3, 4, seed=4)]},
                },
            ),
        ),
    ),
    "settings by keyword": (
        Options,
        both(
            {"x": images(3), "scale": 3.0, "pool": "max"},
            {"x": images(3, 2), "scale": 3.0, "pool": "max"},
        ),
    ),
    "masks made of the image's size": (FromShape, both(images(3), images(3, 2))),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mechanism", ["auto", "fx"])
def test_only_what_comes_from_the_image_is_differenced(case, mechanism):
    make, inputs = CASES[case]
    if make is FromShape and mechanism == "fx":
        with pytest.raises(MergePointError, match=r"torch\.fx\.wrap"):
            CalibratingSiamese(make(), "body", example_inputs=images(), mechanism=mechanism)
        return
    assert_right(make().eval(), "body", **inputs, mechanism=mechanism)


@pytest.mark.parametrize("mechanism", ["auto", "fx"])
def test_arguments_of_the_merge_module_that_arent_of_the_image_are_the_targets(mechanism):
    inputs = both((images(3), rand(3), rand(1)), (images(3, 2), rand(3, seed=4), rand(1, seed=4)))
    model = assert_right(TakesItAll().eval(), "body", **inputs, passed=(1, 2), mechanism=mechanism)
    assert sum(model.split.differenced) == 1


@pytest.mark.parametrize("case", ["a graph for each sample", "prompts", "integers", "a mask"])
def test_a_stored_reference_serves_targets_with_other_second_inputs(case):
    make, inputs = CASES[case]
    network = make().eval()
    model = CalibratingSiamese(network, "body", example_inputs=inputs["target"])
    right = calibrated(network, "body", inputs["target"], inputs["reference"])
    stored = model.encode(inputs["reference"])
    assert torch.equal(model(inputs["target"], stored), right)


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_the_batch_of_the_example_decides_nothing(batch):
    network = Adjacency().eval()
    equal = rand(1, 4, 4).expand(batch, 4, 4).contiguous()
    model = CalibratingSiamese(network, "body", example_inputs=(images(batch), equal))
    target, reference = (images(3), rand(3, 4, 4)), (images(3, 2), rand(3, 4, 4, seed=4))
    assert torch.equal(model(target, reference), calibrated(network, "body", target, reference))


class TwoImages(Net):
    """Colour and depth, both of the person."""

    def forward(self, colour, depth):
        return self.fc(self.body(self.stem(colour) + self.stem(depth)).mean((2, 3)))


@pytest.mark.parametrize("names", [["colour", "depth"], [0, 1]])
def test_several_images_can_be_named(names):
    target, reference = (images(3), images(3, 5)), (images(3, 2), images(3, 6))
    if names[0] == "colour":
        target, reference = (dict(zip(names, v, strict=True)) for v in (target, reference))
    assert_right(TwoImages().eval(), "body", target, reference, image_inputs=names)


class SecondImageBehind(Net):
    """Another image that joins behind the merge."""

    def forward(self, colour, depth):
        return self.fc((self.body(self.stem(colour)) + self.stem(depth)).mean((2, 3)))


def test_what_isnt_named_passes_and_what_is_named_is_differenced():
    target, reference = (images(3), images(3, 5)), (images(3, 2), images(3, 6))
    assert_right(SecondImageBehind().eval(), "body", target, reference)
    with pytest.raises(MergePointError, match="passes 'body' by"):
        CalibratingSiamese(
            SecondImageBehind().eval(),
            "body",
            example_inputs=target,
            image_inputs=[0, 1],
            mechanism="hook",
        )
    model = CalibratingSiamese(
        SecondImageBehind().eval(), "body", example_inputs=target, image_inputs=[0, 1]
    )
    # What crosses there is the second image itself: nothing is left of equal ones.
    assert torch.equal(model(target, target), model(reference, reference))


def test_an_image_that_isnt_there_is_named():
    with pytest.raises(ConfigError, match="'dept'"):
        CalibratingSiamese(
            TwoImages(), "body", example_inputs=(images(), images()), image_inputs="dept"
        )


class Bytes(Net):
    """Takes images as a camera gives them."""

    def forward(self, x):
        return super().forward(x.float() / 255)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("mechanism", ["auto", "fx"])
def test_images_of_bytes(batch, mechanism):
    target, reference = ((images(batch, s) * 255).to(torch.uint8) for s in (1, 2))
    assert_right(Bytes().eval(), "body", target, reference, mechanism=mechanism)


class Clips(Net):
    """Clips of four frames, folded into the batch; segments averaged behind the merge."""

    def forward(self, x):
        batch, frames = x.shape[:2]
        f = self.body(self.stem(x.flatten(0, 1))).mean((2, 3))
        return self.fc(f.unflatten(0, (batch, frames)).mean(1))


@pytest.mark.parametrize("mechanism", ["auto", "fx"])
def test_clips_of_frames(mechanism):
    target, reference = (images(8, s).unflatten(0, (2, 4)) for s in (1, 2))
    model = assert_right(Clips().eval(), "body", target, reference, mechanism=mechanism)
    one = model.encode(reference[:1])
    torch.testing.assert_close(model(target, one), model(target, reference[[0, 0]]))


class Segments(Net):
    """TSN's form: the batch holds three segments of each clip, and only whole clips can run."""

    def forward(self, x):
        f = self.fc(self.body(self.stem(x)).mean((2, 3)))
        return f.view(-1, 3, 2).mean(1)


def test_a_batch_of_clips_times_segments():
    assert_right(Segments().eval(), "body", images(6), images(6, 2))


class Fixed(Net):
    """Runs at a batch of four only."""

    def forward(self, x):
        return super().forward(x.view(4, 3, 8, 8))


def test_a_network_of_one_batch_size():
    assert_right(Fixed().eval(), "body", images(4), images(4, 2))


# Outputs

Pair = namedtuple("Pair", ["au", "features"])


@dataclass
class Record:
    au: torch.Tensor
    features: torch.Tensor
    name: str = "net"


class Plain:
    def __init__(self, au, features):
        self.au, self.features = au, features


OUTPUTS = {
    "tuple": lambda a, f: (a, f),
    "list": lambda a, f: [a, f],
    "dict": lambda a, f: {"au": a, "features": f},
    "ordered dict": lambda a, f: OrderedDict(au=a, features=f),
    "namedtuple": lambda a, f: Pair(a, f),
    "dataclass": lambda a, f: Record(a, f),
    "namespace": lambda a, f: SimpleNamespace(au=a, features=f),
    "nested": lambda a, f: {"heads": [a, (f, None)], "loss": None, "n": 3},
    "dataclass in a tuple": lambda a, f: (Record(a, f), {"x": SimpleNamespace(au=a * 2)}),
}


class Returns(Net):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, x):
        f = self.body(self.stem(x)).mean((2, 3))
        return OUTPUTS[self.kind](self.fc(f), f)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs_of_every_kind(kind):
    model = assert_right(Returns(kind).eval(), "body", images(), images(3, 2))
    assert type(model(images(), images(3, 2))) is type(Returns(kind)(images()))


@pytest.mark.parametrize(
    ("kind", "output"),
    [
        ("tuple", 0),
        ("tuple", -1),
        ("dict", "au"),
        ("namedtuple", "au"),
        ("namedtuple", 1),
        ("dataclass", "au"),
        ("namespace", "features"),
        ("nested", lambda o: o["heads"][1][0]),
    ],
)
@pytest.mark.parametrize("mechanism", ["auto", "fx"])
def test_a_part_of_the_output_is_chosen(kind, output, mechanism):
    target, reference = images(), images(3, 2)
    network = Returns(kind).eval()
    model = CalibratingSiamese(
        network, "body", example_inputs=target, output=output, mechanism=mechanism
    )
    right = calibrated(network, "body", target, reference)
    if callable(output):
        right = output(right)
    else:
        right = (
            right[output] if isinstance(output, int) or kind == "dict" else getattr(right, output)
        )
    assert torch.equal(model(target, reference), right)


class Opaque(Net):
    def forward(self, x):
        return Plain(super().forward(x), x)


def test_an_output_without_tensors_is_refused_naming_output():
    with pytest.raises(MergePointError, match="output="):
        CalibratingSiamese(Opaque().eval(), "body", example_inputs=images())
    model = CalibratingSiamese(Opaque().eval(), "body", example_inputs=images(), output="au")
    right = calibrated(Opaque().eval(), "body", images(), images(3, 2)).au
    assert torch.equal(model(images(), images(3, 2)), right)


class LikeTransformers(Net):
    def forward(self, pixel_values, labels=None):
        f = self.body(self.stem(pixel_values)).mean((2, 3))
        logits = self.fc(f)
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits, hidden_states=(f,))


@pytest.mark.parametrize("output", [None, "logits", "hidden_states"])
def test_outputs_of_transformers(output):
    network = LikeTransformers().eval()
    target, reference = {"pixel_values": images()}, {"pixel_values": images(3, 2)}
    model = CalibratingSiamese(network, "body", example_inputs=target, output=output)
    right = calibrated(network, "body", target, reference)
    actual = model(target, reference)
    actual = actual[0] if output == "hidden_states" else actual
    right = right.hidden_states[0] if output == "hidden_states" else right.logits
    assert torch.equal(actual, right)


class Bypassing(Returns):
    """A shortcut passes `body` by, and control flow keeps torch.fx out."""

    def forward(self, x):
        if x.sum() > 1e9:
            x = x * 2
        f = self.stem(x)
        f = (f + self.body(f)).mean((2, 3))
        return OUTPUTS[self.kind](self.fc(f), f)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_a_bypass_is_seen_whatever_the_output_is(kind):
    with pytest.raises(MergePointError, match="passes 'body' by"):
        CalibratingSiamese(Bypassing(kind).eval(), "body", example_inputs=images())
