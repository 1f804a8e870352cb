"""Imports go down only, and only the places that may do so print or import heavy packages."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LAYERS = [
    {"errors", "paths", "progress", "preprocessing"},
    {
        "graph",
        "heads",
        "losses",
        "metrics",
        "statistics",
        "agreement",
        "sums",
        "registry",
        "paper",
        "augment",
        "calibrator_config",
        "safe_weights",
        "safe_build",
        "own_backbones",
    },
    {"backbone", "reference", "siamese"},
    {"datasets", "faces", "recipe", "checkpoint", "adapters", "media"},
    {
        "card",
        "convert",
        "publishing",
        "hub",
        "export",
        "inference",
        "training",
        "evaluation",
        "report",
    },
    {"calibrators", "figures", "reviewing"},
    {"cli", "app"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
PLUGINS = {"backbones": 2, "recipes": 5, "benchmarks": 6}
LEVEL |= PLUGINS


def sources() -> list[Path]:
    files = [*(ROOT / "siamcal").rglob("*.py")]
    for folder in PLUGINS:
        files += (ROOT / folder).rglob("*.py")
    return sorted(files)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] == "siamcal":
        return parts[1]
    return parts[0]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            if node.module == "siamcal":
                names |= {f"siamcal.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_only(path: Path) -> None:
    here = module_of(path)
    if here in {"__init__", "__main__", "assets"}:
        return
    assert here in LEVEL, f"{here} has no layer: give it one in LAYERS"
    for name in imported(path):
        if not name.startswith("siamcal."):
            continue
        there = name.split(".")[1]
        if there in LEVEL and there != here:
            assert LEVEL[there] <= LEVEL[here], f"{path}: {here} imports {there}, which lies above"
            assert there not in PLUGINS or here in {"benchmarks"}, f"{path}: plug-ins go by name"


ONLY = {
    "huggingface_hub": {"hub"},
    "mediapipe": {"faces"},
    "cv2": {"faces", "datasets", "media", "inference"},
}


@pytest.mark.parametrize("package", sorted(ONLY))
def test_heavy_packages_stay_in_their_rooms(package: str) -> None:
    users = {
        module_of(path)
        for path in sources()
        if any(name.split(".")[0] == package for name in imported(path))
    }
    assert users <= ONLY[package] | {"benchmarks"}


def test_import_siamcal_is_light() -> None:
    import subprocess
    import sys

    code = (
        "import sys, siamcal, siamcal.errors, siamcal.registry, siamcal.siamese\n"
        "heavy = {'cv2', 'mediapipe', 'timm', 'pandas', 'matplotlib', 'huggingface_hub'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == "[]"


def test_the_command_line_starts_without_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys, siamcal.cli as cli\n"
        "cli._load_commands()\n"
        "print(sorted({'torch', 'pandas', 'cv2', 'numpy'} & set(sys.modules)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == "[]"
