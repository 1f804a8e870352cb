"""Recipes for the embedded rendered people: the default comparison, and ir_tiny with its start."""

from __future__ import annotations

import dataclasses

from siamcal.preprocessing import Preprocessing
from siamcal.registry import recipes
from siamcal.training.recipe import Augmentation, Noise, Recipe, ReferenceNoise

FACE_WEIGHTS = "asset:face_trunk"
START_WEIGHTS = "asset:ir_tiny_start"


@recipes.register()
def synth() -> Recipe:
    """The default job: a frozen network that knows faces; all methods train a head on it."""
    return dataclasses.replace(
        ir_tiny(),
        name="synth",
        backbone="face_trunk",
        weights=FACE_WEIGHTS,
        merge_at="head",
        merge="concatenated",
        freeze_pre=2,
        # The landmark network's input: the whole head, colours as they are.
        preprocessing=Preprocessing(size=256, align="rigid_wide", contrast="none", mask="none"),
        augmentation=Augmentation(brightness=0.15, contrast=0.15),
        epochs=10,
        learning_rate=3e-3,
        learning_rate_last=3e-3,
        weight_decay=5e-2,
        note="The start knows real faces and no AU, as the paper's does. Form, merge point and "
        "steps: chosen on people of `ir_tiny_start`, never on the comparison's.",
    )


@recipes.register()
def ir_tiny() -> Recipe:
    """ir_tiny, trained whole from weights that read AUs already; the form is the paper's."""
    return Recipe(
        name="ir_tiny",
        dataset="synth",
        dataset_options={"size": "small", "bias": 1.0},
        backbone="ir_tiny",
        weights=START_WEIGHTS,
        merge_at="layer3",
        references_per="participant",
        participants_per_batch=8,
        preprocessing=Preprocessing(),
        augmentation=Augmentation(brightness=0.1, contrast=0.1),
        epochs=10,
        batch_size=64,
        learning_rate=1.5e-3,
        learning_rate_last=2e-3,
        weight_decay=1e-2,
        decoupled_decay=True,
        schedule="cosine",
        warmup_steps=20,
        deterministic=False,
        note="Ours: chosen on rendered people of `ir_tiny_start`, never on the comparison's.",
    )


@recipes.register()
def ir_tiny_start() -> Recipe:
    """Start weights of ir_tiny: NCG on rendered people who appear in no benchmark."""
    return dataclasses.replace(
        ir_tiny(),
        name="ir_tiny_start",
        dataset_options={"size": "training", "bias": 1.0, "occlusion": 0.15},
        weights="",
        epochs=9,
        learning_rate=3e-3,
        learning_rate_last=3e-3,
        warmup_steps=100,
        note="What glint360k's face recognition is to ir50. Trained without calibration (NCG), so "
        "whatever the start favours, it isn't calibration.",
    )


@recipes.register()
def calibrator() -> Recipe:
    """The calibrator inside the package: the landmark network, calibrated on varied people."""
    noise = {
        "probability": 0.35,
        "blur": 8.0,  # the outer eye corners are 85 pixels apart in the crop
        "gain": 0.35,
        "gradient": 0.35,
        "tint": 0.2,
        "gamma": 0.4,
        "noise": 14.0,
        "jpeg": 20,
        "rotation": 5.0,
        "scale": 0.08,
    }
    return dataclasses.replace(
        synth(),
        name="calibrator",
        dataset_options={"size": "training", "look": "varied", "participants": 1920},
        preprocessing=dataclasses.replace(synth().preprocessing, align="rigid_refined"),
        backbone="face_landmarks",
        backbone_options={"width": 128, "dropout": 0.25, "left_out": 0.1, "motions": True},
        weights="asset:face_landmarks",
        references_per="target",
        participants_per_batch=0,
        reference_dropout=0.1,
        target_noise=Noise(**noise),
        reference_noise=ReferenceNoise(**noise, active=0.1, active_sum=1.0),
        huber=1.0,
        zero_at_reference=True,
        soft_zero=0.1,
        loss_weights=(1.0, 0.0, 0.0),
        rescale_people=40,
        epochs=22,
        warmup_steps=200,
        note="Trained on rendered faces only; no claim of 0-5 intensities on real faces.",
    )
