"""Find near-duplicates, images that look almost equal.

Each image is first compared with others by its lowest frequencies: the 63 of its lowest 8 x 8
that are not its mean (as in "pHash" of phash.org, after Zauner 2010, "Implementation and
Benchmarking of Perceptual Image Hash Functions", but with their values, not their signs). The
images that come nearest are then compared as 32 x 32 grey images (`likeness`).

Both steps are exact up to COMPARED images, and most of their work is spared. Agreements in the
lowest frequencies are computed in bfloat16 where the processor has it, and again in 32 bits only
where rounding could hide one of the nearest. Images are compared wholly only where a few of their
frequencies allow that they are alike (`may_be_alike`).

Comparing all with all grows with the square of the number of images. So of more images each is
compared with those of the nearest cells only, COMPARED in all: cells of k-means, as in the inverted
file of Jegou et al. 2011, "Product quantization for nearest neighbor search". What that misses was
measured (benchmarks/log/cluster.md). Nothing exact is much faster: of a million photographs, half
lie in cells that no bound excludes. Trees do not help either: copies of photographs that are moved
by two pixels agree by 0.5 only.

Letters in shapes: N images, D frequencies, B images of a block, T tiles, G groups.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from handful.data.likeness import NEAR, SIZE, likeness_of_pairs, may_be_alike, reference
from handful.devices import has_bf16
from handful.progress import Track, quiet

__all__ = ["SIZE", "compared_with", "near_duplicates"]

ALIKE = 0.95  # least likeness of near-duplicates
PARTNERS = 4  # images nearest in the lowest frequencies that each image is compared with
FLAT = 4.0  # standard deviation in grey levels below which an image shows nothing to compare
BLOCK = 512  # images whose frequencies are compared with all others at a time
MANY = 4096  # of which are compared with the nearest cells at a time: few share a cell
TILE = 2048  # images that they are compared with at a time: the results stay in the caches
GROUP = 32  # a power of two: images of a tile of which only the highest agreement is kept
SHAPES = 4  # groups by which tiles grow: for each new shape a product is compiled, and kept
GROUPS = 32  # most groups of one image that are compared again
ROUNDING = {torch.bfloat16: 0.006, torch.float32: 1e-5}  # most that an agreement is off by
COMPARED = 100_000  # most images that each is compared with
GATHERED = 1024  # groups that are compared again at a time: 8 MB
CELL = 1_000  # images of a cell, on average
LARGEST = 1_500  # images of a cell; larger ones are split
LEARNED = 50  # images of a cell that its place is learned from
STEPS = 8  # steps of k-means
AGREEMENTS = 2**25  # comparisons with all others that are held at once: 128 MB


def near_duplicates(
    pictures: Tensor, track: Track = quiet, between: Callable[[], None] = lambda: None
) -> list[tuple[int, int, float]]:
    """Pairs (first, second, likeness) of near-duplicates, the most similar first.

    Every picture is paired with the one that is most like it, so there are at most N pairs. A pair
    must also be much closer than images of this kind are (`reference`): pictures may resemble each
    other by nature, as digits do.

    Args:
        pictures: (N, 1, 32, 32) uint8.
        between: called after every block of pictures was read.
    """
    frequencies, usable = _frequencies(pictures, between)
    if len(usable) < 2:
        return []
    seen = torch.from_numpy(usable)  # (n,)
    partners = seen[_nearest(frequencies, min(PARTNERS, len(seen) - 1), track)]  # (n, partners)
    del frequencies
    best, partner = _most_alike(pictures, seen, partners, track, between)
    alike = best >= ALIKE
    one, two, best = seen[alike], partner[alike], best[alike]
    ends = torch.cat([one, two]).unique()
    known = reference(pictures, ends, NEAR, among=seen)
    within = (known.close * known.distance)[torch.searchsorted(ends, torch.stack([one, two]))]
    close = 1 - best <= within.amin(0)  # (pairs,)
    found = {
        (min(pair), max(pair)): min(likeness, 1.0)
        for *pair, likeness in zip(
            one[close].tolist(), two[close].tolist(), best[close].tolist(), strict=True
        )
    }
    return sorted(((*pair, found[pair]) for pair in found), key=lambda pair: -pair[2])


def compared_with(pictures: Tensor, between: Callable[[], None] = lambda: None) -> int | None:
    """How many images `near_duplicates` compares each image with; None: with all others.

    Flat images are compared with none.
    """
    if len(pictures) <= COMPARED:
        return None
    usable = 0
    for block in pictures[:, 0].split(BLOCK):
        usable += int(_shows_something(block.numpy().astype(np.float32)).sum())
        between()
    return COMPARED if usable > COMPARED else None


def _shows_something(grey: np.ndarray) -> np.ndarray:
    """Whether images (B, 32, 32) are not flat: (B,) bool."""
    return np.asarray(grey.std(axis=(1, 2)) > FLAT)


def _frequencies(pictures: Tensor, between: Callable[[], None]) -> tuple[Tensor, np.ndarray]:
    """Lowest frequencies (n, 63) of length 1 of the n pictures that are not flat, and their places.

    Pictures of the same look but other brightness or contrast have the same frequencies.
    """
    from scipy.fft import dctn  # slow to import, and not needed to predict

    lowest = torch.empty(len(pictures), 63)
    usable = [np.empty(0, np.int64)]
    n = 0
    for start in range(0, len(pictures), BLOCK):
        block = pictures[start : start + BLOCK, 0].numpy().astype(np.float32)
        kept = np.flatnonzero(_shows_something(block))
        low = dctn(block, axes=(1, 2), norm="ortho")[:, :8, :8].reshape(len(block), 64)
        lowest[n : n + len(kept)] = F.normalize(torch.from_numpy(low[kept, 1:]))
        n += len(kept)
        usable.append(start + kept)
        between()
    return lowest[:n], np.concatenate(usable)


def _nearest(directions: Tensor, count: int, track: Track) -> Tensor:
    """Positions (N, count) of the nearest others of the directions (N, D) of length 1.

    The nearest come first. Of each group only the highest agreement is kept, at first. An image is
    compared again with the groups that may hold one of its nearest, for all that rounding may do.
    """
    n = len(directions)
    cells = n > COMPARED
    tiles = _cells(directions) if cells else torch.arange(n).split(TILE)
    index = _Index(directions, tiles)
    found = torch.empty(n, count, dtype=torch.int64)
    blocks = torch.cat(list(tiles)).split(MANY if cells else BLOCK)
    for own in track(blocks, len(blocks), "comparing"):
        highest, shown = index.highest_of_nearest(own) if cells else index.highest(own)
        values, columns = highest.topk(min(GROUPS, shown.shape[1]), dim=1)  # (B, groups)
        values = values.float()
        # One group more than others are wanted, since the image itself is in one.
        least = values[:, min(count, values.shape[1] - 1), None]
        may = values >= least - 2 * ROUNDING[highest.dtype]
        nearest = index.nearest_in_groups(own, shown.gather(1, columns), may, count)
        if not cells and shown.shape[1] > GROUPS:
            many = may[:, -1]  # groups beyond those may hold one, too
            nearest[many] = _nearest_of_all(directions, own[many], count)
        found[own] = nearest
    return found


class _Index:
    """Directions in tiles of groups.

    Args:
        directions: (N, D).
        tiles: positions of the directions in each tile.
    """

    def __init__(self, directions: Tensor, tiles: Sequence[Tensor]) -> None:
        self.directions = directions
        self.quick = torch.bfloat16 if has_bf16() else torch.float32
        # The last image of a tile fills up its last group.
        filled = [_filled(tile, GROUP) for tile in tiles]
        self.members = torch.cat(filled).view(-1, GROUP)  # (G, GROUP) positions
        self.grouped = directions[self.members]  # (G, GROUP, D); side by side they are read sooner
        self.groups = torch.arange(len(self.members)).split([len(one) // GROUP for one in filled])
        self.tiles = [
            directions[_filled(tile, GROUP * SHAPES).view(-1, GROUP).T.flatten()].to(self.quick)
            for tile in tiles
        ]
        self.centres = torch.stack([directions[tile].mean(0) for tile in tiles])  # (T, D)
        self.nearest = max(1, COMPARED * len(tiles) // len(directions))  # tiles for each image

    def highest(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """(B, G) highest agreement of each of the images `own` (B,) with each group, and which."""
        block = self.directions[own].to(self.quick)
        parts = [self._highest(block, tile) for tile in range(len(self.tiles))]
        return torch.cat(parts, 1), torch.arange(len(self.members)).expand(len(own), -1)

    def highest_of_nearest(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """As `highest`, of the groups (B, G) of the tiles that are nearest to each of `own` (B,).

        It is -inf, and the group any, where a tile has fewer groups than the largest.
        """
        block = self.directions[own]
        near = block @ self.centres.T - self.centres.square().sum(1) / 2  # (B, T)
        near = near.topk(min(self.nearest, len(self.tiles)), dim=1).indices  # (B, tiles)
        most = max(map(len, self.groups))
        highest = torch.full((*near.shape, most), -torch.inf, dtype=self.quick)
        order = near.flatten().argsort()
        asked = order.split(torch.bincount(near.flatten(), minlength=len(self.tiles)).tolist())
        quick = block.to(self.quick)
        for tile, places in enumerate(asked):
            if len(places):
                rows = _filled(places // near.shape[1], GROUP * SHAPES)
                agree = self._highest(quick[rows], tile)[: len(places)]
                highest.flatten(0, 1)[places, : agree.shape[1]] = agree
        first = torch.stack([groups[0] for groups in self.groups])
        groups = first[near][..., None] + torch.arange(most)
        return highest.flatten(1), groups.flatten(1).clamp_max(len(self.members) - 1)

    def _highest(self, block: Tensor, tile: int) -> Tensor:
        """(B, G) highest agreement of each of the block (B, D) with each group of a tile."""
        agree = block @ self.tiles[tile].T
        while agree.shape[1] > len(self.tiles[tile]) // GROUP:  # a tenth of the time of `amax`
            half = agree.shape[1] // 2
            agree = torch.maximum(agree[:, :half], agree[:, half:])
        return agree[:, : len(self.groups[tile])]

    def nearest_in_groups(self, own: Tensor, groups: Tensor, may: Tensor, count: int) -> Tensor:
        """(B, count) the nearest of the images `own` (B,) in those `groups` (B, G) that `may`."""
        members = self.members[groups]  # (B, G, GROUP)
        agree = torch.full(members.shape, -torch.inf)
        for some in may.nonzero().split(GATHERED):
            row, place = some.T
            asking = self.directions[own[row], :, None]  # (pairs, D, 1)
            agree[row, place] = (self.grouped[groups[row, place]] @ asking)[..., 0]
        agree[members == own[:, None, None]] = -torch.inf
        agree[..., 1:][members[..., 1:] == members[..., :-1]] = -torch.inf  # what fills up
        best = agree.flatten(1).topk(count, dim=1).indices
        return members.flatten(1).gather(1, best)


def _filled(positions: Tensor, multiple: int) -> Tensor:
    """The positions, the last of them repeated until their number is a multiple of this."""
    n = len(positions)
    return positions[torch.arange(-(-n // multiple) * multiple).clamp_max(n - 1)]


def _cells(directions: Tensor) -> list[Tensor]:
    """Positions of the directions (N, D) in each cell: k-means, learned from some of them."""
    draw = torch.Generator().manual_seed(0)
    k = -(-len(directions) // CELL)
    some = directions[torch.randperm(len(directions), generator=draw)[: LEARNED * k]]
    centres = some[:k].clone()
    for _ in range(STEPS):
        cell = _nearest_centre(some, centres)
        size = torch.bincount(cell, minlength=k)[:, None]
        means = torch.zeros_like(centres).index_add_(0, cell, some) / size
        centres = torch.where(size > 0, means, centres)
    cell = _nearest_centre(directions, centres)
    sizes = torch.bincount(cell, minlength=k).tolist()
    return [part for one in cell.argsort().split(sizes) for part in _split(directions, one)]


def _nearest_centre(directions: Tensor, centres: Tensor) -> Tensor:
    half = centres.square().sum(1) / 2
    blocks = directions.split(max(1, AGREEMENTS // len(centres)))
    return torch.cat([(block @ centres.T - half).argmax(1) for block in blocks])


def _split(directions: Tensor, cell: Tensor) -> list[Tensor]:
    """The cell in halves along its principal axis, and so on, until none is too large."""
    if len(cell) <= LARGEST:
        return [cell] if len(cell) else []
    own = directions[cell]
    away = own - own.mean(0)
    order = (own @ torch.linalg.eigh(away.T @ away).eigenvectors[:, -1]).argsort()
    return [half for part in cell[order].chunk(2) for half in _split(directions, part)]


def _nearest_of_all(directions: Tensor, own: Tensor, count: int) -> Tensor:
    """(B, count) the nearest others of the images `own` (B,), compared with all."""
    found = [own.new_empty(0, count)]
    for some in own.split(max(1, AGREEMENTS // len(directions))):
        agree = directions[some] @ directions.T
        agree[torch.arange(len(some)), some] = -torch.inf
        found.append(agree.topk(count, dim=1).indices)
    return torch.cat(found)


def _most_alike(
    pictures: Tensor, seen: Tensor, partners: Tensor, track: Track, between: Callable[[], None]
) -> tuple[Tensor, Tensor]:
    """Likeness (n,) of the pictures `seen` (n,) to their most similar partner, and which it is.

    A likeness below ALIKE may be given as -1.

    Args:
        partners: (n, count) positions in `pictures`.
    """
    n, count = partners.shape
    first, second = seen.repeat_interleave(count), partners.flatten()
    kept = may_be_alike(pictures, first, second, ALIKE, NEAR, between).nonzero()[:, 0]
    likeness = torch.full((n * count,), -1.0)
    parts = kept.split(BLOCK)
    for some in track(parts, len(parts), "comparing"):
        likeness[some] = likeness_of_pairs(pictures, first[some], second[some], NEAR)
        between()
    best, at = likeness.view(n, count).max(1)
    return best, partners.gather(1, at[:, None])[:, 0]
