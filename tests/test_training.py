import dataclasses
import functools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from facesets import RECIPE, squares

from siamcal.errors import ConfigError, TrainingError
from siamcal.training.batches import BatchSource, task_labels
from siamcal.training.duration import estimate_seconds, seconds_per_step
from siamcal.training.loop import fit
from siamcal.training.networks import TrainingStep, build_network, synchronize_batchnorm
from siamcal.training.objective import learning_rate_factor, make_optimizer
from siamcal.training.prediction import predict
from siamcal.training.recipe import Augmentation, Recipe
from siamcal.training.resume import CHECKPOINT


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return squares(tmp_path_factory.mktemp("squares"))


def rows_of(recipe: Recipe, faces, **kwargs) -> list[np.ndarray]:
    rows, _ = faces.fold(0)
    source = BatchSource(recipe, faces, rows, task_labels(faces, "intensity"), **kwargs)
    return [source[i].rows.numpy() for i in range(len(source))]


def test_an_epoch_shows_every_training_frame_once(faces) -> None:
    for people in (0, 3):
        recipe = dataclasses.replace(RECIPE, steps=0, epochs=1.0, participants_per_batch=people)
        seen = np.concatenate(rows_of(recipe, faces))
        assert sorted(seen) == sorted(faces.fold(0)[0])


def test_batches_by_participant_hold_that_many_people(faces) -> None:
    recipe = dataclasses.replace(RECIPE, batch_size=8, participants_per_batch=2)
    for rows in rows_of(recipe, faces):
        assert len(np.unique(faces.participants[rows])) <= 2
        assert len(rows) == 8


def test_ncg_and_csn_train_on_the_same_frames_whatever_the_references(faces) -> None:
    one = rows_of(RECIPE, faces)
    other = rows_of(dataclasses.replace(RECIPE, references_per="participant"), faces)
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_processes_share_one_global_batch(faces) -> None:
    whole = rows_of(RECIPE, faces)
    halves = [rows_of(RECIPE, faces, rank=r, world_size=2) for r in range(2)]
    for rows, even, odd in zip(whole, *halves, strict=True):
        assert np.array_equal(rows[0::2], even)
        assert np.array_equal(rows[1::2], odd)


def test_a_process_reads_its_own_rows_only_and_sees_them_as_one_process_would(faces) -> None:
    recipe = dataclasses.replace(
        RECIPE, references_per="participant", augmentation=Augmentation(0.5, brightness=0.2)
    )
    rows, labels = faces.fold(0)[0], task_labels(faces, "intensity")
    whole = BatchSource(recipe, faces, rows, labels)[2]
    for rank in range(3):
        watched = Watched(faces)
        part = BatchSource(recipe, watched, rows, labels, rank, 3)[2]
        own = whole.rows[rank::3].numpy()
        assert watched.read <= {*own, *faces.reference_rows[own], int(whole.rows[0])}
        count = len(own)
        assert torch.equal(part.targets[:count], whole.targets[rank::3])
        given = part.references[part.reference_index[:count]]
        assert torch.equal(given, whole.references[whole.reference_index[rank::3]])


class Watched:
    """A face set that notes which rows' images are read."""

    def __init__(self, faces) -> None:
        self.faces, self.images, self.read = faces, self, set()

    def __getattr__(self, name: str):
        return getattr(self.faces, name)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.read |= set(rows.tolist())
        return self.faces.images[rows]


@pytest.mark.parametrize("count", [1, 7, 8])
def test_shares_are_equal_and_what_is_repeated_has_no_label(faces, count: int) -> None:
    recipe = dataclasses.replace(RECIPE, batch_size=count)
    rows, labels = faces.fold(0)[0], task_labels(faces, "intensity")
    parts = [BatchSource(recipe, faces, rows, labels, rank, 2)[0] for rank in range(2)]
    assert len({len(part.targets) for part in parts}) == 1
    counted = [part.rows[(part.labels >= 0).all(1)] for part in parts]
    assert sorted(torch.cat(counted)) == sorted(rows_of(recipe, faces)[0])


def test_synchronized_batchnorm_keeps_names_weights_and_result() -> None:
    network = build_network(RECIPE, 2, calibrated=True).eval()
    images = torch.rand(2, 2, 3, 32, 32)
    before, names = network(*images).intensity, list(network.state_dict())
    synchronize_batchnorm(network)
    kinds = {type(m) for m in network.modules() if "BatchNorm" in type(m).__name__}
    assert kinds == {torch.nn.SyncBatchNorm}
    assert list(network.state_dict()) == names
    assert torch.equal(network(*images).intensity, before)


def test_synchronized_batchnorm_keeps_the_activations_of_timms_layers() -> None:
    recipe = dataclasses.replace(
        RECIPE, backbone="timm:efficientnet_lite0", backbone_options={}, merge_at="blocks.2"
    )
    network = build_network(recipe, 2, calibrated=True).eval()
    images = torch.rand(2, 2, 3, 32, 32)
    before = network(*images).intensity
    synchronize_batchnorm(network)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())
    torch.testing.assert_close(network(*images).intensity, before)


@pytest.mark.parametrize(
    ("processes", "device", "wanted", "expected"),
    [
        (2, "cuda", True, True),
        (1, "cuda", True, False),
        (2, "cpu", True, False),
        (2, "cuda", False, False),
    ],
)
def test_batchnorm_is_synchronized_on_several_gpus_only(
    processes: int, device: str, wanted: bool, expected: bool
) -> None:
    from types import SimpleNamespace

    from siamcal.training.loop import _synchronizes

    accelerator = SimpleNamespace(num_processes=processes, device=torch.device(device))
    recipe = dataclasses.replace(RECIPE, sync_batchnorm=wanted)
    assert _synchronizes(recipe, accelerator) is expected


def test_each_target_is_given_its_own_participants_reference(faces) -> None:
    for kind in ("target", "participant"):
        recipe = dataclasses.replace(
            RECIPE, references_per=kind, augmentation=Augmentation(0.0, (1.0, 1.0), (1.0, 1.0))
        )
        rows, _ = faces.fold(0)
        batch = BatchSource(recipe, faces, rows, task_labels(faces, "intensity"))[0]
        wanted = faces.reference_rows[batch.rows.numpy()]
        given = batch.references[batch.reference_index]
        expected = faces.preprocessing.to_tensor(faces.images[wanted])
        torch.testing.assert_close(given, expected)
        if kind == "participant":
            assert len(batch.references) == len(np.unique(wanted))


def test_shared_augmentation_draws_the_same_for_both(faces) -> None:
    how = Augmentation(shared=True)
    recipe = dataclasses.replace(RECIPE, augmentation=how)
    rows = np.array([0, 0, 16, 16, 32, 32, 48, 48])  # targets that are their own references
    source = BatchSource(recipe, faces, rows, task_labels(faces, "intensity"))
    assert torch.equal(source[0].targets, source[0].references)
    apart = dataclasses.replace(recipe, augmentation=Augmentation())
    batch = BatchSource(apart, faces, rows, task_labels(faces, "intensity"))[0]
    assert not torch.equal(batch.targets, batch.references)


@pytest.mark.slow
def test_calibration_removes_offsets_between_people(faces) -> None:
    recipe = dataclasses.replace(RECIPE, steps=90, batch_size=16)
    training, validation = faces.fold(0)
    labels = task_labels(faces, "intensity")[validation]
    errors = {}
    for calibrated in (False, True):
        network = fit(recipe, faces, training, calibrated=calibrated)
        errors[calibrated] = np.abs(predict(network, faces, validation) - labels).mean()
    assert errors[True] < 0.8 * errors[False]


@pytest.mark.slow
@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("task", ["intensity", "detection"])
def test_a_resumed_run_ends_bit_identical(faces, tmp_path, calibrated: bool, task: str) -> None:
    recipe = dataclasses.replace(
        RECIPE, task=task, backbone_options={"input_size": 32, "dropout": 0.3}
    )
    rows, _ = faces.fold(0)
    whole = fit(recipe, faces, rows, calibrated=calibrated).state_dict()

    class Stop(Exception):
        pass

    from siamcal.training import loop

    def stop_after_three(self, batch, train=loop.TrainingLoop.train):
        if self.state.step == 3:
            raise Stop
        return train(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
        patch.setattr(loop.TrainingLoop, "train", stop_after_three)
        with pytest.raises(Stop):
            fit(recipe, faces, rows, calibrated=calibrated, folder=tmp_path)
    resumed = fit(recipe, faces, rows, calibrated=calibrated, folder=tmp_path).state_dict()
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    losses = (tmp_path / "loss.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in losses[1:]] == [str(i) for i in range(1, 7)]


# More than ten children get through before they are killed.
KILLED_STEPS = 150


def _train_in_child(folder: Path, data: Path) -> None:
    from siamcal.training import loop

    torch.set_num_threads(1)
    loop.CHECKPOINT_SECONDS = 0.0
    recipe = dataclasses.replace(RECIPE, steps=KILLED_STEPS)
    faces = squares(data)
    fit(recipe, faces, faces.fold(0)[0], calibrated=True, folder=folder)


@pytest.mark.slow
def test_kill_9_at_random_moments_then_resume_is_bit_identical(faces, tmp_path) -> None:
    recipe = dataclasses.replace(RECIPE, steps=KILLED_STEPS)
    whole = fit(recipe, faces, faces.fold(0)[0], calibrated=True).state_dict()
    generator = np.random.default_rng(0)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["siamcal.training.loop", "pytest"])  # once, not ten times
    folder, data = tmp_path / "run", tmp_path / "data"
    data.mkdir()
    for _ in range(10):
        child = context.Process(target=_train_in_child, args=(folder, data))
        child.start()
        # Wait until it trains (imports take seconds), then kill at a random moment of training.
        before = _modified(folder)
        deadline = time.monotonic() + 60
        while _modified(folder) == before and child.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.15))
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL
    resumed = fit(recipe, faces, faces.fold(0)[0], calibrated=True, folder=folder).state_dict()
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def _modified(folder: Path) -> float:
    path = folder / CHECKPOINT
    return path.stat().st_mtime_ns if path.exists() else 0


def test_a_checkpoint_of_another_recipe_is_not_taken_over(faces, tmp_path, caplog) -> None:
    rows, _ = faces.fold(0)
    fit(RECIPE, faces, rows, calibrated=False, folder=tmp_path)
    other = dataclasses.replace(RECIPE, seed=7)
    fresh = fit(other, faces, rows, calibrated=False).state_dict()
    again = fit(other, faces, rows, calibrated=False, folder=tmp_path).state_dict()
    assert all(torch.equal(fresh[k], again[k]) for k in fresh)
    assert "starts anew" in caplog.text


def test_shared_references_give_the_gradients_of_single_ones_with_frozen_batchnorm(faces) -> None:
    recipe = dataclasses.replace(
        RECIPE, references_per="participant", augmentation=Augmentation(0.0, (1.0, 1.0), (1.0, 1.0))
    )
    rows, _ = faces.fold(0)
    batch = BatchSource(recipe, faces, rows, task_labels(faces, "intensity"))[0]
    assert len(batch.references) < len(batch.targets)
    network = build_network(recipe, 2, calibrated=True).double().eval()
    batch = batch._replace(targets=batch.targets.double(), references=batch.references.double())
    single = batch.references[batch.reference_index]
    gradients = []
    for references, index in (
        (batch.references, batch.reference_index),
        (single, torch.arange(len(single))),
    ):
        network.zero_grad()
        TrainingStep(network)(batch.targets, references, index).intensity.square().mean().backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    for shared, alone in zip(*gradients, strict=True):
        torch.testing.assert_close(shared, alone, rtol=1e-9, atol=1e-12)


def test_accumulated_parts_equal_the_whole_batch_with_frozen_batchnorm(faces) -> None:
    base = dataclasses.replace(RECIPE, freeze_batchnorm=True)
    whole, parts = (
        fit(r, faces, faces.fold(0)[0], calibrated=True).state_dict()
        for r in (base, dataclasses.replace(base, accumulate=4))
    )
    for key, value in whole.items():
        torch.testing.assert_close(value, parts[key], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("change", [{"precision": "bf16"}, {"compile": True}], ids=str)
def test_other_arithmetic_trains_the_same_network(
    faces, change, calibrated: bool, monkeypatch
) -> None:
    # The graphs of --compile without inductor's C++, which takes minutes to build.
    aot_eager = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", lambda module, options: aot_eager(module))
    rows, validation = faces.fold(0)
    base = dataclasses.replace(RECIPE, steps=3)
    plain, other = (
        fit(recipe, faces, rows, calibrated=calibrated)
        for recipe in (base, dataclasses.replace(base, **change))
    )
    names = plain.state_dict()
    assert other.state_dict().keys() == names.keys()
    assert all(other.state_dict()[name].dtype == value.dtype for name, value in names.items())
    close = {"rtol": 0, "atol": 0.2 if "precision" in change else 1e-3}
    expected = predict(plain, faces, validation)
    assert np.ptp(expected) > 0.3
    np.testing.assert_allclose(predict(other, faces, validation), expected, **close)


COMPILED = """
import torch
from siamcal import create_backbone
from siamcal.training.loop import compiled

torch.set_num_threads(1)
torch.manual_seed(0)
block = create_backbone("ir_tiny", 12).layer1[0]
x = torch.rand(2, block.bn1.num_features, 56, 56)
grads = []
for module in (block, compiled(block, torch.device("cpu"))):
    block.zero_grad()
    module(x).square().sum().backward()
    grads.append([p.grad.clone() for p in block.parameters()])
for eager, other in zip(*grads, strict=True):
    torch.testing.assert_close(other, eager, rtol=1e-2, atol=1e-2)
print("the same")
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_by_inductor_an_iresnets_block_has_its_gradients(tmp_path) -> None:
    # In a process of its own: what went wrong here, with torch's defaults, corrupted memory.
    found = subprocess.run(
        [sys.executable, "-c", COMPILED],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
    )
    assert found.returncode == 0, found.stderr[-2000:]
    assert "the same" in found.stdout


def test_the_estimate_measures_each_network_once_and_on_few_images(monkeypatch) -> None:
    measured = []

    def step(recipe: Recipe, num_aus: int, *, calibrated: bool) -> float:
        measured.append((recipe.merge_at, calibrated))
        return {"layer2": 2.0, "layer4": 5.0}[recipe.merge_at] if calibrated else 1.0

    monkeypatch.setattr("siamcal.training.duration.seconds_per_step", step)
    recipe = dataclasses.replace(RECIPE, steps=10, batch_size=1000)
    later = dataclasses.replace(recipe, merge_at="layer4")
    trainings = [(recipe, False), (recipe, True), (later, True), (recipe, True)]
    seconds = estimate_seconds(trainings, 300, 3, num_aus=2)
    assert seconds == pytest.approx((1 + 2 + 5 + 2) * 10 * 3, rel=0.1)
    assert measured == [("layer2", False), ("layer2", True), ("layer4", True)]
    monkeypatch.undo()
    assert 0 < seconds_per_step(recipe, 2, calibrated=True) < 600


def test_a_network_that_will_be_compiled_is_cut_by_fx() -> None:
    recipe = dataclasses.replace(RECIPE, compile=True)
    assert "fx" in build_network(recipe, 2, calibrated=True).split.mechanism
    at_output = dataclasses.replace(recipe, merge_at="output")
    assert build_network(at_output, 2, calibrated=True).split.mechanism == "output"


def test_a_training_warns_once_where_batchnorm_will_read_something_else(
    faces, monkeypatch, caplog
) -> None:
    rows, _ = faces.fold(0)
    recipe = dataclasses.replace(RECIPE, steps=2, accumulate=2)
    quiet = fit(recipe, faces, rows, calibrated=True).state_dict()
    assert "BatchNorm moves" not in caplog.text
    monkeypatch.setattr("siamcal.model.batchnorm_gap.LARGE_GAP", 0.0)
    for calibrated, warnings in ((False, 0), (True, 1)):
        caplog.clear()
        state = fit(recipe, faces, rows, calibrated=calibrated).state_dict()
        assert caplog.text.count("BatchNorm moves") == warnings
    assert all(torch.equal(state[name], value) for name, value in quiet.items())


def test_ncg_and_csn_start_from_the_same_weights() -> None:
    plain = build_network(RECIPE, 2, calibrated=False).state_dict()
    wrapped = build_network(RECIPE, 2, calibrated=True).state_dict()
    assert set(plain) == set(wrapped)
    assert all(torch.equal(plain[k], wrapped[k]) for k in plain)


def test_the_last_layer_has_its_own_learning_rate() -> None:
    recipe = dataclasses.replace(RECIPE, learning_rate=1e-5, learning_rate_last=1e-4)
    network = build_network(recipe, 2, calibrated=True)
    body, last = make_optimizer(network, recipe).param_groups
    assert (body["lr"], last["lr"]) == (1e-5, 1e-4)
    fc = network.backbone.fc
    assert {id(p) for p in last["params"]} == {id(p) for p in fc.parameters()}
    assert len(body["params"]) + 2 == len(list(network.parameters()))


def test_the_cosine_schedule_warms_up_and_ends_near_zero() -> None:
    recipe = dataclasses.replace(RECIPE, schedule="cosine", warmup_steps=10)
    factors = [learning_rate_factor(recipe, step, 100) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[10] == 1.0
    assert factors[-1] < 0.01


def test_a_loss_that_is_nan_names_the_frames(faces) -> None:
    recipe = dataclasses.replace(RECIPE, learning_rate=1e30, learning_rate_last=1e30)
    with pytest.raises(TrainingError, match=r"P0\d/\d+\.png frame \d+"):
        fit(recipe, faces, faces.fold(0)[0], calibrated=False)


def test_exhausted_memory_names_the_settings_to_try(faces, monkeypatch) -> None:
    def exhausted(*_: object) -> float:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr("siamcal.training.loop.TrainingLoop.backward", exhausted)
    with pytest.raises(TrainingError, match="accumulate=2"):
        fit(RECIPE, faces, faces.fold(0)[0], calibrated=False)


def test_a_fold_without_training_people_is_refused(faces) -> None:
    with pytest.raises(ConfigError, match="no training frames"):
        fit(RECIPE, faces, np.array([], dtype=int), calibrated=False)
