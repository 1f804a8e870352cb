"""Kept rows: computed once, resumed, and computed anew where the files were damaged."""

import json
import logging

import numpy as np
import pytest

from siamcal.training import kept

SHAPE = (10, 3)
VALUES = np.arange(30, dtype=np.float32).reshape(SHAPE)


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A full cache in parts of two rows, and the rows that were asked for."""
    monkeypatch.setattr(kept, "_SAVE_SECONDS", -1.0)
    asked = []

    def compute(places):
        asked.extend(places.tolist())
        return VALUES[places]

    def look():
        asked.clear()
        return np.array(kept.kept_rows(tmp_path, SHAPE, 2, compute))

    np.testing.assert_array_equal(look(), VALUES)
    assert asked == list(range(10))
    np.testing.assert_array_equal(look(), VALUES)
    assert asked == []
    return tmp_path, asked, look


def test_damaged_rows_are_computed_anew_and_said(cached, caplog) -> None:
    folder, asked, look = cached
    data = bytearray((folder / "features.f32").read_bytes())
    data[5 * 12] ^= 0x40  # row 5
    (folder / "features.f32").write_bytes(bytes(data))
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(look(), VALUES)
    assert asked == list(range(4, 10))
    assert "damaged: computed anew from row 4 on" in caplog.text
    look()
    assert asked == []


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"done": 10}', '{"parts": [[10]]}', "\x80"])
def test_a_damaged_progress_is_computed_anew(cached, caplog, text) -> None:
    folder, asked, look = cached
    (folder / "progress.json").write_bytes(text.encode("latin-1"))
    np.testing.assert_array_equal(look(), VALUES)
    assert asked == list(range(10))
    assert "all is computed anew" in caplog.text


def test_a_progress_that_claims_too_much_is_not_believed(cached) -> None:
    folder, asked, look = cached
    for parts in ([[10, "x"]], [[99, "x"]], [[0, "x"]], [[-1, "x"]]):
        (folder / "progress.json").write_text(json.dumps({"parts": parts}))
        np.testing.assert_array_equal(look(), VALUES)
        assert asked == list(range(10))


def test_a_file_of_another_length_is_computed_anew(cached) -> None:
    folder, asked, look = cached
    (folder / "features.f32").write_bytes(b"\0" * 60)
    np.testing.assert_array_equal(look(), VALUES)
    assert asked == list(range(10))
