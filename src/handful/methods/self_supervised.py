"""What the label-free methods share: a first stage that no label can reach, and what follows it.

A label-free method trains a backbone, and something behind it that is thrown away: a projection,
a decoder. It takes part in the one training loop as every trained method does. What it builds is
a module with `normalize` and `backbone`; these two are kept (see pretrain.py), and the method
named by `then` makes a classifier of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from handful.errors import HandfulError
from handful.methods.base import Batch, Step, Task, Views, body
from handful.methods.schedule import Schedule
from handful.models.classifier import BackboneSpec, Normalize


@dataclass(frozen=True, kw_only=True)
class SelfSupervised:
    """Fields of every label-free method, and the questions it answers."""

    then: str = "features"  # what follows: features, self_training, propagation, supervised, …
    seed: int = 0  # of the label-free stage: all draws of labels share its outcome

    name: ClassVar[str]

    def spec(self, task: Task) -> BackboneSpec:
        """The backbone that comes out, where it is not the task's own."""
        return task.backbone

    def schedule(self, task: Task) -> Schedule:
        """Adam with a cosine, about two minutes of small images on two cores."""
        return Schedule(
            steps=2000,
            batch=min(128, len(task.training_pool)),
            optimizer="adam",
            lr=1e-3,
            weight_decay=0.0,
            warmup=0.02,
        )

    def views(self, task: Task) -> Views:
        raise NotImplementedError

    def build(self, task: Task) -> nn.Module:
        raise NotImplementedError

    def loss(self, model: nn.Module, batch: Batch) -> Step:
        raise NotImplementedError

    def failure(self, line: Mapping[str, float]) -> str | None:
        """What is wrong by the method's own figures at a look, as a sentence; None: nothing."""
        return None


class Projected(nn.Module):
    """Images in [0, 1] → normalised → backbone → projection. The projection is thrown away.

    Args:
        widths: outputs of the projection's linear layers; none: no projection.
        norm: BatchNorm after every layer but the last.
    """

    def __init__(
        self, normalize: Normalize, backbone: nn.Module, widths: Sequence[int], norm: bool
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.backbone = backbone
        self.projection = projection(int(backbone.width), widths, norm)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, S, S) → (N, D)."""
        return self.projection(self.backbone(self.normalize(images)))


def projection(inputs: int, widths: Sequence[int], norm: bool = False) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them, and BatchNorm before it if asked."""
    layers: list[nn.Module] = []
    for before, after in pairwise([inputs, *widths]):
        layers += [nn.Linear(before, after)]
        layers += [nn.BatchNorm1d(after)] if norm else []
        layers += [nn.ReLU()]
    return nn.Sequential(*(layers[: -2 if norm else -1]))


def projected(task: Task, widths: Sequence[int], norm: bool = False) -> Projected:
    """A fresh network for two-view methods."""
    return Projected(*body(task), widths, norm)


def both_views(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """(N, D) embeddings of each view of the batch, from one pass over all its images.

    Batch norm so sees the statistics of both views together, as in the authors' code of SimCLR.
    """
    a, b = model(torch.cat(batch.unlabeled)).chunk(2)
    return a, b


def check_positive(method: object, *fields: str) -> None:
    """ValueError that names the first of the fields that is not more than 0."""
    for field in fields:
        value = getattr(method, field)
        if not value > 0:
            raise HandfulError(f"{field} must be more than 0, got {value}")
