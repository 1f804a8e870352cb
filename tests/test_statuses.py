"""The rule by which an AU is called shown on real faces, at its borders, on made-up figures."""

import pytest

from siamcal.calibrators.config import AU_STATUSES
from siamcal.calibrators.statuses import au_statuses
from siamcal.errors import ConfigError

SHOWN, EXPERIMENTAL, NOT_VALIDATED = AU_STATUSES


def cell(correlation, people, **more):
    return {"correlation": correlation, "people": {"correlation": people}, **more}


def results(labelled=None, witness=None, resting=0.0, independent=True):
    others = []
    if witness is not None:
        readers = {"calibrated": {"AU12": witness, "mean": {}}}
        others = [{"witness": "a tool", "independent": independent, "readers": readers}]
    return {
        "aus": [12],
        "labels": {"calibrated": {"AU12": labelled, "mean": {}}} if labelled is not None else None,
        "others": others,
        "rest": {"calibrated": {"AU12": {"rest": resting}, "mean": {}}},
    }


@pytest.mark.parametrize(
    ("correlation", "people", "rest", "wanted"),
    [
        (0.6, 5, 0.15, SHOWN),
        (0.95, 40, 0.0, SHOWN),
        (0.95, 4, 0.0, EXPERIMENTAL),
        (0.599, 40, 0.0, EXPERIMENTAL),
        (0.95, 40, 0.151, EXPERIMENTAL),
        (0.3, 1, 3.0, EXPERIMENTAL),
        (0.299, 40, 0.0, NOT_VALIDATED),
        (-0.9, 40, 0.0, NOT_VALIDATED),
        (None, 0, 0.0, NOT_VALIDATED),
        (0.95, 40, None, EXPERIMENTAL),
    ],
)
def test_borders(correlation, people, rest, wanted) -> None:
    by_tool = results(witness=cell(correlation, people), resting=rest)
    assert au_statuses(by_tool) == {12: wanted}
    by_labels = results(labelled=cell(correlation, people, rest=rest), resting=None)
    assert au_statuses(by_labels) == {12: wanted}


def test_labels_go_before_tools_and_their_rest_before_mediapipes() -> None:
    bad = cell(0.1, 40)
    assert au_statuses(results(cell(0.9, 40, rest=0.1), bad, resting=2)) == {12: SHOWN}
    assert au_statuses(results(cell(0.1, 40, rest=0.1), cell(0.9, 40))) == {12: NOT_VALIDATED}
    assert au_statuses(results(cell(0.9, 40, rest=None), bad, resting=2)) == {12: EXPERIMENTAL}


def test_four_people_or_blendshapes_alone_show_nothing() -> None:
    assert au_statuses(results(cell(1.0, 4, rest=0.0))) == {12: EXPERIMENTAL}
    assert au_statuses(results(None, cell(1.0, 40), independent=False)) == {12: EXPERIMENTAL}


def test_the_first_independent_tool_counts() -> None:
    told = results(None, cell(0.9, 40), independent=False)
    tool = {"AU12": cell(0.7, 6), "mean": {}}
    told["others"].append({"witness": "b", "independent": True, "readers": {"calibrated": tool}})
    assert au_statuses(told) == {12: SHOWN}


def test_what_was_not_measured_is_not_validated() -> None:
    told = results(cell(0.9, 40, rest=0.0)) | {"aus": [12, 26]}
    assert au_statuses(told) == {12: SHOWN, 26: NOT_VALIDATED}
    assert au_statuses(results()) == {12: NOT_VALIDATED}


def test_other_results_are_refused() -> None:
    for wrong in ({}, {"aus": [12]}, {"aus": [12], "labels": 3, "rest": {"calibrated": {}}}):
        with pytest.raises(ConfigError, match=r"real\.json is needed"):
            au_statuses(wrong)
