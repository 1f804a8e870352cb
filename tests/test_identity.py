"""Runs and trainings are of their data and settings: nothing of another one is taken over."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from facesets import RECIPE, squares

from siamcal.errors import ConfigError
from siamcal.evaluation.compare import Job, compare
from siamcal.evaluation.run import run_name
from siamcal.training.identity import recipe_facts
from siamcal.training.loop import fit

SHORT = dataclasses.replace(RECIPE, steps=2)
METHODS = ("ncg", "bs")


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return squares(tmp_path_factory.mktemp("squares"), people=4, frames=6)


def relabelled(faces):
    """The same rows and pictures with other labels."""
    table = faces.table.assign(AU01=5.0 - faces.table["AU01"])
    source = dataclasses.replace(faces.source, table=table)
    return dataclasses.replace(faces, source=source, table=table)


def other_crops(faces, folder):
    images = np.load(faces.images_path)
    np.save(folder / "other.npy", 255 - images)
    return dataclasses.replace(faces, images_path=folder / "other.npy")


def other_references(faces):
    return dataclasses.replace(faces, reference_rows=faces.reference_rows + 1)


def trained(faces, folder):
    rows = faces.fold(0)[0]
    network = fit(SHORT, faces, rows, calibrated=True, folder=folder)
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.mark.parametrize("change", ["labels", "crops", "references"])
def test_a_checkpoint_of_other_data_is_trained_anew(faces, change, tmp_path) -> None:
    trained(faces, tmp_path / "run")
    others = {
        "labels": lambda: relabelled(faces),
        "crops": lambda: other_crops(faces, tmp_path),
        "references": lambda: other_references(faces),
    }
    other = others[change]()
    torch.testing.assert_close(trained(other, tmp_path / "run"), trained(other, tmp_path / "fresh"))


def test_labels_of_people_who_are_tested_change_no_training(faces, tmp_path, caplog) -> None:
    trained(faces, tmp_path)
    _, tested = faces.fold(0)
    table = faces.table.copy()
    table.loc[tested, "AU01"] = 3.0
    source = dataclasses.replace(faces.source, table=table)
    trained(dataclasses.replace(faces, source=source, table=table), tmp_path)
    assert "starts anew" not in caplog.text


def test_a_folder_of_other_data_is_refused_and_its_results_stay(faces, tmp_path) -> None:
    compare(Job(SHORT, tmp_path, methods=METHODS), faces)
    before = (tmp_path / "results.json").read_bytes()
    for other, named in (
        (relabelled(faces), "frames, labels and references differ"),
        (other_references(faces), "reference of each frame differ"),
    ):
        with pytest.raises(ConfigError, match=named):
            compare(Job(SHORT, tmp_path, methods=METHODS), other)
    with pytest.raises(ConfigError, match=r"steps was 2 and is 3.*--name"):
        compare(Job(dataclasses.replace(SHORT, steps=3), tmp_path, methods=METHODS), faces)
    assert (tmp_path / "results.json").read_bytes() == before
    # The same run goes on, with the other task too.
    again = compare(Job(SHORT, tmp_path, ("detection",), ("ncg",)), faces)
    assert again.results["methods"]["ncg"]["detection"]


def test_other_labels_folds_or_references_are_another_run_folder(faces, tmp_path) -> None:
    source = faces.source
    moved = source.table.assign(source="/elsewhere/" + source.table["source"])
    names = [
        run_name(SHORT, ("intensity",), one)
        for one in (
            source,
            relabelled(faces).source,
            dataclasses.replace(source, folds=source.folds[::-1]),
            dataclasses.replace(source, detection_thresholds={1: 3}),
            dataclasses.replace(source, table=source.table.assign(is_reference=False)),
        )
    ]
    assert len(set(names)) == len(names)
    copy = dataclasses.replace(source, table=moved)
    assert run_name(SHORT, ("intensity",), copy) == names[0]


def test_start_weights_count_by_what_is_in_them(faces, tmp_path) -> None:
    """Also those that a network's own function loads, of which the recipe knows nothing."""
    (tmp_path / "net.py").write_text(
        "import torch\nfrom pathlib import Path\nfrom torch import nn\n\n\n"
        "def build(num_outputs=12):\n"
        "    net = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.Flatten(), nn.Linear(64, num_outputs))\n"
        "    net[0].load_state_dict(torch.load(Path(__file__).with_name('w.pth')))\n"
        "    return net\n"
    )
    recipe = dataclasses.replace(
        SHORT, backbone=f"{tmp_path / 'net.py'}:build", backbone_options={}, merge_at="1"
    )
    rows, found = faces.fold(0)[0], {}
    for seed, folder in ((1, "a"), (2, "a"), (2, "b")):
        torch.manual_seed(seed)
        torch.save(torch.nn.Conv2d(3, 4, 8, 8).state_dict(), tmp_path / "w.pth")
        network = fit(recipe, faces, rows, calibrated=False, folder=tmp_path / folder)
        found[seed, folder] = network.backbone[0].weight.detach()
    torch.testing.assert_close(found[2, "a"], found[2, "b"])
    assert not torch.allclose(found[1, "a"], found[2, "a"])


def test_the_files_that_a_recipe_names_count_by_their_content(tmp_path) -> None:
    for name in ("w.pth", "c.pth", "net.py"):
        (tmp_path / name).write_text(name)
    named = {
        "weights": str(tmp_path / "w.pth"),
        "checkpoint": str(tmp_path / "c.pth"),
        "backbone": f"{tmp_path / 'net.py'}:build",
    }
    for field, value in named.items():
        facts = recipe_facts(dataclasses.replace(SHORT, **{field: value}))
        assert len(facts[f"{field}_sha256"]) == 64
        assert [key for key in facts if key.endswith("_sha256")] == [f"{field}_sha256"]
        assert ("checkpoint" in facts) == (field == "checkpoint")


def test_a_damaged_identity_is_named(faces, tmp_path) -> None:
    compare(Job(SHORT, tmp_path, methods=("ncg",)), faces)
    facts = json.loads((tmp_path / "identity.json").read_text())
    assert facts["steps"] == 2
    (tmp_path / "identity.json").write_text('{"steps": ')
    with pytest.raises(ConfigError, match=r"identity\.json isn't JSON.*line 1"):
        compare(Job(SHORT, tmp_path, methods=("ncg",)), faces)
