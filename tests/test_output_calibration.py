"""OutputCalibration against oracles that don't share its code, and its laws by hypothesis."""

import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import siamcal
from siamcal import OutputCalibration
from siamcal.errors import ConfigError

RNG = np.random.default_rng(0)
VALUES = st.floats(0, 5, width=32).map(float)


def readings(rows=40, units=3, seed=0):
    return np.random.default_rng(seed).gamma(1, 1, (rows, units)).clip(0, 5)


@cache
def fitted(mode, **settings):
    """12 people, 30 rows each, 3 AUs."""
    people = np.repeat(np.arange(12), 30)
    rest = np.random.default_rng(2).gamma(1, 0.5, (12, 3))
    noise = 0.2 if mode == "shrunken" else 1.0
    rows = rest[people] + np.random.default_rng(3).gamma(1, noise, (360, 3))
    return OutputCalibration(mode, **settings).fit(rows, people), rows, people


def test_it_is_exported_and_light():
    assert siamcal.OutputCalibration is OutputCalibration
    assert "OutputCalibration" in siamcal.__all__


def test_the_example_of_its_page_runs(tmp_path, monkeypatch):
    page = (Path(__file__).parent.parent / "docs" / "recalibrate.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(compile(example, "docs/recalibrate.md", "exec"), scope)
    wanted = scope["readings"] - scope["readings"][:30].mean(axis=0)
    np.testing.assert_allclose(
        OutputCalibration()(scope["readings"], scope["readings"][:30]), wanted
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shift_is_baseline_subtraction_bit_for_bit(dtype):
    """As siamcal/evaluation/compare.py makes BS: plain[rows] - plain[reference_rows]."""
    plain = RNG.normal(size=(200, 12)).astype(dtype)
    reference_rows = np.repeat([3, 70, 150], [60, 80, 60])
    bs = plain - plain[reference_rows]
    for row in (3, 70, 150):
        mine = reference_rows == row
        for reference in (plain[row], plain[row : row + 1]):
            found = OutputCalibration()(plain[mine], reference)
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, bs[mine])


def test_what_is_masked_is_not_read():
    masked = np.ma.masked_greater(np.array([[1.0, 99.0], [3.0, 1.0]]), 50)
    found = OutputCalibration()(masked, masked)
    np.testing.assert_array_equal(found, [[-1, np.nan], [1, 0]])
    np.testing.assert_array_equal(OutputCalibration()([[2.0, 2.0]], masked[1]), [[-1, 1]])


def test_several_neutral_rows_are_averaged_over_their_numbers():
    rows = np.array([[1.0, np.nan], [2.0, 0.5], [6.0, 1.5]])
    found = OutputCalibration()(np.array([[4.0, 2.0], [np.nan, 1.0]]), rows)
    np.testing.assert_array_equal(found, [[1.0, 1.0], [np.nan, 0.0]])


def test_empirical_bayes_is_the_posterior_mean_of_the_normal_model():
    """Against conjugate normals: precision-weighted mean of the prior and the person's rows."""
    calibration, _, _ = fitted("shrunken")
    facts = calibration.people
    own = np.random.default_rng(5).normal(1, 0.3, (7, 3))
    precision = 7 / facts.within
    prior = 1 / facts.between
    posterior = (precision * own.mean(0) + prior * facts.mean) / (precision + prior)
    x = readings()
    np.testing.assert_allclose(calibration(x, own), x - posterior, rtol=1e-12)


def test_the_variances_are_those_of_a_balanced_analysis_of_variance():
    calibration, rows, people = fitted("shrunken")
    table = pd.DataFrame(rows).groupby(people)
    means, within = table.mean(), table.var(ddof=1).mean()
    np.testing.assert_allclose(calibration.people.mean, means.mean())
    np.testing.assert_allclose(calibration.people.within, within)
    np.testing.assert_allclose(calibration.people.between, means.var(ddof=1) - within / 30)


def test_the_estimated_shrinkage_reads_rest_better_than_shift_where_neutrals_are_noisy():
    rng = np.random.default_rng(8)
    rest = rng.normal(1, 0.2, (400, 1))
    noisy = rest[:, None] + rng.normal(0, 0.6, (400, 2, 1))  # two neutral rows a person
    calibration = OutputCalibration("shrunken")
    calibration.fit(noisy[:200].reshape(-1, 1), np.repeat(np.arange(200), 2))
    errors = {"shift": [], "shrunken": []}
    for truth, rows in zip(rest[200:], noisy[200:], strict=True):
        errors["shift"].append(OutputCalibration()(truth[None], rows)[0, 0])
        errors["shrunken"].append(calibration(truth[None], rows)[0, 0])
    spread = {name: float(np.mean(np.square(values))) for name, values in errors.items()}
    assert spread["shrunken"] < 0.5 * spread["shift"]


def test_without_people_the_shrinkage_is_james_and_steins_and_needs_two_rows():
    rows = np.array([[1.0, 0.1, 0.0], [1.2, -0.1, 0.0], [1.1, 0.06, 0.0]])
    n, v = rows.mean(0), rows.var(0, ddof=1) / 3
    kept = [max(0, 1 - v[0] / n[0] ** 2), max(0, 1 - v[1] / n[1] ** 2), 0]
    assert kept[0] > 0.99
    assert kept[1] == 0
    x = readings()
    found = OutputCalibration("shrunken")(x, rows)
    np.testing.assert_allclose(found, x - np.array(kept) * n, atol=1e-15)
    with pytest.raises(ConfigError, match="two or more neutral rows"):
        OutputCalibration("shrunken")(x, rows[:1])


def test_a_given_shrinkage_draws_towards_the_people_or_to_zero():
    x, own = readings(), np.array([1.0, 2.0, 0.0])
    np.testing.assert_array_equal(OutputCalibration("shrunken", 1.0)(x, own), x - own)
    np.testing.assert_array_equal(OutputCalibration("shrunken", 0.0)(x, own), x)
    people = OutputCalibration("shrunken", 0.25).fit([[1, 1, 1], [3, 1, 1]], ["a", "b"])
    np.testing.assert_allclose(people(x, own), x - [1.75, 1.25, 0.75])
    with pytest.raises(ConfigError, match="one neutral row"):
        OutputCalibration("shrunken").fit([[1, 1, 1], [3, 1, 1]], ["a", "b"])


def test_quantiles_give_a_person_the_distribution_of_the_people_at_rest_0():
    calibration, rows, people = fitted("quantile")
    own = 0.7 + 3 * np.random.default_rng(9).gamma(1, 1.0, (4000, 3))  # shifted and stretched
    found = calibration(own, own)
    others = np.array(
        [rows[people == p] - np.quantile(rows[people == p], 0.1, 0) for p in range(12)]
    )
    for share in (0.1, 0.3, 0.5, 0.8, 0.95):
        wanted = np.quantile(others, share, axis=1).mean(0)
        np.testing.assert_allclose(np.quantile(found, share, axis=0), wanted, atol=0.02)
    lowest = np.quantile(own, 0.1, axis=0)
    np.testing.assert_allclose(calibration(lowest[None], own), 0, atol=1e-12)


def test_a_person_who_rests_half_the_time_stays_at_0_there():
    calibration, _, _ = fitted("quantile")
    own = np.where(np.arange(100)[:, None] < 50, 0.3, 2.0) * np.ones(3)
    found = calibration(own, own)
    assert (found[:50] == 0).all()
    assert (found[50:] > 0.1).all()


def test_monotone_keeps_rest_at_0_and_the_top_at_the_top():
    calibration = OutputCalibration("monotone", span=(0, 5))
    found = calibration([[0.5, 1], [1, 1], [3, 5], [5, 3]], [1.0, 1.0])
    np.testing.assert_allclose(found, [[0, 0], [0, 0], [2.5, 5], [5, 2.5]])
    with pytest.raises(ConfigError, match="rests at 5"):
        calibration(readings(), [1.0, 5.0, 0.0])


def test_a_quantile_of_unlabelled_frames_is_a_neutral_too():
    x = readings(200)
    for mode, span in (("shift", None), ("monotone", (0, 5))):
        found = OutputCalibration(mode, quantile=0.2, span=span)(x, x)
        wanted = OutputCalibration(mode, span=span)(x, np.quantile(x, 0.2, axis=0))
        np.testing.assert_array_equal(found, wanted)
    with pytest.raises(ConfigError, match="20 or more"):
        OutputCalibration(quantile=0.2)(x, x[:19])


def every(span):
    yield OutputCalibration("shift", span=span)
    yield OutputCalibration("shrunken", 0.6, span=span)
    yield OutputCalibration("shrunken", span=span)
    yield OutputCalibration("monotone", span=span or (0, 5))
    yield OutputCalibration("shift", quantile=0.1, span=span)
    yield fitted("quantile", span=span)[0]


@settings(max_examples=40, deadline=None)
@given(
    arrays.arrays(float, (25, 3), elements=VALUES),
    arrays.arrays(float, (25, 3), elements=st.floats(0, 4.9)),
    st.sampled_from([None, (0.0, 5.0)]),
)
def test_every_mode_is_monotone_and_keeps_nan(x, reference, span):
    x = np.sort(x, axis=0)
    for calibration in every(span):
        found = calibration(x, reference)
        assert (np.diff(found, axis=0) >= -1e-9).all()
        if span:
            assert found.min() >= span[0]
            assert found.max() <= span[1]
        holes = np.where(np.arange(25)[:, None] % 3 == 0, np.nan, x)
        with_holes = calibration(holes, reference)
        np.testing.assert_array_equal(with_holes, np.where(np.isnan(holes), np.nan, found))


@settings(max_examples=40, deadline=None)
@given(arrays.arrays(float, (5, 3), elements=VALUES))
def test_a_reference_of_zeros_changes_nothing(x):
    for calibration in (
        OutputCalibration(),
        OutputCalibration("shrunken", 0.5),
        OutputCalibration("shrunken"),
        OutputCalibration("monotone", span=(0, 5)),
    ):
        np.testing.assert_array_equal(calibration(x, np.zeros((2, 3))), x)


@pytest.mark.parametrize("mode", ["shift", "shrunken", "quantile", "monotone"])
def test_json_gives_the_same_numbers_back(mode, tmp_path):
    span = (0.0, 5.0)
    made = (
        fitted(mode, span=span)[0]
        if mode in ("shrunken", "quantile")
        else OutputCalibration(mode, span=span)
    )
    made.save(tmp_path / "c.json")
    again = OutputCalibration.load(tmp_path / "c.json")
    x, own = readings(), readings(30, seed=4)
    np.testing.assert_array_equal(again(x, own), made(x, own))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "x"}, "isn't what"),
        ({"version": 2}, "version 2"),
        ({"extra": 1}, "extra"),
        ({"mode": "best"}, "mode is 'best'"),
        ({"shrinkage": True}, "number is needed"),
        ({"span": [1, 5]}, "lies between"),
        ({"quantile": 0.5}, "known to be neutral"),
        ({"people": {"mean": [0.0]}}, "must hold"),
        ({"people": {"mean": [float("nan")] * 3}}, "must hold"),
    ],
)
def test_a_changed_file_is_refused(change, words, tmp_path):
    path = tmp_path / "c.json"
    fitted("shrunken")[0].save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match=words):
        OutputCalibration.load(path)


@pytest.mark.parametrize("field", ["grid", "quantiles"])
def test_saved_ranks_and_quantiles_of_another_shape_are_refused(field, tmp_path):
    path = tmp_path / "c.json"
    fitted("quantile")[0].save(path)
    saved = json.loads(path.read_text())
    saved["people"][field] = [[value] for value in saved["people"][field]]
    path.write_text(json.dumps(saved))
    with pytest.raises(ConfigError, match="what mode 'quantile' needs"):
        OutputCalibration.load(path)


@pytest.mark.parametrize("field", ["mean", "within", "between"])
@pytest.mark.parametrize(
    "value", [[float("nan")] * 3, [-1.0, 0.0], "abc", [[1.0, 2.0], [1.0]], None]
)
def test_a_saved_fact_that_is_none_is_refused(field, value, tmp_path):
    path = tmp_path / "c.json"
    fitted("shrunken")[0].save(path)
    found = json.loads(path.read_text())
    found["people"][field] = value
    path.write_text(json.dumps(found))
    with pytest.raises(ConfigError, match="people"):
        OutputCalibration.load(path)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: OutputCalibration("best"), "shift, shrunken"),
        (lambda: OutputCalibration("shift", 0.5), "mode 'shrunken'"),
        (lambda: OutputCalibration("shrunken", 1.5), "from 0 to 1"),
        (lambda: OutputCalibration("shrunken", float("nan")), "from 0 to 1"),
        (lambda: OutputCalibration(quantile=1.0), "between 0 and 1"),
        (lambda: OutputCalibration("shrunken", quantile=0.1), "neutral"),
        (lambda: OutputCalibration("monotone"), "span="),
        (lambda: OutputCalibration(span=(1, 5)), "lies between"),
        (lambda: OutputCalibration(span=5), "lowest and a highest"),
        (lambda: OutputCalibration()([1.0], [1.0]), r"\(N, A\)"),
        (lambda: OutputCalibration()([["a"]], [1.0]), "real numbers"),
        (lambda: OutputCalibration()([[1 + 2j]], [1.0]), "real numbers"),
        (lambda: OutputCalibration()([[True]], [1.0]), "real numbers"),
        (lambda: OutputCalibration()([[1.0]], [[[1.0]]]), "shape"),
        (lambda: OutputCalibration()([[1.0]], np.empty((0, 1))), "no row"),
        (lambda: OutputCalibration()([[1.0, 2.0]], [1.0]), "2 AUs"),
        (lambda: OutputCalibration()([[np.inf]], [1.0]), "row 0, column 0"),
        (lambda: OutputCalibration()([[1.0]], [np.nan]), "no number in column 0"),
        (lambda: OutputCalibration("quantile")(readings(), readings()), "fit"),
        (lambda: OutputCalibration().fit(readings(), np.zeros(40)), "learns nothing"),
        (lambda: OutputCalibration("shrunken").fit(readings(), np.zeros(40)), "two or more people"),
        (lambda: OutputCalibration("shrunken").fit(readings(), [1, 2]), "one person a row"),
        (
            lambda: OutputCalibration("quantile").fit(readings(19), np.zeros(19)),
            "Person 0.* has 19",
        ),
        (lambda: OutputCalibration("shrunken").fit(np.ones((2, 2)), ["a", None]), "None or NaN"),
        (lambda: OutputCalibration("shrunken").fit(np.ones((2, 2)), [1, np.nan]), "None or NaN"),
        (lambda: OutputCalibration(names="AU01"), "text for each"),
        (lambda: fitted("shrunken")[0](readings(units=2), [0.0, 0.0]), "fitted to 3"),
        (lambda: OutputCalibration("shrunken", 0.5).fit(np.ones((2, 2)), [[1], [2]]), "shape"),
    ],
)
def test_what_would_give_a_wrong_number_is_refused(call, words):
    with pytest.raises(ConfigError, match=words):
        call()


def test_tables_with_other_columns_are_refused():
    table = pd.DataFrame(readings(), columns=["AU01", "AU02", "AU04"])
    found = OutputCalibration()(table, table.iloc[:1])
    np.testing.assert_array_equal(found, table.to_numpy() - table.to_numpy()[:1])
    with pytest.raises(ConfigError, match="another order"):
        OutputCalibration()(table, table.iloc[:1][["AU02", "AU01", "AU04"]])


def test_a_calibration_with_names_fits_no_other_columns(tmp_path):
    OutputCalibration(names=("AU01", "AU02")).save(tmp_path / "c.json")
    made = OutputCalibration.load(tmp_path / "c.json")
    assert made.names == ("AU01", "AU02")
    table = pd.DataFrame([[1.0, 2.0]], columns=["AU02", "AU01"])
    with pytest.raises(ConfigError, match="in this order"):
        made(table, table)
    with pytest.raises(ConfigError, match=r"for 2 AUs \(AU01, AU02\); 3"):
        made(readings(), readings())
    with pytest.raises(ConfigError, match="in AU02, which"):
        made(readings(units=2), [0.0, np.nan])


def test_an_au_that_was_never_read_stays_nan_and_its_place_is_kept():
    calibration, _, _ = fitted("shrunken")
    x, own = readings(), readings(5, seed=6)
    whole = calibration(x, own)
    x[:, 0], own[:, 0] = np.nan, np.nan
    found = calibration(x, own)
    assert np.isnan(found[:, 0]).all()
    np.testing.assert_array_equal(found[:, 1:], whole[:, 1:])
