"""What modules that a trace takes as one step do out of its sight.

They may write into a value that others read, or keep in an attribute or buffer what others read.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from siamcal.errors import MergePointError
from siamcal.graph.flow import Flow
from siamcal.graph.inputs import ImageInputs, Probe, fresh, run_network, tensors_in
from siamcal.graph.points import marked
from siamcal.graph.split import FxSplit
from siamcal.graph.state import in_mode, kept_buffers

__all__ = [
    "BypassError",
    "MismatchError",
    "check_carried",
    "check_carried_in_training",
    "check_hidden_writes",
]

_LOG = logging.getLogger(__name__)


class MismatchError(MergePointError):
    """Both halves together don't compute what the network computes."""


class BypassError(MergePointError):
    """Something of the image passes the merge module by."""


def check_hidden_writes(split: FxSplit, probe: Probe) -> None:
    """No module that the trace took as one step writes into a value that others read too."""
    versions: dict[str, list[int]] = {}
    written: list[str] = []

    def now(args: Any, kwargs: Any) -> list[int]:
        leaves = pytree.tree_leaves((args, kwargs))
        return [v._version for v in leaves if isinstance(v, Tensor)]

    def enter(path: str, _: Any, args: Any, kwargs: Any) -> None:
        versions[path] = now(args, kwargs)

    def leave(path: str, _: Any, args: Any, kwargs: Any, __: Any) -> None:
        if versions[path] != now(args, kwargs):
            written.append(path)

    if not split.sharing:
        return
    handles = []
    for path in split.sharing:
        module = split.network.get_submodule(path)
        handles.append(module.register_forward_pre_hook(partial(enter, path), with_kwargs=True))
        handles.append(module.register_forward_hook(partial(leave, path), with_kwargs=True))
    try:
        with kept_buffers(split.network):
            run_network(split.network, fresh(probe.large), split.selector)
    finally:
        for handle in handles:
            handle.remove()
    if written:
        raise MismatchError(
            f"'{written[0]}' writes into its input, which is read elsewhere too; make it work out "
            "of place"
        )


def check_carried(split: FxSplit, flow: Flow, leaves: Sequence[Any], state: Any) -> None:
    """No attribute or buffer carries the image past the merge: no difference would be taken of it.

    Modules that are taken as one step may keep what they get, and others may read it there.
    """
    free = [
        v.clone() if isinstance(v, Tensor) else v for v in leaves
    ]  # not followed, so what comes from the image now didn't cross
    with kept_buffers(split.network), flow:
        output = split.resume(free, state)
    if not flow.comes_from_image(tensors_in(output)):
        return
    kept = [
        f"{path}.{name}".lstrip(".")
        for path, module in split.network.named_modules()
        for name, value in {**module.__dict__, **module._buffers}.items()
        if isinstance(value, Tensor) and flow.comes_from_image([value])
    ]
    where = f"{kept[0]!r}" if kept else "an attribute or buffer"
    raise BypassError(
        f"{where} keeps what is made of the image before the merge, and it is read behind it, so "
        "no difference would be taken of it"
    )


def check_carried_in_training(split: FxSplit, probe: Probe, images: ImageInputs) -> None:
    """The same in train mode, where running statistics move too."""
    flow = Flow()
    try:
        with in_mode(split.network, True), torch.no_grad(), kept_buffers(split.network):
            with flow:
                leaves, state = split.crossing(marked(flow, probe.large, images))
            check_carried(split, flow, leaves, state)
    except MergePointError:
        raise
    except Exception as error:
        _LOG.info("not followed in train mode, the network fails there: %s", error)
