import pytest
import torch

from siamcal.model.heads import AUOutput, DetectionHead, IntensityHead, make_head


def test_intensity_head_splits_regressions_then_five_logits_per_au():
    raw = torch.arange(2 * 12, dtype=torch.float32).reshape(2, 12)  # (B=2, 6A), A=2
    output = IntensityHead(2)(raw)
    assert isinstance(output, AUOutput)
    assert output.intensity.tolist() == [[0, 1], [12, 13]]
    assert output.ordinal_logits[0].tolist() == [[2, 3, 4, 5, 6], [7, 8, 9, 10, 11]]
    assert output.ordinal_logits.shape == (2, 2, 5)


def test_intensity_head_has_no_activation():
    raw = torch.full((1, 6), -3.0)
    assert IntensityHead(1)(raw).intensity.item() == -3.0


def test_detection_head_returns_logits():
    raw = torch.tensor([[1.0, -2.0, 0.0]])
    assert torch.equal(DetectionHead(3)(raw), raw)


@pytest.mark.parametrize(("task", "num_outputs"), [("intensity", 72), ("detection", 12)])
def test_heads_know_how_many_outputs_they_read(task, num_outputs):
    head = make_head(task, 12)
    assert head.task == task
    assert head.num_outputs == num_outputs
    assert sum(p.numel() for p in head.parameters()) == 0
    with pytest.raises(ValueError, match=rf"num_outputs={num_outputs}"):
        head(torch.zeros(1, 7))


def test_unknown_task_names_the_allowed_ones():
    with pytest.raises(ValueError, match="'intensity' or 'detection'"):
        make_head("segmentation", 3)


def test_heads_export():
    program = torch.export.export(IntensityHead(3), (torch.randn(2, 18),))
    raw = torch.randn(2, 18)
    assert torch.equal(program.module()(raw).intensity, raw[:, :3])
