"""Features of a task's images before any training, and the class shares that they show."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from handful.methods.base import Task, classifier
from handful.methods.class_shares import ClassShares, estimated_shares, wanted_shares
from handful.methods.first_head import has_learned_weights
from handful.methods.heads import subsample
from handful.models.classifier import embed

_BATCH = 500  # images that are averaged together
_BLURRED = 14  # approximate side in pixels of blurred images
_SAMPLE = 2_000  # unlabelled images that class shares are estimated from


def first_features(task: Task, positions: Tensor, precision: str = "auto") -> Tensor:
    """(U, D) features of the images at (U,) positions.

    They are those of learned weights; without such weights, pixels of blurred images.

    Args:
        precision: of learned weights: int8, fp32, bf16, or auto, the fastest one.
    """
    if has_learned_weights(task):
        images = task.images[positions.numpy()]
        return embed(
            images, classifier(task), task.size, task.aspect, precision, task.track
        ).float()
    pixels = task.pixels[positions]
    step = max(1, round(task.size / _BLURRED))
    return torch.cat(
        [
            F.avg_pool2d(part.float() / 255, step + 1, step, step // 2).flatten(1)
            for part in pixels.split(_BATCH)
        ]
    )


def shares_for(task: Task, features: Tensor, positions: Tensor) -> Tensor:
    """(K,) class shares of the task: those given, else estimated from (U, D) features.

    Args:
        positions: (U,) of the images of `features` in the task, all labelled ones among them.
    """
    given = None if task.shares is None else torch.tensor(task.shares)
    labeled, labels, unlabeled, counted = _divided(task, features, positions)
    return wanted_shares(given, labeled, labels, unlabeled, len(task.classes), 0, counted)


def task_shares(task: Task) -> Tensor:
    """(K,) class shares of the task: those given, else estimated from a sample of its images."""
    positions = task.labeled if task.shares is not None else _sample(task)
    features = torch.empty(len(positions), 0)
    if task.shares is None:
        features = first_features(task, positions)
    return shares_for(task, features, positions)


def shares_seen(task: Task, precision: str = "auto") -> ClassShares:
    """The class shares estimated from a sample of the images, whatever was given."""
    positions = _sample(task)
    features = first_features(task, positions, precision)
    labeled, labels, unlabeled, counted = _divided(task, features, positions)
    return estimated_shares(labeled, labels, unlabeled, len(task.classes), 0, counted)


def _sample(task: Task) -> Tensor:
    """Sorted positions of the labelled images and of some unlabelled ones."""
    unlabeled = np.setdiff1d(task.training_pool.numpy(), task.labeled.numpy())
    some = subsample(torch.from_numpy(unlabeled), _SAMPLE, seed=0)
    return torch.cat([task.labeled, some]).sort().values


def _divided(
    task: Task, features: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features (n, D) and labels (n,) of labelled images, (m, D) of others, and `counted` (n,)."""
    labels = torch.full_like(task.labels, -1)
    labels[task.labeled] = task.labels[task.labeled]
    counted = torch.zeros_like(labels, dtype=torch.bool)
    counted[task.labeled] = task.counted
    known = labels[positions] >= 0
    inside = positions[known]
    return features[known], labels[inside], features[~known], counted[inside]
