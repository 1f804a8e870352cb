"""What the forms with parameters share: channels and positions in any layout, and being fitted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from siamcal.errors import ConfigError
from siamcal.graph.features import BatchLayout

__all__ = ["ChannelForm", "FittedForm", "choice", "number"]


class ChannelForm(nn.Module):
    """A form that tells channels from positions.

    It computes on rows (N, C, P): N samples, C channels, P positions (pixels, tokens), whatever
    the layout of the features is.

    Args:
        shape: Of one sample's features, its batch dimension included.
        layout: Where the samples lie; None: along the first dimension.
        channel_dim: The dimension that holds the channels, negative ones count from the end;
            None: the second of (N, C), unknown for more dimensions.

    Raises:
        ConfigError: The channels' dimension isn't known, isn't there or holds the samples.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        layout: BatchLayout | None = None,
        channel_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.layout = torch.Size(shape), layout or BatchLayout()
        self.channel_dim = _channel_dim(self.shape, self.layout.dim, channel_dim)
        self.channels = self.shape[self.channel_dim]
        self.positions = math.prod(self.shape) // self.channels

    @classmethod
    def check_options(cls, **options: Any) -> None:
        """Refuse wrong values of the options, on a small form made for the purpose.

        Raises:
            ConfigError: Which option takes what.
        """
        dim = options.pop("channel_dim", None)
        if dim is not None:
            _whole("channel_dim", dim)
        cls(torch.Size((1, 4, 2, 2)), channel_dim=1, **options)

    def rows(self, features: Tensor) -> Tensor:
        """Features in their own layout -> (N, C, P), a view where that is possible."""
        features, batch, channel, _ = self._apart(features)
        moved = features.movedim((batch, channel), (0, 1))
        return moved.unsqueeze(2) if moved.ndim == 2 else moved.flatten(2)

    def features(self, rows: Tensor, like: Tensor) -> Tensor:
        """(N, C, P) -> the layout, shape and type of `like`."""
        apart, batch, channel, grouped = self._apart(like)
        sizes = apart.movedim((batch, channel), (0, 1)).shape[2:]
        moved = rows.squeeze(2) if not sizes else rows.unflatten(2, sizes)
        whole = moved.movedim((0, 1), (batch, channel))
        if grouped:
            whole = whole.flatten(self.layout.dim, self.layout.dim + 1)
        return whole.to(like.dtype)

    def _apart(self, features: Tensor) -> tuple[Tensor, int, int, bool]:
        """The features with windows apart from samples, and the dims of samples and channels."""
        layout, channel = self.layout, self.channel_dim
        if layout.groups == 1:
            return features, layout.dim, channel, False
        sizes = (-1, layout.groups) if layout.sample_first else (layout.groups, -1)
        apart = features.unflatten(layout.dim, sizes)
        batch = layout.dim if layout.sample_first else layout.dim + 1
        return apart, batch, channel + 1 if channel > layout.dim else channel, True

    def extra_repr(self) -> str:
        """Shape, and the dimension of the channels."""
        return f"shape={tuple(self.shape)}, channel_dim={self.channel_dim}"


class FittedForm(ChannelForm):
    """A form that has to see neutral frames of anybody before it is used.

    Attributes:
        is_fitted: (1,) uint8, saved with the parameters.
    """

    is_fitted: Tensor

    def __init__(self, shape: Sequence[int], **options: Any) -> None:
        super().__init__(shape, **options)
        self.register_buffer("is_fitted", torch.zeros(1, dtype=torch.uint8))
        # The buffer's value as Python knows it: a look at an accelerator's would wait for it, and
        # an export can't decide by it.
        self._fitted = False

    @property
    def fitted(self) -> bool:
        """Whether `fit` was called, here or before the form was saved."""
        return self._fitted

    def fit(self, features: Tensor, people: Sequence[int] | None = None) -> Self:
        """Take what the form needs from neutral frames.

        Args:
            features: (N, ...) features of N frames in the layout of the form.
            people: N numbers, equal for frames of one person; None: everyone differs.
        """
        with torch.no_grad():
            rows = self.rows(features.detach().cpu()).double()
            count = len(rows)
            own = torch.arange(count) if people is None else torch.as_tensor(people)
            own = own.unique(return_inverse=True)[1]
            if own.shape != (count,):
                raise ConfigError(
                    f"people names {len(own)} persons for {count} frames; one for each frame."
                )
            self._fit(rows, own)
            self.is_fitted.fill_(1)
        self._fitted = True
        return self

    def _fit(self, rows: Tensor, people: Tensor) -> None:
        """Fit to rows (N, C, P), float64, of people 0, 1, ... (N,)."""
        raise NotImplementedError

    def need_fitted(self) -> None:
        """Refuse to compute before the form was fitted.

        Raises:
            ConfigError: It says how.
        """
        if not self._fitted:
            raise ConfigError(
                f"The merge form {type(self).__name__} has to be fitted to neutral frames of "
                "anybody before it is used: model.fit_anchor(neutral_images)."
            )

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        if not self.is_fitted.is_meta:
            self._fitted = bool(self.is_fitted.item())


def number(name: str, value: Any, low: float, high: float) -> float:
    """An option that is a number.

    Raises:
        ConfigError: It is none, or outside of low..high.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ConfigError(
            f"The merge option {name} takes a number from {low:g} to {high:g}, but got {value!r}."
        )
    return float(value)


def choice(name: str, value: Any, allowed: Sequence[str]) -> str:
    """An option that is one of a few words.

    Raises:
        ConfigError: It is none of them.
    """
    if value not in allowed:
        raise ConfigError(
            f"The merge option {name} takes {' or '.join(map(repr, allowed))}, but got {value!r}."
        )
    return value


def _whole(name: str, value: Any) -> None:
    if type(value) is not int:
        raise ConfigError(f"The merge option {name} takes a whole number, but got {value!r}.")


def _channel_dim(shape: torch.Size, batch: int, given: int | None) -> int:
    dims = len(shape)
    if given is None:
        others = [d for d in range(dims) if d != batch]
        if len(others) == 1:
            return others[0]
        if not others:
            raise ConfigError(
                "One number per sample crosses at this merge point, so there are no channels; "
                "merge elsewhere, or take merge='target_minus_reference'."
            )
        raise ConfigError(
            f"Which dimension of the features {tuple(shape)} holds the channels can't be told from "
            "the network's layers; say it: merge_options={'channel_dim': 1} (maps N, C, H, W) or "
            "{'channel_dim': -1} (tokens N, T, C)."
        )
    _whole("channel_dim", given)
    if not -dims <= given < dims or given % dims == batch:
        raise ConfigError(
            f"channel_dim={given} doesn't fit features of the shape {tuple(shape)}, whose samples "
            f"lie in dimension {batch}; allowed: "
            f"{', '.join(str(d) for d in range(dims) if d != batch)}."
        )
    return given % dims
