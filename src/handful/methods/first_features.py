"""Features of a task's images before any training, and the class shares that they show."""

import torch
import torch.nn.functional as F
from torch import Tensor

from handful import models
from handful.methods.base import Task, classifier
from handful.methods.class_shares import wanted_shares
from handful.models.classifier import embed

_BATCH = 500  # images that are averaged together
_BLURRED = 14  # approximate side in pixels of blurred images
_SAMPLE = 2_000  # unlabelled images that class shares are estimated from


def first_features(task: Task, positions: Tensor) -> Tensor:
    """(U, D) features of the images at (U,) positions.

    They are those of learned weights; without such weights, pixels of blurred images.
    """
    if task.init is not None or models.pretrained(task.backbone.name):
        images = task.images[positions.numpy()]
        return embed(images, classifier(task), task.size, task.aspect, "auto", task.track).float()
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
    labels = torch.full_like(task.labels, -1)
    labels[task.labeled] = task.labels[task.labeled]
    labels = labels[positions]
    known = labels >= 0
    given = None if task.shares is None else torch.tensor(task.shares)
    return wanted_shares(
        given, features[known], labels[known], features[~known], len(task.classes), seed=0
    )


def task_shares(task: Task) -> Tensor:
    """(K,) class shares of the task: those given, else estimated from a sample of its images."""
    if task.shares is not None:
        return shares_for(task, torch.empty(len(task.labeled), 0), task.labeled)
    known = set(task.labeled.tolist())
    others = torch.tensor([i for i in task.training_pool.tolist() if i not in known])
    generator = torch.Generator().manual_seed(0)
    some = others[torch.randperm(len(others), generator=generator)[:_SAMPLE]]
    positions = torch.cat([task.labeled, some]).sort().values
    return shares_for(task, first_features(task, positions), positions)
