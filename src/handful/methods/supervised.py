"""Supervised: learns from the labelled images alone; the baseline of all other methods."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import nn

from handful.errors import HandfulError
from handful.methods.base import About, Batch, Step, Task, Views, classifier
from handful.methods.schedule import Schedule


@dataclass(frozen=True)
class Supervised:
    """Cross-entropy on augmented labelled images."""

    augment: str = "auto"  # a named pipeline; auto: digits for grey images, else strong
    label_smoothing: float = 0.0  # probability distributed evenly over classes (arXiv:1512.00567)
    dropout: float = 0.0  # share of features dropped before the last layer

    name: ClassVar[str] = "supervised"
    divisible: ClassVar[bool] = True
    about: ClassVar[About] = About(
        "trains a network on the labelled images alone",
        "It assumes little about the images and needs no learned weights. It suits symbols, scans "
        "and other images unlike photographs.",
        "It learns nothing from unlabelled images, and on photographs a handful of labels is "
        "not enough to learn the features of a pre-trained network.",
        uses_unlabeled=False,
    )

    def __post_init__(self) -> None:
        for field in ("label_smoothing", "dropout"):
            if not 0 <= getattr(self, field) < 1:
                raise HandfulError(f"{field} lies in [0, 1), got {getattr(self, field)}")

    def schedule(self, task: Task) -> Schedule:
        """The default schedule, with small batches, since few labels gain more from more steps.

        Images of 16 pixels or less need a fifth of the steps. A pre-trained backbone has a tenth of
        the learning rate.
        """
        steps = 600 if task.size <= 16 else 3000
        return Schedule(steps=steps, batch=16, backbone_rate=1.0 if task.init is None else 0.1)

    def views(self, task: Task) -> Views:
        return Views(self.augment)

    def build(self, task: Task) -> nn.Module:
        return classifier(task, self.dropout)

    def loss(self, model: nn.Module, batch: Batch) -> Step:
        logits = model(batch.images)  # (N, K)
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        accuracy = (logits.detach().argmax(dim=1) == batch.labels).float().mean()
        return Step(loss, {"loss": loss, "accuracy": accuracy})
