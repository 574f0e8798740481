"""Find near-duplicates, images that look almost equal, by a perceptual hash.

The hash has 64 bits: which of the image's lowest 8 x 8 frequencies lie above their median (the
"pHash" of phash.org, after Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash
Functions"). Pairs with similar hashes are then compared as 32 x 32 grey images.

Letters in shapes: N images.
"""

import numpy as np
import torch
from scipy.fft import dctn
from torch import Tensor

from handful.progress import Track, quiet

SIZE = 32  # pixels; images are compared at this size, stretched and grey
BITS_APART = 8  # of 64 bits; hashes that differ in more are no near-duplicates
ALIKE = 0.95  # least correlation of the grey images; 40 of 40 such pairs of CIFAR-10 were right
CLOSER = 6.0  # 1 - correlation must be this many times less than that of the median pair
FLAT = 4.0  # standard deviation in grey levels below which the hash is meaningless
BLOCK = 4096  # images compared at a time


def near_duplicates(pictures: Tensor, track: Track = quiet) -> list[tuple[int, int, float]]:
    """Pairs (first, second, correlation) of near-duplicates, the most similar first.

    Every picture is compared with the one whose hash is nearest, so there are at most N pairs.
    Pictures that resemble each other by nature, such as digits, must be more similar than the
    median pair (CLOSER).

    Args:
        pictures: (N, 1, 32, 32) uint8.
    """
    signs, usable = _signs(pictures)
    if len(usable) < 2:
        return []
    kept = torch.from_numpy(usable)
    agreement, partner = _nearest(signs[kept], track)
    first, second = kept, kept[partner]
    likeness = _correlation(pictures, first, second)
    alike = max(ALIKE, 1 - (1 - float(likeness.median())) / CLOSER)
    close = (likeness >= alike) & (agreement >= 64 - 2 * BITS_APART)
    found = {
        (min(one, two), max(one, two)): float(correlation)
        for one, two, correlation in zip(
            first[close].tolist(), second[close].tolist(), likeness[close], strict=True
        )
    }
    return sorted(((*pair, found[pair]) for pair in found), key=lambda pair: -pair[2])


def _signs(pictures: Tensor) -> tuple[Tensor, np.ndarray]:
    """Hash bits (N, 64) as +1 and -1, and the positions of the pictures that are not flat."""
    signs = np.empty((len(pictures), 64), np.float32)
    spread = np.empty(len(pictures), np.float32)
    for start in range(0, len(pictures), BLOCK):
        block = pictures[start : start + BLOCK, 0].numpy().astype(np.float32)
        low = dctn(block, axes=(1, 2), norm="ortho")[:, :8, :8].reshape(len(block), 64)
        middle = np.median(low[:, 1:], axis=1, keepdims=True)  # without the mean brightness
        signs[start : start + BLOCK] = np.where(low > middle, 1, -1)
        spread[start : start + BLOCK] = block.std(axis=(1, 2))
    return torch.from_numpy(signs), np.flatnonzero(spread > FLAT)


def _nearest(signs: Tensor, track: Track) -> tuple[Tensor, Tensor]:
    """Agreement (N,) with the nearest other hash, 64 - 2 * bits apart, and its position (N,)."""
    agreement = torch.full((len(signs),), -65.0)
    partner = torch.zeros(len(signs), dtype=torch.int64)
    starts = range(0, len(signs), BLOCK)
    for start in track(starts, len(starts), "comparing"):
        rows = slice(start, start + BLOCK)
        for other in range(start, len(signs), BLOCK):
            columns = slice(other, other + BLOCK)
            agree = signs[rows] @ signs[columns].T
            if other == start:
                agree.fill_diagonal_(-64)
            _improve(agreement[rows], partner[rows], agree, other)
            if other != start:
                _improve(agreement[columns], partner[columns], agree.T, start)
    return agreement, partner


def _improve(agreement: Tensor, partner: Tensor, agree: Tensor, offset: int) -> None:
    """Update `agreement` and `partner` in place from a block `agree` of comparisons.

    Computing maxima first is ten times as fast as argmax.
    """
    better = (agree.amax(1) > agreement).nonzero()[:, 0]
    best, at = agree[better].max(1)
    agreement[better] = best
    partner[better] = at + offset


def _correlation(pictures: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Correlation (pairs,) of the grey levels of the pictures at `first` and `second`."""
    likeness = []
    for start in range(0, len(first), BLOCK):
        ends = (first[start : start + BLOCK], second[start : start + BLOCK])
        one, two = (pictures[end].flatten(1).float() for end in ends)
        one, two = (each - each.mean(1, keepdim=True) for each in (one, two))
        likeness.append(torch.cosine_similarity(one, two))
    return torch.cat(likeness) if likeness else torch.empty(0)
