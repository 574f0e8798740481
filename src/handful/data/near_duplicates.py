"""Find near-duplicates, images that look almost equal.

Each image is first compared with all others by its lowest frequencies: the 63 of its lowest 8 x 8
that are not its mean (as in "pHash" of phash.org, after Zauner 2010, "Implementation and
Benchmarking of Perceptual Image Hash Functions", but with their values, not their signs). The
images that come nearest are then compared as 32 x 32 grey images (`likeness`).

More than EXACT images are not compared with all others, which would take the square of their
number: some of them are the centres of cells, and each image is compared with the images of the
cells nearest to its own. Near-duplicates are so close that they lie in one cell or in neighbouring
ones; tests count how many are missed. This is the index known as IVF: Sivic and Zisserman 2003,
"Video Google".

Letters in shapes: N images, D frequencies.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from handful.data.likeness import NEAR, SIZE, likeness_of_pairs, reference
from handful.progress import Track, quiet

__all__ = ["SIZE", "near_duplicates"]

ALIKE = 0.95  # least likeness of near-duplicates
PARTNERS = 4  # images nearest in the lowest frequencies that each image is compared with
FLAT = 4.0  # standard deviation in grey levels below which an image shows nothing to compare
BLOCK = 1024  # images whose frequencies are compared with all others at a time
EXACT = 100_000  # images; more are compared within cells
AGREEMENTS = 2**25  # comparisons of one block that are held at once: 128 MB
PROBED = 16  # cells that each image is compared with
MOST = 2**15  # images that one image is compared with, should a cell hold very many


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
    if len(usable) < len(pictures):
        pictures = pictures[torch.from_numpy(usable)]
    partners = _nearest(frequencies, min(PARTNERS, len(usable) - 1), track)  # (N, partners)
    del frequencies
    best, partner = torch.empty(len(partners)), torch.empty(len(partners), dtype=torch.int64)
    starts = range(0, len(partners), BLOCK)
    for start in track(starts, len(starts), "comparing"):
        some = partners[start : start + BLOCK]
        first = torch.arange(start, start + len(some)).repeat_interleave(some.shape[1])
        likeness = likeness_of_pairs(pictures, first, some.flatten(), NEAR)
        best[start : start + BLOCK], at = likeness.view(some.shape).max(1)
        partner[start : start + BLOCK] = some.gather(1, at[:, None])[:, 0]
        between()
    alike = (best >= ALIKE).nonzero()[:, 0]
    ends = torch.cat([alike, partner[alike]]).unique()
    known = reference(pictures, ends, NEAR)
    within = dict(zip(ends.tolist(), (known.close * known.distance).tolist(), strict=True))
    found = {}
    for one in alike.tolist():
        two = int(partner[one])
        if 1 - float(best[one]) <= min(within[one], within[two]):
            pair = (int(usable[min(one, two)]), int(usable[max(one, two)]))
            found[pair] = min(float(best[one]), 1.0)
    return sorted(((*pair, found[pair]) for pair in found), key=lambda pair: -pair[2])


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
        kept = np.flatnonzero(block.std(axis=(1, 2)) > FLAT)
        low = dctn(block, axes=(1, 2), norm="ortho")[:, :8, :8].reshape(len(block), 64)
        lowest[n : n + len(kept)] = F.normalize(torch.from_numpy(low[kept, 1:]))
        n += len(kept)
        usable.append(start + kept)
        between()
    return lowest[:n], np.concatenate(usable)


def _nearest(directions: Tensor, count: int, track: Track) -> Tensor:
    """Positions (N, count) of the nearest others of the directions (N, D), the nearest first."""
    if len(directions) > EXACT:
        return _nearest_in_cells(directions, count, track)
    step = max(1, min(BLOCK, AGREEMENTS // len(directions)))
    starts = range(0, len(directions), step)
    found = []
    for start in track(starts, len(starts), "comparing"):
        block = directions[start : start + step]
        agree = block @ directions.T
        agree[torch.arange(len(block)), start + torch.arange(len(block))] = -torch.inf
        found.append(agree.topk(count, dim=1).indices)
    return torch.cat(found)


def _nearest_in_cells(directions: Tensor, count: int, track: Track) -> Tensor:
    """As `_nearest`, among the images of the cells whose centres are nearest.

    K cells cost N K comparisons to fill and PROBED N / K for each image to search, which is least
    for K = sqrt(PROBED N). Their centres are K of the images: where many lie, many cells are.
    """
    n = len(directions)
    cells = int((PROBED * n) ** 0.5)
    centres = directions[torch.arange(cells) * n // cells].unique(dim=0)
    cells, probed = len(centres), min(PROBED, len(centres))
    nearest = torch.cat(
        [(block @ centres.T).topk(probed, dim=1).indices.int() for block in directions.split(BLOCK)]
    )  # (N, probed); an image lies in the first of its cells
    inside, asking = _by_cell(nearest[:, :1], cells), _by_cell(nearest, cells)
    # Where the cells hold too few, the next images in the list fill up.
    found = (torch.arange(n)[:, None] + torch.arange(1, count + 1)) % n
    agreement = torch.full((n, count), -2.0)
    for own, asks in zip(track(inside, cells, "comparing"), asking, strict=True):
        own = own[:MOST]
        for some in asks.split(BLOCK):
            agree = directions[some] @ directions[own].T
            agree[some[:, None] == own] = -torch.inf
            best = torch.cat([agreement[some], agree], 1).topk(count, dim=1)
            known = torch.cat([found[some], own.expand(len(some), -1)], 1)
            agreement[some], found[some] = best.values, known.gather(1, best.indices)
    return found


def _by_cell(nearest: Tensor, cells: int) -> tuple[Tensor, ...]:
    """The images of each cell, of (N, P) cells of every image."""
    counts = torch.bincount(nearest.flatten(), minlength=cells).tolist()
    order = nearest.flatten().argsort(stable=True).div_(nearest.shape[1], rounding_mode="floor")
    return order.int().split(counts)
