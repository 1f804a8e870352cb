"""The speed benchmark: it measures what it says, and prints ratios; no time is judged here."""

import json
from types import SimpleNamespace

import pytest

from siamcal.errors import ConfigError
from siamcal.registry import benchmarks


def test_take_turns_measures_ratios(monkeypatch):
    import siamcal.benchmarks.speed as module

    spent = [0.0]  # seconds of processor time; the second round is disturbed
    taken = iter([9, 9, 0.01, 0.03, 0.04, 0.20, 0.02, 0.06])

    def work():
        spent[0] += next(taken)

    monkeypatch.setattr(module, "time", SimpleNamespace(process_time=lambda: spent[0]))
    fast, slow = module._take_turns({"fast": work, "slow": work}, rounds=3, count=10, unit="x")
    assert fast.ratio is None
    assert fast.milliseconds == pytest.approx(1)
    assert slow.milliseconds == pytest.approx(3)
    assert slow.ratio == pytest.approx(3)


def test_training_steps_take_turns_with_gradients(tmp_path, monkeypatch):
    import siamcal.benchmarks.speed as module

    from siamcal.training.recipe import Recipe

    tiny = Recipe(name="tiny", backbone="ir_tiny", merge_at="layer3")
    monkeypatch.setattr(module, "load_recipe", lambda name: tiny)
    monkeypatch.setattr(module, "TRAINING_BATCHES", {2: 1, 4: 2})
    table = benchmarks.get("speed")(tmp_path, rounds=1, only="training")
    assert [row.unit for row in table.rows] == ["step of 2"] * 4 + ["step of 4"] * 3
    assert [row.ratio is None for row in table.rows] == [True] + [False] * 3 + [True] + [False] * 2
    assert (tmp_path / "speed_training.md").exists()


def test_an_unknown_group_is_named(tmp_path):
    with pytest.raises(ConfigError, match="'training'"):
        benchmarks.get("speed")(tmp_path, only="trainings")


def test_the_table_has_every_part(tmp_path):
    table = benchmarks.get("speed")(tmp_path, rounds=1, frames=2, batch_size=1, large=False)
    parts = " ".join(row.part for row in table.rows)
    for words in (
        "rendering",
        "face pipeline",
        "ir_tiny, plain",
        "encoded once",
        "for each target",
    ):
        assert words in parts
    told = json.loads((tmp_path / "speed.json").read_text())
    assert len(told["rows"]) == len(table.rows) == 7
    assert told["environment"]["processor"]
    assert "| ratio |" in (tmp_path / "speed.md").read_text()


@pytest.mark.slow
def test_videos_are_read_beside_mediapipes_landmarker(tmp_path, monkeypatch):
    import siamcal.benchmarks.speed as module

    monkeypatch.setattr(module, "SIZES", ["480p"])
    table = benchmarks.get("speed")(tmp_path, rounds=1, frames=3, only="video")
    alone, decoding, faces, whole, cold = table.rows
    assert "MediaPipe's FaceLandmarker alone" in alone.part
    assert decoding.milliseconds < whole.milliseconds
    assert "found anew" in faces.part  # which costs more than a video's reading that follows them
    assert faces.milliseconds > 0
    assert whole.ratio > 0
    assert cold.unit == "picture"
    assert cold.milliseconds > 100  # of a process that imports torch
