"""Geometric operations: they move pixels. A chain of them resamples the image once.

Each operation agrees with torchvision's function for equal parameters. A chain differs: torchvision
cuts the image at its border after every step. Here the border is applied once, at the end, so
content that leaves the frame and comes back is kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from handful.data.augmentation.base import Operation, check_range, check_within, coin, uniform
from handful.data.augmentation.resample import Canvas, Size, affine
from handful.errors import HandfulError


class Affine(Operation):
    """An operation that moves pixels by an affine matrix."""

    whole_pixels: ClassVar[bool] = False  # whether pixel centres are moved onto pixel centres

    def matrix(self, values: Tensor, size: Size) -> Tensor:
        """Matrices (N, 2, 3) from the result's pixels to those of the input, which has `size`."""
        raise NotImplementedError

    def on(self, canvas: Canvas, values: Tensor) -> Canvas:
        matrix = self.matrix(values, canvas.size)
        return canvas.moved(matrix, self.output_size(canvas.size), self.whole_pixels)


@dataclass(frozen=True)
class Flip(Affine):
    """Mirror left to right, or top to bottom. Values: (N,) bool."""

    probability: float = 0.5
    vertical: bool = False

    whole_pixels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_within("probability", self.probability, 0, 1)

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        return coin(generator, self.probability, shape[0])

    def matrix(self, values: Tensor, size: Size) -> Tensor:
        sign = 1.0 - 2.0 * values.float()
        return affine(values, yy=sign) if self.vertical else affine(values, xx=sign)


@dataclass(frozen=True)
class Crop(Affine):
    """A window of whole pixels at a random place. Values: (N, 2) top and left, in pixels."""

    padding: float = 0.125  # room beyond each border, as a share of the side: 4 pixels of 32
    size: int | None = None  # side of the window; None: as large as the image

    whole_pixels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_within("padding", self.padding, 0, 1)
        if self.size is not None and self.size < 1:
            raise HandfulError(f"size must be 1 pixel or more, got {self.size}")

    def output_size(self, size: Size) -> Size:
        return size if self.size is None else (self.size, self.size)

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        height, width = shape[2:]
        corners = []
        for side, window in zip((height, width), self.output_size((height, width)), strict=True):
            padding = round(self.padding * side)
            room = side + 2 * padding - window
            if room < 0:
                raise HandfulError(
                    f"Crop(size={window}) does not fit into images of {height}x{width} pixels with "
                    f"{padding} pixels of padding; choose a size up to {side + 2 * padding}"
                )
            place = torch.randint(
                room + 1, (shape[0],), generator=generator, device=generator.device
            )
            corners.append(place - padding)
        return torch.stack(corners, dim=1)

    def matrix(self, values: Tensor, size: Size) -> Tensor:
        height, width = self.output_size(size)
        top, left = values.float().unbind(dim=1)
        return affine(values, x=left + (width - size[1]) / 2, y=top + (height - size[0]) / 2)


@dataclass(frozen=True)
class ResizedCrop(Affine):
    """Enlarge a random window to the size of the image.

    Values: (N, 4) top, left, height and width of the window, in pixels. The window is never larger
    than the result, so no antialiasing is needed. torchvision cuts the window out first; here the
    outermost half pixel is interpolated with its neighbours outside of the window.
    """

    scale: tuple[float, float] = (0.2, 1.0)  # area of the window, as a share of the image's
    aspect: tuple[float, float] = (3 / 4, 4 / 3)  # width over height, drawn in its logarithm

    def __post_init__(self) -> None:
        check_range("scale", self.scale, 0, 1)
        check_range("aspect", self.aspect, 1e-3, 1e3)

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Draw as torchvision does: the first of ten windows that fits, or the last one, cut."""
        n, height, width = shape[0], shape[2], shape[3]
        area = uniform(generator, *self.scale, 10, n) * (height * width)
        aspect = uniform(generator, *self.aspect, 10, n, log=True)
        heights, widths = (area / aspect).sqrt().round(), (area * aspect).sqrt().round()
        fits = (heights <= height) & (widths <= width)
        fits[-1] = True
        first = fits.byte().argmax(dim=0, keepdim=True)  # (1, n)
        window_height = heights.gather(0, first)[0].clamp(1, height)
        window_width = widths.gather(0, first)[0].clamp(1, width)
        place = uniform(generator, 0, 1, 2, n)
        top = (place[0] * (height - window_height + 1)).floor()
        left = (place[1] * (width - window_width + 1)).floor()
        return torch.stack([top, left, window_height, window_width], dim=1)

    def matrix(self, values: Tensor, size: Size) -> Tensor:
        height, width = size
        top, left, window_height, window_width = values.unbind(dim=1)
        return affine(
            values,
            xx=window_width / width,
            x=left + (window_width - width) / 2,
            yy=window_height / height,
            y=top + (window_height - height) / 2,
        )


@dataclass(frozen=True)
class Rotate(Affine):
    """Rotate about the middle. Values: (N,) degrees, counter-clockwise."""

    degrees: float = 45.0

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        return uniform(generator, -self.degrees, self.degrees, shape[0])

    def matrix(self, values: Tensor, size: Size) -> Tensor:
        angle = values.deg2rad()
        cos, sin = angle.cos(), angle.sin()
        return affine(values, xx=cos, xy=-sin, yx=sin, yy=cos)


@dataclass(frozen=True)
class Shear(Affine):
    """Shear about the middle, first along x, then along y. Values: (N, 2) degrees along x and y."""

    x: float = 30.0
    y: float = 0.0

    def __post_init__(self) -> None:
        check_within("x", self.x, 0, 89)
        check_within("y", self.y, 0, 89)

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        x = uniform(generator, -self.x, self.x, shape[0])
        y = uniform(generator, -self.y, self.y, shape[0])
        return torch.stack([x, y], dim=1)

    def matrix(self, values: Tensor, size: Size) -> Tensor:
        x, y = values.deg2rad().tan().unbind(dim=1)
        return affine(values, xx=1 + x * y, xy=x, yx=y)


@dataclass(frozen=True)
class Shift(Affine):
    """Translate by whole and partial pixels. Values: (N, 2) pixels to the right and down."""

    share: float = 0.1  # the largest shift along each axis, as a share of the side

    def __post_init__(self) -> None:
        check_within("share", self.share, 0, 1)

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        way = uniform(generator, -self.share, self.share, shape[0], 2)
        return way * torch.tensor([shape[3], shape[2]], device=way.device)

    def matrix(self, values: Tensor, size: Size) -> Tensor:
        return affine(values, x=-values[:, 0], y=-values[:, 1])


@dataclass(frozen=True)
class Scale(Affine):
    """Enlarge or shrink about the middle. Values: (N,) factors; above 1 enlarges."""

    factor: tuple[float, float] = (0.8, 1.25)  # drawn in its logarithm

    def __post_init__(self) -> None:
        check_range("factor", self.factor, 0.01, 100)

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        return uniform(generator, *self.factor, shape[0], log=True)

    def matrix(self, values: Tensor, size: Size) -> Tensor:
        return affine(values, xx=1 / values, yy=1 / values)


@dataclass(frozen=True)
class Elastic(Operation):
    """Displace every pixel by a smooth random field. Values: (N, 2, H, W) pixels along x and y.

    The field is noise on a coarse lattice, interpolated to every pixel by a Gaussian. Everywhere,
    the border included, the displacement has the standard deviation `strength`. In the usual recipe
    (blurred noise times a factor) it depends on the width of the blur.

    Source: Simard et al. 2003, "Best practices for convolutional neural networks applied to visual
    document analysis". Their 4 pixels of smoothness and factor 34 on 29x29 pixels displace by 1.4
    pixels: smoothness 0.14 and strength 0.05.
    """

    strength: float = 0.04  # standard deviation of the displacement, as a share of the side
    smoothness: float = 0.14  # standard deviation of the Gaussian, as a share of the side

    def __post_init__(self) -> None:
        check_within("strength", self.strength, 0, 1)
        check_within("smoothness", self.smoothness, 0.01, 1)

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        n, height, width = shape[0], shape[2], shape[3]
        down = self._spread(height).to(generator.device)  # (H, points)
        across = self._spread(width).to(generator.device)  # (W, points)
        noise = torch.randn(
            n, 2, down.shape[1], across.shape[1], generator=generator, device=generator.device
        )
        field = down @ noise @ across.T  # (N, 2, H, W), standard deviation 1
        sides = torch.tensor([width, height], device=field.device)
        return field * (self.strength * sides[:, None, None])

    def on(self, canvas: Canvas, values: Tensor) -> Canvas:
        return canvas.displaced(values)

    def _spread(self, side: int) -> Tensor:
        """Weights (side, points) of lattice points at intervals of `smoothness`; rows of norm 1."""
        reach = math.ceil(3 + 1 / self.smoothness)
        lattice = torch.arange(-3, reach + 1) * self.smoothness * side
        pixels = torch.arange(side) + 0.5
        distance = (pixels[:, None] - lattice) / (self.smoothness * side)
        return torch.nn.functional.normalize(torch.exp(-(distance**2) / 2), dim=1)
