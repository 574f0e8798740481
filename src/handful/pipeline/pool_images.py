"""Know the unlabelled images again whose answers have a temperature of their own.

They are known by their pixels, since files may be moved and named anew. See `pool_answers`.

Letters in shapes: N images, M images of the pool.
"""

from pathlib import Path

import numpy as np
import torch

from handful.data.imageset import ImageSet
from handful.errors import HandfulError
from handful.files import read_tensors, write_tensors
from handful.pipeline.artifacts import POOL

MOST = 20_000  # images of a small pool, at most
BYTES = 16  # of a fingerprint


def save_pool(images: ImageSet, folder: Path) -> None:
    """Write the fingerprints (M, 16) of the pixels of these images."""
    write_tensors(folder / POOL, {"pixels": torch.from_numpy(_fingerprints(images))})


def in_pool(images: ImageSet, folder: Path) -> np.ndarray:
    """(N,) whether an image has the pixels of one of the pool; False where none was saved.

    HandfulError if the file is damaged.
    """
    path = folder / POOL
    if not path.exists():
        return np.zeros(len(images), bool)
    tensors, _ = read_tensors(path, lambda shapes, _: _check(shapes, path))
    if tensors["pixels"].dtype != torch.uint8:
        raise _not_ours(path)
    known = {row.tobytes() for row in tensors["pixels"].numpy()}
    return np.array([row.tobytes() in known for row in _fingerprints(images)], bool)


def _fingerprints(images: ImageSet) -> np.ndarray:
    return np.ascontiguousarray(images.store.fingerprints[images.rows])


def _check(shapes: dict[str, tuple[int, ...]], path: Path) -> None:
    shape = shapes.get("pixels", ())
    if set(shapes) != {"pixels"} or shape[1:] != (BYTES,) or shape[0] > MOST:
        raise _not_ours(path)


def _not_ours(path: Path) -> HandfulError:
    return HandfulError(f"{path} was not written by handful; restore it or fit again")
