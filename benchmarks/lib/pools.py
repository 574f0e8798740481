"""Features of images to label and of images to score on, for benchmarks that only fit heads.

Development scores on training images, the final part on test images; the two have no image to label
in common. Sign-digits has no test part: two fifths of it, always the same, take its place, and
development divides the rest in the same way.
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
POOL = 10_000
SCORED = 0.4  # of a source without a test part


class Pool(NamedTuple):
    """(M, D) features to label from, (T, D) to score on, and the class numbers of both."""

    features: torch.Tensor
    labels: np.ndarray
    scored: torch.Tensor
    truth: np.ndarray
    classes: int


def pool(source: str, part: str) -> Pool:
    """The images of `part`, "dev" or "final", of a source named in SIZES."""
    to_label, to_score = _parts(source, part)
    size = SIZES[source]
    return Pool(
        _embedded(to_label, size),
        to_label.labels,
        _embedded(to_score, size),
        to_score.labels,
        to_label.num_classes,
    )


def _parts(source: str, part: str) -> tuple[ImageSet, ImageSet]:
    folder = data_folder() / source
    images = handful.load(folder if folder.is_dir() else source)
    if images.test is None:
        rest, scored = _divided(images)
        return _divided(rest) if part == "dev" else (rest, scored)
    order = np.random.default_rng(0).choice(len(images), 2 * POOL, replace=False)
    first, second = images[order[:POOL]], images[order[POOL:]]
    return (first, second) if part == "dev" else (second, images.test)


def _divided(images: ImageSet) -> tuple[ImageSet, ImageSet]:
    held = np.zeros(len(images), bool)
    held[holdout(images.labels, SCORED, seed=0)] = True
    return images[~held], images[held]


def _embedded(images: ImageSet, size: int) -> torch.Tensor:
    task = make_task(images, default_backbone(Features(), None), InputSpec(size))
    return embed(task.images, classifier(task), size, task.aspect, "auto").float()
