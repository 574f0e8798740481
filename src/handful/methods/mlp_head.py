"""A head of two layers on frozen features, as the reproduced reports have it."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful import seeds
from handful.errors import HandfulError
from handful.methods.base import About
from handful.methods.heads import check_fit


@dataclass(frozen=True)
class MLPHead:
    """Two linear layers with ReLU; the defaults are those of the report on MNIST with SimCLR."""

    hidden: int = 64  # outputs of the first layer, with ReLU
    lr: float = 1e-3  # of Adam
    weight_decay: float = 0.0  # Adam's L2
    batch: int = 16  # labelled images in a step
    epochs: int = 20  # passes over the labels

    name: ClassVar[str] = "mlp_head"
    about: ClassVar[About] = About(
        "fits two layers on features of a frozen network",
        "As cheap as features, and not limited to linear borders between classes.",
        "With a handful of labels it overfits. It ignores unlabelled images.",
        uses_unlabeled=False,
        learned_weights=True,
    )
    limit: ClassVar[int] = 0  # unlabelled images are not used

    def __post_init__(self) -> None:
        for field in ("hidden", "lr", "batch", "epochs"):
            if getattr(self, field) <= 0:
                raise HandfulError(f"{field} must be more than 0, got {getattr(self, field)}")

    def fit_features(
        self, labeled: Tensor, labels: Tensor, unlabeled: Tensor, num_classes: int, seed: int
    ) -> nn.Module:
        """The head fitted to (N, D) features and (N,) labels; unlabelled features are not used."""
        check_fit(labeled, labels, num_classes)
        x = labeled.float()
        with seeds.seeded(seed):
            head = make_head(x.shape[1], self.hidden, num_classes)
            optimizer = torch.optim.Adam(head.parameters(), self.lr, weight_decay=self.weight_decay)
            for _ in range(self.epochs):
                for part in torch.randperm(len(x)).split(self.batch):
                    loss = F.cross_entropy(head(x[part]), labels[part])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
        return head.requires_grad_(False).eval()


def make_head(inputs: int, hidden: int, num_classes: int) -> nn.Sequential:
    """An untrained head (·, inputs) → (·, num_classes) with `hidden` units."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, num_classes))
