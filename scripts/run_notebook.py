"""Run the notebook of the documentation and keep what its cells show.

    python scripts/run_notebook.py

It runs in an empty temporary folder; times, counts of runs and what goes to stderr are left out,
so that the file changes only where the cells or what they show change.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs" / "train-notebook.ipynb"


def main() -> None:
    """Run it and write it back."""
    os.environ["TQDM_DISABLE"] = "1"
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory(prefix="siamcal-notebook-") as folder:
        NotebookClient(notebook, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            keep(cell)
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, NOTEBOOK)
    print(f"{NOTEBOOK}: {NOTEBOOK.stat().st_size / 1e3:.0f} kB")


def keep(cell: Any) -> None:
    """Only what a reader is shown."""
    cell.metadata.pop("execution", None)
    cell.execution_count = None
    cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
    for output in cell.outputs:
        if "execution_count" in output:
            output.execution_count = None


if __name__ == "__main__":
    main()
