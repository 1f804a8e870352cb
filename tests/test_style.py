"""Rules of the source that no linter checks."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("siamcal", "backbones", "recipes", "benchmarks")
LONGEST = 80  # lines


@pytest.mark.parametrize("folder", FOLDERS)
def test_functions_are_short_or_say_why_not(folder: str) -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno >= LONGEST
        and "Long because" not in (ast.get_docstring(node) or "")
    ]
    assert not long, f"over {LONGEST} lines; split them, or say in the docstring 'Long because ...'"


@pytest.mark.parametrize("folder", FOLDERS)
def test_figures_leave_the_callers_matplotlib_alone(folder: str) -> None:
    """`pyplot` and `use` choose a backend for the whole process, a notebook's among them."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert "pyplot" not in text, path
        assert "matplotlib.use(" not in text, path
