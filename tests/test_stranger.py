"""A stranger's calibrator decides nothing: neither whom siamcal contacts nor how long it works."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from calibrators import rewrite, stirred, tiny
from hub_server import TOKEN, HubServer, running
from huggingface_hub import constants

from siamcal import CalibratingSiamese, create_backbone
from siamcal.calibrators.saving import load_calibrator
from siamcal.errors import ConfigError, HubError
from siamcal.inference.models import load_model
from siamcal.model.heads import make_head

torch.set_num_threads(1)
EVIL = "evil/evil"
NAMES = (f"hf-hub:{EVIL}", f"transformers:{EVIL}")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub that notes who asks; the client forgets nothing between tests."""
    with running() as server:
        _point_at(monkeypatch, server.url, tmp_path)
        yield server


def _point_at(monkeypatch: pytest.MonkeyPatch, url: str, place: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def calibrator(tmp_path: Path) -> Path:
    folder = tmp_path / "calibrator"
    tiny(make_head("intensity", 3)).save_pretrained(folder, aus=(1, 12, 25))
    return folder


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("adapter", [False, True])
def test_nobody_is_contacted_because_a_config_says_so(hub, calibrator, name, adapter) -> None:
    changes = {"base_checksum": "0" * 64} if adapter else {}
    rewrite(calibrator, backbone=name, backbone_arguments={}, **changes)
    for load in (load_calibrator, load_model, CalibratingSiamese.from_pretrained):
        with pytest.raises(ConfigError, match=rf"asks for .*{EVIL}.*trust=True"):
            load(calibrator)
    assert not hub.requests


@pytest.mark.parametrize("name", ["timm:test_resnet", "torchvision:resnet18", "transformers:vit"])
def test_an_adapter_downloads_its_base_only_where_it_is_trusted(hub, calibrator, name) -> None:
    rewrite(calibrator, backbone=name, backbone_arguments={}, base_checksum="0" * 64)
    with pytest.raises(ConfigError, match=r"asks for public weights.*trust=True"):
        load_calibrator(calibrator)
    assert not hub.requests


def test_a_folder_beside_isn_t_taken_for_a_model_of_transformers(
    calibrator, tmp_path, monkeypatch
) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    rewrite(calibrator, backbone="transformers:models", backbone_arguments={})
    with pytest.raises(ConfigError, match="folder 'models'"):
        load_calibrator(calibrator)


def test_what_is_trusted_is_asked_for_and_told_in_words(hub, calibrator) -> None:
    rewrite(calibrator, backbone=NAMES[0], backbone_arguments={})
    with pytest.raises(HubError, match="has no repository 'evil/evil'"):
        load_calibrator(calibrator, trust=True)
    assert any(EVIL in request for request in hub.requests)


@pytest.mark.parametrize("name", NAMES)
def test_offline_is_said_at_once(calibrator, tmp_path, monkeypatch, name) -> None:
    _point_at(monkeypatch, "http://127.0.0.1:9", tmp_path)  # nobody listens there
    rewrite(calibrator, backbone=name, backbone_arguments={})
    started = time.monotonic()
    with pytest.raises(HubError, match=r"127\.0\.0\.1:9"):
        load_calibrator(calibrator, trust=True)
    assert time.monotonic() - started < 10


def test_large_images_are_tried_only_where_that_is_trusted(tmp_path) -> None:
    network = stirred(create_backbone("timm:resnet18", num_outputs=18))
    model = CalibratingSiamese(network.eval(), "layer4", head=make_head("intensity", 3))
    model.save_pretrained(tmp_path, aus=(1, 12, 25))
    rewrite(tmp_path, input_shape=[3, 400, 400])
    started = time.process_time()
    with pytest.raises(ConfigError, match=r"billion operations.*trust=True"):
        load_calibrator(tmp_path)
    assert time.process_time() - started < 2
    assert load_calibrator(tmp_path, trust=True).config.input_shape == (3, 400, 400)


def test_images_that_the_network_cannot_read_cost_nothing(calibrator) -> None:
    rewrite(calibrator, input_shape=[3, 1024, 1024])
    started = time.process_time()
    with pytest.raises(ConfigError, match=r"\(3, 1024, 1024\), which its network doesn't read"):
        load_calibrator(calibrator)
    assert time.process_time() - started < 2
