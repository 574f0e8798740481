"""Base class of the self-supervised methods, and projections for two-view methods.

A self-supervised method pre-trains a backbone without labels, in the same training loop as other
methods. It builds a module with `normalize`, `backbone` and a part for pre-training only (a
projection or a decoder). `normalize` and `backbone` are kept (see pipeline/pretrain.py), and the
method named by `then` makes a classifier from them.
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
    """Fields and interface of the self-supervised methods."""

    then: str = "features"  # the method after pre-training: features, self_training, supervised, …
    seed: int = 0  # of pre-training, whose result all draws of labels share

    name: ClassVar[str]

    def spec(self, task: Task) -> BackboneSpec:
        """The backbone that results; by default the task's own."""
        return task.backbone

    def schedule(self, task: Task) -> Schedule:
        """Adam with cosine decay, about two minutes for small images on two cores."""
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
        """A failure that the method's logs in a record show, as a sentence; else None."""
        return None


class Projected(nn.Module):
    """Images in [0, 1] → normalised → backbone → projection. The projection is not kept.

    Args:
        widths: outputs of the projection's linear layers; empty: no projection.
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
    """Linear layers of these widths with ReLU between them, after BatchNorm if `norm`."""
    layers: list[nn.Module] = []
    for before, after in pairwise([inputs, *widths]):
        layers += [nn.Linear(before, after)]
        layers += [nn.BatchNorm1d(after)] if norm else []
        layers += [nn.ReLU()]
    return nn.Sequential(*(layers[: -2 if norm else -1]))


def projected(task: Task, widths: Sequence[int], norm: bool = False) -> Projected:
    """An untrained network with a projection, for two-view methods."""
    return Projected(*body(task), widths, norm)


def both_views(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """(N, D) embeddings of each view of the whole batch, from one forward pass over both.

    Batch norm has the statistics of both views together, as in the authors' code of SimCLR.
    """
    a, b = model(torch.cat(batch.unlabeled)).chunk(2)
    return batch.whole(a), batch.whole(b)


def check_positive(method: object, *fields: str) -> None:
    """Raise HandfulError that names the first field whose value is not above 0."""
    for field in fields:
        value = getattr(method, field)
        if not value > 0:
            raise HandfulError(f"{field} must be more than 0, got {value}")
