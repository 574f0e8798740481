"""Mean Teacher: agree with the average of your own weights on another view of the image.

Tarvainen and Valpola 2017, "Mean teachers are better role models", arXiv:1703.01780. Squared
difference of probabilities; its weight rises along exp(-5 (1 - t)²). `--set teacher=false` makes
it the Pi model (Laine and Aila 2017, arXiv:1610.02242), both predictions by the network itself.

Where we differ: the average is taken in evaluation mode, with the averaged statistics of batch
norm; the authors' teacher normalises by the batch.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from handful.errors import HandfulError
from handful.methods.base import About, Batch
from handful.methods.consistency import Consistency, Cost, Seen
from handful.methods.losses import squared_difference


@dataclass(frozen=True)
class MeanTeacher(Consistency):
    """Hyper-parameters, beside those that all share."""

    unlabeled_weight: float = 100.0  # the authors' for CIFAR-10
    teacher: bool = True
    strong: str = "weak"  # drawn as the view that is guessed
    rise: float = 0.25  # share of the steps over which the weight rises

    name: ClassVar[str] = "mean_teacher"
    about: ClassVar[About] = About(
        "trains a network to agree with its own average over the past",
        "Steady: the average guesses better than the network at any one step.",
        "It gains less than methods with strong augmentation, and doubles the passes.",
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

    def unlabeled_loss(self, seen: Seen, batch: Batch) -> Cost:
        guesses = self.guesses(seen.weak, batch)  # (M, K)
        guess = guesses.argmax(dim=1)
        return Cost(squared_difference(guesses, seen.strong), guess, torch.ones_like(guesses[:, 0]))
