"""The paper's recipes (arXiv:2409.00240): IR50 from glint360k on DISFA, DISFA+ and UNBC.

`Recipe`'s defaults are the paper's optimisation settings; each function states what a data set
adds. Variants are one `--set` away: `branches=concatenate`, `freeze_pre_batchnorm=true`,
`augmentation.shared=true`, `printed_eq7=true`.
"""

from __future__ import annotations

import dataclasses

from siamcal.paper import PAPER_PREPROCESSING
from siamcal.registry import recipes
from siamcal.training.recipe import Recipe

NOTE = (
    "Section 4 and the authors' released code: Adam with L2 5e-4, 1e-4 for the last layer and 1e-5 "
    "for the rest, batch 64, 3 epochs, seed 42, fp32; merge at the entrance of layer4 (Table 6, "
    "Stage4). Start weights: glint360k_cosface_r50_fp16_0.1/backbone.pth (InsightFace; "
    "non-commercial research only), given by --set weights=PATH."
)


@recipes.register()
def disfa_intensity() -> Recipe:
    """Tables 2, 5, 6, S5, S8: AU intensity on DISFA, 3 folds, both views."""
    return Recipe(name="disfa_intensity", note=NOTE)


@recipes.register()
def disfa_detection() -> Recipe:
    """Tables 3, 6, S9: AU detection on DISFA, 8 AUs at intensity 2 and above."""
    return dataclasses.replace(disfa_intensity(), name="disfa_detection", task="detection")


@recipes.register()
def disfa_plus_intensity() -> Recipe:
    """Tables 4, 5, S1, S6: AU intensity on DISFA+, leave one participant out."""
    return dataclasses.replace(disfa_intensity(), name="disfa_plus_intensity", dataset="disfa-plus")


@recipes.register()
def disfa_plus_detection() -> Recipe:
    """Tables 4, S2: AU detection on DISFA+, 12 AUs."""
    return dataclasses.replace(
        disfa_plus_intensity(), name="disfa_plus_detection", task="detection"
    )


@recipes.register()
def unbc_intensity() -> Recipe:
    """Tables 4, 5, S3, S7: intensity of 9 AUs on UNBC-McMaster, 5 folds."""
    crop = dataclasses.replace(PAPER_PREPROCESSING, jpeg=0)  # its frames are .png
    return dataclasses.replace(
        disfa_intensity(), name="unbc_intensity", dataset="unbc", preprocessing=crop
    )


@recipes.register()
def unbc_detection() -> Recipe:
    """Tables 4, S4: detection of 10 AUs on UNBC-McMaster (AU43 at 1 and above)."""
    return dataclasses.replace(unbc_intensity(), name="unbc_detection", task="detection")


@recipes.register()
def manifest() -> Recipe:
    """The paper's settings on your own data set, described by a table (`--data-root TABLE.csv`).

    Small faces are searched for, and crops aren't aliased: nothing has to be repeated to the pixel.
    """
    crop = dataclasses.replace(PAPER_PREPROCESSING, align="ffhq_quad", detection="search", jpeg=0)
    return dataclasses.replace(
        disfa_intensity(), name="manifest", dataset="manifest", preprocessing=crop
    )
