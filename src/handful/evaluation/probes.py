"""Probes: simple classifiers on the features of a frozen network, which measure the features.

A probe must not change the network: `frozen_features` compares a hash of all parameters and buffers
before and after. A network in training mode would update its batch norm statistics with every
batch, and its dropout would add noise to the features.

Letters in shapes: N labelled images, M images to predict, K classes, D features.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.data.imageset import ImageSet
from handful.methods.heads import check_fit, fit_logistic, standardized
from handful.methods.linear_head import choose_strength
from handful.methods.mlp_head import MLPHead
from handful.models import fingerprint
from handful.models.feature_cache import features
from handful.progress import Track, quiet

Probe = Callable[[Tensor, Tensor, int, int], nn.Module]  # features, labels, K, seed → (M, K) scores

ITERATIONS = 5_000  # of L-BFGS, at most; it stops earlier at a gradient of 1e-5


def linear(labeled: Tensor, labels: Tensor, num_classes: int, seed: int) -> nn.Module:
    """Converged logistic regression on standardised features; L2 strength by cross-validation."""
    check_fit(labeled, labels, num_classes)
    coordinates = standardized(labeled.double())
    x, targets = coordinates.of(labeled.double()), F.one_hot(labels, num_classes).double()
    strength = choose_strength(x, targets, 5, seed)
    return coordinates.head(*fit_logistic(x, targets, strength, iterations=ITERATIONS))


def mlp(labeled: Tensor, labels: Tensor, num_classes: int, seed: int) -> nn.Module:
    """A head of two layers (64, K), trained with the default settings of `MLPHead`."""
    return MLPHead().fit_features(labeled, labels, labeled[:0], num_classes, seed)


def nearest(labeled: Tensor, labels: Tensor, num_classes: int, seed: int) -> nn.Module:
    """A k-nearest-neighbour classifier, see `Neighbors`; nothing is fitted."""
    return Neighbors(labeled.float(), F.one_hot(labels, num_classes).float())


PROBES: dict[str, Probe] = {"linear": linear, "mlp": mlp, "knn": nearest}


class Neighbors(nn.Module):
    """(M, D) → (M, K): class shares among the `k` nearest images by cosine similarity, weighted.

    The weight of a neighbour is exp(similarity / 0.07).

    Source: Wu et al. 2018, arXiv:1805.01978, section 3.4.
    """

    def __init__(self, known: Tensor, targets: Tensor, k: int = 20) -> None:
        super().__init__()
        self.register_buffer("known", F.normalize(known, dim=1))
        self.register_buffer("targets", targets)
        self.k = min(k, len(known))

    known: Tensor  # (N, D) of length 1
    targets: Tensor  # (N, K)

    def forward(self, queries: Tensor) -> Tensor:
        similarity = F.normalize(queries.float(), dim=1) @ self.known.T  # (M, N)
        values, places = similarity.topk(self.k, dim=1)
        weights = (values / 0.07).softmax(dim=1)  # (M, k)
        return torch.einsum("mk,mkc->mc", weights, self.targets[places])


def neighbor_accuracy(known: Tensor, labels: Tensor, num_classes: int, k: int = 5) -> float:
    """Leave-one-out accuracy of a `k`-nearest-neighbour classifier on features (N, D)."""
    unit = F.normalize(known.float(), dim=1)
    similarity = (unit @ unit.T).fill_diagonal_(-torch.inf)
    values, places = similarity.topk(min(k, len(unit) - 1), dim=1)
    votes = F.one_hot(labels, num_classes).float()[places]  # (N, k, K)
    guesses = torch.einsum("nk,nkc->nc", (values / 0.07).softmax(dim=1), votes).argmax(dim=1)
    return (guesses == labels).float().mean().item()


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Raise RuntimeError at the end of the block if parameters or buffers have changed within."""
    before = fingerprint(network)
    yield
    if fingerprint(network) != before:
        raise RuntimeError(
            "the probe changed the network it was to judge: its parameters or buffers differ from "
            "before; call eval() first, and take no gradient"
        )


def frozen_features(
    network: nn.Module,
    images: ImageSet,
    size: int,
    aspect: str = "crop",
    precision: str = "auto",
    track: Track = quiet,
) -> Tensor:
    """Features (N, D) of all images; RuntimeError if computing them changed the network."""
    with frozen(network):
        return features(images, network, size, aspect=aspect, precision=precision, track=track)


def accuracy(head: nn.Module, queries: Tensor, labels: Tensor) -> float:
    """Accuracy of the head on features (M, D) with labels (M,)."""
    with torch.inference_mode():
        return (head(queries.float()).argmax(dim=1) == labels).float().mean().item()
