"""Every classification network of torchvision: `torchvision:resnet50`."""

from __future__ import annotations

import difflib
from typing import Any

import torch
from torch import nn

from siamcal.errors import MissingDependencyError, UnknownNameError
from siamcal.extras import needed_for
from siamcal.graph.inputs import InputSpec
from siamcal.registry import backbones

from ._torchvision_operators import declare_operators

__all__ = ["create_torchvision"]


def _models() -> Any:
    try:
        declare_operators()
        with needed_for("A network of torchvision"):
            from torchvision import models
    except RuntimeError as error:  # its compiled part was made for another torch
        raise MissingDependencyError(
            f"torchvision and torch {torch.__version__} don't fit each other ({error}). Install "
            "both together: pip install --force-reinstall torch torchvision"
        ) from error
    return models


@backbones.register("torchvision:")
def create_torchvision(
    name: str, num_outputs: int | None = None, pretrained: bool = False, **options: Any
) -> nn.Module:
    """Classification networks of torchvision: torchvision:NAME."""
    models = _models()
    names = models.list_models(module=models)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(repr('torchvision:' + n) for n in near)}?"
        raise UnknownNameError(
            f"torchvision has no classification network called {name!r}.{hint if near else ''} "
            f"It has: {', '.join(names)}."
        )
    if name in ("googlenet", "inception_v3"):  # else they warn about their start weights
        options.setdefault("init_weights", True)
        options.setdefault("aux_logits", False)
    classes = {} if num_outputs is None else {"num_classes": num_outputs}
    network = models.get_model(name, weights=None, **classes, **options)
    weights = models.get_model_weights(name).DEFAULT
    if pretrained:
        _take_over(network, weights.get_state_dict(progress=False, check_hash=True))
    preset = weights.transforms()
    side = preset.crop_size[0]
    network.siamcal_input = InputSpec((3, side, side), tuple(preset.mean), tuple(preset.std))
    return network


def _take_over(network: nn.Module, state: dict[str, Any]) -> None:
    """Load all weights that fit; the classifier doesn't where the number of outputs differs."""
    own = network.state_dict()
    fitting = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    network.load_state_dict(fitting, strict=False)
