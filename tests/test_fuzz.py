"""A slice of the fuzz for every reader (`make fuzz` runs 10,000 inputs each), and what it found."""

import os
import tempfile
from pathlib import Path

import pytest
import torch
from fuzz.registry import READERS
from fuzz.run import MEMORY, exchanged, fuzz

torch.set_num_threads(1)
# Rendering takes seconds; `make fuzz` has it.
SLOW = "rendered people"
INPUTS = 15


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damaged_files_are_refused_in_words_or_read_right(reader) -> None:
    if reader.name.startswith(SLOW):
        pytest.skip("in make fuzz")
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        found = fuzz(reader, Path(folder), INPUTS, seed=1)
    assert found.sound, [*found.raw, *found.wrong, *found.nameless]
    assert found.inputs == INPUTS


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def huge(path: Path) -> None:
    """Takes no room on the disk, but 6 GB in memory for who reads it whole."""
    with path.open("wb") as file:
        file.truncate(6 << 30)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_what_is_no_file_or_far_too_large_is_refused_at_once(reader) -> None:
    if reader.name.startswith(SLOW):
        pytest.skip("in make fuzz")
    exchanges = (device, folder, huge) if reader.waits else (fifo, device, folder, huge)
    with tempfile.TemporaryDirectory(dir=MEMORY) as place:
        found = exchanged(reader, exchanges, Path(place))
    assert found.sound, [*found.raw, *found.wrong, *found.nameless]
    assert found.refused == len(exchanges) or reader.made_again
    assert found.megabytes < 700
