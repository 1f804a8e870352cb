"""What a training minimises, and with which steps: loss, optimiser, learning rates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from siamcal.errors import ConfigError
from siamcal.model.heads import AUOutput
from siamcal.training.losses import (
    IntensityWeights,
    cosine_loss,
    count_levels,
    count_occurrences,
    detection_loss,
    detection_weights,
    huber_loss,
    intensity_loss,
    intensity_weights,
    ordinal_loss,
    weighted_mse_loss,
)
from siamcal.training.recipe import Recipe

__all__ = ["Objective", "learning_rate_factor", "make_optimizer"]


class Objective:
    """The task's loss with the class weights of the training rows.

    Args:
        recipe: Task, weights of the loss's parts, form of Eq. 7.
        labels: (N, A) labels of the training rows.
        device: Where the network's output lies.
    """

    def __init__(self, recipe: Recipe, labels: np.ndarray, device: torch.device) -> None:
        self.recipe = recipe
        self.weights: IntensityWeights | torch.Tensor
        if recipe.task == "intensity":
            counts = count_levels(labels)
            self.weights = intensity_weights(counts, printed_eq7=recipe.printed_eq7).to(device)
        else:
            self.weights = detection_weights(count_occurrences(labels)).to(device)

    def __call__(self, output: Any, labels: torch.Tensor) -> torch.Tensor:
        """Scalar loss, mean over the batch; `labels` (B, A)."""
        if isinstance(self.weights, IntensityWeights):
            mse, cos, ordinal = self.recipe.loss_weights
            if self.recipe.huber:
                return self._robust(output, labels)
            if isinstance(output, torch.Tensor):  # of a RawIntensityHead: there are no logits
                intensity = output.float()
                return mse * weighted_mse_loss(
                    intensity, labels, self.weights.mse
                ) + cos * cosine_loss(intensity, labels)
            parts = intensity_loss(AUOutput(*output), labels, self.weights)
            return mse * parts.mse + cos * parts.cos + ordinal * parts.ordinal
        return detection_loss(output, labels, self.weights)

    def _robust(self, output: Any, labels: torch.Tensor) -> torch.Tensor:
        """Huber's loss in the place of the squared error; the other parts as they are."""
        assert isinstance(self.weights, IntensityWeights)
        first, cos, ordinal = self.recipe.loss_weights
        plain = isinstance(output, torch.Tensor)
        intensity = output.float() if plain else output.intensity.float()
        loss = first * huber_loss(intensity, labels, self.recipe.huber)
        loss = loss + cos * cosine_loss(intensity, labels) if cos else loss
        if plain or not ordinal:
            return loss
        logits = output.ordinal_logits.float()
        return loss + ordinal * ordinal_loss(logits, labels, self.weights.ordinal)


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Adam (L2, as the paper) or AdamW, with the last layer's own learning rate.

    What a merge form or null reference names in `no_weight_decay()` (timm's convention) doesn't
    decay: an anchor would drift from the features that it is the mean of.
    """
    last = {id(p) for p in _last_layer(network).parameters()}
    kept = _undecayed(network)
    parameters = [p for p in network.parameters() if p.requires_grad and id(p) not in kept]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if id(p) not in last], "lr": recipe.learning_rate},
        {"params": [p for p in parameters if id(p) in last], "lr": recipe.learning_rate_last},
    ]
    if kept:
        undecayed = [p for p in network.parameters() if p.requires_grad and id(p) in kept]
        groups.append({"params": undecayed, "lr": recipe.learning_rate, "weight_decay": 0.0})
    kind = torch.optim.AdamW if recipe.decoupled_decay else torch.optim.Adam
    return kind(groups, weight_decay=recipe.weight_decay)


def _undecayed(network: nn.Module) -> set[int]:
    """Ids of the parameters of merge form and null reference that don't decay."""
    parts = [getattr(network, name, None) for name in ("merge_form", "null_reference")]
    modules: list[Any] = [m for p in parts if isinstance(p, nn.Module) for m in p.modules()]
    return {
        id(module.get_parameter(name))
        for module in modules
        if callable(getattr(module, "no_weight_decay", None))
        for name in module.no_weight_decay()
    }


def _last_layer(network: nn.Module) -> nn.Module:
    """The last module with parameters of its own that makes the outputs: a Linear or 1x1 Conv."""
    layers = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    if not layers:
        raise ConfigError("The network has no Linear or Conv2d layer that could be its last.")
    return layers[-1]


def learning_rate_factor(recipe: Recipe, step: int, steps: int) -> float:
    """Factor on the learning rates at `step` of `steps`: 1, or warm-up and a half cosine."""
    if recipe.schedule == "constant":
        return 1.0
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, steps - recipe.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * done))
