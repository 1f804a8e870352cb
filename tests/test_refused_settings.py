"""Numbers with which nothing could be trained, and damaged files, are refused in words."""

import dataclasses
import json
import signal
import subprocess
import sys
import textwrap

import pandas as pd
import pytest
import torch

from siamcal.errors import ConfigError, DataNotFoundError, SiamcalError, WeightsError
from siamcal.evaluation.predictions import TaskPredictions
from siamcal.evaluation.review import read_run
from siamcal.parallel import check_workers
from siamcal.settings import override, to_dict
from siamcal.training.recipe import Recipe, load_recipe
from siamcal.training.resume import CHECKPOINT, TrainingState


@pytest.mark.parametrize(
    "change",
    [
        "learning_rate=nan",
        "learning_rate_last=inf",
        "learning_rate=-1",
        "weight_decay=nan",
        "batch_size=0",
        "accumulate=0",
        "epochs=-1",
        "epochs=nan",
        "epochs=0",
        "steps=-1",
        "warmup_steps=-1",
        "participants_per_batch=-2",
        "seed=-1",
        "loss_weights=0,0,0",
        "loss_weights=1,nan,1",
        "augmentation.flip=1.5",
        "augmentation.crop_scale=1,0.5",
        "augmentation.crop_scale=0,1",
        "preprocessing.size=0",
        "preprocessing.std=1,0,1",
        "preprocessing.mean=nan,0,0",
        "merge=none_such",
    ],
)
def test_numbers_out_of_range_are_refused_by_name(change) -> None:
    name = change.partition("=")[0].rpartition(".")[2]
    with pytest.raises(SiamcalError, match=name):
        override(Recipe("mine"), [change])


def test_every_own_recipe_is_in_range() -> None:
    from siamcal.registry import recipes

    assert all(load_recipe(name).name for name in recipes.names())


@pytest.mark.parametrize("workers", [0, -4])
def test_workers_are_at_least_one(workers) -> None:
    with pytest.raises(ConfigError, match=f"from 1 on, but got {workers}"):
        check_workers(workers)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("r.json", '{"name": "a", "seed": 1, "seed": 2}', r"r\.json has seed twice"),
        ("r.json", '{"name": "a", "augmentation": {"flip": 0, "flip": 1}}', "has flip twice"),
        ("r.json", '{"name": "a",\n "seed": }', r"r\.json isn't JSON: .* line 2"),
        ("r.json", "[1]", r"r\.json: Recipe takes a table"),
        ("r.json", '{"name": "a", "batch_size": 0}', r"r\.json: batch_size .* got 0"),
        ("r.json", '{"name": "a", "learning_rate": NaN}', "learning_rate .* got nan"),
        ("r.json", "\xff\xfe", "is no text"),
        ("r.toml", 'name = "a"\nseed = 1\nseed = 2\n', r"r\.toml isn't TOML: .*line 3"),
        ("r.toml", "\xff", "is no text"),
        ("none.json", None, r"Can't read .*none\.json: No such file"),
    ],
)
def test_a_damaged_recipe_is_named_with_the_place(tmp_path, name, text, words) -> None:
    if text is not None:
        (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=words):
        load_recipe(tmp_path / name)


def test_a_written_recipe_loads_back(tmp_path) -> None:
    recipe = dataclasses.replace(Recipe("mine"), seed=3)
    (tmp_path / "recipe.json").write_text(json.dumps(to_dict(recipe)))
    assert load_recipe(tmp_path / "recipe.json") == recipe


def state() -> TrainingState:
    network = torch.nn.Linear(200, 2)
    return TrainingState(network, torch.optim.Adam(network.parameters()), 3)


@pytest.mark.parametrize("damage", ["values", "header", "cut", "empty"])
def test_a_damaged_checkpoint_is_refused(tmp_path, damage) -> None:
    path = tmp_path / CHECKPOINT
    state().save(path, "me")
    again = state()
    assert again.load(path, "me")
    data = bytearray(path.read_bytes())
    if damage == "values":
        data[-9] ^= 0x40
    elif damage == "header":
        data[20:40] = b"\xff" * 20
    else:
        data = data[: len(data) // 2 if damage == "cut" else 0]
    path.write_bytes(bytes(data))
    with pytest.raises(WeightsError, match=r"checkpoint\.safetensors is damaged .*Delete it"):
        state().load(path, "me")


def test_damaged_predictions_and_results_are_named(tmp_path) -> None:
    table = pd.DataFrame({"participant": ["a"], "label_AU01": [1.0], "ncg_AU01": [2.0]})
    file = tmp_path / "predictions_intensity.parquet"
    table.to_parquet(file)
    assert TaskPredictions.load(tmp_path)[0].aus == (1,)
    for text, words in (
        ("{", r"results\.json isn't JSON"),
        ("[]", "measured on"),
        ('{"methods": {}}', "measured on"),
    ):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(ConfigError, match=words):
            read_run(tmp_path)
    for wrong in ("participant", "label_AU01"):
        table.drop(columns=wrong).to_parquet(file)
        with pytest.raises(ConfigError, match="lacks the columns"):
            TaskPredictions.load(tmp_path)
    file.write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(ConfigError, match=r"intensity\.parquet can't be read as Parquet"):
        TaskPredictions.load(tmp_path)


def test_damaged_tables_of_rendered_people_are_named(tmp_path) -> None:
    from siamcal.synth.library import manifest, read_tables

    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ConfigError, match=r"manifest\.json isn't JSON"):
        manifest(tmp_path)
    (tmp_path / "frames.parquet").write_bytes(b"nothing")
    with pytest.raises(DataNotFoundError, match=r"frames\.parquet can't be read .*Delete"):
        read_tables(tmp_path)


INTERRUPTED = """
import signal, sys
import siamcal.cli as cli

cli._load_commands()
command = next(c for c in cli.app.registered_commands if c.callback.__name__ == {name!r})


def stopped(*_, **__):
    raise KeyboardInterrupt


import siamcal.training.choice
import siamcal.cli.bench as bench

bench.choose_recipe = stopped
sys.argv = ["siamcal", *{arguments!r}]
cli.main()
"""


def test_ctrl_c_says_that_the_same_command_goes_on() -> None:
    script = textwrap.dedent(INTERRUPTED).format(name="bench", arguments=["bench"])
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300
    )
    assert found.returncode == 128 + signal.SIGINT
    assert "interrupted; the same command goes on where it stopped." in found.stderr
    assert "Aborted" not in found.stderr + found.stdout
