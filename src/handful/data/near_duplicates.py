"""Find near-duplicates, images that look almost equal.

Each image is first compared with all others by its lowest frequencies: the 63 of its lowest 8 x 8
that are not its mean (as in "pHash" of phash.org, after Zauner 2010, "Implementation and
Benchmarking of Perceptual Image Hash Functions", but with their values, not their signs). The
images that come nearest are then compared as 32 x 32 grey images (`likeness`).

Both steps are exact, and most of their work is spared. Agreements in the lowest frequencies are
computed in bfloat16 where the processor has it, and again in 32 bits only where rounding could
hide one of the nearest. Images are compared wholly only where a few of their frequencies allow that
they are alike (`may_be_alike`). The first step still grows with the square of the number of images,
at some 7 s of a processor with bfloat16 for 100,000 images. Trees and other lower bounds do not
help: copies of photographs that are moved by two pixels agree by 0.5 only.

Letters in shapes: N images, D frequencies, B images of a block, G groups.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from handful.data.likeness import NEAR, SIZE, likeness_of_pairs, may_be_alike, reference
from handful.devices import has_bf16
from handful.progress import Track, quiet

__all__ = ["SIZE", "near_duplicates"]

ALIKE = 0.95  # least likeness of near-duplicates
PARTNERS = 4  # images nearest in the lowest frequencies that each image is compared with
FLAT = 4.0  # standard deviation in grey levels below which an image shows nothing to compare
BLOCK = 512  # images whose frequencies are compared with all others at a time
TILE = 2048  # images that they are compared with at a time: the results stay in the caches
GROUP = 32  # images of a tile of which only the highest agreement is kept
GROUPS = 32  # most groups of one image that are compared again
ROUNDING = {torch.bfloat16: 0.006, torch.float32: 1e-5}  # most that an agreement is off by
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
    if len(usable) < len(pictures):
        pictures = pictures[torch.from_numpy(usable)]
    partners = _nearest(frequencies, min(PARTNERS, len(usable) - 1), track)  # (N, partners)
    del frequencies
    best, partner = _most_alike(pictures, partners, track, between)
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
    """Positions (N, count) of the nearest others of the directions (N, D) of length 1.

    The nearest come first. Of each group only the highest agreement is kept, at first. An image is
    compared again with the groups that may hold one of its nearest, for all that rounding may do.
    """
    n = len(directions)
    places = torch.arange(-(-n // TILE) * TILE)  # the last image fills up
    grouped = directions[places.clamp_max(n - 1)].unflatten(0, (-1, GROUP))  # (G, GROUP, D)
    quick = grouped.to(torch.bfloat16 if has_bf16() else torch.float32)
    tiles = [tile.transpose(0, 1).flatten(0, 1) for tile in quick.split(TILE // GROUP)]
    flat = quick.flatten(0, 1)
    starts = range(0, n, BLOCK)
    found = []
    for start in track(starts, len(starts), "comparing"):
        own = torch.arange(start, min(start + BLOCK, n))
        highest = _highest(flat[own], tiles)
        highest[:, -(-n // GROUP) :] = -torch.inf
        values, groups = highest.topk(min(GROUPS, highest.shape[1]), dim=1)  # (B, groups)
        values = values.float()
        # One group more than others are wanted, since the image itself is in one.
        may = values >= values[:, count : count + 1] - 2 * ROUNDING[quick.dtype]
        nearest = _nearest_in_groups(grouped, n, own, groups, may, count)
        many = may[:, -1]  # groups beyond those may hold one, too
        nearest[many] = _nearest_of_all(directions, own[many], count)
        found.append(nearest)
    return torch.cat(found)


def _highest(block: Tensor, tiles: list[Tensor]) -> Tensor:
    """(B, G) highest agreement of each of the block (B, D) with the images of each group."""
    parts = [(block @ tile.T).unflatten(1, (GROUP, -1)).amax(1) for tile in tiles]
    return torch.cat(parts, 1)


def _nearest_in_groups(
    grouped: Tensor, n: int, own: Tensor, groups: Tensor, may: Tensor, count: int
) -> Tensor:
    """(B, count) the nearest of the images `own` (B,) among those `groups` (B, G) that `may`."""
    members = groups[..., None] * GROUP + torch.arange(GROUP)  # (B, G, GROUP)
    row, place = may.nonzero(as_tuple=True)
    asking = grouped.flatten(0, 1)[own[row], :, None]  # (pairs, D, 1)
    agree = torch.full(members.shape, -torch.inf)
    agree[row, place] = (grouped[groups[row, place]] @ asking)[..., 0]
    agree[(members == own[:, None, None]) | (members >= n)] = -torch.inf
    best = agree.flatten(1).topk(count, dim=1).indices
    return members.flatten(1).gather(1, best)


def _nearest_of_all(directions: Tensor, own: Tensor, count: int) -> Tensor:
    """(B, count) the nearest others of the images `own` (B,), compared with all."""
    found = [own.new_empty(0, count)]
    for some in own.split(max(1, AGREEMENTS // len(directions))):
        agree = directions[some] @ directions.T
        agree[torch.arange(len(some)), some] = -torch.inf
        found.append(agree.topk(count, dim=1).indices)
    return torch.cat(found)


def _most_alike(
    pictures: Tensor, partners: Tensor, track: Track, between: Callable[[], None]
) -> tuple[Tensor, Tensor]:
    """Likeness (N,) of each picture to that of its partners (N, count) most like it, and which.

    A likeness below ALIKE may be given as -1.
    """
    n, count = partners.shape
    first, second = torch.arange(n).repeat_interleave(count), partners.flatten()
    kept = may_be_alike(pictures, first, second, ALIKE, NEAR, between).nonzero()[:, 0]
    likeness = torch.full((n * count,), -1.0)
    parts = kept.split(BLOCK)
    for some in track(parts, len(parts), "comparing"):
        likeness[some] = likeness_of_pairs(pictures, first[some], second[some], NEAR)
        between()
    best, at = likeness.view(n, count).max(1)
    return best, partners.gather(1, at[:, None])[:, 0]
