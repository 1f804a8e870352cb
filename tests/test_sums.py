"""Sums over participants: they give each metric back, and their statistics are numpy's."""

import numpy as np
import pytest

from siamcal.evaluation import sums as S
from siamcal.evaluation.metrics import METRICS, moments

RNG = np.random.default_rng(5)
GAPS = RNG.normal(2, 1, (9, 3))
GAPS[RNG.random(GAPS.shape) < 0.3] = np.nan
GAPS[:, 2] = np.nan
GAPS[4, 2] = 1.5


def data(task: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions, labels (some invalid, one AU constant) and participants of 90 frames."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2 if task == "detection" else 6, (90, 4)).astype(float)
    preds = labels + rng.normal(0, 1, labels.shape) - (0.5 if task == "detection" else 0)
    labels[:, 3] = 1
    labels[rng.random(labels.shape) < 0.1] = -1
    labels[rng.random(labels.shape) < 0.05] = np.nan
    return preds, labels, rng.choice(["c", "a", "b", "d"], 90)


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.sums])
def test_sums_of_participants_give_the_metric_back(name) -> None:
    metric = METRICS[name]
    preds, labels, participants = data(metric.task)
    people, sums = S.participant_sums(metric.sums, preds, labels, participants)
    assert people.tolist() == ["a", "b", "c", "d"]
    whole = S.mix(np.ones((1, 4)), sums)
    expected = metric(preds, labels, participants)
    np.testing.assert_allclose(metric.of_sums(whole)[0], expected, rtol=1e-9)
    # Drawing "b" twice and nobody else is having all of b's frames twice.
    twice = S.mix(np.array([[0.0, 2.0, 0.0, 0.0]]), sums)
    own = participants == "b"
    alone = metric(preds[own], labels[own], participants[own])
    np.testing.assert_allclose(metric.of_sums(twice)[0], alone, rtol=1e-9)


def test_moments_are_those_of_numpy_and_rounding_is_no_variance() -> None:
    p, y = RNG.normal(1e3, 1, 50), RNG.normal(2, 1, 50)

    def of(p, y):
        terms = {"n": np.ones(50), "p": p, "y": y, "pp": p * p, "yy": y * y, "py": p * y}
        return np.array(moments({name: term.sum(keepdims=True) for name, term in terms.items()}))

    expected = [50 * np.var(p), 50 * np.var(y), 50 * np.cov(p, y, ddof=0)[0, 1]]
    np.testing.assert_allclose(of(p, y)[:, 0], expected, rtol=1e-6)
    constant = np.full(50, 0.1)
    assert of(constant, y)[[0, 2], 0].tolist() == [0, 0]
    assert of(p, constant)[[1, 2], 0].tolist() == [0, 0]


def test_resamples_draw_as_many_people_as_there_are() -> None:
    weights = S.bootstrap_weights(5, 4000, seed=3)
    assert weights.shape == (4000, 5)
    assert (weights.sum(1) == 5).all()
    np.testing.assert_allclose(weights.mean(0), 1, atol=0.06)  # 4 standard errors
    assert np.array_equal(weights, S.bootstrap_weights(5, 4000, seed=3))
    assert not np.array_equal(weights, S.bootstrap_weights(5, 4000, seed=4))
    assert (S.bootstrap_weights(2, 3, 0).sum(1) == 2).all()
    assert np.isnan(S.bootstrap_weights(1, 3, 0)).all()


def test_means_spreads_and_percentiles_are_numpys() -> None:
    np.testing.assert_allclose(S.nanmean(GAPS, 0), np.nanmean(GAPS, 0))
    np.testing.assert_allclose(S.nanmean(GAPS[:, :2], 1), np.nanmean(GAPS[:, :2], 1))
    np.testing.assert_allclose(S.spread(GAPS)[:2], np.nanstd(GAPS[:, :2], 0, ddof=1))
    assert np.isnan(S.spread(GAPS)[2])  # one value has no spread
    found = S.percentiles(GAPS)
    np.testing.assert_allclose(found, np.nanpercentile(GAPS, [2.5, 97.5], axis=0).T)
    assert S.percentiles(np.zeros((4, 2, 3))).shape == (2, 3, 2)
    nothing = np.full((3, 1), np.nan)
    for statistic in (S.percentiles, S.spread, lambda v: S.nanmean(v, 0)):
        assert np.isnan(statistic(nothing)).all()


def test_a_share_of_nothing_is_nan() -> None:
    assert S.ratio(np.array([3.0, 0.5]), np.array([2.0, 0.5])).tolist() == [1.5, 1]
    assert np.isnan(S.ratio(np.array([0.0]), np.array([0.0]))).all()
    assert S.ratio(np.ones((2, 1)), np.full((1, 3), 4.0)).shape == (2, 3)


def test_numbers_for_json() -> None:
    assert S.for_json((np.array([1.5, np.nan]), 2, [np.float32(0.5)])) == [[1.5, None], 2, [0.5]]
    assert type(S.for_json(3)) is int
