"""Choosing the mechanism that cuts a network exactly at a place, or saying why none does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import torch
from torch import nn

from siamcal.errors import MergePointError
from siamcal.graph.inputs import Inputs, InputSignature, OutputSelector, example_inputs_for
from siamcal.graph.points import list_merge_points, nearest_points
from siamcal.graph.split import FxSplit, HookSplit, IllegalPointError, OutputSplit, Split
from siamcal.graph.state import in_mode
from siamcal.graph.verify import check_split

__all__ = ["split_network"]

_LOG = logging.getLogger(__name__)


def split_network(
    backbone: nn.Module,
    merge_at: str,
    *,
    example_inputs: Inputs | None = None,
    output: OutputSelector = None,
    verify: bool = True,
) -> Split:
    """Cut a network at the entrance of one of its modules.

    Args:
        backbone: Any network; it isn't modified.
        merge_at: Path of the module before which the cut lies, or "output".
        example_inputs: A valid input: a tensor (B, C, H, W), a tuple of arguments or a dict of
            keyword arguments. None: a random image of the size the backbone was made for.
        output: Part of the network's output that is meant, where it returns several: a key, an
            index or a function.
        verify: Prove that both halves together compute exactly what the network computes, in eval
            and train mode and at two batch sizes (five forwards). False only runs them (two).

    Raises:
        MergePointError: The place is no legal merge point; the message names the nearest ones.
    """
    inputs = example_inputs if example_inputs is not None else example_inputs_for(backbone)
    if merge_at == "output":
        split: Split = OutputSplit(backbone, merge_at, output)
        check_split(split, inputs, verify=False)
        return split
    try:
        name = _canonical(backbone, merge_at)
        reasons = []
        for candidate in _candidates(backbone, name, inputs, output):
            try:
                split = candidate()
                check_split(split, inputs, verify=verify)
                return split
            except IllegalPointError:
                raise
            except Exception as error:
                _LOG.debug("cut at %s failed", merge_at, exc_info=True)
                reasons.append(f"{candidate.__name__}: {_first_line(error)}")
        raise IllegalPointError("; ".join(reasons))
    except IllegalPointError as error:
        raise MergePointError(
            f"{type(backbone).__name__} can't be cut at {merge_at!r}: {error}. "
            f"{_advice(backbone, merge_at, inputs, output)}"
        ) from error


def _canonical(backbone: nn.Module, merge_at: str) -> str:
    """The first path under which the module is known."""
    if isinstance(backbone, torch.jit.ScriptModule):
        raise IllegalPointError(
            "it is TorchScript, which can't be looked into; pass the module it was made from"
        )
    try:
        module = backbone.get_submodule(merge_at) if merge_at else None
    except AttributeError:
        module = None
    if module is None:
        raise IllegalPointError("it has no module of that name")
    return next(name for name, m in backbone.named_modules() if m is module)


def _candidates(
    backbone: nn.Module, merge_at: str, inputs: Inputs, output: OutputSelector
) -> Iterator[Callable[[], Split]]:
    signature = InputSignature(inputs)

    def by_fx(shallow: bool, proxy_buffers: bool) -> Split:
        with in_mode(backbone, False):
            return FxSplit(
                backbone,
                merge_at,
                signature,
                output,
                shallow=shallow,
                proxy_buffers=proxy_buffers,
            )

    def shallow_fx() -> Split:
        try:
            return by_fx(True, True)
        except IllegalPointError:
            raise
        except Exception:
            # Some networks branch on a buffer's value or type, which a recorded read hides.
            return by_fx(True, False)

    def full_fx() -> Split:
        try:
            return by_fx(False, True)
        except IllegalPointError:
            raise
        except Exception:
            return by_fx(False, False)

    def hook() -> Split:
        return HookSplit(backbone, merge_at, output)

    yield from (shallow_fx, full_fx, hook)


def _advice(backbone: nn.Module, merge_at: str, inputs: Inputs, output: OutputSelector) -> str:
    try:
        points = list_merge_points(backbone, inputs, output=output)
    except Exception:
        _LOG.debug("listing merge points failed", exc_info=True)
        return "Use merge_at='output', or a module that the whole image passes through."
    near = ", ".join(repr(n) for n in nearest_points(backbone, merge_at, points))
    return f"Nearest legal merge points: {near}. list_merge_points(backbone) lists all."


def _first_line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return text[:200] if text else type(error).__name__
