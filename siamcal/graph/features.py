"""What crosses a merge point: features to be differenced, values that only pass, batch layouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

__all__ = ["BatchLayout", "Features", "PassedValue"]


@dataclass(frozen=True)
class BatchLayout:
    """Where the samples of a batch lie in a tensor.

    Attributes:
        dim: The dimension that holds the samples.
        groups: Slices per sample along it (windows of an attention, for example); mostly 1.
        sample_first: Whether the slices of one sample lie side by side.
    """

    dim: int = 0
    groups: int = 1
    sample_first: bool = True

    def batch_size(self, tensor: Tensor) -> int:
        """Number of samples in the tensor."""
        return tensor.shape[self.dim] // self.groups

    def select(self, tensor: Tensor, index: Tensor) -> Tensor:
        """The samples named by a vector of positions, in that order."""
        if self.groups == 1:
            return tensor.index_select(self.dim, index)
        sizes = (-1, self.groups) if self.sample_first else (self.groups, -1)
        split = tensor.unflatten(self.dim, sizes)
        dim = self.dim if self.sample_first else self.dim + 1
        return split.index_select(dim, index).flatten(self.dim, self.dim + 1)

    def narrow(self, tensor: Tensor, start: int, batch: int) -> Tensor:
        """`batch` samples from the `start`-th on."""
        if self.sample_first:
            return tensor.narrow(self.dim, start * self.groups, batch * self.groups)
        return self.select(tensor, torch.arange(start, start + batch, device=tensor.device))

    def cat(self, tensors: Sequence[Tensor]) -> Tensor:
        """The samples of several tensors in one, in their order."""
        if self.groups == 1 or self.sample_first:
            return torch.cat(list(tensors), self.dim)
        split = [t.unflatten(self.dim, (self.groups, -1)) for t in tensors]
        return torch.cat(split, self.dim + 1).flatten(self.dim, self.dim + 1)

    def to_rows(self, tensor: Tensor) -> Tensor:
        """Each sample as one row: (B, number of its values)."""
        dim = self.dim
        if self.groups != 1:
            sizes = (-1, self.groups) if self.sample_first else (self.groups, -1)
            tensor = tensor.unflatten(dim, sizes)
            dim = dim if self.sample_first else dim + 1
        return tensor.movedim(dim, 0).flatten(1)

    def from_rows(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """The tensor whose samples `to_rows` gave; `shape` is that of one sample."""
        if self.groups == 1:
            others = [*shape[: self.dim], *shape[self.dim + 1 :]]
            return rows.reshape(len(rows), *others).movedim(0, self.dim)
        dim = self.dim if self.sample_first else self.dim + 1
        return rows.reshape(len(rows), *shape).movedim(0, dim).flatten(self.dim, self.dim + 1)

    def expand(self, tensor: Tensor, batch: int) -> Tensor:
        """Repeat the only sample `batch` times (as a view where that is possible)."""
        if self.groups == 1:
            sizes = [-1] * tensor.ndim
            sizes[self.dim] = batch
            return tensor.expand(sizes)
        return self.select(tensor, torch.zeros(batch, dtype=torch.long, device=tensor.device))


@dataclass(frozen=True)
class PassedValue:
    """How a value that isn't differenced changes with the batch size.

    Attributes:
        layout: Where the samples lie, if it is a tensor that has samples.
        scales: For a number or a size: whether it (each of its parts) grows with the batch.
        known: False where neither describes it.
    """

    layout: BatchLayout | None = None
    scales: tuple[bool, ...] = ()
    known: bool = True

    def narrow(self, value: Any, start: int, batch: int, whole: int) -> Any:
        """The value for `batch` samples from the `start`-th on of the `whole`."""
        if self.layout is not None:
            return self.layout.narrow(value, start, batch)
        if not any(self.scales):
            return value
        if isinstance(value, torch.Size):
            grows = zip(value, self.scales, strict=True)
            return torch.Size(v * batch // whole if s else v for v, s in grows)
        return value * batch // whole


@dataclass(frozen=True)
class Features:
    """The values that cross a merge point.

    Attributes:
        tensors: Those that depend on the image, and are differenced.
        passed: All others (sizes, positional encodings), passed on as they are.
        inputs: The network's input; only the hook mechanism needs it to go on.
    """

    tensors: tuple[Tensor, ...]
    passed: tuple[Any, ...] = ()
    inputs: Any = None

    def with_tensors(self, tensors: Sequence[Tensor]) -> Features:
        """The same crossing with other features."""
        return replace(self, tensors=tuple(tensors))
