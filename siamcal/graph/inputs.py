"""What goes into a network and what comes out: example inputs, flattening, choosing the output.

A network takes one image tensor, a tuple of positional arguments or a dict of keyword arguments;
this module turns all three into one flat list of tensors and back.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from siamcal.errors import ConfigError, MergePointError

__all__ = [
    "ExampleError",
    "ImageInputs",
    "InputSignature",
    "InputSpec",
    "Inputs",
    "OutputSelector",
    "described",
    "example_inputs_for",
    "input_spec",
    "probes",
    "select_output",
    "tensors_in",
]

Inputs: TypeAlias = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]
OutputSelector: TypeAlias = str | int | Callable[[Any], Any] | None
# Which inputs are images: names of keywords or positions; None is the first tensor.
ImageInputs: TypeAlias = str | int | Sequence[str | int] | None

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
    return torch.rand((batch, *shape), generator=_generator(0), device="cpu")


def _generator(seed: int) -> torch.Generator:
    """Draws are made on the CPU and moved, whatever the default device is."""
    return torch.Generator("cpu").manual_seed(seed)


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


def image_places(inputs: Inputs, images: ImageInputs = None) -> tuple[int, ...]:
    """Positions of the images among the leaves of `as_call(inputs)`.

    Args:
        inputs: The network's inputs.
        images: Names of keywords or positions of arguments; every tensor in one so named is an
            image. None is the first tensor.

    Raises:
        ConfigError: No tensor is there.
    """
    args, kwargs = as_call(inputs)
    leaves = pytree.tree_leaves((args, kwargs))
    if images is None:
        found = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)][:1]
    else:
        wanted = {images} if isinstance(images, str | int) else set(images)
        known = {*range(len(args)), *kwargs}
        if not wanted <= known:
            raise ConfigError(
                f"image_inputs names {sorted(map(repr, wanted - known))}, but the network's inputs "
                f"are {', '.join(repr(k) for k in known)}."
            )
        chosen = (
            tuple(pytree.tree_map(lambda _, i=i: i in wanted, a) for i, a in enumerate(args)),
            {k: pytree.tree_map(lambda _, k=k: k in wanted, v) for k, v in kwargs.items()},
        )
        marks = pytree.tree_leaves(chosen)
        found = [
            i for i, (m, v) in enumerate(zip(marks, leaves, strict=True)) if m and _is_image(v)
        ]
    if not found:
        raise ConfigError("The network's inputs hold no image tensor; pass at least the images.")
    return tuple(found)


def _is_image(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.ndim > 0


def batch_size_of(inputs: Inputs, images: ImageInputs = None) -> int:
    """Length of the first dimension of the (first) image."""
    if isinstance(inputs, Tensor):
        return inputs.shape[0]
    leaves = pytree.tree_leaves(as_call(inputs))
    return leaves[image_places(inputs, images)[0]].shape[0]


def concatenate_inputs(first: Inputs, second: Inputs, per_sample: Sequence[bool]) -> Inputs:
    """Two inputs of equal structure as one batch; the first one's values come first.

    Args:
        first: Inputs of B samples.
        second: Inputs of others.
        per_sample: For each leaf of `as_call(inputs)`: whether it holds a row for each sample.
    """
    leaves, spec = pytree.tree_flatten(first)
    others, other_spec = pytree.tree_flatten(second)
    if spec != other_spec:
        raise ConfigError(
            f"Both branches run as one batch and need inputs of one structure, but the targets are "
            f"{described(first)} and the references {described(second)}."
        )
    joined = [
        torch.cat([a, b]) if own else a
        for a, b, own in zip(leaves, others, per_sample, strict=True)
    ]
    return pytree.tree_unflatten(joined, spec)


def described(inputs: Any) -> str:
    """Inputs in words: kinds, counts and sizes."""
    if isinstance(inputs, Tensor):
        return f"a tensor {'x'.join(map(str, inputs.shape)) or 'without dimensions'}"
    if isinstance(inputs, Mapping):
        parts = [f"{k!r}: {described(v)}" for k, v in inputs.items()]
        return f"a dict of {len(parts)} ({', '.join(parts)})"
    if isinstance(inputs, list | tuple):
        parts = [described(v) for v in inputs[:6]] + ["..."] * (len(inputs) > 6)
        return f"a {type(inputs).__name__} of {len(inputs)} ({', '.join(parts)})"
    shape = getattr(inputs, "shape", None)
    name = f"a {type(inputs).__name__}" if inputs is not None else "None"
    return f"{name} of shape {tuple(shape)}" if isinstance(shape, tuple) else name


class InputSignature:
    """Structure of a network's inputs: which leaves are tensors, and the values of all others.

    Args:
        inputs: One valid set of inputs.
        images: Which of them are images.

    Attributes:
        images: For each tensor: whether it is an image.
        described: The inputs in words.
    """

    def __init__(self, inputs: Inputs, images: ImageInputs = None) -> None:
        leaves, self.spec = pytree.tree_flatten(as_call(inputs))
        places = image_places(inputs, images)
        self.is_tensor = tuple(isinstance(leaf, Tensor) for leaf in leaves)
        self.constants = tuple(None if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        self.images = tuple(i in places for i, is_tensor in enumerate(self.is_tensor) if is_tensor)
        self.described = described(inputs)
        self._plain = isinstance(inputs, Tensor) or (
            isinstance(inputs, tuple | list) and len(inputs) == 1 and isinstance(inputs[0], Tensor)
        )

    @property
    def num_tensors(self) -> int:
        """Number of tensors among the inputs."""
        return len(self.images)

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
                f"The network was wrapped with {self.described}, but is given "
                f"{described(inputs)}. Pass that, or wrap it with example_inputs of this structure."
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


@dataclass(frozen=True)
class Probe:
    """Random inputs like the example's, to learn from.

    Attributes:
        large: Two units of different samples.
        other: The same with other images; all other inputs are those of `large`.
        small: The second unit of `large`; None where the network takes the example's batch only.
        unit: Number of samples in a unit.
        per_sample: For each leaf of the inputs: whether it holds a row for each sample.
    """

    large: Inputs
    other: Inputs
    small: Inputs | None
    unit: int
    per_sample: tuple[bool, ...]


def probes(
    inputs: Inputs, images: ImageInputs, device: torch.device, dtype: torch.dtype
) -> Iterator[Probe]:
    """Probes in the order in which they are worth trying.

    Images are drawn in the example's range. Other inputs keep the example's values; those with a
    row for each sample are resized with the batch, and since that is told from the length of their
    first dimension alone, a probe that leaves them follows. A network whose batches have their own
    rule (clips of segments, a fixed size) is probed at the example's own batch.
    """
    args, kwargs = as_call(inputs)
    leaves, spec = pytree.tree_flatten((args, kwargs))
    places = image_places(inputs, images)
    batch = leaves[places[0]].shape[0]
    rows = [isinstance(v, Tensor) and v.ndim > 0 and v.shape[0] == batch for v in leaves]
    image_only = [i in places for i in range(len(leaves))]
    plain = isinstance(inputs, Tensor)
    for unit, units in dict.fromkeys(((1, 2), (batch, 2), (batch, 1))):
        for per_sample in dict.fromkeys((tuple(rows), tuple(image_only))):
            yield _probe(leaves, spec, places, per_sample, unit, units, device, dtype, plain)


def _probe(
    leaves: list[Any],
    spec: Any,
    places: tuple[int, ...],
    per_sample: tuple[bool, ...],
    unit: int,
    units: int,
    device: torch.device,
    dtype: torch.dtype,
    plain: bool,
) -> Probe:
    generator = _generator(20240900240 % 2**31)
    count = unit * units

    def draw(leaf: Tensor) -> Tensor:
        low, high = (0.0, 1.0) if leaf.is_meta else (float(leaf.min()), float(leaf.max()))
        if not low < high:
            low, high = 0.0, 1.0
        sample = torch.rand((count, *leaf.shape[1:]), generator=generator, device="cpu")
        sample = sample * (high - low) + low
        return sample.to(device, dtype if leaf.is_floating_point() else leaf.dtype)

    def place(leaf: Any, resized: bool) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if resized:
            leaf = leaf[torch.arange(count, device=leaf.device) % leaf.shape[0]]
        return leaf.to(device, dtype) if leaf.is_floating_point() else leaf.to(device)

    def build(values: list[Any]) -> Inputs:
        if plain:
            return values[0]
        args, kwargs = pytree.tree_unflatten(values, spec)
        return kwargs or args

    large = [place(v, r) for v, r in zip(leaves, per_sample, strict=True)]
    other = list(large)
    for i in places:
        large[i], other[i] = draw(leaves[i]), draw(leaves[i])
    small = [v[unit:] if r else v for v, r in zip(large, per_sample, strict=True)]
    return Probe(build(large), build(other), build(small) if units > 1 else None, unit, per_sample)


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


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors of an output, those inside dataclasses and plain objects too."""
    found: list[Tensor] = []
    for leaf in pytree.tree_leaves(value):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif dataclasses.is_dataclass(leaf) or isinstance(leaf, types.SimpleNamespace):
            found += tensors_in(list(vars(leaf).values()))
    return found


def run_network(backbone: nn.Module, inputs: Inputs, selector: OutputSelector) -> Any:
    """The plain network's (selected) output."""
    args, kwargs = as_call(inputs)
    return select_output(backbone(*args, **kwargs), selector)


def fresh(inputs: Inputs) -> Inputs:
    """Copies, for networks that write into their input."""

    def copy(leaf: Any) -> Any:
        return leaf.clone() if isinstance(leaf, Tensor) else leaf

    if isinstance(inputs, Tensor):
        return copy(inputs)
    args, kwargs = as_call(inputs)
    return pytree.tree_map(copy, kwargs or args)


class ExampleError(MergePointError):
    """The network can't run on the example inputs, whatever the place."""


def failure_of_example(
    backbone: nn.Module, inputs: Inputs, error: Exception | None
) -> ExampleError:
    """The error for a network that can't run on the example inputs."""
    shapes = [tuple(t.shape) for t in pytree.tree_leaves(as_call(inputs)) if isinstance(t, Tensor)]
    cure = "an input (a tensor, a tuple or a dict of keywords) it takes"
    if any(isinstance(m, nn.Conv3d) for m in backbone.modules()):
        cure += "; for videos, for example torch.rand(2, 3, 16, 112, 112)"
    return ExampleError(
        f"{type(backbone).__name__} can't run on inputs of shape {shapes}: {error}. Pass "
        f"example_inputs=..., {cure}."
    )
