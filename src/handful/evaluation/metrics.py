"""Score predictions against true labels.

Letters in shapes: N images, K classes.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from handful.errors import HandfulError

BINS = 15  # of equal width over [0, 1], as in the paper's tables


class Interval(NamedTuple):
    """A confidence interval of a share in [0, 1]."""

    low: float
    high: float


class ClassRow(NamedTuple):
    """Scores of one class.

    `recall`, `f1` and the interval of the recall (`low`, `high`) are None where no image has the
    label; `precision` is None where no prediction names the class.
    """

    name: str
    n: int  # images with the label
    predicted: int  # images that are predicted to be of the class
    precision: float | None
    recall: float | None
    f1: float | None
    low: float | None
    high: float | None


class Bin(NamedTuple):
    """Predictions whose highest probability is in (low, high]; the means are None for n = 0."""

    low: float
    high: float
    n: int
    confidence: float | None  # mean highest probability
    accuracy: float | None  # share of right predictions


@dataclass(frozen=True)
class Foreign:
    """Images of classes that the classifier does not know: every prediction for them is wrong."""

    classes: dict[str, int]  # name → number of images
    n: int
    accuracy_counting_as_wrong: float  # over the known and the foreign images together
    low: float  # Wilson interval of that accuracy, at the level of the evaluation
    high: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of predictions for N images. Shares are in [0, 1]."""

    accuracy: float
    low: float  # Wilson interval of the accuracy, at `level`
    high: float
    level: float
    n: int
    balanced_accuracy: float  # mean recall over the classes that the labels contain
    macro_f1: float  # mean F1 over the classes that the labels contain
    calibration_error: float  # mean |confidence - accuracy| over the bins, weighted by images
    classes: tuple[str, ...]
    per_class: tuple[ClassRow, ...]
    reliability: tuple[Bin, ...]
    confusion: np.ndarray  # (K, K) counts: rows are labels, columns are guesses
    foreign: Foreign | None = None  # not counted in the other fields; None if there are none

    def __repr__(self) -> str:
        within = f"{100 * self.low:.1f} to {100 * self.high:.1f} %"
        left_out = f", {self.foreign.n} of other classes left out" if self.foreign else ""
        return (
            f"Evaluation of {self.n} images: {100 * self.accuracy:.1f} % right ({within}), "
            f"balanced {100 * self.balanced_accuracy:.1f} %{left_out}"
        )

    def as_json(self) -> dict[str, Any]:
        """The evaluation as plain numbers, lists and dicts."""
        return {
            **asdict(self),
            "classes": list(self.classes),
            "per_class": [row._asdict() for row in self.per_class],
            "reliability": [bin._asdict() for bin in self.reliability],
            "confusion": self.confusion.tolist(),
        }


def wilson(share: float, n: float, level: float) -> Interval:
    """Wilson's score interval for a share in [0, 1] of `n` independent images.

    `n` need not be whole: dependent images count as fewer independent ones.
    """
    from scipy.special import ndtri  # faster to import than scipy.stats

    z = ndtri((1 + level) / 2)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(max(float(centre - half), 0.0), min(float(centre + half), 1.0))


def accuracy_interval(correct: int, n: int, level: float = 0.9) -> Interval:
    """Wilson's interval for `correct` of `n` images: 18 of 20 at 0.95 is 0.699 to 0.972.

    SciPy's code, for whole numbers only. `wilson` differs from it by rounding only; both
    are kept, because saved evaluations hold the one and saved estimates the other.
    """
    if not 0 <= correct <= n or n == 0:
        raise ValueError(f"accuracy_interval needs 0 <= correct <= n and n >= 1, got {correct}/{n}")
    if not 0 < level < 1:
        raise HandfulError(f"level is a probability between 0 and 1, got {level}; the usual is 0.9")
    from scipy.stats import binomtest

    low, high = binomtest(int(correct), int(n)).proportion_ci(level, method="wilson")
    return Interval(float(low), float(high))


def evaluate(
    probabilities: ArrayLike, labels: ArrayLike, classes: tuple[str, ...], level: float = 0.9
) -> Evaluation:
    """Score probabilities (N, K) against labels (N,) of known classes.

    Raises HandfulError for N = 0 or a level outside of (0, 1), ValueError for wrong shapes, for
    rows that do not add up to 1 and for labels that are no class numbers.

    Source of the calibration error: arXiv:1706.04599, section 2, with 15 bins of equal width.
    """
    from sklearn.metrics import confusion_matrix  # slow to import, and not needed to predict

    probabilities, labels = _checked(probabilities, labels, classes)
    guesses = probabilities.argmax(axis=1)  # (N,)
    right = guesses == labels
    per_class = _per_class(guesses, labels, classes, level)
    present = [row for row in per_class if row.n]
    reliability = reliability_bins(probabilities.max(axis=1), right)
    low, high = accuracy_interval(int(right.sum()), len(labels), level)
    return Evaluation(
        accuracy=float(right.mean()),
        low=low,
        high=high,
        level=level,
        n=len(labels),
        balanced_accuracy=float(np.mean([row.recall for row in present])),
        macro_f1=float(np.mean([row.f1 for row in present])),
        calibration_error=calibration_error(reliability),
        classes=tuple(classes),
        per_class=per_class,
        reliability=reliability,
        confusion=confusion_matrix(labels, guesses, labels=range(len(classes))),
    )


def with_foreign(found: Evaluation, classes: dict[str, int]) -> Evaluation:
    """The evaluation with `foreign` set for images of other classes, given by name and number."""
    foreign = sum(classes.values())
    if not foreign:
        return found
    right, n = int(np.trace(found.confusion)), found.n + foreign
    low, high = accuracy_interval(right, n, found.level)
    return replace(found, foreign=Foreign(classes, foreign, right / n, low, high))


def reliability_bins(
    confidence: np.ndarray, right: np.ndarray, bins: int = BINS
) -> tuple[Bin, ...]:
    """Sort predictions into bins of equal width by confidence (N,); `right` (N,) says which hit."""
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)  # (low, high]
    rows = []
    for index in range(bins):
        inside = place == index
        n = int(inside.sum())
        rows.append(
            Bin(
                float(edges[index]),
                float(edges[index + 1]),
                n,
                float(confidence[inside].mean()) if n else None,
                float(right[inside].mean()) if n else None,
            )
        )
    return tuple(rows)


def equal_groups(confidence: np.ndarray, right: np.ndarray) -> tuple[Bin, ...]:
    """Sort predictions into at most BINS groups of about 20 by confidence (N,).

    Groups are smaller for small N, but hold 5 predictions or more where there are as many. Equal
    confidences stay in one group. `low` and `high` are the ends of the group's own confidences.
    Bins of equal width would hold nearly all predictions of a confident model in one bin.
    """
    order = np.argsort(confidence, kind="stable")
    ordered, hits = confidence[order], right[order]
    n = len(ordered)
    size = max(5, min(20, n // 4), -(-n // BINS))
    rows, start = [], 0
    while start < n:
        last = ordered[min(start + size, n) - 1]
        end = int(np.searchsorted(ordered, last, side="right"))
        if n - end < size / 2:
            end = n
        inside = slice(start, end)
        means = float(ordered[inside].mean()), float(hits[inside].mean())
        rows.append(Bin(float(ordered[start]), float(ordered[end - 1]), end - start, *means))
        start = end
    return tuple(rows)


def calibration_error(reliability: tuple[Bin, ...]) -> float:
    """Expected calibration error of the bins, in [0, 1]. Source: arXiv:1706.04599, equation 3."""
    total = sum(row.n for row in reliability)
    gaps = (
        row.n * abs(row.confidence - row.accuracy)
        for row in reliability
        if row.confidence is not None and row.accuracy is not None
    )
    return sum(gaps) / total


def _per_class(
    guesses: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], level: float
) -> tuple[ClassRow, ...]:
    from sklearn.metrics import precision_recall_fscore_support

    k = len(classes)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, guesses, labels=range(k), zero_division=0
    )
    predicted = np.bincount(guesses, minlength=k)
    hits = np.bincount(labels[guesses == labels], minlength=k)
    rows = []
    for index, name in enumerate(classes):
        n, named = int(support[index]), int(predicted[index])
        low, high = accuracy_interval(hits[index], n, level) if n else (None, None)
        rows.append(
            ClassRow(
                name=str(name),
                n=n,
                predicted=named,
                precision=float(precision[index]) if named else None,
                recall=float(recall[index]) if n else None,
                f1=float(f1[index]) if n else None,
                low=low,
                high=high,
            )
        )
    return tuple(rows)


def _checked(
    probabilities: ArrayLike, labels: ArrayLike, classes: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    probabilities = np.asarray(probabilities, dtype=np.float64)
    labels = np.asarray(labels)
    if labels.ndim != 1 or probabilities.shape != (len(labels), len(classes)):
        raise ValueError(
            f"evaluate needs probabilities (N, K) for N labels and K classes, got "
            f"{probabilities.shape} for {labels.shape} labels and {len(classes)} classes"
        )
    if len(labels) == 0:
        raise HandfulError("evaluate was given no labelled image; pass at least one")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(
            f"labels must be 0 to {len(classes) - 1}, got {labels.min()} to {labels.max()}; "
            f"leave images of unknown label out, for example with images[images.labeled]"
        )
    if not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3) or probabilities.min() < 0:
        raise ValueError("each row of probabilities must be non-negative and add up to 1")
    return probabilities, labels.astype(np.int64)
