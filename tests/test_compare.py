import dataclasses
import json

import facesets
import numpy as np
import pandas as pd
import pytest
import torch
from facesets import squares

from siamcal.errors import ConfigError
from siamcal.evaluation import metrics
from siamcal.evaluation.compare import compare, cross_validate, sweep_points
from siamcal.evaluation.figures import write_figures
from siamcal.evaluation.tables import (
    metric_table,
    paper_comparison,
    summary_table,
    to_latex,
    write_report,
)
from siamcal.preprocessing import Preprocessing
from siamcal.training.loop import fit
from siamcal.training.prediction import predict
from siamcal.training.recipe import Recipe, from_dict

pytestmark = pytest.mark.slow

RECIPE = dataclasses.replace(facesets.RECIPE, steps=40, batch_size=16)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    torch.set_num_threads(1)
    return squares(tmp_path_factory.mktemp("squares"), people=8, frames=24)


@pytest.fixture(scope="module")
def run(faces, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "example"
    comparison = compare(
        RECIPE,
        faces,
        folder,
        tasks=("intensity", "detection"),
        methods=("ncg", "bs", "csn", "csn@output"),
    )
    return folder, comparison


def test_results_have_every_cell_and_load_back(run) -> None:
    folder, comparison = run
    results = json.loads((folder / "results.json").read_text())
    assert results == json.loads(json.dumps(comparison.results))
    for method in ("ncg", "bs", "csn", "csn@output"):
        for metric, task in metrics.TASK_OF_METRIC.items():
            cell = results["methods"][method][task][metric]
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
    results = compare(
        recipe, faces, tmp_path, methods=("ncg", "csn"), seeds=(42, 43), folds=(0,)
    ).results
    values = [results["seeds"][s]["csn"]["intensity"]["icc"] for s in ("42", "43")]
    assert values[0] != values[1]
    write_report(results, tmp_path)
    assert "standard deviation" in (tmp_path / "table.md").read_text()


def test_unknown_methods_and_folds_are_refused(faces, tmp_path) -> None:
    with pytest.raises(ConfigError, match="ncg, bs, csn"):
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
    figures = write_figures(comparison.results, comparison.predictions, tmp_path / "figures")
    assert {f.name for f in figures} >= {
        "per_au_intensity.png",
        "over_time.png",
        "bias_per_participant.png",
        "merge_sweep_intensity.png",
    }
    assert all(f.stat().st_size > 5000 for f in figures)


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
    assert row["ours"] == f"{ours:.3f}"
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
