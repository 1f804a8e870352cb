"""Recipes per backbone: input size, normalisation, and where to merge and why.

Each is the embedded comparison with another network: `siamcal bench --recipe convnext_tiny`. The
paper found the entrance of the last stage best for IR50 (Table 6, Stage4: ICC .67 against .61 to
.66 before it and .55 behind it); where a network has stages, that is the choice here too, until
`siamcal bench --merge-at all` says otherwise. `siamcal ls merge-points NAME` lists the places.

timm's means and deviations are those of its `pretrained_cfg` (timm 1.0.31), so that ImageNet
weights (`--set weights=pretrained`) see the inputs they were trained with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from siamcal.preprocessing import Preprocessing
from siamcal.registry import recipes
from siamcal.training.recipe import Recipe, load_recipe

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
NONE = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def _recipe(
    name: str,
    backbone: str,
    merge_at: str,
    size: int,
    normalisation: tuple[tuple[float, float, float], tuple[float, float, float]],
    reason: str,
    options: Mapping[str, Any] | None = None,
) -> Recipe:
    """The embedded comparison with another network, from random start weights."""
    base = load_recipe("ir_tiny")
    mean, std = normalisation
    return dataclasses.replace(
        base,
        name=name,
        backbone=backbone,
        backbone_options=dict(options or {}),
        weights="",
        merge_at=merge_at,
        preprocessing=dataclasses.replace(base.preprocessing, size=size, mean=mean, std=std),
        learning_rate=1e-3,
        note=reason,
    )


@recipes.register()
def ir18() -> Recipe:
    """IResNet-18, 112 px, no normalisation, at layer4."""
    return _recipe("ir18", "ir18", "layer4", 112, NONE, "As the paper's IR50: Stage4 of Table 6.")


@recipes.register()
def ir50() -> Recipe:
    """IResNet-50, the paper's backbone, 112 px, no normalisation, at layer4."""
    return _recipe("ir50", "ir50", "layer4", 112, NONE, "Stage4 of Table 6 is the paper's best.")


@recipes.register()
def resnet50() -> Recipe:
    """ResNet-50 of timm, 224 px, at layer4: its last stage, as in the paper."""
    return _recipe(
        "resnet50",
        "timm:resnet50",
        "layer4",
        224,
        IMAGENET,
        "The entrance of the last stage: 1024 channels at a 16th of the resolution.",
    )


@recipes.register()
def convnext_tiny() -> Recipe:
    """ConvNeXt-T of timm, 224 px, at stages.3: the last stage, its downsampling included."""
    return _recipe(
        "convnext_tiny",
        "timm:convnext_tiny",
        "stages.3",
        224,
        IMAGENET,
        "The entrance of the last stage lies before its LayerNorm and downsampling: features are "
        "differenced before a norm could rescale small differences.",
    )


@recipes.register()
def vit_small() -> Recipe:
    """ViT-S/16 of timm, 224 px, at blocks.9: three quarters of the depth."""
    return _recipe(
        "vit_small",
        "timm:vit_small_patch16_224",
        "blocks.9",
        224,
        HALVES,
        "A ViT has no stages; blocks.9 leaves as large a share behind the merge (a quarter) as a "
        "last stage does. The class token is differenced with the patches.",
    )


@recipes.register()
def swin_tiny() -> Recipe:
    """Swin-T of timm, 224 px, at layers.3: the last stage, its patch merging included."""
    return _recipe(
        "swin_tiny",
        "timm:swin_tiny_patch4_window7_224",
        "layers.3",
        224,
        IMAGENET,
        "The entrance of the last stage: a whole 14 x 14 map, before windows are cut.",
    )


@recipes.register()
def efficientnet_b0() -> Recipe:
    """EfficientNet-B0 of timm, 224 px, at blocks.5: the first block of the last resolution."""
    return _recipe(
        "efficientnet_b0",
        "timm:efficientnet_b0",
        "blocks.5",
        224,
        IMAGENET,
        "blocks.5 halves the resolution for the last time, which is what a last stage is in a "
        "residual network; blocks.6 alone would leave one block behind the merge.",
    )


@recipes.register()
def mobilenetv4_conv_small() -> Recipe:
    """MobileNetV4-S of timm, 224 px, at blocks.3: its last stage of inverted bottlenecks."""
    return _recipe(
        "mobilenetv4_conv_small",
        "timm:mobilenetv4_conv_small",
        "blocks.3",
        224,
        IMAGENET,
        "blocks.3 halves the resolution for the last time; blocks.4 is one 1 x 1 convolution.",
    )


@recipes.register()
def mobilenetv3_small() -> Recipe:
    """MobileNetV3-S of timm, 224 px, at blocks.4: the last resolution."""
    return _recipe(
        "mobilenetv3_small",
        "timm:mobilenetv3_small_100",
        "blocks.4",
        224,
        IMAGENET,
        "blocks.4 halves the resolution for the last time; blocks.5 is one 1 x 1 convolution.",
    )


@recipes.register()
def edgenext_small() -> Recipe:
    """EdgeNeXt-S of timm, 256 px, at stages.3: the last stage."""
    return _recipe(
        "edgenext_small",
        "timm:edgenext_small",
        "stages.3",
        256,
        IMAGENET,
        "The entrance of the last stage, before its downsampling and transposed attention.",
    )


@recipes.register()
def dlib_trunk() -> Recipe:
    """Three stages of dlib's face recognition network, 150 px, frozen, at the head."""
    return dataclasses.replace(
        load_recipe("synth"),
        name="dlib_trunk",
        backbone="dlib_trunk",
        weights="pretrained",
        # Its crop and normalisation: dlib subtracts the mean from 0-255 and divides by 256.
        preprocessing=Preprocessing(
            size=150,
            align="rigid_close",
            contrast="none",
            mask="none",
            mean=(122.782 / 255, 117.001 / 255, 104.298 / 255),
            std=(256 / 255, 256 / 255, 256 / 255),
        ),
        note="The start knows real faces and no AU. Crop and merge point: chosen on rendered "
        "people of the training set, who are in no table.",
    )
