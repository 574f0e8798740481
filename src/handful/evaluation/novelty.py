"""Detect out-of-distribution images, and a shift between labelled and unlabelled images.

An image is represented by its coordinates along the first principal axes of the run's own images
(labelled or not) and by the length of the residual outside of these axes. Its score is the
distance to the 15th nearest reference image. The threshold is the distance that only few of the
run's own images exceed when each is scored as if it were new. A new image that is drawn as they
were takes any place in their order with the same chance, so one in n + 1 lies beyond the farthest
of n scores. With 49 scores or more at most 2 % of such images are flagged, in the mean over runs,
with fewer at most one in n + 1, and with fewer than 9 nothing is flagged.

Where there are images enough, a third of them are scored and the others are the reference. Where
there are fewer, all are the reference, and each is scored by the others.

Conformal p-values for outliers: Bates et al. 2023, arXiv:2104.08279; scores by leaving one out:
Barber et al. 2021, arXiv:1905.02928 (their bound is twice the share that they and we observe).

Distance to a neighbour: Sun et al. 2022, arXiv:2204.06507; residual: Wang et al. 2022, "ViM",
arXiv:2203.10807. Where we differ: the two make one distance, the axes are half whitened (divided
by the root of the standard deviation), and no label is needed.

Letters in shapes: N images, M reference images, D features, R coordinates.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful import seeds
from handful.errors import HandfulError
from handful.files import is_finite, read_tensors, write_tensors
from handful.methods.heads import principal
from handful.seeds import Stream

FLAGGED = 0.02  # largest share of in-distribution images beyond the threshold, with images enough
ENOUGH = 49  # scores that allow FLAGGED: 1 / (49 + 1)
FEWEST = 9  # scores below which nothing is flagged: it would be more than one image in ten
CALIBRATING = 3  # one image in this many calibrates the threshold, where those are ENOUGH
NEIGHBOR = 15  # rank of the neighbour whose distance counts; lower below 60 reference images
RANK = 128  # principal axes; fewer where there are fewer than 8 reference images per axis
OUTSIDE = 2.0  # weight of the residual, beside coordinates along the axes of length 1
# A pool is shifted where `pool_shift` is above POOL_SHIFT. Labels balanced by hand beside an
# unbalanced pool reach 0.65. Values whose p-value is above _CHANCE count as 0.5.
POOL_SHIFT, _CHANCE = 0.7, 1e-3
_BLOCK = 1_024  # images whose distances to all references are held in memory at once


@dataclass(frozen=True, eq=False)
class InDistribution:
    """The distribution of a run's own images in the feature space of its network."""

    mean: Tensor  # (D,)
    axes: Tensor  # (D, R), orthonormal
    scale: Tensor  # (R,) root of the standard deviation along each axis
    reference: Tensor  # (M, R + 1) float16, coordinates of the reference images
    threshold: Tensor  # () the distance above which an image is out of distribution
    flagged: Tensor  # () largest share of in-distribution images above it; 0: nothing is flagged

    def distances(self, features: Tensor, neighbor: int | None = None) -> Tensor:
        """(N,) distances of features (N, D) to their `neighbor`-th nearest reference image."""
        reference = self.reference.float()
        neighbor = neighbor or _neighbor(len(reference))
        found = [
            torch.cdist(self.coordinates(some), reference).kthvalue(neighbor).values
            for some in features.split(_BLOCK)
        ]
        return torch.cat(found)

    def out_of_distribution(self, features: Tensor) -> Tensor:
        """(N,) bool: whether each of the features (N, D) is out of distribution."""
        return self.distances(features) > self.threshold

    def coordinates(self, features: Tensor) -> Tensor:
        """Features (N, D) → (N, R + 1): coordinates along the axes, and length of the residual."""
        centred = features.float() - self.mean
        along = centred @ self.axes
        outside = (centred - along @ self.axes.T).norm(dim=1) / centred.norm(dim=1).clamp_min(1e-6)
        return torch.cat([F.normalize(along / self.scale), OUTSIDE * outside.unsqueeze(1)], dim=1)


class Distances(nn.Module):
    """`InDistribution.distances` as a network, for the export: (N, D) features → (N,)."""

    def __init__(self, known: InDistribution) -> None:
        super().__init__()
        self.known, self.neighbor = known, _neighbor(len(known.reference))

    def forward(self, features: Tensor) -> Tensor:
        own, reference = self.known.coordinates(features), self.known.reference.float()
        lengths = own.square().sum(1, keepdim=True) + reference.square().sum(1)  # (N, M)
        squares = (lengths - 2 * own @ reference.T).clamp_min(0)
        return squares.topk(self.neighbor, dim=1, largest=False).values[:, -1].sqrt()


def fit_in_distribution(features: Tensor, seed: int = 0) -> InDistribution:
    """Fit the distribution of a run's own images from their features (M, D), M of 2 or more."""
    features = features.float()
    apart = len(features) // CALIBRATING
    if len(features) < FEWEST:
        return _reference(features)
    if apart < ENOUGH:
        return _with_threshold(_reference(features), _left_out_distances(features))
    order = torch.from_numpy(seeds.generator(seed, Stream.NOVELTY).permutation(len(features)))
    known = _reference(features[order[apart:]])
    return _with_threshold(known, known.distances(features[order[:apart]]))


def _reference(own: Tensor, rank: int | None = None) -> InDistribution:
    """The distribution of features (M, D), all of them references, without a threshold yet."""
    coordinates = principal(own, rank or _rank(len(own)))
    axes = F.normalize(coordinates.basis, dim=0)
    spread = coordinates.of(own).square().mean(dim=0)  # (R,) of features of mean square length 1
    scale = spread.clamp_min(1e-12) ** 0.25
    empty = own.new_empty(0, axes.shape[1] + 1)
    no_threshold = torch.tensor(torch.finfo(torch.float32).max), torch.tensor(0.0)
    known = InDistribution(coordinates.mean, axes, scale, empty, *no_threshold)
    return replace(known, reference=known.coordinates(own).half())


def _left_out_distances(features: Tensor) -> Tensor:
    """(M,) distance of each image to the others, by axes and references that leave it out.

    Rank and neighbour are those of all M images, else the distances would not be comparable.
    """
    rank, neighbor = _rank(len(features)), _neighbor(len(features))
    every = torch.arange(len(features))
    return torch.cat(
        [
            _reference(features[every != at], rank).distances(features[at : at + 1], neighbor)
            for at in range(len(features))
        ]
    )


def _with_threshold(known: InDistribution, scores: Tensor) -> InDistribution:
    """The distribution with the threshold that the scores (n,) of its own images allow."""
    n = len(scores)
    within = min(math.ceil((n + 1) * (1 - FLAGGED)), n)
    flagged = torch.tensor(_flagged(n))
    return replace(known, threshold=scores.sort().values[within - 1], flagged=flagged)


def _flagged(n: int) -> float:
    """Largest share of in-distribution images that n scores can promise, FLAGGED or more."""
    return max(FLAGGED, 1 / (n + 1))


def _rank(images: int) -> int:
    return max(2, min(RANK, images // 8))


def _neighbor(references: int) -> int:
    return max(1, min(NEIGHBOR, references // 4))


def save_in_distribution(known: InDistribution, path: Path) -> None:
    names = [field.name for field in fields(InDistribution)]
    write_tensors(path, {name: getattr(known, name) for name in names})


def load_in_distribution(path: Path, width: int) -> InDistribution:
    """Read what `save_in_distribution` wrote for a network of `width` features.

    HandfulError if the file is missing or damaged, or was written for another network.
    """
    if not path.exists():
        raise HandfulError(f"{path} is missing, so what is none of these is not known; fit again")
    tensors, _ = read_tensors(path, lambda shapes, _: _check_shapes(shapes, width, path))
    # Earlier versions scored half as many images as there are references, whatever their number.
    earlier = _flagged(max(1, (len(tensors["reference"]) - 1) // 2))
    tensors.setdefault("flagged", torch.tensor(earlier))
    if not all(t.is_floating_point() and is_finite(t) for t in tensors.values()):
        raise HandfulError(f"{path} holds values that are not finite; restore it or fit again")
    return InDistribution(**tensors)


def _check_shapes(shapes: Mapping[str, tuple[int, ...]], width: int, path: Path) -> None:
    rank = shapes.get("scale", (0,))[0] if len(shapes.get("scale", ())) == 1 else 0
    rows = shapes.get("reference", (0,))[:1]
    expected: dict[str, tuple[int, ...]] = {
        "mean": (width,),
        "axes": (width, rank),
        "scale": (rank,),
        "reference": (*rows, rank + 1),
        "threshold": (),
    }
    if "flagged" in shapes:  # earlier versions did not write it
        expected["flagged"] = ()
    if dict(shapes) != expected or not rank or not rows or not rows[0]:
        raise HandfulError(f"{path} was not written by handful for this network; fit again")


def pool_shift(labeled: Tensor, unlabeled: Tensor, groups: np.ndarray | None = None) -> float:
    """How far the unlabelled images differ from the labelled ones in kind: 0.5 not at all, 1 fully.

    Each image is compared with its most similar labelled image. The result is the share of pairs in
    which a labelled image has a more similar neighbour than an unlabelled image has (the
    Mann-Whitney statistic): 0.5 where both are drawn alike, and where the difference may be chance.
    With one label per class it says nothing: no labelled image has a neighbour of its own class.

    Args:
        labeled: (n, D) features, n of 2 or more.
        unlabeled: (M, D) features.
        groups: (n,) groups of the labelled images: images of one group are no neighbours.
    """
    n = len(labeled)
    both = torch.cat([labeled, unlabeled]).float()
    unit = F.normalize(both - both.mean(dim=0))
    similarity = unit @ unit[:n].T  # (n + M, n)
    own = np.arange(n) if groups is None else groups
    similarity[:n][torch.from_numpy(own[:, None] == own)] = -torch.inf
    # A labelled image has one neighbour fewer (itself): take one from every unlabelled image, too.
    rows = torch.arange(len(unlabeled))
    similarity[n + rows, rows % n] = -torch.inf
    nearest = similarity.amax(dim=1).numpy()
    from scipy.stats import mannwhitneyu  # slow to import, and not needed to predict

    found = mannwhitneyu(nearest[:n], nearest[n:], alternative="greater")
    return float(found.statistic) / (n * len(unlabeled)) if found.pvalue < _CHANCE else 0.5
