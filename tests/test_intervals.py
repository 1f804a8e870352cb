import json

import numpy as np
import pytest

from siamcal.evaluation import intervals, metrics
from siamcal.evaluation.agreement import across_and_within, bland_altman, participant_bias
from siamcal.evaluation.blind import blind_predictors
from siamcal.evaluation.intervals import (
    by_participant,
    group_results,
    holm,
    metric_interval,
    paired_difference,
)
from siamcal.evaluation.metrics import METRICS


def _people(count=12, frames=80, aus=3, noise=0.6, bias=0.8, seed=0):
    """Labels, biased predictions (NCG-like) and unbiased ones (CSN-like) of `count` people."""
    generator = np.random.default_rng(seed)
    participants = np.repeat([f"P{i:02d}" for i in range(count)], frames)
    labels = generator.integers(0, 6, (count * frames, aus)) * (
        generator.random((count * frames, aus)) < 0.4
    )
    person = np.repeat(generator.normal(0, bias, (count, aus)), frames, axis=0)
    clean = 0.8 * labels + generator.normal(0, noise, labels.shape)
    return labels.astype(float), clean + person, clean, participants


def _for_task(metric, labels, preds):
    if METRICS[metric].task == "detection":
        return np.where(labels >= 0, labels >= 2, -1).astype(float), preds - 1.5
    return labels, preds


@pytest.mark.parametrize("metric", METRICS)
def test_sums_give_the_metric_itself(metric):
    labels, preds, _, participants = _people()
    labels[5, 0], labels[:100, 1] = -1, np.nan
    labels, preds = _for_task(metric, labels, preds)
    people = by_participant(metric, preds, labels, participants)
    expected = metrics.get_metric(metric)(preds, labels, participants)
    np.testing.assert_allclose(people.whole(), expected, rtol=1e-10)
    shuffled = np.random.default_rng(1).permutation(len(preds))
    again = by_participant(metric, preds[shuffled], labels[shuffled], participants[shuffled])
    for name, part in people.parts.items():
        np.testing.assert_allclose(again.parts[name], part, atol=1e-8)


@pytest.mark.parametrize("metric", METRICS)
def test_bootstrap_equals_resampling_the_frames_of_whole_participants(metric):
    labels, preds, _, participants = _people(count=5, frames=30)
    labels, preds = _for_task(metric, labels, preds)
    result = metric_interval(metric, preds, labels, participants, resamples=200, seed=3)
    draws = np.random.default_rng(3).multinomial(5, np.full(5, 0.2), size=200)
    names = np.unique(participants)
    slow = []
    for counts in draws:
        rows, people = [], []
        for p, times in enumerate(counts):
            for copy in range(times):
                own = np.flatnonzero(participants == names[p])
                rows.append(own)
                people += [f"{names[p]}-{copy}"] * len(own)
        rows = np.concatenate(rows)
        slow.append(metrics.get_metric(metric)(preds[rows], labels[rows], np.array(people)))
    slow = np.array(slow)
    expected = np.percentile(slow.mean(1), [2.5, 97.5])
    np.testing.assert_allclose(result.interval, expected, rtol=1e-9)
    np.testing.assert_allclose(
        result.per_au_interval, np.percentile(slow, [2.5, 97.5], axis=0).T, rtol=1e-9
    )


def test_two_thousand_resamples_look_at_each_frame_once(monkeypatch):
    seen = []
    really = intervals.participant_sums
    monkeypatch.setattr(
        intervals, "participant_sums", lambda *a: seen.append(len(a[1])) or really(*a)
    )
    monkeypatch.setattr(
        metrics.Metric, "__call__", lambda *a: pytest.fail("went through the frames")
    )
    labels, preds, clean, participants = _people(count=27, frames=400, aus=12)
    result = paired_difference("icc", clean, preds, labels, participants, resamples=2000)
    assert seen == [len(preds)] * 2  # once for each method
    assert result.resamples == 2000
    assert result.per_au_interval.shape == (12, 2)


def test_an_interval_holds_its_mean_and_narrows_with_more_participants():
    widths = []
    for count in (6, 60):
        labels, preds, _, participants = _people(count=count, frames=20)
        result = metric_interval("icc", preds, labels, participants)
        low, high = result.interval
        assert low < result.mean < high
        assert result.mean == pytest.approx(metrics.icc(preds, labels).mean())
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_interval_coverage_of_a_known_mean():
    # Mean absolute error with person effects: the true value is known by simulation.
    truth = np.mean(np.abs(np.random.default_rng(9).normal(0, 1, 400_000)))
    hits = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        person = np.repeat(generator.normal(0, 1, 40), 25)
        participants = np.repeat(np.arange(40).astype(str), 25)
        result = metric_interval(
            "mae", person[:, None], np.zeros((1000, 1)), participants, resamples=400
        )
        hits += result.interval[0] <= truth <= result.interval[1]
    assert 86 <= hits <= 99  # resampling the 1,000 frames instead would cover about 30


def test_one_participant_has_no_interval():
    labels, preds, _, participants = _people(count=1)
    result = metric_interval("icc", preds, labels, participants)
    assert np.isfinite(result.mean)
    assert np.isnan(result.interval).all()
    assert json.loads(json.dumps(result.to_dict([1, 2, 4])))["interval"] == [None, None]


def test_paired_difference_finds_a_removed_bias_and_no_other():
    labels, preds, clean, participants = _people(count=20)
    found = paired_difference("icc", clean, preds, labels, participants)
    assert found.mean == pytest.approx(
        metrics.icc(clean, labels).mean() - metrics.icc(preds, labels).mean()
    )
    assert found.excludes_zero
    assert found.interval[0] > 0
    assert found.p_value < 0.01
    back = paired_difference("icc", preds, clean, labels, participants)
    np.testing.assert_allclose(back.interval, [-found.interval[1], -found.interval[0]])
    generator = np.random.default_rng(5)
    twin = clean + generator.normal(0, 0.01, clean.shape)
    nothing = paired_difference("icc", clean, twin, labels, participants)
    assert nothing.p_value > 0.01
    same = paired_difference("icc", clean, clean, labels, participants)
    assert same.mean == 0
    assert same.p_value == 1
    assert not same.excludes_zero


def test_permutation_is_exact_for_few_participants():
    labels, preds, clean, participants = _people(count=4, bias=3.0)
    result = paired_difference("mae", clean, preds, labels, participants)
    assert result.exact
    # 16 swaps; the observed one and its mirror image are the most extreme ones possible.
    assert result.p_value == pytest.approx(2 / 16)


def test_permutation_p_values_are_uniform_under_the_null():
    p_values = []
    for seed in range(120):
        generator = np.random.default_rng(seed)
        labels, participants = np.zeros((60, 1)), np.repeat(np.arange(15).astype(str), 4)
        a, b = (np.repeat(generator.normal(0, 1, 15), 4)[:, None] for _ in range(2))
        p_values.append(paired_difference("mae", a, b, labels, participants, resamples=200).p_value)
    assert 0.35 < np.mean(p_values) < 0.65
    assert np.mean(np.array(p_values) < 0.1) < 0.2


def test_participant_bias_and_across_against_within():
    labels, preds, clean, participants = _people(count=15, bias=1.5)
    people, bias = participant_bias(preds, labels, participants)
    assert people.tolist() == sorted(set(participants))
    own = participants == "P03"
    np.testing.assert_allclose(bias[3], (preds[own] - labels[own]).mean(0))
    biased = across_and_within(preds, labels, participants)
    clear = across_and_within(clean, labels, participants)
    np.testing.assert_allclose(biased.within, metrics.icc_within(preds, labels, participants))
    assert (clear.across > biased.across + 0.1).all()
    assert np.allclose(clear.within, biased.within)  # a person's offset doesn't change it
    assert (biased.bias_sd > 3 * clear.bias_sd).all()
    assert biased.undefined.tolist() == [0, 0, 0]


def test_bland_altman_against_plain_numpy():
    labels, preds, _, participants = _people(count=10)
    result = bland_altman(preds, labels, participants)
    difference, middle = preds - labels, (preds + labels) / 2
    np.testing.assert_allclose(result.bias, difference.mean(0))
    np.testing.assert_allclose(result.sd, difference.std(0, ddof=1))
    np.testing.assert_allclose(result.upper, difference.mean(0) + 1.96 * difference.std(0, ddof=1))
    slopes = [np.polyfit(middle[:, a], difference[:, a], 1)[0] for a in range(3)]
    np.testing.assert_allclose(result.slope, slopes)
    own = np.stack([difference[participants == p].mean(0) for p in np.unique(participants)])
    np.testing.assert_allclose(result.between_sd, own.std(0, ddof=1))
    assert (result.bias_interval[:, 0] < result.bias).all()
    assert (result.lower_interval[:, 1] < result.upper_interval[:, 0]).all()
    together = bland_altman(preds, labels, participants, pooled=True)
    np.testing.assert_allclose(together.bias, [difference.mean()])
    np.testing.assert_allclose(together.sd, [difference.std(ddof=1)])
    np.testing.assert_allclose(
        together.slope, [np.polyfit(middle.ravel(), difference.ravel(), 1)[0]]
    )


def test_groups_hold_their_own_participants():
    labels, preds, _, participants = _people(count=6)
    groups = {"P00": "f", "P01": "f", "P02": "f", "P03": "m", "P04": None}
    result = group_results("mae", preds, labels, participants, groups, resamples=100)
    assert list(result) == ["f", "m", "unknown"]
    assert [r.participants for r in result.values()] == [3, 1, 2]
    rows = np.isin(participants, ["P00", "P01", "P02"])
    np.testing.assert_allclose(result["f"].per_au, metrics.mae(preds[rows], labels[rows]))
    assert np.isnan(result["m"].interval).all()


def test_constant_and_chance_predictors_are_worth_nothing():
    labels, _, _, participants = _people(count=10, frames=300)
    for name, preds in blind_predictors(labels, len(labels)).items():
        assert preds.shape == labels.shape
        result = metric_interval("icc", preds, labels, participants)
        assert abs(result.mean) < 0.05, name
    occurrence = (labels >= 2).astype(float)
    predictors = blind_predictors(occurrence, len(labels), task="detection")
    assert set(predictors) == {"never", "always", "majority", "chance"}
    assert metrics.f1(predictors["never"], occurrence).tolist() == [0, 0, 0]
    assert metrics.recall(predictors["always"], occurrence).tolist() == [100, 100, 100]
    rate = 100 * occurrence.mean(0)
    np.testing.assert_allclose(metrics.f1(predictors["chance"], occurrence), rate, atol=5)


def test_holm_by_hand():
    adjusted = holm(np.array([0.04, 0.01, np.nan, 0.03, 0.5]))
    # 0.01 x 4, 0.03 x 3, 0.04 x 2 raised to the one before, 0.5 x 1
    np.testing.assert_allclose(adjusted, [0.09, 0.04, np.nan, 0.09, 0.5])
    assert holm(np.array([0.9, 0.8])).tolist() == [1, 1]


def test_undefined_aus_are_reported_as_none_and_dont_poison_the_mean():
    labels, preds, _, participants = _people(count=5)
    labels[:, 1] = -1
    result = metric_interval("icc", preds, labels, participants, resamples=50)
    assert np.isnan(result.per_au[1])
    assert np.isfinite(result.interval).all()
    stored = result.to_dict([1, 2, 4])
    assert stored["per_au"]["AU02"] is None
    assert stored["per_au_interval"]["AU02"] == [None, None]
