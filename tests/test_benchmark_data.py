import json

import pytest

from siamcal.errors import ConfigError
from siamcal.registry import benchmarks


def test_the_data_benchmark_measures(tmp_path, monkeypatch):
    monkeypatch.setenv("SIAMCAL_CACHE", str(tmp_path))
    data = benchmarks.get("data")
    monkeypatch.setattr("siamcal.benchmarks.data._DISFA", (4, 50, 2))
    found = data(frames=12, size=32, workers="1")
    assert found["frames"] == 12
    assert all(value > 0 for value in found.values())
    assert "cropping, 1 processes, frames/s" in found
    assert str(found).startswith("| measure | value |")
    assert json.loads(json.dumps(found)) == found


def test_wrong_arguments_are_named():
    with pytest.raises(ConfigError, match="multiples of 6"):
        benchmarks.get("data")(frames=7)
    with pytest.raises(ConfigError, match="numbers such as 1,2,4"):
        benchmarks.get("data")(workers="many")
