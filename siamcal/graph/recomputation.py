"""Gradient checkpointing: a part of a forward that runs again, by itself, in the backward pass.

What was replaced in the forward is noted in the checkpoint's own record, which torch holds while
the graph lives and which the recomputation runs under.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterable, Iterator
from types import FrameType, GeneratorType
from typing import Any

import torch
from torch import Tensor

__all__ = ["in_backward", "is_lost", "note", "noted"]

_NOTES = "_siamcal_notes"


def in_backward() -> bool:
    """Whether this thread runs a backward pass."""
    return torch._C._current_graph_task_id() != -1


def note(key: Hashable, value: Any) -> None:
    """Leave a value in every checkpoint that runs now."""
    for record in _records():
        _leave(record, key, value)


def noted(key: Hashable) -> tuple[bool, Any]:
    """Whether a checkpoint runs now, and the value that was left in it; None where none was."""
    inner: list[Any] = []
    found = False
    for record in _records():
        found = True
        notes = getattr(record, _NOTES, {})
        if key in notes:
            for other in inner:  # made just now, by the recomputation of one around it
                _leave(other, key, notes[key])
            return True, notes[key]
        inner.append(record)
    return found, None


def is_lost(tensors: Iterable[Tensor]) -> bool:
    """Whether gradients don't reach these tensors since a re-entrant checkpoint made them."""
    for frame in _frames():
        if "ctx" in frame.f_locals and frame.f_code.co_name == "forward":
            given = [a for a in frame.f_locals.get("args", ()) if isinstance(a, Tensor)]
            inside = [t for t in tensors if not t.requires_grad]
            return any(not any(t is g for g in given) for t in inside)
    return False


def _leave(record: Any, key: Hashable, value: Any) -> None:
    setattr(record, _NOTES, {**getattr(record, _NOTES, {}), key: value})


def _records() -> Iterator[Any]:
    """Records of the checkpoints that run now, the innermost first.

    They are the same objects in a forward and in its recomputation: the context of the re-entrant
    form's autograd function, and the frame of the other form.
    """
    for frame in _frames():
        values = frame.f_locals
        if "ctx" in values:
            yield values["ctx"]
        elif frame.f_code.co_name == "unpack_hook":
            yield values["frame"]
        elif isinstance(generator := values.get("gen"), GeneratorType) and generator.gi_frame:
            yield generator.gi_frame.f_locals["new_frame"]


def _frames() -> Iterator[FrameType]:
    """The running functions of torch.utils.checkpoint, the innermost first."""
    module = sys.modules.get("torch.utils.checkpoint")
    file = getattr(module, "__file__", None)
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == file:
            yield frame
        frame = frame.f_back
