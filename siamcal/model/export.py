"""Two modules for torch.export and ONNX: one encodes a reference, one reads targets against it.

Both take and return plain tensors, so an application encodes a person once and keeps the features:

    program = torch.onnx.export(Encoder(model), (neutral,), "encode.onnx", dynamo=True)
    program = torch.onnx.export(Reader(model), (targets, *features), "read.onnx", dynamo=True)
    program = torch.onnx.export(Reader(model), (targets,), "without.onnx", dynamo=True)

The last reads people who have no reference, for a model with a null reference.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from siamcal.errors import ConfigError
from siamcal.graph.inputs import Inputs
from siamcal.model.reference import Reference
from siamcal.model.siamese import CalibratingSiamese

__all__ = ["Encoder", "Reader"]


class Encoder(nn.Module):
    """Reference images (R, C, H, W) -> their features, a tuple of tensors.

    Args:
        model: The calibrated network, in eval mode.
    """

    def __init__(self, model: CalibratingSiamese) -> None:
        super().__init__()
        self.model = _exportable(model)

    def forward(self, image: Inputs) -> tuple[Tensor, ...]:
        """The features of `model.encode(image)`."""
        return self.model.encode(image).tensors


class Reader(nn.Module):
    """Target images (B, C, H, W) and the features of one reference -> the model's output.

    Args:
        model: The calibrated network, in eval mode.
        one_for_all: The features are those of one reference, for all targets; False: those of as
            many references as targets. An exported program can't decide this by itself.
        frames: Number of frames that each reference was pooled of, which an estimated shrinkage
            depends on; the features don't tell.

    Raises:
        ConfigError: No model in eval mode, or `frames` is no number of frames.
    """

    def __init__(
        self, model: CalibratingSiamese, *, one_for_all: bool = True, frames: int = 1
    ) -> None:
        super().__init__()
        self.model = _exportable(model)
        self.one_for_all = one_for_all
        if type(frames) is not int or frames < 1:
            raise ConfigError(f"frames takes a whole number from 1 on, but got {frames!r}.")
        self.frames = frames

    def forward(self, target: Inputs, *features: Tensor) -> Any:
        """The output of `model(target, reference)`; without features that of the null reference."""
        model = self.model
        if not features:
            return model(target, None)
        layouts, place = model.split.layouts, model.place
        reference = Reference(features, layouts, place)
        if self.frames > 1:
            reference = Reference(features, layouts, place, frames=self.frames * reference.frames)
        if self.one_for_all:
            zero = torch.zeros(model.count(target), dtype=torch.long, device=reference.device)
            reference = reference.index_select(zero)
        return model(target, reference)


def _exportable(model: CalibratingSiamese) -> CalibratingSiamese:
    if not isinstance(model, CalibratingSiamese):
        raise ConfigError(
            f"Only a CalibratingSiamese is exported in two parts, but got a "
            f"{type(model).__name__}; unwrap it first."
        )
    if any(module.training for module in model.modules()):
        raise ConfigError("The model is in training mode; export it after model.eval().")
    return model
