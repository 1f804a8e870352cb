"""MediaPipe's networks, run by LiteRT: on this machine, without any connection."""

from __future__ import annotations

import zipfile
from functools import lru_cache
from typing import Any

import numpy as np

from siamcal.extras import needed_for
from siamcal.faces._quiet import quiet_stderr
from siamcal.files import asset

TASK = "face_landmarker.task"
# Networks that are files of their own in `siamcal/assets`.
OWN_FILES = ("palm_detection_lite.tflite", "hand_landmark_lite.tflite")
# Where TFLite's schema keeps these fields in the tables of a model, a graph and a tensor.
_SUBGRAPHS, _TENSORS, _OUTPUTS, _SHAPE = 8, 4, 8, 4


@lru_cache(maxsize=8)
def task_member(name: str) -> bytes:
    """One file of the task bundle.

    Raises:
        DataNotFoundError: The package lacks the bundle.
    """
    with zipfile.ZipFile(asset(TASK)) as bundle:
        return bundle.read(name)


class Network:
    """One of MediaPipe's networks. It belongs to one thread at a time.

    Args:
        name: The task bundle's member, or one of `OWN_FILES`.
        beside: Shape of a tensor inside, whose last one is given out behind the outputs.

    Raises:
        MissingDependencyError: LiteRT isn't installed.
    """

    def __init__(self, name: str, beside: tuple[int, ...] | None = None) -> None:
        content = _content(name) if beside is None else _with_output(name, beside)
        with quiet_stderr():
            # One thread: videos and data sets are shared out over processes.
            self._run = _interpreter(model_content=content, num_threads=1)
            self._run.allocate_tensors()
        self._input = self._run.get_input_details()[0]["index"]
        self._outputs = [output["index"] for output in self._run.get_output_details()]

    def __call__(
        self, values: np.ndarray, scale: float = 1.0, offset: float = 0.0
    ) -> list[np.ndarray]:
        """Run on `scale * values + offset`, of the network's input shape; its outputs."""
        entrance = self._run.tensor(self._input)()  # a view, to be gone before the run
        np.multiply(values, np.float32(scale), out=entrance)
        if offset:
            entrance += np.float32(offset)
        del entrance
        self._run.invoke()
        return [self._run.get_tensor(index) for index in self._outputs]


def _content(name: str) -> bytes:
    return asset(name).read_bytes() if name in OWN_FILES else task_member(name)


@lru_cache(maxsize=1)
def _with_output(name: str, shape: tuple[int, ...]) -> bytes:
    """A network with its last tensor of a shape as one more output.

    A longer list of outputs is put behind the flatbuffer and pointed at; all else stays, byte by
    byte. To unpack and pack the whole of it takes 60 ms.
    """
    with needed_for("Finding faces"):
        from flatbuffers.number_types import Int32Flags
        from flatbuffers.table import Table

    content = task_member(name)
    model = Table(content, int.from_bytes(content[:4], "little"))
    graph = Table(content, model.Indirect(model.Vector(model.Offset(_SUBGRAPHS))))
    outputs = graph.GetVectorAsNumpy(Int32Flags, graph.Offset(_OUTPUTS))
    tensors, count = (of(graph.Offset(_TENSORS)) for of in (graph.Vector, graph.VectorLen))

    def shape_of(number: int) -> tuple[int, ...]:
        tensor = Table(content, graph.Indirect(tensors + 4 * number))
        return tuple(tensor.GetVectorAsNumpy(Int32Flags, tensor.Offset(_SHAPE)).tolist())

    # Tensors are numbered in the order of the run.
    last = next(n for n in reversed(range(count)) if shape_of(n) == shape)
    new = bytearray(content) + bytes(-len(content) % 4)  # a list begins at a multiple of 4
    field = graph.Pos + graph.Offset(_OUTPUTS)
    new[field : field + 4] = (len(new) - field).to_bytes(4, "little")
    new += np.array([len(outputs) + 1, *outputs, last], "<i4").tobytes()
    return bytes(new)


def _interpreter(**options: Any) -> Any:
    with needed_for("Finding faces"):
        from ai_edge_litert.interpreter import Interpreter
    return Interpreter(**options)
