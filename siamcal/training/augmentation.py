"""Random crops, flips and light changes of a batch of crops, from an explicit generator.

Drawing and changing are apart, so that a process that holds a share of a batch draws for the whole
batch, which costs nothing, and changes its own images only.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from siamcal.datasets.base import FaceSet
from siamcal.training.noise import disturb, draw_disturbances
from siamcal.training.recipe import Augmentation, Noise

_COPY_SEED = 20_240_900  # of no training: copies serve trainings of any seed
#: Streams of copies with noise; those without are the same for targets and references.
REFERENCES, TARGETS = 1, 2


class Draws(NamedTuple):
    """What is to be done to each image of a batch.

    Attributes:
        matrices: (B, 2, 3) from `random_affine`.
        gain: (B,) factors of brightness.
        steepness: (B,) factors of the distance to the image's mean.
        light: Whether brightness and contrast change at all.
    """

    matrices: torch.Tensor
    gain: torch.Tensor
    steepness: torch.Tensor
    light: bool

    def take(self, rows: torch.Tensor) -> Draws:
        """The draws of some images: `rows` (R,) whole numbers below B."""
        return Draws(self.matrices[rows], self.gain[rows], self.steepness[rows], self.light)


def random_affine(
    count: int, size: int, generator: torch.Generator, how: Augmentation
) -> torch.Tensor:
    """Sampling matrices of RandomResizedCrop(crop_scale, crop_ratio) with a horizontal flip.

    As in torchvision, the aspect ratio (width / height) is uniform in its logarithm and the area
    uniform in `crop_scale`; a crop wider or taller than the image is cut to the image.

    Args:
        count: Number of images B.
        size: Side of the square images in pixels; the crop's corner is uniform.
        generator: Source of randomness.
        how: Ranges of the crop's area and aspect ratio, probability of a flip.

    Returns:
        (B, 2, 3) matrices for `torch.nn.functional.affine_grid`.
    """
    draw = torch.rand(count, 5, generator=generator)  # (B, 5)
    least, most = how.crop_scale
    area = least + (most - least) * draw[:, 0]
    low, high = map(math.log, how.crop_ratio)
    aspect = torch.exp(low + (high - low) * draw[:, 1])
    width = torch.sqrt(area * aspect).clamp(max=1.0)
    height = torch.sqrt(area / aspect).clamp(max=1.0)
    # Corners on whole pixels, as torchvision's crop has them.
    left = torch.floor(draw[:, 2] * ((1 - width) * size + 1)) / size
    top = torch.floor(draw[:, 3] * ((1 - height) * size + 1)) / size
    left, top = torch.minimum(left, 1 - width), torch.minimum(top, 1 - height)
    sign = torch.where(draw[:, 4] < how.flip, -1.0, 1.0)
    matrices = torch.zeros(count, 2, 3)
    matrices[:, 0, 0] = width * sign
    matrices[:, 1, 1] = height
    matrices[:, 0, 2] = 2 * left + width - 1  # centre of the crop in [-1, 1]
    matrices[:, 1, 2] = 2 * top + height - 1
    return matrices


def draw(count: int, size: int, generator: torch.Generator, how: Augmentation) -> Draws:
    """Draw the changes of `count` square images with sides of `size` pixels.

    Factors of brightness are uniform in [1 - brightness, 1 + brightness]; the same holds for
    contrast, which is the distance to the image's mean. Two generators in the same state draw the
    same.
    """
    matrices = random_affine(count, size, generator, how)
    light = 2 * torch.rand(count, 2, generator=generator) - 1  # (B, 2)
    return Draws(
        matrices,
        1 + how.brightness * light[:, 0],
        1 + how.contrast * light[:, 1],
        bool(how.brightness or how.contrast),
    )


def change(images: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Images (B, C, S, S) float, each changed as drawn; of the same shape."""
    grid = F.affine_grid(draws.matrices.to(images), list(images.shape), align_corners=False)
    out = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if draws.light:
        gain = draws.gain.to(out).view(-1, 1, 1, 1)
        steep = draws.steepness.to(out).view(-1, 1, 1, 1)
        mean = out.mean(dim=(1, 2, 3), keepdim=True)
        out = ((out - mean) * steep + mean) * gain
    return out


def copies_of(
    faces: FaceSet,
    rows: np.ndarray,
    copies: np.ndarray,
    how: Augmentation,
    noise: Noise | None = None,
    stream: int = 0,
) -> torch.Tensor:
    """Fixed augmented copies of frames: (row, copy) always gives the same image.

    Args:
        faces: The face set.
        rows: (B,) its rows.
        copies: (B,) number of the copy; 0 is the frame itself.
        how: The changes.
        noise: Further changes.
        stream: Number of the draws: others give other copies of the same frame.

    Returns:
        (B, 3, S, S).
    """
    images = faces.preprocessing.to_tensor(faces.images[rows])
    for place in np.flatnonzero(copies):
        key = [_COPY_SEED, int(rows[place]), int(copies[place]), *([stream] if stream else [])]
        seed = int(np.random.default_rng(key).integers(2**62))
        generator = torch.Generator().manual_seed(seed)
        draws = draw(1, images.shape[-1], generator, how)
        image = change(images[place : place + 1], draws)
        if noise is not None:
            image = disturb(image, draw_disturbances(1, generator, noise), faces.preprocessing)
        images[place] = image[0]
    return images
