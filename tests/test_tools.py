"""Every example of docs/tools.md, run as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.utils.data import DataLoader, Dataset

from siamcal import create_backbone
from siamcal.errors import ConfigError

torch.set_num_threads(1)

PAGE = (Path(__file__).parent.parent / "docs" / "tools.md").read_text()
SECTIONS = {
    part.partition("\n")[0]: "\n".join(re.findall(r"```python\n(.*?)```", part, re.DOTALL))
    for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
}
SHARED = re.findall(r"```python\n(.*?)```", PAGE.partition("\n## ")[0], re.DOTALL)[0]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return x + torch.relu(self.body(x))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 3)
        self.layer3, self.layer4 = Block(), Block()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.layer4(self.layer3(self.stem(x))).mean((2, 3)))


class Frames(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, i):
        draw = torch.Generator().manual_seed(i)
        labels = torch.rand(2, generator=draw)
        return {"target": torch.rand(3, 8, 8, generator=draw), "person": i % 3, "labels": labels}


@pytest.fixture(scope="module", autouse=True)
def process_group():
    create_backbone("timm:resnet10t")  # timm before other packages that import torchvision
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def run(section: str, **more) -> dict:
    scope = {
        "net": Net(),
        "neutral": torch.rand(3, 3, 8, 8),
        "targets": torch.rand(2, 3, 8, 8),
        "loader": DataLoader(Frames(), 4),
        **more,
    }
    exec(compile(SHARED + SECTIONS[section], f"docs/tools.md, {section}", "exec"), scope)
    return scope


def plain_result(scope):
    """What the same weights give in a fresh, unsharded model."""
    from siamcal import CalibratingSiamese

    fresh = CalibratingSiamese(Net(), "layer4", example_inputs=scope["neutral"][:2])
    return fresh.eval()(scope["targets"], scope["neutral"][:1])


def test_every_section_is_tested():
    own = [name for name in globals() if name.startswith("test_section_")]
    assert len(own) == len(SECTIONS)


def test_section_timm(tmp_path):
    scope = run("timm's optimisers", net=create_backbone("timm:resnet10t", 2))
    assert len({g["lr_scale"] for g in scope["optimizer"].param_groups}) > 2


def test_section_ema():
    scope = run("Exponential moving average")
    torch.testing.assert_close(scope["outputs"], plain_result(scope))


def test_section_ddp():
    scope = run("DistributedDataParallel")
    assert all(p.grad is not None for p in scope["model"].parameters())


def test_section_fsdp():
    scope = run("FSDP2")
    assert scope["model"].split.mechanism == "hook"
    got = scope["model"].eval()(scope["targets"], scope["anna"])
    torch.testing.assert_close(got, plain_result(scope))


def test_fsdp_has_the_gradients_of_the_whole_model():
    from torch.distributed.fsdp import fully_shard

    from siamcal import CalibratingSiamese

    neutral, targets = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    gradients = []
    for shard in (False, True):
        model = CalibratingSiamese(Net(), "layer4", example_inputs=neutral)
        for module in (model.backbone.layer3, model.backbone.layer4, model) if shard else ():
            fully_shard(module)
        model(targets, neutral).square().sum().backward()
        found = {n: p.grad for n, p in model.named_parameters()}
        gradients.append({n: g.full_tensor() if shard else g for n, g in found.items()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_fsdp_that_would_not_gather_is_refused():
    from torch.distributed.fsdp import fully_shard

    from siamcal import CalibratingSiamese

    neutral = torch.rand(2, 3, 8, 8)
    model = CalibratingSiamese(Net(), "layer4", example_inputs=neutral)
    fully_shard(model)
    with pytest.raises(ConfigError, match="register_fsdp_forward_method"):
        model.encode(neutral)
    inside = CalibratingSiamese(Net(), "layer4.body", example_inputs=neutral)
    fully_shard(inside.backbone.layer4)
    with pytest.raises(ConfigError, match=r"'backbone.layer4'.*fully_shard\(model\)"):
        inside(neutral, neutral)


def test_section_lora():
    scope = run("LoRA (PEFT)")
    trained = [n for n, p in scope["model"].named_parameters() if p.grad is not None]
    assert trained
    assert all("lora" in name for name in trained)


def test_section_lightning(tmp_path):
    # In a process of its own: Lightning puts back signal handlers as Python knows them, so that the
    # timer that mediapipe leaves behind would end the process in a later test.
    code = (
        "import test_tools as page; page.create_backbone('timm:resnet10t')\n"
        "print(page.run('Lightning')['trainer'].global_step)"
    )
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=here, capture_output=True, text=True
    )
    assert ran.stdout.split()[-1:] == ["2"], ran.stderr


def test_section_trainer(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = Net().state_dict()
    after = run("Hugging Face Trainer")["model"].unwrap().state_dict()
    assert any(not torch.equal(after[k].cpu(), before[k]) for k in before)


def test_section_accelerate():
    assert len(run("accelerate")["anna"]) == 1


def test_section_captum():
    assert run("captum")["attributions"].shape == (2, 3, 8, 8)


def test_section_compile():
    torch._dynamo.reset()
    scope = run("torch.compile")
    torch.testing.assert_close(scope["outputs"], plain_result(scope))


def test_section_export(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = run("torch.export and ONNX")
    torch.testing.assert_close(
        torch.from_numpy(scope["outputs"]), plain_result(scope), rtol=0, atol=1e-4
    )


def test_section_checkpoints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert next(iter(run("Checkpoints")["model"].state_dict())).startswith("backbone.")
