"""What a saved calibrator says of its input and outputs: the network's word, or its author's."""

import logging

import pytest
import torch
from torch import nn

from siamcal import CalibratingSiamese
from siamcal.errors import ConfigError
from siamcal.inference.models import load_model
from siamcal.model.heads import make_head
from siamcal.preprocessing import Preprocessing

TIMM = {"input_size": (3, 24, 24), "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class Net(nn.Module):
    """Reads images of 24 px only."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 8, 8)
        self.fc = nn.Linear(36, outputs)

    def forward(self, x):
        return self.fc(self.conv(x).relu().flatten(1))


class Anywhere(Net):
    """Reads images of any size."""

    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3)).repeat(1, 9))


def wrapped(net, head=None, **cfg):
    if cfg:
        net.pretrained_cfg = cfg
    return CalibratingSiamese(net, "fc", head=head, example_inputs=torch.rand(2, 3, 24, 24)).eval()


def test_size_and_normalisation_are_the_networks(tmp_path) -> None:
    config = wrapped(Net(2), **TIMM).save_pretrained(tmp_path, aus=(1, 12))
    crop = config.preprocessing
    assert (crop.size, crop.mean, crop.std) == (24, TIMM["mean"], TIMM["std"])
    assert config.input_shape == (3, 24, 24)
    given = Preprocessing(size=24, std=(0.5, 0.5, 0.5))
    config = wrapped(Net(2), **TIMM).save_pretrained(tmp_path, aus=(1, 12), preprocessing=given)
    assert config.preprocessing == given


def test_imagenets_of_timm_and_torchvision(tmp_path) -> None:
    from siamcal import create_backbone

    for name in ("timm:resnet10t", "torchvision:squeezenet1_1"):
        network = create_backbone(name, 2)
        place = "layer4" if name.startswith("timm") else "features.12"
        config = CalibratingSiamese(network, place).save_pretrained(tmp_path)
        assert config.input_shape[1] == config.preprocessing.size > 112
        assert config.preprocessing.mean == pytest.approx(TIMM["mean"])
    plain = create_backbone("torchvision:squeezenet1_1", 2)
    del plain.siamcal_input  # as torchvision itself makes it: it says nothing
    model = CalibratingSiamese(plain, "features.12", head=make_head("detection", 2))
    with pytest.raises(ConfigError, match=r"preprocessing=Preprocessing\(size="):
        model.save_pretrained(tmp_path, aus=(1, 2))


def test_what_cannot_be_known_is_asked_for(tmp_path, caplog) -> None:
    model = wrapped(Net(12), make_head("intensity", 2))
    with pytest.raises(ConfigError, match="doesn't say what size and normalisation"):
        model.save_pretrained(tmp_path, aus=(1, 12))
    config = model.save_pretrained(tmp_path, aus=(1, 12), preprocessing=Preprocessing(size=24))
    assert config.preprocessing.size == 24
    # Without a head nothing reads frames by the config: a word is enough.
    with caplog.at_level(logging.WARNING):
        config = wrapped(Net(2)).save_pretrained(tmp_path, aus=(1, 12))
    assert config.preprocessing.size == 24
    assert "mean 0 and deviation 1" in caplog.text


def test_a_size_that_the_network_cannot_read_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"can't read images of 3 x 112 x 112"):
        wrapped(Net(2)).save_pretrained(tmp_path, preprocessing=Preprocessing(size=112))
    other = Preprocessing(size=32)
    assert (
        wrapped(Anywhere(2)).save_pretrained(tmp_path, preprocessing=other).preprocessing == other
    )


@pytest.mark.parametrize(("aus", "fits"), [((1, 12), True), ((1,), False), ((1, 2, 4), False)])
def test_aus_are_as_many_as_the_outputs(tmp_path, aus, fits) -> None:
    model = wrapped(Net(2), **TIMM)
    if fits:
        assert model.save_pretrained(tmp_path, aus=aus).aus == aus
        return
    with pytest.raises(ConfigError, match=rf"aus names {len(aus)} AUs.* gives 2 outputs"):
        model.save_pretrained(tmp_path, aus=aus)


def test_aus_are_numbers(tmp_path) -> None:
    for wrong in ("1, 12", 12, (1.0, 12.0), ("AU01", "AU12")):
        with pytest.raises(ConfigError, match="aus takes whole numbers"):
            wrapped(Net(2), **TIMM).save_pretrained(tmp_path, aus=wrong)


def test_a_wrap_without_a_head_is_no_reader_of_frames(tmp_path) -> None:
    network = Net(2)
    wrapped(network, **TIMM).save_pretrained(tmp_path, aus=(1, 12))
    loaded = CalibratingSiamese.from_pretrained(tmp_path, backbone=Net(2))
    assert torch.equal(loaded.unwrap().fc.weight, network.fc.weight)
    assert loaded.config.task == "raw"


def test_predict_says_why_a_wrap_without_a_head_is_not_read(tmp_path) -> None:
    from siamcal import create_backbone

    model = CalibratingSiamese(create_backbone("ir_tiny", 2, input_size=32), "fc")
    model.save_pretrained(tmp_path, aus=(1, 12))
    with pytest.raises(ConfigError, match="wrapped without a head is read in Python"):
        load_model(tmp_path)
