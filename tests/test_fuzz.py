"""A slice of the fuzz for every reader (`make fuzz` runs 10,000 inputs each), and what it found."""

import tempfile
from pathlib import Path

import pytest
import torch
from fuzz.registry import READERS
from fuzz.run import MEMORY, fuzz

torch.set_num_threads(1)
# Rendering takes seconds; `make fuzz` has it.
SLOW = "rendered people"
INPUTS = 25


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damaged_files_are_refused_in_words_or_read_right(reader) -> None:
    if reader.name.startswith(SLOW):
        pytest.skip("in make fuzz")
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        found = fuzz(reader, Path(folder), INPUTS, seed=1)
    assert found.sound, [*found.raw, *found.wrong, *found.nameless]
    assert found.inputs == INPUTS
