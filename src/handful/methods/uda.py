"""UDA: predictions may not change under heavy distortion; sharpened sure guesses are the target.

Xie et al. 2019, "Unsupervised Data Augmentation for Consistency Training", arXiv:1904.12848.
Authors' code: github.com/google-research/uda (image).

The confidence threshold is on the guess before it is sharpened, and the mean is over all
unlabelled images, as in the authors' code. The plain form, without either:
`--set threshold=0 --set temperature=1`.

Where we differ: labelled images are distorted as strongly as the views that learn
(`--set augment=weak` is theirs); distribution alignment is an option.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from torch import Tensor

from handful.errors import HandfulError
from handful.methods.base import About, Batch
from handful.methods.consistency import Consistency, Cost, Seen
from handful.methods.losses import annealed_cross_entropy, divergence_loss

Annealing = Literal["none", "linear", "log", "exp"]


@dataclass(frozen=True)
class UDA(Consistency):
    """Hyper-parameters, beside those that all share; defaults of the authors for CIFAR-10."""

    threshold: float = 0.8  # beta: only guesses more probable than this count
    temperature: float = 0.4  # tau: of the target; below 1 sharpens
    annealing: Annealing = "none"  # how the labelled images that are known are let in again

    name: ClassVar[str] = "uda"
    about: ClassVar[About] = About(
        "trains a network to guess the same for an image and for a strongly augmented view of it",
        "It learns whole guesses, sharpened, not only the likeliest class.",
        "Many steps, and an augmentation that changes the class teaches it wrongly.",
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

    def unlabeled_loss(self, seen: Seen, batch: Batch) -> Cost:
        guesses = self.guesses(seen.weak, batch)  # (M, K)
        loss, kept = divergence_loss(guesses, seen.strong, self.temperature, self.threshold)
        return Cost(loss, guesses.argmax(dim=1), kept)


def signal_threshold(annealing: Annealing, progress: float, num_classes: int) -> float:
    """The probability above which a labelled image is left out: from 1/K at first to 1 at last.

    exp releases most images late, for problems that are over-fitted at once; log early.

    Args:
        progress: share of the steps taken.
    """
    rise = {
        "linear": progress,
        "log": 1 - math.exp(-5 * progress),
        "exp": math.exp(5 * (progress - 1)),
    }[annealing]
    return rise * (1 - 1 / num_classes) + 1 / num_classes
