"""Recipes for the embedded rendered people: the default comparison and its start weights."""

from __future__ import annotations

import dataclasses

from siamcal.preprocessing import Preprocessing
from siamcal.recipe import Augmentation, Recipe
from siamcal.registry import recipes

START_WEIGHTS = "asset:ir_tiny_start"


@recipes.register()
def synth() -> Recipe:
    """The default job: ir_tiny on rendered people, NCG, BS and CSN from the same start."""
    return Recipe(
        name="synth",
        dataset="synth",
        dataset_options={"size": "small", "bias": 1.0},
        backbone="ir_tiny",
        weights=START_WEIGHTS,
        merge_at="layer3",
        references_per="participant",
        participants_per_batch=8,
        preprocessing=Preprocessing(),
        augmentation=Augmentation(crop_scale=(0.9, 1.0), brightness=0.1, contrast=0.1),
        epochs=8,
        batch_size=64,
        learning_rate=1e-3,
        learning_rate_last=2e-3,
        weight_decay=1e-2,
        decoupled_decay=True,
        schedule="cosine",
        warmup_steps=20,
        deterministic=False,
        note="Ours: chosen on the people of `ir_tiny_start`, never on those of the comparison.",
    )


@recipes.register()
def ir_tiny_start() -> Recipe:
    """Start weights of ir_tiny: NCG on rendered people who appear in no benchmark."""
    return dataclasses.replace(
        synth(),
        name="ir_tiny_start",
        dataset_options={"size": "start", "bias": 1.0},
        weights="",
        epochs=30,
        learning_rate=3e-3,
        learning_rate_last=3e-3,
        warmup_steps=100,
        note="What glint360k's face recognition is to ir50. Trained without calibration (NCG), so "
        "whatever the start favours, it isn't calibration.",
    )
