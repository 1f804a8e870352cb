"""A person's neutral frame, encoded once: the features at the merge point."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from siamcal.errors import ConfigError
from siamcal.graph.features import BatchLayout

__all__ = ["Reference"]


class Reference:
    """Pre-merge features of reference frames.

    Accepted wherever `CalibratingSiamese` takes a reference image. Indexing selects samples, so
    that one reference per participant is encoded once and gathered per target:
    `model(targets, model.encode(neutral_frames)[participant_of_target])`; gradients flow through.

    Args:
        tensors: The features that are differenced.
        layouts: Where the samples lie in each of them; None where there is no batch.
        merge_at: The merge point.
    """

    def __init__(
        self,
        tensors: Sequence[Tensor],
        layouts: Sequence[BatchLayout | None],
        merge_at: str,
    ) -> None:
        self.tensors = tuple(tensors)
        self.layouts = tuple(layouts)
        self.merge_at = merge_at

    def __len__(self) -> int:
        for tensor, layout in zip(self.tensors, self.layouts, strict=True):
            if layout is not None:
                return layout.batch_size(tensor)
        return 1

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Reference:
        """The samples at a position, a slice, a list or tensor of positions, or a boolean mask."""
        for layout in self.layouts:
            self._layout(layout)
        positions = torch.arange(len(self), device=self.device)
        if isinstance(index, Sequence):
            index = torch.as_tensor(index, device=self.device)
        elif isinstance(index, Tensor):
            index = index.to(self.device)
        try:
            chosen = positions[index]
        except IndexError:
            raise IndexError(
                f"{index} is out of range: the Reference has {len(self)} samples"
            ) from None
        return self.index_select(chosen.reshape(-1))

    def index_select(self, index: Tensor) -> Reference:
        """The samples at the positions in a vector of integers, in that order."""
        index = index.to(self.device)
        return self._map(lambda t, layout: self._layout(layout).select(t, index))

    def matched(self, targets: Sequence[Tensor]) -> list[Tensor]:
        """The tensors, repeated for each target where there is only one sample.

        Raises:
            ConfigError: The number of samples is neither 1 nor that of the targets.
        """
        matched = []
        for own, target, layout in zip(self.tensors, targets, self.layouts, strict=True):
            if own.shape != target.shape and layout is not None:
                own = self._expanded(own, target, layout)
            if own.device != target.device:
                raise ConfigError(
                    f"The Reference lies on {own.device}, the target on {target.device}; "
                    "move it with reference.to(device)."
                )
            matched.append(own)
        return matched

    def _expanded(self, own: Tensor, target: Tensor, layout: BatchLayout) -> Tensor:
        size, batch = layout.batch_size(own), layout.batch_size(target)
        if size not in (1, batch):
            raise ConfigError(
                f"Got {size} references for {batch} targets; give one reference for all of them, "
                "or one each (`reference[index]` repeats samples)."
            )
        expanded = layout.expand(own, batch) if size == 1 else own
        if expanded.shape != target.shape:
            raise ConfigError(
                f"The reference's features have the shape {tuple(expanded.shape)}, the target's "
                f"{tuple(target.shape)}; encode it from an image of the targets' size."
            )
        return expanded

    def to(self, *args: Any, **kwargs: Any) -> Reference:
        """The same on another device or in another precision, as `Tensor.to`."""
        return self._map(lambda t, layout: t.to(*args, **kwargs))

    def detach(self) -> Reference:
        """The same without gradients."""
        return self._map(lambda t, layout: t.detach())

    @property
    def device(self) -> torch.device:
        """Where the features lie."""
        return self.tensors[0].device

    def save(self, path: str | Path) -> None:
        """Write the features to a .safetensors file."""
        layouts = [None if layout is None else asdict(layout) for layout in self.layouts]
        metadata = {"merge_at": self.merge_at, "layouts": json.dumps(layouts)}
        tensors = {f"features.{i}": t.detach().contiguous() for i, t in enumerate(self.tensors)}
        # Equal memory behind two tensors is refused by the format; clones are small here.
        save_file({k: t.clone() for k, t in tensors.items()}, path, {"format": "pt", **metadata})

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> Reference:
        """Read a file that `save` wrote.

        Raises:
            ConfigError: The file holds no Reference.
        """
        with safe_open(path, framework="pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            if "layouts" not in metadata or "merge_at" not in metadata:
                raise ConfigError(f"{path} holds no Reference; write one with Reference.save.")
            layouts = [
                None if layout is None else BatchLayout(**layout)
                for layout in json.loads(metadata["layouts"])
            ]
            tensors = [file.get_tensor(f"features.{i}") for i in range(len(layouts))]
        return cls(tensors, layouts, metadata["merge_at"])

    def _map(self, function: Any) -> Reference:
        tensors = [function(t, lay) for t, lay in zip(self.tensors, self.layouts, strict=True)]
        return Reference(tensors, self.layouts, self.merge_at)

    def _layout(self, layout: BatchLayout | None) -> BatchLayout:
        if layout is None:
            raise ConfigError(
                f"At {self.merge_at!r} the samples of a batch can't be told apart in the features; "
                "pass reference images instead, one for each target."
            )
        return layout

    def __repr__(self) -> str:
        shapes = ", ".join(str(tuple(t.shape)) for t in self.tensors)
        return f"Reference(merge_at={self.merge_at!r}, samples={len(self)}, features=[{shapes}])"
