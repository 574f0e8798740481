"""Prior beliefs about the difference of two methods, from past results on other data sets.

The past results are `experience.json`, which `python -m benchmarks resources` makes from the
lines of our benchmarks.
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

# Assumed standard deviation, between data sets, of the difference of two methods. It is larger if
# one of them starts from pre-trained weights and the other from scratch: from -60 to +20 points.
_SPREAD, _SPREAD_OTHER_WEIGHTS = 0.1, 0.5
_PSEUDO_SOURCES = 1  # data sets that the assumption counts as
_MIN_SOURCES = 2  # data sets below which past results are not used


class Normal(NamedTuple):
    """A normal distribution of a difference of accuracies, in [-1, 1]."""

    mean: float
    sd: float

    def combined(self, other: "Normal") -> "Normal":
        """Return the product of both distributions: the precision-weighted mean."""
        weight = other.sd**2 / (self.sd**2 + other.sd**2)
        sd = self.sd * other.sd / math.hypot(self.sd, other.sd)
        return Normal(weight * self.mean + (1 - weight) * other.mean, sd)


class Prior(NamedTuple):
    """A belief before any label is seen, and the number of data sets behind it."""

    belief: Normal
    sources: int


def _on_frozen_features(method: str) -> bool:
    """Return whether the method fits a head on frozen features.

    The difference of two such methods carries over between grey and colour images.
    """
    return hasattr(methods.METHODS.get(method), "fit_features")


@cache
def load_past_results() -> list[dict[str, Any]]:
    """Return rows of source, channels, per_class, method, accuracy and mixed.

    `mixed` marks a source whose unlabelled images are unlike the labelled ones.
    """
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
    pool_shift: bool = False,
) -> Prior:
    """Return the belief about accuracy of `method` minus accuracy of `reference`.

    Only data sets with the same number of channels count, except for two methods on frozen
    features. If a method uses unlabelled images, only data sets with an equal `pool_shift` count.

    Of each data set the results with the nearest number of labels count, since unlabelled images
    help less with more labels. The mean is shrunk to 0 by `_PSEUDO_SOURCES` data sets of
    difference 0, the variance to the assumed one.

    Args:
        channels: 1 or 3.
        per_class: mean number of labels per class.
        without: name of the data set at hand, whose past results are left out.
        rows: past results; by default those of the package.
        pool_shift: whether the unlabelled images are unlike the labelled ones; see
            `novelty.pool_shift`.
    """
    both = [methods.about(name) for name in (method, reference)]
    any_colour = _on_frozen_features(method) and _on_frozen_features(reference)
    any_pool = not any(about.counterpart for about in both)
    accuracy: dict[tuple[str, int], dict[str, float]] = {}
    for row in load_past_results() if rows is None else rows:
        alike = any_colour or row["channels"] == channels
        alike &= any_pool or row["mixed"] == pool_shift
        if alike and row["source"] != without:
            cell = accuracy.setdefault((row["source"], row["per_class"]), {})
            cell[row["method"]] = row["accuracy"]
    # source → log-ratio of labels → differences
    by_source: dict[str, dict[float, list[float]]] = {}
    for (source, labels), cell in accuracy.items():
        if method in cell and reference in cell:
            distance = round(abs(math.log(labels / per_class)), 6)
            at_distance = by_source.setdefault(source, {}).setdefault(distance, [])
            at_distance.append(cell[method] - cell[reference])
    differences = np.array([np.mean(cells[min(cells)]) for cells in by_source.values()])
    if len(differences) < _MIN_SOURCES:
        differences = differences[:0]
    k = len(differences)
    prior_spread = (
        _SPREAD if both[0].learned_weights == both[1].learned_weights else _SPREAD_OTHER_WEIGHTS
    )
    mean = float(differences.sum() / (k + _PSEUDO_SOURCES))
    squares = float(((differences - mean) ** 2).sum()) + _PSEUDO_SOURCES * (
        prior_spread**2 + mean**2
    )
    variance = squares / (k + _PSEUDO_SOURCES)
    return Prior(Normal(mean, math.sqrt(variance * (1 + 1 / (k + _PSEUDO_SOURCES)))), k)


def prior_for(images: ImageSet, pool_shift: bool = False) -> Callable[[str, str], Prior]:
    """Return a function (method, reference) → `prior` for these images."""
    per_class = max(1.0, len(images.labeled) / len(images.classes))
    source, channels = Path(images.source).name, images.channels
    return lambda method, reference: prior(
        method, reference, channels, per_class, source, pool_shift=pool_shift
    )
