"""SoftMatch: weighs every pseudo-label by its confidence, relative to running moments.

Chen et al. 2023, "SoftMatch: Addressing the Quantity-Quality Trade-off in Semi-Supervised
Learning", arXiv:2301.10921. A pseudo-label more confident than the running mean has weight 1; below
the mean the weight is a Gaussian with the running variance. Alignment affects the weights only: the
pseudo-label is the most probable class before alignment.

Where we differ: probabilities are aligned to class shares, given or estimated, not to equal shares;
the running moments adapt ten times faster, since our runs are shorter than the authors' million
steps.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from handful.errors import HandfulError
from handful.methods.base import About, Batch, Task
from handful.methods.consistency import Consistency, StepLogits, UnlabeledCost
from handful.methods.losses import truncated_gaussian, weighted_cross_entropy


@dataclass(frozen=True)
class SoftMatch(Consistency):
    """Cross-entropy of strong views against pseudo-labels, weighted by confidence."""

    align: bool = True
    keep: float = 0.99  # m: decay of the running moments; the authors' is 0.999
    width: float = 2.0  # n_sigma: divides the standard deviation of the Gaussian

    name: ClassVar[str] = "softmatch"
    about: ClassVar[About] = About(
        "trains a network on pseudo-labels weighted by confidence, under strong augmentation",
        "Every unlabelled image is used, and no threshold has to be chosen.",
        "Slow on two cores, and it learns its own mistakes: watch the classes of pseudo-labels.",
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
        """The base's state, and the running mean and variance of confidences: first 1/K and 1."""
        moments = {"mean": torch.tensor(1 / len(task.classes)), "variance": torch.tensor(1.0)}
        return super().state(task) | moments

    def unlabeled_loss(self, logits: StepLogits, batch: Batch) -> UnlabeledCost:
        confidence = self.target_probabilities(logits.weak, batch).amax(dim=1)  # (M,)
        mean, variance = batch.state["mean"], batch.state["variance"]
        correction = min(1, len(confidence) - 1)
        mean.lerp_(confidence.mean().to(mean), 1 - self.keep)
        variance.lerp_(confidence.var(correction=correction).to(variance), 1 - self.keep)
        weight = truncated_gaussian(confidence, mean, variance, self.width)  # (M,)
        classes = logits.weak.argmax(dim=1)
        return UnlabeledCost(
            weighted_cross_entropy(logits.strong, classes, weight), classes, weight
        )
