"""A user's own trained network, compared as it is: held against its forward in plain torch."""

import dataclasses
import json

import facesets
import numpy as np
import pytest
import torch
from facesets import squares
from torch import nn

from siamcal.errors import ConfigError, DataNotFoundError, WeightsError
from siamcal.evaluation.compare import Job, checkpoint_facts, compare, cross_validate
from siamcal.evaluation.metrics import icc
from siamcal.evaluation.point_choice import choose_point
from siamcal.evaluation.run import outlook, run_name, swept_methods
from siamcal.evaluation.tables import markdown, write_report
from siamcal.training.choice import choose_recipe
from siamcal.training.everyone import config_facts, train_everyone
from siamcal.training.loop import fit
from siamcal.training.networks import build_network
from siamcal.training.points import sweep_points
from siamcal.training.recipe import Recipe

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU())
        self.rest = nn.Sequential(nn.Flatten(), nn.Linear(144, 32), nn.ReLU())
        self.fc = nn.Linear(32, outputs)

    def forward(self, x):
        return self.fc(self.rest(self.body(self.stem(x))))

def build(num_outputs=2):
    return Net(num_outputs)

def fixed():
    return Net(2)

def wide():
    return Net(12)

def several(num_outputs=2):
    class Two(Net):
        def forward(self, x):
            return super().forward(x), x
    return Two(num_outputs)
"""


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    torch.set_num_threads(1)
    return squares(tmp_path_factory.mktemp("squares"), people=8, frames=24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, faces):
    """my_net.py and weights of 2 and of 12 outputs, trained by plain torch on other people."""
    place = tmp_path_factory.mktemp("own")
    (place / "my_net.py").write_text(NET)
    others = squares(tmp_path_factory.mktemp("others"), people=6, frames=24, seed=7)
    images = others.preprocessing.to_tensor(np.asarray(others.images))
    labels = torch.from_numpy(others.labels(facesets.AUS))
    for width in (2, 12):
        torch.manual_seed(0)
        network = plain_network(width)
        optimizer = torch.optim.Adam(network.parameters(), 3e-3)
        for _ in range(60):
            loss = (network(images)[:, :2] - labels).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        torch.save(network.state_dict(), place / f"weights{width}.pth")
    return place


def plain_network(width: int) -> nn.Module:
    """The user's network without siamcal."""
    names: dict = {}
    exec(NET, names)
    return names["build"](width)


def recipe_of(folder, width: int = 2, **changes) -> Recipe:
    own = {"backbone": f"{folder / 'my_net.py'}:build", "backbone_options": {}, "merge_at": "body"}
    checkpoint = str(folder / f"weights{width}.pth")
    return dataclasses.replace(facesets.RECIPE, **{**own, "checkpoint": checkpoint, **changes})


def own_readings(folder, faces, width: int) -> np.ndarray:
    network = plain_network(width).eval()
    network.load_state_dict(torch.load(folder / f"weights{width}.pth"))
    with torch.no_grad():
        images = faces.preprocessing.to_tensor(np.asarray(faces.images))
        return network(images)[:, :2].numpy()


@pytest.mark.parametrize("width", [2, 12])
@pytest.mark.parametrize("freeze_pre", [0, 1])
def test_ncg_reads_what_the_checkpoint_reads_and_bs_subtracts_it(
    folder, faces, tmp_path, width, freeze_pre, monkeypatch
) -> None:
    monkeypatch.setenv("SIAMCAL_CACHE", str(tmp_path / "cache"))
    recipe = recipe_of(folder, width, freeze_pre=freeze_pre)
    found = cross_validate(recipe, faces, tmp_path, ("ncg", "bs", "frozen"))
    own = own_readings(folder, faces, width)
    np.testing.assert_allclose(found.preds["ncg"], own, atol=1e-5)
    np.testing.assert_allclose(found.preds["bs"], own - own[faces.reference_rows], atol=1e-5)
    assert not list(tmp_path.rglob("*.safetensors"))  # nothing was trained


def test_frozen_is_the_networks_second_part_behind_moved_features(folder, faces, tmp_path) -> None:
    found = cross_validate(recipe_of(folder), faces, tmp_path, ("frozen", "bss"))
    network = plain_network(2).eval()
    network.load_state_dict(torch.load(folder / "weights2.pth"))
    images = faces.preprocessing.to_tensor(np.asarray(faces.images))
    with torch.no_grad():
        features, own = network.stem(images), network(images).numpy()
        for fold in range(2):
            training, validation = faces.fold(fold)
            rest = np.unique(faces.reference_rows[training])  # each person has one reference
            reference = faces.reference_rows[validation]
            moved = features[validation] - 0.75 * (features[reference] - features[rest].mean(0))
            expected = network.fc(network.rest(network.body(moved))).numpy()
            np.testing.assert_allclose(found.preds["frozen"][validation], expected, atol=1e-4)
            mean = own[rest].mean(0)
            bss = own[validation] - (mean + 0.75 * (own[reference] - mean))
            np.testing.assert_allclose(found.preds["bss"][validation], bss, atol=1e-4)


def test_no_weight_changes_and_csn_starts_from_the_checkpoint(folder, faces) -> None:
    recipe, rows = recipe_of(folder), faces.fold(0)[0]
    state = torch.load(folder / "weights2.pth")
    plain = fit(recipe, faces, rows, calibrated=False).backbone.state_dict()
    start = build_network(recipe, 2, calibrated=True).backbone.state_dict()
    trained = fit(recipe, faces, rows, calibrated=True).backbone.state_dict()
    for name, value in state.items():
        assert torch.equal(plain[name], value), name
        assert torch.equal(start[name], value), name
    assert any(not torch.equal(trained[name], value) for name, value in state.items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("fc.bias"), ["1 missing in the file (fc.bias)", "--set weights=PATH"]),
        (lambda s: s.update(extra=torch.zeros(1)), ["1 not in the network (extra)"]),
        (
            lambda s: s.update({"rest.1.weight": torch.zeros(32, 100)}),
            ["rest.1.weight (32, 100) in the file, (32, 144) in the network"],
        ),
        (
            lambda s: (s.pop("fc.bias"), s.update(other=torch.zeros(1))),
            ["missing in the file (fc.bias)", "not in the network (other)"],
        ),
        (lambda s: s.clear() or s.update(epoch=3), ["missing in the file"]),
    ],
)
def test_a_checkpoint_that_fits_in_part_is_refused(folder, faces, tmp_path, change, words) -> None:
    state = dict(torch.load(folder / "weights2.pth"))
    change(state)
    torch.save(state, tmp_path / "wrong.pth")
    recipe = recipe_of(folder, checkpoint=str(tmp_path / "wrong.pth"))
    with pytest.raises(WeightsError) as error:
        cross_validate(recipe, faces, tmp_path, ("ncg",))
    assert all(word in str(error.value) for word in words), error.value


def test_containers_prefixes_and_old_batchnorms_are_understood(folder, faces, tmp_path) -> None:
    state = torch.load(folder / "weights2.pth")
    state = {f"module.{k}": v for k, v in state.items() if "num_batches" not in k}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "theirs.pth")
    for function in ("build", "fixed"):
        recipe = recipe_of(
            folder,
            backbone=f"{folder / 'my_net.py'}:{function}",
            checkpoint=str(tmp_path / "theirs.pth"),
        )
        found = cross_validate(recipe, faces, tmp_path, ("ncg",))
        np.testing.assert_allclose(found.preds["ncg"], own_readings(folder, faces, 2), atol=1e-5)


def test_what_a_checkpoint_cannot_be_is_refused_in_words(folder, faces, tmp_path) -> None:
    def refused(error, words, **changes):
        with pytest.raises(error, match=words):
            build_network(recipe_of(folder, **changes), 2, calibrated=False)

    refused(DataNotFoundError, "no file .*none.pth", checkpoint=str(tmp_path / "none.pth"))
    refused(ConfigError, "would be written over", weights="asset:ir_tiny_start")
    refused(ConfigError, "returns tuple", backbone=f"{folder / 'my_net.py'}:several")
    size = dataclasses.replace(facesets.RECIPE.preprocessing, size=64)
    refused(
        ConfigError, r"can't read images of 3 x 64 x 64.*preprocessing\.size", preprocessing=size
    )
    refused(WeightsError, r"fc.weight \(12, 32\)", width=12, task="detection")
    wide = f"{folder / 'my_net.py'}:wide"
    words = "gives 12 outputs.*2 AUs; for detection it must give 2 "
    refused(ConfigError, words, width=12, task="detection", backbone=wide)
    with pytest.raises(ConfigError, match=r"gives 2 outputs.*has 3 AUs.*3 \(one an AU\) or 18"):
        build_network(recipe_of(folder), 3, calibrated=False)
    state = torch.load(folder / "weights2.pth")
    torch.save({**state, "fc.bias": torch.full((2,), np.nan)}, tmp_path / "nan.pth")
    refused(ConfigError, "NaN", checkpoint=str(tmp_path / "nan.pth"))
    both = Job(recipe_of(folder), tmp_path, ("intensity", "detection"), ("ncg",))
    with pytest.raises(ConfigError, match="not both"):
        compare(both, faces)


def test_people_in_no_fold_are_tested_and_nobody_learns_from_nobody(
    folder, faces, tmp_path
) -> None:
    fold = faces.source.folds[0]
    some = dataclasses.replace(faces, source=dataclasses.replace(faces.source, folds=(fold,)))
    found = cross_validate(recipe_of(folder), some, tmp_path, ("ncg", "frozen"))
    assert len(found.labels) == len(faces)
    np.testing.assert_allclose(found.preds["ncg"], own_readings(folder, faces, 2), atol=1e-5)
    one = dataclasses.replace(
        faces, source=dataclasses.replace(faces.source, folds=(faces.source.participants,))
    )
    whole = cross_validate(recipe_of(folder), one, tmp_path, ("ncg", "bs"))
    np.testing.assert_allclose(whole.preds["ncg"], own_readings(folder, faces, 2), atol=1e-5)
    for method in ("bss", "frozen", "csn"):
        with pytest.raises(ConfigError, match=f"{method} learns from other people"):
            cross_validate(recipe_of(folder), one, tmp_path, ("ncg", method))


def test_other_contents_are_another_run(folder, tmp_path) -> None:
    weights, network = tmp_path / "w.pth", tmp_path / "net.py"
    weights.write_bytes((folder / "weights2.pth").read_bytes())
    network.write_text(NET)
    recipe = recipe_of(folder, checkpoint=str(weights), backbone=f"{network}:build")
    start = dataclasses.replace(recipe, checkpoint="", weights=str(weights))
    before = [run_name(r, ("intensity",)) for r in (recipe, start)]
    assert before == [run_name(r, ("intensity",)) for r in (recipe, start)]
    weights.write_bytes((folder / "weights12.pth").read_bytes())
    changed = [run_name(r, ("intensity",)) for r in (recipe, start)]
    assert not set(before) & set(changed)
    network.write_text(NET.replace("ReLU", "GELU"))
    assert not set(changed) & {run_name(r, ("intensity",)) for r in (recipe, start)}


def test_a_report_says_whose_network_it_was(folder, faces, tmp_path) -> None:
    methods = ("ncg", "bs", "bss", "frozen@auto")
    results = compare(Job(recipe_of(folder), tmp_path, methods=methods), faces).results
    facts = json.loads((tmp_path / "results.json").read_text())["checkpoint"]
    assert (facts["file"], facts["outputs"]) == ("weights2.pth", 2)
    assert facts["order"] == ["AU01", "AU12"]
    text = markdown(results)
    assert facts["sha256"][:16] in text
    assert "not trained here" in text
    assert "chosen on the training people" in text
    assert "frozen@auto-bs" in results["differences"]
    write_report(results, tmp_path)
    said = outlook(Job(recipe_of(folder), tmp_path, ("intensity",), methods), 8, 192, 2, 2)
    assert "Nothing is trained" in said
    assert "0 trainings" in said
    assert "merge at auto" in said


@pytest.mark.parametrize("methods", [("frozen@auto",), ("csn@auto",)])
def test_the_choice_never_sees_the_test_peoples_labels(folder, faces, tmp_path, methods) -> None:
    recipe = dataclasses.replace(recipe_of(folder), steps=2)
    validation = faces.fold(0)[1]
    table = faces.table.copy()
    generator = np.random.default_rng(0)
    for column in ("AU01", "AU12"):
        values = generator.permutation(table[column].to_numpy()[validation])
        table.loc[validation, column] = 5 - values
    shuffled = dataclasses.replace(
        faces, table=table, source=dataclasses.replace(faces.source, table=table)
    )
    runs = [
        compare(Job(recipe, tmp_path / name, methods=methods, folds=[0]), one)
        for name, one in (("as", faces), ("shuffled", shuffled))
    ]
    choices = [run.results["merge_points"]["intensity"]["42"]["fold0"] for run in runs]
    assert choices[0] == choices[1]
    preds = [run.predictions["intensity"].preds[methods[0]] for run in runs]
    np.testing.assert_array_equal(*preds)
    assert set(choices[0]["values"]) == set(sweep_points(recipe))


def test_the_choice_is_the_best_icc_on_the_training_people(folder, faces, tmp_path) -> None:
    recipe = recipe_of(folder)
    job = Job(recipe, tmp_path, methods=("frozen@auto",), folds=[0])
    choice = compare(job, faces).results["merge_points"]["intensity"]["42"]["fold0"]
    training = faces.fold(0)[0]
    network = plain_network(2).eval()
    network.load_state_dict(torch.load(folder / "weights2.pth"))
    parts = {"stem": 0, "body": 1, "rest": 2, "fc": 3, "output": 4}
    stages = [network.stem, network.body, network.rest, network.fc]
    rest = np.unique(faces.reference_rows[training])
    assert len(choice["values"]) >= 3
    for point, value in choice["values"].items():
        with torch.no_grad():
            x = faces.preprocessing.to_tensor(np.asarray(faces.images))
            for stage in stages[: parts[point]]:
                x = stage(x)
            x = x[training] - 0.75 * (x[faces.reference_rows[training]] - x[rest].mean(0))
            for stage in stages[parts[point] :]:
                x = stage(x)
        expected = icc(x.numpy(), faces.labels(facesets.AUS)[training]).mean()
        assert value == pytest.approx(expected, abs=1e-4), point
    assert choice["values"][choice["chosen"]] == max(choice["values"].values())


def test_a_choice_that_cannot_be_made_is_refused() -> None:
    labels = np.array([[0.0], [3.0], [0.0], [2.0]])
    people = np.array(["a", "a", "b", "b"])

    def read(point: str) -> np.ndarray:
        if point == "closed":
            raise ConfigError("no cut there")
        return labels * (1 if point == "good" else -1)

    choice = choose_point(["closed", "bad", "good"], read, labels, people, "intensity")
    assert (choice.chosen, choice.refused) == ("good", {"closed": "no cut there"})
    with pytest.raises(ConfigError, match="at least 2 training people"):
        choose_point(["good"], read, labels, np.array(["a"] * 4), "intensity")
    with pytest.raises(ConfigError, match="closed: no cut there"):
        choose_point(["closed"], read, labels, people, "intensity")
    with pytest.raises(ConfigError, match="undefined"):
        choose_point(["good"], lambda _: 0 * labels, 0 * labels, people, "intensity")


def test_names_of_methods_and_the_recipe_of_a_checkpoint(folder) -> None:
    recipe = recipe_of(folder)
    named = "ncg,bs,bss,frozen"
    assert swept_methods(recipe, named, "auto") == ("ncg", "bs", "bss", "frozen@auto")
    assert swept_methods(recipe, "ncg,csn,csn:paper", "auto")[1:] == ("csn@auto", "csn:paper@auto")
    assert swept_methods(recipe, named, "stem,body")[3:] == ("frozen@stem", "frozen")
    with pytest.raises(ConfigError, match="the methods are ncg, bs"):
        swept_methods(recipe, "ncg,bs", "auto")
    chosen = choose_recipe(
        dataset="synth",
        backbone=recipe.backbone,
        merge_at="auto",
        checkpoint=recipe.checkpoint,
        settings=["preprocessing.size=32"],
    )
    assert (chosen.checkpoint, chosen.weights) == (recipe.checkpoint, "")
    assert chosen.merge_at == "body"  # the first of its own; the methods name what is chosen
    with pytest.raises(ConfigError, match=r"3 x 224 x 224; .*preprocessing\.size"):
        choose_recipe(backbone=recipe.backbone, merge_at="all")
    assert choose_recipe(checkpoint="mine.pth").weights == ""


def test_a_calibrator_trained_from_it_does_not_claim_the_projects_licence(folder, faces) -> None:
    source = dataclasses.replace(faces.source, rendered=True)
    rendered = dataclasses.replace(faces, source=source)
    facts = config_facts(recipe_of(folder, 12), rendered)
    assert facts["licence"] == "other"
    assert "trained network given by the user" in facts["licence_reason"]


def test_one_intensity_an_au_is_no_calibrator_to_save(folder, tmp_path, monkeypatch, faces) -> None:
    monkeypatch.setattr("siamcal.training.everyone.load_dataset", lambda *_, **__: faces.source)
    with pytest.raises(ConfigError, match="one intensity an AU"):
        train_everyone(recipe_of(folder), tmp_path)


def test_facts_are_empty_without_a_checkpoint(faces, tmp_path) -> None:
    assert checkpoint_facts(Job(facesets.RECIPE, tmp_path), faces.source) == {}


@pytest.mark.slow
def test_the_command_compares_it_as_it_is(folder, tmp_path, monkeypatch) -> None:
    """`siamcal bench --checkpoint` whole: rendered people, all four methods, the report."""
    from typer.testing import CliRunner

    from siamcal.cli import _load_commands, app

    monkeypatch.setenv("SIAMCAL_CACHE", str(tmp_path / "cache"))
    names: dict = {}
    exec(NET, names)
    torch.manual_seed(3)
    torch.save(names["wide"]().state_dict(), tmp_path / "mine.pth")
    (tmp_path / "net.py").write_text(NET)
    _load_commands()
    arguments = [
        *("bench", "--dataset", "synth", "--backbone", f"{tmp_path / 'net.py'}:wide"),
        *("--checkpoint", str(tmp_path / "mine.pth"), "--merge-at", "body"),
        *("--set", "dataset_options.size=tiny", "--set", "preprocessing.size=32"),
        *("--set", "epochs=1", "--task", "intensity", "--runs", str(tmp_path), "--name", "run"),
    ]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {"ncg", "bs", "bss", "outputs", "frozen", "frozen:outputs"} <= set(results["methods"])
    assert results["recipe"]["checkpoint"] == str(tmp_path / "mine.pth")
    table = (tmp_path / "run" / "table.md").read_text()
    assert "frozen" in table
    assert all(np.isfinite(m["intensity"]["icc"]["mean"]) for m in results["methods"].values())
