"""A whole trained network from its user's checkpoint: every entry fits, or it is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from siamcal.datasets.base import au_column
from siamcal.errors import ConfigError, DataNotFoundError, WeightsError
from siamcal.files import checksum_of_file
from siamcal.model.create import create_backbone
from siamcal.model.heads import RawIntensityHead, make_head
from siamcal.model.weights_file import read_state_dict
from siamcal.training.recipe import Recipe

__all__ = ["describe_checkpoint", "load_trained"]

# Names listed of each kind in a refusal; a wrong file has hundreds.
_SHOWN = 12


def load_trained(recipe: Recipe, num_aus: int) -> tuple[nn.Module, nn.Module]:
    """The trained network of `recipe.checkpoint`, and the head that reads its outputs.

    Whether the network is built with its own number of outputs, with the task's or with one an AU
    is decided by which of them the file fits, strictly: no entry may be missing, left over or of
    another shape (a missing `num_batches_tracked`, which older files lack, is 0 as in torch).

    Args:
        recipe: Names backbone, checkpoint, task and the size of the images.
        num_aus: Number of AUs of the data set, A.

    Returns:
        The network in eval mode, (B, 3, S, S) -> (B, W), and its head: of the task for W = 6A
        (intensity, the layout of `IntensityHead`) or W = A (detection), `RawIntensityHead` for
        intensity with W = A.

    Raises:
        DataNotFoundError: There is no such file.
        WeightsError: It holds no plain state dict, or it doesn't fit; all misfits are named.
        ConfigError: The network can't read the images, or its outputs are none of these.
    """
    path = _found(recipe.checkpoint)
    network = _fitting(recipe, path, make_head(recipe.task, num_aus).num_outputs, num_aus)
    network.eval()
    return network, _head(recipe, network, num_aus)


def describe_checkpoint(recipe: Recipe, aus: Sequence[int]) -> dict[str, Any]:
    """What a report says of a checkpoint: file, checksum, width of the outputs, what they are.

    Args:
        recipe: As for `load_trained`, which this calls, so that a wrong file is refused.
        aus: AUs of the data set, in the order in which the outputs are read.
    """
    _, head = load_trained(recipe, len(aus))
    raw = isinstance(head, RawIntensityHead)
    return {
        "file": Path(recipe.checkpoint).name,
        "sha256": checksum_of_file(Path(recipe.checkpoint).expanduser()),
        "outputs": head.num_outputs,
        "layout": "one intensity an AU" if raw else f"the {recipe.task} head's",
        "order": [au_column(au) for au in aus],
    }


def _found(checkpoint: str) -> Path:
    path = Path(checkpoint).expanduser()
    if not path.exists():
        raise DataNotFoundError(
            f"There is no file {path}. A checkpoint is the state dict of the whole trained "
            "network: torch.save(model.state_dict(), PATH), or a .safetensors file of it."
        )
    return path


def _fitting(recipe: Recipe, path: Path, task_outputs: int, num_aus: int) -> nn.Module:
    """The backbone with the file's weights, built with the number of outputs that the file has."""
    misfits: list[tuple[int, str]] = []
    problem: ConfigError | None = None
    for outputs in dict.fromkeys((None, task_outputs, num_aus)):
        torch.manual_seed(recipe.seed)  # what a state dict doesn't hold
        try:
            network = create_backbone(recipe.backbone, outputs, **recipe.backbone_options)
        except ConfigError as error:  # not every function takes num_outputs, and some insist on it
            problem = problem or error
            continue
        own = network.state_dict()
        state = read_state_dict(path, own)
        count, text = _misfit(state, own)
        if not count:
            _load(network, state, path)
            return network
        misfits.append((count, text))
    if not misfits:
        assert problem is not None
        raise problem
    raise WeightsError(
        f"{path} isn't the checkpoint of the whole network {recipe.backbone!r}: "
        f"{min(misfits)[1]}. Give the state dict of the very network that --backbone builds, "
        "with every entry; start weights that fit in part are given by --set weights=PATH."
    )


def _misfit(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[int, str]:
    """How many entries don't fit, and which."""
    optional = "num_batches_tracked"
    lists = {
        "missing in the file": [n for n in own if n not in state and not n.endswith(optional)],
        "not in the network": [n for n in state if n not in own],
        "of another shape": [
            f"{n} {tuple(v.shape)} in the file, {tuple(own[n].shape)} in the network"
            for n, v in state.items()
            if n in own and v.shape != own[n].shape
        ],
    }
    named = [
        f"{len(names)} {kind} ({', '.join(names[:_SHOWN])}"
        + (f" and {len(names) - _SHOWN} more)" if len(names) > _SHOWN else ")")
        for kind, names in lists.items()
        if names
    ]
    return sum(map(len, lists.values())), "; ".join(named)


def _load(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:  # what torch refuses beyond names and shapes: extra states
        raise WeightsError(f"{path} can't be loaded: {error}") from None


def _head(recipe: Recipe, network: nn.Module, num_aus: int) -> nn.Module:
    head = make_head(recipe.task, num_aus)
    output = _output(recipe, network)
    if not isinstance(output, Tensor) or output.ndim != 2:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ConfigError(
            f"{recipe.backbone!r} returns {shape} for two images; a checkpoint's network must "
            "return one tensor (batch, outputs). Return that from your function's network."
        )
    if not bool(output.isfinite().all()):
        raise ConfigError(
            f"{recipe.backbone!r} with {recipe.checkpoint} reads NaN or infinity in a black image; "
            "the training that made it has diverged, or its forward divides by what is 0."
        )
    width = output.shape[1]
    if width == head.num_outputs:
        return head
    if width == num_aus:
        return RawIntensityHead(num_aus)
    allowed = f"{num_aus} (one an AU)" + f" or {head.num_outputs}" * (recipe.task == "intensity")
    raise ConfigError(
        f"{recipe.backbone!r} with {recipe.checkpoint} gives {width} outputs, but the data set has "
        f"{num_aus} AUs; for {recipe.task} it must give {allowed}, in ascending order of the AUs. "
        "Keep the columns of the network's own AUs in the table, or return only the outputs of "
        "the table's AUs from your network."
    )


def _output(recipe: Recipe, network: nn.Module) -> Any:
    size = recipe.preprocessing.size
    try:
        with torch.inference_mode():
            return network(torch.zeros(2, 3, size, size))
    except (RuntimeError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{recipe.backbone!r} can't read images of 3 x {size} x {size} "
            f"({str(error)[:200]}); give its size by --set preprocessing.size=S."
        ) from error
