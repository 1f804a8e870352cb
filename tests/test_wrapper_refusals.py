"""Refusals say the reason, where in the user's file it lies, and what to do."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from oracle import Net, assert_right, calibrated, images
from torch import nn

import siamcal
from siamcal import CalibratingSiamese, MergePointError, create_backbone, list_merge_points
from siamcal.errors import ConfigError, UnknownNameError

torch.set_num_threads(1)


class Finfo(Net):
    def forward(self, x):
        f = self.stem(x)
        f = f + self.body(f)
        return self.fc(f.mean((2, 3)).clamp(min=torch.finfo(f.dtype).min))


class FloatOfSize(Net):
    def forward(self, x):
        f = self.stem(x)
        f = f + self.body(f)
        return self.fc(f.mean((2, 3)) / float(f.shape[1]) ** 0.5)


class LoopOverSize(Net):
    def forward(self, x):
        f = self.stem(x)
        f = f + self.body(f)
        return self.fc(torch.stack([f[..., i].mean(2) for i in range(f.shape[-1])]).mean(0))


class Iterates(Net):
    def forward(self, x):
        f = self.stem(x)
        f = f + self.body(f)
        return self.fc(torch.stack([*f]).mean((2, 3)))


class Branches(Net):
    def forward(self, x):
        f = self.stem(x)
        f = f + self.body(f)
        if f.mean() > 100:
            f = f * 2
        return self.fc(f.mean((2, 3)))


class Einops(Net):
    """What einops says of a stand-in, which it doesn't know."""

    def forward(self, x):
        f = self.stem(x)
        f = f + self.body(f)
        if type(f) is not torch.Tensor:
            raise RuntimeError(f"Tensor type unknown to einops {type(f)}")
        return self.fc(f.mean((2, 3)))


class FrozenBranch(Net):
    def __init__(self):
        super().__init__()
        self.side = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        with torch.no_grad():
            side = self.side(x)
        return self.fc((self.body(self.stem(x)) + side).mean((2, 3)))


class Draws(Net):
    def forward(self, x):
        f = self.stem(x)
        f = f + self.body(f) + torch.randn(4, 1, 1) * 0
        return self.fc(f.mean((2, 3)))


REASONS = {
    Finfo: ("finfo", "torch.fx.wrap"),
    FloatOfSize: ("float", "torch.fx.wrap"),
    LoopOverSize: ("integer", "torch.fx.wrap"),
    Iterates: ("iterated", "torch.fx.wrap"),
    Branches: ("control flow", "torch.fx.wrap"),
    Einops: ("einops", "einops.layers.torch"),
    FrozenBranch: ("gets no gradient from the network", "behind the place"),
    Draws: ("random numbers", "nn.Dropout"),
}


@pytest.mark.parametrize("make", REASONS)
def test_a_refusal_holds_the_traces_complaint_and_the_cure(make):
    complaint, cure = REASONS[make]
    with pytest.raises(MergePointError) as refused:
        CalibratingSiamese(make().eval(), "body", example_inputs=images())
    text = str(refused.value)
    assert "hook: a part of the image's features passes 'body' by" in text
    assert text.count("fx: ") == 1, "both traces complain of the same"
    assert complaint in text
    assert cure in text
    assert "'fc'" in text
    if make not in (FrozenBranch, Draws):
        assert "test_wrapper_refusals.py, line " in text


@torch.fx.wrap
def scaled(f):
    """What the cure says: the line that can't be traced in a function of its own."""
    return f.mean((2, 3)) / float(f.shape[1]) ** 0.5


class Cured(Net):
    def forward(self, x):
        f = self.stem(x)
        f = f + self.body(f)
        return self.fc(scaled(f))


def test_the_cure_cures():
    network, target, reference = Cured().eval(), images(), images(3, 2)
    model = CalibratingSiamese(network, "body", example_inputs=target)
    difference = network.stem(reference) - network.stem(target)
    right = network.fc(scaled(difference + network.body(difference)))
    assert torch.equal(model(target, reference), right)


class Twice(Net):
    def forward(self, x):
        return self.fc(self.body(self.body(self.stem(x))).mean((2, 3)))


class Frames(Net):
    def forward(self, x):
        f = [self.body(self.stem(x[:, i])) for i in range(x.shape[1])]
        return self.fc(torch.stack(f).mean((0, 3, 4)))


class Unused(Net):
    def __init__(self):
        super().__init__()
        self.spare = nn.Conv2d(3, 4, 3)


@pytest.mark.parametrize(
    ("make", "place", "example", "reason"),
    [
        (Twice, "body", images(), "is called 2 times in one forward"),
        (Frames, "body", images(8).unflatten(0, (2, 4)), "is called 4 times in one forward"),
        (Unused, "spare", images(), "isn't called when the network runs"),
        (Net, "layer4", images(), "no module of that name"),
    ],
)
def test_how_often_a_module_runs(make, place, example, reason):
    with pytest.raises(MergePointError, match=reason) as refused:
        CalibratingSiamese(make().eval(), place, example_inputs=example)
    assert "'fc'" in str(refused.value)
    assert "treespec" not in str(refused.value)


def test_a_container_that_isnt_called_names_its_first_part():
    class Blocks(Net):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(nn.Conv2d(4, 4, 3) for _ in range(2))

        def forward(self, x):
            x = self.stem(x)
            for block in self.blocks:
                x = block(x)
            return self.fc(x.mean((2, 3)))

    with pytest.raises(MergePointError, match=r"try its first part, 'blocks\.0'"):
        CalibratingSiamese(Blocks(), "blocks", example_inputs=images())


def test_a_graph_of_torchvisions_feature_extraction():
    create_backbone("torchvision:resnet18")  # makes torchvision importable
    from torchvision.models import resnet18
    from torchvision.models.feature_extraction import create_feature_extractor

    torch.manual_seed(0)
    network = resnet18().eval()
    graph = create_feature_extractor(network, {"flatten": "features"}).eval()
    target, reference = images(2, side=64), images(2, 2, side=64)
    with pytest.raises(MergePointError, match=r"first part, 'layer4\.0\.conv1'"):
        CalibratingSiamese(graph, "layer4", example_inputs=target)
    model = CalibratingSiamese(graph, "layer4.0.conv1", example_inputs=target)
    network.fc = nn.Identity()
    right = CalibratingSiamese(network, "layer4", example_inputs=target)
    assert torch.equal(model(target, reference)["features"], right(target, reference))
    assert [p.name for p in list_merge_points(graph, target)][-2:] == ["avgpool", "output"]


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d()
        self.body, self.fc = nn.LazyConv2d(4, 3), nn.LazyLinear(2)

    def forward(self, x):
        return self.fc(self.body(self.norm(self.stem(x))).mean((2, 3)))


def test_lazy_modules():
    network = Lazy()
    for ask in (lambda: CalibratingSiamese(network, "body"), lambda: list_merge_points(network)):
        with pytest.raises(MergePointError, match="Run the network once"):
            ask()
    network(images())
    model = CalibratingSiamese(network.eval(), "body", example_inputs=images())
    assert model(images(), images(3, 2)).shape == (3, 2)


def test_networks_made_in_inference_mode():
    with torch.inference_mode():
        network = Net()
    for ask in (
        lambda: CalibratingSiamese(network, "body", example_inputs=images()),
        lambda: list_merge_points(network, images()),
    ):
        with pytest.raises(MergePointError, match=r"made inside torch\.inference_mode"):
            ask()


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("mechanism", ["hook", "fx"])
def test_the_meta_device(inside, mechanism):
    with torch.device("meta"):
        network = Net()
        if inside:
            model = CalibratingSiamese(network, "body", mechanism=mechanism)
    if not inside:
        model = CalibratingSiamese(network, "body", mechanism=mechanism)
    x = torch.empty(2, 3, 8, 8, device="meta")
    assert model(x, x).is_meta
    assert [p.name for p in list_merge_points(network)] == ["stem", "body", "fc", "output"]


class DefaultDevice(Net):
    """Makes a tensor where the user's default device is."""

    def forward(self, x):
        x = self.body(self.stem(x))
        return self.fc(x.mean((2, 3)) * torch.arange(4))


def test_another_default_device():
    real = images()
    torch.set_default_device("meta")
    try:
        network = DefaultDevice()
        model = CalibratingSiamese(network, "body")
        x = torch.empty(2, 3, 8, 8)
        assert model(x, model.encode(x)).is_meta
        plain = Net().to_empty(device="cpu")
        model = CalibratingSiamese(plain, "body")
        assert not model(real, model.encode(real)).is_meta
    finally:
        torch.set_default_device(None)


class Video(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body, self.fc = nn.Conv3d(3, 4, 3), nn.Conv3d(4, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.body(self.stem(x)).mean((2, 3, 4)))


class Clip(Net):
    def forward(self, x):
        batch, _, _, _, _ = x.shape
        return super().forward(x.flatten(0, 1)).unflatten(0, (batch, -1)).mean(1)


@pytest.mark.parametrize("make", [Video, Clip])
@pytest.mark.parametrize("ask", [lambda n: CalibratingSiamese(n, "body"), list_merge_points])
def test_videos_want_an_example(make, ask):
    with pytest.raises(MergePointError, match="Pass example_inputs=") as refused:
        ask(make())
    assert str(refused.value).count("can't run on inputs of shape") == 1


def test_a_name_in_place_of_a_network():
    for name, known in (
        ("resnet18", "timm:resnet18"),
        ("ir50", "ir50"),
        ("timm:vgg11", "timm:vgg11"),
    ):
        with pytest.raises(ConfigError, match=rf"create_backbone\('{known}'\)"):
            CalibratingSiamese(name)
    with pytest.raises(ConfigError, match="pass an object"):
        CalibratingSiamese(Net)
    with pytest.raises(ConfigError, match="got a Tensor"):
        CalibratingSiamese(images())
    with pytest.raises(UnknownNameError, match="'timm:resnet18'"):
        create_backbone("resnet18")


def test_the_error_is_public():
    assert siamcal.MergePointError is MergePointError
    assert "MergePointError" in siamcal.__all__


class NoGradList(Net):
    def forward(self, x):
        with torch.no_grad():
            x = self.stem(x)
        return self.fc(self.body(F.relu(x)).mean((2, 3)))


def test_points_of_a_network_with_a_part_under_no_grad():
    names = [p.name for p in list_merge_points(NoGradList(), images())]
    assert names == ["stem", "body", "fc", "output"]
    with pytest.raises(MergePointError, match="'stem', 'body', 'fc'"):
        CalibratingSiamese(NoGradList(), "layer4", example_inputs=images())


class Token(Net):
    """Hands a parameter to a module, as transformers do with their class token."""

    class Body(nn.Module):
        def forward(self, x, token):
            return x.mean((2, 3)) + token

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.rand(4))
        self.body = self.Body()

    def forward(self, x):
        return self.fc(self.body(self.stem(x), self.token))


def test_points_of_a_network_that_hands_parameters_to_modules():
    network = Token()
    network.stem.requires_grad_(False)
    points = list_merge_points(network, images())
    assert [p.name for p in points] == ["stem", "body", "fc", "output"]
    assert points[-2].macs_before > 0
    assert network.token.requires_grad
    assert not network.stem.weight.requires_grad


class MutedBranch(Net):
    """A frozen branch passes `body` by, behind a gate that starts at zero."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        if x.shape[-1] % 7 == 0:
            x = x[..., :-1]
        with torch.no_grad():
            side = self.stem(x)
        return self.fc((self.body(self.stem(x)) + self.gate * side).mean((2, 3)))


def test_a_muted_branch_is_seen():
    assert "body" not in [p.name for p in list_merge_points(MutedBranch(), images())]
    with pytest.raises(MergePointError, match="passes 'body' by"):
        CalibratingSiamese(MutedBranch(), "body", example_inputs=images())


@dataclass
class Bag:
    features: torch.Tensor
    mask: torch.Tensor | None = None


class Opaque(Net):
    """Hands an object of its own to the merge module, as DETR's networks do."""

    class Body(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, bag):
            return self.conv(bag.features)

    def __init__(self):
        super().__init__()
        self.body = self.Body()

    def forward(self, x):
        return self.fc(self.body(Bag(self.stem(x))).mean((2, 3)))


def test_an_object_that_enters_the_merge_module_is_refused_and_a_part_of_it_is_right():
    with pytest.raises(MergePointError, match=r"other objects aren't.*'body\.conv'"):
        CalibratingSiamese(Opaque().eval(), "body", example_inputs=images())
    assert_right(Opaque().eval(), "body.conv", images(), images(3, 2))


class IdsFirst(Net):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 4)

    def forward(self, ids, x):
        return self.fc(self.body(self.stem(x)).mean((2, 3)) * self.table(ids))


def test_an_image_that_isnt_the_first_tensor_wants_image_inputs():
    target, reference = (torch.tensor([1, 2, 3]), images()), (torch.tensor([4, 2, 0]), images(3, 2))
    with pytest.raises(MergePointError, match="image_inputs="):
        CalibratingSiamese(IdsFirst().eval(), "body", example_inputs=target)
    assert_right(IdsFirst().eval(), "body", target, reference, image_inputs=1)


class Classes(Net):
    def forward(self, x):
        return super().forward(x).argmax(-1)


class Returned(Net):
    def forward(self, x):
        return Bag(super().forward(x))


@pytest.mark.parametrize("make", [Classes, Returned])
def test_outputs_that_cant_be_differenced(make):
    with pytest.raises(MergePointError, match=r"output of .* can't be differenced.*output="):
        CalibratingSiamese(make().eval(), "output", example_inputs=images())


@pytest.mark.parametrize("part", ["stem", "body", "fc"])
@pytest.mark.parametrize("place", ["body", "fc"])
def test_parts_in_torchscript(part, place):
    network = Net().eval()
    setattr(network, part, torch.jit.script(getattr(network, part)))
    model = CalibratingSiamese(network, place, example_inputs=images())
    right = calibrated(Net().eval(), place, images(), images(3, 2))
    assert torch.equal(model(images(), images(3, 2)), right)
    if part != "fc":
        assert "fc" in [p.name for p in list_merge_points(network, images())]


@pytest.mark.parametrize("part", ["stem", "body", "fc"])
def test_compiled_parts(part):
    network = Net().eval()
    setattr(network, part, torch.compile(getattr(network, part), backend="eager"))
    model = CalibratingSiamese(network, "body", example_inputs=images())
    for seed in range(3):
        right = calibrated(Net().eval(), "body", images(3, seed), images(3, 9))
        assert torch.equal(model(images(3, seed), images(3, 9)), right)


@pytest.mark.parametrize("first", ["compile", "wrap"])
def test_a_network_compiled_in_place_is_right(first):
    torch.compiler.reset()
    network, plain = Net().eval(), Net().eval()
    if first == "compile":
        network.compile(backend="eager")
    model = CalibratingSiamese(network, "body", example_inputs=images())
    if first == "wrap":
        network.compile(backend="eager")
    for seed in range(3):
        target, reference = images(3, seed), images(3, 9)
        right = calibrated(plain, "body", target, reference)
        assert torch.equal(network(target), plain(target))
        assert torch.equal(model(target, reference), right)
        assert torch.equal(model(target, model.encode(reference)), right)


def test_a_network_that_ran_compiled_before_says_to_compile_the_wrapper():
    torch.compiler.reset()
    network = Net().eval()
    network.compile(backend="eager")
    network(images())
    model = CalibratingSiamese(network, "body", example_inputs=images())
    with pytest.raises(MergePointError, match="compile the calibrated one"):
        model(images(), images(3, 2))
    torch.compiler.reset()
    right = calibrated(Net().eval(), "body", images(), images(3, 2))
    assert torch.equal(model(images(), images(3, 2)), right)


class ReadsWhatAModuleWrote(Net):
    """Calls a module for what it does to its argument alone."""

    def __init__(self):
        super().__init__()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        f = self.stem(x)
        self.act(f)
        return self.fc(self.body(f).mean((2, 3)))


def test_a_module_that_writes_to_its_argument():
    network, target, reference = ReadsWhatAModuleWrote().eval(), images(), images(3, 2)
    model = CalibratingSiamese(network, "act", example_inputs=target)
    difference = network.stem(reference) - network.stem(target)
    right = network.fc(network.body(difference.relu()).mean((2, 3)))
    assert torch.equal(model(target, reference), right)
