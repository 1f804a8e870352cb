"""What the networks of a comparison take on disk, that it is told, and that they can be deleted."""

import dataclasses
import json
import logging

import facesets
import pytest

from siamcal.errors import ConfigError, MergePointError
from siamcal.evaluation import checkpoints, outlook
from siamcal.evaluation.compare import Job, compare
from siamcal.training.resume import CHECKPOINT

RECIPE = dataclasses.replace(facesets.RECIPE, steps=1)
METHODS = ("ncg", "bs", "csn")


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return facesets.squares(tmp_path_factory.mktemp("squares"), people=4, frames=4)


@pytest.fixture(scope="module")
def dropped(faces, tmp_path_factory):
    """A job whose networks were deleted, its results, and what they took before."""
    job = Job(RECIPE, tmp_path_factory.mktemp("runs") / "run", methods=METHODS)
    room = outlook.check_networks(job, 2, 2)
    compare(job, faces)
    sizes = [path.stat().st_size for path in checkpoints.files_of(job.folder)]
    everyone = job.folder / "everyone_intensity" / CHECKPOINT
    everyone.parent.mkdir()
    everyone.write_bytes(b"of siamcal train")
    job = dataclasses.replace(job, drop_checkpoints=True)
    return job, compare(job, faces).results, room, sizes


def test_the_room_of_the_checkpoints_is_known_before(dropped) -> None:
    _, _, room, sizes = dropped
    assert len(sizes) == 4  # NCG and CSN in two folds
    running = room - sum(sizes)
    # A running training has two moments of each parameter beside one file.
    assert 1.8 * max(sizes) < running < 2.1 * max(sizes)


def test_networks_are_deleted_and_the_run_is_known_as_finished(dropped, faces, caplog) -> None:
    job, results, _, _ = dropped
    assert not checkpoints.files_of(job.folder)
    assert (job.folder / "everyone_intensity" / CHECKPOINT).exists()
    with caplog.at_level(logging.INFO):
        again = compare(job, faces)
    assert "none is trained" in caplog.text
    assert not checkpoints.files_of(job.folder)
    assert again.results == json.loads((job.folder / "results.json").read_text())
    assert again.results["methods"].keys() == results["methods"].keys()
    assert set(again.predictions["intensity"].preds) == set(METHODS)


def test_a_run_without_networks_that_is_asked_for_another_thing_is_trained(dropped, faces) -> None:
    job, _, _, _ = dropped
    other = dataclasses.replace(job, methods=("ncg",), folds=(0,), drop_checkpoints=False)
    compare(other, faces)
    assert len(checkpoints.files_of(job.folder)) == 1


def test_a_disk_that_is_too_small_is_refused(tmp_path) -> None:
    folders = [tmp_path / "runs" / "a", tmp_path / "runs" / "b"]
    outlook.check_room(folders, [1, 1], "They need")
    with pytest.raises(ConfigError, match=r"They need 2000000000\.0 GB.*--runs"):
        outlook.check_room(folders, [10**18, 10**18], "They need")


def test_the_outlook_tells_the_room_and_the_device(tmp_path) -> None:
    job = Job(RECIPE, tmp_path, methods=("ncg",))
    text = outlook.outlook(job, 4, 16, 2, 2, room=4_700_000_000)
    assert "up to 4.7 GB in the run folder; --drop-checkpoints deletes" in text
    assert "of training (CPU)" in text or "NVIDIA" in text
    job = dataclasses.replace(job, drop_checkpoints=True)
    assert "12 MB in the run folder; deleted when" in outlook.outlook(
        job, 4, 16, 2, 2, room=12 * 10**6
    )


@pytest.mark.parametrize("folds", [(2,), (-1,), (0, 0), ()])
def test_folds_that_are_not_there_are_refused(tmp_path, folds) -> None:
    with pytest.raises(ConfigError, match="folds are 0 to 1, each once"):
        outlook.check_folds(Job(RECIPE, tmp_path, folds=folds), 2)


def test_a_checkpoint_may_test_one_fold_more(tmp_path) -> None:
    outlook.check_folds(Job(RECIPE, tmp_path, folds=(2,)), 2, may_grow=True)


@pytest.mark.parametrize("method", ["csn@layer9", "frozen@layer9", "csn:concatenated@nowhere"])
def test_every_point_of_a_sweep_is_tried_first(tmp_path, method) -> None:
    job = Job(RECIPE, tmp_path, methods=("ncg", "csn", method))
    with pytest.raises(MergePointError, match=r"layer9|nowhere"):
        outlook.check_networks(job, 2, 2)


def test_nothing_is_rendered_for_a_fold_or_point_that_is_not_there(tmp_path, monkeypatch) -> None:
    from siamcal.evaluation.run import run_comparison
    from siamcal.training.recipe import load_recipe

    monkeypatch.setenv("SIAMCAL_CACHE", str(tmp_path / "cache"))
    recipe = dataclasses.replace(load_recipe("ir_tiny"), dataset_options={"size": "tiny"})
    job = Job(recipe, tmp_path / "run", methods=("ncg",))
    with pytest.raises(ConfigError, match="--folds of synth"):
        run_comparison(dataclasses.replace(job, folds=(7,)))
    with pytest.raises(MergePointError):
        run_comparison(dataclasses.replace(job, methods=("ncg", "csn@layer9")))
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "run").exists()
