"""Find images of one scene among the labelled images, by their look, names and times.

Three kinds of signs are used, as far as the look of the images agrees (`evidence`):

- near-copies: pairs that are much closer than images of this kind are anyway (`likeness`);
- the beginnings of names, and folders below the classes: whole groups, where images of one group
  nearly always look more alike than others of their class;
- running numbers in names, and times: pairs that are near, where such pairs look more alike than
  others; each pair must also look alike itself, unless nearly all of such pairs do.

What looks alike less clearly is not used but told.

Letters in shapes: n labelled images.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from handful.data.capture_time import Capture, captures
from handful.data.grouping.evidence import FEWEST, of_keys, of_pairs, rare_likeness
from handful.data.grouping.rules import joined, linked
from handful.data.grouping.signs import Line, Partition, numbers, partitions, times
from handful.data.imageset import ImageSet
from handful.data.likeness import (
    ALIKE,
    SCENE,
    distances_from,
    likeness_of_all,
    likeness_of_pairs,
    reference_of,
    thumbnails,
)
from handful.data.near_duplicates import near_duplicates
from handful.data.store import FileStore
from handful.progress import Track, quiet

MOST_COPIES = 5_000  # labelled images of which all are looked at; of more, only names count
MOST = 600  # labelled images of which all pairs are compared; of more, a part is looked at
MOST_OF_THEM = 0.5  # share of near pairs that look alike; the others are then of other scenes
GAP = 3.0  # times as far as its images from each other is a scene from all other images
RUN = 50  # images that follow each other by name, which are looked at together
NEAR_COPIES = "images that look almost the same"


@dataclass(frozen=True, eq=False)
class Found:
    """Groups among the labelled images, and what they rest on."""

    groups: np.ndarray  # (n,) numbers of the groups that are sure
    signs: tuple[str, ...] = ()  # what was used, in words
    likely: np.ndarray | None = None  # (n,) numbers of groups that may be, where there are some
    likely_signs: tuple[str, ...] = ()

    @property
    def scenes(self) -> int:
        return len(np.unique(self.groups))

    def of(self, photo: np.ndarray) -> "Found":
        """These groups for the crops of the photos that they were found for; photo: (N,) places."""
        likely = None if self.likely is None else self.likely[photo]
        return replace(self, groups=self.groups[photo], likely=likely)


def find_groups(images: ImageSet, track: Track = quiet) -> Found:
    """Find groups among labelled images.

    Args:
        images: the labelled images; their groups of exact copies are kept together. Of several
            crops of a photo, the first one is looked at.
    """
    n = len(images)
    _, first, photo = np.unique(images.files, return_index=True, return_inverse=True)
    if len(first) < n:  # crops of one photo are no evidence for photos of one scene
        return find_groups(images[first], track).of(photo)
    copies = np.arange(n) if images.groups is None else images.groups
    if n < 2:
        return Found(copies)
    names, labels = images.files, [images.classes[label] for label in images.labels]
    seen, few = _part(names), n <= MOST_COPIES
    pictures = thumbnails(images if few else images[seen])
    likeness = likeness_of_all(pictures[torch.from_numpy(seen)] if few else pictures, SCENE)
    looks = _Looks(pictures, seen, likeness.numpy(), images.labels)
    near: list[tuple[int, int]] = []
    if len(seen) == n:
        near = _near_copies(likeness)
    elif few:
        near = [pair[:2] for pair in near_duplicates(pictures, track)]
    found = Found(linked(copies, _rows(near)))
    if found.scenes < len(np.unique(copies)):
        found = replace(found, signs=(NEAR_COPIES,))
    finer = np.arange(n)
    for sign in partitions(names, labels):
        found, finer = _with_partition(found, sign, looks, finer)
    for line in (numbers(names), times(_captures(images), names)) if few else ():
        if line is not None:
            found = _with_line(found, line, looks)
    return _without_what_is_sure(found)


@dataclass(frozen=True, eq=False)
class _Looks:
    """What the labelled images look like."""

    pictures: Tensor  # (n, 1, 32, 32); of many images, only those that are seen
    seen: np.ndarray  # (N,) positions of the images that evidence is taken from
    likeness: np.ndarray  # (N, N) of these
    classes: np.ndarray  # (n,)

    def inside(self, pairs: np.ndarray) -> np.ndarray:
        """Those of the pairs (P, 2) whose two images are seen, as positions among the seen."""
        place = np.full(len(self.classes), -1)
        place[self.seen] = np.arange(len(self.seen))
        placed = place[pairs]
        return placed[(placed >= 0).all(1)]

    def of_pairs(self, pairs: np.ndarray) -> np.ndarray:
        """Likeness (P,) of pairs (P, 2) of any of the n images."""
        first, second = torch.from_numpy(np.ascontiguousarray(pairs.T))
        return likeness_of_pairs(self.pictures, first, second, SCENE).numpy()


def _near_copies(likeness: Tensor) -> list[tuple[int, int]]:
    """Pairs that link the images of one scene, given the likeness (n, n) of all images.

    Images are merged from the closest on (single linkage). A set of images is a scene if its last
    merge is at a distance that counts as close for all of them, and the next one, to any other
    image, is GAP times as far. The gap tells scenes from kinds whose images are all alike, such as
    ones among digits.
    """
    from scipy.cluster.hierarchy import linkage, to_tree
    from scipy.spatial.distance import squareform

    distances = distances_from(likeness)
    known = reference_of(distances)
    limit = (known.distance * known.close).clamp_max(1 - ALIKE).numpy()
    condensed = squareform(distances.fill_diagonal_(0).numpy(), checks=False)
    pairs: list[tuple[int, int]] = []
    waiting = [(to_tree(linkage(condensed, "single")), np.inf)]
    while waiting:
        node, next_merge = waiting.pop()
        if node.is_leaf():
            continue
        members = node.pre_order()
        if node.dist <= limit[members].min() and next_merge >= GAP * node.dist:
            pairs += [(members[0], member) for member in members[1:]]
        else:
            waiting += [(node.left, node.dist), (node.right, node.dist)]
    return pairs


def _with_partition(
    found: Found, sign: Partition, looks: _Looks, finer: np.ndarray
) -> tuple[Found, np.ndarray]:
    """With the groups of a sign, and the numbers (n,) of the finest groups that are sure.

    Near-copies speak for a sign. Where images of one group are no near-copies, they must win more
    often than not, too: else a folder of several bursts would pass for one scene.
    """
    keys = list(sign.keys)
    number = joined(np.arange(len(keys)), keys)
    number[[key is None for key in keys]] = -1
    seen = looks.seen
    classes = looks.classes[seen]
    whole = of_keys(looks.likeness, classes, number[seen], finer[seen])
    others = of_keys(looks.likeness, classes, number[seen], found.groups[seen])
    pairs = _rows(_first_of_each(number))
    if whole.sure and (others.likely or others.units < FEWEST):
        return _with_pairs(found, pairs, sign.what), linked(finer, pairs)
    return (_told(found, pairs, sign.what) if others.likely else found), finer


def _with_line(found: Found, line: Line, looks: _Looks) -> Found:
    pairs = line.pairs()
    classes = looks.classes[looks.seen]
    apart = np.array([line.apart(*pair) for pair in pairs])
    waiting, start = pairs[:0], -1.0
    for end in line.gaps:
        waiting = np.concatenate([waiting, pairs[(apart > start) & (apart <= end)]])
        start = end
        near = looks.inside(pairs[apart <= end])
        new = waiting[found.groups[waiting[:, 0]] != found.groups[waiting[:, 1]]]
        known = found.groups[looks.seen]
        verdict = of_pairs(looks.likeness, classes, known, looks.inside(new), near)
        if verdict.units < FEWEST:
            continue  # too few to tell: looked at with the next ones
        if not verdict.likely:
            break
        alike = looks.of_pairs(new) > rare_likeness(looks.likeness, classes, near)
        found = _with_pairs(found, new if verdict.sure else new[alike], line.what)
        if not verdict.sure and alike.mean() < MOST_OF_THEM:
            found = _told(found, new, line.what)
        waiting = pairs[:0]
    return found


def _with_pairs(found: Found, pairs: np.ndarray, what: str) -> Found:
    """With the groups of each of the pairs (P, 2) joined."""
    groups = linked(found.groups, pairs)
    if len(np.unique(groups)) == found.scenes:
        return found
    return replace(found, groups=groups, signs=tuple(dict.fromkeys((*found.signs, what))))


def _told(found: Found, pairs: np.ndarray, what: str) -> Found:
    """With each of the pairs (P, 2) told to be likely of one group."""
    signs = tuple(dict.fromkeys((*found.likely_signs, what)))
    before = found.groups if found.likely is None else found.likely
    return replace(found, likely=linked(before, pairs), likely_signs=signs)


def _without_what_is_sure(found: Found) -> Found:
    """With the groups that are likely holding those that are sure; none where they add nothing."""
    if found.likely is None:
        return found
    likely = linked(found.likely, _rows(_first_of_each(found.groups)))
    if len(np.unique(likely)) == found.scenes:
        return replace(found, likely=None, likely_signs=())
    return replace(found, likely=likely)


def _rows(pairs: list[tuple[int, int]]) -> np.ndarray:
    """Pairs as an array (P, 2)."""
    return np.array(pairs, np.int64).reshape(-1, 2)


def _first_of_each(number: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of each image and the first of its group; none of images without one (-1)."""
    first: dict[int, int] = {}
    return [(first.setdefault(int(group), at), at) for at, group in enumerate(number) if group >= 0]


def _part(names: list[str]) -> np.ndarray:
    """Positions of the images that evidence is taken from: runs of those that follow by name."""
    order = np.array(sorted(range(len(names)), key=names.__getitem__))
    if len(order) <= MOST:
        return np.arange(len(order))
    runs = np.array_split(order, -(-len(order) // RUN))
    step = -(-len(order) // MOST)
    return np.sort(np.concatenate(runs[::step]))[:MOST]


def _captures(images: ImageSet) -> list[Capture | None]:
    store = images.store
    if not isinstance(store, FileStore):
        return [None] * len(images)
    return captures(store.files.each(images.files))
