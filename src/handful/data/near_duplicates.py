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
compared with those of the nearest cells only, OF_MANY in all: cells of k-means, as in the inverted
file of Jegou et al. 2011, "Product quantization for nearest neighbor search". What that misses was
measured (benchmarks/log/cluster.md). Nothing exact is much faster: of a million photographs, half
lie in cells that no bound excludes. Trees do not help either: copies of photographs that are moved
by two pixels agree by 0.5 only.

How near a pair must be is found among the images of the same cell, not among all: a folder may hold
kinds of images that resemble each other much and kinds that do not.

Letters in shapes: N images, D frequencies, B images of a block, T tiles, G groups.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from handful.data.likeness import NEAR, SIZE, likeness_of_pairs, may_be_alike, near_limits
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
GROUPS = 32  # most groups of one image that are compared again; half of them with cells
ROUNDING = {torch.bfloat16: 0.006, torch.float32: 1e-5}  # most that an agreement is off by
COMPARED = 100_000  # most images that are all compared with all
OF_MANY = 50_000  # images that each is compared with where there are more
GATHERED = 1024  # groups that are compared again at a time: 8 MB
CELL = 1_000  # images of a cell, on average
LARGEST = 1_500  # images of a cell; larger ones are split
KIND = 600  # most images of a part of a cell; how near images of a kind are is found among them
FEWEST = 250  # images; a smaller part takes those of the nearest parts, too
LEARNED = 50  # images of a cell that its place is learned from
STEPS = 8  # steps of k-means
AGREEMENTS = 2**25  # comparisons with all others that are held at once: 128 MB


def near_duplicates(
    pictures: Tensor, track: Track = quiet, between: Callable[[], None] = lambda: None
) -> list[tuple[int, int, float]]:
    """Pairs (first, second, likeness) of near-duplicates, the most similar first.

    Every picture is paired with the one that is most like it, so there are at most N pairs. A pair
    must also be much closer than images of its kind are (`near_limits`): pictures may resemble each
    other by nature, as digits do.

    Args:
        pictures: (N, 1, 32, 32) uint8.
        between: called after every block of pictures was read.
    """
    frequencies, usable = _frequencies(pictures, between)
    if len(usable) < 2:
        return []
    seen = torch.from_numpy(usable)  # (n,)
    cells = _cells(frequencies)
    compared = cells if len(seen) > COMPARED else None
    partners = seen[_nearest(frequencies, min(PARTNERS, len(seen) - 1), track, compared)]
    kinds = _Kinds(frequencies, cells)
    del frequencies
    best, partner = _most_alike(pictures, seen, partners, track, between)
    alike = best >= ALIKE
    one, two, best = seen[alike], partner[alike], best[alike]
    asked = torch.zeros(len(pictures), dtype=torch.bool)
    asked[one] = asked[two] = True
    limits = torch.zeros(len(pictures))
    for number in track(range(len(kinds.parts)), len(kinds.parts), "comparing"):
        own = seen[kinds.parts[number]]
        own = own[asked[own]]
        if len(own):
            limits[own] = near_limits(pictures, own, seen[kinds.around(number)], NEAR)
            between()
    close = 1 - best <= torch.minimum(limits[one], limits[two])  # (pairs,)
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
    return OF_MANY if usable > COMPARED else None


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


def _nearest(
    directions: Tensor, count: int, track: Track, cells: Sequence[Tensor] | None = None
) -> Tensor:
    """Positions (N, count) of the nearest others of the directions (N, D) of length 1.

    The nearest come first. Of each group only the highest agreement is kept, at first. An image is
    compared again with the groups that may hold one of its nearest, for all that rounding may do.

    Args:
        cells: positions of the directions in each cell, where each is compared with those of the
            nearest cells only; None: with all.
    """
    n = len(directions)
    index = _Index(directions, torch.arange(n).split(TILE) if cells is None else cells)
    found = torch.empty(n, count, dtype=torch.int64)
    blocks = torch.arange(n).split(BLOCK) if cells is None else torch.cat(list(cells)).split(MANY)
    again = GROUPS if cells is None else GROUPS // 2
    for own in track(blocks, len(blocks), "comparing"):
        near = None if cells is None else index.nearest_tiles(own)
        highest = index.highest(own) if near is None else index.highest_of_nearest(own, near)
        values, columns = highest.topk(min(again, highest.shape[1]), dim=1)  # (B, groups)
        values = values.float()
        # One group more than others are wanted, since the image itself is in one.
        least = values[:, min(count, values.shape[1] - 1), None]
        may = values >= least - 2 * ROUNDING[highest.dtype]
        groups = columns if near is None else index.groups_of_nearest(near, columns)
        nearest = index.nearest_in_groups(own, groups, may, count)
        if cells is None and highest.shape[1] > again:
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
        self.groups = [len(one) // GROUP for one in filled]  # of each tile
        self.first = torch.tensor([0, *self.groups]).cumsum(0)[:-1]  # (T,) group of each tile
        self.most = max(self.groups)
        self.tiles = [
            directions[_filled(tile, GROUP * SHAPES).view(-1, GROUP).T.flatten()].to(self.quick)
            for tile in tiles
        ]
        self.centres = torch.stack([directions[tile].mean(0) for tile in tiles])  # (T, D)
        self.nearest = max(1, OF_MANY * len(tiles) // len(directions))  # tiles for each image

    def highest(self, own: Tensor) -> Tensor:
        """(B, G) highest agreement of each of the images `own` (B,) with each group."""
        block = self.directions[own].to(self.quick)
        return torch.cat([self._highest(block, tile) for tile in range(len(self.tiles))], 1)

    def nearest_tiles(self, own: Tensor) -> Tensor:
        """(B, tiles) the tiles whose centres are nearest to each of the images `own` (B,)."""
        near = self.directions[own] @ self.centres.T - self.centres.square().sum(1) / 2  # (B, T)
        return near.topk(min(self.nearest, len(self.tiles)), dim=1).indices

    def highest_of_nearest(self, own: Tensor, near: Tensor) -> Tensor:
        """As `highest`, of the groups of the tiles `near` (B, tiles), side by side.

        Each tile has as many columns as the largest has groups; those beyond its own are -inf.
        """
        highest = torch.full((*near.shape, self.most), -torch.inf, dtype=self.quick)
        order = near.flatten().argsort()
        asked = order.split(torch.bincount(near.flatten(), minlength=len(self.tiles)).tolist())
        quick = self.directions[own].to(self.quick)
        for tile, places in enumerate(asked):
            if len(places):
                rows = _filled(places // near.shape[1], GROUP * SHAPES)
                agree = self._highest(quick[rows], tile)[: len(places)]
                highest.flatten(0, 1)[places, : agree.shape[1]] = agree
        return highest.flatten(1)

    def groups_of_nearest(self, near: Tensor, columns: Tensor) -> Tensor:
        """The groups (B, C) that stand in these columns (B, C) of `highest_of_nearest`."""
        groups = self.first[near.gather(1, columns // self.most)] + columns % self.most
        return groups.clamp_max(len(self.members) - 1)  # any where a tile has fewer

    def _highest(self, block: Tensor, tile: int) -> Tensor:
        """(B, G) highest agreement of each of the block (B, D) with each group of a tile."""
        agree = block @ self.tiles[tile].T
        while agree.shape[1] > len(self.tiles[tile]) // GROUP:  # a tenth of the time of `amax`
            half = agree.shape[1] // 2
            agree = torch.maximum(agree[:, :half], agree[:, half:])
        return agree[:, : self.groups[tile]]

    def nearest_in_groups(self, own: Tensor, groups: Tensor, may: Tensor, count: int) -> Tensor:
        """(B, count) the nearest of the images `own` (B,) in those `groups` (B, G) that `may`."""
        agree = torch.full((*groups.shape, GROUP), -torch.inf)
        for some in may.nonzero().split(GATHERED):
            row, place = some.T
            asked = groups[row, place]
            found = (self.grouped[asked] @ self.directions[own[row], :, None])[..., 0]
            members = self.members[asked]  # (pairs, GROUP)
            found[members == own[row, None]] = -torch.inf
            found[:, 1:][members[:, 1:] == members[:, :-1]] = -torch.inf  # what fills up
            agree[row, place] = found
        best = agree.flatten(1).topk(count, dim=1).indices
        return self.members[groups.gather(1, best // GROUP), best % GROUP]


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
    every = cell.argsort(stable=True).split(sizes)
    return [part for one in every for part in _split(directions, one, LARGEST)]


def _nearest_centre(directions: Tensor, centres: Tensor) -> Tensor:
    half = centres.square().sum(1) / 2
    blocks = directions.split(BLOCK)  # whose distances stay in the caches
    return torch.cat([torch.addmm(-half, block, centres.T).argmax(1) for block in blocks])


def _split(directions: Tensor, cell: Tensor, largest: int) -> list[Tensor]:
    """The cell in halves along its principal axis, and so on, until none is too large."""
    if len(cell) <= largest:
        return [cell] if len(cell) else []
    own = directions[cell]
    away = own - own.mean(0)
    order = (own @ torch.linalg.eigh(away.T @ away).eigenvectors[:, -1]).argsort()
    return [half for part in cell[order].chunk(2) for half in _split(directions, part, largest)]


class _Kinds:
    """Parts of cells: images of one kind, as far as the lowest frequencies tell.

    Args:
        directions: (N, D).
        cells: positions of the directions in each cell.
    """

    def __init__(self, directions: Tensor, cells: Sequence[Tensor]) -> None:
        self.parts = [part for cell in cells for part in _split(directions, cell, KIND)]
        self.centres = torch.stack([directions[part].mean(0) for part in self.parts])

    def around(self, number: int) -> Tensor:
        """Positions in a part, and in those nearest to it, until there are FEWEST."""
        if len(self.parts[number]) >= FEWEST:
            return self.parts[number]
        order = (self.centres - self.centres[number]).square().sum(1).argsort().tolist()
        found: list[Tensor] = []
        while order and sum(map(len, found)) < FEWEST:
            found.append(self.parts[order.pop(0)])
        return torch.cat(found)


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
