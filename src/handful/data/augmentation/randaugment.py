"""RandAugment on whole batches: every image draws its own operations and magnitudes.

Cubuk et al. 2019, "RandAugment: Practical automated data augmentation with a reduced search space",
arXiv:1909.13719. Operations, ranges and rounding are torchvision's.

The operations of an image are applied in the order in which they are drawn. Consecutive moves,
including those of earlier steps of the pipeline, are made in one resampling. A colour change needs
the moved pixels, so the moves before it are made first. An image is therefore resampled once for
every unbroken run of its moves.

Letters in shapes: N images, C channels, H rows, W columns, S operations in a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from handful.data.augmentation import photometric
from handful.data.augmentation.base import Operation, coin
from handful.data.augmentation.resample import Canvas, Size, affine
from handful.errors import HandfulError


class Member(NamedTuple):
    """One operation that RandAugment can draw.

    level: maps a strength in [0, 1] and the size of the image to the operation's level.
    signed: whether the level is negative with probability 1/2.
    change: maps images (N, C, H, W) and levels (N,) to images; None for a move.
    """

    level: Callable[[Tensor, Size], Tensor]
    signed: bool = False
    change: Callable[[Tensor, Tensor], Tensor] | None = None


def _up_to(limit: float) -> Callable[[Tensor, Size], Tensor]:
    return lambda strength, size: limit * strength


def _factor(change: Callable[[Tensor, Tensor], Tensor]) -> Member:
    return Member(_up_to(0.9), True, lambda images, level: change(images, 1 + level))


def _torchvision(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Return an operation of torchvision, which takes a second to import: only where it is used."""

    def change(images: Tensor, level: Tensor) -> Tensor:
        from torchvision.transforms.v2 import functional

        changed: Tensor = getattr(functional, name)(images)
        return changed

    return change


MEMBERS: dict[str, Member] = {
    "identity": Member(_up_to(0)),
    "shear_x": Member(_up_to(0.3), signed=True),  # pixels to the side per pixel down
    "shear_y": Member(_up_to(0.3), signed=True),
    "shift_x": Member(lambda strength, size: (150 / 331 * size[1] * strength).trunc(), signed=True),
    "shift_y": Member(lambda strength, size: (150 / 331 * size[0] * strength).trunc(), signed=True),
    "rotate": Member(_up_to(30), signed=True),  # degrees
    "brightness": _factor(photometric.brightness),
    "color": _factor(photometric.saturation),
    "contrast": _factor(photometric.contrast),
    "sharpness": _factor(photometric.sharpness),
    "posterize": Member(
        lambda strength, size: (8 - 4 * strength).round(), False, photometric.posterize
    ),
    "solarize": Member(lambda strength, size: 1 - strength, False, photometric.solarize),
    "autocontrast": Member(_up_to(0), False, _torchvision("autocontrast")),
    "equalize": Member(_up_to(0), False, _torchvision("equalize")),
    "invert": Member(_up_to(0), False, _torchvision("invert")),
}


@dataclass(frozen=True)
class RandAugment(Operation):
    """Apply `operations` random members, one after the other.

    Values: (N, 2, S) the index into `members` and the level of each operation.
    """

    operations: int = 2
    magnitude: int = 9  # from 0 to `bins` - 1
    bins: int = 31
    vary: bool = False  # draw each operation's magnitude from 1 to `magnitude`
    members: tuple[str, ...] = tuple(name for name in MEMBERS if name != "invert")

    def __post_init__(self) -> None:
        if self.operations < 1:
            raise HandfulError(f"operations must be 1 or more, got {self.operations}")
        if not 0 <= self.magnitude < self.bins:
            raise HandfulError(
                f"magnitude must be from 0 to {self.bins - 1} (bins={self.bins} less 1), "
                f"got {self.magnitude}"
            )
        unknown = [name for name in self.members if name not in MEMBERS]
        if unknown or not self.members:
            raise HandfulError(
                f"members must be some of {', '.join(MEMBERS)}; got {unknown or 'none'}"
            )

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        n, device = (shape[0], self.operations), generator.device
        choice = torch.randint(len(self.members), n, generator=generator, device=device)
        magnitude = torch.full(n, float(self.magnitude), device=device)
        if self.vary and self.magnitude:
            drawn = torch.randint(self.magnitude, n, generator=generator, device=device)
            magnitude = drawn.float() + 1
        strength = magnitude / max(self.bins - 1, 1)
        sign = 1 - 2 * coin(generator, 0.5, n[0] * n[1]).float().view(n)
        size = (shape[2], shape[3])
        levels = []
        for member in map(MEMBERS.__getitem__, self.members):
            level = member.level(strength, size)
            levels.append(level * sign if member.signed else level)
        level = torch.stack(levels).gather(0, choice[None])[0]  # (N, S)
        return torch.stack([choice.float(), level], dim=1)

    def on(self, canvas: Canvas, values: Tensor) -> Canvas:
        if canvas.size != tuple(canvas.images.shape[2:]):
            canvas = canvas.settled()  # one batch cannot hold images of two sizes
        for step in values.to(canvas.images).unbind(dim=2):
            choice, level = step.unbind(dim=1)
            canvas = self._recolor(canvas, choice, level)
            canvas = canvas.moved(self._matrix(choice, level, canvas.size), canvas.size)
        return canvas

    def _recolor(self, canvas: Canvas, choice: Tensor, level: Tensor) -> Canvas:
        """Apply the colour changes to the images that drew one, after making their moves."""
        chosen = {
            name: (choice == index).nonzero().flatten()
            for index, name in enumerate(self.members)
            if MEMBERS[name].change is not None
        }
        if not chosen:
            return canvas
        canvas = canvas.settled_at(torch.cat(list(chosen.values())))
        for name, rows in chosen.items():
            change = MEMBERS[name].change
            if change is not None and len(rows):
                canvas.images[rows] = change(canvas.images[rows], level[rows])
        return canvas

    def _matrix(self, choice: Tensor, level: Tensor, size: Size) -> Tensor:
        """Matrices (N, 2, 3) of the move that each image drew, or the identity."""

        def chosen(name: str) -> Tensor:
            if name not in self.members:
                return torch.zeros_like(level)
            return level * (choice == self.members.index(name))

        angle = chosen("rotate").deg2rad()
        slant_x, slant_y = chosen("shear_x"), chosen("shear_y")  # about the top left corner
        return affine(
            level,
            xx=angle.cos(),
            xy=slant_x - angle.sin(),
            x=slant_x * size[0] / 2 - chosen("shift_x"),
            yx=slant_y + angle.sin(),
            yy=angle.cos(),
            y=slant_y * size[1] / 2 - chosen("shift_y"),
        )
