"""Detect out-of-distribution images, and a shift between labelled and unlabelled images.

An image is represented by its coordinates along the first principal axes of the run's own images
(labelled or not) and by the length of the residual outside of these axes. Its score is the
distance to the 15th nearest reference image. A third of the run's images calibrate the threshold:
98 % of them lie within it, so about 2 % of new images that are in distribution are flagged.

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
from scipy.stats import mannwhitneyu
from torch import Tensor

from handful import seeds
from handful.errors import HandfulError
from handful.files import read_tensors, write_tensors
from handful.methods.heads import principal
from handful.seeds import Stream

FLAGGED = 0.02  # share of in-distribution images beyond the threshold
CALIBRATING = 3  # one image in this many calibrates the threshold
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

    def distances(self, features: Tensor) -> Tensor:
        """(N,) distances of features (N, D) to their NEIGHBOR-th nearest reference image."""
        reference = self.reference.float()
        neighbor = max(1, min(NEIGHBOR, len(reference) // 4))
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


def fit_in_distribution(features: Tensor, seed: int = 0) -> InDistribution:
    """Fit the distribution of a run's own images from their features (M, D), M of 2 or more."""
    order = torch.from_numpy(seeds.generator(seed, Stream.NOVELTY).permutation(len(features)))
    apart = max(1, len(features) // CALIBRATING)
    own = features[order[apart:]].float()
    coordinates = principal(own, max(2, min(RANK, len(own) // 8)))
    axes = F.normalize(coordinates.basis, dim=0)
    spread = coordinates.of(own).square().mean(dim=0)  # (R,) of features of mean square length 1
    scale = spread.clamp_min(1e-12) ** 0.25
    empty = own.new_empty(0, axes.shape[1] + 1)
    known = InDistribution(coordinates.mean, axes, scale, empty, torch.tensor(math.inf))
    known = replace(known, reference=known.coordinates(own).half())
    usual = known.distances(features[order[:apart]]).sort().values
    within = min(math.ceil((apart + 1) * (1 - FLAGGED)), apart)
    return replace(known, threshold=usual[within - 1])


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
    if not all(t.is_floating_point() and bool(t.isfinite().all()) for t in tensors.values()):
        raise HandfulError(f"{path} holds values that are not finite; restore it or fit again")
    return InDistribution(**tensors)


def _check_shapes(shapes: Mapping[str, tuple[int, ...]], width: int, path: Path) -> None:
    rank = shapes.get("scale", (0,))[0] if len(shapes.get("scale", ())) == 1 else 0
    rows = shapes.get("reference", (0,))[:1]
    expected = {
        "mean": (width,),
        "axes": (width, rank),
        "scale": (rank,),
        "reference": (*rows, rank + 1),
        "threshold": (),
    }
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
    found = mannwhitneyu(nearest[:n], nearest[n:], alternative="greater")
    return float(found.statistic) / (n * len(unlabeled)) if found.pvalue < _CHANCE else 0.5
