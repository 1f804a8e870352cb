"""Backbones by their name on the Hugging Face hub, through the real client and a server here."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_server import TOKEN, HubServer, running
from huggingface_hub import constants
from safetensors.torch import save
from torch import nn

from siamcal import CalibratingSiamese, create_backbone, list_merge_points
from siamcal.errors import DataNotFoundError

torch.set_num_threads(1)
VIT = "tester/tiny-vit"
RESNET = "tester/tiny-resnet"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """An empty hub with an empty cache."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with running() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            server.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server


def contents(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in folder.iterdir()}


@pytest.fixture
def vit(hub: HubServer, tmp_path: Path) -> nn.Module:
    """A tiny ViT, published as transformers saves it."""
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    options = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    made = create_backbone("transformers:vit", 7, intermediate_size=48, image_size=64, **options)
    network = type(made)(made.config).eval()
    network.save_pretrained(tmp_path / "vit")
    hub.put(VIT, contents(tmp_path / "vit"))
    return network


@pytest.fixture
def resnet(hub: HubServer) -> nn.Module:
    """A tiny network, published as timm does."""
    torch.manual_seed(0)
    network = create_backbone("timm:test_resnet", 4).eval()
    config = {"architecture": "test_resnet", "num_classes": 4, "num_features": 256}
    pretrained_cfg = {"input_size": [3, 96, 96], "num_classes": 4, "classifier": "fc"}
    pretrained_cfg |= {"first_conv": "conv1.0"}
    hub.put(
        RESNET,
        {
            "config.json": json.dumps({**config, "pretrained_cfg": pretrained_cfg}).encode(),
            "model.safetensors": save(network.state_dict()),
        },
    )
    return network


def images(seed: int, side: int = 64) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(seed))


def test_a_network_of_a_hub_that_cannot_be_reached_is_one_message(tmp_path) -> None:
    code = (
        "import time; time.sleep = lambda seconds: None\n"
        "from siamcal import create_backbone\n"
        "from siamcal.errors import DataNotFoundError\n"
        "for name in ('hf-hub:a/b', 'timm:resnet18'):\n"
        "    try:\n        create_backbone(name, pretrained=True)\n"
        "    except DataNotFoundError as error:\n        print(error)\n"
    )
    env = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert [line.partition(" can't be had from the Hugging Face hub: ")[0] for line in lines] == [
        "'hf-hub:a/b'",
        "'resnet18'",
    ]
    assert all("can't be reached" in line for line in lines)


def test_a_published_vit_is_wrapped_by_its_name(hub: HubServer, vit: nn.Module) -> None:
    network = create_backbone(f"transformers:{VIT}", pretrained=True).eval()
    assert any("model.safetensors" in r for r in hub.requests)
    x, y = images(1), images(2)
    logits = vit(x).logits
    assert torch.equal(network(x), logits)
    for key, value in vit.state_dict().items():
        assert torch.equal(network.state_dict()[key], value)
    assert "vit.layers.1" in [p.name for p in list_merge_points(network)]
    model = CalibratingSiamese(network, "vit.layers.1")
    assert torch.equal(model.split.post(model.split.pre(x)), logits)
    assert model(x, y).shape == (2, 7)

    instance = CalibratingSiamese(vit, "vit.layers.1", example_inputs=x, output="logits")
    assert torch.equal(instance(x, y), model(x, y))
    assert instance.unwrap() is vit


def test_a_published_vit_takes_another_head_and_size(hub: HubServer, vit: nn.Module) -> None:
    network = create_backbone(f"transformers:{VIT}", 5, pretrained=True, image_size=32).eval()
    own = {k: v.shape for k, v in network.state_dict().items()}
    assert own["classifier.weight"] == (5, 32)
    assert network(images(1, 32)).shape == (2, 5)
    kept = "vit.layers.2.mlp.fc1.weight"
    assert torch.equal(network.state_dict()[kept], vit.state_dict()[kept])


def test_without_pretrained_only_the_config_is_read(hub: HubServer, vit: nn.Module) -> None:
    network = create_backbone(f"transformers:{VIT}", 5)
    assert network(images(1)).shape == (2, 5)
    assert not any("safetensors" in r for r in hub.requests)
    again = network.siamcal_spec.create()
    assert [v.shape for v in again.parameters()] == [v.shape for v in network.parameters()]


def test_a_missing_repository_is_explained(hub: HubServer) -> None:
    with pytest.raises(DataNotFoundError, match="nobody/nothing"):
        create_backbone("transformers:nobody/nothing", pretrained=True)


def test_timm_networks_load_weights_only_when_asked(hub: HubServer, resnet: nn.Module) -> None:
    x = images(1)
    network = create_backbone(f"hf-hub:{RESNET}").eval()
    assert not any("safetensors" in r for r in hub.requests)
    assert network(x).shape == (2, 4)
    assert not torch.equal(network.conv1[0].weight, resnet.conv1[0].weight)

    loaded = create_backbone(f"hf-hub:{RESNET}", pretrained=True).eval()
    assert torch.equal(loaded(x), resnet(x))
    model = CalibratingSiamese(loaded, "layer4")
    assert torch.equal(model.split.post(model.split.pre(x)), resnet(x))
    headed = create_backbone(f"hf-hub:{RESNET}", 9, pretrained=True)
    assert headed.fc.out_features == 9
    assert torch.equal(headed.conv1[0].weight, resnet.conv1[0].weight)
