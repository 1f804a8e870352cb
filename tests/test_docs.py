"""The documents hold: command lines parse, snippets run, links lead somewhere, the site builds."""

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer.main

from siamcal import CalibratingSiamese, Reference, create_backbone
from siamcal.cli import _load_commands, app

torch.set_num_threads(1)
ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOKS = sorted((ROOT / "docs").glob("*.ipynb"))
_load_commands()
GROUP = typer.main.get_command(app)

# --- commands ------------------------------------------------------------------------------------


def blocks(text: str, *kinds: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return [code for kind, code in found if kind in kinds]


def commands_of(page: Path) -> list[str]:
    """Command lines of siamcal in a page's blocks, without comments and what is around them."""
    lines = []
    for block in blocks(page.read_text(), "bash", "sh", ""):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.search(r"(?:^|[|&] *|-m )(siamcal .*)", re.sub(r"(^|\s)# .*", "", line))
            if found:
                lines.append(re.split(r" [|>] ", found[1])[0].strip())
    return lines


def parse(line: str) -> None:
    """Parse a command line as siamcal would, without running it."""
    words = shlex.split(line)[1:]
    command, name = GROUP, "siamcal"
    while hasattr(command, "commands") and not words[0].startswith("-"):
        name = words.pop(0)
        assert name in command.commands, f"there is no command {name!r}: {line}"
        command = command.commands[name]
    command.make_context(name, words)


COMMANDS = sorted({(page.name, line) for page in PAGES for line in commands_of(page)})


def test_there_are_command_lines_to_look_at() -> None:
    assert len(COMMANDS) > 60
    assert ("README.md", "siamcal pull owner/name") in COMMANDS


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda value: str(value)[:70])
def test_a_command_line_parses(page: str, line: str) -> None:
    parse(line)


def test_a_wrong_command_line_does_not_parse() -> None:
    for line in ("siamcal predict x.mp4 --refrence y.jpg", "siamcal bench --bias low"):
        with pytest.raises(Exception, match=r"No such option|valid number"):
            parse(line)
    with pytest.raises(AssertionError, match="no command"):
        parse("siamcal benhc")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_that_the_text_names_are_there(page: Path) -> None:
    known = {"--help", "-h", "--version"}

    def collect(command: Any) -> None:
        for parameter in command.params:
            known.update(parameter.opts, parameter.secondary_opts)
        for inner in getattr(command, "commands", {}).values():
            collect(inner)

    collect(GROUP)
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for line in re.findall(r"`(siamcal [^`]*)`", text):
        named = set(re.findall(r"(?<!\S)--[\w-]+", line.replace("\n", " ")))
        assert named <= known, line


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_targets_of_make_and_extras_that_the_text_names_are_there(page: Path) -> None:
    text = page.read_text()
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    named = re.findall(r"(?:`|^)make ((?:(?!\w+=)[\w-]+ ?)+)", text, flags=re.MULTILINE)
    assert {word for words in named for word in words.split()} <= set(targets)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.findall(r"pip install .*?'(?:\.|siamcal)\[([\w,]+)\]'", text)
    asked = {extra for found in extras for extra in found.split(",")}
    assert asked <= set(project["optional-dependencies"])
    if page.name == "README.md":
        assert {"bench", "test", "docs"} <= {word for words in named for word in words.split()}
        assert {"predict", "bench", "demo", "all", "timm"} <= asked


@pytest.mark.slow
def test_the_first_five_minutes_are_as_written(tmp_path) -> None:
    page = (ROOT / "docs" / "start.md").read_text()
    (block,) = [code for code in blocks(page, "bash") if "data render" in code]
    siamcal = Path(sys.executable).with_name("siamcal")
    script = re.sub(r"^siamcal", str(siamcal), block, flags=re.MULTILINE)
    subprocess.run(["sh", "-ec", script], cwd=tmp_path, check=True, capture_output=True)
    assert "AU12_r" in (tmp_path / "aus.csv").read_text().splitlines()[0]


# --- snippets ------------------------------------------------------------------------------------

# Why a snippet isn't run here, and where what it shows is tested.
ELSEWHERE = {
    "backbones.md 1": "needs the repository of ME-GraphAU",
    "backbones.md 3": "a network with several inputs of the reader's: test_wrapper_inputs.py",
    "datasets.md 0": "a licensed data set: test_datasets_licensed.py",
    "hub.md 0": "sends: test_hub.py",
    "merges.md 1": "test_fit_anchor.py",
    "predict.md 0": "a table of the reader's: test_feat_reader.py",
    "predict.md 1": "recordings of the reader's: test_calibrator.py",
    "predict.md 2": "recordings of the reader's: test_inference.py",
    "references.md 1": "a trained null reference: test_null.py",
    "references.md 2": "a trained comparison of people: test_identity.py",
    "statistics.md 0": "registers a metric for good: test_own_metric.py",
    "synth.md 0": "renders for minutes: test_synth_data.py",
}
SNIPPETS = {
    f"{page.name} {number}": code
    for page in PAGES
    if page.name != "tools.md"  # test_tools.py
    for number, code in enumerate(blocks(page.read_text(), "python"))
}


def given() -> dict[str, Any]:
    """What a reader is said to have: a network, frames of people, labels."""
    torch.manual_seed(0)
    net = create_backbone("ir_tiny", num_outputs=12).eval()
    images = torch.rand(4, 3, 112, 112)
    labels = np.arange(200).reshape(100, 2) * 7 % 6
    return {
        "net": net,
        "model": CalibratingSiamese(net, merge_at="layer4").eval(),
        "CalibratingSiamese": CalibratingSiamese,
        "Reference": Reference,
        **dict.fromkeys(("target", "targets", "reference", "references", "neutral"), images),
        **dict.fromkeys(("neutral_frames", "neutral_images", "more_frames"), images),
        **dict.fromkeys(("first_frames", "second_frames"), images),
        **dict.fromkeys(("first", "second", "third"), images[0]),
        **dict.fromkeys(("person", "people", "index"), torch.tensor([0, 1, 2, 3])),
        "labels": labels,
        **dict.fromkeys(("preds", "csn"), labels + 0.1 * np.sin(labels)),
        "ncg": labels + np.cos(np.arange(200)).reshape(100, 2),
        "participants": np.repeat([f"p{number}" for number in range(10)], 10),
    }


@pytest.mark.parametrize("name", sorted(SNIPPETS.keys() - ELSEWHERE.keys()))
def test_a_snippet_runs(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(SNIPPETS[name], name, "exec"), given())


def test_every_snippet_is_run_here_or_elsewhere() -> None:
    assert ELSEWHERE.keys() <= SNIPPETS.keys()
    for name, why in ELSEWHERE.items():
        compile(SNIPPETS[name], name, "exec")
        for file in re.findall(r"test_\w+\.py", why):
            assert (ROOT / "tests" / file).exists(), f"{name}: {file}"


# --- links and the site --------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_every_page_is_in_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text().partition("nav:")[2].partition("exclude_docs")[0]
    listed = re.findall(r"(\w[\w-]*\.md)", menu)
    pages = [page.name for page in (ROOT / "docs").glob("*.md")]
    assert sorted(listed) == sorted([*pages, *(f"{page.stem}.md" for page in NOTEBOOKS)])


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="pip install '.[docs]'")
def test_the_site_builds_without_a_warning(tmp_path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not built.returncode, built.stderr
    api = (tmp_path / "api" / "index.html").read_text()
    for name in ("model.siamese.CalibratingSiamese", "inference.calibrator.Calibrator"):
        assert f'id="siamcal.{name}"' in api
    fetched = re.findall(r'(?:src|href)="(https?://[^"]+\.(?:js|css|woff2?))"', api)
    assert not fetched, "the site's reader would ask another host"
    notebook = (tmp_path / "train-notebook" / "index.html").read_text()
    pictures = re.findall(r'<img [^>]*src="([^"]+)"', notebook)
    assert len([name for name in pictures if "train-notebook-output" in name]) == 3
    for name in pictures:
        assert (tmp_path / "train-notebook" / name).exists(), name
    assert 'href="../train-notebook/"' in (tmp_path / "train" / "index.html").read_text()
