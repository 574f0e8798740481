"""Temperature scaling, and confidence thresholds below which not to answer.

Letters in shapes: n labelled images, K classes, R repeats.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from handful.errors import HandfulError
from handful.evaluation.cross_validation import OutOfFold

# How often answers are to be right, for the thresholds below which not to answer.
SURE = (0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)


class Abstention(NamedTuple):
    """Answer only where the highest calibrated probability is at least `threshold`."""

    sure: float
    threshold: float
    share: float  # of new images that are expected to be answered
    accuracy: float  # of the answers, out of fold


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that makes out-of-fold probabilities (R, n, K) most likely.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2. With few labels the most likely one
    can run away, so it is kept within a factor of ten of 1.
    """

    def loss(log_temperature: float) -> float:
        rows = calibrated(probabilities, math.exp(log_temperature))
        of_label = rows[:, np.arange(len(labels)), labels]
        return -float(np.log(np.maximum(of_label, 1e-12)).mean())

    found = minimize_scalar(loss, bounds=(-math.log(10), math.log(10)), method="bounded")
    return float(math.exp(found.x))


def calibrated(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (..., K) at another temperature: above 1 they are evened out."""
    logits = np.log(np.maximum(probabilities, 1e-12)) / temperature
    rows = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(rows / rows.sum(axis=-1, keepdims=True))


def averaged(out: OutOfFold, temperature: float) -> np.ndarray:
    """(n, K) out-of-fold probabilities at a temperature, averaged over the repeats."""
    return np.asarray(calibrated(out.probabilities, temperature).mean(axis=0))


def abstention(
    probabilities: np.ndarray, labels: np.ndarray, sure: float = 0.95
) -> Abstention | None:
    """The lowest threshold above which answers are right often enough, from (R, n, K) out of fold.

    One wrong answer more than was seen is counted, so that a threshold is not kept by luck; None
    where even the surest predictions do not reach `sure`, or are too few to tell.
    """
    if not 0 < sure < 1:
        raise HandfulError(f"abstain is a probability between 0 and 1, got {sure}; try 0.95")
    repeats, n, _ = probabilities.shape
    confidence = probabilities.max(axis=2).ravel()  # (R n,)
    wrong = (probabilities.argmax(axis=2) != labels).ravel()
    order = np.argsort(-confidence, kind="stable")
    answered = np.arange(1, len(order) + 1) / repeats  # images, as each is seen R times
    errors = np.cumsum(wrong[order]) / repeats
    kept = np.flatnonzero((errors + 1) / (answered + 1) <= 1 - sure)
    if not len(kept):
        return None
    last = int(kept[-1])
    return Abstention(
        sure=sure,
        threshold=float(confidence[order[last]]),
        share=float(answered[last]) / n,
        accuracy=1 - float(errors[last] / answered[last]),
    )


def abstentions(probabilities: np.ndarray, labels: np.ndarray) -> tuple[Abstention, ...]:
    found = (abstention(probabilities, labels, sure) for sure in SURE)
    return tuple(row for row in found if row is not None)
