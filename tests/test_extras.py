"""The core works without any extra, and what needs one says which line installs it."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from siamcal.errors import MissingDependencyError
from siamcal.extras import INCLUDES, PACKAGES, install_line, needed_for

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {
    name: [Requirement(line) for line in lines]
    for name, lines in PROJECT["optional-dependencies"].items()
}
# Runs code as in an installation without any extra: every finder of modules is blind to theirs.
BLOCKED = f"""
import sys
class Blind:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, *others):
        hidden = name.partition(".")[0] in {set(PACKAGES)!r}
        return None if hidden else self.finder.find_spec(name, *others)
sys.meta_path[:] = [Blind(finder) for finder in sys.meta_path]
"""


def without_extras(code: str, *arguments: str, cwd=None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", BLOCKED + code, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def command(*arguments: str, cwd=None) -> subprocess.CompletedProcess:
    return without_extras("import siamcal.cli; siamcal.cli.main()", *arguments, cwd=cwd)


# --- the table -----------------------------------------------------------------------------------


def test_the_table_says_what_pyproject_says() -> None:
    for module, (package, extra) in PACKAGES.items():
        assert package in {one.name for one in EXTRAS[extra]}, f"{module}: {package} of {extra}"
    for extra in EXTRAS.keys() - {"all", "dev"}:
        own = {one for line in EXTRAS[extra] if line.name == "siamcal" for one in line.extras}
        assert own == set(INCLUDES.get(extra, ())), extra
    assert {one for line in EXTRAS["all"] for one in line.extras} == {"bench", "demo"}
    assert {"all"} <= {one for line in EXTRAS["dev"] for one in line.extras}


def test_every_import_is_of_the_core_or_of_an_extra() -> None:
    core = {Requirement(line).name.lower() for line in PROJECT["dependencies"]}
    known = core | set(PACKAGES) | set(sys.stdlib_module_names) | {"siamcal"}
    allowed = {"skimage", "sklearn"}  # of a benchmark, which names the line itself
    strange = set()
    for folder in ("siamcal", "backbones", "recipes", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module]
                tops = {name.partition(".")[0] for name in names}
                strange |= {(path.name, top) for top in tops - known - allowed}
    assert not strange


# --- the core ------------------------------------------------------------------------------------

WRAP = """
import torch
from torch import nn
from siamcal import CalibratingSiamese, create_backbone, list_merge_points
from siamcal.model.heads import make_head

net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
images = torch.rand(2, 3, 16, 16)
assert [point.name for point in list_merge_points(net, images)][-1] == "output"
model = CalibratingSiamese(net, merge_at="3", example_inputs=images)
assert model(images, model.encode(images[:1])).shape == (2, 2)

net = create_backbone("ir_tiny", 12)
model = CalibratingSiamese(net, merge_at="layer4", head=make_head("intensity", 2))
model.save_pretrained("calibrator", aus=(1, 2), task="intensity")
again = CalibratingSiamese.from_pretrained("calibrator")
images = torch.rand(2, 3, 112, 112)
with torch.inference_mode():
    torch.testing.assert_close(again(images, images), model.eval()(images, images))
"""


@pytest.mark.slow
def test_wrapping_saving_loading_and_publishing_are_the_core(tmp_path) -> None:
    found = without_extras(WRAP, cwd=tmp_path)
    assert not found.returncode, found.stderr
    pushed = command("push", "calibrator", "me/it", "--dry-run", cwd=tmp_path)
    assert not pushed.returncode, pushed.stderr
    assert "model.safetensors" in pushed.stdout
    shown = command("show", "calibrator", cwd=tmp_path)
    assert not shown.returncode, shown.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["predict", "--help"],
        ["bench", "--help"],
        ["ls"],
        ["ls", "recipes"],
        ["show", "synth"],
    ],
    ids=" ".join,
)
def test_the_command_line_answers_without_extras(arguments: list[str]) -> None:
    found = command(*arguments)
    assert not found.returncode, found.stderr
    if arguments == ["ls"]:
        assert install_line("bench") in found.stdout
        assert install_line("predict") in found.stdout


# --- what needs more -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["predict", "x.mp4", "--reference", "auto"], "predict"),
        (["calibrate", "x.jpg", "-o", "x.siamcal"], "predict"),
        (["recalibrate", "x.parquet", "--reference-rows", "1:3", "-o", "y.parquet"], "predict"),
        (["agree", "x.parquet", "x.parquet"], "predict"),
        (["bench", "--size", "tiny"], "bench"),
        (["bench", "coverage"], "bench"),
        (["train", "synth"], "bench"),
        (["data", "render", "--size", "tiny"], "bench"),
        (["stats", "runs/x"], "bench"),
        (["demo"], "demo"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_command_names_the_line_of_its_extra(arguments, extra, tmp_path) -> None:
    for name in ("x.parquet", "x.mp4", "x.jpg"):
        (tmp_path / name).write_bytes(b"PAR1 and more PAR1")
    found = command(*arguments, cwd=tmp_path)
    assert found.returncode == 2
    assert f"siamcal: siamcal {arguments[0]} needs the package " in found.stderr
    assert f"Install it: {install_line(extra)}" in found.stderr
    assert "Traceback" not in found.stderr


def test_in_python_it_is_one_error_with_the_line() -> None:
    code = """
from siamcal.errors import MissingDependencyError
import siamcal
def said(load):
    try:
        load()
    except MissingDependencyError as error:
        print(error)
said(lambda: siamcal.Calibrator)
said(lambda: __import__("siamcal.inference"))
said(lambda: __import__("siamcal.faces.media"))
said(lambda: __import__("siamcal.datasets"))
said(lambda: siamcal.create_backbone("timm:resnet18"))
said(lambda: siamcal.create_backbone("torchvision:resnet18"))
said(lambda: siamcal.create_backbone("transformers:vit"))
"""
    lines = without_extras(code).stdout.splitlines()
    assert [re.findall(r"siamcal\[(\w+)\]", line) for line in lines] == [
        ["predict"],
        ["predict"],
        ["predict"],
        ["bench"],
        ["timm"],
        ["timm"],
        ["transformers"],
    ]


def test_what_lies_further_in_names_the_line_too(monkeypatch) -> None:
    """These are imported where their own extra is missing, and all others are there."""
    from siamcal.backbones.timm import load_timm
    from siamcal.backbones.torchvision import create_torchvision
    from siamcal.backbones.transformers import create_transformers

    from siamcal.inference.many import _with_ray
    from siamcal.training.log import _summary_writer

    for name, load in {
        "timm": load_timm,
        "torchvision": lambda: create_torchvision("resnet18"),
        "transformers": lambda: create_transformers("vit"),
        "ray": lambda: list(_with_ray([], 1)),
        "tensorboard": lambda: _summary_writer(Path(), 0),
    }.items():
        for module in [m for m in sys.modules if m.partition(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingDependencyError, match=rf"needs the package {name}, ") as caught:
            load()
        assert install_line(PACKAGES[name][1]) in str(caught.value)


def test_torchvision_made_for_another_torch(monkeypatch) -> None:
    from siamcal.backbones import torchvision as ours

    def broken() -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(ours, "declare_operators", broken)
    with pytest.raises(MissingDependencyError, match=r"don't fit .*--force-reinstall torch torch"):
        ours.create_torchvision("resnet18")


def test_only_the_table_says_what_installs_a_package_of_an_extra() -> None:
    packages = {package for package, _ in PACKAGES.values()}
    for folder in ("siamcal", "backbones", "recipes", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            named = re.findall(r"pip install (?:-\S+ )*[\"']?([\w-]+)", path.read_text())
            assert not packages & set(named), path


def test_a_library_of_the_system_is_named_with_its_package() -> None:
    with pytest.raises(MissingDependencyError, match=r"apt-get install .*libgl1"), needed_for("It"):
        raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")


def test_other_errors_stay_as_they_are() -> None:
    for error in (ModuleNotFoundError("No module named 'mine'", name="mine"), OSError("disk full")):
        with pytest.raises(type(error)) as caught, needed_for("It", "bench"):
            raise error
        assert caught.value is error


def test_what_was_explained_further_in_stays_unless_the_extra_brings_it() -> None:
    def inner() -> None:
        with needed_for("Faces", otherwise="wait"):
            raise ModuleNotFoundError("No module named 'mediapipe'", name="mediapipe")

    said = r"^Faces .*siamcal\[mediapipe\].*or wait"
    with (
        pytest.raises(MissingDependencyError, match=said),
        needed_for("siamcal bench", "bench"),
    ):
        inner()
