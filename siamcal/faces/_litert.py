"""The networks of MediaPipe's task file, run by LiteRT: on this machine, without any connection."""

from __future__ import annotations

import zipfile
from functools import lru_cache
from typing import Any

import numpy as np

from siamcal.extras import needed_for
from siamcal.faces._quiet import quiet_stderr
from siamcal.files import asset

TASK = "face_landmarker.task"


@lru_cache(maxsize=8)
def task_member(name: str) -> bytes:
    """One file of the task bundle.

    Raises:
        DataNotFoundError: The package lacks the bundle.
    """
    with zipfile.ZipFile(asset(TASK)) as bundle:
        return bundle.read(name)


class Network:
    """One network of the task bundle. It belongs to one thread at a time.

    Args:
        name: The bundle's member.
        beside: Shape of a tensor inside, whose last one is given out behind the outputs.

    Raises:
        MissingDependencyError: LiteRT isn't installed.
    """

    def __init__(self, name: str, beside: tuple[int, ...] | None = None) -> None:
        content = task_member(name) if beside is None else _with_output(name, beside)
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


@lru_cache(maxsize=1)
def _with_output(name: str, shape: tuple[int, ...]) -> bytes:
    """A network with its last tensor of a shape as one more output."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    content = task_member(name)
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    # Tensors are numbered in the order of the run.
    (*_, last) = (n for n, t in enumerate(graph.tensors) if tuple(t.shape) == shape)
    graph.outputs = np.array([*graph.outputs, last], np.int32)
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _interpreter(**options: Any) -> Any:
    with needed_for("Finding faces"):
        from ai_edge_litert.interpreter import Interpreter
    return Interpreter(**options)
