"""Damaged crop caches: what was changed is cropped anew and said; nothing of it is read."""

import logging

import numpy as np
import pytest
from test_datasets_prepare import SMALL, fake, mixed  # noqa: F401

from siamcal.datasets.crops.prepare import prepare


@pytest.fixture
def cached(fake, mixed, tmp_path, monkeypatch):  # noqa: F811
    """A cache in several units, what was in it, and a second look at it."""
    import sys

    monkeypatch.setattr(sys.modules["siamcal.datasets.crops.prepare"], "_UNIT_IMAGES", 2)
    cache = tmp_path / "cache"

    def look():
        faces = prepare(mixed, SMALL, cache=cache, workers=1)
        return np.array(faces.images), faces.dropped["reason"].tolist()

    before = look()
    (folder,) = (path for path in cache.iterdir() if path.is_dir())
    return fake, folder, before, look


def same(one, other):
    return np.array_equal(one[0], other[0]) and one[1] == other[1]


def flip(path, places):
    data = bytearray(path.read_bytes())
    for place in places:
        data[place] ^= 0xFF
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("file", ["images.u8", "status.txt"])
def test_flipped_bytes_are_made_anew_and_said(cached, caplog, file) -> None:
    _, folder, before, look = cached
    size = (folder / file).stat().st_size
    flip(folder / file, range(0, size, 3))
    with caplog.at_level(logging.WARNING):
        assert same(look(), before)
    assert "are damaged (their checksums differ) and cropped anew" in caplog.text
    caplog.clear()
    assert same(look(), before)  # healed
    assert "damaged" not in caplog.text


def test_one_byte_costs_one_unit(cached, caplog) -> None:
    fake, folder, before, look = cached  # noqa: F811
    flip(folder / "images.u8", [(folder / "images.u8").stat().st_size - 1])
    calls = fake.calls
    assert same(look(), before)
    assert 1 <= fake.calls - calls <= 2  # a unit has two images


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", '{"units": 3}', '{"units": [[1]]}', '{"units": ["1 2"]}', "\x00"],
)
def test_a_damaged_progress_heals(cached, caplog, text) -> None:
    _, folder, before, look = cached
    (folder / "progress.json").write_text(text)
    assert same(look(), before)
    assert "all is cropped anew" in caplog.text
    caplog.clear()
    assert same(look(), before)
    assert "anew" not in caplog.text


def test_bytes_that_are_no_text_heal(cached) -> None:
    _, folder, before, look = cached
    for file in ("status.txt", "progress.json"):
        (folder / file).write_bytes(b"\xff\xfe\x00\x80" * 20)
        assert same(look(), before)


def test_missing_and_longer_files_heal(cached) -> None:
    _, folder, before, look = cached
    for file in ("images.u8", "status.txt"):
        (folder / file).unlink()
        assert same(look(), before)
        with (folder / file).open("ab") as stream:
            stream.write(b"more")
        assert same(look(), before)
