"""The two parts of a model under torch.export and ONNX, with a free batch."""

import onnxruntime
import pytest
import torch
from torch import nn

from siamcal import CalibratingSiamese, Reference, create_backbone
from siamcal.errors import ConfigError
from siamcal.model.export import Encoder, Reader

torch.set_num_threads(1)

FREE = torch.export.Dim.DYNAMIC
CLOSE = {"rtol": 0, "atol": 1e-4}


class Branching(nn.Module):
    """Can't be traced by torch.fx: only a hook cuts it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.body = nn.Conv2d(8, 8, 3)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        if x.shape[-1] % 3 == 0:
            x = x[..., :-1]
        return self.fc(self.body(self.stem(x)).mean((2, 3)))


class Writing(nn.Module):
    """Writes into what enters its body."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.body = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3))
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(self.body(self.stem(x)).mean((2, 3)))


def resnet():
    return create_backbone("timm:resnet10t", 4)


def vit():
    return create_backbone("timm:vit_tiny_patch16_224", 4, img_size=32, patch_size=8, depth=3)


CASES = [
    (Branching, "body", "hook"),
    (Writing, "body", "hook"),
    (resnet, "layer4", "hook"),
    (resnet, "layer3.0.conv2", "fx"),  # two tensors cross
    (vit, "blocks.2", "hook"),
    (vit, "blocks.1.attn", "fx"),
    (vit, "output", "output"),
]


def images(batch, seed=1):
    return torch.rand(batch, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def wrapped(make, merge_at, mechanism="auto"):
    torch.manual_seed(0)
    options = {} if mechanism == "output" else {"mechanism": mechanism}
    model = CalibratingSiamese(make().eval(), merge_at, example_inputs=images(2), **options)
    return model.eval()


def shapes(model, one):
    rows = tuple({} if one else {layout.dim: FREE} for layout in model.split.layouts)
    return {"image": {0: FREE}}, {"target": {0: FREE}, "features": rows}


@pytest.mark.parametrize("one", [True, False])
@pytest.mark.parametrize(("make", "merge_at", "mechanism"), CASES)
def test_torch_export(make, merge_at, mechanism, one):
    model = wrapped(make, merge_at, mechanism)
    neutral = images(1 if one else 4, 2)
    of_encoder, of_reader = shapes(model, one)
    with torch.no_grad():
        features = model.encode(neutral).tensors
        encoder = torch.export.export(
            Encoder(model), (images(2),), dynamic_shapes=of_encoder
        ).module()
        reader = torch.export.export(
            Reader(model, one_for_all=one), (images(4), *features), dynamic_shapes=of_reader
        ).module()
        for batch in (4, 3):
            people = neutral[:batch]
            got = reader(images(batch), *encoder(people))
            torch.testing.assert_close(got, model(images(batch), people), **CLOSE)


@pytest.mark.parametrize(("make", "merge_at", "mechanism"), [CASES[0], CASES[1], CASES[5]])
def test_onnxruntime_gives_the_same(make, merge_at, mechanism, tmp_path):
    model = wrapped(make, merge_at, mechanism)
    neutral = images(1, 2)
    of_encoder, of_reader = shapes(model, True)
    features = model.encode(neutral).tensors
    for module, inputs, name, free in (
        (Encoder(model), (images(2),), "encode", of_encoder),
        (Reader(model), (images(4), *features), "read", of_reader),
    ):
        torch.onnx.export(
            module,
            inputs,
            tmp_path / f"{name}.onnx",
            dynamo=True,
            verbose=False,
            dynamic_shapes=free,
        )
    encode, read = (
        onnxruntime.InferenceSession(tmp_path / f"{name}.onnx", providers=["CPUExecutionProvider"])
        for name in ("encode", "read")
    )

    def run(session, *arrays):
        names = [i.name for i in session.get_inputs()]
        return session.run(None, dict(zip(names, arrays, strict=True)))

    for batch in (4, 3):
        (got,) = run(read, images(batch).numpy(), *run(encode, neutral.numpy()))
        torch.testing.assert_close(torch.from_numpy(got), model(images(batch), neutral), **CLOSE)
    assert len(run(encode, images(3).numpy())[0]) == 3


@pytest.mark.parametrize(("make", "merge_at", "mechanism"), [CASES[0], CASES[3]])
def test_the_whole_model_exports_too(make, merge_at, mechanism):
    model = wrapped(make, merge_at, mechanism)
    with torch.no_grad():
        program = torch.export.export(model, (images(2), images(2, 2))).module()
        torch.testing.assert_close(program(images(2), images(2, 2)), model(images(2), images(2, 2)))


@pytest.mark.parametrize("mechanism", ["hook", "fx"])
def test_torch_compile(mechanism):
    torch._dynamo.reset()
    model = wrapped(resnet, "layer4", mechanism)
    encoded, x, y = model.encode(images(2, 2)), images(2), images(2, 2)
    compiled = torch.compile(model, backend="eager", fullgraph=mechanism == "fx")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, y), model(x, y))
        torch.testing.assert_close(compiled(x, encoded), model(x, encoded))
        torch.testing.assert_close(compiled(x, encoded[0]), model(x, encoded[0]))
        index = torch.tensor([1, 0])
        torch.testing.assert_close(compiled(x, y, index), model(x, y, index))
    model.train()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    expected = model(x, y)
    model.load_state_dict(state)
    torch.testing.assert_close(compiled(x, y), expected)


def test_a_loaded_reference_is_checked_under_compile_too(tmp_path):
    torch._dynamo.reset()
    model, other = wrapped(Branching, "body"), wrapped(Branching, "body")
    model.encode(images(2, 2)).save(tmp_path / "p.safetensors")
    nn.init.ones_(other.backbone.stem.bias)
    loaded = Reference.load(tmp_path / "p.safetensors")
    with pytest.raises(ConfigError, match="another network"):
        torch.compile(other, backend="eager")(images(2), loaded)


def test_only_an_eval_mode_calibrated_model_is_taken():
    with pytest.raises(ConfigError, match=r"model.eval\(\)"):
        Encoder(wrapped(Branching, "body").train())
    with pytest.raises(ConfigError, match="but got a Branching"):
        Reader(Branching())
