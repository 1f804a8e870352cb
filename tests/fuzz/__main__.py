"""`make fuzz`: 10,000 damaged files for each reader; writes benchmarks/results/fuzz.md.

A reader alone: `make fuzz READERS="manifest"`; fewer inputs: `make fuzz INPUTS=500`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

from fuzz.registry import READERS
from fuzz.run import Found, Reader, fuzz

TABLE = Path(__file__).parents[2] / "benchmarks" / "results" / "fuzz.md"
HEAD = """# Damaged and foreign files

Made by `make fuzz` (seed {seed}, {inputs:,} inputs a reader, {minutes:.0f} minutes on one core).
Each input is a sound file with one to three faults: flipped bits, cuts, words, values, types, names
and headers exchanged (`tests/fuzz/mutate.py`). Accepted: read, as what the file now says; of
siamcal's own files, which hold checksums, as what was written, if need be made anew. Refused: one
of siamcal's errors that names the file. Raw: any other exception, or over {patience:g} seconds.
Wrong: another value of a file with a checksum. More memory: growth of the process's highest.
Before: raw exceptions in 1,200 inputs of a first fuzz, where that was counted.

| reader | inputs | accepted | refused | raw | wrong | slowest | more memory | before |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def _row(reader: Reader, found: Found) -> str:
    before = "" if reader.before is None else f"{reader.before} of 1,200"
    cells = [reader.name, f"{found.inputs:,}", f"{found.accepted:,}", f"{found.refused:,}",
             str(len(found.raw)), str(len(found.wrong)), f"{found.slowest * 1000:.0f} ms",
             f"{found.megabytes:.0f} MB", before]  # fmt: skip
    return "| " + " | ".join(cells) + " |\n"


def main() -> int:
    """Fuzz the readers named, or all; 1 where something was raw, wrong or nameless."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readers", nargs="*", help="parts of their names; all by default")
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=5, help="findings to print of each reader")
    given = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [r for r in READERS if not given.readers or any(n in r.name for n in given.readers)]
    rows, sound, started = [], True, time.monotonic()
    for reader in chosen:
        with tempfile.TemporaryDirectory() as folder:
            found = fuzz(reader, Path(folder), given.inputs, given.seed)
        rows.append(_row(reader, found))
        print(rows[-1], end="", flush=True)
        for what in ("raw", "wrong", "nameless"):
            for text in getattr(found, what)[: given.show]:
                print(f"    {what} {text}", flush=True)
        sound = sound and found.sound
    if not given.readers:
        from fuzz.run import PATIENCE

        minutes = (time.monotonic() - started) / 60
        head = HEAD.format(seed=given.seed, inputs=given.inputs, minutes=minutes, patience=PATIENCE)
        TABLE.write_text(head + "".join(rows), encoding="utf-8")
    return 0 if sound else 1


sys.exit(main())
