"""The paper's commands run end to end on rendered people in the licensed data sets' layouts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# The commands as a data holder runs them, in small: fewer people, one step, a small network.
SMALL = ["--set", "backbone=ir_tiny", "--set", "steps=1", "--set", "batch_size=8"]
EXPORTS = {
    "disfa": ["--participants", "4", "--frames", "5", "--no-videos"],
    "disfa-plus": ["--participants", "2", "--frames", "5", "--sequences", "2"],
    "unbc": ["--participants", "3", "--frames", "5", "--sequences", "1"],
}
TABLES = {"disfa": "6", "disfa-plus": "S2", "unbc": "S3"}


def siamcal(*arguments: str, cwd: Path):
    found = subprocess.run(
        [sys.executable, "-m", "siamcal", *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    return found


@pytest.fixture(scope="module", params=sorted(EXPORTS))
def exported(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    options = [*EXPORTS[request.param], "--image-size", "192", "--workers", "1"]
    siamcal("data", "export", "--layout", request.param, "data", *options, cwd=folder)
    return request.param, folder


def test_a_table_of_the_paper_with_all_methods_and_folds(exported) -> None:
    name, folder = exported
    arguments = ["bench", "--dataset", name, "--data-root", "data", "--table", TABLES[name]]
    printed = siamcal(*arguments, *SMALL, "--workers", "1", "--json", cwd=folder).stdout
    tables = json.loads(printed)
    assert tables
    for title, rows in tables.items():
        assert title.startswith(f"Table {TABLES[name]}: {name}")
        for row in rows:
            assert row["ours, random start"] not in ("", None)
            assert row["paper"]
            assert row["inside"] in ("yes", "no", "")
    runs = list((folder / "runs").iterdir())
    for run in runs:
        results = json.loads((run / "results.json").read_text())
        assert results["dataset"]["name"] == name
        assert results["paper"]
        assert any(run.glob("paper_table_*.tex"))
        assert len(results["dataset"]["folds"]) >= 2
