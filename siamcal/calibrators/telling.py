"""What a saved calibrator says of its input and outputs: asked of the network, or of its author."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from siamcal.errors import ConfigError
from siamcal.graph import input_spec
from siamcal.graph.state import in_mode
from siamcal.model.siamese import CalibratingSiamese
from siamcal.preprocessing import Preprocessing

__all__ = ["check_input_and_outputs", "preprocessing_of"]

logger = logging.getLogger(__name__)

# Tasks whose calibrators `siamcal predict` reads frames with.
READ = ("intensity", "detection")


def preprocessing_of(model: CalibratingSiamese, task: str) -> Preprocessing:
    """Size and normalisation of the network's input, as it states them itself.

    Args:
        model: The calibrator.
        task: Of its config. Without one that `siamcal predict` reads, a network that states
            nothing gets the size of the image it was wrapped with, and a warning.

    Raises:
        ConfigError: The network states nothing, or images that aren't square and RGB.
    """
    stated = input_spec(model.unwrap())
    ask = (
        "Pass preprocessing=Preprocessing(size=..., mean=..., std=...) (siamcal.preprocessing): "
        "what the network was trained on, mean and deviation of RGB in [0, 1]."
    )
    if stated is not None:
        channels, height, width = stated.shape
        if channels == 3 and height == width and len(stated.mean) == len(stated.std) == 3:
            mean, std = tuple(map(float, stated.mean)), tuple(map(float, stated.std))
            return Preprocessing(size=height, mean=mean, std=std)  # type: ignore[arg-type]
        problem = f"{_name(model)} reads {stated.shape}, which is no square image of three colours"
    else:
        problem = f"{_name(model)} doesn't say what size and normalisation it reads"
    if task in READ:
        raise ConfigError(f"{problem}. {ask}")
    logger.warning("%s; the config says mean 0 and deviation 1. %s", problem, ask)
    shape = _image_shape(model)
    size = shape[1] if shape is not None and shape[1] == shape[2] else Preprocessing().size
    return Preprocessing(size=size)


def check_input_and_outputs(
    model: CalibratingSiamese, task: str, aus: tuple[int, ...], preprocessing: Preprocessing
) -> None:
    """Refuse a size that the network can't read, and AUs that aren't as many as its outputs.

    One image is read where either is in question.

    Raises:
        ConfigError: Either; the message says what the network gives.
    """
    shape = _image_shape(model)
    one_size = shape is None or shape[0] != 3 or shape[1:] == (preprocessing.size,) * 2
    unknown_outputs = bool(aus) and task not in READ
    if one_size and not unknown_outputs:
        return
    inputs: Any = model.origin.inputs()
    if not one_size:
        side = preprocessing.size
        inputs = inputs.new_zeros((len(inputs), 3, side, side))
    try:
        with in_mode(model, False), torch.no_grad():
            output: Any = model(inputs, inputs)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        if one_size:  # its own example; whatever is wrong shows where it is saved or used
            return
        raise ConfigError(
            f"preprocessing has size={preprocessing.size}, but {_name(model)} can't read images of "
            f"3 x {preprocessing.size} x {preprocessing.size} ({str(error)[:200]}); it was wrapped "
            f"with {shape}."
        ) from None
    output = getattr(output, "intensity", output)
    if not unknown_outputs or not isinstance(output, Tensor) or output.ndim != 2:
        return
    width = output.shape[1]
    # One value an AU, or the six of siamcal's intensity head, whose caller reads them himself.
    if width not in (len(aus), 6 * len(aus)):
        raise ConfigError(
            f"aus names {len(aus)} AUs, {aus}, but the model gives {width} outputs; name the AU of "
            "each output, in their order."
        )


def _image_shape(model: CalibratingSiamese) -> tuple[int, int, int] | None:
    """(C, H, W) of the one image that a model takes."""
    inputs = model.origin.inputs()
    if not isinstance(inputs, Tensor) or inputs.ndim != 4:
        return None
    channels, height, width = inputs.shape[1:]
    return channels, height, width


def _name(model: CalibratingSiamese) -> str:
    return type(model.unwrap()).__name__
