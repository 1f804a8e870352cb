"""Whether BatchNorm reads a trained network's features by other statistics than those of training.

With separate branches BatchNorm before the merge normalises targets and references each by their
own batch in training, and both by the running statistics in evaluation. In small batches of frames
that are much alike the first takes away what the second leaves in, and a network with a low
training loss fails in evaluation.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from siamcal.graph.inputs import Inputs, tensors_in
from siamcal.graph.state import kept_buffers
from siamcal.model.reference import Index, Reference

__all__ = ["LARGE_GAP", "batchnorm_gap", "warn_of_gap"]

_LOG = logging.getLogger(__name__)

# Networks that evaluate as they were trained showed up to 2.5 (up to 3.8 after their first steps),
# those that fail in evaluation 5 to 10.
LARGE_GAP = 4.0


def batchnorm_gap(
    model: nn.Module,
    target: Inputs,
    reference: Inputs | Reference | None = None,
    index: Index | None = None,
) -> float:
    """How far outputs move when BatchNorm uses its running statistics instead of the batch's.

    Dropout is off in both; the model and its statistics stay as they are.

    Args:
        model: A trained network, calibrated or plain.
        target: A batch as in training, 2 targets or more.
        reference: Its references; None for a plain network.
        index: Which belongs to which target.

    Returns:
        Root mean square of the change over the standard deviation of the outputs within the batch
        (by the batch's statistics). 0 without BatchNorm; beyond 4 (`LARGE_GAP`) evaluation reads
        something else than what was trained.
    """
    arguments = (target,) if reference is None else (target, reference)
    if index is not None:
        arguments = (*arguments, index)
    with torch.no_grad(), kept_buffers(model), _kept_modes(model):
        layers = _trained_layers(model)
        if not layers:
            return 0.0
        for module in model.modules():
            module.training = False
        by_running = tensors_in(model(*arguments))
        for layer in layers:
            layer.training = True
        by_batch = tensors_in(model(*arguments))
    moved = [(a - b).double().square().mean() for a, b in zip(by_running, by_batch, strict=True)]
    spread = [t.double().var(0, correction=0).mean() for t in by_batch]
    return float((_total(moved) / _total(spread).clamp_min(1e-12)).sqrt())


def warn_of_gap(gap: float) -> None:
    """Say what a large gap means and what to do."""
    if gap > LARGE_GAP:
        _LOG.warning(
            "In evaluation BatchNorm moves this network's outputs by %.1f times what they differ "
            "within a training batch: small or very alike batches were normalised each by its own "
            "statistics. Train with branches='concatenate' or freeze_pre_batchnorm=True, or with "
            "larger batches of more people (docs/backbones.md, BatchNorm).",
            gap,
        )


def _total(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).sum()


@contextmanager
def _kept_modes(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _trained_layers(model: nn.Module) -> list[nn.Module]:
    """BatchNorm that uses the batch's statistics in training, if training freezes others."""
    if not model.training:
        model.train()
    kinds = nn.modules.batchnorm._NormBase
    return [m for m in model.modules() if isinstance(m, kinds) and m.training]
