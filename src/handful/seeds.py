"""Derive all seeds of a run from the run's one seed.

A derived seed depends on the run's seed and on its purpose only, so that a draw for one purpose
never changes the draws for another. Three derivations are in use. They stay apart because saved
runs, checkpoints and published figures hold the numbers that each of them gives.

Dropout layers and the initial weights of layers draw from torch's one generator, which all threads
of a process share. Whatever draws from it does so within `seeded` or `own_turn`, so that fits in
several threads at once give the bits that each of them gives alone.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from threading import RLock

import numpy as np
import torch

_turn = RLock()


class Stream(IntEnum):
    """Purposes that draw from a NumPy generator of their own."""

    SUGGESTIONS = 8  # the order of the images that active learning chooses from
    NOVELTY = 9  # the split of a run's images into references and calibration
    POOL_SHIFT = 10  # the labelled images that are compared with the unlabelled pool


class Purpose(IntEnum):
    """Purposes beside the numbers of steps (0 and up), for `hashed`."""

    LABELED_ORDER = -1  # the order in which labelled images enter batches
    UNLABELED_ORDER = -2
    METHOD_STATE = -3  # the initial state that a method keeps between steps


DROPOUT = 1  # after the number of a step, for `hashed`: the step's dropout


def generator(seed: int, stream: Stream) -> np.random.Generator:
    """A generator for one purpose of the run with this seed."""
    return np.random.default_rng([seed, int(stream)])


def hashed(*numbers: int) -> int:
    """One 63-bit seed from several numbers, with no pattern between neighbours."""
    digest = hashlib.blake2b(repr(tuple(map(int, numbers))).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block torch's generator starts from `seed`, and no other fit draws from it.

    Afterwards it is as it was before. Other threads that reach such a block wait for their turn.
    """
    with own_turn(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def own_turn() -> Iterator[None]:
    """A block that may draw from torch's generator, which goes on where it is.

    Layers draw initial weights as they are made, even where other weights replace them. Without a
    turn of its own, that would change what another thread draws within `seeded`.
    """
    with _turn:
        yield


def of_fold(*numbers: int) -> int:
    """A 32-bit seed from the run's seed, the number of folds, the repeat and the fold."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
