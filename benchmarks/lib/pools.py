"""Features of images to label and of images to score on, for benchmarks that only fit heads.

Development scores on training images, the final part on test images; the two have no image to label
in common. Sign-digits has no test part: two fifths of it, always the same, take its place, and
development divides the rest in the same way. So it is with any source that has no test part or
fewer labelled images than twice `most`; the latter are scored on their test part in the final.
"""

from typing import NamedTuple

import numpy as np
import torch

import handful
from handful.data.cache import data_folder
from handful.data.imageset import ImageSet
from handful.data.splits import holdout
from handful.methods.base import classifier
from handful.methods.linear_head import Features
from handful.models.classifier import embed
from handful.pipeline.options import InputSpec
from handful.pipeline.setup import default_backbone, make_task

SIZES = {"cifar10-jpeg": 160, "fashion-mnist": 64, "sign-digits": 96}  # pixels the network sees
MORE_SIZES = SIZES | {"tin10": 160, "steel": 160, "mnist": 64}
ALL_SIZES = MORE_SIZES | {"digits": 64}
POOL = 10_000
SCORED = 0.4  # of a source without a test part


class Pool(NamedTuple):
    """(M, D) features to label from, (T, D) to score on, and the class numbers of both."""

    features: torch.Tensor
    labels: np.ndarray
    scored: torch.Tensor
    truth: np.ndarray
    classes: int


def pool(
    source: str, part: str, most: int = POOL, backbone: str | None = None, precision: str = "auto"
) -> Pool:
    """The images of `part`, "dev" or "final", of a source named in ALL_SIZES.

    Args:
        most: images to label from, and images to score on; fewer where a source has fewer.
        backbone: of the features; None: the default.
        precision: of the features.
    """
    to_label, to_score = parts(opened(source), part, most)
    size = ALL_SIZES[source]
    return Pool(
        embedded(to_label, size, backbone, precision),
        to_label.labels,
        embedded(to_score, size, backbone, precision),
        to_score.labels,
        to_label.num_classes,
    )


def opened(source: str) -> ImageSet:
    folder = data_folder() / source
    return handful.load(folder if folder.is_dir() else source)


def parts(images: ImageSet, part: str, most: int) -> tuple[ImageSet, ImageSet]:
    """At most `most` images to label from, and as many to score on."""
    rest, test = images[images.labeled], images.test
    if test is None:
        rest, test = _divided(rest)
    elif len(rest) >= 2 * most:
        order = np.random.default_rng(0).choice(len(rest), 2 * most, replace=False)
        first, second = rest[order[:most]], rest[order[most:]]
        return (first, second) if part == "dev" else (second, test)
    return _divided(rest) if part == "dev" else (rest, test)


def _divided(images: ImageSet) -> tuple[ImageSet, ImageSet]:
    held = np.zeros(len(images), bool)
    held[holdout(images.labels, SCORED, seed=0)] = True
    return images[~held], images[held]


def embedded(
    images: ImageSet, size: int, backbone: str | None = None, precision: str = "auto"
) -> torch.Tensor:
    """(N, D) float32 features at `size` pixels, from the cache where they are known."""
    task = make_task(images, default_backbone(Features(), backbone), InputSpec(size))
    return embed(task.images, classifier(task), size, task.aspect, precision).float()
