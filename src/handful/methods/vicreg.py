"""VICReg: equal embeddings of two views, with varied and uncorrelated dimensions.

Bardes et al. 2021, "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised
Learning", arXiv:2105.04906. It needs no negatives, so small batches are enough.

Where we differ from the authors' code: the optimiser is Adam instead of LARS, the weight average is
kept, and the expander has 512 instead of 8192 outputs, for networks trained on two cores.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from handful.errors import HandfulError
from handful.methods.base import About, Batch, Step, Task, Views
from handful.methods.contrastive_losses import vicreg
from handful.methods.self_supervised import SelfSupervised, both_views, check_positive, projected


@dataclass(frozen=True)
class VICReg(SelfSupervised):
    """Weighted sum of invariance, variance and covariance; the weights are the paper's."""

    augment: str = "simclr"  # a named pipeline, or a change of one: simclr,-blur,+cut-out
    invariance_weight: float = 25.0  # lambda
    variance_weight: float = 25.0  # mu
    covariance_weight: float = 1.0  # nu
    expander_depth: int = 3  # linear layers after the backbone, BatchNorm between them
    expander_width: int = 512  # outputs of each layer

    name: ClassVar[str] = "vicreg"
    divisible: ClassVar[bool] = True
    about: ClassVar[About] = About(
        "pre-trains a network without labels to embed two augmented views of an image equally",
        "It needs no negatives, so small batches are enough.",
        "It needs long pre-training, and augmentations that suit the images.",
        uses_unlabeled=True,
    )

    def __post_init__(self) -> None:
        check_positive(self, "expander_depth", "expander_width")
        for field in ("invariance_weight", "variance_weight", "covariance_weight"):
            if getattr(self, field) < 0:
                raise HandfulError(f"{field} must be 0 or more, got {getattr(self, field)}")

    def views(self, task: Task) -> Views:
        return Views(None, (self.augment, self.augment), unlabeled_ratio=1)

    def build(self, task: Task) -> nn.Module:
        return projected(task, [self.expander_width] * self.expander_depth, norm=True)

    def loss(self, model: nn.Module, batch: Batch) -> Step:
        invariance, variance, covariance = vicreg(*both_views(model, batch))
        loss = (
            self.invariance_weight * invariance
            + self.variance_weight * variance
            + self.covariance_weight * covariance
        )
        logs = {"invariance": invariance, "variance": variance, "covariance": covariance}
        return Step(loss, {"loss": loss, **logs})
