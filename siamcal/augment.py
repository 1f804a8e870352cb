"""Random crops, flips and light changes of a batch of crops, from an explicit generator."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

__all__ = ["augment", "random_affine"]


def random_affine(
    count: int,
    size: int,
    generator: torch.Generator,
    *,
    flip: float = 0.5,
    scale: tuple[float, float] = (0.9, 1.0),
    ratio: tuple[float, float] = (19 / 20, 20 / 19),
) -> torch.Tensor:
    """Sampling matrices of RandomResizedCrop(scale, ratio) with a horizontal flip.

    As in torchvision, the aspect ratio (width / height) is uniform in its logarithm and the area
    uniform in `scale`; a crop wider or taller than the image is cut to the image.

    Args:
        count: Number of images B.
        size: Side of the square images in pixels; the crop's corner is uniform.
        generator: Source of randomness.
        flip: Probability of a flip.
        scale: Range of the crop's share of the area.
        ratio: Range of the crop's aspect ratio.

    Returns:
        (B, 2, 3) matrices for `torch.nn.functional.affine_grid`.
    """
    draw = torch.rand(count, 5, generator=generator)  # (B, 5)
    area = scale[0] + (scale[1] - scale[0]) * draw[:, 0]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + (high - low) * draw[:, 1])
    width = torch.sqrt(area * aspect).clamp(max=1.0)
    height = torch.sqrt(area / aspect).clamp(max=1.0)
    # Corners on whole pixels, as torchvision's crop has them.
    left = torch.floor(draw[:, 2] * ((1 - width) * size + 1)) / size
    top = torch.floor(draw[:, 3] * ((1 - height) * size + 1)) / size
    left, top = torch.minimum(left, 1 - width), torch.minimum(top, 1 - height)
    sign = torch.where(draw[:, 4] < flip, -1.0, 1.0)
    matrices = torch.zeros(count, 2, 3)
    matrices[:, 0, 0] = width * sign
    matrices[:, 1, 1] = height
    matrices[:, 0, 2] = 2 * left + width - 1  # centre of the crop in [-1, 1]
    matrices[:, 1, 2] = 2 * top + height - 1
    return matrices


def augment(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    flip: float = 0.5,
    scale: tuple[float, float] = (0.9, 1.0),
    ratio: tuple[float, float] = (19 / 20, 20 / 19),
    brightness: float = 0.0,
    contrast: float = 0.0,
) -> torch.Tensor:
    """Augment images, each with its own draw.

    Args:
        images: (B, C, S, S) float.
        generator: Source of randomness; two generators in the same state draw the same.
        flip: Probability of a horizontal flip.
        scale: Range of the crop's share of the area.
        ratio: Range of the crop's aspect ratio.
        brightness: Factors are uniform in [1 - brightness, 1 + brightness].
        contrast: The same for the distance to the image's mean.

    Returns:
        (B, C, S, S) float.
    """
    count, _, _, size = images.shape
    matrices = random_affine(count, size, generator, flip=flip, scale=scale, ratio=ratio)
    light = 2 * torch.rand(count, 2, generator=generator) - 1  # (B, 2)
    grid = F.affine_grid(matrices.to(images), list(images.shape), align_corners=False)
    out = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if brightness or contrast:
        gain = (1 + brightness * light[:, 0]).to(out).view(-1, 1, 1, 1)
        steep = (1 + contrast * light[:, 1]).to(out).view(-1, 1, 1, 1)
        mean = out.mean(dim=(1, 2, 3), keepdim=True)
        out = ((out - mean) * steep + mean) * gain
    return out
