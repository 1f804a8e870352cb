"""Keeping a network as it was: attributes, buffers, training modes; seeing whether it changed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

__all__ = ["differentiable", "fingerprint", "hookable", "in_mode", "kept_buffers", "unchanged"]


@contextmanager
def unchanged(network: nn.Module) -> Iterator[None]:
    """Put every attribute back afterwards: forwards may cache values, here proxies, in modules.

    Caches that already hold tensors are emptied meanwhile, lest their content is taken for a
    constant of the network.
    """
    saved: list[tuple[dict[str, Any], dict[str, Any]]] = []
    containers: list[tuple[Any, Any]] = []
    for module in network.modules():
        attributes = module.__dict__
        saved.append((attributes, dict(attributes)))
        for name, value in attributes.items():
            if type(value) in (dict, list, set):
                containers.append((value, value.copy()))
                if type(value) is dict and not name.startswith("_") and _holds_tensors(value):
                    value.clear()
        # TorchScript keeps these two elsewhere.
        known = [attributes.get(name) for name in ("_parameters", "_buffers")]
        tables = [table for table in known if isinstance(table, dict)]
        containers.extend((table, table.copy()) for table in tables)
    try:
        yield
    finally:
        for attributes, before in saved:
            if attributes.keys() != before.keys() or any(
                attributes[k] is not v for k, v in before.items()
            ):
                attributes.clear()
                attributes.update(before)
        for container, content in containers:
            container.clear()
            container.extend(content) if isinstance(container, list) else container.update(content)


def _holds_tensors(values: dict[Any, Any]) -> bool:
    return any(isinstance(v, Tensor) for v in pytree.tree_leaves(values))


@contextmanager
def kept_buffers(network: nn.Module) -> Iterator[None]:
    """Give every buffer (running statistics) its value back afterwards."""
    values = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        with unchanged(network):
            yield
    finally:
        with torch.no_grad():
            for buffer, value in values:
                if not (
                    buffer.is_meta or torch.equal(buffer, value)
                ):  # a write counts as a change elsewhere
                    buffer.copy_(value)


def hookable(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules that take hooks, with their paths: those of TorchScript don't."""
    for name, module in network.named_modules():
        if not isinstance(module, torch.jit.ScriptModule):
            yield name, module


@contextmanager
def in_mode(network: nn.Module, training: bool) -> Iterator[None]:
    """Every module in one training mode; each gets its own mode back afterwards."""
    before = [(module, module.training) for module in network.modules()]
    try:
        for module, _ in before:
            module.training = training
        yield
    finally:
        for module, mode in before:
            module.training = mode


@contextmanager
def differentiable(network: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Every floating-point parameter wants a gradient, or none, and has none; put back after."""
    before = [(p, p.requires_grad, p.grad) for p in network.parameters() if p.is_floating_point()]
    try:
        for parameter, _, _ in before:
            parameter.requires_grad_(wanted)
            parameter.grad = None
        yield
    finally:
        for parameter, wished, gradient in before:
            parameter.requires_grad_(wished)
            parameter.grad = gradient


# What torch itself keeps in a module and no forward's control flow can read as a setting.
_OWN = {
    "_backward_hooks", "_backward_pre_hooks", "_non_persistent_buffers_set", "_state_dict_hooks",
    "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
    "_is_full_backward_hook", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called", "siamcal_spec", "training",
}  # fmt: skip
_TABLES = ("_parameters", "_buffers")
_DEPTH = 4


def fingerprint(
    modules: Sequence[tuple[str, nn.Module]], ignored: Collection[tuple[str, str]] = ()
) -> Any:
    """What modules are made of and set to, as a value that changes when something of it does.

    Settings inside containers, dataclasses and plain objects count; values of parameters and
    buffers don't, and neither do training modes.

    Args:
        modules: (path, module).
        ignored: (path, attribute) that don't count.
    """
    return tuple(
        (
            id(type(module).forward),
            tuple(
                (name, _entry(name, value))
                for name, value in module.__dict__.items()
                if name not in _OWN and (path, name) not in ignored
            ),
        )
        for path, module in modules
    )


def _entry(name: str, value: Any) -> Any:
    if name in _TABLES:
        return _names(value)
    if name in ("_forward_hooks", "_forward_pre_hooks"):
        return tuple(id(hook) for hook in value.values() if not _is_silent(hook))
    return _frozen(value, _DEPTH)


def _is_silent(hook: Any) -> bool:
    """Our own hooks, and those that move parameters about, change nothing that is computed."""
    module = str(getattr(getattr(hook, "func", hook), "__module__", ""))
    return module.startswith(("siamcal.graph", "torch.distributed"))


def _names(table: Mapping[str, Any]) -> Any:
    return tuple((name, value is None) for name, value in table.items())


def _frozen(value: Any, depth: int) -> Any:
    if isinstance(value, float):
        return value.hex()  # NaN is equal to itself
    if value is None or isinstance(value, bool | int | str | bytes):
        return type(value), value
    if isinstance(value, nn.Module | Tensor | type) or depth == 0:
        return id(value)
    if isinstance(value, Mapping):
        return tuple((_frozen(k, 1), _frozen(v, depth - 1)) for k, v in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return type(value), tuple(_frozen(v, depth - 1) for v in value)
    if callable(value):
        return id(value)
    inside = getattr(value, "__dict__", None)
    if isinstance(inside, dict):
        return id(value), _frozen(inside, depth - 1)
    return id(value)
