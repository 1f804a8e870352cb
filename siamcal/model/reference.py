"""A person's neutral frame, encoded once: the features at the merge point."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from siamcal.errors import ConfigError, OutOfRangeError
from siamcal.graph.features import BatchLayout
from siamcal.model.origin import Origin, Provenance
from siamcal.model.pooling import pool_frames
from siamcal.model.weights_file import read_sealed, write_sealed

__all__ = ["Index", "Reference", "as_index"]

Index: TypeAlias = int | Sequence[int] | np.ndarray | Tensor


class _Encodes(Protocol):
    """A `CalibratingSiamese`."""

    origin: Origin

    def check_reference(self, reference: Reference) -> None:
        """Refuse another network's."""


class Reference:
    """Pre-merge features of reference frames.

    Accepted wherever `CalibratingSiamese` takes a reference image. Indexing selects samples, so
    that one reference per participant is encoded once and gathered per target:
    `model(targets, model.encode(neutral_frames)[participant_of_target])`; gradients flow through.
    A model refuses References of a network that is another before the merge point.

    Args:
        tensors: The features that are differenced, of several merge points one after another.
        layouts: Where the samples lie in each of them; None where there is no batch.
        merge_at: The merge point, of several all with commas (`CalibratingSiamese.place`).
        made_by: Which network encoded them; None isn't checked.
        frames: (R,) number of frames that each sample was pooled of; None is one each.
    """

    def __init__(
        self,
        tensors: Sequence[Tensor],
        layouts: Sequence[BatchLayout | None],
        merge_at: str,
        made_by: Provenance | None = None,
        frames: Tensor | None = None,
    ) -> None:
        self.tensors = tuple(tensors)
        self.layouts = tuple(layouts)
        self.merge_at = merge_at
        self.made_by = made_by
        self._frames = frames

    @property
    def frames(self) -> Tensor:
        """(R,) int64, the number of frames that each sample was pooled of."""
        if self._frames is None:
            return torch.ones(len(self), dtype=torch.long, device=self.device)
        return self._frames

    @staticmethod
    def pooled(references: Sequence[Reference]) -> Reference:
        """Several frames of the same people in one Reference (`siamcal.model.pooling`).

        Args:
            references: The first, second, ... frame of each of R people.

        Raises:
            ConfigError: None given, of different people, models or image sizes, or pooled before.
        """
        references = list(references)
        first = _checked(references, "pooled")
        counts = sorted({len(r) for r in references})
        if len(counts) > 1:
            raise ConfigError(
                f"Frames to pool show the same people in the same order, but these hold "
                f"{' and '.join(map(str, counts))} samples; give as many in each."
            )
        if any(r._frames is not None for r in references):
            raise ConfigError("A Reference among these was pooled before; pool all frames at once.")
        columns = zip(*(r.tensors for r in references), strict=True)
        tensors = [pool_frames(list(column)) for column in columns]
        frames = torch.full_like(first.frames, len(references)) if len(references) > 1 else None
        return Reference(tensors, first.layouts, first.merge_at, first.made_by, frames)

    @staticmethod
    def cat(references: Sequence[Reference]) -> Reference:
        """The samples of several References, of any number each, in one.

        Raises:
            ConfigError: None given, or of different merge points, models or image sizes.
        """
        references = list(references)
        first = _checked(references, "cat")
        columns = zip(*(r.tensors for r in references), strict=True)
        tensors = [
            first._layout(layout).cat(column)
            for layout, column in zip(first.layouts, columns, strict=True)
        ]
        frames = None
        if any(r._frames is not None for r in references):
            frames = torch.cat([r.frames for r in references])
        return Reference(tensors, first.layouts, first.merge_at, first.made_by, frames)

    def __len__(self) -> int:
        for tensor, layout in zip(self.tensors, self.layouts, strict=True):
            if layout is not None:
                return layout.batch_size(tensor)
        return 1

    def __getitem__(self, index: Index | slice) -> Reference:
        """The samples at a position, a slice, positions in any form, or a boolean mask."""
        for layout in self.layouts:
            self._layout(layout)
        if isinstance(index, slice):
            index = torch.arange(len(self), device=self.device)[index]
        else:
            mask = _as_tensor(index)
            if mask.dtype == torch.bool:
                if mask.shape != (len(self),):
                    raise ConfigError(
                        f"A mask of {mask.numel()} was given for a Reference of {len(self)} "
                        f"samples; it needs one value for each sample."
                    )
                index = mask.nonzero().reshape(-1)
        return self.select(index)

    def select(self, index: Index) -> Reference:
        """The samples at positions in any form: a number, a sequence, an array or a tensor."""
        for layout in self.layouts:
            self._layout(layout)
        return self.index_select(as_index(index, len(self)))

    def index_select(self, index: Tensor) -> Reference:
        """The samples at the positions in a vector of integers, in that order."""
        index = index.to(self.device)
        selected = self._map(lambda t, layout: self._layout(layout).select(t, index))
        if self._frames is not None:
            selected._frames = self._frames.index_select(0, index)
        return selected

    def part(self, span: slice) -> Reference:
        """Some of the tensors: those of one of several merge points."""
        tensors, layouts = self.tensors[span], self.layouts[span]
        return Reference(tensors, layouts, self.merge_at, self.made_by, self._frames)

    def matched(self, targets: Sequence[Tensor]) -> list[Tensor]:
        """The tensors, repeated for each target where there is only one sample.

        Raises:
            ConfigError: The number of samples is neither 1 nor that of the targets.
        """
        matched = []
        for own, target, layout in zip(self.tensors, targets, self.layouts, strict=True):
            if own.shape != target.shape:
                own = self._expanded(own, target, self._layout(layout))
            if own.device != target.device:
                raise ConfigError(
                    f"The Reference lies on {own.device}, the target on {target.device}; "
                    "move it with reference.to(device)."
                )
            matched.append(own)
        return matched

    def moved_to(self, other: Reference, share: Tensor) -> Reference:
        """Each sample moved towards the only one of another Reference.

        Args:
            other: One sample.
            share: (R,) 0 keeps a sample, 1 puts the other in its place.
        """
        self._check_alike(other)
        tensors = []
        for own, goal, layout in zip(self.tensors, other.tensors, self.layouts, strict=True):
            known = self._layout(layout)
            rows, theirs = known.to_rows(own), known.to_rows(goal)
            moved = torch.lerp(rows, theirs.to(rows), share[:, None].to(rows))
            sample = known.select(own, torch.zeros(1, dtype=torch.long, device=own.device)).shape
            tensors.append(known.from_rows(moved, sample))
        return Reference(tensors, self.layouts, self.merge_at, self.made_by, self._frames)

    def frames_for(self, targets: Sequence[Tensor]) -> Tensor | None:
        """(B,) number of frames behind each target's reference; None is one each."""
        if self._frames is None or self._frames.shape[0] != 1:  # len() would fix an export's batch
            return self._frames
        for target, layout in zip(targets, self.layouts, strict=True):
            if layout is not None:
                return self._frames.expand(layout.batch_size(target))
        return self._frames

    def _expanded(self, own: Tensor, target: Tensor, layout: BatchLayout) -> Tensor:
        size, batch = layout.batch_size(own), layout.batch_size(target)
        if size not in (1, batch):
            raise ConfigError(
                f"Got {size} references for {batch} targets; give one reference for all of them, "
                "or one each (`reference[index]`, or model(targets, references, index), repeats "
                "samples)."
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

    def save(
        self,
        path: str | Path,
        *,
        model: _Encodes | None = None,
        facts: Mapping[str, str] | None = None,
        beside: Mapping[str, Tensor] | None = None,
        private: bool = False,
    ) -> None:
        """Write the features and the fingerprint of the network that made them (.safetensors).

        The file holds features of a face: treat it like a photograph of the person.

        Args:
            path: Where to.
            model: The model that encoded it, where the Reference doesn't know it (it was pickled).
            facts: What else the file shall hold.
            beside: Further tensors for it, which `load` doesn't read.
            private: Only its owner may read it.

        Raises:
            ConfigError: The model isn't known, was trained on since, or the file can't be written.
        """
        made_by = self.made_by or Provenance()
        fingerprint = model.origin.fingerprint() if model else made_by.known_fingerprint()
        layouts = [None if layout is None else asdict(layout) for layout in self.layouts]
        metadata = {
            "format": "pt",
            "merge_at": self.merge_at,
            "layouts": json.dumps(layouts),
            "network": fingerprint,
        }
        if self._frames is not None:
            metadata["frames"] = json.dumps(self._frames.tolist())
        tensors = {f"features.{i}": t for i, t in enumerate(self.tensors)}
        tensors |= dict(beside or {})
        write_sealed(tensors, {**metadata, **(facts or {})}, Path(path), private=private)

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str | torch.device = "cpu",
        *,
        model: _Encodes | None = None,
    ) -> Reference:
        """Read a file that `save` wrote.

        Args:
            path: The file.
            device: Where the features are wanted.
            model: The model it is for, held against the one that made it at once; None: at its
                first use.

        Raises:
            ConfigError: The file is missing, damaged or holds no Reference, or another model made
                it.
        """
        try:
            found, metadata = read_sealed(Path(path))
            layouts = [
                None if layout is None else BatchLayout(**layout)
                for layout in json.loads(metadata["layouts"])
            ]
            tensors = [found[f"features.{i}"].to(device) for i in range(len(layouts))]
            merge_at, network = metadata["merge_at"], metadata["network"]
            reference = cls(tensors, layouts, merge_at, Provenance(fingerprint=network))
            reference._frames = _frames_from(metadata, len(reference), device)
        except (LookupError, TypeError, ValueError) as error:  # a WeightsError is a ValueError
            raise ConfigError(
                f"{path} is missing, damaged or holds no Reference "
                f"({type(error).__name__}: {str(error)[:300]}); write one with Reference.save."
            ) from None
        if model is not None:
            model.check_reference(reference)
        return reference

    def _map(self, function: Any) -> Reference:
        tensors = [function(t, lay) for t, lay in zip(self.tensors, self.layouts, strict=True)]
        frames = None if self._frames is None else self._frames.to(tensors[0].device)
        return Reference(tensors, self.layouts, self.merge_at, self.made_by, frames)

    def _layout(self, layout: BatchLayout | None) -> BatchLayout:
        if layout is None:
            raise ConfigError(
                f"At {self.merge_at!r} the samples of a batch can't be told apart in the features; "
                "pass reference images instead, one for each target."
            )
        return layout

    def _check_alike(self, other: Reference) -> None:
        if (other.merge_at, other.layouts) != (self.merge_at, self.layouts):
            raise ConfigError(
                f"The References were encoded at {self.merge_at!r} ({len(self.tensors)} tensors) "
                f"and at {other.merge_at!r} ({len(other.tensors)}); join those of one model only."
            )
        if not _of_one_network(self.made_by, other.made_by):
            raise ConfigError(
                "The References were encoded by two networks; join those of one model only."
            )
        for own, tensor, layout in zip(self.tensors, other.tensors, self.layouts, strict=True):
            if _without(own, layout) != _without(tensor, layout):
                raise ConfigError(
                    f"The References' features have the shapes {tuple(own.shape)} and "
                    f"{tuple(tensor.shape)}; encode both from images of one size."
                )

    def __repr__(self) -> str:
        shapes = ", ".join(str(tuple(t.shape)) for t in self.tensors)
        return f"Reference(merge_at={self.merge_at!r}, samples={len(self)}, features=[{shapes}])"


def _checked(references: list[Any], name: str) -> Reference:
    """The first of References that belong together."""
    others = [type(r).__name__ for r in references if not isinstance(r, Reference)]
    if not references or others:
        given = f"a {others[0]} among {len(references)} values" if others else "none"
        raise ConfigError(f"Reference.{name} takes one or more References, but got {given}.")
    for other in references[1:]:
        references[0]._check_alike(other)
    return references[0]


def _frames_from(metadata: Any, count: int, device: str | torch.device) -> Tensor | None:
    """Numbers of frames as a file states them."""
    if "frames" not in metadata:
        return None
    frames = json.loads(metadata["frames"])
    if not isinstance(frames, list) or not all(type(k) is int and 0 < k < 2**31 for k in frames):
        raise ValueError("its numbers of frames are none")
    if len(frames) != count:
        raise ValueError(f"it has {len(frames)} numbers of frames for {count} samples")
    return torch.tensor(frames, device=device)


def as_index(index: Index, count: int) -> Tensor:
    """Positions as a vector of integers.

    Args:
        index: One position, or a sequence, array or tensor of them; negative ones count from the
            end.
        count: Number of samples.

    Raises:
        ConfigError: Not whole numbers.
        OutOfRangeError: A position that isn't there.
    """
    positions = _as_tensor(index)
    if positions.numel() == 0:
        positions = positions.long()
    if positions.dtype.is_floating_point or positions.is_complex():
        raise ConfigError(
            f"index takes whole numbers from 0 to {count - 1}, but got {positions.dtype}; convert "
            "it with .long()."
        )
    if positions.dtype == torch.bool:
        raise ConfigError(
            f"index says which of the {count} references belongs to each target, in whole numbers; "
            "got booleans. To choose some by a mask: reference[mask]."
        )
    positions = positions.reshape(-1).long()
    # A look at an accelerator's values would wait for it; there the selection itself asserts.
    if positions.device.type == "cpu" and positions.numel() and not torch.compiler.is_compiling():
        low, high = int(positions.min()), int(positions.max())
        if low < -count or high >= count:
            raise OutOfRangeError(
                f"Position {high if high >= count else low} is out of range: there are {count} "
                f"references, counted from 0 to {count - 1}."
            )
    return torch.where(positions < 0, positions + count, positions)


def _as_tensor(index: Index) -> Tensor:
    try:
        return torch.as_tensor(index)
    except (TypeError, ValueError, RuntimeError):
        raise ConfigError(f"index takes whole numbers, but got a {type(index).__name__}.") from None


def _without(tensor: Tensor, layout: BatchLayout | None) -> list[int]:
    """The sizes of a tensor but for the one that counts samples."""
    sizes = list(tensor.shape)
    if layout is not None:
        del sizes[layout.dim]
    return sizes


def _of_one_network(first: Provenance | None, second: Provenance | None) -> bool:
    if first is None or second is None or first is second:
        return True
    if first.origin is not None and second.origin is not None:
        return first.origin() is second.origin()
    return not (first.fingerprint and second.fingerprint) or (
        first.fingerprint == second.fingerprint
    )
