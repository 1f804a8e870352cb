"""The command line as its users meet it: real processes, exit codes, streams."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from siamcal import __version__ as siamcal_version
from siamcal.cli import PANELS, main
from siamcal.cli._inputs import refuse_absent
from siamcal.errors import MediaError, UnknownNameError
from siamcal.training.choice import choose_recipe

COMMANDS = [
    "bench",
    "train",
    "stats",
    "predict",
    "calibrate",
    "recalibrate",
    "agree",
    "ls",
    "show",
    "doctor",
    "push",
    "pull",
    "convert",
]


def siamcal(*arguments: str, cwd: Path | None = None, **environment: str):
    return subprocess.run(
        [sys.executable, "-m", "siamcal", *arguments],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "120", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture
def refused(monkeypatch, capfd, tmp_path):
    """Runs a command in this process, in an empty folder: (exit code, what stderr got)."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.setattr(sys, "argv", ["siamcal", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capfd.readouterr().err

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_examples(command: str) -> None:
    found = siamcal(command, "--help")
    assert found.returncode == 0
    assert "Examples" in found.stdout
    assert f"siamcal {command}" in found.stdout


def test_the_help_lists_every_command_in_a_panel_by_purpose() -> None:
    text = siamcal("--help").stdout
    inside = ["bench", "predict", "data", "ls", "push"]  # one of each panel
    marks = [m for pair in zip(PANELS, inside, strict=True) for m in (f"─ {pair[0]} ─", pair[1])]
    places = [text.index(mark if "─" in mark else f"│ {mark} ") for mark in marks]
    assert places == sorted(places)
    assert "─ Commands ─" not in text


@pytest.mark.slow
def test_disfa_without_the_data_says_how_to_get_it_and_exits_2(tmp_path) -> None:
    found = siamcal("bench", "--backbone", "ir50", "--dataset", "disfa", cwd=tmp_path)
    assert found.returncode == 2
    assert found.stdout == ""
    for word in ("Licence", "ActionUnit_Labels/SN001/SN001_au1.txt", "--data-root"):
        assert word in found.stderr
    assert "Traceback" not in found.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "disfa_intensit"], "disfa_intensity"),
        (["show", "disfaa"], "There is a data set 'disfa'"),
        (["ls", "backbone"], "Did you mean 'backbones'"),
        (["ls", "merge-points"], "siamcal ls merge-points ir50"),
        (["bench", "--set", "epoch=1"], "epochs (now"),
        (["train", "synth", "--merge-at", "a,b"], "several at once as in layer2+layer4, but got"),
        (["train", "synth", "--merge-at", "auto"], "siamcal bench --merge-at auto compares"),
        (["bench", "--backbone", "ir5"], "ir50"),
        (["bench", "--task", "gaze"], "'intensity', 'detection'"),
        (["bench", "--methods", "best"], "ncg, bs, bss, outputs, frozen"),
        (["bench", "--seeds", "a"], "whole numbers"),
        (["bench", "nothing"], "benchmark"),
        (["bench", "realism", "--name", "mine"], "takes no 'mine'"),
        (["bench", "realism", "--bias", "0", "--size", "tiny"], "'size'; it has"),
        (["bench", "--table", "12"], "12"),
        (["bench", "--table", "S1", "--dataset", "unbc"], "disfa-plus"),
        (["bench", "--table", "2", "--checkpoint", "w.pth"], "takes no --checkpoint"),
        (["bench", "--checkpoint", "w.pth"], "no file w.pth"),
        (["train", "nothing"], "synth"),
        (["train", "synth", "--task", "both"], "--task intensity"),
        (["stats", "nope"], "nope is no folder. siamcal bench makes one"),
        (["train", "runs/nope"], "runs/nope is no folder"),
        (["data", "preview", "people"], "ends in .png"),
        (["data", "preview", "people.txt"], "people.txt"),
        (["predict", "nope.mp4", "--reference", "auto"], "nope.mp4 doesn't exist (relative names"),
        (["predict", "nope.mp4"], "nope.mp4 doesn't exist"),
        (["calibrate", "nope.jpg", "-o", "x.siamcal"], "nope.jpg doesn't exist"),
        (["bench", "--dataset", "disfaa"], "Did you mean 'disfa'"),
        (["bench", "--backbone", "resnet18"], "Did you mean 'timm:resnet18'"),
        (["bench", "--backbone", "resnett18"], "Did you mean 'timm:resnet18'"),
    ],
)
def test_a_wrong_word_is_answered_with_what_is_allowed(arguments, words, refused) -> None:
    code, said = refused(*arguments)
    assert code == 2
    assert words in said


def test_the_version_and_what_can_be_listed(monkeypatch, capfd) -> None:
    monkeypatch.setattr(sys, "argv", ["siamcal", "--version"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert capfd.readouterr().out == f"siamcal {siamcal_version}\n"
    monkeypatch.setattr(sys, "argv", ["siamcal", "ls"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    listed = capfd.readouterr().out
    assert all(kind in listed for kind in ("backbones", "merge-points", "formats"))


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
@pytest.mark.parametrize(
    ("no_colour", "expected"), [("", b"\x1b[31mwrong\x1b[0m\r\n"), ("1", b"wrong\r\n")]
)
def test_no_color_is_obeyed_on_a_terminal(no_colour: str, expected: bytes) -> None:
    ours, theirs = os.openpty()
    code = "from siamcal.cli import tell; tell('wrong', 'red')"
    env = {**os.environ, "NO_COLOR": no_colour}
    subprocess.run([sys.executable, "-c", code], stderr=theirs, env=env, check=True)
    os.close(theirs)
    assert os.read(ours, 1000) == expected
    os.close(ours)


@pytest.mark.slow
def test_listings_are_tables_for_people_and_json_for_machines() -> None:
    text = siamcal("ls", "recipes").stdout
    assert "disfa_intensity" in text
    rows = json.loads(siamcal("ls", "merge-points", "ir18", "--json").stdout)
    names = [row["name"] for row in rows]
    assert {"layer1", "layer4", "fc", "output"} <= set(names)
    assert rows[names.index("layer4")]["shape"] == "256x14x14"
    shown = json.loads(siamcal("show", "disfa_intensity", "--json").stdout)
    assert shown["learning_rate"] == 1e-5
    assert shown["merge_at"] == "layer4"


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """The default job in small: rendered, cropped, trained, reported."""
    folder = tmp_path_factory.mktemp("run")
    arguments = ["bench", "--size", "tiny", "--set", "steps=3", "--folds", "0", "--name", "small"]
    found = siamcal(*arguments, "--task", "both", "--json", cwd=folder)
    return folder, arguments, found


@pytest.mark.slow
def test_the_default_job_runs_end_to_end(small_run) -> None:
    folder, _, found = small_run
    assert found.returncode == 0, found.stderr
    results = json.loads(found.stdout)
    run = folder / "runs" / "small"
    assert results == json.loads((run / "results.json").read_text())
    assert list(results["methods"]) == ["ncg", "bs", "bss", "frozen", "csn:paper", "csn"]
    assert set(results["methods"]["csn"]) == {"intensity", "detection"}
    assert results["dataset"]["rendered"] is True
    for name in ("recipe.json", "table.md", "table.tex", "table.csv", "log.txt"):
        assert (run / name).stat().st_size > 0
    for name in ("per_au_intensity.png", "over_time.png", "bias_per_participant.png"):
        assert (run / "figures" / name).stat().st_size > 5000
    assert "about" in found.stderr
    assert "minute" in found.stderr
    assert "never say how well real faces are read" in (run / "table.md").read_text()


OWN_SET = """
import dataclasses
from siamcal.cli import main
from siamcal.datasets import load_dataset
from siamcal.registry import datasets

@datasets.register("my-set")
def my_set(data_root):
    source = load_dataset("synth", size="tiny")
    return dataclasses.replace(source, name="my-set", rendered=False)

main()
"""


@pytest.mark.slow
def test_a_data_set_registered_at_run_time_needs_no_recipe(tmp_path) -> None:
    (tmp_path / "run.py").write_text(OWN_SET)
    command = ["bench", "--dataset", "my-set", "--backbone", "ir_tiny", "--methods", "csn"]
    found = subprocess.run(
        [sys.executable, "run.py", *command, "--set", "steps=2", "--folds", "0", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["dataset"]["name"] == "my-set"
    (recipe,) = (tmp_path / "runs").rglob("recipe.json")
    told = json.loads(recipe.read_text())
    assert (told["name"], told["dataset"], told["backbone"]) == ("my_set", "my-set", "ir_tiny")


def test_the_recipe_of_a_data_set_is_its_own_or_that_of_a_table() -> None:
    names = [
        choose_recipe(dataset=name, task=task).name
        for name in ("DISFA+", "unbc", "synth", "manifest")
        for task in ("intensity", "detection", "both")
    ]
    assert names == [
        *("disfa_plus_intensity", "disfa_plus_detection", "disfa_plus_intensity"),
        *("unbc_intensity", "unbc_detection", "unbc_intensity"),
        *["synth"] * 3,
        *["manifest"] * 3,
    ]
    with pytest.raises(UnknownNameError, match=r"'disfo'\. Did you mean 'disfa'"):
        choose_recipe(dataset="disfo")


@pytest.mark.slow
def test_the_same_command_again_trains_nothing(small_run) -> None:
    folder, arguments, _ = small_run
    checkpoint = next((folder / "runs" / "small").rglob("checkpoint.safetensors"))
    before = (checkpoint.stat().st_mtime_ns, checkpoint.read_bytes())
    found = siamcal(*arguments, cwd=folder)
    assert found.returncode == 0
    assert "| CSN |" in found.stdout
    assert (checkpoint.stat().st_mtime_ns, checkpoint.read_bytes()) == before


@pytest.mark.slow
def test_train_saves_a_calibrator_that_predict_takes(small_run, tmp_path) -> None:
    folder, _, _ = small_run
    found = siamcal("train", "runs/small", cwd=folder)
    assert found.returncode == 0, found.stderr
    place = folder / found.stdout.strip()
    assert {f.name for f in place.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    shown = json.loads(siamcal("show", str(place), "--json").stdout)
    assert "rendered faces only" in json.dumps(shown)
    assert '"rendered": true' in json.dumps(shown)


@pytest.mark.slow
def test_a_users_own_network_file_works(tmp_path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def build(num_outputs=10):\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1),\n"
        "                         nn.Flatten(), nn.Linear(4, num_outputs))\n"
    )
    found = siamcal("ls", "merge-points", "./net.py:build", "--size", "64", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "output" in found.stdout


@pytest.mark.parametrize(
    "command", ["predict nope.mp4 --reference auto", "calibrate nope.jpg -o x"]
)
def test_what_is_not_there_is_said_before_anything_is_loaded(command: str, tmp_path) -> None:
    code = (
        "import sys; from siamcal.cli import main\n"
        f"sys.argv = ['siamcal', *{command!r}.split()]\n"
        "try:\n    main()\nexcept SystemExit as ended:\n"
        "    print(ended.code, *({'torch', 'cv2', 'numpy'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert found.stdout == "2\n"
    assert f"(relative names start at {tmp_path}). Check the name." in found.stderr


def test_an_empty_argument_is_refused(refused, tmp_path) -> None:
    code, said = refused("predict", "x.jpg", "--reference", "x.jpg", "-o", "")
    assert code == 2
    assert said == "siamcal: The argument behind '-o' is empty. Is a variable of the shell unset?\n"
    assert not list(tmp_path.iterdir())
    assert refused("", "--help")[1].startswith("siamcal: The argument is empty.")


def test_an_even_window_is_refused_before_a_table_is_begun(refused, tmp_path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"no picture")
    code, said = refused("predict", "x.jpg", "--reference", "x.jpg", "--smooth", "2", "-o", "a.csv")
    assert (code, "odd number of frames" in said) == (2, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.jpg"]


def test_no_jobs_are_refused_by_the_option_that_was_given(refused, tmp_path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"no picture")
    code, said = refused("predict", "x.jpg", "--reference", "x.jpg", "--jobs", "0", "-o", "out/")
    assert (code, "--jobs takes 1 or more" in said) == (2, True)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("show run", "Can't read run/table.md: No such file"),
        ("stats run", "run holds no finished run"),
        ("stats run", "siamcal bench makes one"),  # not: finished is run
        ("push run nope", "A repository is named owner/name, but got 'nope'."),
        ("push run a/b --base x.pth", "--base x.pth is the file below an adapter: add --adapter."),
        ("pull a/b --revision x:y", "A revision is a branch, tag or commit, but got 'x:y'."),
        ("pull hf-hub:a/b@", "names no revision behind the @"),
        ("pull a/b --max-gb -1", "greater than or equal to 0"),
        ("agree run run", "run and run are one folder"),
        ("recalibrate run --reference-rows 1:1 -o o.csv", "run is a folder; name a table in it."),
        ("recalibrate x.jpg --reference-rows 1:1 -o o.csv", "Is x.jpg a table?"),
        ("predict x.jpg --reference x.jpg --device gpu", "(it is cpu, cuda, mps or auto)"),
        ("bench --references auto", "Data set 'synth' has no option references; it has size"),
        ("bench coverage extra", "Benchmark 'coverage' is one alone and takes no 'extra'."),
        ("train run", "run holds no recipe.json. Name a run of siamcal bench"),
        ("data check synth --data-root run", "People would be rendered into run, which holds"),
        ("bench --seeds a", "--seeds and --folds take whole numbers like 0,1,2, but got 'a'."),
    ],
)
def test_wrong_inputs_are_answered_by_what_is_wrong(command, expected, refused, tmp_path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text("{}")
    cv2.imwrite(str(tmp_path / "x.jpg"), np.zeros((8, 8, 3), np.uint8))
    code, said = refused(*command.split())
    assert code == 2
    assert expected in " ".join(said.split())
    assert "Traceback" not in said


def test_what_may_be_no_file_is_left_to_its_reader(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    refuse_absent([None, "", "-", "camera:0", "@list.csv", "clips/*.mp4", "rtsp://there/1", "."])
    with pytest.raises(MediaError, match="absent"):
        refuse_absent(["absent"])


@pytest.mark.parametrize(("name", "begins"), [("x.PNG", b"\x89PNG"), ("a/b/x.jpg", b"\xff\xd8")])
def test_a_preview_is_what_its_name_says(name: str, begins: bytes, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--participants", "1", "--image-size", "64"]
    monkeypatch.setattr(sys, "argv", ["siamcal", "data", "preview", name, *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert (tmp_path / name).read_bytes().startswith(begins)


def test_the_runs_that_there_are_are_named(tmp_path, monkeypatch, refused) -> None:
    for run in ("one", "two"):
        (tmp_path / "runs" / run).mkdir(parents=True)
        (tmp_path / "runs" / run / "results.json").write_text("{}")
        (tmp_path / "runs" / run / "predictions_intensity.parquet").touch()
    _, said = refused("stats", "runs/three")
    assert "runs/three is no folder. Finished are runs/one, runs/two." in said


@pytest.mark.slow
def test_a_plain_script_renders_in_processes_of_its_own(tmp_path) -> None:
    """Without `if __name__ == "__main__"`."""
    script = tmp_path / "mine.py"
    script.write_text(
        "from siamcal.datasets import load_dataset\n"
        "from siamcal.synth.library import ensure_rendered\n"
        "from siamcal.synth.plan import make_plan\n"
        "print('begun')\n"
        "ensure_rendered(make_plan('tiny', image_size=64), None, 2)\n"
        "print(len(load_dataset('synth', size='tiny', image_size=64).table))\n"
    )
    found = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "SIAMCAL_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert found.stdout.split() == ["begun", "60"]
