"""A cut as a proof of it found it, kept beside a network that ships ready to run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import nn

from siamcal.errors import MergePointError
from siamcal.graph.features import BatchLayout
from siamcal.graph.hooking import HookSplit
from siamcal.graph.inputs import OutputSelector
from siamcal.graph.split import Split

__all__ = ["CutRecord"]


@dataclass(frozen=True)
class CutRecord:
    """All that `check_split` finds out by running a network, of a cut by a hook.

    It is believed: whoever takes one knows that it is this network's. What is said of each tensor
    is in the order in which they cross.

    Attributes:
        merge_at: The merge point.
        shapes: Of one sample of each tensor.
        layouts: Where the samples lie in each; None where there is no batch.
        channels: Which dimension holds the channels of each; None where none is known to. None for
            all: nobody looked.
        per_sample: For each leaf of the inputs: whether it holds a row for each sample.
        pre_modules: Paths of the modules that run only before the merge point.
        drawing: Paths of the modules that draw random numbers before the merge point in training.
        loud: Those among them that draw in evaluation mode too.
    """

    merge_at: str
    shapes: tuple[tuple[int, ...], ...]
    layouts: tuple[BatchLayout | None, ...]
    channels: tuple[int | None, ...] | None
    per_sample: tuple[bool, ...]
    pre_modules: tuple[str, ...]
    drawing: tuple[str, ...]
    loud: tuple[str, ...]

    @classmethod
    def of(cls, split: Split) -> Self:
        """What was found of a cut.

        Raises:
            MergePointError: It isn't made by a hook, or something crosses that isn't differenced.
        """
        if not isinstance(split, HookSplit) or not all(split.differenced):
            raise MergePointError(
                f"Only a cut by a hook where nothing but differenced tensors crosses is recorded, "
                f"but {split.merge_at!r} was cut by {split.mechanism} with differenced="
                f"{split.differenced}; leave the record out."
            )
        return cls(
            split.merge_at,
            tuple(tuple(shape) for shape in split.shapes),
            split.layouts,
            split.channels,
            split.per_sample,
            split.pre_modules,
            split.drawing,
            split.loud,
        )

    def cut(self, network: nn.Module, merge_at: str, selector: OutputSelector) -> HookSplit:
        """The same cut of a network of the same make.

        Args:
            network: The network.
            merge_at: Where it is to be cut.
            selector: Part of its output that is meant.

        Raises:
            MergePointError: The record is of another merge point.
        """
        if merge_at != self.merge_at:
            raise MergePointError(
                f"The cut at {self.merge_at!r} was recorded, but {merge_at!r} was asked for; leave "
                "the record out."
            )
        split = HookSplit(network, self.merge_at, selector)
        split.differenced = (True,) * len(self.shapes)
        split.shapes = tuple(map(torch.Size, self.shapes))
        split.layouts, split.channels = self.layouts, self.channels
        split.per_sample, split.pre_modules = self.per_sample, self.pre_modules
        split.drawing, split.loud = self.drawing, self.loud
        return split
