"""Make the torch weights of MediaPipe's networks: face_trunk and face_landmarks.safetensors.

The first holds the landmark network's trunk, the second the whole network, for the points that
`backbones/face_landmarks.py` reads, and the network of expression coefficients. Both networks lie
in `siamcal/assets/face_landmarker.task` (Google, Apache-2.0) in TensorFlow Lite's format. Their
weights are read with the package `tflite`, which only this script needs, and kept in half
precision, in which the originals have them: nothing is rounded. Beside them lies what
`scripts/fit_motions.py` finds; it is kept.

    pip install tflite
    python scripts/build_face_trunk.py            # read, check the structure, write
    python scripts/build_face_trunk.py --check    # compare with the files in the package
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
from siamcal.backbones.face_landmarks import POINTS, FaceLandmarks
from siamcal.backbones.face_trunk import FaceTrunk
from torch import nn

from siamcal.files import asset
from siamcal.model.weights_file import read_tensors, write_tensors

ASSETS = Path(__file__).parent.parent / "siamcal" / "assets"
LANDMARKS, COEFFICIENTS = "face_landmarks_detector.tflite", "face_blendshapes.tflite"
MOTIONS = "geometry.motions.weight"
DTYPES = {0: np.float32, 1: np.float16}  # of TensorFlow Lite's schema


def operators(member: str) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Name and weights of each operator with weights, in the order in which they run."""
    import tflite

    with zipfile.ZipFile(asset("face_landmarker.task")) as archive:
        model: Any = tflite.Model.GetRootAsModel(archive.read(member), 0)
    graph = model.Subgraphs(0)
    names = {v: k for k, v in vars(tflite.BuiltinOperator).items() if not k.startswith("_")}
    halves: dict[int, int] = {}  # tensor in single precision -> the constant it is made of

    def constant(index: int) -> np.ndarray | None:
        tensor = graph.Tensors(halves.get(index, index))
        data = model.Buffers(tensor.Buffer())
        if tensor.Type() not in DTYPES or not data.DataLength() or not tensor.ShapeLength():
            return None
        values = np.frombuffer(data.DataAsNumpy().tobytes(), DTYPES[tensor.Type()])
        return values.reshape(tensor.ShapeAsNumpy())

    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        code = model.OperatorCodes(operator.OpcodeIndex())
        name = names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        inputs = [int(i) for i in operator.InputsAsNumpy()]
        if name == "DEQUANTIZE":
            halves[int(operator.OutputsAsNumpy()[0])] = inputs[0]
        elif weights := [w for w in map(constant, inputs) if w is not None]:
            yield name, weights


def parameters(name: str, values: list[np.ndarray]) -> Iterator[np.ndarray]:
    """An operator's weights in torch's layout."""
    first = values[0]
    if name == "CONV_2D":
        yield first.transpose(0, 3, 1, 2)  # (out, H, W, in) -> (out, in, H, W)
    elif name == "DEPTHWISE_CONV_2D":
        yield first.transpose(3, 0, 1, 2)  # (1, H, W, C) -> (C, 1, H, W)
    elif name == "CONCATENATION":
        yield first.reshape(1, 1, -1)  # a token of its own
    else:
        yield first.reshape(-1)
    yield from values[1:]


def weights(member: str) -> Iterator[np.ndarray]:
    """All weights of a network in the order of its run, but for the landmark network's flags."""
    for name, values in operators(member):
        if name == "CONV_2D" and values[0].shape[0] == 1:
            continue  # is there a face, and is the tongue out
        yield from parameters(name, values)


def taken(network: nn.Module, found: Iterator[np.ndarray]) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights by the names of a network whose modules are declared in the order of their run."""
    for name, parameter in network.named_parameters():
        if name.startswith("head."):
            return
        value = next(found)
        if name.startswith("points."):
            value = value.reshape(478, 3, *value.shape[1:])[list(POINTS)].reshape(parameter.shape)
        if value.size != parameter.numel():
            sys.exit(f"{name} has the shape {tuple(parameter.shape)}, the file {value.shape}")
        yield name, torch.from_numpy(value.astype(np.float16).reshape(parameter.shape))


def convert() -> dict[str, dict[str, torch.Tensor]]:
    """File -> weights by the names of its backbone."""
    found = weights(LANDMARKS)
    trunk = dict(taken(FaceTrunk(), found))
    whole = FaceLandmarks()
    points = {f"landmarks.{n}": t for n, t in taken(whole.landmarks, found)}
    coefficients = weights(COEFFICIENTS)
    shapes = {
        f"geometry.blendshapes.{name}": tensor
        for name, tensor in taken(whole.geometry.blendshapes, coefficients)
    }
    if next(found, None) is not None or next(coefficients, None) is not None:
        sys.exit("a network has more weights than its counterpart")
    return {"face_trunk": trunk, "face_landmarks": trunk | points | shapes}


def main() -> None:
    """Write or compare the files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="only compare")
    check = parser.parse_args().check
    for name, state in convert().items():
        target = ASSETS / f"{name}.safetensors"
        kept = read_tensors(target) if target.exists() else {}
        if MOTIONS in kept and name == "face_landmarks":
            state[MOTIONS] = kept[MOTIONS]
        if not check:
            print(f"{target.name}: sha256 {write_tensors(state, target)}")
            print(f"{sum(t.numel() for t in state.values()):,} parameters")
            continue
        if kept.keys() != state.keys() or not all(torch.equal(kept[k], state[k]) for k in state):
            sys.exit(f"{target.name} differs from the network it is made of")


if __name__ == "__main__":
    main()
