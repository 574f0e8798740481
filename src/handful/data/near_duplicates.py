"""Find near-duplicates, images that look almost equal.

Each image is first compared with all others by its lowest frequencies: the 63 of its lowest 8 x 8
that are not its mean (as in "pHash" of phash.org, after Zauner 2010, "Implementation and
Benchmarking of Perceptual Image Hash Functions", but with their values, not their signs). The
images that come nearest are then compared as 32 x 32 grey images (`likeness`).

Letters in shapes: N images.
"""

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


def near_duplicates(pictures: Tensor, track: Track = quiet) -> list[tuple[int, int, float]]:
    """Pairs (first, second, likeness) of near-duplicates, the most similar first.

    Every picture is paired with the one that is most like it, so there are at most N pairs. A pair
    must also be much closer than images of this kind are (`reference`): pictures may resemble each
    other by nature, as digits do.

    Args:
        pictures: (N, 1, 32, 32) uint8.
    """
    frequencies, usable = _frequencies(pictures)
    if len(usable) < 2:
        return []
    pictures = pictures[torch.from_numpy(usable)]
    partners = _nearest(frequencies[usable], min(PARTNERS, len(usable) - 1), track)  # (N, partners)
    first = torch.arange(len(usable)).repeat_interleave(partners.shape[1])
    likeness = likeness_of_pairs(pictures, first, partners.flatten(), NEAR)
    best, at = likeness.view(partners.shape).max(1)
    partner = partners.gather(1, at[:, None])[:, 0]
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


def _frequencies(pictures: Tensor) -> tuple[Tensor, np.ndarray]:
    """Lowest frequencies (N, 63) of length 1, and the positions of the pictures that are not flat.

    Pictures of the same look but other brightness or contrast have the same frequencies.
    """
    from scipy.fft import dctn  # slow to import, and not needed to predict

    lowest = np.empty((len(pictures), 63), np.float32)
    spread = np.empty(len(pictures), np.float32)
    for start in range(0, len(pictures), BLOCK):
        block = pictures[start : start + BLOCK, 0].numpy().astype(np.float32)
        low = dctn(block, axes=(1, 2), norm="ortho")[:, :8, :8].reshape(len(block), 64)
        lowest[start : start + BLOCK] = low[:, 1:]
        spread[start : start + BLOCK] = block.std(axis=(1, 2))
    return F.normalize(torch.from_numpy(lowest)), np.flatnonzero(spread > FLAT)


def _nearest(directions: Tensor, count: int, track: Track) -> Tensor:
    """Positions (N, count) of the nearest others of the directions (N, D), the nearest first."""
    starts = range(0, len(directions), BLOCK)
    found = []
    for start in track(starts, len(starts), "comparing"):
        block = directions[start : start + BLOCK]
        agree = block @ directions.T
        agree[torch.arange(len(block)), start + torch.arange(len(block))] = -torch.inf
        found.append(agree.topk(count, dim=1).indices)
    return torch.cat(found)
