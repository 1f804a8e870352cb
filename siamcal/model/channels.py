"""Which dimension of the features at a merge point holds the channels, told by the layers there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from siamcal.graph.inputs import Inputs, run_network
from siamcal.graph.randomness import RandomState
from siamcal.graph.split import Split
from siamcal.graph.state import hookable, in_mode, kept_buffers

__all__ = ["channel_dims"]

_SECOND = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.PReLU,
)
_NORMS = ("LayerNorm", "RMSNorm")


def channel_dims(split: Split, example: Inputs) -> tuple[int | None, ...]:
    """The channels' dimension of each tensor that is differenced; None where it can't be told.

    Features (N, C) have one dimension beside the samples'. Of others the layers tell that read or
    write a tensor of the same shape: convolutions, batch, group and instance norms have channels
    second; linear layers, layer norms and attention last. Layers of the merge module go before all
    others. Where they contradict each other (a map as wide as it has channels), nothing is told.

    Args:
        split: The cut network; it keeps the answer in `channels`.
        example: A valid input, on the network's device.
    """
    if split.channels is None:
        dims = (dim for point in split.points for dim in _at_point(point, example))
        split.channels = tuple(dims)
    return split.channels


def _at_point(split: Split, example: Inputs) -> list[int | None]:
    network = split.network
    batch = [0 if layout is None else layout.dim for layout in split.layouts]
    if all(len(shape) <= 2 for shape in split.shapes):
        return [_only(len(shape), dim) for shape, dim in zip(split.shapes, batch, strict=True)]
    state = RandomState(torch.device("cpu"))
    seen: list[tuple[bool, tuple[int, ...], int]] = []
    handles = []
    try:
        with in_mode(network, False), torch.no_grad(), kept_buffers(network):
            shapes = [tuple(t.shape) for t in split.pre(example).tensors]
            for path, module in hookable(network):
                inside = path == split.merge_at or path.startswith(f"{split.merge_at}.")
                see = partial(_see, seen, inside)
                handles.append(module.register_forward_hook(see, with_kwargs=True))
            run_network(network, example, split.selector)
    finally:
        for handle in handles:
            handle.remove()
        state.restore()
    return [_told(seen, shape, dim) for shape, dim in zip(shapes, batch, strict=True)]


def _see(
    seen: list[tuple[bool, tuple[int, ...], int]],
    inside: bool,
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    output: Any,
) -> None:
    outputs = output if isinstance(output, tuple | list) else (output,)
    for value in (*args, *kwargs.values(), *outputs):
        dim = _dim_for(module, value) if isinstance(value, Tensor) else None
        if dim is not None:
            seen.append((inside, tuple(value.shape), dim))


def _dim_for(module: nn.Module, value: Tensor) -> int | None:
    """The dimension along which a layer that reads or writes the tensor has its channels."""
    if isinstance(module, _SECOND):
        several = getattr(module, "num_parameters", 2) > 1  # a PReLU of one has no channels
        return 1 if value.ndim > 1 and several else None
    if isinstance(module, nn.Linear | nn.MultiheadAttention):
        return value.ndim - 1
    if type(module).__name__ in _NORMS:  # subclasses of other names may norm another dimension
        sizes: Sequence[int] = getattr(module, "normalized_shape", ())
        return value.ndim - 1 if len(sizes) == 1 and tuple(sizes) == value.shape[-1:] else None
    return None


def _told(
    seen: list[tuple[bool, tuple[int, ...], int]], shape: tuple[int, ...], batch: int
) -> int | None:
    only = _only(len(shape), batch)
    if only is not None:
        return only
    for places in ((True,), (True, False)):
        dims = {dim for inside, other, dim in seen if inside in places and other == shape}
        if dims:
            return dims.pop() if len(dims) == 1 and dims != {batch} else None
    return None


def _only(dims: int, batch: int) -> int | None:
    others = [d for d in range(dims) if d != batch]
    return others[0] if len(others) == 1 else None
