"""Scale probabilities by a temperature, and find confidence thresholds for abstention.

Letters in shapes: n labelled images, K classes, R repeats.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from handful.errors import HandfulError
from handful.evaluation.cross_validation import OutOfFold

# Target accuracies for which every estimate looks for a confidence threshold.
TARGET_ACCURACIES = (0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)


class Abstention(NamedTuple):
    """A confidence threshold, and what to expect above it.

    The model answers only where its highest calibrated probability is `threshold` or more.
    """

    target_accuracy: float  # the share of answers that should be right
    threshold: float
    share: float  # of new images that the model is expected to answer
    accuracy: float  # of the answers, out of fold

    def as_json(self) -> dict[str, float]:
        """The fields by name; `target_accuracy` is called "sure", as saved runs have it."""
        return {
            "sure" if key == "target_accuracy" else key: value
            for key, value in self._asdict().items()
        }


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature under which the labels are most likely, between 0.1 and 10.

    With few labels the most likely temperature can be extreme: hence the bounds.

    Args:
        probabilities: (R, n, K), out of fold.
        labels: (n,) class numbers.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """

    def loss(log_temperature: float) -> float:
        rows = calibrated(probabilities, math.exp(log_temperature))
        of_label = rows[:, np.arange(len(labels)), labels]
        return -float(np.log(np.maximum(of_label, 1e-12)).mean())

    found = minimize_scalar(loss, bounds=(-math.log(10), math.log(10)), method="bounded")
    return float(math.exp(found.x))


def calibrated(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (..., K) at another temperature: above 1 they become more even."""
    logits = np.log(np.maximum(probabilities, 1e-12)) / temperature
    rows = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(rows / rows.sum(axis=-1, keepdims=True))


def averaged(out: OutOfFold, temperature: float) -> np.ndarray:
    """(n, K) out-of-fold probabilities at a temperature, averaged over the repeats."""
    return np.asarray(calibrated(out.probabilities, temperature).mean(axis=0))


def abstention(
    probabilities: np.ndarray, labels: np.ndarray, target_accuracy: float = 0.95
) -> Abstention | None:
    """The lowest confidence threshold whose answers reach `target_accuracy`, or None.

    One wrong answer is added to those counted, so that no threshold passes by luck. None where even
    the most confident predictions do not reach the target, or are too few to show it.

    Args:
        probabilities: (R, n, K), calibrated, out of fold.
        labels: (n,) class numbers.
        target_accuracy: share of answers that should be right; HandfulError outside of (0, 1).
    """
    if not 0 < target_accuracy < 1:
        raise HandfulError(
            f"abstain is a probability between 0 and 1, got {target_accuracy}; try 0.95"
        )
    repeats, n, _ = probabilities.shape
    confidence = probabilities.max(axis=2).ravel()  # (R n,)
    wrong = (probabilities.argmax(axis=2) != labels).ravel()
    order = np.argsort(-confidence, kind="stable")
    answered = np.arange(1, len(order) + 1) / repeats  # images, as each is seen R times
    errors = np.cumsum(wrong[order]) / repeats
    kept = np.flatnonzero((errors + 1) / (answered + 1) <= 1 - target_accuracy)
    if not len(kept):
        return None
    last = int(kept[-1])
    return Abstention(
        target_accuracy=target_accuracy,
        threshold=float(confidence[order[last]]),
        share=float(answered[last]) / n,
        accuracy=1 - float(errors[last] / answered[last]),
    )


def abstentions(probabilities: np.ndarray, labels: np.ndarray) -> tuple[Abstention, ...]:
    """The `abstention` of each of TARGET_ACCURACIES that can be reached."""
    found = (abstention(probabilities, labels, target) for target in TARGET_ACCURACIES)
    return tuple(row for row in found if row is not None)
