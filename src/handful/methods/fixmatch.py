"""FixMatch: trust your sure guesses, and learn to repeat them under heavy distortion.

Sohn et al. 2020, "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence",
arXiv:2001.07685. Distribution alignment (`align`) as in AdaMatch, Berthelot et al. 2021,
arXiv:2106.04732, with a running mean of the guesses in the place of one batch's.

Where we differ from the authors' code:
- Labelled images are distorted as strongly as the views that learn, by default: of ten images a
  class the network sees more that way. `--set augment=weak` is theirs.
- RandAugment takes magnitudes up to 10 of 30 in torchvision's ranges and makes every operation;
  they take up to 9 of 10, and make each operation with probability 1/2.
- The batch is concatenated, not interleaved: they interleave to serve several replicas.
"""

from dataclasses import dataclass
from typing import ClassVar

from handful.errors import HandfulError
from handful.methods.base import About, Batch
from handful.methods.consistency import Consistency, Cost, Seen
from handful.methods.losses import pseudo_label_loss


@dataclass(frozen=True)
class FixMatch(Consistency):
    """Hyper-parameters, beside those that all share."""

    threshold: float = 0.95  # tau: a guess less probable than this is ignored

    name: ClassVar[str] = "fixmatch"
    about: ClassVar[About] = About(
        "trains a network to repeat its confident guesses under strong augmentation",
        "Guesses count only above its threshold, so that early mistakes teach it less.",
        "Slow on two cores. Below its threshold images count for nothing, and a collapse "
        "into few classes is possible: the share of images used and the classes guessed "
        "tell.",
        uses_unlabeled=True,
        counterpart="supervised",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.threshold <= 1:
            raise HandfulError(f"threshold is a probability, got {self.threshold}")

    def unlabeled_loss(self, seen: Seen, batch: Batch) -> Cost:
        guesses = self.guesses(seen.weak, batch)  # (M, K)
        loss, kept = pseudo_label_loss(guesses, seen.strong, self.threshold)
        return Cost(loss, guesses.argmax(dim=1), kept)
