"""Forecast accuracy with twice and four times as many labels, with an interval.

The share of wrong answers is taken to fall as a power of the number of labels. The power is
measured between fits on half the labels and on nine tenths of them. These are too close together
for a precise slope, so the measured power is shrunk towards the mean of other image sets.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from handful.evaluation.accuracy_estimate import Estimate
from handful.evaluation.cross_validation import OutOfFold
from handful.text import NO_FIGURE, withheld

TIMES = (2, 4)  # factors on the number of labels
# Wrong answers ~ labels ** -SLOPE: the mean and the standard deviation of the slope over draws and
# sources, and the standard error of a slope from one draw. Measured on development draws, see
# benchmarks/log/learning_curves.md.
SLOPE, SPREAD, ERROR = 0.30, 0.12, 0.25
LEAST_WRONG = 0.005  # lower bound of the share of wrong answers before its logarithm is taken


@dataclass(frozen=True)
class Forecast:
    """Expected accuracy of the method on more labels, which come about as the present ones did."""

    labels: int  # number of labels
    accuracy: float
    low: float
    high: float
    level: float


def forecast(found: Estimate, out: OutOfFold, times: Sequence[int] = TIMES) -> list[Forecast]:
    """Forecast the accuracy with `times` as many labels; empty where no slope was measured.

    Methods that train a network have no fits on half the labels, so they have no forecast. Nor has
    an estimate whose figure is not said (`withheld`): few labels show no slope, and a model that is
    not shown to be better than guessing has shown nothing that more labels could make better.

    Args:
        found: the estimate that was made from `out`.
        times: factors on the number of labels.
    """
    if withheld(found.figures) in NO_FIGURE or found.out_of_fold is None or out.extrapolated:
        return []
    assert found.accuracy is not None and found.low is not None and found.high is not None
    from scipy.special import ndtri  # faster to import than scipy.stats

    slope, error = learning_slope(found, out)
    z = float(ndtri((1 + found.level) / 2))
    wrong, most, least = (_log_wrong(share) for share in (found.accuracy, found.low, found.high))
    rows = []
    for factor in times:
        fall = slope * math.log(factor)
        doubt = z * error * math.log(factor)
        middle, high, low = (
            1 - math.exp(min(wrong - fall + side, 0.0))
            for side in (0.0, -math.hypot(least - wrong, doubt), math.hypot(most - wrong, doubt))
        )
        rows.append(Forecast(factor * len(out.labels), middle, low, high, found.level))
    return rows


def learning_slope(found: Estimate, out: OutOfFold) -> tuple[float, float]:
    """The power by which wrong answers fall with labels, 0 or more, and its standard error.

    The power is the mean of this draw's slope and SLOPE, weighted by their inverse variances. More
    labels are not expected to make a model worse, whatever chance showed.
    """
    assert found.out_of_fold is not None
    seen = math.log(out.share / out.half_share)
    gain = found.learning_curve * seen / max(math.log(1 / out.share), 1e-9)
    own = (_log_wrong(found.out_of_fold - gain) - _log_wrong(found.out_of_fold)) / max(seen, 1e-9)
    weight = SPREAD**2 / (SPREAD**2 + ERROR**2)
    return max(SLOPE + weight * (own - SLOPE), 0.0), SPREAD * math.sqrt(1 - weight)


def _log_wrong(accuracy: float) -> float:
    return math.log(min(max(1 - accuracy, LEAST_WRONG), 1.0))
