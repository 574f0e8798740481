"""Pseudo-labels: the most probable class of an unlabelled image is its label.

Lee 2013, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural
Networks", ICML workshop on Challenges in Representation Learning. One view gives the pseudo-label
and is trained on it; the weight of the unlabelled images rises linearly.

Where we differ: images are augmented; the paper has dropout and no augmentation.
"""

from dataclasses import dataclass
from typing import ClassVar

from handful.errors import HandfulError
from handful.methods.base import About, Batch
from handful.methods.consistency import Consistency, StepLogits, UnlabeledCost
from handful.methods.losses import pseudo_label_loss


@dataclass(frozen=True)
class PseudoLabel(Consistency):
    """Cross-entropy of a view against its own pseudo-label, with a weight that rises."""

    unlabeled_weight: float = 3.0  # alpha_f: the weight after it has risen
    weak: str = "auto"  # pipeline of the view
    strong: str = "same"
    threshold: float = 0.0  # pseudo-labels less probable than this are ignored; none in the paper
    rise_from: float = 0.1  # T1: share of the steps at which the weight starts to rise
    rise_to: float = 0.6  # T2: share of the steps at which the weight has risen

    name: ClassVar[str] = "pseudo_label"
    about: ClassVar[About] = About(
        "trains a network on labels and on its own pseudo-labels",
        "The simplest semi-supervised method.",
        "It learns its own early mistakes.",
        uses_unlabeled=True,
        counterpart="supervised",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.threshold <= 1:
            raise HandfulError(f"threshold is a probability, got {self.threshold}")
        if not 0 <= self.rise_from <= self.rise_to <= 1:
            raise HandfulError(
                f"rise_from and rise_to are shares of the steps with 0 <= from <= to <= 1, "
                f"got {self.rise_from} and {self.rise_to}"
            )

    def ramp(self, progress: float) -> float:
        if progress >= self.rise_to:
            return 1.0
        if progress <= self.rise_from:
            return 0.0
        return (progress - self.rise_from) / (self.rise_to - self.rise_from)

    def unlabeled_loss(self, logits: StepLogits, batch: Batch) -> UnlabeledCost:
        targets = self.target_probabilities(logits.weak, batch)  # (M, K)
        loss, mask = pseudo_label_loss(targets, logits.strong, self.threshold)
        return UnlabeledCost(loss, targets.argmax(dim=1), mask)
