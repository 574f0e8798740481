"""Class shares among unlabelled images, from a few labels and a head that learned the labels only.

Methods that align pseudo-labels to class shares fail where these are wrong, and the shares of a few
labels often are: classes may have been balanced by hand, and a random draw of few images is
uneven. Two sources are therefore combined as counts of images. The labels count as what they are,
unless their counts are so even that the classes look balanced by hand. Labels of images that were
chosen count too, unless their classes differ clearly from those of the others: what `label-next`
chooses covers all images, and its classes are nearer to theirs than those of a few random images;
what somebody chose may be anything. The unlabelled images count
through the calibrated predictions of a labels-only head, by expectation maximisation, but never as
more than twice the labels: a head from few labels makes the same mistakes on any number of images.

The outcome is then drawn towards equal shares, wholly where it differs from them by no more than
its own error. Noise in the shares costs accuracy on an even pool, as uneven pools do without them.

Saerens, Latinne and Decaestecker 2002, "Adjusting the outputs of a classifier to new a priori
probabilities", Neural Computation 14, with a Dirichlet prior; James and Stein 1961, "Estimation
with Quadratic Loss", for the last step. Weights were chosen on development draws
(benchmarks/log/semi_supervised.md).

Letters in shapes: n labelled and m unlabelled images, K classes, D features.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.data.folds import stratified_folds
from handful.devices import one_thread
from handful.methods.base import Aligning, Fitted
from handful.methods.heads import fit_logistic, principal, prior_of, subsample
from handful.methods.linear_head import TEMPERATURES, Features

EQUAL = 0.5  # images of each class that count beside the real ones
POOL = 2.0  # unlabelled images count as at most so many images for each label
_SAMPLE = 5_000  # unlabelled images that are predicted at most
_FOLDS = 5
_ROUNDS, _TOLERANCE = 1000, 1e-6  # of the iteration, which ends when no share changes by more
_FEW = 8_000_000  # values of features, of 6,000 images, that one thread fits faster
_DRAWS = 20_000  # random draws of labels that counts are compared with
_DIFFERENT = 0.05  # chance below which chosen labels are of other classes than the others


class ClassShares(NamedTuple):
    """Estimated class shares with their standard deviations."""

    mean: np.ndarray  # (K,), adding up to 1
    sd: np.ndarray  # (K,)


def fit_head(
    method: Fitted,
    labeled: Tensor,
    labels: Tensor,
    unlabeled: Tensor,
    num_classes: int,
    seed: int,
    shares: Sequence[float] | None = None,
    counted: Tensor | None = None,
) -> nn.Module:
    """`method.fit_features`, with class shares if the method aligns to them.

    Args:
        shares: (K,) where they are given.
        counted: (n,) see `estimated_shares`.
    """
    with one_thread(labeled.numel() + unlabeled.numel() < _FEW):
        if not isinstance(method, Aligning):
            return method.fit_features(labeled, labels, unlabeled, num_classes, seed)
        wanted = None if shares is None else torch.tensor(shares)
        if wanted is None and counted is not None and not counted.all():
            wanted = wanted_shares(None, labeled, labels, unlabeled, num_classes, seed, counted)
        return method.fit_features(labeled, labels, unlabeled, num_classes, seed, shares=wanted)


def wanted_shares(
    given: Tensor | None,
    labeled: Tensor,
    labels: Tensor,
    unlabeled: Tensor,
    num_classes: int,
    seed: int,
    counted: Tensor | None = None,
) -> Tensor:
    """(K,) float32 class shares to align to: those given, else estimated ones; none is 0."""
    if given is None:
        found = estimated_shares(labeled, labels, unlabeled, num_classes, seed, counted).mean
        given = torch.from_numpy(found)
    shares = given.float().clamp_min(1e-6)
    return shares / shares.sum()


def estimated_shares(
    labeled: Tensor,
    labels: Tensor,
    unlabeled: Tensor,
    num_classes: int,
    seed: int,
    counted: Tensor | None = None,
) -> ClassShares:
    """The class shares among the unlabelled images, and how uncertain they are.

    Nothing but the arguments is used, so a fold that passes its own labels leaks none.

    Args:
        labeled: (n, D) features.
        labels: (n,) class numbers.
        unlabeled: (m, D) features; m may be 0.
        counted: (n,) whether a label is of an image that was not chosen; None: none was. Every
            label teaches the head.
    """
    telling = telling_labels(labels, counted)
    counts, told = (
        np.bincount(some.numpy(), minlength=num_classes).astype(np.float64)
        for some in (labels, telling)
    )
    images = EQUAL + (np.zeros_like(told) if even_counts(telling.numpy()) else told)  # (K,)
    if not len(unlabeled) or (counts > 0).sum() < 2:
        fixed = prior_of(telling, num_classes).double().numpy() * (len(telling) + num_classes)
        return ClassShares(fixed / fixed.sum(), _deviation(fixed, fixed / fixed.sum()))
    pool = subsample(unlabeled, _SAMPLE, seed)
    predicted = calibrated_predictions(labeled, labels, pool, num_classes, seed)
    weight = min(1.0, POOL * len(labels) / len(pool))
    return towards_equal(combined_shares(predicted, counts / counts.sum(), images, weight))


def towards_equal(found: ClassShares) -> ClassShares:
    """Shares drawn towards equal ones by the part of their distance that is expected of chance.

    The squared distance, in standard deviations, is K - 1 in the mean where shares are equal. The
    standard deviations stay, since the error of what is left out is not known.
    """
    equal = 1 / len(found.mean)
    apart = found.mean - equal
    distance = float((apart**2 / np.maximum(found.sd, 1e-9) ** 2).sum())
    kept = max(0.0, 1 - (len(apart) - 1) / distance) if distance else 0.0
    return ClassShares(equal + kept * apart, found.sd)


def calibrated_predictions(
    labeled: Tensor, labels: Tensor, unlabeled: Tensor, num_classes: int, seed: int
) -> np.ndarray:
    """(m, K) probabilities of a `Features` head at the temperature found out of fold."""
    coordinates = principal(labeled.double())
    x, targets = coordinates.of(labeled), F.one_hot(labels, num_classes).double()
    head = fit_logistic(x, targets, Features().strength)
    temperature = _temperature(x, targets, head, seed)
    on_pool = coordinates.of(unlabeled) @ head[0] + head[1]
    predicted: np.ndarray = (on_pool / temperature).softmax(dim=1).numpy()
    return predicted


def best_temperature(labeled: Tensor, labels: Tensor, num_classes: int, seed: int) -> float:
    """The temperature of a `Features` head on (n, D) features, found out of fold."""
    x = principal(labeled.double()).of(labeled)
    targets = F.one_hot(labels, num_classes).double()
    head = fit_logistic(x, targets, Features().strength)
    return float(_temperature(x, targets, head, seed))


def _temperature(x: Tensor, targets: Tensor, head: tuple[Tensor, Tensor], seed: int) -> Tensor:
    """The one of TEMPERATURES with the lowest cross-entropy out of fold; `head` of all images."""
    labels = targets.argmax(dim=1)
    fold = torch.from_numpy(stratified_folds(labels.numpy(), _FOLDS, seed))
    logits = torch.empty_like(targets)  # (n, K), out of fold
    for held in fold.unique():
        inside = fold != held
        fitted = fit_logistic(x[inside], targets[inside], Features().strength, start=head)
        logits[~inside] = x[~inside] @ fitted[0] + fitted[1]
    losses = torch.stack([F.cross_entropy(logits / t, targets) for t in TEMPERATURES])
    return TEMPERATURES[losses.argmin()]


def combined_shares(
    probabilities: np.ndarray, seen: np.ndarray, images: np.ndarray, weight: float
) -> ClassShares:
    """The most likely class shares, given calibrated probabilities (m, K) and counted images.

    Args:
        seen: (K,) class shares in the training of the head that predicted.
        images: (K,) images of each class that count beside the predicted ones.
        weight: of each predicted image.
    """
    factor = (seen > 0) / np.maximum(seen, 1e-12)
    likelihood = probabilities.astype(np.float64) * factor  # (m, K), up to one factor per image
    shares = images / images.sum() if images.any() else seen
    for _ in range(_ROUNDS):
        joint = likelihood * shares
        found = images + weight * (joint / joint.sum(axis=1, keepdims=True)).sum(axis=0)
        before, shares = shares, found / found.sum()
        if np.abs(shares - before).max() < _TOLERANCE:
            break
    gradient = likelihood / (likelihood @ shares)[:, None]
    return ClassShares(shares, _deviation(images, shares, weight * gradient.T @ gradient))


def _deviation(
    images: np.ndarray, shares: np.ndarray, information: np.ndarray | float = 0.0
) -> np.ndarray:
    """(K,) standard deviations of shares, from the curvature of their log-likelihood.

    Args:
        images: (K,) counted images, 0 or more.
        information: (K, K) of the predicted images.
    """
    safe = np.maximum(shares, 1e-9)
    curvature = np.diag(images / safe**2) + information
    inverse = np.linalg.pinv(curvature, hermitian=True)
    total = inverse.sum()
    if total > 0:  # shares add up to 1
        inverse = inverse - np.outer(inverse.sum(axis=1), inverse.sum(axis=0)) / total
    return np.asarray(np.sqrt(np.maximum(inverse.diagonal(), 0.0)))


def telling_labels(labels: Tensor, counted: Tensor | None) -> Tensor:
    """Of the labels (n,) those that tell how common the classes are.

    All of them, unless the classes of the chosen ones differ from those of the counted ones by more
    than _DIFFERENT of random divisions into as many do.

    Args:
        counted: (n,) whether a label is of an image that was not chosen; None: none was.
    """
    if counted is None or counted.all() or not counted.any():
        return labels
    every, some = np.bincount(labels.numpy()), np.bincount(labels[counted].numpy())
    some = np.pad(some, (0, len(every) - len(some)))
    counts, inside = every[every > 0], some[every > 0]
    expected = counts * counted.double().mean().item()  # of the counted ones
    drawn = np.random.default_rng(0).multivariate_hypergeometric(
        counts, int(counted.sum()), size=_DRAWS
    )
    # Pearson's statistic of the table of classes, counted and chosen, up to a factor.
    apart = ((drawn - expected) ** 2 / expected).sum(axis=1)
    seen = ((inside - expected) ** 2 / expected).sum()
    return labels[counted] if (apart >= seen - 1e-9).mean() <= _DIFFERENT else labels


def even_counts(labels: np.ndarray) -> bool:
    """Whether the class counts of labels (n,) are hardly ever so even in a random draw.

    Pearson's chi-squared statistic is near 0 for even counts. Random draws exceed the bound used
    here 99 times in 100 where labels are many. With few labels, equal counts come about by chance
    too: `chance_of_even_counts` says how often.
    """
    counts = np.bincount(labels)
    counts = counts[counts > 0]
    if len(counts) < 2:
        return False
    from scipy.special import gammaincinv  # faster to import than scipy.stats

    quantile = 2 * gammaincinv((len(counts) - 1) / 2, 0.01)  # of the chi-squared distribution
    return bool(_unevenness(counts) <= quantile)


def chance_of_even_counts(labels: np.ndarray) -> float:
    """How often a random draw has class counts as even as those of labels (n,), or evener.

    It is for equally common classes, where it is highest; from random draws with a fixed seed.
    """
    counts = np.bincount(labels)
    counts = counts[counts > 0]
    if len(counts) < 2:
        return 1.0
    equal = np.full(len(counts), 1 / len(counts))
    drawn = np.random.default_rng(0).multinomial(counts.sum(), equal, size=_DRAWS)
    return float((_unevenness(drawn) <= _unevenness(counts) + 1e-9).mean())


def _unevenness(counts: np.ndarray) -> np.ndarray:
    """Pearson's chi-squared statistic of counts (..., K) against equal ones."""
    mean = counts.mean(axis=-1, keepdims=True)
    return np.asarray(((counts - mean) ** 2 / mean).sum(axis=-1))
