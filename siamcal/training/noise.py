"""What no action does to a picture: blur, other light, JPEG; and other frames as references.

In use a reference comes from another moment, light or camera than the target. A training whose
pictures are all clean learns to rely on that.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from siamcal.datasets.base import FaceSet
from siamcal.errors import ConfigError
from siamcal.preprocessing import Preprocessing
from siamcal.training.recipe import Noise, ReferenceNoise

__all__ = ["Disturbances", "StandIns", "disturb", "draw_disturbances"]

_BEST_QUALITY = 95


class Disturbances(NamedTuple):
    """What is to be done to each image of a batch; where a change isn't drawn it is nothing.

    Attributes:
        turn: (B, 2, 3) sampling matrices of rotation and scale.
        gain: (B, 3) light: factor - 1 in the middle, and its slope to the right and downwards.
        tint: (B, 3) natural logarithms of factors on red, green and blue.
        gamma: (B,) exponents on the shares of white.
        blur: (B,) standard deviation in pixels.
        grain: (B,) standard deviation of the noise, in grey levels of 255.
        quality: (B,) int64, of JPEG; 0 leaves the image as it is.
        seed: (B,) int64, of the noise.
        distance: (B,) factors by which the face is farther away.
    """

    turn: torch.Tensor
    gain: torch.Tensor
    tint: torch.Tensor
    gamma: torch.Tensor
    blur: torch.Tensor
    grain: torch.Tensor
    quality: torch.Tensor
    seed: torch.Tensor
    distance: torch.Tensor

    def take(self, rows: torch.Tensor) -> Disturbances:
        """Those of some images: `rows` (R,) whole numbers below B."""
        return Disturbances(*(value[rows] for value in self))


def draw_disturbances(count: int, generator: torch.Generator, how: Noise) -> Disturbances:
    """Draw the changes of `count` images; each kind falls on an image with `how.probability`.

    Strengths are uniform up to the largest, rotation and scale to both sides; of a distance its
    logarithm is.
    """
    drawn = torch.rand(count, 6, generator=generator) < how.probability
    strength = torch.rand(count, 7, generator=generator)  # (B, 7) uniform in 0..1
    both = 2 * strength - 1
    seed = torch.randint(2**62, (count,), generator=generator)
    angle = torch.where(drawn[:, 0], math.radians(how.rotation) * both[:, 0], 0.0)
    zoom = torch.where(drawn[:, 0], 1 + how.scale * both[:, 1], 1.0)
    turn = torch.zeros(count, 2, 3)
    turn[:, 0, 0] = turn[:, 1, 1] = torch.cos(angle) / zoom
    turn[:, 0, 1] = -torch.sin(angle) / zoom
    turn[:, 1, 0] = torch.sin(angle) / zoom
    gain = torch.zeros(count, 3)
    gain[:, 0] = torch.where(drawn[:, 1], how.gain * both[:, 2], 0.0)
    slope = torch.where(drawn[:, 2], how.gradient * strength[:, 3], 0.0)
    direction = 2 * math.pi * strength[:, 4]
    gain[:, 1], gain[:, 2] = slope * torch.cos(direction), slope * torch.sin(direction)
    colour = torch.rand(count, 4, generator=generator) if how.tint or how.gamma else None
    tint, gamma = torch.zeros(count, 3), torch.ones(count)
    if colour is not None:  # drawn where asked for only: all else is drawn as without
        drawn_too = torch.rand(count, 2, generator=generator) < how.probability
        tint = torch.where(drawn_too[:, :1], how.tint * (2 * colour[:, :3] - 1), 0.0)
        exponent = torch.exp(how.gamma * (2 * colour[:, 3] - 1))
        gamma = torch.where(drawn_too[:, 1], exponent, 1.0)
    distance = torch.ones(count)
    if how.distance > 1:  # likewise
        far = torch.rand(count, 2, generator=generator)
        farther = torch.exp(math.log(how.distance) * far[:, 1])
        distance = torch.where(far[:, 0] < how.probability, farther, 1.0)
    worst = how.jpeg or _BEST_QUALITY
    quality = (worst + (_BEST_QUALITY - worst) * strength[:, 5]).round().long()
    return Disturbances(
        turn,
        gain,
        tint,
        gamma,
        torch.where(drawn[:, 3], how.blur * strength[:, 6], 0.0),
        torch.where(drawn[:, 4], how.noise * torch.rand(count, generator=generator), 0.0),
        torch.where(drawn[:, 5] & bool(how.jpeg), quality, 0),
        seed,
        distance,
    )


def disturb(
    images: torch.Tensor, draws: Disturbances, preprocessing: Preprocessing
) -> torch.Tensor:
    """Images (B, 3, S, S) float, each changed as drawn; of the same shape.

    In the order of a recording: the head, the light, the lens, the sensor, the file.

    Args:
        images: As `preprocessing.to_tensor` gives them.
        draws: From `draw_disturbances`.
        preprocessing: Where black and white lie.
    """
    mean = torch.tensor(preprocessing.mean).view(3, 1, 1).to(images)
    std = torch.tensor(preprocessing.std).view(3, 1, 1).to(images)
    out = [
        _disturbed(image * std + mean, draws.take(torch.tensor([place])))
        for place, image in enumerate(images)
    ]
    return (torch.stack(out) - mean) / std


def _disturbed(image: torch.Tensor, draw: Disturbances) -> torch.Tensor:
    """One image (3, S, S) in 0..1."""
    if not torch.equal(draw.turn[0], torch.eye(2, 3)):
        grid = F.affine_grid(draw.turn.to(image), [1, *image.shape], align_corners=False)
        image = F.grid_sample(image[None], grid, padding_mode="border", align_corners=False)[0]
    if draw.gain.any():
        steps = [torch.linspace(-1, 1, size).to(image) for size in image.shape[1:]]
        middle, right, down = draw.gain[0].tolist()
        image = image * (1 + middle + down * steps[0][:, None] + right * steps[1])
    if draw.tint.any():
        image = image * torch.exp(draw.tint[0])[:, None, None].to(image)
    if draw.gamma != 1:
        image = image.clamp(0, 1) ** float(draw.gamma)
    if draw.blur:
        image = _blurred(image, float(draw.blur))
    whole = image.shape[1:]
    if draw.distance > 1:
        image = _resized(image, [max(round(side / float(draw.distance)), 1) for side in whole])
    if draw.grain:
        own = torch.Generator().manual_seed(int(draw.seed))
        image = image + float(draw.grain) / 255 * torch.randn(image.shape, generator=own)
    image = image.clamp(0, 1)
    if draw.quality:
        image = _jpeg(image, int(draw.quality))
    return image if image.shape[1:] == whole else _resized(image, whole)


def _resized(image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Averaged over the larger pixels, or between the smaller ones linearly, as crops are cut."""
    return F.interpolate(image[None], tuple(size), mode="bilinear", antialias=True)[0]


def _blurred(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur with edges repeated; sigma in pixels."""
    reach = math.ceil(3 * sigma)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2).to(image)
    weights = (weights / weights.sum()).expand(3, 1, 1, -1)
    padded = F.pad(image[None], [reach] * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, weights, groups=3), weights.mT, groups=3)[0]


def _jpeg(image: torch.Tensor, quality: int) -> torch.Tensor:
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        read = np.array(Image.open(file))
    return torch.from_numpy(read).permute(2, 0, 1).to(image.dtype) / 255


class StandIns:
    """Frames that stand in for a reference though they aren't quite neutral.

    Of the reference's person and view, all labels valid, their sum at most `how.active_sum`, and
    either not all 0 or of another sequence.

    Args:
        how: Probability and largest sum.
        faces: The face set.
        rows: Training rows: no others stand in.

    Raises:
        ConfigError: There is no such frame at all.
    """

    def __init__(self, how: ReferenceNoise, faces: FaceSet, rows: np.ndarray) -> None:
        self.how = how
        labels = faces.labels(faces.source.aus)[rows]
        total = labels.sum(1)
        low = (labels >= 0).all(1) & (total <= how.active_sum)
        names = [faces.table[name].astype(str).to_numpy() for name in ("participant", "view")]
        sequence = faces.table["sequence"].astype(str).to_numpy()
        found: dict[int, np.ndarray] = {}
        for reference in np.unique(faces.reference_rows[rows]):
            mine = low & (rows != reference)
            for name in names:
                mine = mine & (name[rows] == name[reference])
            mine &= (total > 0) | (sequence[rows] != sequence[reference])
            found[int(reference)] = rows[mine]
        self.found = found
        if not any(map(len, found.values())):
            raise ConfigError(
                f"reference_noise.active={how.active:g} lets frames with a sum of intensities up "
                f"to {how.active_sum:g} stand in for references, but no person has one in training;"
                " raise reference_noise.active_sum or take active=0."
            )

    @property
    def rows(self) -> np.ndarray:
        """All frames that can stand in, ascending."""
        return np.unique(np.concatenate(list(self.found.values())))

    def replace(self, references: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The references (R,), some by chance replaced; people without such frames keep theirs."""
        chance, which = generator.random((2, len(references)))
        replaced = references.copy()
        for place in np.flatnonzero(chance < self.how.active):
            others = self.found[int(references[place])]
            if len(others):
                replaced[place] = others[int(which[place] * len(others))]
        return replaced
