import dataclasses

import pandas as pd
import pytest

from siamcal.datasets import DatasetSource, load_dataset
from siamcal.datasets.base import canonical_name, root_variable
from siamcal.errors import ConfigError, UnknownNameError

COLUMNS = ["participant", "view", "sequence", "frame", "source", "source_index", "is_reference"]


@pytest.fixture
def source():
    rows = [[p, "front", "s", n, f"{p}{n}.png", -1, n == 0, 1.0] for p in "abc" for n in range(2)]
    table = pd.DataFrame(rows, columns=[*COLUMNS, "AU12"])
    people = pd.DataFrame({"participant": list("abc"), "sex": list("fmf")})
    return DatasetSource(
        "tiny", (12,), (12,), (("a", "c"), ("b",)), table, participants_table=people
    )


def test_select_keeps_participants_and_drops_empty_folds(source):
    part = source.select(["a", "c"])
    assert part.participants == ("a", "c")
    assert part.folds == (("a", "c"),)
    assert part.table.index.tolist() == [0, 1, 2, 3]
    assert part.participants_table["sex"].tolist() == ["f", "f"]
    with pytest.raises(ConfigError, match="no participant z; it has a, b, c"):
        source.select(["z"])


def test_a_source_is_checked_when_it_is_made(source):
    with pytest.raises(ConfigError, match=r"folds of data set 'tiny' overlap: a"):
        dataclasses.replace(source, folds=(("a",), ("a", "b")))
    with pytest.raises(ConfigError, match="lacks AU01"):
        dataclasses.replace(source, detection_aus=(1, 12))


def test_task_aus(source):
    assert source.task_aus("detection") == (12,)
    with pytest.raises(ConfigError, match="'intensity', 'detection'"):
        source.task_aus("both")


def test_names():
    assert canonical_name("DISFA+") == canonical_name("disfa_plus") == "disfa-plus"
    assert root_variable("disfa-plus") == "SIAMCAL_DISFA_PLUS_ROOT"
    with pytest.raises(UnknownNameError, match="Did you mean 'disfa"):
        load_dataset("disfaa")
