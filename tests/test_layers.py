"""Imports go down only, without circles, and only some places print or import heavy packages."""

import ast
import subprocess
import sys
from functools import cache, lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the bottom up. A room's files lie in its layer, unless the file itself is named in another.
LAYERS = [
    {
        "errors",
        "extras",
        "files",
        "parallel",
        "progress",
        "registry",
        "environment",
        "preprocessing",
        "settings",
        "table_files",
    },
    {
        "graph",
        "paper",
        "model.places",
        "evaluation.methods",
        "evaluation.metrics",
        "evaluation.sums",
    },
    {"model", "faces", "backbones"},
    {"calibrators", "synth"},
    {"datasets", "inference", "page", "recalibration"},
    {"training", "recipes"},
    {"evaluation"},
    {"cli", "benchmarks"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
PLUGINS = ("backbones", "recipes", "benchmarks")
# Packages whose `__init__` is imported with every module in them, and must stay empty.
ROOMS = ("model", "calibrators", "synth", "training", "evaluation", "recalibration")


@lru_cache(maxsize=1)
def sources() -> dict[str, Path]:
    """Dotted name below siamcal -> file; a package's name is that of its `__init__`."""
    files = [*(ROOT / "siamcal").rglob("*.py")]
    for folder in PLUGINS:
        files += (ROOT / folder).rglob("*.py")
    named = {}
    for path in files:
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[1:] if parts[0] == "siamcal" else parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if parts and parts[0] not in ("__main__", "assets"):
            named[".".join(parts)] = path
    return named


def level(name: str) -> int:
    while name not in LEVEL and "." in name:
        name = name.rpartition(".")[0]
    assert name in LEVEL, f"{name} has no layer: give it one in LAYERS"
    return LEVEL[name]


@cache
def imported(path: Path) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def own_imports(path: Path) -> set[str]:
    """Modules of siamcal that a file names in an import, wherever in the file."""
    found = set()
    for name in imported(path):
        if name.startswith("siamcal."):
            name = name.removeprefix("siamcal.")
            name = name if name in sources() else name.rpartition(".")[0]
            if name in sources():
                found.add(name)
    return found


@pytest.mark.parametrize("name", sorted(sources()))
def test_imports_go_down_only(name: str) -> None:
    for there in own_imports(sources()[name]):
        assert level(there) <= level(name), f"{name} imports {there}, which lies above"
        plugin = there.partition(".")[0]
        own = name.partition(".")[0]
        assert plugin not in PLUGINS or plugin == own, f"{name}: plug-ins go by name, not {there}"


def test_no_file_reaches_itself() -> None:
    graph = {name: own_imports(path) for name, path in sources().items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle: {' -> '.join((*path[path.index(name) :], name))}"
        if name not in done:
            for there in graph[name] - {name}:
                visit(there, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_modules_are_imported_by_name_in_the_registry_only() -> None:
    by_name = {name for name, path in sources().items() if "import_module(" in path.read_text()}
    assert by_name == {"registry"}


def test_rooms_export_nothing_so_that_one_file_costs_one_file() -> None:
    for room in ROOMS:
        assert not imported(sources()[room]), f"siamcal/{room}/__init__.py imports something"


def test_the_top_level_holds_few_modules() -> None:
    modules = [p for p in (ROOT / "siamcal").glob("*.py") if p.name != "__init__.py"]
    assert len(modules) <= 12


ONLY = {
    "huggingface_hub": {"calibrators"},
    "mediapipe": {"faces"},
    "cv2": {"faces", "datasets", "synth", "inference", "page"},
}


@pytest.mark.parametrize("package", sorted(ONLY))
def test_heavy_packages_stay_in_their_rooms(package: str) -> None:
    users = {
        name.partition(".")[0]
        for name, path in sources().items()
        if any(there.split(".")[0] == package for there in imported(path))
    }
    assert users <= ONLY[package] | {"benchmarks"}


def loaded_by(code: str, packages: set[str]) -> set[str]:
    told = f"import sys\n{code}\nprint(*({packages!r} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


def test_import_siamcal_is_light() -> None:
    code = "import siamcal, siamcal.errors, siamcal.registry, siamcal.model.siamese"
    heavy = {"cv2", "mediapipe", "timm", "pandas", "matplotlib", "huggingface_hub"}
    assert loaded_by(code, heavy) == set()


def test_a_recipe_is_made_and_checked_without_torch() -> None:
    code = (
        "from siamcal.training.recipe import Recipe; Recipe(name='x', merge='paper')\n"
        "Recipe(name='x', merge='target_minus_reference')"
    )
    assert loaded_by(code, {"torch"}) == set()


def test_the_command_line_starts_without_torch() -> None:
    code = "import siamcal.cli as cli; cli._load_commands()"
    assert loaded_by(code, {"torch", "pandas", "cv2", "numpy"}) == set()
