"""Make siamcal/assets/face_trunk.safetensors: the landmark network's trunk as torch weights.

The network lies in `siamcal/assets/face_landmarker.task` (Google, Apache-2.0) in TensorFlow Lite's
format. Its weights are read with the package `tflite`, which only this script needs, and kept in
half precision, in which the original has them: nothing is rounded.

    pip install tflite
    python scripts/build_face_trunk.py            # read, check the structure, write
    python scripts/build_face_trunk.py --check    # compare with the file in the package
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from siamcal.backbones.face_trunk import FaceTrunk

from siamcal.files import asset
from siamcal.model.weights_file import read_tensors, write_tensors

TARGET = Path(__file__).parent.parent / "siamcal" / "assets" / "face_trunk.safetensors"
MEMBER = "face_landmarks_detector.tflite"
DTYPES = {0: np.float32, 1: np.float16}  # of TensorFlow Lite's schema
# Operators with weights; all others of the network have none.
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "PRELU")


def operators() -> Iterator[tuple[str, list[np.ndarray]]]:
    """Name and weights of each operator with weights, in the order in which they run."""
    import tflite

    with zipfile.ZipFile(asset("face_landmarker.task")) as archive:
        model: Any = tflite.Model.GetRootAsModel(archive.read(MEMBER), 0)
    graph = model.Subgraphs(0)
    names = {v: k for k, v in vars(tflite.BuiltinOperator).items() if not k.startswith("_")}
    halves: dict[int, int] = {}  # tensor in single precision -> the constant it is made of

    def constant(index: int) -> np.ndarray:
        tensor = graph.Tensors(halves.get(index, index))
        data = model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes()
        return np.frombuffer(data, DTYPES[tensor.Type()]).reshape(tensor.ShapeAsNumpy())

    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        code = model.OperatorCodes(operator.OpcodeIndex())
        name = names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        inputs = [int(i) for i in operator.InputsAsNumpy()]
        if name == "DEQUANTIZE":
            halves[int(operator.OutputsAsNumpy()[0])] = inputs[0]
        elif name in WEIGHTED:
            yield name, [constant(i) for i in inputs[1:]]


def parameters(name: str, values: list[np.ndarray]) -> Iterator[np.ndarray]:
    """An operator's weights in torch's layout."""
    first = values[0]
    if name == "CONV_2D":
        yield first.transpose(0, 3, 1, 2)  # (out, H, W, in) -> (out, in, H, W)
    elif name == "DEPTHWISE_CONV_2D":
        yield first.transpose(3, 0, 1, 2)  # (1, H, W, C) -> (C, 1, H, W)
    else:
        yield first.reshape(-1)
    yield from values[1:]


def convert() -> dict[str, torch.Tensor]:
    """Weights by the names of `FaceTrunk`, whose modules are declared in the order of their run."""
    found = (value for name, values in operators() for value in parameters(name, values))
    state = {}
    for name, parameter in FaceTrunk().named_parameters():
        if name.startswith("head."):
            break
        value = next(found)
        if value.shape != tuple(parameter.shape):
            sys.exit(f"{name} has the shape {tuple(parameter.shape)}, the file {value.shape}")
        state[name] = torch.from_numpy(value.astype(np.float16))
    return state


def main() -> None:
    """Write or compare the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="only compare")
    state = convert()
    if parser.parse_args().check:
        kept = read_tensors(TARGET)
        same = kept.keys() == state.keys() and all(torch.equal(kept[k], state[k]) for k in state)
        sys.exit(None if same else f"{TARGET.name} differs from the network it is made of")
    print(f"{TARGET.name}: sha256 {write_tensors(state, TARGET)}")
    print(f"{sum(t.numel() for t in state.values()):,} parameters")


if __name__ == "__main__":
    main()
