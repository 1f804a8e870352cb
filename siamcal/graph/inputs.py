"""What goes into a network and what comes out: example inputs, flattening, choosing the output.

A network takes one image tensor, a tuple of positional arguments or a dict of keyword arguments;
this module turns all three into one flat list of tensors and back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from siamcal.errors import ConfigError, MergePointError

__all__ = [
    "InputSignature",
    "InputSpec",
    "Inputs",
    "OutputSelector",
    "example_inputs_for",
    "input_spec",
    "probe_inputs",
    "select_output",
]

Inputs: TypeAlias = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]
OutputSelector: TypeAlias = str | int | Callable[[Any], Any] | None

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class InputSpec:
    """Shape and normalisation of a backbone's input image.

    Attributes:
        shape: (channels, height, width).
        mean: Subtracted per channel from values in [0, 1].
        std: Divides afterwards, per channel.
    """

    shape: tuple[int, int, int] = (3, 224, 224)
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)


def input_spec(backbone: nn.Module) -> InputSpec | None:
    """Input size and normalisation as the backbone itself states them, or None.

    Looked for, in this order: `siamcal_input` (backbones made by siamcal), timm's `pretrained_cfg`
    and the `config` of Hugging Face models.
    """
    own = getattr(backbone, "siamcal_input", None)
    if isinstance(own, InputSpec):
        return own
    timm = getattr(backbone, "pretrained_cfg", None) or getattr(backbone, "default_cfg", None)
    if isinstance(timm, Mapping) and timm.get("input_size"):
        channels, height, width = timm["input_size"]
        actual = _actual_size(backbone)
        mean, std = timm.get("mean", IMAGENET_MEAN), timm.get("std", IMAGENET_STD)
        return InputSpec((channels, *(actual or (height, width))), tuple(mean), tuple(std))
    config = getattr(backbone, "config", None)
    size = getattr(config, "image_size", None)
    if size:
        height, width = (size, size) if isinstance(size, int) else tuple(size)
        channels = getattr(config, "num_channels", 3)
        return InputSpec((channels, height, width), IMAGENET_MEAN, IMAGENET_STD)
    return None


def _actual_size(backbone: nn.Module) -> tuple[int, int] | None:
    """The size a timm network was built for, where it differs from its configuration's."""
    size = getattr(getattr(backbone, "patch_embed", None), "img_size", None)
    if isinstance(size, tuple | list) and len(size) == 2 and all(isinstance(s, int) for s in size):
        return int(size[0]), int(size[1])
    return None


def example_inputs_for(backbone: nn.Module, batch: int = 2) -> Tensor:
    """A random image batch (batch, C, H, W) of the size the backbone was made for.

    A network that doesn't state its input size gets 224 x 224 pixels and as many channels as its
    first convolution reads.
    """
    spec = input_spec(backbone)
    shape = spec.shape if spec else (_first_channels(backbone), 224, 224)
    return torch.rand((batch, *shape), generator=torch.Generator().manual_seed(0))


def _first_channels(backbone: nn.Module) -> int:
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    return 3


def place_of(backbone: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and floating dtype of the backbone's parameters."""
    for parameter in backbone.parameters():
        if parameter.is_floating_point():
            return parameter.device, parameter.dtype
    return torch.device("cpu"), torch.get_default_dtype()


def as_call(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Inputs -> (positional arguments, keyword arguments)."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, tuple | list):
        return tuple(inputs), {}
    return (inputs,), {}


def batch_size_of(inputs: Inputs) -> int:
    """Length of the first dimension of the first tensor among the inputs."""
    if isinstance(inputs, Tensor):
        return inputs.shape[0]
    for leaf in pytree.tree_leaves(as_call(inputs)):
        if isinstance(leaf, Tensor) and leaf.ndim:
            return leaf.shape[0]
    raise ConfigError("The network's inputs hold no tensor; pass at least the image batch.")


def concatenate_inputs(first: Inputs, second: Inputs) -> Inputs:
    """Two inputs of equal structure as one batch; the first one's values come first."""
    batch = batch_size_of(first)

    def join(a: Any, b: Any) -> Any:
        if isinstance(a, Tensor) and a.ndim and a.shape[0] == batch:
            return torch.cat([a, b])
        return a

    return pytree.tree_map(join, first, second)


class InputSignature:
    """Structure of a network's inputs: which leaves are tensors, and the values of all others.

    Args:
        inputs: One valid set of inputs.
    """

    def __init__(self, inputs: Inputs) -> None:
        leaves, self.spec = pytree.tree_flatten(as_call(inputs))
        self.is_tensor = tuple(isinstance(leaf, Tensor) for leaf in leaves)
        self.constants = tuple(None if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        self.num_tensors = sum(self.is_tensor)
        if self.num_tensors == 0:
            raise ConfigError("example_inputs hold no tensor; pass at least an image batch.")
        self._plain = isinstance(inputs, Tensor) or (
            isinstance(inputs, tuple | list) and len(inputs) == 1 and isinstance(inputs[0], Tensor)
        )

    def __getstate__(self) -> dict[str, Any]:
        # The tree's specification isn't made for pickling; the tree itself is.
        return {**self.__dict__, "spec": pytree.tree_unflatten(self.constants, self.spec)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.spec = pytree.tree_structure(state["spec"], is_leaf=lambda v: v is None)

    def flatten(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """The tensors among the inputs, in order.

        Raises:
            ConfigError: The structure differs from the one the network was cut with.
        """
        if self._plain and isinstance(inputs, Tensor):
            return (inputs,)
        leaves, spec = pytree.tree_flatten(as_call(inputs))
        if spec != self.spec:
            raise ConfigError(
                f"The inputs have the structure {spec}, but the network was cut with {self.spec}; "
                "pass example_inputs of the structure that will be used."
            )
        for leaf, constant, is_tensor in zip(leaves, self.constants, self.is_tensor, strict=True):
            if is_tensor != isinstance(leaf, Tensor) or not (is_tensor or leaf == constant):
                raise ConfigError(
                    f"The network was cut with the input value {constant!r} and can't take "
                    f"{leaf!r}; wrap it with example_inputs that hold this value."
                )
        return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))

    def unflatten(self, tensors: tuple[Any, ...] | list[Any]) -> tuple[tuple[Any, ...], dict]:
        """Tensors (or their stand-ins) -> (positional arguments, keyword arguments)."""
        tensors = list(tensors)
        leaves = [
            tensors.pop(0) if is_tensor else constant
            for is_tensor, constant in zip(self.is_tensor, self.constants, strict=True)
        ]
        return pytree.tree_unflatten(leaves, self.spec)


def probe_inputs(inputs: Inputs, batch: int, device: torch.device, dtype: torch.dtype) -> Inputs:
    """Random inputs like the example's, with another batch size and different samples.

    Floating tensors are drawn in the example's range; the rows of integer and boolean tensors are
    repeated, because their values may be indices.
    """
    reference_batch = batch_size_of(inputs)
    generator = torch.Generator().manual_seed(20240900240 % 2**31)

    def probe(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if leaf.ndim == 0 or leaf.shape[0] != reference_batch:
            return leaf.to(device, dtype) if leaf.is_floating_point() else leaf.to(device)
        if not leaf.is_floating_point():
            return leaf[torch.arange(batch, device=leaf.device) % reference_batch].to(device)
        sample = torch.rand((batch, *leaf.shape[1:]), generator=generator)
        low, high = float(leaf.min()), float(leaf.max())
        if not low < high:
            low, high = 0.0, 1.0
        return (sample * (high - low) + low).to(device, dtype)

    if isinstance(inputs, Tensor):
        return probe(inputs)
    return pytree.tree_map(probe, inputs)


def select_output(output: Any, selector: OutputSelector) -> Any:
    """The part of a network's output that is meant.

    Without a selector, a Hugging Face output that has `logits` gives these, other outputs stay
    whole (tuples and dicts of tensors are differenced and compared tensor by tensor).

    Raises:
        ConfigError: The output has no such part.
    """
    if callable(selector):
        return selector(output)
    if selector is None:
        if hasattr(output, "to_tuple") and isinstance(output, Mapping):
            return output["logits"] if "logits" in output else dict(output)
        return output
    try:
        if isinstance(selector, str) and not isinstance(output, Mapping):
            return getattr(output, selector)
        return output[selector]
    except (KeyError, IndexError, TypeError, AttributeError):
        keys = sorted(output) if isinstance(output, Mapping) else type(output).__name__
        raise ConfigError(
            f"output={selector!r} isn't a part of the network's output; it has: {keys}."
        ) from None


def run_network(backbone: nn.Module, inputs: Inputs, selector: OutputSelector) -> Any:
    """The plain network's (selected) output."""
    args, kwargs = as_call(inputs)
    return select_output(backbone(*args, **kwargs), selector)


def failure_of_example(backbone: nn.Module, inputs: Inputs, error: Exception) -> MergePointError:
    """The error for a network that can't run on the example inputs."""
    shapes = [tuple(t.shape) for t in pytree.tree_leaves(as_call(inputs)) if isinstance(t, Tensor)]
    return MergePointError(
        f"{type(backbone).__name__} can't run on inputs of shape {shapes}: {error}. Pass "
        "example_inputs=..., an input (a tensor, a tuple or a dict of keywords) it takes."
    )
