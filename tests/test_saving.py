"""Calibrators are saved and come back predicting the same, bit for bit, and nothing else."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from calibrators import AUS, flat, images, predictions, rewrite, stirred, tiny
from torch import nn

from siamcal import registry
from siamcal.calibrators.saving import (
    CalibratorConfig,
    Preprocessing,
    describe,
    load_calibrator,
    save_calibrator,
)
from siamcal.errors import ConfigError, SiamcalError, WeightsError
from siamcal.model.create import create_backbone
from siamcal.model.heads import DetectionHead, IntensityHead
from siamcal.model.siamese import CalibratingSiamese

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIAMCAL_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("task", ["intensity", "detection", "raw"])
@pytest.mark.parametrize("merge_at", ["layer4", "fc", "output"])
def test_round_trip_is_bit_for_bit(tmp_path: Path, task: str, merge_at: str) -> None:
    heads = {"intensity": IntensityHead(3), "detection": DetectionHead(3), "raw": None}
    model = tiny(heads[task], merge_at)
    aus = (1, 2, 4, 12, 25) if task == "raw" else AUS  # one of each output
    written = save_calibrator(model, describe(model, aus=aus), tmp_path / "c")
    loaded = load_calibrator(tmp_path / "c")
    assert torch.equal(predictions(loaded), predictions(model))
    assert loaded.config == written
    assert loaded.config.task == task
    assert loaded.merge_at == merge_at
    assert not loaded.training
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_precision_is_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    model = tiny().to(dtype)
    save_calibrator(model, None, tmp_path)
    loaded = load_calibrator(tmp_path)
    target, reference = (t.to(dtype) for t in images(2, 3, 112, 112))
    with torch.no_grad():
        assert torch.equal(loaded(target, reference), model(target, reference))


def test_form_of_the_merge_is_kept(tmp_path: Path) -> None:
    model = tiny(merge="target_minus_reference", freeze_pre_batchnorm=True, branches="concatenate")
    save_calibrator(model, None, tmp_path)
    loaded = load_calibrator(tmp_path)
    assert (loaded.branches, loaded.freeze_pre_batchnorm) == ("concatenate", True)
    assert loaded.config.merge == "target_minus_reference"
    assert torch.equal(predictions(loaded), predictions(model))
    plain = tiny()
    assert not torch.equal(predictions(loaded), predictions(plain))


def test_every_sign_is_kept_at_the_output(tmp_path: Path) -> None:
    for merge in ("reference_minus_target", "target_minus_reference", "paper"):
        model = tiny(merge_at="output", merge=merge)
        save_calibrator(model, None, tmp_path / merge)
        loaded = load_calibrator(tmp_path / merge)
        assert torch.equal(predictions(loaded), predictions(model))
        assert loaded.config.merge == loaded.merge == model.merge
    assert loaded.merge == "target_minus_reference"  # the authors' sign at the output


def test_facts_travel_and_the_model_knows_its_structure(tmp_path: Path) -> None:
    model = tiny(IntensityHead(3))
    config = CalibratorConfig(
        merge_at="layer4",
        task="intensity",
        aus=AUS,
        preprocessing=Preprocessing(align="ffhq_quad", illumination="csn_rgb", contrast="none"),
        training_data="40 rendered people",
        data_licence="Apache-2.0",
        licence="apache-2.0",
        licence_reason="trained on rendered faces only",
        au_status=("experimental", "shown on real faces", "not validated"),
    )
    save_calibrator(model, config, tmp_path)
    assert model.config is None
    loaded = load_calibrator(tmp_path).config
    for field in ("preprocessing", "training_data", "licence_reason", "au_status", "thresholds"):
        assert getattr(loaded, field) == getattr(config, field)
    assert loaded.backbone == "ir_tiny"
    assert loaded.backbone_arguments == {"num_outputs": 18}


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({}, "reads 3 AUs, but aus names 0"),
        ({"aus": (1, 2)}, "reads 3 AUs, but aus names 2"),
        ({"aus": AUS, "task": "detection"}, "head"),
        ({"aus": AUS, "merge_at": "layer3"}, "the model has 'layer4'"),
        ({"aus": AUS, "licens": "mit"}, "no field 'licens'"),
    ],
)
def test_facts_that_contradict_the_model_are_refused(facts: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        describe(tiny(IntensityHead(3)), **facts)


def test_saving_again_replaces_and_a_mixture_is_noticed(tmp_path: Path) -> None:
    first, second = tiny(), tiny()
    stirred(second.unwrap(), seed=1)
    save_calibrator(first, None, tmp_path)
    old = (tmp_path / "config.json").read_bytes()
    save_calibrator(second, None, tmp_path)
    assert torch.equal(predictions(load_calibrator(tmp_path)), predictions(second))
    (tmp_path / "config.json").write_bytes(old)  # as if the machine had stopped in between
    with pytest.raises(WeightsError, match="damaged or exchanged"):
        load_calibrator(tmp_path)


def test_saving_twice_writes_the_same_bytes(tmp_path: Path) -> None:
    save_calibrator(tiny(), None, tmp_path / "a")
    save_calibrator(load_calibrator(tmp_path / "a"), None, tmp_path / "b")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_strict_names_missing_and_unexpected_tensors(tmp_path: Path) -> None:
    from siamcal.model.weights_file import read_tensors, write_tensors

    save_calibrator(tiny(), None, tmp_path)
    tensors = read_tensors(tmp_path / "model.safetensors")
    kept = tensors.pop("backbone.bn2.weight")
    checksum = write_tensors(tensors, tmp_path / "model.safetensors")
    rewrite(tmp_path, weights_checksum=checksum)
    with pytest.raises(WeightsError, match=r"lacks 1 tensors, backbone\.bn2\.weight"):
        load_calibrator(tmp_path)
    assert load_calibrator(tmp_path, strict=False) is not None
    checksum = write_tensors(
        {**tensors, "backbone.bn2.weight": kept, "backbone.new": kept},
        tmp_path / "model.safetensors",
    )
    rewrite(tmp_path, weights_checksum=checksum)
    with pytest.raises(WeightsError, match=r"has beyond the network 1 tensors, backbone\.new"):
        load_calibrator(tmp_path)
    loaded = load_calibrator(tmp_path, strict=False)
    assert torch.equal(loaded.unwrap().state_dict()["bn2.weight"], kept)


class OwnNet(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, width, 3, 4), nn.BatchNorm2d(width))
        self.second = nn.Conv2d(width, 6, 3, 2)
        self.tied = self.first[1].weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).relu()).mean((2, 3))


def test_a_module_without_a_name_is_passed_back(tmp_path: Path) -> None:
    model = CalibratingSiamese(stirred(OwnNet()), "second").eval()
    config = save_calibrator(model, None, tmp_path)
    assert config.backbone == ""
    with pytest.raises(ConfigError, match="backbone=net"):
        load_calibrator(tmp_path)
    loaded = load_calibrator(tmp_path, backbone=OwnNet())
    assert torch.equal(predictions(loaded, 112), predictions(model, 112))
    with pytest.raises(WeightsError, match="don't fit the network"):
        load_calibrator(tmp_path, backbone=OwnNet(width=5))


def test_own_head_and_merge_are_passed_back(tmp_path: Path) -> None:
    def halved(target: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        return (target - reference) / 2

    head = nn.Linear(5, 2)
    model = tiny(merge=halved)
    model.head = head
    model.eval()
    save_calibrator(model, None, tmp_path)
    with pytest.raises(ConfigError, match="head="):
        load_calibrator(tmp_path)
    with pytest.raises(ConfigError, match="merge="):
        load_calibrator(tmp_path, head=nn.Linear(5, 2))
    loaded = load_calibrator(tmp_path, head=nn.Linear(5, 2), merge=halved)
    assert torch.equal(predictions(loaded), predictions(model))


def test_what_cannot_be_saved_without_pickle_is_said(tmp_path: Path) -> None:
    class Stateful(OwnNet):
        def get_extra_state(self) -> object:
            return {"secret": 1}

        def set_extra_state(self, state: object) -> None:
            pass

    with pytest.raises(ConfigError, match="without pickling"):
        save_calibrator(CalibratingSiamese(Stateful(), "second"), None, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


OWN_FILE = """
from pathlib import Path
import torch
Path(__file__).with_suffix(".ran").touch()
def build(num_outputs=5):
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 8), torch.nn.Conv2d(4, num_outputs, 3),
                               torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
"""


def test_own_file_is_named_but_never_run_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, ran = tmp_path / "my_net.py", tmp_path / "my_net.ran"
    file.write_text(OWN_FILE)
    model = CalibratingSiamese(stirred(create_backbone(f"{file}:build", num_outputs=7)), "1").eval()
    config = save_calibrator(model, None, tmp_path / "c")
    assert config.backbone == "./my_net.py:build"  # no folder of the author's
    assert not (tmp_path / "cache").exists()  # nothing is remembered
    ran.unlink()
    monkeypatch.chdir(tmp_path)  # even where the file lies at the very place
    with pytest.raises(ConfigError, match="never runs a file"):
        load_calibrator(tmp_path / "c")
    assert not ran.exists()
    loaded = load_calibrator(tmp_path / "c", backbone="./my_net.py:build")
    assert torch.equal(predictions(loaded, 112), predictions(model, 112))


def test_own_file_is_held_to_the_size_of_its_weights(tmp_path: Path) -> None:
    file = tmp_path / "my_net.py"
    file.write_text(OWN_FILE)
    model = CalibratingSiamese(create_backbone(f"{file}:build", num_outputs=7), "1").eval()
    save_calibrator(model, None, tmp_path / "c")
    rewrite(tmp_path / "c", backbone_arguments={"num_outputs": 65_536})
    with pytest.raises(WeightsError, match="don't fit the network"):
        load_calibrator(tmp_path / "c", backbone=f"{file}:build")
    file.write_text(OWN_FILE.replace("):\n", "):\n    torch.zeros(num_outputs, num_outputs)\n"))
    with pytest.raises(WeightsError, match="a tensor of 4,294,967,296 elements"):
        load_calibrator(tmp_path / "c", backbone=f"{file}:build")


# Name -> merge point and arguments of the backbone.
PUBLIC: dict[str, tuple[str, dict[str, int]]] = {
    "timm:resnet18": ("layer4", {}),
    "timm:mobilenetv3_small_050": ("blocks.4", {}),
    "torchvision:resnet18": ("layer3", {}),
    "transformers:vit": (
        "vit.layers.1",
        {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": 64,
        },
    ),
}


@pytest.fixture(scope="module")
def restored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[torch.Tensor, Path]]:
    """Each public backbone saved here and loaded in one fresh process without this script."""
    root = tmp_path_factory.mktemp("public")
    known = {}
    for name, (merge_at, arguments) in PUBLIC.items():
        head = IntensityHead(3)
        backbone = stirred(create_backbone(name, num_outputs=18, **arguments))
        model = CalibratingSiamese(
            backbone, merge_at, head=head, example_inputs=torch.rand(2, 3, 64, 64)
        )
        folder = root / name.replace(":", "_")
        config = describe(model.eval(), aus=AUS)
        save_calibrator(model, config, folder)
        pair = images(2, 3, 64, 64)
        with torch.no_grad():
            known[name] = flat(model(*pair)), folder
    code = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from siamcal.model.siamese import CalibratingSiamese\n"
        "from siamcal.calibrators.saving import load_calibrator\n"
        "torch.set_num_threads(1)\n"
        "g = torch.Generator().manual_seed(7)\n"
        "pair = torch.rand(2, 3, 64, 64, generator=g), torch.rand(2, 3, 64, 64, generator=g)\n"
        "for folder in sys.argv[1:]:\n"
        "    with torch.no_grad():\n"
        "        out = load_calibrator(folder)(*pair)\n"
        "    flat = torch.cat([out.intensity, out.ordinal_logits.flatten(1)], 1)\n"
        "    torch.save(flat, Path(folder) / 'out.pt')\n"
    )
    folders = [str(folder) for _, folder in known.values()]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}  # the config is enough
    subprocess.run([sys.executable, "-c", code, *folders], check=True, cwd=root, env=env)
    return known


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLIC)
def test_public_backbones_restore_in_a_fresh_process(
    restored: dict[str, tuple[torch.Tensor, Path]], name: str
) -> None:
    expected, folder = restored[name]
    assert torch.equal(torch.load(folder / "out.pt", weights_only=True), expected)


def test_a_source_registered_later_saves_and_loads(tmp_path: Path) -> None:
    def create(name: str, num_outputs: int = 5, pretrained: bool = False) -> nn.Module:
        network = create_backbone(name.rpartition("/")[2], num_outputs)
        return stirred(network) if pretrained else network

    name = "my-source2:someone/ir_tiny"
    try:
        registry.backbones.register("my-source2:")(create)
        model = CalibratingSiamese(create_backbone(name, pretrained=True), "layer4").eval()
        config = save_calibrator(model, None, tmp_path / "c")
        assert config.backbone == name
        assert torch.equal(predictions(load_calibrator(tmp_path / "c")), predictions(model))
        with torch.no_grad():
            model.unwrap().fc.bias += 1
        save_calibrator(model, None, tmp_path / "a", adapter=True)  # over its public weights
        assert torch.equal(predictions(load_calibrator(tmp_path / "a")), predictions(model))
        for path in ("../ir_tiny", "a/../ir_tiny", "/ir_tiny", "a/b/ir_tiny", "a:ir_tiny", ""):
            rewrite(tmp_path / "c", backbone=f"my-source2:{path}")
            with pytest.raises(ConfigError, match="never followed"):
                load_calibrator(tmp_path / "c")
    finally:
        registry.backbones._entries.pop("my-source2:")
    rewrite(tmp_path / "c", backbone=name)
    with pytest.raises(ConfigError, match="import the package that registers it"):
        load_calibrator(tmp_path / "c")


def test_networks_that_read_values_while_they_are_made_load(tmp_path: Path) -> None:
    backbone = stirred(create_backbone("torchvision:regnet_y_400mf", num_outputs=5))
    example = torch.rand(2, 3, 64, 64)
    model = CalibratingSiamese(backbone, "trunk_output.block4", example_inputs=example).eval()
    save_calibrator(model, None, tmp_path)
    loaded = load_calibrator(tmp_path, example_inputs=example)
    with torch.no_grad():
        assert torch.equal(loaded(example, example + 1), model(example, example + 1))


def test_config_of_another_task_cannot_be_slipped_in(tmp_path: Path) -> None:
    model = tiny(IntensityHead(3))
    save_calibrator(model, describe(model, aus=AUS), tmp_path)
    rewrite(tmp_path, task="detection")
    with pytest.raises(SiamcalError, match="needs 3"):
        load_calibrator(tmp_path)


def test_global_random_state_is_left_alone(tmp_path: Path) -> None:
    save_calibrator(tiny(), None, tmp_path)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    load_calibrator(tmp_path)
    assert torch.equal(torch.rand(4), expected)


def test_config_can_be_replaced_before_saving(tmp_path: Path) -> None:
    save_calibrator(tiny(), None, tmp_path)
    model = load_calibrator(tmp_path)
    changed = dataclasses.replace(model.config, training_data="another set")
    save_calibrator(model, changed, tmp_path)
    assert load_calibrator(tmp_path).config.training_data == "another set"
