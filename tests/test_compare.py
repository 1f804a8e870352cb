import dataclasses
import json

import facesets
import numpy as np
import pandas as pd
import pytest
import torch
from facesets import squares
from torch import nn

from siamcal.errors import ConfigError
from siamcal.evaluation import figures, metrics
from siamcal.evaluation.agreement import bland_altman
from siamcal.evaluation.compare import Job, compare, cross_validate, sweep_points
from siamcal.evaluation.figures import write_figures
from siamcal.evaluation.predictions import TaskPredictions
from siamcal.evaluation.review import read_run, review, review_markdown
from siamcal.evaluation.tables import (
    blind_table,
    markdown,
    metric_table,
    paper_comparison,
    summary_table,
    to_latex,
    write_report,
)
from siamcal.preprocessing import Preprocessing
from siamcal.registry import backbones
from siamcal.settings import from_dict
from siamcal.training.loop import fit
from siamcal.training.prediction import predict
from siamcal.training.recipe import Recipe

pytestmark = pytest.mark.slow

RECIPE = dataclasses.replace(facesets.RECIPE, steps=40, batch_size=16)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    torch.set_num_threads(1)
    return squares(tmp_path_factory.mktemp("squares"), people=8, frames=24)


@pytest.fixture(scope="module")
def run(faces, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "example"
    tasks, methods = ("intensity", "detection"), ("ncg", "bs", "csn", "csn@output")
    comparison = compare(Job(RECIPE, folder, tasks, methods), faces)
    return folder, comparison


def test_results_have_every_cell_and_load_back(run) -> None:
    folder, comparison = run
    results = json.loads((folder / "results.json").read_text())
    assert results == json.loads(json.dumps(comparison.results))
    for method in ("ncg", "bs", "csn", "csn@output"):
        for metric in metrics.METRICS.values():
            cell = results["methods"][method][metric.task][metric.name]
            assert set(cell["per_au"]) == {"AU01", "AU12"}
            low, high = cell["interval"]
            assert low <= high
            assert cell["mean"] is not None
    for key in ("dataset", "recipe", "environment", "paper", "sanity", "differences"):
        assert key in results
    assert from_dict(json.loads((folder / "recipe.json").read_text()), Recipe) == RECIPE


def test_pooled_cells_are_the_metric_over_all_frames_of_all_folds(run, faces) -> None:
    folder, comparison = run
    table = pd.read_parquet(folder / "predictions_intensity.parquet")
    assert len(table) == len(faces)
    preds = table[["csn_AU01", "csn_AU12"]].to_numpy()
    labels = table[["label_AU01", "label_AU12"]].to_numpy()
    assert np.array_equal(labels, faces.labels((1, 12)))
    cell = comparison.results["methods"]["csn"]["intensity"]["icc"]
    assert cell["mean"] == pytest.approx(metrics.icc(preds, labels).mean())


def test_predictions_come_back_as_they_were_stored(run) -> None:
    folder, comparison = run
    stored = {one.task: one for one in TaskPredictions.load(folder)}
    assert list(stored) == ["detection", "intensity"]
    for task, one in comparison.predictions.items():
        again = stored[task]
        assert (again.task, again.aus, list(again.preds)) == (task, one.aus, list(one.preds))
        pd.testing.assert_frame_equal(again.table, one.table.reset_index(drop=True))
        assert np.array_equal(again.labels, one.labels)
        assert all(np.array_equal(again.preds[m], one.preds[m]) for m in one.preds)


def test_table_and_stats_agree_on_blind_predictors_made_from_other_folds(run, faces) -> None:
    folder, comparison = run
    results, stored = read_run(folder)
    text = markdown(results)
    for found in stored:
        cells = review(results, found, resamples=100)["sanity"]
        assert cells == comparison.results["sanity"][found.task]
        assert blind_table(cells) in text
        assert blind_table(cells) in review_markdown(results, [review(results, found)])
    labels = comparison.predictions["intensity"].labels
    preds = np.full(labels.shape, np.nan)
    for fold in range(2):
        training, validation = faces.fold(fold)
        preds[validation] = labels[training].mean(0)
    expected = metrics.mean_over_aus(metrics.mae(preds, labels))
    assert results["sanity"]["intensity"]["mean"]["mae"] == pytest.approx(expected)


def test_the_figure_shows_the_numbers_of_the_agreement(run) -> None:
    found = run[1].predictions["intensity"]
    few = np.arange(0, len(found.labels), 40)  # few frames: the divisor shows
    found = dataclasses.replace(
        found,
        table=found.table.iloc[few],
        labels=found.labels[few],
        preds={"ncg": found.preds["ncg"][few]},
    )
    figure = figures.bland_altman(found)
    drawn = [line.get_ydata()[0] for line in figure.axes[0].lines]
    gap = (found.preds["ncg"] - found.labels).ravel()
    reach = 1.96 * gap.std(ddof=1)
    np.testing.assert_allclose(drawn, [gap.mean(), gap.mean() - reach, gap.mean() + reach])
    numbers = bland_altman(found.preds["ncg"], found.labels, found.participants, pooled=True)
    np.testing.assert_allclose(drawn, np.concatenate([numbers.bias, numbers.lower, numbers.upper]))


def test_baseline_subtraction_is_the_plain_network_minus_its_reference(run, faces) -> None:
    _, comparison = run
    found = comparison.predictions["intensity"]
    expected = found.preds["ncg"] - found.preds["ncg"][faces.reference_rows]
    np.testing.assert_allclose(found.preds["bs"], expected, atol=1e-5)
    assert np.all(found.preds["bs"][faces.table["is_reference"].to_numpy()] == 0)


def test_no_participant_is_in_training_and_validation(faces) -> None:
    for fold in range(2):
        training, validation = faces.fold(fold)
        assert not set(faces.participants[training]) & set(faces.participants[validation])


def test_each_fold_is_predicted_by_the_network_trained_without_it(run, faces) -> None:
    _, comparison = run
    for fold in range(2):
        training, validation = faces.fold(fold)
        alone = predict(fit(RECIPE, faces, training, calibrated=True), faces, validation)
        pooled = comparison.predictions["intensity"].preds["csn"][validation]
        np.testing.assert_allclose(alone, pooled, atol=1e-5)


def test_calibration_wins_where_people_differ_at_rest(run) -> None:
    _, comparison = run
    difference = comparison.results["differences"]["csn-ncg"]["intensity"]["icc"]
    assert difference["mean"] > 0.05
    assert difference["interval"][0] > 0


def test_a_second_call_trains_nothing_and_gives_the_same(run, faces, monkeypatch) -> None:
    folder, comparison = run

    def forbidden(*_: object) -> float:
        raise AssertionError("trained again")

    monkeypatch.setattr("siamcal.training.loop.TrainingLoop.train", forbidden)
    again = cross_validate(RECIPE, faces, folder)
    for method in ("ncg", "bs", "csn"):
        assert np.array_equal(
            again.preds[method], comparison.predictions["intensity"].preds[method]
        )


def test_seeds_are_listed_with_their_spread(faces, tmp_path) -> None:
    recipe = dataclasses.replace(RECIPE, steps=3)
    job = Job(recipe, tmp_path, methods=("ncg", "csn"), seeds=(42, 43), folds=(0,))
    results = compare(job, faces).results
    values = [results["seeds"][s]["csn"]["intensity"]["icc"] for s in ("42", "43")]
    assert values[0] != values[1]
    write_report(results, tmp_path)
    assert "standard deviation" in (tmp_path / "table.md").read_text()


def test_unknown_methods_and_folds_are_refused(faces, tmp_path) -> None:
    with pytest.raises(ConfigError, match="ncg, bs, bss, outputs, frozen"):
        cross_validate(RECIPE, faces, tmp_path, ("ncg", "best"))
    with pytest.raises(ConfigError, match="folds 0 to 1"):
        cross_validate(RECIPE, faces, tmp_path, folds=[2])


def test_tables_and_figures_are_written(run, tmp_path) -> None:
    _, comparison = run
    write_report(comparison.results, tmp_path)
    text = (tmp_path / "table.md").read_text()
    for word in ("NCG", "BS", "CSN", "CSN (output)", "ICC(3,1)", "F1", "AU12", "zero", "chance"):
        assert word in text
    assert r"\begin{tabular}" in (tmp_path / "table.tex").read_text()
    values = pd.read_csv(tmp_path / "table.csv")
    assert set(values["method"]) == {"ncg", "bs", "csn", "csn@output"}
    made = write_figures(comparison.results, comparison.predictions, tmp_path / "figures")
    assert {f.name for f in made} >= {
        "per_au_intensity.png",
        "over_time.png",
        "bias_per_participant.png",
        "merge_sweep_intensity.png",
    }
    assert all(f.stat().st_size > 5000 for f in made)


def test_the_summary_shows_the_paper_where_it_has_the_cell(run) -> None:
    _, comparison = run
    results = json.loads(json.dumps(comparison.results))
    results["paper"] = {"csn": {"intensity": {"icc": {"mean": 0.67, "per_au": {}}}}}
    results["methods"]["csn"]["intensity"]["icc"] |= {"mean": 0.70, "interval": [0.66, 0.74]}
    cell = summary_table(results, "intensity").loc["CSN", "ICC(3,1), paper"]
    assert cell == "0.670 (+0.030)*"
    assert metric_table(results, "intensity", "icc").loc["CSN, paper", "mean"] == "0.670"


def test_a_table_of_the_paper_stands_beside_ours(run) -> None:
    _, comparison = run
    results = json.loads(json.dumps(comparison.results))
    results["dataset"]["name"] = "disfa"
    results["recipe"]["merge_at"] = "layer4"
    frame = paper_comparison(results, "2", "intensity")
    row = frame.loc["CSN-IR50 (OFC), ICC(3,1)"]
    ours = results["methods"]["csn"]["intensity"]["icc"]["mean"]
    assert row["ours, random start"] == f"{ours:.3f}"
    assert row["paper"] == "0.670"
    assert row["difference"] == f"{ours - 0.67:+.3f}"
    assert frame.loc["CCNN-IT, ICC(3,1)", "paper"] == "0.450"
    assert r"\toprule" in to_latex(frame, "Table 2")


def test_the_sweep_has_the_papers_points_and_others_stages() -> None:
    assert sweep_points(RECIPE) == ["layer1", "layer2", "layer3", "layer4", "fc", "output"]
    expected = {
        "timm:resnet10t": ["layer1", "layer2", "layer3", "layer4", "output"],
        "timm:convnext_atto": ["stages.0", "stages.1", "stages.2", "stages.3", "output"],
    }
    for name, points in expected.items():
        other = dataclasses.replace(
            RECIPE, backbone=name, backbone_options={}, preprocessing=Preprocessing(size=64)
        )
        assert sweep_points(other) == points


def test_a_name_that_begins_like_the_papers_networks_is_not_one_of_them(monkeypatch) -> None:
    def irrelevant(num_outputs: int = 4) -> nn.Module:
        """A network with four stages."""
        widths = ((3, 4), (4, 4), (4, 4), (4, 4))
        stages = [nn.Sequential(nn.Conv2d(*w, 3, padding=1), nn.ReLU()) for w in widths]
        return nn.Sequential(*stages, nn.Flatten(), nn.Linear(4 * 8 * 8, num_outputs))

    backbones.names()  # the registered ones are loaded, so that taking ours away leaves them
    monkeypatch.setattr(backbones, "_entries", dict(backbones._entries))
    backbones.register("irrelevant")(irrelevant)
    recipe = dataclasses.replace(
        RECIPE, backbone="irrelevant", backbone_options={}, preprocessing=Preprocessing(size=8)
    )
    assert sweep_points(recipe) == ["1", "2", "3", "output"]
