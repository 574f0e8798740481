"""Number images by their pixels, so that equal numbers are equal pixels.

Letters in shapes: N images, T images of their test part.
"""

import numpy as np

from handful.data.imageset import ImageSet
from handful.data.store import FileStore


def pixel_numbers(images: ImageSet, *, blank_alone: bool = False) -> np.ndarray:
    """(N + T,) numbers of the images, then of `images.test`: 0, 1, … as pixels first appear.

    Args:
        blank_alone: a blank image is no copy of another, and has a number of its own.
    """
    parts = [images] if images.test is None else [images, images.test]
    return numbered(np.concatenate([_keys(part, blank_alone) for part in parts]))


def _keys(images: ImageSet, blank_alone: bool) -> np.ndarray:
    """(N, 24) uint8: the fingerprint, and for a blank image its row."""
    store, rows = images.store, images.rows
    own = np.zeros((len(rows), 1), np.int64)
    if blank_alone and isinstance(store, FileStore):
        own[:, 0] = np.where(store.blank[rows], rows + 1, 0)
    return np.concatenate([store.fingerprints[rows], own.view(np.uint8)], axis=1)


def numbered(keys: np.ndarray) -> np.ndarray:
    """(N,) int64: equal for equal keys (N, 8 k) uint8; 0, 1, … as they first appear."""
    words = np.ascontiguousarray(keys).view(np.uint64)
    order = np.lexsort(words.T)  # stable: of equal keys the first comes first
    ordered = words[order]
    new = np.append(True, (ordered[1:] != ordered[:-1]).any(1))[: len(keys)]
    appears = np.argsort(np.argsort(order[new]))
    number = np.empty(len(keys), np.int64)
    number[order] = appears[np.cumsum(new) - 1]
    return number
