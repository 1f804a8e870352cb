"""Neutral faces of anybody, for those who have none at hand: rendered people at rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from siamcal.datasets.base import load_dataset
from siamcal.datasets.crops.prepare import prepare
from siamcal.preprocessing import Preprocessing
from siamcal.settings import check_whole

if TYPE_CHECKING:
    import torch

__all__ = ["neutral_faces"]

# Of each person, all clips together: about a quarter of them show the face at rest.
FRAMES = 16


def neutral_faces(
    preprocessing: Preprocessing, people: int = 40, frames: int = 1
) -> tuple[torch.Tensor, np.ndarray]:
    """Rendered people at rest: the anchor for a network when nobody's neutral frames are at hand.

    Frames of real people, from the camera that is used later, are better where there are some.

    Args:
        preprocessing: The network's.
        people: How many.
        frames: Of each person at most; with two or more a merge form can estimate how far one frame
            is to be trusted. Not everybody has as many.

    Returns:
        Images (N, 3, S, S), as the network takes them, and whose each is, (N,).

    Raises:
        ConfigError: A number is out of its range.
        MissingDependencyError: What renders or finds faces isn't installed.

    Example:
        >>> model = CalibratingSiamese(net, "layer4", merge="anchored")  # doctest: +SKIP
        >>> model.fit_anchor(*neutral_faces(preprocessing, frames=4))  # doctest: +SKIP
    """
    check_whole("people", people, 2, 400)
    check_whole("frames", frames, 1, FRAMES)
    source = load_dataset("synth", size="training", participants=people, frames=FRAMES)
    faces = prepare(source, preprocessing)
    resting = np.flatnonzero((faces.labels(source.intensity_aus) == 0).all(1))
    rows: list[int] = []
    for reference in np.unique(faces.reference_rows):
        own = resting[faces.participants[resting] == faces.participants[reference]]
        rows += [reference, *own[own != reference]][:frames]
    chosen = np.array(rows)
    return preprocessing.to_tensor(faces.images[chosen]), faces.participants[chosen]
