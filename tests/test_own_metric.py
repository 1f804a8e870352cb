"""A metric of one's own is one registered function; everything else finds it."""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import facesets
import numpy as np
import pytest
from test_card import config

from siamcal.calibrators.card import model_card
from siamcal.errors import ConfigError
from siamcal.evaluation.compare import Job, compare
from siamcal.evaluation.figures import per_au_bars
from siamcal.evaluation.intervals import metric_interval, paired_difference
from siamcal.evaluation.metrics import METRICS, get_metric, icc_within, mae, metric
from siamcal.evaluation.review import read_run, review, review_markdown
from siamcal.evaluation.tables import markdown, summary_table


def rmse(preds: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean((preds - labels) ** 2, axis=0, where=labels >= 0))


@pytest.fixture
def registered() -> Iterator[Any]:
    """Registers metrics and forgets them after the test."""
    before = dict(METRICS)
    yield metric
    METRICS.clear()
    METRICS.update(before)


def test_a_new_metric_shows_up_everywhere(registered, tmp_path) -> None:
    registered("rmse", "intensity", "RMSE", headline=True, higher_is_better=False)(rmse)
    faces = facesets.squares(tmp_path, people=8, frames=24)
    recipe = dataclasses.replace(facesets.RECIPE, steps=3, batch_size=16)
    folder = tmp_path / "run"
    job = Job(recipe, folder, methods=("ncg", "csn"), seeds=(42, 43), folds=(0,))
    comparison = compare(job, faces)
    results, (found,) = read_run(folder)
    preds, expected = found.preds["csn"], rmse(found.preds["csn"], found.labels)
    np.testing.assert_allclose(METRICS["rmse"](preds, found.labels), expected)
    cell = results["methods"]["csn"]["intensity"]["rmse"]
    assert cell["mean"] == pytest.approx(expected.mean())
    low, high = cell["interval"]
    assert low < cell["mean"] < high
    assert results["differences"]["csn-ncg"]["intensity"]["rmse"]["p_value"] <= 1
    shown = METRICS["rmse"].text(cell["mean"])
    assert summary_table(results, "intensity").loc["CSN", "RMSE"].startswith(f"{shown} [")
    text = markdown(results)
    assert "| method | ICC(3,1) | within-participant ICC(3,1) | MAE | RMSE |" in text
    assert "### RMSE" in text
    assert "CSN RMSE" in text  # among the seeds
    table = "| method | ICC(3,1) | MAE | RMSE | within-participant ICC(3,1) |"
    card = model_card(config(), json.loads((folder / "results.json").read_text()))
    assert table in card
    assert "RMSE, mean over AUs" in card
    people = sorted(set(found.participants))
    groups = dict.fromkeys(people, "all")
    reviewed = review(results, found, groups, resamples=100)
    assert reviewed["differences"]["csn-ncg"]["rmse"]["mean"] < 10
    assert reviewed["groups"]["csn"]["rmse"]["all"]["mean"] == pytest.approx(expected.mean())
    assert reviewed["sanity"]["zero"]["rmse"] > 0
    assert "| CSN − NCG, RMSE |" in review_markdown(results, [reviewed])
    figure = per_au_bars(comparison.results, "intensity", "rmse")
    assert figure.axes[0].get_ylabel() == "RMSE (lower is better)"


def test_afterwards_it_is_unknown_and_the_message_says_what_to_do() -> None:
    with pytest.raises(
        ValueError, match=r"but got 'rmse'\. Your own is known once .*registered it"
    ):
        get_metric("rmse")


@pytest.mark.parametrize(("known", "function"), [("mae", mae), ("icc_within", icc_within)])
def test_without_sums_the_resamples_are_computed_anew_and_equal(known, function, registered):
    generator = np.random.default_rng(0)
    participants = np.repeat([f"P{i}" for i in range(9)], 12)
    labels = generator.integers(0, 6, (108, 2)).astype(float)
    labels[5, 0] = -1
    a, b = (labels + generator.normal(0, s, labels.shape) for s in (0.5, 1.5))
    facts = {"needs_participants": METRICS[known].needs_participants}
    registered("anew", "intensity", "computed anew", **facts)(function)
    fast, slow = (
        metric_interval(name, a, labels, participants, resamples=60).to_dict((1, 12))
        for name in (known, "anew")
    )
    _equal(slow, fast)
    fast, slow = (
        paired_difference(name, a, b, labels, participants, resamples=60).to_dict((1, 12))
        for name in (known, "anew")
    )
    _equal(slow, fast)
    own = participants == "P3"  # one participant: a value, but no interval
    alone = metric_interval("anew", a[own], labels[own], participants[own], resamples=10)
    assert np.isfinite(alone.mean)
    assert np.isnan(alone.interval).all()


def _equal(found: Any, expected: Any) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        if isinstance(value, dict):
            _equal(found[name], value)
        else:
            assert found[name] == pytest.approx(value, rel=1e-9), name


@pytest.mark.parametrize(
    ("description", "says"),
    [
        (("icc", "intensity", "mine"), "choose others"),
        (("mine", "intensity", "MAE"), "choose others"),
        (("mine", "valence", "mine"), "task is 'valence'; allowed: intensity, detection"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(description, says, registered) -> None:
    with pytest.raises(ConfigError, match=says):
        registered(*description)(rmse)
    with pytest.raises(ConfigError, match="give both or neither"):
        registered("mine", "intensity", "mine", of_sums=lambda sums: sums["n"])(rmse)
