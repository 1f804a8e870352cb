"""Adding a plug-in touches one file: the examples of CONTRIBUTING.md, each run in its own folder.

Each is imported as it stands and has to be seen in every place that lists or uses its kind.
"""

import importlib.util
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from siamcal import CalibratingSiamese, Recipe, create_backbone, registry
from siamcal.calibrators.saving import load_calibrator
from siamcal.cli.bench import run_named
from siamcal.cli.listing import list_things
from siamcal.datasets import load_dataset
from siamcal.datasets.base import COLUMNS
from siamcal.evaluation import metrics
from siamcal.evaluation.intervals import metric_interval
from siamcal.inference.prediction import FrameResult
from siamcal.inference.table import AURows
from siamcal.training.choice import choose_recipe

GUIDE = Path(__file__).parent.parent / "CONTRIBUTING.md"
EXAMPLES = {
    re.search(r"(\w+)\.py\n", text)[1]: text
    for text in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.S)
}
REGISTRIES = ("backbones", "merges", "datasets", "table_formats", "benchmarks")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What an example registers is gone afterwards."""
    tables = [getattr(registry, name) for name in REGISTRIES]
    for table in tables:
        table.names()
    kept = [dict(table._entries) for table in tables]
    known = dict(metrics.METRICS)
    yield
    for table, entries in zip(tables, kept, strict=True):
        table._entries = entries
    for name in metrics.METRICS.keys() - known.keys():
        del metrics.METRICS[name]


def add(name: str, folder: Path) -> None:
    """Import an example from a file in a temporary folder."""
    path = folder / f"{name}_example.py"
    path.write_text(EXAMPLES[name])
    spec = importlib.util.spec_from_file_location(path.stem, path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def listed(kind: str, capsys) -> set[str]:
    list_things(kind, as_json=True)
    return {row["name"] for row in json.loads(capsys.readouterr().out)}


def test_every_kind_has_its_example() -> None:
    assert set(EXAMPLES) == {"patches", "halved", "my_lab", "metrics", "tsv", "parameters"}


def test_a_backbone(tmp_path, capsys) -> None:
    add("patches", tmp_path)
    assert "patches" in listed("backbones", capsys)
    assert Recipe("mine", backbone="patches", merge_at="1").backbone == "patches"
    model = CalibratingSiamese(create_backbone("patches", 12), "1").eval()
    images = torch.rand(2, 3, 64, 64)
    model.save_pretrained(tmp_path / "saved", aus=(1, 12), training_data="none", licence="mit")
    again = load_calibrator(tmp_path / "saved")
    assert torch.equal(again(images, images[:1]), model(images, images[:1]))


def test_a_merge_form(tmp_path, capsys) -> None:
    add("halved", tmp_path)
    assert "halved" in listed("merges", capsys)
    assert Recipe("mine", merge="halved").merge == "halved"
    model = CalibratingSiamese(create_backbone("ir_tiny", 12), "output", merge="halved").eval()
    x, y = torch.rand(2, 2, 3, 112, 112)
    expected = model.unwrap()(x) - 0.5 * model.unwrap()(y)
    torch.testing.assert_close(model(x, y), expected)
    model.save_pretrained(tmp_path / "saved", aus=(1, 12), training_data="none", licence="mit")
    assert load_calibrator(tmp_path / "saved").merge == "halved"


def test_a_data_set(tmp_path, capsys) -> None:
    add("my_lab", tmp_path)
    assert "my-lab" in listed("datasets", capsys)
    assert choose_recipe(dataset="my-lab").dataset == "my-lab"
    rows = [[p, "front", "one", k, f"{p}{k}.jpg", -1, k == 0, k, 0] for p in "ab" for k in (0, 1)]
    table = pd.DataFrame(rows, columns=[*COLUMNS, "AU01", "AU12"])
    table.to_csv(tmp_path / "frames.csv", index=False)
    assert load_dataset("my-lab", tmp_path).folds == (("a",), ("b",))


def test_a_metric(tmp_path) -> None:
    add("metrics", tmp_path)
    preds, labels = np.array([[1.0], [2.0], [3.0]]), np.array([[1.0], [4.0], [-1.0]])
    assert metrics.get_metric("rmse")(preds, labels) == pytest.approx([np.sqrt(2)])
    found = metric_interval("rmse", preds, labels, np.array(["a", "b", "b"]), resamples=20)
    assert found.mean == pytest.approx(np.sqrt(2))
    # tests/test_own_metric.py follows one through tables, cards, figures and the review.


def test_an_output_format(tmp_path, capsys) -> None:
    add("tsv", tmp_path)
    assert "tsv" in listed("formats", capsys)
    rows, file = AURows((1,), (2.0,), "intensity", pictures=True), io.BytesIO()
    writer = registry.table_formats.get("tsv")(file, rows.columns)
    writer.write(rows.row(FrameResult(0, 0.0, "a\tb.png", np.array([2.5]))))
    writer.write(rows.row(FrameResult(1, 0.0, "ü.png", None, problem="no face")))
    writer.close()
    file.seek(0)
    table = pd.read_csv(file, sep="\t", keep_default_na=False)
    assert list(table.columns) == list(rows.columns)
    assert table["AU01_r"].tolist() == ["2.5", ""]
    assert table["file"].tolist() == ["a\tb.png", "ü.png"]
    assert table["quality"].tolist() == ["", "no face"]


def test_a_benchmark(tmp_path, capsys) -> None:
    add("parameters", tmp_path)
    assert "parameters" in listed("benchmarks", capsys)
    run_named("parameters", ["backbone=ir_tiny"], as_json=True)
    count = sum(p.numel() for p in create_backbone("ir_tiny").parameters())
    assert json.loads(capsys.readouterr().out) == {"ir_tiny": count}
