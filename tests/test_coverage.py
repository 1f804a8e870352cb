"""The coverage benchmark: what it counts as exact, refused and wrong; resuming; time limits."""

import json

import pytest
import torch
from siamcal.benchmarks import _cuts as cuts
from siamcal.benchmarks import coverage as bench
from torch import nn

from siamcal.errors import ConfigError
from siamcal.graph.split import Split

torch.set_num_threads(1)


def test_a_model_is_exact_at_three_points():
    result = cuts.check_model(cuts.Job("resnet", "test_resnet"))
    assert result.failure == ""
    assert [p.outcome for p in result.points] == ["exact"] * 3
    assert result.inner.outcome in ("exact", "refused")
    assert result.complete
    assert result.parameters > 0


def test_a_model_that_cannot_be_made_is_reported():
    result = cuts.check_model(cuts.Job("none", "no_such_model"))
    assert "no_such_model" in result.failure
    assert not result.complete


def test_a_wrong_cut_is_seen(monkeypatch):
    right = Split.post
    monkeypatch.setattr(Split, "post", lambda self, f: right(self, f) * 1.01)
    result = cuts.check_model(cuts.Job("resnet", "test_resnet"))
    assert {p.outcome for p in result.points} == {"wrong"}
    assert "off by 1.0%" in result.points[0].detail


def test_a_leak_of_the_image_is_seen():
    class Leaking(nn.Module):
        def __init__(self):
            super().__init__()
            self.split = Split(nn.Identity(), "x", None)
            self.backbone = nn.Identity()

        def forward(self, target, reference):
            return target.mean((1, 2, 3))

    model = Leaking()
    model.split.pre = model.split.post = lambda x: x
    assert "of the image" in cuts._problem(model, torch.rand(3, 3, 8, 8))


def test_a_run_is_resumed(tmp_path, monkeypatch):
    sizes = {"resnet": {"test_resnet": 5}, "vit": {"test_vit": 5, "test_vit2": 9, "huge": 10**9}}
    monkeypatch.setattr(bench, "_sizes", lambda path, versions: sizes)
    asked = []

    def check(self, job, time_limit):
        asked.append(job.name)
        point = cuts.PointResult("layer4", "exact", "shallow fx")
        return cuts.ModelResult(job.family, job.name, 5, (3, 8, 8), 4, (point,))

    monkeypatch.setattr(bench._Worker, "check", check)
    bench.coverage(tmp_path, limit=1)
    with (tmp_path / "families.jsonl").open("a") as file:
        file.write('{"family": "cut off in the mid')
    table = bench.coverage(tmp_path)
    assert asked == ["test_resnet", "test_vit"]
    assert [r.name for r in table.results] == asked
    assert "2 of 2 models exact" in (tmp_path / "families.md").read_text()
    variants = bench.coverage(tmp_path, models="variants", number=9)
    assert [r.name for r in variants.results] == ["test_vit2"]
    assert json.loads((tmp_path / "variants.jsonl").read_text())["points"][0]["outcome"] == "exact"
    with pytest.raises(ConfigError, match="families or variants"):
        bench.coverage(tmp_path, models="all")


@pytest.mark.slow
def test_a_model_that_takes_too_long_is_ended():
    worker = bench._Worker()
    try:
        result = worker.check(cuts.Job("resnet", "test_resnet"), 0.0)
        assert "no result within 0 s of processor time" in result.failure
        assert worker._process.exitcode == bench.OVER_TIME
    finally:
        worker.close()
