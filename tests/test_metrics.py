import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from siamcal.evaluation import metrics
from siamcal.evaluation.metrics import icc, icc_per_participant, icc_within, mae, mean_over_aus

GOLDEN = json.loads((Path(__file__).parent / "data" / "icc_golden.json").read_text())


@pytest.mark.parametrize("case", GOLDEN["cases"])
def test_icc_golden(case):
    values = GOLDEN["cases"][case]
    result = icc(np.array(values["model"])[:, None], np.array(values["label"])[:, None])
    expected = values["formula_anova"]
    if expected is None:
        assert np.isnan(result[0])
    else:
        assert result[0] == pytest.approx(expected, abs=1e-12)


def test_icc_golden_with_a_missing_value():
    case = GOLDEN["nan_case"]
    preds = np.array([np.nan if v is None else v for v in case["model"]])[:, None]
    labels = np.array(case["label"], dtype=float)[:, None]
    # A lost prediction isn't left out silently (pingouin raises); a missing label is.
    assert np.isnan(icc(preds, labels)[0])
    masked = np.where(np.isnan(preds), -1, labels)
    expected = case["formula_on_complete_pairs"]
    assert icc(np.nan_to_num(preds), masked)[0] == pytest.approx(expected, abs=1e-12)


def _pingouin(preds, labels):
    import pandas as pd
    import pingouin

    long = pd.DataFrame(
        {
            "frame": np.tile(np.arange(len(preds)), 2),
            "rater": np.repeat(["p", "y"], len(preds)),
            "score": np.concatenate([preds, labels]),
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = pingouin.intraclass_corr(long, targets="frame", raters="rater", ratings="score")
    return table.set_index("Type").loc["ICC(C,1)", "ICC"]


def _anova(preds, labels):
    """(BMS - EMS) / (BMS + EMS) with the sums of squares written out."""
    scores = np.stack([preds, labels], axis=1)
    n, k = scores.shape
    grand = scores.mean()
    between = k * ((scores.mean(1) - grand) ** 2).sum() / (n - 1)
    total = ((scores - grand) ** 2).sum()
    raters = n * ((scores.mean(0) - grand) ** 2).sum()
    error = (total - between * (n - 1) - raters) / ((n - 1) * (k - 1))
    return (between - error) / (between + (k - 1) * error)


def _random_case(seed):
    generator = np.random.default_rng(seed)
    n = int(generator.integers(5, 60))
    labels = generator.integers(0, 6, n) * (generator.random(n) < generator.uniform(0.2, 1))
    preds = generator.uniform(0, 1.5) * labels + generator.normal(0, 1, n)
    preds = preds + generator.uniform(-2, 2)
    if np.ptp(labels) == 0:
        labels[0] += 1
    return preds, labels.astype(float)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=500, deadline=None, database=None)
def test_icc_agrees_with_the_anova_formula(seed):
    preds, labels = _random_case(seed)
    assert icc(preds[:, None], labels[:, None])[0] == pytest.approx(
        _anova(preds, labels), abs=1e-12
    )


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=1000, deadline=None, database=None)
def test_icc_agrees_with_pingouin(seed):
    preds, labels = _random_case(seed)
    assert abs(icc(preds[:, None], labels[:, None])[0] - _pingouin(preds, labels)) < 1e-12


def test_constant_labels_give_zero_and_both_constant_nan():
    preds = np.array([[0.1, 0.1], [0.7, 0.1], [0.3, 0.1]])
    labels = np.array([[0.1, 2.0], [0.1, 2.0], [0.1, 2.0]])
    result = icc(preds, labels)
    assert result[0] == 0.0
    assert np.isnan(result[1])


def test_invalid_labels_are_masked_for_their_au_only():
    generator = np.random.default_rng(0)
    preds, labels = generator.normal(size=(20, 2)), generator.integers(0, 6, (20, 2)).astype(float)
    labels[3, 0], labels[7, 0] = -1, np.nan
    keep = np.delete(np.arange(20), [3, 7])
    for metric in (icc, mae):
        result = metric(preds, labels)
        assert result[0] == pytest.approx(metric(preds[keep], labels[keep])[0], abs=1e-13)
        assert result[1] == pytest.approx(metric(preds[:, 1:], labels[:, 1:])[0], abs=1e-13)


def test_invalid_labels_are_masked_inside_participants_too():
    generator = np.random.default_rng(0)
    preds, labels = generator.normal(size=(20, 1)), generator.integers(1, 6, (20, 1)).astype(float)
    participants = np.repeat(["a", "b"], 10)
    labels[3], labels[14] = -1, np.nan
    keep = np.delete(np.arange(20), [3, 14])
    expected = icc_within(preds[keep], labels[keep], participants[keep])
    np.testing.assert_allclose(icc_within(preds, labels, participants), expected, rtol=1e-12)


def test_an_au_without_valid_labels_is_nan_and_left_out_of_the_mean():
    preds, labels = np.zeros((4, 2)), np.array([[0.0, -1]] * 4)
    for name in ("mae", "f1", "accuracy", "precision", "recall"):
        values = metrics.get_metric(name)(preds, labels)
        assert not np.isnan(values[0])
        assert np.isnan(values[1])
        assert mean_over_aus(values) == values[0]
    assert np.isnan(mean_over_aus(np.array([np.nan])))


def test_nan_predictions_are_not_hidden():
    preds, labels = np.array([[np.nan, 1.0], [1.0, 2.0]]), np.array([[1.0, 1.0], [0.0, 1.0]])
    for name in ("icc", "mae", "f1", "accuracy", "precision", "recall"):
        values = metrics.get_metric(name)(preds, labels)
        assert np.isnan(values[0]), name
        if name != "icc":
            assert not np.isnan(values[1]), name


def test_within_participant_icc_is_the_plain_mean_with_constant_people_as_zero():
    preds = np.array([0, 1, 2, 3, 0.1, 0.4, 0.2, 0.3, 0.5, 0.5, 0.5, 0.5])[:, None]
    labels = np.array([0, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0.0])[:, None]
    participants = np.repeat(["b", "a", "c"], 4)
    people, each = icc_per_participant(preds, labels, participants)
    assert people.tolist() == ["a", "b", "c"]
    assert each[:2, 0].tolist() == [0.0, 1.0]
    assert np.isnan(each[2, 0])
    assert icc_within(preds, labels, participants)[0] == 0.5


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None, database=None)
def test_detection_metrics_agree_with_scikit_learn(seed):
    generator = np.random.default_rng(seed)
    n = int(generator.integers(1, 40))
    logits = generator.normal(generator.normal(0, 2), 1, (n, 3))
    labels = (generator.random((n, 3)) < generator.uniform(0, 1)).astype(float)
    theirs = {
        "f1": f1_score,
        "precision": precision_score,
        "recall": recall_score,
    }
    for a in range(3):
        said = logits[:, a] >= 0
        for name, function in theirs.items():
            expected = 100 * function(labels[:, a], said, zero_division=0)
            assert metrics.get_metric(name)(logits, labels)[a] == pytest.approx(expected, abs=1e-10)
        expected = 100 * accuracy_score(labels[:, a], said)
        assert metrics.accuracy(logits, labels)[a] == pytest.approx(expected, abs=1e-10)


def test_a_logit_of_zero_is_positive():
    counts = metrics.confusion(np.array([[0.0]]), np.array([[1.0]]))
    assert counts["tp"][0] == 1


def test_intensities_given_to_a_detection_metric_are_refused():
    with pytest.raises(ValueError, match="detection_targets"):
        metrics.f1(np.zeros((2, 1)), np.array([[3.0], [0.0]]))


def test_messages_name_what_was_given():
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(3, 1\)"):
        icc(np.zeros((3, 2)), np.zeros((3, 1)))
    with pytest.raises(ValueError, match=r"3 rows.*\(2,\)"):
        icc_within(np.zeros((3, 1)), np.zeros((3, 1)), np.array(["a", "b"]))
    with pytest.raises(ValueError, match="'iccc'"):
        metrics.get_metric("iccc")
