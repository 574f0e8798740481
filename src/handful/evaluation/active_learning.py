"""Active learning: suggest which images to label next.

A quarter of the suggestions are drawn at random. Later estimates rest on them, because labels of
images that an algorithm selects are no sample of the others. The rest is selected greedily: an
image covers its neighbourhood in feature space, and each next image adds the most cover, weighted
by the model's uncertainty. Without a model all weights are equal, and typical images come first.
Labelled images that count in the estimate cover nothing once there are enough others: a choice that
keeps away from them leaves them without labelled neighbours, which new images have, and the
estimate becomes too low. The model's uncertainty, which is low near them, still makes it too low by
some points; a model that did not learn them would not, and costs accuracy
(benchmarks/log/active_labelling.md).

Bae et al. 2025, "Uncertainty Herding: One Active Learning Method for All Label Budgets",
arXiv:2412.20644, algorithm 1. Where we differ: the kernel width follows from the number
of images per label, not from the distances between labelled images.

Letters in shapes: M images to choose from, n labelled ones, D features, R coordinates, K classes.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from handful import seeds
from handful.data.likeness import ALIKE, LEAST, SCENE, likeness_between, reference_of
from handful.methods.heads import principal
from handful.seeds import Stream

POOL = 4_000  # images to choose from, a random sample of larger pools: the choice takes seconds
OUTSIDE = 10  # labels that do not count from which on only these cover
RANDOM_SHARE = 0.25  # share of the suggestions that are drawn at random
FEWEST, MOST = 20, 100  # bounds of the number of suggestions after a fit
ROUNDS = 10  # at most: images that show a scene again are left out, and others suggested
RANDOM = "random"  # why an image is suggested that was drawn at random
KNOWN = 1_000  # labelled images that suggestions are compared with, at most
RANK = 128  # principal axes along which images are compared


class Suggestion(NamedTuple):
    """An image to label."""

    position: int  # among the images to choose from
    why: str  # "random", "uncertain" or "typical"

    @property
    def origin(self) -> str:
        """The origin of the image's label, for `estimate`: only "random" images are a sample."""
        return RANDOM if self.why == RANDOM else "chosen"


def how_many(labeled: int, unlabeled: int) -> int:
    """Number of suggestions: the number of labels, within FEWEST and MOST and what there is."""
    return min(max(FEWEST, min(labeled, MOST)), unlabeled)


def shuffled(count: int, seed: int, limit: int = POOL) -> np.ndarray:
    """Positions of at most `limit` of `count` images in random order, for `suggest`."""
    return seeds.generator(seed, Stream.SUGGESTIONS).permutation(count)[:limit]


def suggest(
    features: Tensor,
    labeled: Tensor,
    probabilities: Tensor | None,
    count: int,
    counted: Tensor | None = None,
) -> list[Suggestion]:
    """Suggest `count` images to label, best first: any first part of the list is a good choice.

    Args:
        features: (M, D) features of the images to choose from, in random order: the first ones
            become the random suggestions.
        labeled: (n, D) features of the labelled images; n may be 0.
        probabilities: (M, K) predictions of the present model, or None without a model.
        count: suggestions wanted; fewer are returned where there are fewer images.
        counted: (n,) whether a labelled image counts in the estimate; None: that is not known.
    """
    return _suggest(*directions(features, labeled), probabilities, count, counted)


def directions(features: Tensor, labeled: Tensor) -> tuple[Tensor, Tensor]:
    """(M, D) and (n, D) features as (M, R) and (n, R) coordinates of length 1."""
    coordinates = principal(torch.cat([features, labeled]).float(), RANK)
    return F.normalize(coordinates.of(features)), F.normalize(coordinates.of(labeled))


def _suggest(
    x: Tensor,
    labeled: Tensor,
    probabilities: Tensor | None,
    count: int,
    counted: Tensor | None = None,
) -> list[Suggestion]:
    """`suggest` of the `directions` (M, R) of images to choose from and (n, R) of labelled ones."""
    count = min(count, len(x))
    drawn = round(RANDOM_SHARE * count)
    if counted is not None and int((~counted).sum()) >= OUTSIDE:
        known = labeled[~counted]
    else:
        known = torch.cat([labeled, x[:drawn]])
    pool = x[drawn:]
    doubts = torch.ones(len(pool)) if probabilities is None else doubt(probabilities[drawn:])
    unsure = doubts > doubts.median()
    chosen = [
        Suggestion(drawn + position, "uncertain" if unsure[position] else "typical")
        for position in herd(pool, known, doubts, count - drawn)
    ]
    return _interleaved([Suggestion(position, RANDOM) for position in range(drawn)], chosen)


def suggest_new_scenes(
    features: Tensor,
    labeled: Tensor,
    probabilities: Tensor | None,
    count: int,
    pictures_of: Callable[[list[int]], Tensor],
    known: Tensor,
    counted: Tensor | None = None,
) -> list[Suggestion]:
    """Suggest images as `suggest`, but none that shows a labelled scene, or one that is suggested.

    Such images are left out, random ones too, and others are suggested for them, a few times over.
    Where not enough others are left, some of them are suggested all the same.

    Args:
        pictures_of: (m, 1, 32, 32) uint8 of the images at these positions of `features`.
        known: (n, 1, 32, 32) uint8, pictures of labelled images.
    """
    x, of_labeled = directions(features, labeled)
    left = np.arange(len(x))
    looks: dict[int, Tensor] = {}
    suggestions: list[Suggestion] = []
    for _ in range(ROUNDS):
        some = torch.from_numpy(left)
        predicted = None if probabilities is None else probabilities[some]
        suggestions = [
            Suggestion(int(left[at]), why)
            for at, why in _suggest(x[some], of_labeled, predicted, count, counted)
        ]
        if unseen := [at for at, _ in suggestions if at not in looks]:
            looks |= zip(unseen, pictures_of(unseen), strict=True)
        again = shown_again(torch.stack([looks[at] for at, _ in suggestions]), known)
        repeated = [suggestions[place].position for place in again]
        if not repeated or len(left) - len(repeated) < len(suggestions):
            break
        left = np.setdiff1d(left, repeated, assume_unique=True)
    return suggestions


def shown_again(pictures: Tensor, known: Tensor) -> list[int]:
    """Positions of the pictures that show the scene of a known one or of a picture before.

    Args:
        pictures: (m, 1, 32, 32) uint8.
        known: (n, 1, 32, 32) uint8.
    """
    every = torch.cat([known, pictures])
    first = len(known)
    distances = (1 - likeness_between(pictures, every, SCENE)).clamp_min(LEAST)
    own = torch.arange(len(pictures))
    distances[own, first + own] = torch.inf
    usual = reference_of(distances)
    close = distances <= (usual.distance * usual.close)[:, None].clamp_max(1 - ALIKE)
    again: set[int] = set()
    for at in own.tolist():
        earlier = [first + other for other in range(at) if other not in again]
        if close[at, :first].any() or close[at, earlier].any():
            again.add(at)
    return sorted(again)


def doubt(probabilities: Tensor) -> Tensor:
    """Uncertainty (M,) of probabilities (M, K): 1 minus the margin of the two likeliest classes."""
    first, second = probabilities.topk(2, dim=1).values.T
    return 1 - (first - second)


def herd(x: Tensor, known: Tensor, weights: Tensor, count: int) -> list[int]:
    """Positions of `count` of the M images that best cover all of them, the best first.

    The cover of one image by another is a Gaussian of their distance. Each chosen image adds the
    most to the sum over all images of weight times cover. Known images cover from the start.

    Args:
        x: (M, R) coordinates of the images to choose from.
        known: (n, R) coordinates of labelled images.
        weights: (M,) importance of covering each image.

    Source: Bae et al. 2025, arXiv:2412.20644, algorithm 1; with even weights it is the MaxHerding
    of arXiv:2407.12212.
    """
    apart = torch.cdist(x, x)  # (M, M)
    scale = kernel_width(apart, len(known) + count)
    likeness = torch.exp(-0.5 * (apart / scale) ** 2)
    cover = x.new_zeros(len(x))
    for some in known.split(1_000) if len(known) else ():
        cover = cover.maximum(torch.exp(-0.5 * (torch.cdist(x, some) / scale) ** 2).amax(dim=1))
    taken = torch.zeros(len(x), dtype=torch.bool)
    added = torch.empty_like(likeness)
    found: list[int] = []
    for _ in range(count):
        torch.sub(likeness, cover.unsqueeze(1), out=added)
        gain = weights @ added.clamp_min_(0)  # (M,)
        best = int(gain.masked_fill(taken, -1).argmax())
        taken[best] = True
        found.append(best)
        cover = cover.maximum(likeness[best])
    return found


def kernel_width(apart: Tensor, labels: int) -> float:
    """Half the median radius around an image that holds M / labels images.

    Args:
        apart: (M, M) distances between the images.
    """
    share = min(max(len(apart) // labels, 1), len(apart) - 1)
    reach = apart[:400].kthvalue(share + 1, dim=1).values  # the first is the image itself
    return max(float(reach.median()) / 2, 1e-6)


def _interleaved(random: list[Suggestion], chosen: list[Suggestion]) -> list[Suggestion]:
    """Merge both lists so that any first part holds each kind in proportion."""
    every = len(random) + len(chosen)
    places = set(np.linspace(0, every, len(random) + 1)[1:].round().astype(int) - 1)
    kinds = {True: iter(random), False: iter(chosen)}
    return [next(kinds[place in places]) for place in range(every)]
