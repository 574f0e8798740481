"""Resample whole batches: every geometric operation is a matrix, a chain of them one resampling.

Letters in shapes: N images, C channels, H rows, W columns.

Coordinates are pixels measured from the middle of the image, x to the right and y down. As in
torchvision, matrices map a pixel of the result to the place in the input from which it is read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from handful.errors import HandfulError

Size = tuple[int, int]  # height, width
Fill = float | Literal["reflect", "edge", "background"]


def check_fill(fill: Fill, levels_only: bool = False) -> None:
    """HandfulError unless `fill` is a fill; with `levels_only`, one colour per image."""
    names = ("background",) if levels_only else ("background", "reflect", "edge")
    is_level = isinstance(fill, (int, float)) and 0 <= fill <= 1
    if not is_level and fill not in names:
        raise HandfulError(
            f"fill must be {', '.join(map(repr, names))} or a grey level from 0 to 1, got {fill!r}"
        )


def fill_level(images: Tensor, fill: Fill) -> Tensor:
    """The colour with which to fill each image, to broadcast over (N, C, H, W).

    "background" is the median of an image's border pixels, channel by channel.
    """
    if fill != "background":
        return images.new_tensor(fill)
    top, bottom = images[:, :, 0, :], images[:, :, -1, :]
    left, right = images[:, :, :, 0], images[:, :, :, -1]
    border = torch.cat([top, bottom, left, right], dim=2)  # (N, C, 2W + 2H)
    return border.median(dim=2).values[:, :, None, None]


def affine(
    like: Tensor,
    xx: Tensor | float = 1.0,
    xy: Tensor | float = 0.0,
    x: Tensor | float = 0.0,
    yx: Tensor | float = 0.0,
    yy: Tensor | float = 1.0,
    y: Tensor | float = 0.0,
) -> Tensor:
    """Matrices (N, 2, 3) [[xx, xy, x], [yx, yy, y]]; each entry is (N,) or one number.

    The default is the identity.

    Args:
        like: a tensor of length N, whose device the result has.
    """
    matrix = torch.empty(len(like), 2, 3, device=like.device)
    for place, value in enumerate((xx, xy, x, yx, yy, y)):
        matrix[:, place // 3, place % 3] = value
    return matrix


@dataclass(frozen=True, eq=False)
class Canvas:
    """A batch of images and a pending move (an affine map and a displacement).

    Geometric operations compose their moves. `settled` resamples the pixels once, when an operation
    needs them or the pipeline ends. A canvas owns its images, because `settled_at` and RandAugment
    write into them.
    """

    images: Tensor  # (N, C, H, W) float
    fill: Fill  # pixels beyond the border
    size: Size  # height and width after the move
    matrix: Tensor | None = None  # (N, 2, 3) from the result to `images`; None: no move
    displacement: Tensor | None = None  # (N, 2, height, width) added to that, in pixels of `images`
    whole_pixels: bool = True  # whether the move maps pixel centres onto pixel centres

    @classmethod
    def of(cls, images: Tensor, fill: Fill) -> Canvas:
        height, width = images.shape[-2:]
        return cls(images, fill, (height, width))

    def moved(self, matrix: Tensor, size: Size, whole_pixels: bool = False) -> Canvas:
        """The canvas after one more affine operation with `matrix` (N, 2, 3)."""
        if self.displacement is not None and size != self.size:
            return self.settled().moved(matrix, size, whole_pixels)  # the field has the old size
        matrix = matrix.to(self.images)
        if self.matrix is not None:
            linear = self.matrix[:, :, :2] @ matrix  # (N, 2, 3)
            linear[:, :, 2] += self.matrix[:, :, 2]
            matrix = linear
        whole_pixels = whole_pixels and self.whole_pixels
        return replace(self, matrix=matrix, size=size, whole_pixels=whole_pixels)

    def displaced(self, displacement: Tensor) -> Canvas:
        """The canvas after displacing every pixel by `displacement` (N, 2, height, width).

        The field is exact if this is the last operation. Later operations move the images but not
        the field, whose distribution is equal everywhere.
        """
        displacement = displacement.to(self.images)
        matrix = affine(self.images) if self.matrix is None else self.matrix
        linear = matrix[:, :, :2].to(displacement)
        displacement = torch.einsum("nij,njhw->nihw", linear, displacement)
        if self.displacement is not None:
            displacement = displacement + self.displacement
        return replace(self, matrix=matrix, displacement=displacement, whole_pixels=False)

    def settled(self) -> Canvas:
        """The canvas after resampling: no move is pending."""
        if self.matrix is None:
            return self
        images = sample(self.images, self._grid(), self.fill, exact=self.whole_pixels)
        return Canvas.of(images, self.fill)

    def settled_at(self, rows: Tensor) -> Canvas:
        """The canvas after resampling the images at `rows`, in place."""
        if self.matrix is None:
            return self
        still = affine(self.images)
        moving = (self.matrix[rows] != still[rows]).flatten(1).any(dim=1)
        if self.displacement is not None:
            moving |= self.displacement[rows].flatten(1).any(dim=1)
        rows = rows[moving]
        if len(rows) == 0:
            return self
        displacement = self.displacement
        part = replace(
            self,
            images=self.images[rows],
            matrix=self.matrix[rows],
            displacement=None if displacement is None else displacement[rows],
        )
        self.images[rows] = part.settled().images
        if displacement is not None:
            displacement = displacement.index_fill(0, rows, 0.0)
        matrix = self.matrix.index_copy(0, rows, still[rows])
        return replace(self, matrix=matrix, displacement=displacement)

    def _grid(self) -> Tensor:
        """Where to read (N, height, width, 2), in grid_sample's units (corners at -1 and 1).

        The grid is made plane by plane and viewed as pairs: grid_sample reads planes at full speed,
        and this is six times less work than F.affine_grid.
        """
        assert self.matrix is not None
        height, width = self.size
        unit = self.images.new_tensor([max(n - 1, 1) / 2 for n in self.images.shape[:1:-1]])
        theta = self.matrix / unit[:, None]
        x = torch.arange(width, device=theta.device, dtype=theta.dtype) - (width - 1) / 2
        y = torch.arange(height, device=theta.device, dtype=theta.dtype) - (height - 1) / 2
        along_x, along_y, shift = theta[..., None, None].unbind(dim=2)  # (N, 2, 1, 1) each
        planes = torch.addcmul(along_y * y[:, None] + shift, along_x, x)  # (N, 2, height, width)
        if self.displacement is not None:
            planes += self.displacement / unit[:, None, None]
        return planes.permute(0, 2, 3, 1)


def sample(images: Tensor, grid: Tensor, fill: Fill, exact: bool = False) -> Tensor:
    """Sample `images` (N, C, H, W) at `grid` (N, height, width, 2): (N, C, height, width).

    Interpolation is bilinear. `exact` takes the nearest pixel, for grids on pixel centres.
    """
    mode = "nearest" if exact else "bilinear"
    if fill == "reflect" or fill == "edge":
        padding = "reflection" if fill == "reflect" else "border"
        return F.grid_sample(images, grid, mode, padding, align_corners=True)
    if fill == 0:
        return F.grid_sample(images, grid, mode, align_corners=True)
    level = fill_level(images, fill)
    # grid_sample fills with zero only: shift the images so that zero stands for the fill.
    return F.grid_sample(images - level, grid, mode, align_corners=True).add_(level)
