import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from siamcal.errors import ConfigError, DataNotFoundError
from siamcal.evaluation.metrics import f1, icc
from siamcal.evaluation.predictions import TaskPredictions
from siamcal.evaluation.review import read_groups, read_run, review

PEOPLE = [f"P{i}" for i in range(8)]


@pytest.fixture
def run(tmp_path):
    """A stored run in which every person has an offset of their own, which CSN removes."""
    generator = np.random.default_rng(0)
    participants = np.repeat(PEOPLE, 50)
    labels = generator.integers(0, 6, (400, 2)) * (generator.random((400, 2)) < 0.4)
    clean = 0.9 * labels + generator.normal(0, 0.4, labels.shape)
    person = np.repeat(generator.normal(0, 1, (8, 2)), 50, axis=0)
    table = pd.DataFrame(
        {"participant": participants, "view": "front", "sequence": "s", "frame": range(400)}
    )
    preds = {"ncg": clean + person, "bs": clean + 0.4 * person, "csn": clean, "csn@layer2": clean}
    intensity = TaskPredictions("intensity", (1, 12), table, labels.astype(float), preds)
    intensity.save(tmp_path)
    occurrence = (labels >= 2).astype(float)
    logits = {"ncg": preds["ncg"] - 1.5, "csn": preds["csn"] - 1.5}
    detection = TaskPredictions("detection", (1, 12), table, occurrence, logits)
    detection.save(tmp_path)
    results = {
        "name": "test",
        "dataset": {"rendered": True, "folds": [PEOPLE[0::2], PEOPLE[1::2]]},
    }
    (tmp_path / "results.json").write_text(json.dumps(results))
    people = pd.DataFrame({"participant": PEOPLE, "sex": ["f", "m"] * 4})
    people.to_csv(tmp_path / "participants.csv", index=False)
    return tmp_path


def test_predictions_come_back_as_they_were_stored(run):
    results, (detection, intensity) = read_run(run)
    assert results["name"] == "test"
    assert intensity.aus == (1, 12)
    assert list(intensity.preds) == ["ncg", "bs", "csn", "csn@layer2"]
    assert intensity.labels.shape == (400, 2)
    assert detection.task == "detection"


def test_review_of_intensity(run):
    results, (_, intensity) = read_run(run)
    found = review(results, intensity, resamples=300)
    assert set(found["differences"]) == {
        "bs-ncg", "csn-ncg", "csn-bs", "csn@layer2-ncg", "csn@layer2-bs"
    }  # fmt: skip
    cell = found["differences"]["csn-ncg"]["icc"]
    expected = icc(intensity.preds["csn"], intensity.labels) - icc(
        intensity.preds["ncg"], intensity.labels
    )
    assert cell["mean"] == pytest.approx(expected.mean())
    assert cell["interval"][0] > 0
    assert cell["p_value"] == pytest.approx(2 / 256)  # exact: all 2^8 swaps
    assert cell["per_au_p_holm"]["AU01"] >= cell["per_au_p_value"]["AU01"]
    across = found["across_within"]
    assert across["ncg"]["bias_sd"]["mean"] > 5 * across["csn"]["bias_sd"]["mean"]
    assert found["agreement"]["csn"]["bias"]["per_au"]["AU12"] == pytest.approx(
        (intensity.preds["csn"] - intensity.labels)[:, 1].mean()
    )
    assert set(found["sanity"]) == {"zero", "mean", "median", "chance"}
    assert all(abs(cells["icc"]) < 0.1 for cells in found["sanity"].values())
    assert "groups" not in found


def test_review_of_detection_by_group(run):
    results, (detection, _) = read_run(run)
    groups = read_groups(run / "participants.csv", "sex", PEOPLE)
    found = review(results, detection, groups, resamples=200)
    cells = found["groups"]["csn"]["f1"]
    assert set(cells) == {"f", "m"}
    women = np.isin(detection.participants, PEOPLE[0::2])
    expected = f1(detection.preds["csn"][women], detection.labels[women]).mean()
    assert cells["f"]["mean"] == pytest.approx(expected)
    assert cells["f"]["participants"] == 4
    assert "agreement" not in found


def test_groups_with_faults(run, tmp_path):
    path = tmp_path / "g.csv"
    path.write_text("participant,sex\nP0,f\nP0,m\n")
    with pytest.raises(ConfigError, match="puts P0 into several groups"):
        read_groups(path, "sex", PEOPLE)
    with pytest.raises(ConfigError, match=r"no column 'age'; it has participant, sex"):
        read_groups(path, "age", PEOPLE)
    path.write_text("participant,sex\nBob,f\n")
    with pytest.raises(ConfigError, match="none of the run's participants"):
        read_groups(path, "sex", PEOPLE)
    with pytest.raises(DataNotFoundError, match=r"no table of participants .*--metadata"):
        read_groups(tmp_path / "no.csv", "sex", PEOPLE)


def invoke(*arguments):
    # A second command, because a lone one takes no name.
    from siamcal.cli import app, listing, stats  # noqa: F401

    return CliRunner().invoke(app, ["stats", *map(str, arguments)])


def test_the_command(run, tmp_path):
    result = invoke(run, "--by", "sex", "--resamples", 200)
    assert result.exit_code == 0, result.output
    assert "never say how well real faces are read" in result.stdout
    assert "| CSN − NCG, ICC(3,1) | +0." in result.stdout
    assert "| f, CSN |" in result.stdout
    assert "### By sex" in result.stdout
    as_json = invoke(run, "--json", "--resamples", 100, "-o", tmp_path / "s.json")
    assert as_json.exit_code == 0
    assert [r["task"] for r in json.loads((tmp_path / "s.json").read_text())] == [
        "detection",
        "intensity",
    ]
    assert isinstance(invoke(tmp_path / "nothing").exception, DataNotFoundError)
    assert isinstance(invoke(run, "--metadata", "x.csv").exception, ConfigError)
