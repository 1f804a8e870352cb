import json

import pytest

from siamcal.errors import UnknownNameError
from siamcal.paper import TABLES, paper_cell, paper_table, table_plan

# Averages that the paper prints for DISFA: ICC, MAE, F1, accuracy (Tables 2, 3 and 6).
DISFA = {
    "ncg": (0.59, 0.31, 57.5, 90.5),
    "bs": (0.59, 0.31, 28.7, 52.5),
    "csn@layer1": (0.61, 0.31, 60.8, 92.0),
    "csn@layer2": (0.63, 0.29, 65.2, 93.3),
    "csn@layer3": (0.66, 0.26, 62.4, 92.5),
    "csn@layer4": (0.67, 0.22, 67.0, 94.2),
    "csn": (0.67, 0.22, 67.0, 94.2),
    "csn@fc": (0.55, 0.28, 30.9, 60.3),
    "csn@output": (0.54, 0.28, 29.9, 58.5),
}


@pytest.mark.parametrize("method", DISFA)
def test_disfa_averages(method):
    found = tuple(
        paper_cell("disfa", method, metric)["mean"] for metric in ("icc", "mae", "f1", "accuracy")
    )
    assert found == DISFA[method]


@pytest.mark.parametrize(
    ("dataset", "method", "metric", "mean"),
    [
        ("disfa-plus", "csn", "f1", 78.6),
        ("disfa_plus", "bs", "icc", 0.83),
        ("unbc", "ncg", "mae", 0.29),
        ("unbc", "csn", "icc_within", 0.26),
        ("disfa", "ncg", "icc_within", 0.51),
        ("disfa", "csn", "recall", 71.8),
        ("disfa", "ME-GraphAU", "f1", 63.1),
    ],
)
def test_other_averages(dataset, method, metric, mean):
    assert paper_cell(dataset, method, metric)["mean"] == mean


def test_per_au_values_have_our_names_and_say_where_they_come_from():
    csn = paper_cell("disfa", "csn", "icc")
    assert csn["per_au"]["AU15"] == 0.33
    assert csn["per_au"]["AU01"] == 0.75
    assert len(csn["per_au"]) == 12
    assert csn["from_notebook"] == []  # Table S5 prints what Table 2's scan hides
    assert csn["table"] in ("S5", "S8")
    table2 = paper_cell("disfa", "csn", "icc", table="2")
    assert len(table2["from_notebook"]) == 12
    assert paper_cell("unbc", "csn", "f1")["per_au"].keys() >= {"AU43", "AU04"}


def test_no_cell_is_none_and_no_table_an_error():
    assert paper_cell("synth", "csn", "icc") is None
    assert paper_cell("unbc", "csn@layer2", "icc") is None
    assert paper_cell("disfa", "csn", "icc", table="3") is None
    with pytest.raises(UnknownNameError, match="S9"):
        paper_table("7")


@pytest.mark.parametrize("table", TABLES)
def test_every_table_reads_and_says_what_to_train(table):
    cells = paper_table(table)
    assert cells == paper_table(f"Table {table.lower()}")
    json.dumps(cells)
    for cell in cells:
        assert cell["mean"] is not None
        known = [v for v in cell["per_au"].values() if v is not None]
        scale = 100 if cell["task"] == "detection" else 5
        assert all(0 <= v <= scale for v in known)
    plan = table_plan(table)
    assert plan
    assert all(methods for _, _, methods in plan)


def test_table_6_sweeps_all_merge_points_in_both_tasks():
    sweep = ("csn@layer1", "csn@layer2", "csn@layer3", "csn@layer4", "csn@fc", "csn@output")
    assert table_plan("6") == [("disfa", "intensity", sweep), ("disfa", "detection", sweep)]


def test_a_caller_can_not_change_the_stored_values():
    paper_cell("disfa", "csn", "icc")["per_au"]["AU01"] = 9
    assert paper_cell("disfa", "csn", "icc")["per_au"]["AU01"] == 0.75
