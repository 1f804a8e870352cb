"""The merge points among which a sweep, or the choice of one, looks."""

from __future__ import annotations

import torch
from torch import nn

from siamcal.errors import ConfigError
from siamcal.graph import list_merge_points
from siamcal.graph.inputs import ExampleError
from siamcal.model.create import create_backbone
from siamcal.training.recipe import Recipe

__all__ = ["sweep_points"]


def sweep_points(recipe: Recipe, backbone: nn.Module | None = None) -> list[str]:
    """The merge points of a sweep: those the network names itself, else its stages and the output.

    iResNets name the paper's six in `siamcal_sweep`. Stages are the parts with parameters and parts
    of their own at the network's top level, or one level down where the top level holds fewer than
    three (`stages.0`, `blocks.3`); a network without any is swept over its single layers.

    Args:
        recipe: Names the backbone and the size of the images.
        backbone: The network itself, where it is made already.

    Raises:
        ConfigError: The network doesn't take images of that size.
    """
    if backbone is None:
        backbone = create_backbone(recipe.backbone, **recipe.backbone_options)
    named = getattr(backbone, "siamcal_sweep", None)
    if named is not None:
        return list(named)
    size = recipe.preprocessing.size
    device = next((p.device for p in backbone.parameters()), None)
    try:
        points = list_merge_points(backbone, torch.zeros(2, 3, size, size, device=device))
    except ExampleError as error:
        raise ConfigError(
            f"{recipe.backbone!r} can't read images of 3 x {size} x {size}; give its size by "
            "--set preprocessing.size=S."
        ) from error
    stages: list[str] = []
    layers: list[str] = []
    for point in points:
        if point.name == "output" or point.shape == (3, size, size):
            continue
        module = backbone.get_submodule(point.name)
        if next(module.parameters(), None) is not None:
            (layers if next(module.children(), None) is None else stages).append(point.name)
    top = [name for name in stages if "." not in name]
    deeper = [name for name in stages if name.count(".") == 1]
    found = top if len(top) >= 3 else deeper or top
    return [*(found or layers), "output"]
