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
        self.labels = task.labels.to(device)
        self.pixels = task.pixels.to(device) if views.images else None
        self.labeled = task.labeled
        self.pool = task.training_pool if views.pool is None else views.pool
        self.labeled_pipeline = None if views.labeled is None else _pipeline(views.labeled, task)
        self.unlabeled_pipelines = tuple(_pipeline(view, task) for view in views.unlabeled)
        self.size = schedule.batch
        self.ratio = views.unlabeled_ratio
        self.seed = seed
        labeled_views = 1 if self.labeled_pipeline is not None or not views.images else 0
        unlabeled_views = len(self.unlabeled_pipelines) if views.images else 1
        self.images_per_step = self.size * (labeled_views + self.ratio * unlabeled_views)

    def __getitem__(self, step: int) -> Batch:
        generator = torch.Generator().manual_seed(seeds.hashed(self.seed, step))
        ids, images = self._labeled(step, generator)
        unlabeled: tuple[Tensor, ...] = ()
        unlabeled_ids = None
        if self.unlabeled_pipelines or (self.pixels is None and self.ratio):
            count = self.size * self.ratio
            chosen = _positions(
                len(self.pool), count, step, seeds.hashed(self.seed, Purpose.UNLABELED_ORDER)
            )
            unlabeled_ids = self.pool[chosen[self.group.part(count)]]
            unlabeled = tuple(
                self._view(view, unlabeled_ids, count, generator)
                for view in self.unlabeled_pipelines
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
        self, pipeline: Pipeline, ids: Tensor, count: int, generator: torch.Generator
    ) -> Tensor:
        """The view of this process's images, with values that are drawn for `count` images."""
        assert self.pixels is not None
        pixels = self.pixels[ids]
        values = pipeline.draw(torch.Size((count, *pixels.shape[1:])), generator)
        part = self.group.part(count)
        return pipeline.apply(pixels, tuple(drawn[part] for drawn in values))

    def _labeled(self, step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Positions (N,) and views (N, C, S, S); N is 0 for a method that uses no label.

        There are no views, (0,), where batches have positions only.
        """
        if self.labeled_pipeline is None and self.pixels is not None:
            none = torch.empty(0, dtype=torch.int64)
            return none, self.pixels[none].float()
        chosen = _positions(
            len(self.labeled), self.size, step, seeds.hashed(self.seed, Purpose.LABELED_ORDER)
        )
        ids = self.labeled[chosen[self.group.part(self.size)]]
        if self.labeled_pipeline is None:
            return ids, torch.empty(0)
        return ids, self._view(self.labeled_pipeline, ids, self.size, generator)


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
