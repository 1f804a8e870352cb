"""Image classifiers of Hugging Face transformers: `transformers:google/vit-base-patch16-224`."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from siamcal.errors import DataNotFoundError, UnknownNameError
from siamcal.extras import needed_for
from siamcal.registry import backbones

from ._torchvision_operators import declare_operators

__all__ = ["create_transformers", "logits_only"]


def logits_only(module: nn.Module, inputs: Any, output: Any) -> Tensor:
    """Forward hook that makes a transformers classifier return its logits (B, num_labels)."""
    return output.logits


@backbones.register("transformers:")
def create_transformers(
    name: str, num_outputs: int | None = None, pretrained: bool = False, **options: Any
) -> nn.Module:
    """Image classifiers of transformers: transformers:OWNER/REPO, :FOLDER or :MODEL_TYPE.

    A model type ("vit", "swin", "convnext") needs no download: it takes the type's default
    configuration with `options` over it. The network returns its logits as a tensor.
    """
    declare_operators()  # transformers imports torchvision where it is installed
    with needed_for("A network of transformers"):
        import transformers
    if num_outputs is not None:
        options["num_labels"] = num_outputs
    if pretrained:
        network = _loaded(transformers, name, options)
    else:
        config = _configuration(transformers, name, options)
        network = transformers.AutoModelForImageClassification.from_config(config)
    network.register_forward_hook(logits_only)
    return network


def _configuration(transformers: Any, name: str, options: dict[str, Any]) -> Any:
    types = _image_types(transformers)
    if name in types:
        return transformers.AutoConfig.for_model(name, **options)
    if "/" not in name and not Path(name).exists():
        near = difflib.get_close_matches(name, types, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(repr('transformers:' + n) for n in near)}?"
        raise UnknownNameError(
            f"transformers has no image classifier of the type {name!r}.{hint if near else ''} "
            "Give OWNER/REPO, a folder, or a type such as 'vit'."
        )
    try:
        return transformers.AutoConfig.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        raise _unreachable(name, error) from error


def _loaded(transformers: Any, name: str, options: dict[str, Any]) -> nn.Module:
    try:
        return transformers.AutoModelForImageClassification.from_pretrained(
            name, ignore_mismatched_sizes=True, **options
        )
    except (OSError, ValueError) as error:
        raise _unreachable(name, error) from error


def _image_types(transformers: Any) -> list[str]:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    )

    return sorted(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES)


def _unreachable(name: str, error: Exception) -> DataNotFoundError:
    return DataNotFoundError(
        f"The model {name!r} can't be read from the Hugging Face hub, its cache or a folder: "
        f"{str(error).splitlines()[0]} Check the name and the network, or give a local folder."
    )
