"""The notebooks of the documentation run as they lie there, and still show what they show."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="pip install 'siamcal[dev]'")
nbclient = pytest.importorskip("nbclient", reason="pip install 'siamcal[dev]'")
pytest.importorskip("ipykernel", reason="pip install 'siamcal[dev]'")

DOCS = Path(__file__).parent.parent / "docs"
NOTEBOOKS = sorted(DOCS.glob("*.ipynb"))


def shown(cell: Any) -> list[tuple[str, str]]:
    """Kind and text of what a cell shows; numbers as # (another processor rounds elsewhere)."""
    found = []
    for output in cell.get("outputs", []):
        if output.get("name") == "stderr":
            continue
        kinds = sorted(output.get("data", {})) or [output["output_type"]]
        text = output.get("text", "") or output.get("data", {}).get("text/markdown", "")
        found.append((",".join(kinds), re.sub(r"[+-]?[\d.]+", "#", text)))
    return found


def test_there_is_a_notebook() -> None:
    assert [path.name for path in NOTEBOOKS] == ["train-notebook.ipynb"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_and_shows_what_it_showed(path: Path, tmp_path, monkeypatch) -> None:
    kept = nbformat.read(path, as_version=4)
    ran = nbformat.read(path, as_version=4)
    for name, value in {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}.items():
        monkeypatch.setitem(os.environ, name, value)
    nbclient.NotebookClient(ran, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    assert [shown(cell) for cell in ran.cells] == [shown(cell) for cell in kept.cells]
    results = json.loads((tmp_path / "runs" / "people" / "results.json").read_text())
    icc = {name: of["intensity"]["icc"]["mean"] for name, of in results["methods"].items()}
    assert icc["csn"] > icc["bs"] > 0  # what its text says to see


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_small_and_tells_nothing_of_the_machine(path: Path) -> None:
    assert path.stat().st_size < 250_000
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        assert not re.search(r"/(home|root|tmp|usr|Users)/", json.dumps(shown(cell)))
        assert cell.get("execution_count") is None
        for link in re.findall(r"\]\(([^)#\s]+)", cell.source if cell.cell_type != "code" else ""):
            assert "://" in link or (DOCS / link).exists(), link
