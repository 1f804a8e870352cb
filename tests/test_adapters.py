"""Adapters hold what calibration changed, and refuse every backbone but the one below them."""

from pathlib import Path

import pytest
import torch
from calibrators import predictions, rewrite, stirred
from torch import nn

from siamcal.calibrators.adapters import pre_merge_names
from siamcal.calibrators.saving import load_calibrator, save_calibrator
from siamcal.errors import ConfigError, WeightsError
from siamcal.model.create import create_backbone
from siamcal.model.siamese import CalibratingSiamese
from siamcal.model.weights_file import read_header

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIAMCAL_CACHE", str(tmp_path / "cache"))


def public() -> nn.Module:
    return stirred(create_backbone("ir_tiny", num_outputs=5))


def calibrated(merge_at: str = "layer4", frozen: bool = True) -> CalibratingSiamese:
    """Trained for a few steps, before the merge only if not frozen."""
    model = CalibratingSiamese(public(), merge_at, freeze_pre_batchnorm=frozen).train()
    before = pre_merge_names(model, (3, 112, 112))
    free = [p for n, p in model.unwrap().named_parameters() if not (frozen and n in before)]
    optimiser = torch.optim.SGD(free, lr=0.01)
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        pair = torch.rand(2, 4, 3, 112, 112, generator=generator)
        optimiser.zero_grad()
        model(pair[0], pair[1]).square().mean().backward()
        optimiser.step()
    return model.eval()


def test_the_part_before_the_merge_is_found_exactly() -> None:
    state = set(public().state_dict())
    stages = {
        "layer3": ("conv1", "bn1", "prelu", "layer1", "layer2"),
        "layer4": ("conv1", "bn1", "prelu", "layer1", "layer2", "layer3"),
    }
    for merge_at, inside in stages.items():
        model = CalibratingSiamese(public(), merge_at)
        expected = {name for name in state if name.split(".")[0] in inside}
        assert pre_merge_names(model, (3, 112, 112)) == expected
    assert pre_merge_names(CalibratingSiamese(public(), "output"), (3, 112, 112)) == state


def test_shared_modules_and_frozen_parameters_are_told_apart() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)
            self.b = nn.Conv2d(3, 3, 3)
            self.unused = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.b(self.norm(self.a(x)))).mean((2, 3))

    network = Shared().requires_grad_(False)
    model = CalibratingSiamese(network, "b", example_inputs=torch.rand(2, 3, 16, 16))
    assert pre_merge_names(model, (3, 16, 16)) == {"a.weight", "a.bias"}
    assert not any(p.requires_grad for p in network.parameters())


def test_adapter_holds_only_what_changed_and_predicts_the_same(tmp_path: Path) -> None:
    model = calibrated()
    whole = save_calibrator(model, None, tmp_path / "whole")
    config = save_calibrator(model, None, tmp_path / "adapter", adapter=True, base=public())
    assert config.is_adapter
    assert not whole.is_adapter
    names = set(read_header(tmp_path / "adapter" / "model.safetensors"))
    assert {name.split(".")[1] for name in names} == {"layer4", "bn2", "fc"}
    loaded = load_calibrator(tmp_path / "adapter", backbone=public())
    assert torch.equal(predictions(loaded), predictions(model))


def test_adapter_over_the_public_weights_file(tmp_path: Path) -> None:
    model = calibrated()
    torch.save(public().state_dict(), tmp_path / "public.pth")
    save_calibrator(model, None, tmp_path / "a", adapter=True)
    with pytest.raises(ConfigError, match="base="):
        load_calibrator(tmp_path / "a")
    loaded = load_calibrator(tmp_path / "a", base=tmp_path / "public.pth")
    assert torch.equal(predictions(loaded), predictions(model))


def test_adapter_refuses_another_backbone(tmp_path: Path) -> None:
    save_calibrator(calibrated(), None, tmp_path, adapter=True)
    other = public()
    with torch.no_grad():
        other.get_parameter("layer1.0.conv1.weight")[0, 0, 0, 0] += 1e-3
    for verify in (True, False):
        with pytest.raises(WeightsError, match="checksums differ"):
            load_calibrator(tmp_path, backbone=other, verify=verify)


def test_adapter_of_a_fully_trained_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="before the merge point differ"):
        save_calibrator(calibrated(frozen=False), None, tmp_path, adapter=True, base=public())


def test_adapter_that_lacks_what_lies_behind_the_merge_is_refused(tmp_path: Path) -> None:
    from siamcal.model.weights_file import read_tensors, write_tensors

    save_calibrator(calibrated(), None, tmp_path, adapter=True)
    tensors = read_tensors(tmp_path / "model.safetensors")
    tensors.pop("backbone.fc.weight")
    rewrite(tmp_path, weights_checksum=write_tensors(tensors, tmp_path / "model.safetensors"))
    with pytest.raises(WeightsError, match="behind the merge point"):
        load_calibrator(tmp_path, backbone=public())
    with pytest.raises(WeightsError, match="checksums differ"):  # which hold the names, too
        load_calibrator(tmp_path, backbone=public(), verify=False)


def test_half_precision_takes_half_the_room_and_is_widened(tmp_path: Path) -> None:
    model = calibrated()
    for name, half in (("whole", False), ("half", True)):
        save_calibrator(model, model.config, tmp_path / name, adapter=True, half=half)
    sizes = {n: (tmp_path / n / "model.safetensors").stat().st_size for n in ("whole", "half")}
    assert sizes["half"] < 0.6 * sizes["whole"]
    kinds = {info.dtype for info in read_header(tmp_path / "half" / "model.safetensors").values()}
    assert "F16" in kinds
    assert "F32" not in kinds
    loaded = load_calibrator(tmp_path / "half", base=None, backbone=public())
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    torch.testing.assert_close(predictions(loaded), predictions(model), atol=5e-3, rtol=5e-3)
