"""What tools around a network ask it for: plain checkpoints, timm's groups of parameters."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from siamcal.errors import ConfigError, WeightsError

__all__ = ["InteropMixin"]

_LOG = logging.getLogger(__name__)
_PREFIX = "backbone."
# What DataParallel, DistributedDataParallel and torch.compile put before every name.
_WRAPPERS = ("module.", "_orig_mod.", "model.")


class InteropMixin:
    """State dicts of the plain network, and timm's optimiser helpers, for the wrapped network."""

    backbone: nn.Module

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load a state dict of this model, or of the plain network it wraps.

        The plain network's names lack "backbone."; such a state dict goes into the backbone.

        Args:
            state_dict: Names and tensors.
            strict: Refuse missing and unexpected names.
            assign: Take the tensors themselves instead of copying their values.

        Returns:
            Missing and unexpected names, as `torch.nn.Module.load_state_dict`.

        Raises:
            WeightsError: None of the names fits.
        """
        plain = set(self.backbone.state_dict())
        own = set(self.state_dict())  # type: ignore[attr-defined]
        fitting = len(own & set(state_dict)), len(plain & set(state_dict))
        if state_dict and not any(fitting):
            raise WeightsError(_nothing_fits(list(state_dict), sorted(own)))
        if fitting[1] > fitting[0]:
            _LOG.info("the state dict is the plain network's and goes into the backbone")
            state_dict = {_PREFIX + name: value for name, value in state_dict.items()}
        return super().load_state_dict(state_dict, strict=strict, assign=assign)  # type: ignore[misc]

    def _check_sharding(self, through: Sequence[str]) -> None:
        """Refuse FSDP on a module that torch.fx looked through: its parameters aren't gathered."""
        kind = _fsdp()
        if kind is None:
            return
        for path in through:
            if isinstance(self.backbone.get_submodule(path), kind):
                named = f"backbone.{path}" if path else "backbone"
                raise ConfigError(
                    f"fully_shard was applied to {named!r}, which this model's torch.fx cut looks "
                    "through, so its parameters would stay sharded. Apply it to the wrapped model, "
                    "fully_shard(model), and to modules that don't hold the merge point; or merge "
                    "where a hook cuts (mechanism='hook')."
                )

    def _check_gathered(self) -> None:
        """Refuse to encode with a sharded model whose encode() doesn't gather its parameters."""
        kind = _fsdp()
        if kind is None or not isinstance(self, kind) or "encode" in self.__dict__:
            return
        parameters = self.parameters()
        if any(hasattr(p, "full_tensor") for p in parameters):
            raise ConfigError(
                "This model is sharded, and only forward() gathers its parameters. Call once, "
                "afterwards: torch.distributed.fsdp.register_fsdp_forward_method(model, 'encode')."
            )

    # Properties: tools ask hasattr(), and get them only where the backbone has them.

    @property
    def no_weight_decay(self) -> Callable[[], set[str]]:
        """timm: names of the parameters that don't decay."""
        own = self.backbone.no_weight_decay
        return lambda: {_PREFIX + name for name in own()}  # type: ignore[operator]

    @property
    def group_matcher(self) -> Callable[..., Any]:
        """timm: the layers of the backbone, for layer decay; head and merge form count as last."""
        own: Any = self.backbone.group_matcher

        def group_matcher(coarse: bool = False) -> Any:
            return _prefixed(own(coarse=coarse))

        return group_matcher


def _fsdp() -> Any:
    """FSDP2's mark of a sharded module, if anyone uses it."""
    loaded = sys.modules.get("torch.distributed.fsdp")
    return getattr(loaded, "FSDPModule", None)


def _prefixed(matcher: Any) -> Any:
    """A description of layers for timm, by patterns or by a function, for names with our prefix."""
    if callable(matcher):
        last = (float("inf"),)
        return lambda name: (
            matcher(name.removeprefix(_PREFIX)) if name.startswith(_PREFIX) else last
        )
    if isinstance(matcher, Mapping):
        return {key: _prefixed(value) for key, value in matcher.items()}
    if isinstance(matcher, str):
        # timm matches from the start; its patterns' own anchors stand at starts of alternatives.
        pattern = re.sub(r"(^|\||\()\^", r"\1", matcher)
        return re.escape(_PREFIX) + f"(?:{pattern})"
    if isinstance(matcher, tuple) and matcher and isinstance(matcher[0], str):
        return (_prefixed(matcher[0]), *matcher[1:])  # a pattern and what follows its groups
    if isinstance(matcher, list | tuple):
        return [_prefixed(value) for value in matcher]
    return matcher


def _nothing_fits(given: list[str], own: list[str]) -> str:
    text = f"None of the state dict's {len(given)} names fits: its first is {given[0]!r}, "
    text += f"this model's is {own[0]!r}. " if own else "this model has none. "
    for prefix in _WRAPPERS:
        if all(name.startswith(prefix) for name in given):
            return text + (
                f"They all begin with {prefix!r}, from another wrapper: take it off with "
                "torch.nn.modules.utils.consume_prefix_in_state_dict_if_present(state_dict, "
                f"{prefix!r})."
            )
    return text + (
        "It is another network's. A plain network's goes into model.unwrap().load_state_dict(...); "
        "siamcal.load_face_weights(model.unwrap(), path) reports what fits."
    )
