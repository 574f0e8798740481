"""Batches: the augmented images of each step, determined by the seed and the step.

Where several processes train together, each makes its part of the images, with the augmentations
that a process alone draws for them.
"""

from functools import lru_cache

import torch
from torch import Tensor

from handful import devices, seeds
from handful.data.augmentation.pipelines import Pipeline, named
from handful.data.augmentation.resample import Fill
from handful.methods.base import Batch, Task, Views
from handful.methods.schedule import Schedule
from handful.seeds import Purpose
from handful.training.process_group import ALONE, ProcessGroup


class Batches:
    """`batches[step]` is the batch of a step; the result depends on nothing but seed and step.

    Args:
        task: holds the images.
        views: the augmentations that the method asks for.
        schedule: gives the number of labelled images in a batch.
        group: the processes that train together.
    """

    def __init__(
        self,
        task: Task,
        views: Views,
        schedule: Schedule,
        seed: int,
        group: ProcessGroup = ALONE,
    ) -> None:
        self.group = group
        device = devices.device()
        self.pixels, self.labels = task.pixels.to(device), task.labels.to(device)
        self.labeled, self.pool = task.labeled, task.training_pool
        self.labeled_pipeline = None if views.labeled is None else _pipeline(views.labeled, task)
        self.unlabeled_pipelines = tuple(_pipeline(view, task) for view in views.unlabeled)
        self.size = schedule.batch
        self.ratio = views.unlabeled_ratio
        self.seed = seed
        labeled_views = 0 if self.labeled_pipeline is None else 1
        self.images_per_step = self.size * (
            labeled_views + self.ratio * len(self.unlabeled_pipelines)
        )

    def __getitem__(self, step: int) -> Batch:
        generator = torch.Generator().manual_seed(seeds.hashed(self.seed, step))
        ids, images = self._labeled(step, generator)
        unlabeled: tuple[Tensor, ...] = ()
        unlabeled_ids = None
        if self.unlabeled_pipelines:
            count = self.size * self.ratio
            chosen = _positions(
                len(self.pool), count, step, seeds.hashed(self.seed, Purpose.UNLABELED_ORDER)
            )
            part = self.group.part(count)
            unlabeled_ids = self.pool[chosen[part]]
            pixels = self.pixels[unlabeled_ids]
            unlabeled = tuple(
                self._view(view, pixels, count, generator) for view in self.unlabeled_pipelines
            )
        return Batch(
            images,
            self.labels[ids],
            unlabeled,
            ids,
            unlabeled_ids,
            step=step,
            pixels=self.pixels,
            whole=self.group.whole,
        )

    def _view(
        self, pipeline: Pipeline, pixels: Tensor, count: int, generator: torch.Generator
    ) -> Tensor:
        """The view of this process's `pixels`, with values that are drawn for `count` images."""
        values = pipeline.draw(torch.Size((count, *pixels.shape[1:])), generator)
        part = self.group.part(count)
        return pipeline.apply(pixels, tuple(drawn[part] for drawn in values))

    def _labeled(self, step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Positions (N,) and views (N, C, S, S); N is 0 for a method that uses no label."""
        if self.labeled_pipeline is None:
            none = torch.empty(0, dtype=torch.int64)
            return none, self.pixels[none].float()
        chosen = _positions(
            len(self.labeled), self.size, step, seeds.hashed(self.seed, Purpose.LABELED_ORDER)
        )
        ids = self.labeled[chosen[self.group.part(self.size)]]
        return ids, self._view(self.labeled_pipeline, self.pixels[ids], self.size, generator)


def _pipeline(view: str | Pipeline, task: Task) -> Pipeline:
    if view == "auto":
        view = "digits" if task.channels == 1 else "strong"
    # A mirrored border would draw strokes around a symbol; on photographs it does no harm.
    grey: Fill | None = "background" if task.channels == 1 else None
    return named(view, flips=task.flips, fill=grey)


def _positions(n: int, size: int, step: int, seed: int) -> Tensor:
    """(size,) positions of one batch: consecutive parts of shuffled passes over n images."""
    drawn = torch.arange(step * size, (step + 1) * size)
    passes = drawn // n
    shuffles = [_shuffle(n, seed, k) for k in passes.unique().tolist()]
    return torch.cat(
        [
            shuffle[drawn[passes == k] % n]
            for k, shuffle in zip(passes.unique(), shuffles, strict=True)
        ]
    )


@lru_cache(maxsize=64)
def _shuffle(n: int, seed: int, number: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seeds.hashed(seed, number)))
