"""What is installed is what is in the folders; nothing is silently absent."""

import email
import os
import re
import subprocess
import sys
import tomllib
import zipfile
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
def built(tmp_path_factory) -> Path:
    """The wheel, built from a copy so that no stale build folder plays in."""
    import shutil

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
    return path


@pytest.fixture(scope="module")
def wheel(built: Path) -> list[str]:
    """Names in the wheel."""
    return zipfile.ZipFile(built).namelist()


def test_the_description_holds_outside_the_repository(built: Path) -> None:
    """As on a package index: each link is absolute, and what is the project's own is there."""
    with zipfile.ZipFile(built) as file:
        (name,) = [name for name in file.namelist() if name.endswith(".dist-info/METADATA")]
        text = file.read(name).decode()
    message = email.message_from_string(text)
    assert message["Description-Content-Type"] == "text/markdown"
    described = message.get_payload()
    readme = (ROOT / "README.md").read_text()
    assert described.splitlines()[0] == readme.splitlines()[0]
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)\s]+)\)", described)
    assert len(links) == len(re.findall(r"\]\(", readme)) > 25
    home, own = SETTINGS["project"]["urls"]["Homepage"], 0
    for picture, link in links:
        assert link.startswith(("https://", "#")), link
        if link.startswith(home):
            kind, branch, path = link.removeprefix(f"{home}/").split("/", 2)
            assert (kind, branch) == ("raw" if picture else "blob", "main"), link
            assert (ROOT / path.partition("#")[0]).is_file(), link
            own += 1
    assert own > 20


def test_the_wheel_holds_the_plugins_and_the_assets(wheel: list[str]) -> None:
    assert "siamcal/recipes/synth.py" in wheel
    assert "siamcal/backbones/iresnet.py" in wheel
    for path in (ROOT / "siamcal").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert path.relative_to(ROOT).as_posix() in wheel
    top = {name.split("/")[0] for name in wheel}
    assert {t for t in top if not t.endswith(".dist-info")} == {"siamcal"}
    assert not [name for name in wheel if "/results/" in name or "__pycache__" in name]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> set[str]:
    """Names in the source archive."""
    import shutil
    import tarfile

    copy = tmp_path_factory.mktemp("source") / "siamcal"
    leave = shutil.ignore_patterns(".venv", ".git", "build", "dist", "runs", "*.egg-info")
    shutil.copytree(ROOT, copy, ignore=leave)
    code = "from setuptools.build_meta import build_sdist; build_sdist('out')"
    (copy / "out").mkdir()
    subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, capture_output=True)
    with tarfile.open(next((copy / "out").glob("*.tar.gz"))) as file:
        return {name.partition("/")[2] for name in file.getnames()}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not in a checkout")
def test_the_archive_holds_what_git_holds(sdist: set[str]) -> None:
    """So its tests find the documents, pictures and tables that they read."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert set(listed.stdout.splitlines()) - sdist == set()
    assert not [name for name in sdist if name.endswith((".pyc", ".nbc", ".nbi"))]


def test_the_versions_of_python_are_those_that_are_tested() -> None:
    project = SETTINGS["project"]
    named = [
        line.rpartition(" ")[2] for line in project["classifiers"] if re.search(r":: 3\.\d+$", line)
    ]
    assert project["requires-python"] == f">={named[0]}"
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    tested = set(re.findall(r'"(3\.\d+)"', workflow))
    assert {named[0], named[-1]} <= tested <= set(named)


def test_what_the_workflow_runs_is_in_the_makefile() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"run: make (\w+)", workflow):
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


def test_a_report_of_a_bug_asks_for_the_doctor() -> None:
    import yaml

    fields = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text())["body"]
    (doctor,) = [field for field in fields if field.get("id") == "doctor"]
    assert "siamcal doctor" in doctor["attributes"]["label"]
    assert doctor["validations"]["required"]
