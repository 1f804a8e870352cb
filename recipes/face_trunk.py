"""Recipes on the trunk of MediaPipe's landmark network, which knows faces and no action unit."""

from __future__ import annotations

import dataclasses

from siamcal.preprocessing import Preprocessing
from siamcal.registry import recipes
from siamcal.training.recipe import Augmentation, Recipe, load_recipe

WEIGHTS = "asset:face_trunk"
#: The landmark network's input: the whole head, colours as they are.
PREPROCESSING = Preprocessing(size=256, align="rigid_wide", contrast="none", mask="none")


@recipes.register()
def face_trunk() -> Recipe:
    """The frozen trunk and a head trained in a minute, on rendered people."""
    return dataclasses.replace(
        load_recipe("synth"),
        name="face_trunk",
        backbone="face_trunk",
        weights=WEIGHTS,
        merge_at="head",
        freeze_pre=4,
        preprocessing=PREPROCESSING,
        augmentation=Augmentation(brightness=0.15, contrast=0.15),
        epochs=20,
        learning_rate=3e-3,
        learning_rate_last=3e-3,
        weight_decay=5e-2,
        note="The start knows real faces and no AU, as the paper's does.",
    )
