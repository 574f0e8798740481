"""Label propagation: spreads labels over a graph of nearest neighbours and fits a head to them.

Zhou et al. 2003, "Learning with Local and Global Consistency" (NIPS 16); on deep features with
the graph and the sparse solution of Iscen et al. 2019, arXiv:1904.04717. Where we differ: the
scores are aligned to class shares, given or estimated (`class_shares`); a linear head is fitted to
them so that it predicts new images; each image is weighted by its certainty; the head that learned
from the labels alone is mixed into it, which holds where classes overlap in the graph.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.errors import HandfulError
from handful.methods.base import About
from handful.methods.class_shares import wanted_shares
from handful.methods.heads import align, check_fit, fit_logistic, mixed, principal, subsample
from handful.methods.linear_head import Features

if TYPE_CHECKING:
    import scipy.sparse

SIMILARITIES_AT_ONCE = 2**26  # similarities in memory at once: 256 MB


@dataclass(frozen=True)
class Propagation:
    """A linear head fitted to propagated labels.

    The search for neighbours is exact, so its time grows with the square of the number of images.
    100,000 images of 1,792 features need about 100 seconds of one core (Zen 4; extrapolated from
    7 seconds at 20,000) and hold their features twice in float32.
    """

    neighbors: int = 15  # k: edges of each image, before the graph is symmetrised
    alpha: float = 0.9  # weight of neighbours in a score
    sharpness: float = 3.0  # gamma: an edge weighs the similarity to this power
    steps: int = 50  # steps of the power iteration
    strength: float = 1e-4  # L2 penalty of the head
    rank: int = 128  # principal axes for the search of neighbours
    labels_only: float = 0.5  # share of the labels-only head in the logits
    limit: int = 100_000  # most unlabelled images used; a random sample of more

    name: ClassVar[str] = "propagation"
    about: ClassVar[About] = About(
        "propagates labels to similar images over a graph of features, then fits a head to them",
        "It follows clusters of any shape; strong where the features separate the classes.",
        "Where classes overlap, labels propagate to the wrong class. It needs many unlabelled "
        "images of the classes.",
        uses_unlabeled=True,
        counterpart="features",
        learned_weights=True,
    )
    aligns: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.labels_only <= 1:
            raise HandfulError(f"labels_only lies in [0, 1], got {self.labels_only}")
        if not 0 < self.alpha < 1:
            raise HandfulError(f"alpha lies between 0 and 1, got {self.alpha}")
        for field in ("neighbors", "sharpness", "steps", "strength", "rank", "limit"):
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
        """A head fitted to the scores of (N, D) labelled and (M, D) unlabelled features.

        Args:
            shares: (K,) class shares among the unlabelled images; None: estimated.
        """
        check_fit(labeled, labels, num_classes)
        shares = wanted_shares(shares, labeled, labels, unlabeled, num_classes, seed)
        unlabeled = subsample(unlabeled, self.limit, seed)
        everything = torch.cat([labeled, unlabeled]).float()
        coordinates = principal(everything, 2 * self.rank)
        x = coordinates.of(everything)
        one_hot = F.one_hot(labels, num_classes).float()
        known = torch.cat([one_hot, torch.zeros(len(unlabeled), num_classes)])
        near = x[:, : self.rank]
        scores = propagate(near, known, self.neighbors, self.sharpness, self.alpha, self.steps)
        targets, importance = soft_targets(scores, shares)
        targets[: len(labels)] = one_hot
        own = coordinates.head(
            *fit_logistic(x, targets, self.strength, importance=importance, iterations=60)
        )
        if not len(unlabeled):
            return own
        plain = Features().fit_features(labeled, labels, unlabeled[:0], num_classes, seed)
        return mixed(own, plain, unlabeled.float(), self.labels_only)


def propagate(
    x: Tensor, known: Tensor, neighbors: int, sharpness: float, alpha: float, steps: int
) -> Tensor:
    """(N, K) scores: label propagation on the nearest-neighbour graph of (N, R) coordinates.

    Args:
        known: (N, K) one-hot labels, rows of zeros where unknown.
        neighbors, sharpness, alpha, steps: see `Propagation`.
    """
    similarity, neighbor = nearest(x, min(neighbors, len(x) - 1))
    graph = normalized_graph(similarity.clamp_min(0) ** sharpness, neighbor)
    return spread(graph, known, alpha, steps)


def nearest(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosine similarities and positions, (N, k) each, of the exact k nearest neighbours."""
    unit = F.normalize(x)
    block = max(1, SIMILARITIES_AT_ONCE // len(unit))
    similarities, neighbors = [], []
    for start in range(0, len(unit), block):
        similarity = unit[start : start + block] @ unit.T  # (block, N)
        rows = torch.arange(len(similarity))
        similarity[rows, start + rows] = -torch.inf  # not its own neighbour
        values, positions = similarity.topk(k, dim=1)
        similarities.append(values)
        neighbors.append(positions)
    return torch.cat(similarities), torch.cat(neighbors)


def normalized_graph(weights: Tensor, neighbors: Tensor) -> "scipy.sparse.csr_matrix":
    """D^-1/2 (A + A^T) D^-1/2 from (N, k) edge weights and the (N, k) neighbours."""
    import scipy.sparse  # slow to import, and not needed to predict

    n, k = neighbors.shape
    starts = np.arange(0, n * k + 1, k)
    edges = scipy.sparse.csr_matrix((weights.numpy().ravel(), neighbors.numpy().ravel(), starts))
    edges.resize((n, n))
    edges = edges + edges.T
    degree = np.asarray(edges.sum(axis=1)).ravel()
    scale = scipy.sparse.diags(1 / np.sqrt(np.maximum(degree, 1e-12)))
    return (scale @ edges @ scale).tocsr().astype(np.float32)


def spread(graph: "scipy.sparse.csr_matrix", known: Tensor, alpha: float, steps: int) -> Tensor:
    """(N, K) scores after `steps` of F <- alpha S F + (1 - alpha) Y, from F = Y."""
    start = known.numpy()
    scores = start
    for _ in range(steps):
        scores = alpha * (graph @ scores) + (1 - alpha) * start
    return torch.from_numpy(scores)


def soft_targets(scores: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
    """(N, K) soft targets and (N,) importance for the head; 0 for images no label reached.

    Args:
        scores: (N, K) of the propagation.
        prior: (K,) class shares that the targets are aligned to.
    """
    total = scores.sum(dim=1, keepdim=True)  # (N, 1)
    targets = align(scores / total.clamp_min(1e-12), prior)
    return targets, certainty(targets) * (total.squeeze(1) > 0)


def certainty(probabilities: Tensor) -> Tensor:
    """(N,) 1 minus entropy over its maximum: 0 for equal probabilities, 1 for a certain class.

    Source: Iscen et al. 2019, arXiv:1904.04717, equation 11.
    """
    entropy = torch.special.entr(probabilities).sum(dim=1)
    return 1 - entropy / math.log(probabilities.shape[1])
