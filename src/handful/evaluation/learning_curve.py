"""What more labels would bring: accuracy at twice and four times as many, with its interval.

The share of wrong answers is taken to fall as a power of the number of labels. How fast is seen
between fits on half the labels and on nine tenths of them, which is too close together to say much
about four times as many: so it is drawn towards what was measured on other image sets.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import norm

from handful.evaluation.accuracy_estimate import Estimate
from handful.evaluation.cross_validation import OutOfFold

TIMES = (2, 4)
# Wrong answers ~ labels ** -SLOPE: mean and spread over draws and sources, and the error of a slope
# seen in one draw. Measured on development draws, see benchmarks/log/learning_curves.md.
SLOPE, SPREAD, ERROR = 0.30, 0.12, 0.25
LEAST_WRONG = 0.005  # share of wrong answers that a logarithm is taken of, at least


@dataclass(frozen=True)
class Forecast:
    """Accuracy to expect of the same method on more labels that come about like those there are."""

    labels: int
    accuracy: float
    low: float
    high: float
    level: float


def forecast(found: Estimate, out: OutOfFold, times: Sequence[int] = TIMES) -> list[Forecast]:
    """What `times` as many labels would bring; nothing where no slope was seen.

    Methods that train a network have no fits on half the labels: for them nothing is said.

    Args:
        found: the estimate that was made from `out`.
    """
    if found.accuracy is None or found.out_of_fold is None or out.rough:
        return []
    assert found.low is not None and found.high is not None
    slope, error = learning_slope(found, out)
    z = float(norm.ppf((1 + found.level) / 2))
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
    """The power by which wrong answers fall with labels, and its standard error.

    The mean of what this draw shows and what other image sets showed, each weighted by how little
    it is in doubt.
    """
    assert found.out_of_fold is not None
    seen = math.log(out.share / out.half_share)
    gain = found.learning_curve * seen / max(math.log(1 / out.share), 1e-9)
    own = (_log_wrong(found.out_of_fold - gain) - _log_wrong(found.out_of_fold)) / max(seen, 1e-9)
    weight = SPREAD**2 / (SPREAD**2 + ERROR**2)
    return SLOPE + weight * (own - SLOPE), SPREAD * math.sqrt(1 - weight)


def _log_wrong(accuracy: float) -> float:
    return math.log(min(max(1 - accuracy, LEAST_WRONG), 1.0))
