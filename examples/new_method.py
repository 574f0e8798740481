"""A new method: mixup, in forty lines. It trains, estimates, resumes and compares like any other.

    python examples/new_method.py

Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization", arXiv:1710.09412.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

import handful
from handful.methods.base import Batch, Step, Task, Views, classifier
from handful.methods.schedule import Schedule
from handful.pipeline.setup import subsample_labels


@dataclass(frozen=True)
class Mixup:
    """Images and labels are mixed pairwise; fields are settings."""

    alpha: float = 0.2  # of the Beta distribution that the shares are drawn from

    name: ClassVar[str] = "mixup"

    def schedule(self, task: Task) -> Schedule:
        return Schedule(steps=400, batch=64)

    def views(self, task: Task) -> Views:
        return Views("auto")  # no unlabelled image is asked for

    def build(self, task: Task) -> nn.Module:
        return classifier(task)

    def loss(self, model: nn.Module, batch: Batch) -> Step:
        share = torch.distributions.Beta(self.alpha, self.alpha).sample()
        other = torch.randperm(len(batch.images))
        logits = model(torch.lerp(batch.images[other], batch.images, share))
        own, mixed = (
            F.cross_entropy(logits, batch.labels),
            F.cross_entropy(logits, batch.labels[other]),
        )
        loss = share * own + (1 - share) * mixed
        return Step(loss, {"loss": loss})


def main(**options: object) -> handful.Run:
    images = handful.load("digits")
    run = handful.fit(
        subsample_labels(images, per_class=10, seed=0), Mixup(), estimate="none", **options
    )
    test = run.score_test(images.test)
    print(f"mixup on 100 labelled digits: {test.accuracy:.1%} of {test.n} test images")
    return run


if __name__ == "__main__":
    main()
