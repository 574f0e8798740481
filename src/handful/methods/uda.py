"""UDA: trains strong views on sharpened, confident predictions of weak views.

Xie et al. 2019, "Unsupervised Data Augmentation for Consistency Training", arXiv:1904.12848.
Authors' code: github.com/google-research/uda (image).

The confidence threshold applies before sharpening, and the mean is over all unlabelled images, as
in the authors' code. `--set threshold=0 --set temperature=1` is the form without threshold and
sharpening.

Where we differ: labelled images have strong augmentation (`--set augment=weak` is theirs), and
distribution alignment is an option.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from torch import Tensor

from handful.errors import HandfulError
from handful.methods.base import About, Batch
from handful.methods.consistency import Consistency, StepLogits, UnlabeledCost
from handful.methods.losses import annealed_cross_entropy, divergence_loss

Annealing = Literal["none", "linear", "log", "exp"]


@dataclass(frozen=True)
class UDA(Consistency):
    """Divergence from sharpened predictions; defaults of the authors for CIFAR-10."""

    threshold: float = 0.8  # beta: predictions not above this probability are masked
    temperature: float = 0.4  # tau: of the targets; below 1 sharpens
    annealing: Annealing = "none"  # rise of the threshold that masks learned labels; none: no mask

    name: ClassVar[str] = "uda"
    about: ClassVar[About] = About(
        "trains a network to predict the same for an image and for a strongly augmented view",
        "It learns sharpened probabilities, not only the most probable class.",
        "It needs many steps, and an augmentation that changes the class misleads it.",
        uses_unlabeled=True,
        counterpart="supervised",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.threshold <= 1:
            raise HandfulError(f"threshold is a probability, got {self.threshold}")
        if not self.temperature > 0:
            raise HandfulError(f"temperature must be above 0, got {self.temperature}")
        if self.annealing not in get_args(Annealing):
            raise HandfulError(
                f"no annealing {self.annealing!r}; choose one of {', '.join(get_args(Annealing))}"
            )

    def labeled_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        if self.annealing == "none":
            return super().labeled_loss(logits, batch)
        threshold = signal_threshold(self.annealing, batch.progress, logits.shape[1])
        return annealed_cross_entropy(logits, batch.labels, threshold)

    def unlabeled_loss(self, logits: StepLogits, batch: Batch) -> UnlabeledCost:
        targets = self.target_probabilities(logits.weak, batch)  # (M, K)
        loss, mask = divergence_loss(targets, logits.strong, self.temperature, self.threshold)
        return UnlabeledCost(loss, targets.argmax(dim=1), mask)


def signal_threshold(annealing: Annealing, progress: float, num_classes: int) -> float:
    """The probability above which a labelled image is masked; rises from 1/K to 1.

    "exp" unmasks most images late, for problems that overfit early; "log" unmasks them early.

    Args:
        progress: share of the schedule done.
    """
    rise = {
        "linear": progress,
        "log": 1 - math.exp(-5 * progress),
        "exp": math.exp(5 * (progress - 1)),
    }[annealing]
    return rise * (1 - 1 / num_classes) + 1 / num_classes
