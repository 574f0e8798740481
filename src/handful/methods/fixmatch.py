"""FixMatch: learns confident pseudo-labels of weak views on strong views.

Sohn et al. 2020, "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence",
arXiv:2001.07685. Distribution alignment (`align`) as in AdaMatch, Berthelot et al. 2021,
arXiv:2106.04732, with a running mean of the predictions instead of the mean of a batch.

Where we differ from the authors' code:
- Labelled images have strong augmentation by default, which gives more variety with ten images a
  class. `--set augment=weak` is theirs.
- RandAugment has magnitudes up to 10 of 30 in torchvision's ranges and applies every operation;
  theirs has up to 9 of 10, and applies each operation with probability 1/2.
- The batch is concatenated; theirs is interleaved, for several replicas.
"""

from dataclasses import dataclass
from typing import ClassVar

from handful.errors import HandfulError
from handful.methods.base import About, Batch
from handful.methods.consistency import Consistency, StepLogits, UnlabeledCost
from handful.methods.losses import pseudo_label_loss


@dataclass(frozen=True)
class FixMatch(Consistency):
    """Cross-entropy of strong views against pseudo-labels above a fixed threshold."""

    threshold: float = 0.95  # tau: pseudo-labels less probable than this are ignored

    name: ClassVar[str] = "fixmatch"
    about: ClassVar[About] = About(
        "trains a network on its confident pseudo-labels under strong augmentation",
        "Pseudo-labels are used only above its threshold, so early mistakes do less harm.",
        "Slow on two cores. Images below its threshold are not used, and a collapse into few "
        "classes is possible: the share of images used and the classes of the pseudo-labels "
        "show it.",
        uses_unlabeled=True,
        counterpart="supervised",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.threshold <= 1:
            raise HandfulError(f"threshold is a probability, got {self.threshold}")

    def unlabeled_loss(self, logits: StepLogits, batch: Batch) -> UnlabeledCost:
        targets = self.target_probabilities(logits.weak, batch)  # (M, K)
        loss, mask = pseudo_label_loss(targets, logits.strong, self.threshold)
        return UnlabeledCost(loss, targets.argmax(dim=1), mask)
