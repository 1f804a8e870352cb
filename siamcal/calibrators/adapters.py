"""Adapters: only what calibration changed is saved, to be laid over the public backbone.

The backbone's part before the merge point isn't saved. Its checksum is, so that an adapter over
any other weights is refused instead of predicting something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from siamcal.calibrators.config import CalibratorConfig
from siamcal.errors import ConfigError, WeightsError
from siamcal.files import asset
from siamcal.graph.dataflow import gradient_functions
from siamcal.graph.state import in_mode
from siamcal.model.create import create_backbone, has_public_weights
from siamcal.model.weights import load_face_weights
from siamcal.model.weights_file import TensorInfo, checksum_of_tensors

if TYPE_CHECKING:
    from siamcal.model.siamese import CalibratingSiamese


_ASSET = re.compile(r"asset:([A-Za-z0-9_]+\.safetensors)")


def pre_merge_names(
    model: CalibratingSiamese, input_shape: Sequence[int], example_inputs: Any = None
) -> set[str]:
    """Names in the backbone's state dict that act only before the (first) merge point.

    Found by what the features and the output really depend on, whatever cut the network:
    parameters through the gradient graph; buffers belong where their module's parameters do.

    Args:
        model: The calibrator.
        input_shape: (C, H, W) of one image.
        example_inputs: A valid input, where it isn't one image.
    """
    backbone = model.unwrap()
    if example_inputs is None:
        first = next(backbone.parameters())
        example_inputs = torch.rand(2, *input_shape).to(first.device, first.dtype)
    split = model.split.points[0]
    with in_mode(backbone, False), _all_differentiable(backbone), torch.enable_grad():
        called: set[str] = set()
        with _noting(backbone, called):
            features = split.pre(example_inputs)
        before = _leaves_behind(features.tensors)
        after_called: set[str] = set()
        cut = features.with_tensors([t.detach() for t in features.tensors])
        with _noting(backbone, after_called):
            output = split.post(cut)
        after = _leaves_behind(pytree.tree_leaves((output, features.passed)))
    own = {name: id(p) for name, p in backbone.named_parameters(remove_duplicate=False)}
    names = {name for name, key in own.items() if key in before and key not in after}
    for name, _ in backbone.named_buffers(remove_duplicate=False):
        owner = name.rpartition(".")[0]
        beside = [n for n in own if n.rpartition(".")[0] == owner]
        if beside:
            inside = all(n in names for n in beside)
        else:
            inside = owner in called and owner not in after_called
        if inside:
            names.add(name)
    return names & set(backbone.state_dict())


def fetches_base(config: CalibratorConfig, name: str, base: str | Path | None) -> bool:
    """Whether `base_network` would download the public weights."""
    return base is None and not _ASSET.fullmatch(config.base_model) and has_public_weights(name)


def base_network(
    config: CalibratorConfig, name: str, arguments: dict[str, Any], base: str | Path | None
) -> nn.Module:
    """The public backbone with its public weights.

    Raises:
        ConfigError: Its weights can't be found by name; the message says what to pass.
    """
    if base is None and (named := _ASSET.fullmatch(config.base_model)):
        base = asset(named[1])
    if base is not None:
        network = create_backbone(name, **arguments)
        load_face_weights(network, base)
        return network
    if has_public_weights(name):
        return create_backbone(name, pretrained=True, **arguments)
    raise ConfigError(
        f"This is an adapter over {name!r} with the weights {config.base_model or 'not named'!r}. "
        "Pass their file with base= (such as glint360k's backbone.pth), or the network with its "
        "weights with backbone=."
    )


def check_base(
    model: CalibratingSiamese,
    config: CalibratorConfig,
    header: Mapping[str, TensorInfo],
    example_inputs: Any,
    *,
    verify: bool = True,
) -> None:
    """Hold the backbone below an adapter against the one it was trained over.

    Args:
        model: The calibrator.
        config: Its description.
        header: The adapter's tensors.
        example_inputs: A valid input of the backbone.
        verify: Run the network to see which tensors act behind the merge point. False trusts the
            checksum, of names too, that whoever saved the adapter wrote of the others.

    Raises:
        WeightsError: Other tensors, or other values in them.
    """
    state = model.unwrap().state_dict()
    saved = {name.removeprefix("backbone.") for name in header if name.startswith("backbone.")}
    below = {name: tensor for name, tensor in state.items() if name not in saved}
    if verify:
        lacking = set(below) - pre_merge_names(model, config.input_shape, example_inputs)
        if lacking:
            raise WeightsError(
                f"The adapter lacks {len(lacking)} tensors behind the merge point "
                f"({min(lacking)} first); it doesn't belong to this network."
            )
    if checksum_of_tensors(below) != config.base_checksum:
        raise WeightsError(
            f"This adapter was trained over {config.base_model or config.backbone or 'a network'} "
            f"with other weights before '{config.points[0]}' than the ones below it now: their "
            "checksums differ. Pass the right weights with base= or backbone=."
        )


def _leaves_behind(values: Sequence[Any]) -> set[int]:
    """Ids of the parameters that the values depend on."""
    edges = [(v.grad_fn, v.output_nr) for v in values if isinstance(v, Tensor)]
    return {id(f.variable) for f in gradient_functions(edges) if hasattr(f, "variable")}


@contextmanager
def _all_differentiable(backbone: nn.Module) -> Iterator[None]:
    parameters = [p for p in backbone.parameters() if p.is_floating_point()]
    before = [p.requires_grad for p in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter, wanted in zip(parameters, before, strict=True):
            parameter.requires_grad_(wanted)


@contextmanager
def _noting(backbone: nn.Module, called: set[str]) -> Iterator[None]:
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: called.add(name))
        for name, module in backbone.named_modules()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
