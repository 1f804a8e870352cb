"""What a stranger's calibrator may not decide: whom to contact, and how much work opening it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from siamcal.calibrators.config import CalibratorConfig
from siamcal.errors import ConfigError, HubError, SiamcalError, WeightsError
from siamcal.model.create import is_file_name, may_be_named, source_prefixes
from siamcal.model.merges import CUSTOM, MergeForm
from siamcal.model.weights_file import TensorInfo

__all__ = ["check_contact", "check_header", "check_probe", "name_to_build", "reached"]

# Sources that download; one that a package or script of the user's registered is theirs to know.
_FETCHING = ("hf-hub", "timm", "torchvision", "transformers")
# Proving a cut takes some forwards of two images. Up to this side they cost what any use does.
_FREE_SIDE = 384
# Beyond it, in one forward: together below two seconds and 200 MB.
_MOST_FLOPS = 1e10
_MOST_BYTES = 24 << 20
_SECONDS = 5.0  # to wait for the Hub


def name_to_build(config: CalibratorConfig) -> str:
    """The config's name of the network, if it can only be looked up in the registry.

    Raises:
        ConfigError: It has none, or one that would run or import something.
    """
    name = config.backbone
    if not name:
        raise ConfigError(
            "This calibrator's network is its author's own and can't be made by name. Make it "
            "yourself and pass it: load with backbone=net."
        )
    if is_file_name(name):
        raise ConfigError(
            f"This calibrator's network comes from its author's own file, {name[:100]!r}; "
            "siamcal never runs a file because a config names it. If you have that file and "
            "trust it, load with backbone='./FILE.py:FUNCTION' or with the network itself."
        )
    if not may_be_named(name):
        sources = [f"'{prefix}NAME'" for prefix in source_prefixes() if prefix.endswith(":")]
        raise ConfigError(
            f"The config names the backbone {name[:100]!r}, which is neither a registered name nor "
            f"of the form {', '.join(sources)} (or OWNER/NAME). Paths and imports are never "
            "followed; import the package that registers it, or pass the network with backbone=."
        )
    return name


def check_header(
    config: CalibratorConfig,
    header: Mapping[str, TensorInfo],
    head: nn.Module | None,
    merge: MergeForm | None,
) -> None:
    """Refuse tensors of no part of a calibrator, and parts that only their author has.

    Raises:
        WeightsError: A tensor's name.
        ConfigError: `head` or `merge` must be passed.
    """
    for name in header:
        if not name.startswith(("backbone.", "head.", "merge.", "null.")):
            raise WeightsError(
                f"model.safetensors holds {name[:80]!r}; a calibrator's tensors start with "
                "'backbone.', 'head.', 'merge.' or 'null.'. `siamcal convert` turns other "
                "checkpoints into one."
            )
    if config.task == "custom" and head is None:
        raise ConfigError("This calibrator has a head of its author's own: pass it with head=.")
    if config.merge == CUSTOM and merge is None:
        raise ConfigError("This calibrator merges in its author's own way: pass it with merge=.")


def check_contact(name: str, downloads: bool, trust: bool) -> str:
    """Refuse to contact anybody because a config says so, unless the user trusts it.

    Args:
        name: The config's name of the network.
        downloads: Whether its public weights would be fetched too (an adapter's base).
        trust: The user's word.

    Returns:
        The repository, folder or name that is contacted; "" for none.

    Raises:
        ConfigError: It isn't trusted.
    """
    source, _, rest = name.partition(":")
    # transformers takes a folder of that name in the working folder for the model.
    beside = "/" in rest or Path(rest).exists()
    repository = source == "hf-hub" or (source == "transformers" and beside)
    if not (repository or (downloads and source in _FETCHING)):
        return ""
    if not trust:
        what = f"the repository or folder {rest[:100]!r}" if repository else "public weights"
        raise ConfigError(
            f"This calibrator's config asks for {what} (backbone {name[:100]!r}), which siamcal "
            "doesn't fetch because a config says so: it would decide what network is built, and "
            "learn that you load it. If you know it, say so: trust=True (--trust); or pass the "
            "network with backbone=, or an adapter's public weights with base=."
        )
    return rest or name


@contextmanager
def reached(contact: str) -> Iterator[None]:
    """Errors of the network while something trusted is fetched, in words; at once where offline.

    Args:
        contact: What `check_contact` returned; "" does nothing.

    Raises:
        HubError: It can't be reached, or isn't there.
    """
    if not contact:
        yield
        return
    from huggingface_hub import try_to_load_from_cache

    from siamcal.calibrators.hub.sources import Source, explained, hub_api

    place = Source(None, contact)
    with explained(place):
        if "/" in contact and not isinstance(try_to_load_from_cache(contact, "config.json"), str):
            hub_api(None).model_info(contact, timeout=_SECONDS)  # the libraries retry for a minute
        try:
            yield
        except SiamcalError:
            raise
        except RuntimeError as error:  # timm has no weights for the name
            raise HubError(f"{contact} can't be fetched: {str(error)[:300]}") from None


def check_probe(network: nn.Module, shape: tuple[int, ...], trust: bool) -> None:
    """Refuse to run a network on images whose size makes the proof of its cut a burden.

    What a forward costs is counted on the meta device, where it costs nothing.

    Args:
        network: The network.
        shape: (C, H, W) as the config says.
        trust: The user's word that it is worth it.

    Raises:
        ConfigError: It takes more, or can't read such images.
    """
    if trust or max(shape[1:]) <= _FREE_SIDE:
        return
    try:
        flops, largest = _cost(network, (2, *shape))
    except Exception as error:  # whatever a network raises on images of a wrong size
        raise ConfigError(
            f"The config says that images have the shape {shape}, which its network doesn't read "
            f"({str(error)[:200]})."
        ) from None
    if flops > _MOST_FLOPS or largest > _MOST_BYTES:
        raise ConfigError(
            f"The config says that images have the shape {shape}. Proving the network's cut on "
            f"them takes {flops / 1e9:.0f} billion operations a forward and {largest / 1e6:.0f} MB "
            f"a layer; beyond {_FREE_SIDE} px a side at most {_MOST_FLOPS / 1e9:.0f} and "
            f"{_MOST_BYTES / 1e6:.0f} MB are spent on a config's word. If you know it, say so: "
            "trust=True (--trust)."
        )


def _cost(network: nn.Module, shape: tuple[int, ...]) -> tuple[float, float]:
    """Operations of a forward, and bytes of its largest tensor."""
    shadow = {
        name: torch.empty_like(tensor, device="meta")
        for named in (network.named_parameters(), network.named_buffers())
        for name, tensor in named
    }
    sizes, count = _Sizes(), FlopCounterMode(display=False)
    run: Callable[..., Any] = functional_call
    with torch.no_grad(), count, sizes:
        run(network.eval(), shadow, (torch.empty(shape, device="meta"),))
    return float(count.get_total_flops()), float(sizes.largest)


class _Sizes(TorchDispatchMode):
    """Notes the largest tensor that is made."""

    largest = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in pytree.tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.numel() * tensor.element_size())
        return made
