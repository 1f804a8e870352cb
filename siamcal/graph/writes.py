"""Which tensors a node of a torch.fx graph writes to."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

__all__ = ["gives_new", "written"]

_OPERATORS = {
    operator.setitem, operator.iadd, operator.imul, operator.isub, operator.itruediv,
}  # fmt: skip
# Normalisations with running statistics: position of (mean, variance, whether these are updated).
_STATISTICS = {
    F.batch_norm: (1, 2, 5, "training"), torch.batch_norm: (3, 4, 5, "training"),
    F.instance_norm: (1, 2, 5, "use_input_stats"),
    torch.instance_norm: (3, 4, 5, "use_input_stats"),
}  # fmt: skip


def written(node: fx.Node, root: nn.Module) -> tuple[fx.Node, ...]:
    """The nodes whose memory a node writes to.

    Args:
        node: A node of a graph of `root`.
        root: The network, to recognise modules that write into their input.

    Returns:
        Them, the one that the node gives back first; empty where it writes to nothing known. What a
        module taken as one step does inside isn't known but for its attribute `inplace`.
    """
    first = _nodes(node.args[0] if node.args else next(iter(node.kwargs.values()), None))
    if node.op == "call_module":
        inplace = getattr(root.get_submodule(str(node.target)), "inplace", False)
        return first if inplace is True else ()
    if node.op == "call_method":
        return first if _says_so(str(node.target)) else ()
    if node.op != "call_function":
        return ()
    if "out" in node.kwargs:
        return _nodes(node.kwargs["out"])
    if node.target in _STATISTICS:
        return _statistics(node)
    if node.target in _OPERATORS or node.kwargs.get("inplace") is True:
        return first
    return first if _says_so(getattr(node.target, "__name__", "")) else ()


def gives_new(node: fx.Node) -> bool:
    """Whether what a node gives back isn't the memory that it writes to."""
    return node.target in _STATISTICS


def _says_so(name: str) -> bool:
    """By torch's convention of names."""
    return name.endswith("_") and not name.endswith("__")


def _statistics(node: fx.Node) -> tuple[fx.Node, ...]:
    *places, switch, name = _STATISTICS[node.target]  # type: ignore[index]
    updates = node.kwargs.get(name, node.args[switch] if len(node.args) > switch else None)
    if updates is None:
        updates = name == "use_input_stats"  # the functions' defaults
    if updates is False:
        return ()
    given = [node.args[p] for p in places if len(node.args) > p]
    given += [node.kwargs.get("running_mean"), node.kwargs.get("running_var")]
    return _nodes(given)


def _nodes(value: Any) -> tuple[fx.Node, ...]:
    if isinstance(value, fx.Node):
        return (value,)
    if isinstance(value, (tuple, list)):
        return tuple(v for v in value if isinstance(v, fx.Node))
    return ()
