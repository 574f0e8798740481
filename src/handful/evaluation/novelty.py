"""None of these: images unlike anything that a run has seen, labelled or not.

An image is described by where it lies along the first principal axes of the run's own images, and
by how much of it lies outside of them; how unlike it is, by the distance to the 15th nearest of
those images. A third of them are kept apart to calibrate: the threshold is where all but 2 % of
them lie, so of new images like them about 2 % are flagged for nothing.

Distance to a neighbour: Sun et al. 2022, arXiv:2204.06507; what lies outside the axes: Wang et al.
2022, "ViM", arXiv:2203.10807. Where we differ: both make one distance, axes are half whitened (by
the root of the standard deviation), and no label is needed.

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

FLAGGED = 0.02  # of the images that are like the run's own
CALIBRATING = 3  # one image in this many
NEIGHBOR = 15  # whose distance counts; a nearer one where there are fewer than 60 images
RANK = 128  # principal axes; fewer where there are fewer than 8 reference images for each
OUTSIDE = 2.0  # weight of what lies outside the axes, beside a place along them of length 1
# Unlabelled images are taken for images of other kinds where `unlike` is above this, and not by
# chance. Labels balanced by hand beside an unbalanced pool make up to 0.65.
UNLIKE, _CHANCE = 0.7, 1e-3
_BLOCK = 1_024  # images whose distances to all references are held at once


@dataclass(frozen=True, eq=False)
class Familiar:
    """What the images of a run look like to its network."""

    mean: Tensor  # (D,)
    axes: Tensor  # (D, R), orthonormal
    scale: Tensor  # (R,) root of the standard deviation along each
    reference: Tensor  # (M, R + 1) float16
    threshold: Tensor  # () the distance above which an image is none of these

    def distances(self, features: Tensor) -> Tensor:
        """(N,) distance of (N, D) features from the reference images."""
        reference = self.reference.float()
        neighbor = max(1, min(NEIGHBOR, len(reference) // 4))
        found = [
            torch.cdist(self.placed(some), reference).kthvalue(neighbor).values
            for some in features.split(_BLOCK)
        ]
        return torch.cat(found)

    def strange(self, features: Tensor) -> Tensor:
        """(N,) bool: whether each of (N, D) features is unlike the reference images."""
        return self.distances(features) > self.threshold

    def placed(self, features: Tensor) -> Tensor:
        """(N, D) features → (N, R + 1): the place along the axes, and what lies outside them."""
        centred = features.float() - self.mean
        along = centred @ self.axes
        outside = (centred - along @ self.axes.T).norm(dim=1) / centred.norm(dim=1).clamp_min(1e-6)
        return torch.cat([F.normalize(along / self.scale), OUTSIDE * outside.unsqueeze(1)], dim=1)


def familiar(features: Tensor, seed: int = 0) -> Familiar:
    """Learn from (M, D) features of a run's own images, two at least, what is usual."""
    order = torch.from_numpy(seeds.generator(seed, Stream.NOVELTY).permutation(len(features)))
    apart = max(1, len(features) // CALIBRATING)
    own = features[order[apart:]].float()
    coordinates = principal(own, max(2, min(RANK, len(own) // 8)))
    axes = F.normalize(coordinates.basis, dim=0)
    spread = coordinates.of(own).square().mean(dim=0)  # (R,) of features of mean square length 1
    scale = spread.clamp_min(1e-12) ** 0.25
    empty = own.new_empty(0, axes.shape[1] + 1)
    known = Familiar(coordinates.mean, axes, scale, empty, torch.tensor(math.inf))
    known = replace(known, reference=known.placed(own).half())
    usual = known.distances(features[order[:apart]]).sort().values
    within = min(math.ceil((apart + 1) * (1 - FLAGGED)), apart)
    return replace(known, threshold=usual[within - 1])


def save_familiar(known: Familiar, path: Path) -> None:
    names = [field.name for field in fields(Familiar)]
    write_tensors(path, {name: getattr(known, name) for name in names})


def load_familiar(path: Path, width: int) -> Familiar:
    """What `save_familiar` wrote for a network of `width` features; HandfulError if it is not."""
    if not path.exists():
        raise HandfulError(f"{path} is missing, so what is none of these is not known; fit again")
    tensors, _ = read_tensors(path, lambda shapes, _: _check_shapes(shapes, width, path))
    if not all(t.is_floating_point() and bool(t.isfinite().all()) for t in tensors.values()):
        raise HandfulError(f"{path} holds values that are not finite; restore it or fit again")
    return Familiar(**tensors)


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


def unlike(labeled: Tensor, unlabeled: Tensor, groups: np.ndarray | None = None) -> float:
    """Whether the unlabelled images are of other kinds than the labelled ones.

    The share of comparisons in which a labelled image has a more similar labelled neighbour than
    an unlabelled image has: a half where both are drawn alike (Mann-Whitney). One label per class
    tells nothing: no labelled image has a neighbour of its class then.

    Args:
        labeled: (n, D) features, n of 2 or more; unlabeled: (M, D).
        groups: (n,) of the labelled images: those of one group are no neighbours.
    """
    n = len(labeled)
    both = torch.cat([labeled, unlabeled]).float()
    unit = F.normalize(both - both.mean(dim=0))
    similarity = unit @ unit[:n].T  # (n + M, n)
    own = np.arange(n) if groups is None else groups
    similarity[:n][torch.from_numpy(own[:, None] == own)] = -torch.inf
    # Each labelled image has one neighbour fewer, so each of the others does without one, too.
    rows = torch.arange(len(unlabeled))
    similarity[n + rows, rows % n] = -torch.inf
    nearest = similarity.amax(dim=1).numpy()
    found = mannwhitneyu(nearest[:n], nearest[n:], alternative="greater")
    return float(found.statistic) / (n * len(unlabeled)) if found.pvalue < _CHANCE else 0.5
