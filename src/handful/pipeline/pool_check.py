"""Compare the images without a label with the labelled ones, by features of a frozen network."""

import numpy as np
import torch

from handful import seeds
from handful.evaluation.novelty import pool_shift
from handful.methods.base import Task, feature_network
from handful.methods.heads import subsample
from handful.models.classifier import embed
from handful.seeds import Stream

POOL = 4_000  # unlabelled images at most that heads use in `auto`: more add time and little else
MOST_LABELS = 1_000  # labelled images up to which the fits of `pool_answers` cost little
POOL_OF_LABEL = 20  # unlabelled images for each label, above which a pool is large
LABELED, UNLABELED = 2_000, 1_000  # images of each kind that are compared, at most


def has_own_temperature(labels: int, pool: int) -> bool:
    """Whether a head's answers for images that it learned from have a temperature of their own."""
    return 0 < pool <= POOL_OF_LABEL * labels and labels <= MOST_LABELS


def some_unlabeled(task: Task, seed: int) -> np.ndarray:
    """Positions of at most UNLABELED images without a label, a random sample.

    They are among those that `auto` gives to heads, so their features are often known already.
    """
    pool = torch.from_numpy(task.images.unlabeled)
    return subsample(subsample(pool, POOL, seed), UNLABELED, seed).numpy()


def shift_of_pool(task: Task, precision: str, seed: int) -> float:
    """Return `novelty.pool_shift` of the task's images: 0.5 not shifted, 1 fully.

    Args:
        task: its backbone is a frozen one; features that are not known yet are computed.
    """
    images = task.images
    order = seeds.generator(seed, Stream.POOL_SHIFT).permutation(len(images.labeled))
    known, pool = images.labeled[order[:LABELED]], some_unlabeled(task, seed)
    if len(known) < 2 or not len(pool):
        return 0.5
    features = embed(
        images[np.concatenate([known, pool])],
        feature_network(task),
        task.size,
        task.aspect,
        precision,
        task.track,
    )
    groups = None if images.groups is None else images.groups[known]
    return pool_shift(features[: len(known)], features[len(known) :], groups)


def shift_message(share: float) -> str:
    """Return what a pool shift of `share` means for the user."""
    return (
        f"the images without a label look unlike the labelled ones: in {share:.0%} of comparisons "
        f"(50% by chance) the labelled image is nearer to another labelled one. Some may be of "
        f"none of the classes. The estimate and the choice of the method do not use them as a "
        f"sample of new images"
    )
