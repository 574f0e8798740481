"""Mean Teacher: predicts what the average of its weights predicts on another view.

Tarvainen and Valpola 2017, "Mean teachers are better role models", arXiv:1703.01780. Squared
difference of probabilities; its weight rises along exp(-5 (1 - t)²). `--set teacher=false` makes
it the Pi model (Laine and Aila 2017, arXiv:1610.02242), in which the network predicts both views.

Where we differ: our teacher is in evaluation mode, with averaged statistics of batch norm; the
authors' teacher uses those of the batch.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from handful.errors import HandfulError
from handful.methods.base import About, Batch
from handful.methods.consistency import Consistency, StepLogits, UnlabeledCost
from handful.methods.losses import squared_difference


@dataclass(frozen=True)
class MeanTeacher(Consistency):
    """Squared difference of the probabilities of the network and of its weight average."""

    unlabeled_weight: float = 100.0  # the authors' for CIFAR-10
    teacher: bool = True
    strong: str = "weak"  # pipeline of the view for the loss, as for the targets
    rise: float = 0.25  # share of the steps in which the weight rises

    name: ClassVar[str] = "mean_teacher"
    about: ClassVar[About] = About(
        "trains a network to predict what the average of its weights predicts",
        "Stable: the average predicts better than the network at any one step.",
        "It gains less than methods with strong augmentation, and doubles the forward passes.",
        uses_unlabeled=True,
        counterpart="supervised",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.rise <= 1:
            raise HandfulError(f"rise is a share of the steps, got {self.rise}")

    def ramp(self, progress: float) -> float:
        risen = min(1.0, progress / self.rise) if self.rise else 1.0
        return math.exp(-5 * (1 - risen) ** 2)

    def unlabeled_loss(self, logits: StepLogits, batch: Batch) -> UnlabeledCost:
        targets = self.target_probabilities(logits.weak, batch)  # (M, K)
        classes = targets.argmax(dim=1)
        return UnlabeledCost(
            squared_difference(targets, logits.strong), classes, torch.ones_like(targets[:, 0])
        )
