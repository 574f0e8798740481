"""Exponential moving average of a network's weights; the average is evaluated and saved."""

import copy

import torch
from torch import Tensor, nn


class Average:
    """Exponential moving average of a network, batch-norm statistics included.

    Parameters and batch norm's running mean and variance are averaged; every other buffer (a
    counter, a constant) is copied. The decay is min(decay, (1 + t) / (10 + t)), as in TensorFlow's
    ExponentialMovingAverage: it grows from 0.1, so that early averages follow the weights.

    Args:
        model: the network to average; `self.model` is a copy of it in evaluation mode.
        decay: the largest decay; with 0 the average equals the last weights.
        start_share: share of the first weights in `mixed`.

    Attributes:
        start: the network before the first step; None where `start_share` is 0.
    """

    def __init__(self, model: nn.Module, decay: float, start_share: float = 0.0) -> None:
        self.decay, self.start_share = decay, start_share
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.start = copy.deepcopy(self.model) if start_share else None
        moving = _moving_statistics(model)
        self._averaged: list[tuple[Tensor, Tensor]] = []  # (average, network)
        self._copied: list[tuple[Tensor, Tensor]] = []
        for (name, ours), theirs in zip(_tensors(self.model), _tensors(model), strict=True):
            parameter = isinstance(theirs[1], nn.Parameter)
            pairs = self._averaged if parameter or name in moving else self._copied
            pairs.append((ours, theirs[1]))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights after step `step`, counted from 1."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.decay else 0.0
        ours, theirs = zip(*self._averaged, strict=True)
        torch._foreach_lerp_(ours, theirs, 1 - decay)
        for mine, other in self._copied:
            mine.copy_(other)

    @property
    def mixed(self) -> nn.Module:
        """The network that is evaluated and saved: the average, with a share of the first weights.

        Source: Wortsman et al. 2021, "Robust fine-tuning of zero-shot models", arXiv:2109.01903.
        """
        if self.start is None:
            return self.model
        mixed = copy.deepcopy(self.model)
        moving = _moving_statistics(mixed)
        for (name, ours), (_, first) in zip(_tensors(mixed), _tensors(self.start), strict=True):
            # Statistics of batch norm are averaged like weights and not computed anew: so a share
            # of 1 answers as the start does, and no image is needed.
            if isinstance(ours, nn.Parameter) or name in moving:
                ours.lerp_(first, self.start_share)
        return mixed


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _moving_statistics(model: nn.Module) -> set[str]:
    """Names of the running means and variances of all batch norms."""
    return {
        f"{name}.{key}".removeprefix(".")
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for key in ("running_mean", "running_var")
    }
