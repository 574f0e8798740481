"""Semi-supervised Gaussian mixture: classes are Gaussians that unlabelled images help to find.

Every class is a Gaussian in the principal axes of the features, and all have one covariance. The
labels of labelled images are fixed, those of the others are probabilities, found by expectation
maximisation together with means, covariance and class shares. Because the covariance is shared,
the classifier is linear. It is mixed with the head that learns from the labels alone, which is the
better one where classes are not Gaussian.

Dempster, Laird and Rubin 1977 for the iteration; the weight of unlabelled images as in Nigam et
al. 2000, "Text Classification from Labeled and Unlabeled Documents using EM", Machine Learning 39;
on features of a pre-trained network with few labels: arXiv:2506.03582. Where we differ: all
unlabelled images together weigh a few times what the labels weigh, the covariance is shrunk,
the iteration stops early, and the outcome is mixed with the labels-only head.

Letters in shapes: n labelled and m unlabelled images, N = n + m, K classes, D features, R axes.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.errors import HandfulError
from handful.methods.base import About
from handful.methods.class_shares import wanted_shares
from handful.methods.heads import check_fit, mixed, principal, subsample
from handful.methods.linear_head import Features


class Mixture(NamedTuple):
    """Gaussians with one covariance, as a linear classifier: logits are x @ weight + bias."""

    weight: Tensor  # (R, K)
    bias: Tensor  # (K,)
    probabilities: Tensor  # (m, K) of the unlabelled images


@dataclass(frozen=True)
class GaussianMixture:
    """Expectation maximisation on principal axes; becomes a linear head."""

    rank: int = 256  # principal axes of the features that are used
    pool_weight: float = 5.0  # weight of all unlabelled images, as a multiple of the labels' weight
    shrinkage: float = 0.1  # share of the covariance that is replaced by equal variances
    rounds: int = 8  # of expectation maximisation
    labels_only: float = 0.25  # share of the labels-only head in the logits
    limit: int = 20_000  # most unlabelled images used; a random sample of more

    name: ClassVar[str] = "gaussian_mixture"
    about: ClassVar[About] = About(
        "models each class as a Gaussian in the features of a frozen network, with the help of "
        "unlabelled images",
        "Costs little beside the features of the unlabelled images, and gains most where labels "
        "are fewest: unlabelled images show how the features of a class spread.",
        "With many labels the classes' real shapes matter more, and it gains little.",
        uses_unlabeled=True,
        counterpart="features",
        learned_weights=True,
    )
    aligns: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for field in ("shrinkage", "labels_only"):
            if not 0 <= getattr(self, field) <= 1:
                raise HandfulError(f"{field} lies in [0, 1], got {getattr(self, field)}")
        for field in ("rank", "pool_weight", "rounds", "limit"):
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
        """A head from (n, D) labelled features, (n,) labels and (m, D) unlabelled features.

        Args:
            shares: (K,) class shares among the unlabelled images; None: estimated.
        """
        check_fit(labeled, labels, num_classes)
        plain = Features().fit_features(labeled, labels, unlabeled[:0], num_classes, seed)
        if not len(unlabeled) or self.labels_only == 1:
            return plain
        shares = wanted_shares(shares, labeled, labels, unlabeled, num_classes, seed)
        unlabeled = subsample(unlabeled, self.limit, seed).float()
        coordinates = principal(torch.cat([labeled.float(), unlabeled]), self.rank)
        x, u = coordinates.of(labeled.float()).double(), coordinates.of(unlabeled).double()
        found = fit_mixture(
            x,
            F.one_hot(labels, num_classes).double(),
            u,
            shares.double(),
            self.pool_weight,
            self.shrinkage,
            self.rounds,
        )
        own = coordinates.head(found.weight.float(), found.bias.float())
        return mixed(own, plain, unlabeled, self.labels_only)


def fit_mixture(
    x: Tensor,
    targets: Tensor,
    u: Tensor,
    shares: Tensor,
    pool_weight: float,
    shrinkage: float,
    rounds: int,
) -> Mixture:
    """A mixture fitted to (n, R) labelled and (m, R) unlabelled coordinates, in float64.

    Args:
        targets: (n, K) one-hot.
        shares: (K,) class shares, none of them 0.
        pool_weight, shrinkage, rounds: see `GaussianMixture`. The first means and covariance come
            from the labels alone, with half of the covariance replaced, since few images tell
            little of it. A class without a label begins with the mean of all images.
    """
    every = torch.cat([x, u])
    each = min(1.0, pool_weight * len(x) / len(u))  # weight of an unlabelled image
    probabilities = u.new_zeros(len(u), targets.shape[1])
    for done in range(rounds + 1):
        weights = torch.cat([targets, each * probabilities])  # (N, K)
        mass = weights.sum(dim=0)  # (K,)
        means = weights.T @ every / mass.clamp_min(1e-9).unsqueeze(1)  # (K, R)
        means = torch.where((mass > 1e-9).unsqueeze(1), means, every.mean(dim=0))
        squares = every.T @ (weights.sum(dim=1, keepdim=True) * every)  # (R, R)
        covariance = (squares - means.T @ (mass.unsqueeze(1) * means)) / mass.sum()
        covariance = shrunk(covariance, shrinkage if done else max(shrinkage, 0.5))
        weight = torch.linalg.solve(covariance, means.T)  # (R, K)
        bias = shares.log() - (means * weight.T).sum(dim=1) / 2
        probabilities = (u @ weight + bias).softmax(dim=1)
    return Mixture(weight, bias, probabilities)


def shrunk(covariance: Tensor, share: float) -> Tensor:
    """(R, R) covariance with `share` of it replaced by equal variances on all axes."""
    variance = covariance.diagonal().mean().clamp_min(1e-12)
    equal = variance * torch.eye(len(covariance), dtype=covariance.dtype)
    return (1 - share) * covariance + max(share, 1e-6) * equal
