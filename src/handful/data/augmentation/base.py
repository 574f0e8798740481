"""The interface of an augmentation operation, and helpers that draw its values."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from handful.data.augmentation.resample import Canvas, Size
from handful.errors import HandfulError


class Operation:
    """One step of a pipeline: a frozen dataclass whose fields are its parameters.

    Drawing values and applying them are separate, so that values can be applied again.
    """

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Values for a batch of `shape` (N, C, H, W), one row per image."""
        raise NotImplementedError

    def on(self, canvas: Canvas, values: Tensor) -> Canvas:
        """The canvas after this step, applied with values that `draw` returned."""
        raise NotImplementedError

    def output_size(self, size: Size) -> Size:
        """Height and width after this step."""
        return size


def uniform(
    generator: torch.Generator, low: float, high: float, *shape: int, log: bool = False
) -> Tensor:
    """Numbers of `shape`, uniform from `low` to `high`; with `log`, uniform in their logarithm."""
    if log:
        return uniform(generator, math.log(low), math.log(high), *shape).exp_()
    drawn = torch.rand(shape, generator=generator, device=generator.device)
    return drawn.mul_(high - low).add_(low)


def coin(generator: torch.Generator, probability: float, n: int) -> Tensor:
    """(n,) bool, each true with `probability`."""
    return torch.rand(n, generator=generator, device=generator.device) < probability


def check_within(name: str, value: float, low: float, high: float) -> None:
    """HandfulError unless the parameter `name` lies from `low` to `high`."""
    if not low <= value <= high:
        raise HandfulError(f"{name} must be from {low:g} to {high:g}, got {value}")


def check_range(name: str, pair: tuple[float, float], low: float, high: float) -> None:
    """HandfulError unless the parameter `name` is a rising pair within `low` and `high`."""
    if len(pair) != 2 or not low <= pair[0] <= pair[1] <= high:
        raise HandfulError(
            f"{name} must be a pair (smallest, largest) within {low:g} and {high:g}, got {pair}"
        )
