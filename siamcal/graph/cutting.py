"""Choosing the mechanism that cuts a network exactly at a place, or saying why none does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import nn

from siamcal.errors import ConfigError, MergePointError
from siamcal.graph.dataflow import WriteError
from siamcal.graph.hooking import HookSplit
from siamcal.graph.inputs import (
    ExampleError,
    ImageInputs,
    Inputs,
    InputSignature,
    OutputSelector,
    example_inputs_for,
)
from siamcal.graph.points import check_parameters, list_merge_points, nearest_points
from siamcal.graph.reasons import cure, in_words, reason_of
from siamcal.graph.split import FxSplit, IllegalPointError, OutputSplit, Split
from siamcal.graph.state import in_mode
from siamcal.graph.verify import check_split

__all__ = ["split_network"]

_LOG = logging.getLogger(__name__)
MECHANISMS = ("auto", "hook", "fx")


def split_network(
    backbone: nn.Module,
    merge_at: str,
    *,
    example_inputs: Inputs | None = None,
    output: OutputSelector = None,
    image_inputs: ImageInputs = None,
    verify: bool = True,
    mechanism: str = "auto",
) -> Split:
    """Cut a network at the entrance of one of its modules.

    Args:
        backbone: Any network; it isn't modified.
        merge_at: Path of the module before which the cut lies, or "output".
        example_inputs: A valid input: a tensor (B, C, H, W), a tuple of arguments or a dict of
            keyword arguments. None: a random image of the size the backbone was made for.
        output: Part of the network's output that is meant, where it returns several: a key, an
            index or a function.
        image_inputs: Which inputs are images: names of keywords or positions; None is the first
            tensor. Only what depends on them is differenced.
        verify: Prove that the cut computes exactly what the network computes, in eval and train
            mode and at two batch sizes. False only finds out what crosses.
        mechanism: "auto", "hook" or "fx"; see `siamcal.graph.split`.

    Raises:
        MergePointError: The place is no legal merge point; the message names the nearest ones.
        ConfigError: An unknown mechanism.
    """
    if mechanism not in MECHANISMS:
        raise ConfigError(
            f"mechanism takes {', '.join(map(repr, MECHANISMS))}, but got {mechanism!r}."
        )
    check_parameters(backbone)
    inputs = example_inputs if example_inputs is not None else example_inputs_for(backbone)
    if merge_at == "output":
        split: Split = OutputSplit(backbone, merge_at, output)
        try:
            check_split(split, inputs, image_inputs, verify=False)
        except IllegalPointError as error:
            raise MergePointError(
                f"The output of {type(backbone).__name__} can't be differenced: {error}. Name the "
                "part that is meant with output= (a key, an attribute's name, an index or a "
                "function)."
            ) from error
        return split
    reasons: dict[str, str] = {}
    try:
        name = _canonical(backbone, merge_at)
        for kind, make in _candidates(backbone, name, inputs, image_inputs, output):
            if mechanism != "auto" and mechanism not in kind:
                continue
            try:
                with torch.inference_mode(False):
                    split = make()
                    check_split(split, inputs, image_inputs, verify=verify)
                return _finished(split, reasons, inputs, image_inputs)
            except (IllegalPointError, ExampleError):
                raise
            except Exception as error:
                _LOG.debug("cut at %s by %s failed", merge_at, kind, exc_info=True)
                reasons[kind] = reason_of(error)
        raise IllegalPointError(in_words(reasons) + cure(reasons))
    except IllegalPointError as error:
        raise MergePointError(
            f"{type(backbone).__name__} can't be cut at {merge_at!r}: {error}. "
            f"{_advice(backbone, merge_at, inputs, output, image_inputs)}"
        ) from error


def _finished(
    split: Split, reasons: Mapping[str, str], inputs: Inputs, images: ImageInputs
) -> Split:
    if isinstance(split, FxSplit):
        why = reasons.get("hook", "asked for")
        split.reason = (
            f"{why}; {sum(split.differenced)} tensors are differenced; outputs, gradients, random "
            "draws and buffers are the network's in eval and train mode"
        )
        split.recheck = partial(check_split, example=inputs, images=images, verify=True)
    return split


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
    backbone: nn.Module,
    merge_at: str,
    inputs: Inputs,
    images: ImageInputs,
    output: OutputSelector,
) -> Iterator[tuple[str, Callable[[], Split]]]:
    signature = InputSignature(inputs, images)

    def by_fx(shallow: bool) -> Split:
        cut = partial(FxSplit, backbone, merge_at, signature, output, shallow=shallow)
        with in_mode(backbone, False):
            try:
                return cut(proxy_buffers=True)
            except (IllegalPointError, WriteError):
                raise
            except Exception:
                # Some networks branch on a buffer's value or type, which a recorded read hides.
                return cut(proxy_buffers=False)

    yield "hook", partial(HookSplit, backbone, merge_at, output)
    yield "shallow fx", partial(by_fx, True)
    yield "full fx", partial(by_fx, False)


def _advice(
    backbone: nn.Module,
    merge_at: str,
    inputs: Inputs,
    output: OutputSelector,
    images: ImageInputs,
) -> str:
    try:
        points = list_merge_points(backbone, inputs, output=output, image_inputs=images)
    except Exception:
        _LOG.debug("listing merge points failed", exc_info=True)
        return "Use merge_at='output', or a module that the whole image passes through."
    near = ", ".join(repr(n) for n in nearest_points(backbone, merge_at, points))
    return f"Nearest legal merge points: {near}. list_merge_points(backbone) lists all."
