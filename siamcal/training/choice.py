"""A recipe chosen by what a user names of it: data set, task, backbone, merge point, settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from siamcal.errors import ConfigError
from siamcal.model.places import points_of
from siamcal.registry import datasets, recipes
from siamcal.settings import override
from siamcal.training.recipe import Recipe, load_recipe

__all__ = ["SWEEPS", "choose_recipe"]

SWEEPS = ("all", "auto")  # in the place of a merge point: the network's own are looked through
# Crops of networks that were made for them: whole heads, and dlib's face chips.
OWN_CROPS = ("rigid_wide", "rigid_refined", "rigid_close")


def choose_recipe(
    *,
    recipe: str | None = None,
    dataset: str | None = None,
    task: str | None = None,
    backbone: str | None = None,
    merge_at: str | None = None,
    checkpoint: str | None = None,
    options: dict[str, Any] | None = None,
    settings: Sequence[str] = (),
) -> Recipe:
    """The recipe that the options name, with their changes applied.

    Without `recipe`, the data set's own is taken: `synth`, or `<dataset>_<task>` for the paper's;
    a data set that has none gets the settings of `manifest`.
    A backbone brings the input size, normalisation, merge point and start weights of its own
    recipe, if it has one. `merge_at` may be a sweep of several with commas, "all" or "auto": the
    methods of a comparison then name the points, and the recipe keeps its own, or takes one of them
    where it has none. Several at once are joined by "+". A `checkpoint` takes the place of start
    weights.
    """
    from siamcal.datasets.base import canonical_name

    chosen = load_recipe(recipe) if recipe else _recipe_of(dataset or "synth", task)
    if dataset:
        chosen = dataclasses.replace(chosen, dataset=canonical_name(dataset))
    if task and task != "both":
        chosen = dataclasses.replace(chosen, task=task)
    if backbone and backbone != chosen.backbone:
        chosen = with_backbone(chosen, backbone, merge_at)
    if merge_at and not _sweep(merge_at):
        # With the settings, not before them: several points go with some forms only.
        settings = [f"merge_at={','.join(_names(merge_at))}", *settings]
    if checkpoint:
        chosen = dataclasses.replace(chosen, weights="", checkpoint=checkpoint)
    given = {k: v for k, v in (options or {}).items() if v is not None}
    if given:
        merged = {**chosen.dataset_options, **given}
        chosen = dataclasses.replace(chosen, dataset_options=merged)
    return _with_first_point(override(chosen, settings))


def _recipe_of(dataset: str, task: str | None) -> Recipe:
    from siamcal.datasets.base import canonical_name

    name = canonical_name(dataset)
    key = name.replace("-", "_")
    task = "detection" if task == "detection" else "intensity"
    for own in (f"{key}_{task}", key):
        if own in recipes:
            return load_recipe(own)
    datasets.get(name)  # an unknown name fails here
    return dataclasses.replace(load_recipe("manifest"), name=key, dataset=name)


def with_backbone(recipe: Recipe, backbone: str, merge_at: str | None) -> Recipe:
    """The recipe with another backbone, and what that backbone's own recipe says of it.

    On rendered people the backbone's own recipe counts whole; on other data sets the cropping is
    the data set's, unless the backbone was made for another kind of crop.
    """
    for name in recipes.names():
        other = load_recipe(name)
        if backbone in (other.backbone, name) and other.backbone != recipe.backbone:
            return _with_recipe(recipe, other)
    from siamcal.graph.inputs import InputSpec, input_spec
    from siamcal.model.create import create_backbone

    spec = input_spec(create_backbone(backbone)) or InputSpec()  # an unknown name fails here
    if not merge_at:
        raise ConfigError(
            f"No recipe says where to merge {backbone!r}. Give --merge-at (auto: chosen); "
            f"`siamcal ls merge-points {backbone}` lists the legal points."
        )
    if recipe.dataset == "synth":
        recipe = _on_data(load_recipe("ir_tiny"), recipe)
    changed = dataclasses.replace(
        recipe,
        backbone=backbone,
        backbone_options={},
        weights="",
        preprocessing=dataclasses.replace(
            recipe.preprocessing,
            size=spec.shape[1],
            mean=_three(spec.mean),
            std=_three(spec.std),
        ),
    )
    return dataclasses.replace(changed, merge_at=_names(merge_at.partition(",")[0])[0])


def _sweep(merge_at: str) -> bool:
    return merge_at in SWEEPS or "," in merge_at


def _names(text: str) -> Sequence[str]:
    points = points_of(text)
    return (points,) if isinstance(points, str) else points


def _with_first_point(recipe: Recipe) -> Recipe:
    """A recipe that no point was named for takes the first of the network's own.

    This comes after the settings: the network may read another size than it says itself.
    """
    if recipe.merge_at not in SWEEPS:
        return recipe
    from siamcal.training.points import sweep_points

    return dataclasses.replace(recipe, merge_at=sweep_points(recipe)[0])


def _with_recipe(recipe: Recipe, other: Recipe) -> Recipe:
    """The recipe's data with the network of another."""
    if recipe.dataset == "synth":
        return _on_data(other, recipe)
    crop = other.preprocessing
    if crop.align not in OWN_CROPS:
        kept = recipe.preprocessing
        crop = dataclasses.replace(kept, size=crop.size, mean=crop.mean, std=crop.std)
    return dataclasses.replace(
        recipe,
        backbone=other.backbone,
        backbone_options=other.backbone_options,
        weights=other.weights,
        merge_at=other.merge_at,
        merge=other.merge,
        merge_options=other.merge_options,
        freeze_pre=other.freeze_pre,
        learning_rate=other.learning_rate,
        learning_rate_last=other.learning_rate_last,
        preprocessing=crop,
    )


def _on_data(network: Recipe, data: Recipe) -> Recipe:
    return dataclasses.replace(
        network,
        name=data.name,
        dataset=data.dataset,
        dataset_options=data.dataset_options,
        task=data.task,
    )


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue
