"""Whole comparisons and the paper's tables: what is planned, named and logged."""

import dataclasses
import logging
from pathlib import Path

import facesets
import pytest

from siamcal.errors import ConfigError, DataNotFoundError, MergePointError, WeightsError
from siamcal.evaluation import run
from siamcal.evaluation.compare import Job

RECIPE = dataclasses.replace(facesets.RECIPE, merge_at="layer4")


@pytest.mark.parametrize(
    ("methods", "merge_at", "expected"),
    [
        ("ncg, bs,csn", None, ("ncg", "bs", "csn")),
        ("ncg,csn", "layer2", ("ncg", "csn")),
        ("csn,ncg", "layer2, layer4", ("ncg", "csn@layer2", "csn")),
        (
            "ncg",
            "all",
            ("ncg", "csn@layer1", "csn@layer2", "csn@layer3", "csn", "csn@fc", "csn@output"),
        ),
    ],
)
def test_a_sweep_puts_csn_at_each_point(methods, merge_at, expected) -> None:
    assert run.swept_methods(RECIPE, methods, merge_at) == expected


def test_a_run_has_one_name_for_the_same_settings() -> None:
    name = run.run_name(RECIPE, ("intensity",))
    assert name == run.run_name(dataclasses.replace(RECIPE, task="detection"), ("intensity",))
    assert name != run.run_name(dataclasses.replace(RECIPE, seed=7), ("intensity",))
    assert run.run_name(RECIPE, ("intensity", "detection")) == name.replace("-intensity-", "-both-")


def test_the_outlook_counts_the_trainings(tmp_path: Path) -> None:
    job = Job(RECIPE, tmp_path, ("intensity", "detection"), ("ncg", "bs", "csn"), seeds=[1, 2])
    text = run.outlook(job, participants=9, frames=90, num_folds=3, num_aus=12)
    assert "9 participants, 90 frames, 3 folds" in text
    assert "24 trainings" in text  # 2 tasks x 2 seeds x 3 folds x (NCG, CSN)
    some = run.outlook(dataclasses.replace(job, folds=[0]), 9, 90, 3, 12)
    assert "1 folds" in some
    assert "8 trainings" in some


def test_the_tables_needs_are_gathered_and_impossible_ones_refused(tmp_path: Path) -> None:
    needed = run._needed(["2", "6"], "disfa", None)
    assert list(needed) == [("disfa", "intensity"), ("disfa", "detection")]
    assert len(needed["disfa", "intensity"]) == len(set(needed["disfa", "intensity"]))
    with pytest.raises(ConfigError, match="Table S1 has no results on 'unbc'; it has disfa-plus"):
        run._needed(["S1"], "unbc", None)
    with pytest.raises(ConfigError, match=r"needs disfa, disfa-plus\. Name one with --dataset"):
        run._needed(["2", "S1"], None, tmp_path)


def test_the_log_file_closes_with_the_run(tmp_path: Path) -> None:
    before = list(logging.getLogger("siamcal").handlers)
    for name in ("one.txt", "two.txt"):
        with run._log_to(tmp_path / name):
            logging.getLogger("siamcal.example").info(f"in {name}")
    assert logging.getLogger("siamcal").handlers == before
    assert "in one.txt" in (tmp_path / "one.txt").read_text()
    assert "in two.txt" not in (tmp_path / "one.txt").read_text()


@pytest.fixture(scope="module")
def disfa(tmp_path_factory) -> Path:
    from siamcal.synth.layouts import Export, export
    from siamcal.synth.plan import make_plan

    folder = tmp_path_factory.mktemp("disfa")
    export(Export("disfa", folder, 3, 2, 1, False, True, make_plan("small", image_size=96)), 1)
    return folder


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ((), DataNotFoundError, "SIAMCAL_(DISFA_PLUS|UNBC)_ROOT"),
        (("weights=none.pth",), (DataNotFoundError, WeightsError), "none.pth"),
        (("merge_at=layer9",), MergePointError, "layer9"),
    ],
)
def test_what_a_table_lacks_is_refused_before_its_first_job(
    disfa, tmp_path, monkeypatch, settings, error, words
) -> None:
    """Table 5 has three data sets: that of the first is there, the other two aren't."""
    for name in ("DISFA_PLUS", "UNBC"):
        monkeypatch.delenv(f"SIAMCAL_{name}_ROOT", raising=False)
    monkeypatch.setenv("SIAMCAL_DISFA_ROOT", str(disfa))
    monkeypatch.setenv("SIAMCAL_CACHE", str(tmp_path / "cache"))
    named = "disfa" if settings else None
    small = ("backbone=ir_tiny", "steps=1", *settings)
    with pytest.raises(error, match=words):
        run.reproduce_tables("5", tmp_path / "runs", dataset=named, settings=small, workers=1)
    assert not (tmp_path / "runs").exists()
