"""What is installed is what is in the folders; nothing is silently absent."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PLUGINS = ("backbones", "benchmarks", "recipes")
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_folder_is_listed_and_every_listed_one_exists() -> None:
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "siamcal").rglob("__init__.py")
    }
    found |= {f"siamcal.{name}" for name in PLUGINS}
    assert set(SETTINGS["tool"]["setuptools"]["packages"]) == found


def test_every_code_folder_is_a_package() -> None:
    for folder in ("siamcal", *PLUGINS):
        for path in (ROOT / folder).rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), f"{path.parent} lacks __init__.py"


def test_the_version_is_the_same_everywhere() -> None:
    import siamcal

    assert SETTINGS["project"]["version"] == siamcal.__version__
    assert f"version: {siamcal.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_every_asset_is_attributed() -> None:
    text = (ROOT / "siamcal" / "assets" / "ATTRIBUTION.md").read_text()
    for path in (ROOT / "siamcal" / "assets").iterdir():
        if path.suffix in (".py", ".md", ".sha256") or path.name == "__pycache__":
            continue
        assert path.name in text, f"ATTRIBUTION.md doesn't name {path.name}"


@pytest.mark.parametrize("name", PLUGINS)
def test_a_bare_import_of_a_plugin_folder_is_refused(name: str) -> None:
    code = f"import {name}"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode != 0
    assert f"Write `import siamcal.{name}`" in found.stderr


def test_a_checkout_that_shadows_an_installation_says_what_to_run(tmp_path: Path) -> None:
    """As with `pip install .` and then Python started inside the checkout."""
    (tmp_path / "siamcal").symlink_to(ROOT / "siamcal")
    code = (
        "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f)]\n"
        "from siamcal.registry import recipes; recipes.names()"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.search(r"Run `pip install -e .+` once", found.stderr), found.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> list[str]:
    """Names in the wheel, built from a copy so that no stale build folder plays in."""
    import shutil
    import zipfile

    copy = tmp_path_factory.mktemp("source") / "siamcal"
    shutil.copytree(
        ROOT,
        copy,
        ignore=shutil.ignore_patterns(".venv", ".git", "build", "runs", "*.egg-info", "tests"),
    )
    out = tmp_path_factory.mktemp("wheel")
    command = f"{sys.executable} -m pip wheel --quiet --no-deps --no-build-isolation -w"
    subprocess.run([*command.split(), str(out), str(copy)], check=True, capture_output=True)
    path = next(out.glob("*.whl"))
    assert path.stat().st_size < 25e6
    return zipfile.ZipFile(path).namelist()


def test_the_wheel_holds_the_plugins_and_the_assets(wheel: list[str]) -> None:
    assert "siamcal/recipes/synth.py" in wheel
    assert "siamcal/backbones/iresnet.py" in wheel
    for path in (ROOT / "siamcal").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert path.relative_to(ROOT).as_posix() in wheel
    top = {name.split("/")[0] for name in wheel}
    assert {t for t in top if not t.endswith(".dist-info")} == {"siamcal"}
