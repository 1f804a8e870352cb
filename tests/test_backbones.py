"""Backbones: names and shapes of InsightFace, creation by name, face weights."""

import json
from pathlib import Path

import pytest
import torch

from siamcal import create_backbone, load_face_weights
from siamcal.errors import DataNotFoundError, UnknownNameError, WeightsError
from siamcal.graph import split_network
from siamcal.model.weights_file import write_tensors

torch.set_num_threads(1)
DATA = Path(__file__).parent / "data"


def glint360k():
    return json.loads((DATA / "iresnet50_state_dict.json").read_text())


def test_ir50_has_insightfaces_names_and_shapes():
    network = create_backbone("ir50", 72)
    own = {k: list(v.shape) for k, v in network.state_dict().items()}
    expected = {k: v for k, v in glint360k().items() if not k.startswith("features.")}
    expected |= {"fc.weight": [72, 25088], "fc.bias": [72]}
    assert list(own.items()) == list(expected.items())
    assert len(own) == 470
    assert sum(p.numel() for p in network.parameters()) == 32_550_664


@pytest.mark.parametrize(("name", "blocks"), [("ir18", 8), ("ir34", 16), ("ir100", 49)])
def test_depths(name, blocks):
    network = create_backbone(name, 3, widths=(4, 4, 4, 4, 4))
    assert sum(k.endswith("conv2.weight") for k in network.state_dict()) == blocks


def test_face_weights_are_read_and_reported(tmp_path):
    generator = torch.Generator().manual_seed(0)
    state = {
        k: torch.randn(v, generator=generator) if v else torch.tensor(0)
        for k, v in glint360k().items()
    }
    torch.save(state, tmp_path / "backbone.pth")
    network = create_backbone("ir50", 72)
    fc = network.fc.weight.clone()
    report = load_face_weights(network, tmp_path / "backbone.pth")
    assert len(report.loaded) == 468
    assert set(report.wrong_shape) == {"fc.weight", "fc.bias"}
    assert report.missing == ()
    assert all(k.startswith("features.") for k in report.unused)
    assert len(report.unused) == 5
    assert "fc.weight: (512, 25088) in the file, (72, 25088) in the network" in str(report)
    assert torch.equal(network.layer3[5].conv1.weight, state["layer3.5.conv1.weight"])
    assert torch.equal(network.fc.weight, fc)


def test_unusable_weights_are_refused(tmp_path):
    network = create_backbone("ir_tiny", 4)
    with pytest.raises(DataNotFoundError, match="glint360k"):
        load_face_weights(network, tmp_path / "none.pth")
    torch.save({"other.weight": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"Nothing in .* fits"):
        load_face_weights(network, tmp_path / "other.pth")
    torch.save(network, tmp_path / "module.pth")
    with pytest.raises(WeightsError, match="state dict"):
        load_face_weights(network, tmp_path / "module.pth")


def test_weights_are_read_whatever_wraps_them(tmp_path):
    """A network whose own names start like a wrapper's keeps them."""
    network = create_backbone("ir_tiny", 4)
    state = network.state_dict()
    torch.save({"model": {f"module.backbone.{k}": v for k, v in state.items()}}, tmp_path / "w.pth")
    assert len(load_face_weights(network, tmp_path / "w.pth").loaded) == len(state)
    wrapped = torch.nn.ModuleDict({"backbone": network})
    torch.save({f"module.{k}": v for k, v in wrapped.state_dict().items()}, tmp_path / "own.pth")
    assert len(load_face_weights(wrapped, tmp_path / "own.pth").loaded) == len(state)
    write_tensors(state, tmp_path / "w.safetensors")
    assert len(load_face_weights(network, tmp_path / "w.safetensors").loaded) == len(state)
    (tmp_path / "w.safetensors").write_bytes(b"PK\3\4\0\0\0\1 a torch archive")
    with pytest.raises(WeightsError, match="pickle"):
        load_face_weights(network, tmp_path / "w.safetensors")


def test_names_carry_their_source(tmp_path):
    (tmp_path / "my_net.py").write_text(
        "import torch\ndef build(num_outputs=3):\n    return torch.nn.Linear(4, num_outputs)\n"
    )
    network = create_backbone(f"{tmp_path}/my_net.py:build", num_outputs=5)
    assert network.out_features == 5
    assert network.siamcal_spec.create().out_features == 5
    assert create_backbone("timm:resnet18", 9).fc.out_features == 9
    with pytest.raises(UnknownNameError, match="it has: build"):
        create_backbone(f"{tmp_path}/my_net.py:make")
    with pytest.raises(UnknownNameError, match="ir50"):
        create_backbone("ir5")
    with pytest.raises(UnknownNameError, match="timm:resnet18"):
        create_backbone("timm:resnet18x")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("resnet18", "layer4"),
        ("mobilenet_v3_small", "features.9"),
        ("densenet121", "features.denseblock4"),
        ("shufflenet_v2_x0_5", "stage4"),
    ],
)
def test_torchvision_is_exact(name, place):
    network = create_backbone(f"torchvision:{name}", 5).eval()
    assert network.siamcal_input.shape == (3, 224, 224)
    x = torch.rand(3, 3, 64, 64)
    for mechanism, expected in (("auto", "hook"), ("fx", "shallow fx")):
        split = split_network(network, place, example_inputs=x, mechanism=mechanism)
        assert split.mechanism == expected
        assert torch.equal(split.post(split.pre(x)), network(x))
    assert network(x).shape == (3, 5)


SMALL = {"hidden_size": 32, "num_attention_heads": 2, "image_size": 64}


@pytest.mark.parametrize(
    ("kind", "place", "options"),
    [
        ("vit", "vit.layers.1", {**SMALL, "num_hidden_layers": 3, "intermediate_size": 48}),
        ("dinov2", "dinov2.encoder.layer.1", {**SMALL, "num_hidden_layers": 3, "patch_size": 16}),
        (
            "convnext",
            "convnext.encoder.stages.2",
            {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 1, 1], "image_size": 64},
        ),
    ],
)
def test_transformers_are_exact_by_name_and_as_an_instance(kind, place, options):
    pytest.importorskip("transformers")
    network = create_backbone(f"transformers:{kind}", 5, **options).eval()
    x = torch.rand(3, 3, 64, 64)
    assert network(x).shape == (3, 5)
    split = split_network(network, place)
    assert torch.equal(split.post(split.pre(x)), network(x))

    instance = type(network)(network.config).eval()
    by_keyword = split_network(instance, place, example_inputs={"pixel_values": x})
    inputs = {"pixel_values": x}
    assert torch.equal(by_keyword.post(by_keyword.pre(inputs)), instance(**inputs).logits)
