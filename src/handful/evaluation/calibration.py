"""Scale probabilities by a temperature, and find confidence thresholds for abstention.

A threshold is a promise about answers that nobody has checked: at least so many of them are right.
It is made so that at most one in ten sets of labels leads to a threshold whose answers are right
less often. The out-of-fold answers above the threshold are counted, and the share of wrong answers
is taken as high as their number allows at that confidence (Clopper and Pearson's bound).

Source: Geifman and El-Yaniv 2017, "Selective classification for deep neural networks",
arXiv:1705.08500; Angelopoulos et al. 2021, "Learn then Test", arXiv:2110.01052. Where we differ: a
short row of thresholds is tried without a correction for their number, and answers out of fold
depend on each other; that the promise holds is checked by simulation (`benchmarks run promises`).

Letters in shapes: n labelled images, K classes, R repeats.
"""

import math
from typing import NamedTuple

import numpy as np

from handful.errors import HandfulError
from handful.evaluation.cross_validation import OutOfFold

# Target accuracies for which every estimate looks for a confidence threshold.
TARGET_ACCURACIES = (0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)
HELD = 0.9  # share of label sets whose threshold keeps its promise
# n answers out of fold tell as much as INDEPENDENCE * n independent ones: the surest answers depend
# less on each other than all do. From development draws, see benchmarks/log/estimates.md.
INDEPENDENCE = 0.8
# Median of the temperatures that suit new images, and standard deviation of their logarithms. From
# development draws, see benchmarks/log/estimates.md.
USUAL_TEMPERATURE, LOG_SPREAD = 0.7, 0.35
STEP = 1.25  # each threshold that is tried answers so many times the images of the one before


class Abstention(NamedTuple):
    """A confidence threshold, and what is promised above it.

    The model answers only where its highest calibrated probability is `threshold` or more.
    """

    target_accuracy: float  # at least this share of the answers is right...
    threshold: float
    share: float  # of new images that the model is expected to answer
    accuracy: float  # of the answers, out of fold
    held: float | None = HELD  # ...for this share of label sets; None: saved by earlier versions

    def as_json(self) -> dict[str, float]:
        """The fields by name; `target_accuracy` is called "sure", as saved runs have it."""
        return {
            "sure" if key == "target_accuracy" else key: value
            for key, value in self._asdict().items()
        }


def temperature_of(out: OutOfFold, counted: np.ndarray | None = None) -> float:
    """The temperature of the saved model, from out-of-fold predictions; see `fit_temperature`.

    Predictions of models that saw no label of an image's class do not count: they give its label a
    probability of almost 0, and the saved model has seen one.

    Args:
        counted: (n,) bool; None: all labelled images.
    """
    kept = np.full(len(out.labels), True) if counted is None else counted
    seen = None if out.class_seen is None else out.class_seen[:, kept]
    return fit_temperature(out.probabilities[:, kept], out.labels[kept], seen)


def fit_temperature(
    probabilities: np.ndarray,
    labels: np.ndarray,
    counted: np.ndarray | None = None,
    spread: float = LOG_SPREAD,
) -> float:
    """The most probable temperature, between 0.1 and 10.

    Few labels tell little of it: where all are predicted rightly, the likelihood alone would have
    every confidence be 100 %. So it is multiplied with a prior, the log-normal distribution of the
    temperatures that fit on other images (USUAL_TEMPERATURE), which many labels outweigh.

    Args:
        probabilities: (R, n, K), out of fold.
        labels: (n,) class numbers.
        counted: (R, n) bool: the predictions to use; None: all.
        spread: of the prior; infinite: none.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2, for the likelihood.
    """
    used = np.full(probabilities.shape[:2], True) if counted is None else counted

    def loss(log_temperature: float) -> float:
        rows = calibrated(probabilities, math.exp(log_temperature))
        of_label = rows[:, np.arange(len(labels)), labels]  # (R, n)
        likely = np.log(np.maximum(of_label, 1e-12))[used].sum() / len(probabilities)
        unusual = (log_temperature - math.log(USUAL_TEMPERATURE)) / spread
        return unusual**2 / 2 - float(likely)

    from scipy.optimize import minimize_scalar  # slow to import, and not needed to predict

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
    probabilities: np.ndarray,
    labels: np.ndarray,
    target_accuracy: float = 0.95,
    weights: np.ndarray | None = None,
    independence: float = INDEPENDENCE,
) -> Abstention | None:
    """The lowest confidence threshold that is shown to reach `target_accuracy`, or None.

    The first threshold that is tried answers as few images as can show it, all of them rightly;
    each of the next ones answers STEP times as many, and the last one all. None where not one of
    them shows it, which is so where fewer than `fewest_labels` count.

    Args:
        probabilities: (R, n, K), calibrated, out of fold.
        labels: (n,) class numbers.
        target_accuracy: share of answers that should be right; HandfulError outside of (0, 1).
        weights: (n,) of the images among new ones; even by default.
        independence: share of the answers that tell as much when they are independent.
    """
    if not 0 < target_accuracy < 1:
        raise HandfulError(
            f"abstain is a probability between 0 and 1, got {target_accuracy}; try 0.95"
        )
    repeats, n, _ = probabilities.shape
    weights = np.full(n, 1 / n) if weights is None else weights / weights.sum()
    confidence = probabilities.max(axis=2).ravel()  # (R n,)
    wrong = (probabilities.argmax(axis=2) != labels).ravel()
    order = np.argsort(-confidence, kind="stable")
    ordered = np.tile(weights, repeats)[order]
    mass = np.cumsum(ordered)
    squared = np.cumsum(ordered**2)
    # So many independent answers tell as much: Kish's formula for uneven weights.
    answers = independence / repeats * mass**2 / np.maximum(squared, 1e-300)
    share_wrong = np.cumsum(ordered * wrong[order]) / np.maximum(mass, 1e-300)
    shown = most_wrong(share_wrong, answers) <= 1 - target_accuracy + 1e-12
    tried = _last_of_equals(_tried(answers, fewest_answers(target_accuracy)), confidence[order])
    passed = [at for at in tried if shown[at]]
    if not passed:
        return None
    last = passed[-1]
    return Abstention(
        target_accuracy=target_accuracy,
        threshold=float(confidence[order[last]]),
        share=min(round(float(mass[last]) / repeats, 9), 1.0),
        accuracy=1 - float(share_wrong[last]),
    )


def abstentions(
    probabilities: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray | None = None,
    independence: float = INDEPENDENCE,
) -> tuple[Abstention, ...]:
    """The `abstention` of each of TARGET_ACCURACIES that is shown to be reached."""
    found = (
        abstention(probabilities, labels, target, weights, independence)
        for target in TARGET_ACCURACIES
    )
    return tuple(row for row in found if row is not None)


def most_wrong(share: np.ndarray, answers: np.ndarray, held: float = HELD) -> np.ndarray:
    """Upper bounds of the share of wrong answers, from the share seen among independent answers.

    In a share `held` of samples the bound is at or above the true share (Clopper and Pearson 1934).
    """
    from scipy.special import betaincinv  # faster to import than scipy.stats

    wrong = share * answers
    bound = betaincinv(wrong + 1, np.maximum(answers - wrong, 1e-9), held)
    return np.where(answers - wrong > 1e-9, bound, 1.0)


def fewest_answers(target_accuracy: float, held: float = HELD) -> float:
    """How many independent answers show a target accuracy if every one of them is right."""
    return math.log(1 - held) / math.log(target_accuracy)


def fewest_labels(target_accuracy: float) -> int:
    """Labels below which no threshold can promise a target accuracy, however good the model is."""
    return math.ceil(fewest_answers(target_accuracy) / INDEPENDENCE)


def _last_of_equals(positions: list[int], confidence: np.ndarray) -> list[int]:
    """The last position of the same confidence as each of the positions, in falling (m,) order.

    A threshold answers all images of its confidence.
    """
    ends = np.searchsorted(-confidence, -confidence[positions], side="right") - 1
    return [int(end) for end in ends]


def _tried(answers: np.ndarray, fewest: float) -> list[int]:
    """Positions in the order of confidence whose thresholds are tried, the strictest first."""
    wanted = []
    while fewest * (1 - 1e-9) <= answers[-1]:
        wanted.append(fewest * (1 - 1e-9))
        fewest *= STEP
    found = np.searchsorted(np.maximum.accumulate(answers), wanted)
    return [*found.tolist(), len(answers) - 1] if wanted else []
