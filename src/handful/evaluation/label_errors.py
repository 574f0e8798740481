"""Find labels that the out-of-fold predictions contradict."""

from typing import NamedTuple

import numpy as np

from handful.evaluation.calibration import averaged, temperature_of
from handful.evaluation.cross_validation import OutOfFold

# How many times as likely another class must be for a label to be listed; see
# benchmarks/log/estimates.md.
CONTRADICTED = 20
# Labels per class in the mean, and share right out of fold, below which a list is mostly of right
# labels: on development draws with 5 % of the labels flipped its precision is 0.23 to 0.33 with 4
# labels per class, and 0.47 with 10 where 60 % are right.
FEWEST_PER_CLASS, LEAST_RIGHT = 10, 0.7


class LabelIssue(NamedTuple):
    """A labelled image whose label the out-of-fold predictions contradict."""

    position: int  # among the n labelled images
    label: int  # class number
    guess: int  # the likeliest class
    label_probability: float
    guess_probability: float


def label_issues(out: OutOfFold, times: float = CONTRADICTED) -> list[LabelIssue] | None:
    """Labelled images whose likeliest class is `times` as likely as their label, worst first.

    None where most of a list would be right labels: see FEWEST_PER_CLASS and LEAST_RIGHT.

    Probabilities are calibrated out-of-fold predictions, averaged over the repeats. With few labels
    this rule finds more flipped labels in a shorter list than the confident joint of
    arXiv:1911.00068, whose threshold for a class is the mean of a few uncertain predictions.
    """
    classes = out.probabilities.shape[2]
    if len(out.labels) < FEWEST_PER_CLASS * classes or out.right.mean() < LEAST_RIGHT:
        return None
    temperature = temperature_of(out)
    probabilities = averaged(out, temperature)
    of_label = probabilities[np.arange(len(out.labels)), out.labels]
    of_guess = probabilities.max(axis=1)
    # No model that could know the class has predicted the only label of a class.
    seen = np.full(len(of_guess), True) if out.class_seen is None else out.class_seen.any(axis=0)
    issues = [
        LabelIssue(
            position=int(position),
            label=int(out.labels[position]),
            guess=int(probabilities[position].argmax()),
            label_probability=float(of_label[position]),
            guess_probability=float(of_guess[position]),
        )
        for position in np.flatnonzero(seen & (of_guess >= times * of_label))
    ]
    return sorted(issues, key=lambda issue: issue.label_probability / issue.guess_probability)
