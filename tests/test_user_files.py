"""Backbones from a user's own file: neighbours, dataclasses, pickles, errors."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch

from siamcal import CalibratingSiamese, create_backbone
from siamcal.errors import ConfigError, DataNotFoundError, UnknownNameError

torch.set_num_threads(1)

NET = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, num_outputs=7):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, num_outputs)
    def forward(self, x):
        return self.fc(self.stem(x).mean((2, 3)))
"""


def write(folder, **files):
    """Files by name, `__` for a folder's slash."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_neighbours_can_be_imported(tmp_path):
    write(
        tmp_path,
        model__anfl=NET,
        helper="WIDTH = 5",
        net="from model.anfl import Net\nfrom helper import WIDTH\n"
        "def build(num_outputs=WIDTH): return Net(num_outputs)",
    )
    before = list(sys.path)
    assert create_backbone(f"{tmp_path}/net.py:build").fc.out_features == 5
    assert create_backbone(f"{tmp_path}/net.py:build", 9).fc.out_features == 9
    assert sys.path == before


def test_neighbours_can_be_imported_late(tmp_path):
    write(
        tmp_path,
        late_part=NET,
        net="def build(num_outputs=7):\n    from late_part import Net\n    return Net(num_outputs)",
    )
    assert create_backbone(f"{tmp_path}/net.py:build", 3).fc.out_features == 3


def test_neighbours_of_one_name_in_two_folders(tmp_path):
    networks = []
    for width in (5, 6):
        folder = tmp_path / str(width)
        write(
            folder,
            shared__part=NET.replace("num_outputs=7", f"num_outputs={width}"),
            net="from shared.part import Net\ndef build(): return Net()",
        )
        networks.append(create_backbone(f"{folder}/net.py:build"))
    assert [n.fc.out_features for n in networks] == [5, 6]


def test_annotations_of_a_dataclass_in_words(tmp_path):
    write(
        tmp_path,
        net="from __future__ import annotations\nfrom dataclasses import dataclass\n"
        f"{NET}\n@dataclass\nclass Config:\n    width: int = 4\n    name: str | None = None\n"
        "def build(num_outputs=7): return Net(num_outputs)",
    )
    assert create_backbone(f"{tmp_path}/net.py:build", 4).fc.out_features == 4


def test_networks_of_a_file_pickle(tmp_path):
    write(tmp_path, net=NET)
    name = f"{tmp_path}/net.py:Net"
    network = create_backbone(name, 4).eval()
    again = create_backbone(name, 4)
    assert type(again) is type(network), "the file is run once"
    x = torch.rand(2, 3, 8, 8)
    model = CalibratingSiamese(network, "fc", example_inputs=x).eval()
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(twin(x, x.flip(0)), model(x, x.flip(0)))
    assert torch.equal(pickle.loads(pickle.dumps(network))(x), network(x))


def test_a_pickle_in_another_process_says_what_is_missing(tmp_path):
    write(tmp_path, net=NET)
    network = create_backbone(f"{tmp_path}/net.py:Net", 4)
    model = CalibratingSiamese(network, "fc", example_inputs=torch.rand(2, 3, 8, 8))
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    read = f"import pickle; pickle.load(open(r'{tmp_path}/model.pkl', 'rb'))"
    first = f"import siamcal; siamcal.create_backbone(r'{tmp_path}/net.py:Net'); "
    alone, after = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        for code in (read, first + read)
    )
    assert alone.returncode != 0
    assert "create_backbone('./net.py:FUNCTION')" in alone.stderr
    assert after.returncode == 0, after.stderr


def test_a_file_that_was_changed_is_run_again(tmp_path):
    write(tmp_path, net=NET)
    name = f"{tmp_path}/net.py:Net"
    old = create_backbone(name)
    write(tmp_path, net=NET.replace("num_outputs=7", "num_outputs=11"))
    assert create_backbone(name).fc.out_features == 11
    assert old.fc.out_features == 7


def test_a_function_that_insists_on_a_number_of_outputs_gets_one(tmp_path):
    write(tmp_path, net=NET + "def build(num_outputs): return Net(num_outputs)")
    assert create_backbone(f"{tmp_path}/net.py:build").fc.out_features == 72
    assert create_backbone(f"{tmp_path}/net.py:build", 9).fc.out_features == 9
    found = subprocess.run(
        [sys.executable, "-m", "siamcal", "ls", "merge-points", f"{tmp_path}/net.py:build"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not found.returncode, found.stderr
    assert "stem" in found.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import torch\nimport not_there_at_all\n",
            r"net\.py can't be run: .*not_there_at_all.*line 2",
        ),
        ("def build(:\n", r"can't be run: SyntaxError"),
        ("x = 1\nraise RuntimeError('no weights')\n", r"RuntimeError: no weights \(line 2\)"),
        ("def build(num_outputs=3):\n    return None + 1\n", r"can't be made: .*\(line 2\)"),
        ("def build(num_outputs=3):\n    return 5\n", "returned a int"),
    ],
)
def test_errors_of_a_file_name_the_line(tmp_path, text, message):
    write(tmp_path, net=text)
    modules = set(sys.modules)
    with pytest.raises(ConfigError, match=message):
        create_backbone(f"{tmp_path}/net.py:build")
    assert not {m for m in set(sys.modules) - modules if "siamcal_user_net" in m} or "def" in text


def test_names_that_miss_something(tmp_path, monkeypatch):
    write(tmp_path, net=NET)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError, match=r"has no function 'build'; it has: Net"):
        create_backbone("./net.py:build")
    with pytest.raises(UnknownNameError, match=r"Did you mean '\./net\.py:Net'"):
        create_backbone("net:Net")
    with pytest.raises(DataNotFoundError, match="no file"):
        create_backbone("./other.py:Net")
