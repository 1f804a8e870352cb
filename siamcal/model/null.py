"""The null reference, and what is known of neutral features: for people without a good reference.

A null reference stands where a person has no neutral frame. It starts as the mean feature of
neutral frames of anybody and is trained by leaving references out. Beside it lie mean and variance
of those features, which tell how far a reference can be trusted and whether it shows the same
person as the target.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from siamcal.errors import ConfigError
from siamcal.graph.features import BatchLayout
from siamcal.graph.inputs import Inputs, place_of
from siamcal.graph.split import Split
from siamcal.model.channels import channel_dims

__all__ = ["FEWEST_PEOPLE", "SHARE", "NullReference", "SamePerson"]

logger = logging.getLogger(__name__)

# Share of neutral frames that are trusted fully, and of other people's references that are found.
SHARE = 0.95
FEWEST_PEOPLE = 10
# Pairs of frames grow with the square; so many frames tell a quantile well.
_MOST_FRAMES = 1500
# Least variance of a channel over the mean of all: one that is silent in all neutral faces would
# otherwise decide alone.
_FLOOR = 1e-3


class SamePerson(NamedTuple):
    """Whether targets and references show one person.

    Attributes:
        score: (B,) float32, -1 to 1; higher is more alike.
        same: (B,) bool, whether the score is over the fitted threshold.
    """

    score: Tensor
    same: Tensor


class NullReference(nn.Module):
    """Null reference of a cut network, with mean and variance of neutral features.

    Args:
        split: The cut.
        example: Gives a valid input of the network.

    Attributes:
        null_0, ...: Trained, one for each merged tensor, of the shape of one sample.
        mean_0, ...: (D,) mean over people of each person's mean neutral features.
        deviation_0, ...: (D,) standard deviation of the value's channel around the mean, pooled
            over positions; of all values together where the layers don't tell the channels.
        far: (1,) squared distance from the mean within which 95 % of the neutral frames lie.
        alike: (1,) score under which 95 % of the pairs of different people lie.
        people: (1,) int64, number of people that all this was fitted to.
        is_fitted: (1,) uint8.

    Raises:
        ConfigError: The samples of a batch can't be told apart at this merge point.
    """

    far: Tensor
    alike: Tensor
    people: Tensor
    is_fitted: Tensor

    def __init__(self, split: Split, example: Callable[[], Inputs]) -> None:
        super().__init__()
        layouts = [layout for layout in split.layouts if layout is not None]
        if len(layouts) < len(split.layouts):
            raise ConfigError(
                f"At {split.merge_at!r} the samples of a batch can't be told apart in the "
                "features, so no null reference can stand for one of them; merge elsewhere, or "
                "take null_reference=False."
            )
        self.layouts: list[BatchLayout] = layouts
        self.shapes = [torch.Size(shape) for shape in split.shapes]
        self._channels = [
            _channel_of(layout, shape, dim)
            for layout, shape, dim in zip(
                layouts, self.shapes, channel_dims(split, example()), strict=True
            )
        ]
        for place, shape in enumerate(self.shapes):
            self.register_parameter(f"null_{place}", nn.Parameter(torch.full(shape, torch.nan)))
            for name in ("mean", "deviation"):
                start = torch.full((shape.numel(),), torch.nan)
                self.register_buffer(f"{name}_{place}", start)
        self.register_buffer("far", torch.full((1,), torch.nan))
        self.register_buffer("alike", torch.full((1,), torch.nan))
        self.register_buffer("people", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("is_fitted", torch.zeros(1, dtype=torch.uint8))
        # The buffers' values as Python knows them: a look at an accelerator's would wait for it.
        self._fitted, self._people = False, 0
        self.to(*place_of(split.network))

    @property
    def fitted(self) -> bool:
        """Whether `fit` was called, here or before the model was saved."""
        return self._fitted

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The null reference: one sample of each merged tensor.

        Raises:
            ConfigError: It isn't fitted.
        """
        self._need_fitted()
        return tuple(getattr(self, f"null_{place}") for place in range(len(self.shapes)))

    def no_weight_decay(self) -> set[str]:
        """timm: names of the parameters that don't decay, here what was fitted."""
        return {f"null_{place}" for place in range(len(self.shapes))}

    def fit(self, features: Sequence[Tensor], people: Sequence[int] | None = None) -> Self:
        """Take mean, variance and thresholds from neutral frames; the null starts at the mean.

        Each frame's distance is from the mean of the other people, and each pair's score is around
        the mean of all but those two: as it will be for people that aren't fitted to.

        Args:
            features: For each merged tensor (N, ...) on the CPU, as they cross.
            people: N numbers, equal for frames of one person; None: everyone differs.
        """
        rows = [lay.to_rows(t.detach()) for lay, t in zip(self.layouts, features, strict=True)]
        count = len(rows[0])
        own = torch.arange(count) if people is None else torch.as_tensor(people)
        own = own.unique(return_inverse=True)[1]
        scaled = []
        with torch.no_grad():
            for place, row in enumerate(rows):
                self._check_width(place, row)
                scaled.append(self._fit_one(place, row.double(), own))
            found = int(own.max()) + 1
            self.people.fill_(found)
            self.is_fitted.fill_(1)
            whole = torch.cat(scaled, 1)
            enough = found >= FEWEST_PEOPLE and bool(whole.any())
            self.far.fill_(_far(whole, own) if enough else math.nan)
            self.alike.fill_(_alike(whole, own) if enough else math.nan)
        if not enough:
            logger.info("fitted to %d people: trust and same_person need %d", found, FEWEST_PEOPLE)
        self._fitted, self._people = True, found
        return self

    def trust(self, tensors: Sequence[Tensor]) -> Tensor:
        """(R,) float32 in 0..1: 1 within the distance of 95 % of neutral frames, then its inverse.

        The squared distance d from the neutral mean, each value over its channel's deviation, is
        averaged over all values; trust is min(1, far / d).

        Args:
            tensors: Features of R references.

        Raises:
            ConfigError: Not fitted, to too few people, or features of another size.
        """
        self._need_people("trust")
        distance = self._scaled(tensors).square().mean(1)
        # 1 at distance 0 too, without a division by it.
        return self.far.float() / torch.maximum(distance, self.far.float())

    def same_person(self, targets: Sequence[Tensor], references: Sequence[Tensor]) -> SamePerson:
        """Cosine between both frames' deviations from the neutral mean, and the verdict.

        Args:
            targets: Features of B targets.
            references: Features of B references.

        Raises:
            ConfigError: Not fitted, to too few people, or features of another size.
        """
        self._need_people("same_person")
        score = F.cosine_similarity(self._scaled(targets), self._scaled(references), dim=1)
        return SamePerson(score, score > self.alike.float())

    def _fit_one(self, place: int, rows: Tensor, own: Tensor) -> Tensor:
        """Fit one tensor's null, mean and deviation; its rows (N, D) around and over these."""
        groups = int(own.max()) + 1
        means = rows.new_zeros(groups, rows.shape[1]).index_add_(0, own, rows)
        means /= torch.bincount(own)[:, None]
        mean = means.mean(0)
        channel = self._channels[place]
        # Over N - 1, as the mean was taken from the same frames.
        squares = (rows - mean).square().sum(0) / max(1, len(rows) - 1)
        sums = rows.new_zeros(int(channel.max()) + 1).index_add_(0, channel, squares)
        variance = sums / torch.bincount(channel)
        deviation = variance.clamp_min(_FLOOR * float(variance.mean())).sqrt()[channel]
        getattr(self, f"mean_{place}").copy_(mean)
        getattr(self, f"deviation_{place}").copy_(deviation)
        sample = self.layouts[place].from_rows(mean[None], self.shapes[place])
        getattr(self, f"null_{place}").copy_(sample)
        return torch.where(deviation > 0, (rows - mean) / deviation, 0.0)

    def _scaled(self, tensors: Sequence[Tensor]) -> Tensor:
        """Features of R samples as rows (R, all values), around the mean and over the deviation."""
        parts = []
        for place, (layout, tensor) in enumerate(zip(self.layouts, tensors, strict=True)):
            rows = layout.to_rows(tensor).float()
            self._check_width(place, rows)
            mean, deviation = getattr(self, f"mean_{place}"), getattr(self, f"deviation_{place}")
            tiny = torch.finfo(torch.float32).tiny
            parts.append((rows - mean.float()) / deviation.float().clamp_min(tiny))
        return torch.cat(parts, 1)

    def _check_width(self, place: int, rows: Tensor) -> None:
        wanted = self.shapes[place].numel()
        if rows.shape[1] != wanted:
            raise ConfigError(
                f"The null reference has features {tuple(self.shapes[place])}, {wanted} values, "
                f"but these images give {rows.shape[1]}: pass images of the size that the network "
                "was wrapped with."
            )

    def _need_fitted(self) -> None:
        if not self._fitted:
            raise ConfigError(
                "The null reference has to be fitted to neutral frames of anybody before it is "
                "used: model.fit_anchor(neutral_images), or train with Recipe.reference_dropout. "
                "A saved calibrator keeps it."
            )

    def _need_people(self, what: str) -> None:
        self._need_fitted()
        if self._people < FEWEST_PEOPLE:
            raise ConfigError(
                f"{what} needs neutral frames of {FEWEST_PEOPLE} people at least, but the null "
                f"reference was fitted to {self._people}; call model.fit_anchor(neutral_images, "
                "people) with more."
            )

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        if not self.is_fitted.is_meta:
            self._fitted, self._people = bool(self.is_fitted.item()), int(self.people.item())


def _channel_of(layout: BatchLayout, shape: torch.Size, dim: int | None) -> Tensor:
    """(D,) int64, the channel of each value of a sample as a row; 0 for all where it's unknown."""
    numbers = torch.zeros(shape, dtype=torch.long)
    if dim is not None:
        view = [1] * len(shape)
        view[dim] = shape[dim]
        numbers = numbers + torch.arange(shape[dim]).view(view)
    return layout.to_rows(numbers)[0]


def _far(rows: Tensor, own: Tensor) -> float:
    """Distance within which a new person's neutral frame lies with a probability of `SHARE`."""
    means = _means(rows, own)
    without = rows + means[own] / (len(means) - 1)  # around the mean of the other people
    distances = without.square().mean(1).sort().values
    # The rank that covers a further frame; with few frames the farthest (Vovk et al. 2005,
    # Algorithmic Learning in a Random World, split conformal prediction).
    rank = min(len(distances), math.ceil(SHARE * (len(distances) + 1)))
    return float(distances[rank - 1])


def _alike(rows: Tensor, own: Tensor) -> float:
    """Score under which a pair of different people lies with a probability of `SHARE`."""
    means = _means(rows, own)
    if len(rows) > _MOST_FRAMES:
        kept = torch.linspace(0, len(rows) - 1, _MOST_FRAMES).long()
        rows, own = rows[kept], own[kept]
    share = 1 / (len(means) - 2)
    # Around the mean of all but both people: row_i + share * (mean_g + mean_h), by inner products.
    cross, within = rows @ means.T, means @ means.T
    ours = cross.gather(1, own[:, None])  # (N, 1) row_i with its own person's mean
    theirs = cross[:, own]  # (N, N) row_i with the other person's mean
    square = within.diagonal()[own]
    both = square[:, None] + square + 2 * within[own][:, own]
    inner = rows @ rows.T + share * (ours + theirs + ours.T + theirs.T) + share**2 * both
    norm = rows.square().sum(1)[:, None] + 2 * share * (ours + theirs) + share**2 * both
    score = inner / (norm * norm.T).clamp_min(torch.finfo(rows.dtype).tiny).sqrt()
    different = (own[:, None] != own).triu(1)
    # torch.quantile refuses more than 16 million values; a sort doesn't.
    scores = score[different].sort().values
    return float(scores[math.ceil(SHARE * len(scores)) - 1])


def _means(rows: Tensor, own: Tensor) -> Tensor:
    counts = torch.bincount(own)
    return rows.new_zeros(len(counts), rows.shape[1]).index_add_(0, own, rows) / counts[:, None]
