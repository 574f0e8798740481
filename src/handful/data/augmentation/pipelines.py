"""Augmentation pipelines: operations on a whole batch, with values drawn for each image.

Consecutive geometric operations are resampled together, once. Every random number comes from the
given generator, so equal seeds give equal views. Drawing values and applying them are separate, so
that values can be applied twice.

Letters in shapes: N images, C channels (1 or 3), H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from handful.data.augmentation.base import Operation
from handful.data.augmentation.geometric import (
    Crop,
    Elastic,
    Flip,
    ResizedCrop,
    Rotate,
    Scale,
    Shear,
    Shift,
)
from handful.data.augmentation.photometric import (
    Blur,
    ColorJitter,
    CutOut,
    Grey,
    Noise,
    Photometric,
)
from handful.data.augmentation.randaugment import RandAugment
from handful.data.augmentation.resample import Canvas, Fill, check_fill
from handful.errors import HandfulError
from handful.text import did_you_mean

__all__ = [
    "OPERATIONS",
    "PIPELINES",
    "Blur",
    "ColorJitter",
    "Crop",
    "CutOut",
    "Elastic",
    "Flip",
    "Grey",
    "Noise",
    "Operation",
    "Pipeline",
    "RandAugment",
    "ResizedCrop",
    "Rotate",
    "Scale",
    "Shear",
    "Shift",
    "named",
]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Pipeline:
    """Operations in the order in which they are applied.

    Neighbouring geometric operations become one resampling. If all of them move whole pixels
    (Flip, Crop), pixels are copied and keep their exact values.
    """

    operations: tuple[Operation, ...] = ()
    fill: Fill = "reflect"  # pixels beyond the border: "reflect" or "edge" suit photographs,
    #                         "background" or a grey level from 0 to 1 suits symbols

    def __post_init__(self) -> None:
        check_fill(self.fill)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augmented images (N, C, H, W), float32 in [0, 1]; the input is not changed.

        The result has the input's size unless a Crop sets another.

        Args:
            images: (N, C, H, W) uint8, or float in [0, 1].
        """
        return self.apply(images, self.draw(images.shape, generator))

    def draw(self, shape: torch.Size, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The values of every operation for a batch of `shape` (N, C, H, W)."""
        drawn = []
        for operation in self.operations:
            drawn.append(operation.draw(shape, generator))
            height, width = operation.output_size((shape[2], shape[3]))
            shape = torch.Size((*shape[:2], height, width))
        return tuple(drawn)

    def apply(self, images: Tensor, values: tuple[Tensor, ...]) -> Tensor:
        """The images (N, C, H, W) after the operations, with one tensor of values for each."""
        canvas = Canvas.of(to_float(images), self.fill)
        for operation, drawn in zip(self.operations, values, strict=True):
            canvas = operation.on(canvas, drawn)
        return canvas.settled().images.contiguous()


def to_float(images: Tensor) -> Tensor:
    """Convert images (N, C, H, W), uint8 or float, to a new float32 tensor in [0, 1]."""
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"a pipeline takes a batch of shape (N, C, H, W) with 1 or 3 channels, "
            f"got {tuple(images.shape)}"
        )
    if images.dtype == torch.uint8:
        return images.to(torch.float32).div_(255)
    if not images.is_floating_point():
        raise TypeError(f"a pipeline takes uint8 or float images, got {images.dtype}")
    return images.to(torch.float32, copy=True)


_rotate = Rotate(45)
_zoom = ResizedCrop(scale=(0.8, 1.0), aspect=(1.0, 1.0))
_shift = Shift(0.1)
_shear = Shear(x=30)
_digits = (
    Rotate(15),
    Shear(x=10),
    Scale((0.85, 1.15)),
    Shift(0.08),
    Elastic(strength=0.04, smoothness=0.14),
)
_jitter = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, probability=0.8)

# Pipelines by name. For images of one channel `named` removes the flips.
PIPELINES: dict[str, Pipeline] = {
    "none": Pipeline(),
    "weak": Pipeline((Flip(), Crop(padding=0.125))),
    "strong": Pipeline(
        (
            Flip(),
            Crop(padding=0.125),
            RandAugment(operations=2, magnitude=10, vary=True),
            CutOut(size=(0.0, 0.5)),
        )
    ),
    "digits": Pipeline(_digits, fill="background"),
    # Twice the distortion, so that views of one digit's styles overlap: see
    # benchmarks/log/semi_supervised.md.
    "digits-strong": Pipeline(
        (
            *_digits,
            Rotate(15),
            Shear(x=10),
            Scale(),
            Elastic(),
            CutOut(size=(0.2, 0.5), fill="background"),
            Blur(),
            Noise(),
        ),
        fill="background",
    ),
    # For 100 labelled digits: each of four operations alone, and all four in a row.
    "rotate": Pipeline((_rotate,), fill="background"),
    "zoom": Pipeline((_zoom,), fill="background"),
    "shift": Pipeline((_shift,), fill="background"),
    "shear": Pipeline((_shear,), fill="background"),
    "affine": Pipeline((_rotate, _zoom, _shift, _shear), fill="background"),
    # Two operations at magnitude 9, for consistency training.
    "randaugment": Pipeline((RandAugment(operations=2, magnitude=9),), fill="background"),
    # Views for contrastive learning: those of SimCLR, arXiv:2002.05709, with the colour strength
    # 0.5 of its CIFAR-10 runs; and crop and flip alone.
    "simclr": Pipeline((ResizedCrop(scale=(0.2, 1.0)), Flip(), _jitter, Grey(), Blur())),
    "simclr-flip": Pipeline((ResizedCrop(scale=(0.2, 1.0)), Flip())),
    # For small photographs: crop padded with black; crop padded by reflection, and a cut-out; a
    # window of 64 pixels; mild colour jitter.
    "flip-crop": Pipeline((Flip(), Crop(padding=0.125)), fill=0.0),
    "flip-crop-cut": Pipeline(
        (Flip(), Crop(padding=0.125), CutOut(size=(0.375, 0.375))), fill="reflect"
    ),
    "flip-crop-64": Pipeline((Flip(), Crop(padding=0.0, size=64))),
    "flip-jitter": Pipeline(
        (Flip(), ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2)),
    ),
}


# Operations by the names with which users add them to a pipeline or remove them from it.
OPERATIONS: dict[str, Operation] = {
    "flip": Flip(),
    "crop": Crop(),
    "resized-crop": ResizedCrop(),
    "rotate": Rotate(15),
    "shear": Shear(x=10),
    "shift": Shift(0.1),
    "scale": Scale(),
    "elastic": Elastic(),
    "color-jitter": _jitter,
    "grey": Grey(),
    "blur": Blur(),
    "noise": Noise(),
    "cut-out": CutOut(),
    "randaugment": RandAugment(),
}


def named(pipeline: str | Pipeline, *, flips: bool, fill: Fill | None = None) -> Pipeline:
    """The pipeline of that name, without its flips unless `flips`, with another `fill` if given.

    A name can remove and add operations: "simclr,-blur,+cut-out". Geometric operations are added
    at the start, photometric ones at the end.

    Callers pass `flips` only for photographs, because mirrored digits and letters are other
    symbols. A Pipeline is returned unchanged, and "+flip" adds the flip in any case. HandfulError
    for unknown names.
    """
    if isinstance(pipeline, Pipeline):
        return pipeline
    name, *changes = (part.strip() for part in pipeline.split(","))
    found = _look_up(name, PIPELINES, "augmentation pipeline")
    operations = [o for o in found.operations if flips or not isinstance(o, Flip)]
    for change in changes:
        if change[:1] not in ("+", "-"):
            raise HandfulError(
                f"{change!r} in the pipeline {pipeline!r} must start with + to add the operation "
                f"or - to take it out"
            )
        operation = _look_up(change[1:], OPERATIONS, "operation")
        if change[0] == "-":
            operations = _without(operation, operations, change, name)
        elif isinstance(operation, Photometric | RandAugment):
            operations.append(operation)
        else:
            operations.insert(0, operation)
    fill = found.fill if fill is None else fill
    return replace(found, operations=tuple(operations), fill=fill)


def _without(
    operation: Operation, operations: list[Operation], change: str, name: str
) -> list[Operation]:
    """The operations without those of the type of `operation`; HandfulError if there are none."""
    kept = [o for o in operations if type(o) is not type(operation)]
    if len(kept) == len(operations) and not isinstance(operation, Flip):
        held = [k for k, o in OPERATIONS.items() if any(type(o) is type(x) for x in operations)]
        raise HandfulError(
            f"{change!r}: the pipeline {name!r} has no {change[1:]} to take out; "
            f"it has {', '.join(held) or 'no operations'}"
        )
    return kept


def _look_up(name: str, known: Mapping[str, _T], kind: str) -> _T:
    if name in known:
        return known[name]
    plural = kind.split()[-1].capitalize() + "s"
    raise HandfulError(
        f"no {kind} {name!r}.{did_you_mean(name, known)}\n{plural}: {', '.join(known)}"
    )
