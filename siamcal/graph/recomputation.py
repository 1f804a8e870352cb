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
from torch.autograd.function import FunctionCtx
from torch.utils import _pytree as pytree

__all__ = ["in_backward", "in_function", "in_own_function", "is_lost", "note", "noted"]

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
    """Whether gradients don't reach these tensors, made inside a function that recomputes.

    Such a function (a re-entrant checkpoint, a reversible block) runs without a graph, so only what
    is given to it has one.
    """
    for frame in _functions():
        values = pytree.tree_leaves(list(frame.f_locals.values()))
        given = [v for v in values if isinstance(v, Tensor)]
        return any(not any(t is g for g in given) for t in tensors if not t.requires_grad)
    return False


def in_function() -> bool:
    """Whether an autograd function runs now, torch's re-entrant checkpoint too."""
    return any(True for _ in _functions())


def in_own_function() -> bool:
    """Whether an autograd function runs now that isn't torch's re-entrant checkpoint."""
    return any(frame.f_code.co_filename != _file() for frame in _functions())


def _functions() -> Iterator[FrameType]:
    """The running forwards of autograd functions, the innermost first."""
    for frame in _stack():
        code = frame.f_code
        # Only by its usual name: to read all frames' variables would keep their tensors alive.
        named = code.co_name == "forward" and code.co_varnames[:1] == ("ctx",)
        if named and isinstance(frame.f_locals["ctx"], FunctionCtx):
            yield frame


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
    return (frame for frame in _stack() if frame.f_code.co_filename == _file())


def _file() -> str | None:
    return getattr(sys.modules.get("torch.utils.checkpoint"), "__file__", None)


def _stack() -> Iterator[FrameType]:
    """All running functions, the innermost first."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back
