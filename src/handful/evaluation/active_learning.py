"""What to label next: images that stand for many the model is unsure of, and some drawn at random.

The images drawn at random keep later estimates honest: labels of images that were chosen say
nothing about images that are not. Every other one covers its surroundings in feature space, and
the next is always the one that covers most of what is left, weighted by how unsure the model is
there. Where there is no model yet, what counts is how typical an image is.

Bae et al. 2025, "Uncertainty Herding: One Active Learning Method for All Label Budgets",
arXiv:2412.20644, algorithm 1. Where we differ: the width of the kernel follows from how many
images a label has to stand for, not from the distances between the labelled ones.

Letters in shapes: M images to choose from, n labelled ones, D features, R coordinates, K classes.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from handful import seeds
from handful.methods.heads import principal
from handful.seeds import Stream

POOL = 4_000  # images chosen from, drawn at random from more: the choice then takes seconds
RANDOM_SHARE = 0.25  # of the suggestions
FEWEST, MOST = 20, 100  # suggestions after a fit; in between, as many as there are labels
RANK = 128  # principal axes in which images are compared


class Suggestion(NamedTuple):
    """An image to label."""

    position: int  # among the images to choose from
    why: str  # "random", "uncertain" or "typical"

    @property
    def origin(self) -> str:
        """How its label will have come about: of the images to label, only some are a sample."""
        return "random" if self.why == "random" else "chosen"


def how_many(labeled: int, unlabeled: int) -> int:
    """As many suggestions as there are labels, within reason."""
    return min(max(FEWEST, min(labeled, MOST)), unlabeled)


def shuffled(count: int, seed: int, limit: int = POOL) -> np.ndarray:
    """Positions of `limit` of `count` images in random order: what `suggest` chooses from."""
    return seeds.generator(seed, Stream.SUGGESTIONS).permutation(count)[:limit]


def suggest(
    features: Tensor, labeled: Tensor, probabilities: Tensor | None, count: int
) -> list[Suggestion]:
    """`count` images to label, in an order of which every beginning is a good choice, too.

    Args:
        features: (M, D) of the images to choose from, in random order: the first are those that
            are suggested at random.
        labeled: (n, D) of the labelled images, if there are any.
        probabilities: (M, K) by the model so far; None without one.
    """
    count = min(count, len(features))
    drawn = round(RANDOM_SHARE * count)
    coordinates = principal(torch.cat([features, labeled]).float(), RANK)
    known = F.normalize(coordinates.of(torch.cat([labeled, features[:drawn]])))
    pool = F.normalize(coordinates.of(features[drawn:]))
    doubts = torch.ones(len(pool)) if probabilities is None else doubt(probabilities[drawn:])
    unsure = doubts > doubts.median()
    chosen = [
        Suggestion(drawn + position, "uncertain" if unsure[position] else "typical")
        for position in herd(pool, known, doubts, count - drawn)
    ]
    return _mixed([Suggestion(position, "random") for position in range(drawn)], chosen)


def doubt(probabilities: Tensor) -> Tensor:
    """(M,) 1 minus the margin between the two likeliest of (M, K): 0 where the model is sure."""
    first, second = probabilities.topk(2, dim=1).values.T
    return 1 - (first - second)


def herd(x: Tensor, known: Tensor, weights: Tensor, count: int) -> list[int]:
    """Positions of `count` of the (M, R) images that best cover all of them, the best first.

    An image covers another by how like it is: a Gaussian of their distance. Chosen one by one,
    each adds the most to the sum over all images of weight times cover; the (n, R) known images
    cover their surroundings already.

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
    """Half the distance within which a label has to stand for its share of the (M, M) images."""
    share = min(max(len(apart) // labels, 1), len(apart) - 1)
    reach = apart[:400].kthvalue(share + 1, dim=1).values  # the first is the image itself
    return max(float(reach.median()) / 2, 1e-6)


def _mixed(random: list[Suggestion], chosen: list[Suggestion]) -> list[Suggestion]:
    """Both kinds in one order, so that any beginning of it has its share of each."""
    every = len(random) + len(chosen)
    places = set(np.linspace(0, every, len(random) + 1)[1:].round().astype(int) - 1)
    kinds = {True: iter(random), False: iter(chosen)}
    return [next(kinds[place in places]) for place in range(every)]
