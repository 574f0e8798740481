"""What two methods did on other data sets, and what that makes one believe of the next.

The rows are `experience.json`, made from our own results by benchmarks/experience.py.
"""

import json
import math
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from handful import methods
from handful.data.imageset import ImageSet

# Between data sets a difference of two methods varies, most where one of them starts from learned
# weights and the other from nothing: from 60 points below to 20 above. A guess that counts as one
# data set. What a single one showed is not experience yet.
_SPREAD, _SPREAD_APART = 0.1, 0.5
_GUESSED = 1
_LEAST_SOURCES = 2


class Normal(NamedTuple):
    """What is believed of a difference of accuracies."""

    mean: float
    sd: float

    def combined(self, other: "Normal") -> "Normal":
        """Both beliefs together, weighted by their precisions."""
        weight = other.sd**2 / (self.sd**2 + other.sd**2)
        sd = self.sd * other.sd / math.hypot(self.sd, other.sd)
        return Normal(weight * self.mean + (1 - weight) * other.mean, sd)


class Prior(NamedTuple):
    """A belief before any evidence, and how many data sets it rests on."""

    belief: Normal
    sources: int


def _frozen(method: str) -> bool:
    """Whether it fits a head on frozen features: what tells such methods apart does so anywhere."""
    return hasattr(methods.METHODS.get(method), "fit_features")


@cache
def experience() -> list[dict[str, Any]]:
    """Rows of source, channels, per_class, method and accuracy (see benchmarks/experience.py)."""
    rows: list[dict[str, Any]] = json.loads(
        files("handful.pipeline.auto").joinpath("experience.json").read_text()
    )
    return rows


def prior(
    method: str,
    reference: str,
    channels: int,
    per_class: float,
    without: str = "",
    rows: Sequence[dict[str, Any]] | None = None,
    pool_shifted: bool = False,
) -> Prior:
    """How much more accurate `method` is than `reference` on a new data set of that colour.

    Two methods on the same frozen features are compared whatever the colour, and where one of them
    uses unlabelled images, only on data sets whose unlabelled images are as these are.

    Of every data set the number of labels that is nearest counts: unlabelled images help where
    labels are very few, and stop helping where there are many. The mean over data sets is drawn
    to 0 as by one more in which they are equal, and the spread between them to a guess.

    Args:
        per_class: labels per class at hand, in the mean.
        without: the data set at hand: it may not vote.
        pool_shifted: whether the unlabelled images differ from the labelled ones in kind, see
            `novelty.pool_shift`.
    """
    both = [methods.about(name) for name in (method, reference)]
    any_colour = _frozen(method) and _frozen(reference)
    any_pool = not any(about.counterpart for about in both)
    accuracy: dict[tuple[str, int], dict[str, float]] = {}
    for row in experience() if rows is None else rows:
        alike = any_colour or row["channels"] == channels
        alike &= any_pool or row["mixed"] == pool_shifted
        if alike and row["source"] != without:
            cell = accuracy.setdefault((row["source"], row["per_class"]), {})
            cell[row["method"]] = row["accuracy"]
    found: dict[str, dict[float, list[float]]] = {}  # source → how far in labels → differences
    for (source, labels), cell in accuracy.items():
        if method in cell and reference in cell:
            far = round(abs(math.log(labels / per_class)), 6)
            at_distance = found.setdefault(source, {}).setdefault(far, [])
            at_distance.append(cell[method] - cell[reference])
    differences = np.array([np.mean(cells[min(cells)]) for cells in found.values()])
    if len(differences) < _LEAST_SOURCES:
        differences = differences[:0]
    k = len(differences)
    spread = _SPREAD if both[0].learned_weights == both[1].learned_weights else _SPREAD_APART
    mean = float(differences.sum() / (k + _GUESSED))
    apart = float(((differences - mean) ** 2).sum()) + _GUESSED * (spread**2 + mean**2)
    variance = apart / (k + _GUESSED)
    return Prior(Normal(mean, math.sqrt(variance * (1 + 1 / (k + _GUESSED)))), k)


def prior_for(images: ImageSet, pool_shifted: bool = False) -> Callable[[str, str], Prior]:
    """(method, reference) → `prior` for these images."""
    per_class = max(1.0, len(images.labeled) / len(images.classes))
    source, channels = Path(images.source).name, images.channels
    return lambda method, reference: prior(
        method, reference, channels, per_class, source, pool_shifted=pool_shifted
    )
