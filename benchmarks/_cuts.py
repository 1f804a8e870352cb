"""Cutting one model of timm at some places, and saying how exact each cut is."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from siamcal.errors import MergePointError
from siamcal.graph import InputSpec, MergePoint, input_spec, list_merge_points
from siamcal.graph.inputs import run_network, tensors_in
from siamcal.graph.roles import largest_difference
from siamcal.model.create import create_backbone
from siamcal.model.siamese import CalibratingSiamese

__all__ = ["Job", "ModelResult", "PointResult", "check_model"]

# Pixels, where the model's default is more and it takes other sizes: 112 for patches of 14.
SIDES = (128, 112)


@dataclass(frozen=True)
class Job:
    """One model to be checked: its model file in timm and its name."""

    family: str
    name: str


@dataclass(frozen=True)
class PointResult:
    """What became of one merge point.

    Attributes:
        name: The merge point.
        outcome: "exact", "refused" (a MergePointError that names legal points) or "wrong".
        mechanism: How the network was cut.
        detail: Why it was refused, or how wrong it is.
    """

    name: str
    outcome: str
    mechanism: str = ""
    detail: str = ""


@dataclass(frozen=True)
class ModelResult:
    """One row of the table.

    Attributes:
        family: Model file in timm.
        name: The model.
        parameters: Number of its parameters.
        input_shape: (C, H, W).
        num_points: Number of merge points that `list_merge_points` names.
        points: The legal points tried.
        inner: A place inside a branch, which may be refused.
        seconds: Time for all of it.
        failure: Why nothing could be tried; empty otherwise.
    """

    family: str
    name: str
    parameters: int = 0
    input_shape: tuple[int, ...] = ()
    num_points: int = 0
    points: tuple[PointResult, ...] = ()
    inner: PointResult | None = None
    seconds: float = 0.0
    failure: str = ""

    @property
    def num_exact(self) -> int:
        """Number of exact points among the legal ones."""
        return sum(p.outcome == "exact" for p in self.points)

    @property
    def complete(self) -> bool:
        """Whether every legal point tried is exact and the inner one exact or refused."""
        inner = self.inner is None or self.inner.outcome != "wrong"
        return bool(self.points) and self.num_exact == len(self.points) and inner


def check_model(job: Job) -> ModelResult:
    """Cut one model of timm at three legal merge points and one inside a branch."""
    started = time.monotonic()
    try:
        torch.manual_seed(0)
        network, images = _network_and_images(job.name)
        points = list_merge_points(network, images[:2])
    except Exception as error:
        failure = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        return ModelResult(
            job.family, job.name, seconds=time.monotonic() - started, failure=failure
        )
    tried = tuple(_check_point(network, p, images, points) for p in _three(network, points))
    inner = _inner(network, points, random.Random(job.name))
    return ModelResult(
        job.family,
        job.name,
        sum(p.numel() for p in network.parameters()),
        tuple(images.shape[1:]),
        len(points),
        tried,
        _check_point(network, inner, images, points) if inner else None,
        round(time.monotonic() - started, 1),
    )


def _network_and_images(name: str) -> tuple[nn.Module, Tensor]:
    """The model and three images, small ones where it takes them: sizes don't matter to a cut."""
    network = create_backbone(f"timm:{name}").eval()
    shape = (input_spec(network) or InputSpec()).shape
    if shape[1] <= max(SIDES):
        return network, _images(3, shape)
    for side in SIDES:
        small = (shape[0], side, side)
        if _runs(network, small):
            return network, _images(3, small)
        try:
            fitted = create_backbone(f"timm:{name}", img_size=side).eval()
        except Exception:  # windows and grids that don't divide the side, or no such argument
            continue
        if _runs(fitted, small):
            return fitted, _images(3, small)
    return network, _images(3, shape)


def _runs(network: nn.Module, shape: Sequence[int]) -> bool:
    try:
        with torch.no_grad():
            network(_images(1, shape))
    except Exception:
        return False
    return True


def _images(batch: int, shape: Sequence[int], seed: int = 1) -> Tensor:
    return torch.rand((batch, *shape), generator=torch.Generator().manual_seed(seed))


def _three(network: nn.Module, points: list[MergePoint]) -> list[str]:
    """After the stem, before the last stage, before the head."""
    inside = [p for p in points if p.name != "output"]
    if not inside:
        return ["output"]
    stem = next((p for p in inside if p.macs_before > 0), inside[0])
    stages = [p for p in inside if any(network.get_submodule(p.name).children())]
    late = [p for p in stages if p.macs_before < 0.95] or inside
    shallow = min(p.name.count(".") for p in late[len(late) // 2 :])
    last = next(p for p in reversed(late) if p.name.count(".") <= max(shallow, 1) or p is late[0])
    return list(dict.fromkeys([stem.name, last.name, inside[-1].name]))


def _inner(network: nn.Module, points: list[MergePoint], chance: random.Random) -> str:
    """A module that `list_merge_points` doesn't name, mostly one inside a residual branch."""
    legal = {p.name for p in points}
    others = [
        n for n, m in network.named_modules() if n and n not in legal and list(m.parameters())
    ]
    return chance.choice(others) if others else ""


def _check_point(
    network: nn.Module, name: str, images: Tensor, points: list[MergePoint]
) -> PointResult:
    try:
        model = CalibratingSiamese(network, name, example_inputs=images[:2])
    except MergePointError as error:
        legal = any(repr(p.name) in str(error) for p in points)
        outcome = "refused" if legal else "wrong"
        return PointResult(name, outcome, detail=str(error).splitlines()[0][:300])
    except Exception as error:
        return PointResult(name, "wrong", detail=f"{type(error).__name__}: {error}"[:300])
    with torch.no_grad():
        problem = _problem(model, images)
    outcome = "wrong" if problem else "exact"
    return PointResult(name, outcome, model.split.mechanism, problem)


def _problem(model: CalibratingSiamese, images: Tensor) -> str:
    """What is wrong with a wrapped network; empty if nothing is."""
    other = _images(2, images.shape[1:], seed=2)
    for batch in (images[:1], other):
        expected = run_network(model.backbone, batch, None)
        difference = _gap(expected, model.split.post(model.split.pre(batch)))
        if difference:
            return f"off by {difference:.1%} at batch size {len(batch)}"
    left = _gap(model(images[:2], images[:2]), model(other, other))
    return f"equal inputs leave {left:.1%} of the image" if left else ""


def _gap(expected: Any, actual: Any) -> float:
    return largest_difference(tensors_in(expected), tensors_in(actual))
