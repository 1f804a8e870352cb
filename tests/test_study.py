"""Studies: their arms, references that are spoilt on purpose, and one run on a few people."""

import json

import numpy as np
import pytest
from facesets import squares
from siamcal.benchmarks import study as module
from siamcal.benchmarks._studies import STUDIES, neutral_frames, with_references
from siamcal.benchmarks.study import study

from siamcal.errors import UnknownNameError
from siamcal.evaluation.methods import parse


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return squares(tmp_path_factory.mktemp("squares"))


@pytest.mark.parametrize("name", sorted(STUDIES))
def test_arms_are_named_apart_and_make_recipes(name) -> None:
    arms = STUDIES[name]().arms
    assert len({arm.name for arm in arms}) == len(arms) >= 4
    for arm in arms:
        arm.made()
        if arm.method != "outputs quantile":
            parse(arm.method)


def test_references_are_what_their_kind_says(faces) -> None:
    labels = faces.labels(faces.source.intensity_aus).sum(1)
    people = faces.participants
    own = faces.reference_rows
    assert with_references(faces, "own") is faces
    active = with_references(faces, "active").reference_rows
    assert (people[active] == people).all()
    for name in np.unique(people):
        mine = people == name
        assert labels[active[mine][0]] > np.median(labels[mine])
    strange = with_references(faces, "stranger").reference_rows
    assert (people[strange] != people).all()
    assert set(strange) == set(own)  # everybody's resting face, of another one each
    rest = neutral_frames(faces, np.arange(len(faces)))
    assert (labels[rest] == 0).all()
    assert set(own) <= set(rest)


def test_an_unknown_study_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="merges"):
        study("merge")


@pytest.mark.slow
def test_a_study_writes_table_numbers_and_figure(tmp_path, monkeypatch) -> None:
    few = {"size": "tiny", "participants": 2, "frames": 24}
    monkeypatch.setattr(module, "QUICK_TRAINING", {**few, "first_person": 10_000})
    monkeypatch.setattr(module, "QUICK_TESTED", few)
    monkeypatch.setattr(module, "QUICK", {"steps": 2, "freeze_pre": 1})
    monkeypatch.setattr(module, "SETS", {"usual": {}})
    monkeypatch.setattr(module, "COLOURS", {"usual": "#1f6f8b"})
    table = study("outputs", output=tmp_path, quick=True, workers=1)
    written = json.loads((tmp_path / "outputs-quick.json").read_text())
    assert (tmp_path / "outputs-quick.png").stat().st_size > 5000
    text = (tmp_path / "outputs-quick.md").read_text()
    assert text == table.to_markdown()
    for arm in STUDIES["outputs"]().arms:
        assert f"| {arm.name} |" in text
        assert set(written["arms"][arm.name]) == set(module.SETS)
    # The shift of numbers is baseline subtraction, and monotone keeps its zero.
    assert written["arms"]["BS"]["usual"]["icc - NCG"]["mean"] is not None
