"""Every model of timm: `timm:convnext_tiny`, `hf-hub:owner/repo`."""

from __future__ import annotations

import difflib
from typing import Any

from torch import nn

from siamcal.errors import DataNotFoundError, UnknownNameError
from siamcal.extras import needed_for
from siamcal.registry import backbones

from ._torchvision_operators import declare_operators

__all__ = ["create_timm", "load_timm"]


def load_timm() -> Any:
    """The timm package.

    Raises:
        MissingDependencyError: It isn't installed.
    """
    declare_operators()
    with needed_for("A network of timm"):
        import timm
    return timm


@backbones.register("timm:")
def create_timm(
    name: str, num_outputs: int | None = None, pretrained: bool = False, **options: Any
) -> nn.Module:
    """Models of timm: timm:NAME, with weights of ImageNet where asked for."""
    timm = load_timm()
    if num_outputs is not None:
        options["num_classes"] = num_outputs
    if name.split(".")[0] not in timm.list_models() and not name.startswith(("hf-hub:", "hf_hub:")):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(repr('timm:' + n) for n in near)}?" if near else ""
        raise UnknownNameError(
            f"timm {timm.__version__} has no model called {name!r}.{hint} "
            "timm.list_models() lists all."
        )
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except (OSError, ValueError) as error:  # all of the Hub's are one of these
        if isinstance(error, ValueError) and not name.startswith("hf-hub:"):
            raise
        cause = str(error).strip().splitlines()[0]
        if isinstance(error, FileNotFoundError):
            cause = "it isn't in the cache, and the hub can't be reached."
        raise DataNotFoundError(
            f"{name!r} can't be had from the Hugging Face hub: {cause} Check the name and the "
            "network."
        ) from error


@backbones.register("hf-hub:")
def create_from_hub(
    name: str, num_outputs: int | None = None, pretrained: bool = False, **options: Any
) -> nn.Module:
    """Networks in timm's format on the Hugging Face hub: hf-hub:OWNER/REPO.

    Without `pretrained=True` only the repository's config.json is read, and the weights are random.
    """
    return create_timm(f"hf-hub:{name}", num_outputs, pretrained, **options)
