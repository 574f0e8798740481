"""Pseudo-labels: the likeliest class of an unlabelled image is taken for its label.

Lee 2013, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural
Networks", ICML workshop on Challenges in Representation Learning. Guess and lesson are made on the
same view; the weight of the unlabelled images rises in a line.

Where we differ: images are augmented; the paper had dropout and no augmentation.
"""

from dataclasses import dataclass
from typing import ClassVar

from handful.errors import HandfulError
from handful.methods.base import About, Batch
from handful.methods.consistency import Consistency, Cost, Seen
from handful.methods.losses import pseudo_label_loss


@dataclass(frozen=True)
class PseudoLabel(Consistency):
    """Hyper-parameters, beside those that all share."""

    unlabeled_weight: float = 3.0  # alpha_f: reached when the weight has risen
    weak: str = "auto"  # pipeline of the view that is guessed and learned
    strong: str = "same"
    threshold: float = 0.0  # a guess less probable than this is ignored; the paper trusts all
    rise_from: float = 0.1  # T1: share of the steps before unlabelled images count
    rise_to: float = 0.6  # T2: share of the steps from which on they count in full

    name: ClassVar[str] = "pseudo_label"
    about: ClassVar[About] = About(
        "trains a network on labels and on its own guesses",
        "The simplest of its kind.",
        "It believes itself: early mistakes are learned.",
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

    def unlabeled_loss(self, seen: Seen, batch: Batch) -> Cost:
        guesses = self.guesses(seen.weak, batch)  # (M, K)
        loss, kept = pseudo_label_loss(guesses, seen.strong, self.threshold)
        return Cost(loss, guesses.argmax(dim=1), kept)
