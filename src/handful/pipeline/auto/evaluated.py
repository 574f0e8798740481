"""Candidates that `auto` evaluated, and those that it left."""

from collections.abc import MutableMapping
from typing import NamedTuple

import numpy as np

from handful.evaluation.cross_validation import Key, OutOfFold
from handful.methods.base import Task
from handful.pipeline.auto.candidates import Candidate
from handful.training.settings import Settings


class Evaluated(NamedTuple):
    """A candidate with its out-of-fold predictions."""

    candidate: Candidate
    settings: Settings
    task: Task
    out: OutOfFold
    saved_folds: MutableMapping[Key, np.ndarray]
    seconds: float  # of the evaluation
    members: tuple["Evaluated", ...] = ()  # of an ensemble: the head, then the trained network


class Left(NamedTuple):
    """A candidate that was not evaluated to its end, and why."""

    candidate: Candidate
    why: str
    seconds: float = 0.0
