"""`make fuzz`: 10,000 damaged files for each reader; writes benchmarks/results/fuzz.md.

A reader alone: `make fuzz READERS="manifest"`; fewer inputs: `make fuzz INPUTS=500`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from fuzz.registry import READERS
from fuzz.run import MEMORY, PATIENCE, Found, Reader, fuzz

TABLE = Path(__file__).parents[2] / "benchmarks" / "results" / "fuzz.md"
# Shorter runs are for looking; the table holds whole ones.
FEWEST = 10_000
HEAD = """# Damaged and foreign files

Made by `make fuzz` (seed {seed}, {inputs:,} inputs a reader, an hour on one core). Each input is a
sound file with one to three faults: flipped bits, cuts, words, values, types, names and headers
exchanged (`tests/fuzz/mutate.py`). Accepted: read, as what the file now says; of siamcal's own
files, which hold checksums, as what was written, if need be made anew. Refused: one of siamcal's
errors that names the file. Raw: any other exception, or over {patience:g} seconds. Wrong: another
value of a file with a checksum. More memory: growth of the process's highest. Before: raw
exceptions in 1,200 inputs of a first fuzz, where that was counted.

| reader | inputs | accepted | refused | raw | wrong | slowest | more memory | before |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def _row(reader: Reader, found: Found) -> str:
    before = "" if reader.before is None else f"{reader.before} of 1,200"
    cells = [reader.name, f"{found.inputs:,}", f"{found.accepted:,}", f"{found.refused:,}",
             str(len(found.raw)), str(len(found.wrong)), f"{found.slowest * 1000:.0f} ms",
             f"{found.megabytes:.0f} MB", before]  # fmt: skip
    return "| " + " | ".join(cells) + " |\n"


def _kept(inputs: int) -> dict[str, str]:
    """Rows of readers that another run of as many inputs wrote."""
    lines = TABLE.read_text(encoding="utf-8").splitlines() if TABLE.exists() else []
    rows = [line for line in lines if f" | {inputs:,} | " in line]
    return {row.split(" | ")[0].removeprefix("| "): f"{row}\n" for row in rows}


def main() -> int:
    """Fuzz the readers named, or all; 1 where something was raw, wrong or nameless."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readers", nargs="*", help="parts of their names; all by default")
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=5, help="findings to print of each reader")
    given = parser.parse_args()
    torch.set_num_threads(1)
    sound = True
    for reader in READERS:
        if given.readers and not any(name in reader.name for name in given.readers):
            continue
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            found = fuzz(reader, Path(folder), given.inputs, given.seed)
        row = _row(reader, found)
        print(row, end="", flush=True)
        for what in ("raw", "wrong", "nameless"):
            for text in getattr(found, what)[: given.show]:
                print(f"    {what} {text}", flush=True)
        sound = sound and found.sound
        if given.inputs >= FEWEST:
            rows = _kept(given.inputs) | {reader.name: row}
            head = HEAD.format(seed=given.seed, inputs=given.inputs, patience=PATIENCE)
            ordered = [rows[r.name] for r in READERS if r.name in rows]
            TABLE.write_text(head + "".join(ordered), encoding="utf-8")
    return 0 if sound else 1


sys.exit(main())
