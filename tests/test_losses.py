import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from siamcal.model.heads import AUOutput
from siamcal.training.losses import (
    IntensityWeights,
    cosine_loss,
    count_levels,
    count_occurrences,
    detection_loss,
    detection_weights,
    intensity_loss,
    intensity_weights,
    mse_weights,
    ordinal_weights,
)

DATA = Path(__file__).parent / "data"
WEIGHTS = json.loads((DATA / "weights_golden.json").read_text())["cases"]
LOSS = json.loads((DATA / "loss_golden.json").read_text())


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("case", WEIGHTS)
@pytest.mark.parametrize(
    ("printed", "key"), [(False, "mse_released_code"), (True, "mse_eq7_as_printed")]
)
def test_mse_weights_golden(case, printed, key):
    weights = mse_weights(np.array([WEIGHTS[case]["counts"]]), printed_eq7=printed)
    np.testing.assert_allclose(weights[0], WEIGHTS[case][key], rtol=1e-6)


@pytest.mark.parametrize("case", WEIGHTS)
def test_ordinal_weights_golden(case):
    weights = ordinal_weights(np.array([WEIGHTS[case]["counts"]]))
    np.testing.assert_allclose(weights[0], WEIGHTS[case]["bce_released_code"], rtol=1e-6)


@pytest.mark.parametrize("case", WEIGHTS)
def test_detection_weights_golden(case):
    counts = WEIGHTS[case]["counts"]
    weights = detection_weights(np.array([[sum(counts[:2]), sum(counts[2:])]]))
    np.testing.assert_allclose(weights[0], WEIGHTS[case]["det"], rtol=1e-6)


def test_weights_sum_to_one_and_empty_aus_weigh_nothing():
    counts = np.array([[10, 5, 3, 2, 1, 1], [0, 0, 0, 0, 0, 0]])
    weights = intensity_weights(counts)
    assert weights.mse.sum(1).tolist() == pytest.approx([1.0, 0.0])
    assert weights.ordinal.sum((1, 2)).tolist() == pytest.approx([1.0, 0.0])
    assert torch.isfinite(weights.mse).all()


def test_counts_skip_invalid_labels():
    labels = np.array([[0, 5], [-1, 2.9], [1, np.nan], [0, -6]])
    assert count_levels(labels).tolist() == [[2, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 1]]
    assert count_occurrences(np.array([[0, 1], [-1, 1], [np.nan, 0]])).tolist() == [[1, 0], [1, 2]]
    with pytest.raises(ValueError, match="0 to 5"):
        count_levels(np.array([[6.0]]))


def _golden_loss_inputs():
    counts = np.array([WEIGHTS["AU_common"]["counts"], WEIGHTS["AU_rare"]["counts"]])
    output = AUOutput(
        torch.tensor(LOSS["reg"], requires_grad=True),
        torch.tensor(LOSS["class_logits"], requires_grad=True),
    )
    return output, torch.tensor(LOSS["labels"]), intensity_weights(counts)


def test_intensity_loss_golden():
    output, labels, weights = _golden_loss_inputs()
    loss = intensity_loss(output, labels, weights)
    assert loss.mse.item() == pytest.approx(LOSS["E_reg_mse"], rel=1e-6)
    assert loss.cos.item() == pytest.approx(LOSS["E_reg_cos"], rel=1e-6)
    assert loss.ordinal.item() == pytest.approx(LOSS["E_class"], rel=1e-6)
    assert loss.total.item() == pytest.approx(LOSS["total"], rel=1e-6)


def test_cosine_of_each_golden_sample():
    output, labels, _ = _golden_loss_inputs()
    each = [cosine_loss(output.intensity[i : i + 1], labels[i : i + 1]).item() for i in range(4)]
    assert each == pytest.approx(LOSS["per_sample_cos"], abs=1e-6)


@pytest.mark.parametrize("invalid", [-1.0, -6.0, float("nan")])
def test_invalid_labels_take_part_in_no_term(invalid):
    output, labels, weights = _golden_loss_inputs()
    labels = labels.clone()
    labels[3, 0] = invalid
    loss = intensity_loss(output, labels, weights)
    assert loss.total.item() == pytest.approx(LOSS["total"], rel=1e-6)
    loss.total.backward()
    assert output.intensity.grad[3, 0] == 0
    assert output.ordinal_logits.grad[3, 0].abs().sum() == 0
    assert output.intensity.grad[3, 1] != 0


def test_infinite_prediction_at_an_invalid_label_stays_out():
    intensity = torch.tensor([[float("inf"), 1.0]])
    loss = cosine_loss(intensity, torch.tensor([[-1.0, 1.0]]))
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


def test_all_zero_label_row_gives_one_and_no_gradient():
    intensity = torch.tensor([[0.3, -0.2]], requires_grad=True)
    loss = cosine_loss(intensity, torch.zeros(1, 2))
    loss.backward()
    assert loss.item() == 1.0
    assert intensity.grad.abs().max() == 0


def test_zero_predictions_give_finite_gradients():
    intensity = torch.zeros(2, 3, requires_grad=True)
    cosine_loss(intensity, torch.tensor([[1.0, 0, 2], [0, 0, 0]])).backward()
    assert torch.isfinite(intensity.grad).all()


def test_a_row_without_any_valid_label_adds_nothing():
    loss = cosine_loss(torch.ones(2, 2), torch.tensor([[-1.0, -1.0], [0.0, 0.0]]))
    assert loss.item() == pytest.approx(0.5)


def test_detection_loss_against_torch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 3, generator=generator)
    labels = (torch.rand(6, 3, generator=generator) > 0.5).float()
    weights = torch.tensor([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]])
    weight = torch.stack([weights[a, labels[:, a].long()] for a in range(3)], 1)
    expected = F.binary_cross_entropy_with_logits(logits, labels, weight=weight)
    assert detection_loss(logits, labels, weights).item() == pytest.approx(expected.item())


def test_detection_loss_masks_invalid_labels():
    logits = torch.tensor([[5.0, 1.0], [-2.0, 1e9]], requires_grad=True)
    labels = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    weights = torch.full((2, 2), 0.5)
    loss = detection_loss(logits, labels, weights)
    loss.backward()
    assert logits.grad[1, 1] == 0
    by_hand = 0.5 * (np.log1p(np.exp(-5)) + np.log1p(np.e) + np.log1p(np.exp(-2))) / 4
    assert loss.item() == pytest.approx(by_hand, rel=1e-5)


def test_half_precision_outputs_are_computed_in_float32():
    output, labels, weights = _golden_loss_inputs()
    half = AUOutput(output.intensity.half(), output.ordinal_logits.half())
    loss = intensity_loss(half, labels, weights)
    assert loss.total.dtype == torch.float32
    assert loss.total.item() == pytest.approx(LOSS["total"], rel=2e-3)


def test_wrong_shapes_are_named():
    weights = IntensityWeights(torch.ones(2, 6), torch.ones(2, 5, 2))
    output = AUOutput(torch.zeros(4, 2), torch.zeros(4, 2, 5))
    with pytest.raises(ValueError, match=r"\(4, 2\), but got \(4, 3\)"):
        intensity_loss(output, torch.zeros(4, 3), weights)
    with pytest.raises(ValueError, match=r"\(num_aus, 6\)"):
        mse_weights(np.ones((2, 5)))
