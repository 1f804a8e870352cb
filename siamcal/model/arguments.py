"""What is passed to a calibrated network: checked, and lists joined, before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from siamcal.errors import ConfigError
from siamcal.graph.inputs import (
    ImageInputs,
    Inputs,
    as_call,
    batch_size_of,
    concatenate_inputs,
    described,
    example_inputs_for,
    image_places,
)
from siamcal.model.reference import Reference

__all__ = ["Arguments"]


class Arguments:
    """The form of a network's inputs.

    Args:
        network: The network.
        example: A valid input; None: an image of the size it was made for.
        images: Which inputs are images.
    """

    def __init__(self, network: nn.Module, example: Inputs | None, images: ImageInputs) -> None:
        example = example_inputs_for(network) if example is None else example
        leaves = pytree.tree_leaves(as_call(example))
        image = leaves[image_places(example, images)[0]]
        self._images = images
        self._dims = image.ndim
        self._wanted = described(example)
        self._one_image = len(leaves) == 1 and not isinstance(example, Mapping)
        self._arrays = any(isinstance(leaf, np.ndarray) for leaf in leaves)

    def count(self, inputs: Inputs) -> int:
        """Number of samples."""
        return batch_size_of(inputs, self._images)

    def joined(self, first: Inputs, second: Inputs, per_sample: tuple[bool, ...]) -> Inputs:
        """Both as one batch."""
        return concatenate_inputs(first, second, per_sample)

    def inputs(self, value: Any, role: str) -> Inputs:
        """Images, checked; a list of images as one batch.

        Args:
            value: What was passed.
            role: "target" or "reference", for messages.

        Raises:
            ConfigError: It can't be what the network takes.
        """
        if self._one_image and isinstance(value, list) and len(value) != 1:
            value = self._batch(value, role)
        if not isinstance(value, Tensor | Mapping | tuple | list):
            raise ConfigError(self._unlike(value, role))
        if not self._arrays and not isinstance(value, Tensor):
            for leaf in pytree.tree_leaves(as_call(value)):
                if isinstance(leaf, np.ndarray | Reference):
                    raise ConfigError(self._unlike(leaf, role))
        image = self._image(value)
        if image.ndim < self._dims:
            raise ConfigError(
                f"The {role} is {described(image)}, but the network was wrapped with "
                f"{self._wanted}: it takes batches of images. One image is image[None]."
            )
        return value

    def frames(self, value: Any) -> list[Inputs] | None:
        """A list of frames to be pooled, each as a batch; None where the value is no such list."""
        if not isinstance(value, list) or not value:
            return None
        if self._one_image and all(isinstance(v, Tensor) for v in value):
            self._batch(value, "reference")  # refuses images of several sizes
            return [v[None] if v.ndim == self._dims - 1 else v for v in value]
        if not self._one_image and all(isinstance(v, Mapping) for v in value):
            return value
        return None

    def reference(self, value: Any) -> Inputs | Reference:
        """A Reference or reference images; a list of either is joined."""
        if isinstance(value, Reference):
            return value
        if isinstance(value, list) and value and all(isinstance(v, Reference) for v in value):
            return Reference.cat(value)
        return self.inputs(value, "reference")

    def _image(self, inputs: Inputs) -> Tensor:
        if isinstance(inputs, Tensor):
            return inputs
        leaves = pytree.tree_leaves(as_call(inputs))
        return leaves[image_places(inputs, self._images)[0]]

    def _batch(self, values: list[Any], role: str) -> Tensor:
        """Images (C, H, W) or batches of them (B, C, H, W) as one batch."""
        if not values or not all(isinstance(v, Tensor) for v in values):
            raise ConfigError(self._unlike(values, role))
        dims = {v.ndim for v in values}
        sizes = sorted({tuple(v.shape[1 - self._dims :]) for v in values})
        if len(dims) > 1 or not dims <= {self._dims, self._dims - 1} or len(sizes) > 1:
            raise ConfigError(
                f"A list of images needs images of one size, but the {role} is {described(values)}."
            )
        return torch.stack(values) if dims == {self._dims - 1} else torch.cat(values)

    def _unlike(self, value: Any, role: str) -> str:
        also = ", or a Reference from model.encode(images)" if role == "reference" else ""
        text = f"The {role} is {described(value)}, but the network takes what it was wrapped with"
        text = f"{text} ({self._wanted}, with any number of rows){also}."
        if isinstance(value, np.ndarray):
            text += (
                " Convert the array: torch.from_numpy(array), floats in (B, C, H, W), normalised "
                "as the network expects."
            )
        if value is None and role == "reference":
            text += (
                " Without a reference frame use the plain network, model.unwrap(), or train a null "
                "reference: CalibratingSiamese(..., null_reference=True), Recipe.reference_dropout."
            )
        return text
