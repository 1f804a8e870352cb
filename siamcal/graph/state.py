"""Keeping a network as it was: its attributes, buffers and training modes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

__all__ = ["in_mode", "kept_buffers", "unchanged"]


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
        tables = [attributes[n] for n in ("_parameters", "_buffers") if n in attributes]
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
                buffer.copy_(value)


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
