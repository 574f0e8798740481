"""Candidates that `auto` evaluated, and those that it left."""

from collections.abc import MutableMapping
from typing import NamedTuple

import numpy as np

from handful.evaluation.cross_validation import Key, OutOfFold
from handful.methods.base import Task
from handful.pipeline.auto.candidates import Candidate
from handful.training.settings import Settings


class Stack(NamedTuple):
    """What the labels show of the weights that were tried for an ensemble."""

    likely: np.ndarray  # (W, n) log-probability of the label of each image that counts, else 0
    right: np.ndarray  # (W, n) share of the repeats in which each image is predicted rightly

    def best(self, some: np.ndarray) -> int:
        """The number of the weight that makes the labels of some images most probable.

        Args:
            some: positions (m,) of images.
        """
        return int(self.likely[:, some].sum(axis=1).argmax())


class Evaluated(NamedTuple):
    """A candidate with its out-of-fold predictions."""

    candidate: Candidate
    settings: Settings
    task: Task
    out: OutOfFold
    saved_folds: MutableMapping[Key, np.ndarray]
    seconds: float  # of the evaluation
    members: tuple["Evaluated", ...] = ()  # of an ensemble: the head, then the trained networks
    stack: Stack | None = None  # of an ensemble


class Left(NamedTuple):
    """A candidate that was not evaluated to its end, and why."""

    candidate: Candidate
    why: str
    seconds: float = 0.0
