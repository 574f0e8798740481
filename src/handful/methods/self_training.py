"""Self-training: a linear head learns from its own surest guesses, a few of every class at first.

A head fitted to the labelled features guesses the unlabelled ones. The guesses are brought to the
class shares of the labels, the surest of every class become pseudo-labels, a new head is fitted
to labels and pseudo-labels, and the next round trusts more of them.

Scudder 1965, "Probability of error of some adaptive pattern-recognition machines"; balanced by
class as in Zou et al. 2018, arXiv:1810.07911, the growing share as in Cascante-Bonilla et al.
2020, arXiv:2001.06001 ("Curriculum Labeling"). Where we differ: the networks there are trained
again from scratch, here only the head is.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.errors import HandfulError
from handful.methods.base import About
from handful.methods.heads import align, check_fit, fit_logistic, principal, prior_of, subsample


@dataclass(frozen=True)
class SelfTraining:
    """Hyper-parameters; strengths are in units of features of mean squared length 1."""

    rounds: int = 10  # heads fitted after the first
    first_share: float = 0.1  # of the unlabelled images trusted in the first round
    last_share: float = 0.9  # and in the last
    labeled_weight: float = 0.1  # of all labels together, beside pseudo-labels of weight 1
    first_strength: float = 3e-3  # L2 penalty of the head fitted to labels alone
    strength: float = 1e-4  # L2 penalty of the heads after it
    rank: int = 256  # principal axes of the features that are kept
    limit: int = 50_000  # unlabelled images used, drawn at random from more

    name: ClassVar[str] = "self_training"
    about: ClassVar[About] = About(
        "fits a linear head on the features of a frozen network, then again on its own "
        "confident guesses",
        "As cheap as features, and unlabelled images sharpen the borders between classes.",
        "It believes itself: where the first guesses are wrong in a regular way, it "
        "repeats them. A class that is rare among the unlabelled images can be swallowed.",
        uses_unlabeled=True,
        counterpart="features",
        learned_weights=True,
    )

    def __post_init__(self) -> None:
        if not 0 < self.first_share <= self.last_share <= 1:
            raise HandfulError(
                f"first_share and last_share are shares with 0 < first <= last <= 1, "
                f"got {self.first_share} and {self.last_share}"
            )
        for field in ("rounds", "rank", "limit", "labeled_weight", "first_strength", "strength"):
            if getattr(self, field) <= 0:
                raise HandfulError(f"{field} must be more than 0, got {getattr(self, field)}")

    def fit_features(
        self, labeled: Tensor, labels: Tensor, unlabeled: Tensor, num_classes: int, seed: int
    ) -> nn.Linear:
        """The last head, on (N, D) labelled features, (N,) labels and (M, D) unlabelled ones."""
        check_fit(labeled, labels, num_classes)
        unlabeled = subsample(unlabeled, self.limit, seed).float()
        coordinates = principal(torch.cat([labeled.float(), unlabeled]), self.rank)
        x, u = coordinates.of(labeled), coordinates.of(unlabeled)
        targets, prior = F.one_hot(labels, num_classes).float(), prior_of(labels, num_classes)
        weight, bias = fit_logistic(x, targets, self.first_strength)
        for share in self.shares() if len(u) else ():
            guesses = align((u @ weight + bias).softmax(dim=1), prior)
            trusted = most_confident(guesses, prior, share)
            pseudo = F.one_hot(guesses[trusted].argmax(dim=1), num_classes).float()
            weight, bias = fit_logistic(
                torch.cat([x, u[trusted]]),
                torch.cat([targets, pseudo]),
                self.strength,
                importance=torch.cat(
                    [
                        torch.full((len(x),), self.labeled_weight * len(trusted) / len(x)),
                        torch.ones(len(trusted)),
                    ]
                ),
                start=(weight, bias),
                iterations=40,
            )
        return coordinates.head(weight, bias)

    def shares(self) -> list[float]:
        """The share trusted in each round, rising evenly."""
        return torch.linspace(self.first_share, self.last_share, self.rounds).tolist()


def most_confident(guesses: Tensor, prior: Tensor, share: float) -> Tensor:
    """Positions of the guesses to trust: of every class the surest, in proportion to the prior.

    Args:
        guesses: (N, K) probabilities.
        prior: (K,) class shares; class k gets at most share * prior[k] * N, at least 1.

    Returns:
        positions in rising order; of a class that is guessed less often, all of them.
    """
    confidence, guess = guesses.max(dim=1)
    quota = (share * prior * len(guesses)).round().int().clamp_min(1).tolist()
    chosen = []
    for k, most in enumerate(quota):
        own = (guess == k).nonzero().squeeze(1)
        chosen.append(own[confidence[own].argsort(descending=True, stable=True)[:most]])
    return torch.cat(chosen).sort().values
