"""SoftMatch: every guess counts, the less sure ones for less; what is sure moves with the network.

Chen et al. 2023, "SoftMatch: Addressing the Quantity-Quality Trade-off in Semi-Supervised
Learning", arXiv:2301.10921. A guess more confident than the running mean of confidences counts in
full; below it the weight falls off like a Gaussian of their running variance. Alignment is for the
weights alone: the class learned is the network's own guess.

Where we differ: guesses are aligned to the class shares of the labels, not to equal ones; the
running moments forget ten times faster, since our runs are shorter than the authors' million steps.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from handful.errors import HandfulError
from handful.methods.base import About, Batch, Task
from handful.methods.consistency import Consistency, Cost, Seen
from handful.methods.losses import truncated_gaussian, weighted_cross_entropy


@dataclass(frozen=True)
class SoftMatch(Consistency):
    """Hyper-parameters, beside those that all share."""

    align: bool = True
    keep: float = 0.99  # m: share of the running moments that a step leaves; the authors' 0.999
    width: float = 2.0  # n_sigma: the Gaussian is so many times narrower than the confidences

    name: ClassVar[str] = "softmatch"
    about: ClassVar[About] = About(
        "trains a network to repeat its guesses under strong augmentation, the surer the more",
        "Every unlabelled image counts a little, and no threshold has to be chosen.",
        "Slow on two cores, and it believes itself: watch the classes guessed.",
        uses_unlabeled=True,
        counterpart="supervised",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.keep < 1:
            raise HandfulError(f"keep lies in [0, 1), got {self.keep}")
        if not self.width > 0:
            raise HandfulError(f"width must be above 0, got {self.width}")

    def state(self, task: Task) -> dict[str, Tensor]:
        """Mean and variance of the confidences too: at first a guess's, and 1."""
        moments = {"mean": torch.tensor(1 / len(task.classes)), "variance": torch.tensor(1.0)}
        return super().state(task) | moments

    def unlabeled_loss(self, seen: Seen, batch: Batch) -> Cost:
        confidence = self.guesses(seen.weak, batch).amax(dim=1)  # (M,)
        mean, variance = batch.state["mean"], batch.state["variance"]
        correction = min(1, len(confidence) - 1)
        mean.lerp_(confidence.mean().to(mean), 1 - self.keep)
        variance.lerp_(confidence.var(correction=correction).to(variance), 1 - self.keep)
        weight = truncated_gaussian(confidence, mean, variance, self.width)  # (M,)
        guess = seen.weak.argmax(dim=1)
        return Cost(weighted_cross_entropy(seen.strong, guess, weight), guess, weight)
