"""Batches: the images of each step, drawn from the seed and the number of the step."""

from functools import lru_cache

import torch
from torch import Tensor

from handful import devices, seeds
from handful.data.augmentation.pipelines import Pipeline, named
from handful.data.augmentation.resample import Fill
from handful.methods.base import Batch, Task, Views
from handful.methods.schedule import Schedule
from handful.seeds import Purpose


class Batches:
    """`batches[step]` is the batch of that step, the same whenever it is asked for."""

    def __init__(self, task: Task, views: Views, schedule: Schedule, seed: int) -> None:
        device = devices.device()
        self.pixels, self.labels = task.pixels.to(device), task.labels.to(device)
        self.labeled, self.unlabeled = task.labeled, task.training_pool
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
            turn = _turn(
                len(self.unlabeled), count, step, seeds.hashed(self.seed, Purpose.UNLABELED_ORDER)
            )
            unlabeled_ids = self.unlabeled[turn]
            pixels = self.pixels[unlabeled_ids]
            unlabeled = tuple(view(pixels, generator) for view in self.unlabeled_pipelines)
        return Batch(
            images,
            self.labels[ids],
            unlabeled,
            ids,
            unlabeled_ids,
            step=step,
            pixels=self.pixels,
        )

    def _labeled(self, step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Positions (N,) and views (N, C, S, S); N is 0 for a method that looks at no label."""
        if self.labeled_pipeline is None:
            nobody = torch.empty(0, dtype=torch.int64)
            return nobody, self.pixels[nobody].float()
        ids = self.labeled[
            _turn(
                len(self.labeled), self.size, step, seeds.hashed(self.seed, Purpose.LABELED_ORDER)
            )
        ]
        return ids, self.labeled_pipeline(self.pixels[ids], generator)


def _pipeline(view: str | Pipeline, task: Task) -> Pipeline:
    if view == "auto":
        view = "digits" if task.channels == 1 else "strong"
    # A mirrored border would put strokes around a symbol; photographs bear it.
    grey: Fill | None = "background" if task.channels == 1 else None
    return named(view, flips=task.flips, fill=grey)


def _turn(n: int, size: int, step: int, seed: int) -> Tensor:
    """Positions (size,) of one batch: shuffled pass after shuffled pass over n images."""
    places = torch.arange(step * size, (step + 1) * size)
    passes = places // n
    shuffles = [_shuffle(n, seed, k) for k in passes.unique().tolist()]
    return torch.cat(
        [
            shuffle[places[passes == k] % n]
            for k, shuffle in zip(passes.unique(), shuffles, strict=True)
        ]
    )


@lru_cache(maxsize=64)
def _shuffle(n: int, seed: int, number: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seeds.hashed(seed, number)))
