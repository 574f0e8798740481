"""Self-training: a linear head learns its own most confident predictions in rounds.

A head fitted to the labelled features predicts the unlabelled ones. The predictions are aligned to
class shares, given or estimated (`class_shares`), the most confident ones of each class become
pseudo-labels, and a new head is fitted to labels and pseudo-labels. Each round uses more
pseudo-labels.

Scudder 1965, "Probability of error of some adaptive pattern-recognition machines"; balanced by
class as in Zou et al. 2018, arXiv:1810.07911, the growing share as in Cascante-Bonilla et al.
2020, arXiv:2001.06001 ("Curriculum Labeling"). Where we differ: only the head is fitted again;
theirs train the network from scratch. The head that learned from the labels alone is mixed into the
outcome: where pseudo-labels confirm their errors, it holds against them.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.errors import HandfulError
from handful.methods.base import About
from handful.methods.class_shares import wanted_shares
from handful.methods.heads import align, check_fit, fit_logistic, mixed, principal, subsample
from handful.methods.linear_head import Features


@dataclass(frozen=True)
class SelfTraining:
    """Rounds of logistic regression; strengths refer to features of mean squared length 1."""

    rounds: int = 10  # heads fitted after the first
    first_share: float = 0.1  # share of the unlabelled images used in the first round
    last_share: float = 0.9  # share of the unlabelled images used in the last round
    labeled_weight: float = 0.1  # weight of all labels together; that of the pseudo-labels is 1
    first_strength: float = 3e-3  # L2 penalty of the head on labels alone
    strength: float = 1e-4  # L2 penalty of the later heads
    rank: int = 256  # principal axes of the features that are used
    labels_only: float = 0.4  # share of the labels-only head in the logits
    limit: int = 50_000  # most unlabelled images used; a random sample of more

    name: ClassVar[str] = "self_training"
    about: ClassVar[About] = About(
        "fits a linear head on the features of a frozen network, then again on its own "
        "confident pseudo-labels",
        "As cheap as features, and unlabelled images improve the borders between classes.",
        "It repeats systematic errors of its first pseudo-labels. A class that is rare among the "
        "unlabelled images can disappear.",
        uses_unlabeled=True,
        counterpart="features",
        learned_weights=True,
    )
    aligns: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.labels_only <= 1:
            raise HandfulError(f"labels_only lies in [0, 1], got {self.labels_only}")
        if not 0 < self.first_share <= self.last_share <= 1:
            raise HandfulError(
                f"first_share and last_share are shares with 0 < first <= last <= 1, "
                f"got {self.first_share} and {self.last_share}"
            )
        for field in ("rounds", "rank", "limit", "labeled_weight", "first_strength", "strength"):
            if getattr(self, field) <= 0:
                raise HandfulError(f"{field} must be more than 0, got {getattr(self, field)}")

    def fit_features(
        self,
        labeled: Tensor,
        labels: Tensor,
        unlabeled: Tensor,
        num_classes: int,
        seed: int,
        shares: Tensor | None = None,
    ) -> nn.Linear:
        """The last head, from (N, D) labelled features, (N,) labels and (M, D) unlabelled ones.

        A share of the labels-only head is mixed into it.

        Args:
            shares: (K,) class shares among the unlabelled images; None: estimated.
        """
        check_fit(labeled, labels, num_classes)
        shares = wanted_shares(shares, labeled, labels, unlabeled, num_classes, seed)
        unlabeled = subsample(unlabeled, self.limit, seed).float()
        coordinates = principal(torch.cat([labeled.float(), unlabeled]), self.rank)
        x, u = coordinates.of(labeled), coordinates.of(unlabeled)
        targets = F.one_hot(labels, num_classes).float()
        weight, bias = fit_logistic(x, targets, self.first_strength)
        for used_share in self.shares() if len(u) else ():
            probabilities = align((u @ weight + bias).softmax(dim=1), shares)
            used = most_confident(probabilities, shares, used_share)
            pseudo = F.one_hot(probabilities[used].argmax(dim=1), num_classes).float()
            weight, bias = fit_logistic(
                torch.cat([x, u[used]]),
                torch.cat([targets, pseudo]),
                self.strength,
                importance=torch.cat(
                    [
                        torch.full((len(x),), self.labeled_weight * len(used) / len(x)),
                        torch.ones(len(used)),
                    ]
                ),
                start=(weight, bias),
                iterations=40,
            )
        own = coordinates.head(weight, bias)
        if not len(u):
            return own
        plain = Features().fit_features(labeled, labels, unlabeled[:0], num_classes, seed)
        return mixed(own, plain, unlabeled, self.labels_only)

    def shares(self) -> list[float]:
        """The share of pseudo-labels used in each round, rising linearly."""
        return torch.linspace(self.first_share, self.last_share, self.rounds).tolist()


def most_confident(probabilities: Tensor, prior: Tensor, share: float) -> Tensor:
    """Positions of the most confident predictions of each class, in proportion to the prior.

    Args:
        probabilities: (N, K).
        prior: (K,) class shares; class k has a quota of share * prior[k] * N, at least 1.
        share: of the images, in (0, 1].

    Returns:
        sorted positions; of a class that is predicted less often than its quota, all.
    """
    confidence, predicted = probabilities.max(dim=1)
    quota = (share * prior * len(probabilities)).round().int().clamp_min(1).tolist()
    chosen = []
    for k, most in enumerate(quota):
        own = (predicted == k).nonzero().squeeze(1)
        chosen.append(own[confidence[own].argsort(descending=True, stable=True)[:most]])
    return torch.cat(chosen).sort().values
