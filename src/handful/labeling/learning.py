"""What the page learns of the labels: a quick head, the order of the images, the estimate.

Pure functions of features and labels; `learner` calls them in threads.

Letters in shapes: M images with features, n labelled ones, D features, R coordinates, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from handful.errors import HandfulError
from handful.evaluation.accuracy_estimate import Estimate, estimate
from handful.evaluation.active_learning import RANK, doubt, herd
from handful.evaluation.calibration import abstention, averaged, calibrated
from handful.evaluation.cross_validation import THOROUGH, OutOfFold, Scheme, out_of_fold
from handful.evaluation.label_errors import label_issues
from handful.evaluation.learning_curve import forecast
from handful.methods.heads import Coordinates, fit_logistic, principal
from handful.methods.linear_head import Features
from handful.text import NO_FIGURE, about_right, withheld

STRENGTH = 1e-4  # L2 penalty of a head of more than FEW_LABELS labels
FEW_LABELS = 150  # labels up to which the head is that of the method `features`
MANY = 400  # labels above which the estimate is made in few coordinates and with fewer fits
HEAD_RANK = 256  # coordinates
SAMPLED = 1_000  # images that coordinates are made from
ITERATIONS = 40  # of a fit of the head to many labels
CANDIDATES = 1_500  # images that the order is chosen from
AHEAD = 24  # images that an order holds
NEXT = 50  # labels whose gain is forecast
FEW = Scheme(folds=5, repeats=2, halves=1)  # the fits of an estimate from many labels


@dataclass(frozen=True, eq=False)
class Head:
    """A linear classifier of features."""

    weight: Tensor  # (D, K)
    bias: Tensor  # (K,)

    def __call__(self, features: Tensor) -> Tensor:
        """(M, D) float16 features → (M, K) probabilities; in parts, which need little memory."""
        rows = [
            (some.float() @ self.weight + self.bias).softmax(dim=1)
            for some in features.split(4_096)
        ]
        return torch.cat(rows) if rows else torch.empty(0, len(self.bias))


def fit_head(
    features: Tensor, labels: Tensor, num_classes: int, coordinates: Coordinates | None = None
) -> Head:
    """The classifier of (n, D) features and (n,) labels of two classes or more.

    Up to FEW_LABELS labels, or without coordinates, it is that of the method `features`. Beyond, it
    is fitted in coordinates that are made once, in single precision: a part of a second for
    thousands of labels.
    """
    if coordinates is None or len(labels) <= FEW_LABELS:
        head = Features().fit_features(features, labels, features[:0], num_classes, 0)
        return Head(head.weight.detach().T.contiguous(), head.bias.detach())
    x, targets = coordinates.of(features), F.one_hot(labels, num_classes).float()
    weight, bias = fit_logistic(x, targets, STRENGTH, iterations=ITERATIONS)
    on_features = coordinates.basis @ weight
    return Head(on_features, bias - coordinates.mean @ on_features)


def map_of(features: Tensor) -> Coordinates:
    """Coordinates in which images are compared and heads fitted, from a sample of (M, D) features.

    The first RANK of them are those that images are compared in.
    """
    step = max(1, len(features) // SAMPLED)
    return principal(features[::step].float(), HEAD_RANK)


def choose(
    pool: Tensor, known: Tensor, probabilities: Tensor | None, coordinates: Coordinates, count: int
) -> list[int]:
    """Positions of the `count` images to label next, the most useful first, as `suggest` has it.

    Args:
        pool: (M, D) features of the images to choose from.
        known: (n, D) features of labelled images, and of those that will be.
        probabilities: (M, K) predictions, or None without a classifier.
    """
    if len(pool) < 2:
        return list(range(len(pool)))
    few = Coordinates(coordinates.mean, coordinates.basis[:, :RANK])
    x, seen = (F.normalize(few.of(some.float())) for some in (pool, known))
    weights = torch.ones(len(x)) if probabilities is None else doubt(probabilities)
    return herd(x, seen, weights, min(count, len(pool) - 1))


@dataclass(frozen=True, eq=False)
class Assessed:
    """The estimate from the labels so far, and what follows of it."""

    estimate: Estimate
    out: OutOfFold | None
    issues: tuple[int, ...]  # positions of labels that the predictions contradict
    next_accuracy: float | None = None  # expected with NEXT more labels
    temperature: float = 1.0

    def precision(self, classes: Sequence[str]) -> dict[str, float]:
        """Class → share of the guesses of this class that are right, on labels not seen.

        A class that is never guessed has 0.
        """
        if self.out is None:
            return {}
        guess = averaged(self.out, self.temperature).argmax(axis=1)
        shares = {}
        for k, name in enumerate(classes):
            mine = guess == k
            shares[name] = float((self.out.labels[mine] == k).mean()) if mine.any() else 0.0
        return shares

    def answering(self, target: float, origins: Sequence[str]) -> dict[str, float] | None:
        """The share of images that is answered where answers are to be right so often, or None."""
        if self.out is None or self.estimate.accuracy is None:
            return None
        counted = np.array([origin != "chosen" for origin in origins])
        shares = calibrated(self.out.probabilities[:, counted], self.temperature)
        found = abstention(shares, self.out.labels[counted], target)
        return None if found is None else {"share": found.share, "threshold": found.threshold}


def assess(
    features: Tensor,
    labels: np.ndarray,
    origins: Sequence[str],
    num_classes: int,
    groups: np.ndarray | None = None,
) -> Assessed:
    """Estimate how often a linear head fitted to these labels is right on new images.

    Only labels whose origin is not "chosen" count. Every label trains.

    Args:
        features: (n, D); labels: (n,) class numbers below `num_classes`, of two classes or more.
    """
    method, scheme = Features(), THOROUGH
    x = features.double()
    if len(labels) > MANY:
        x, scheme = principal(features.float(), HEAD_RANK).of(features).double(), FEW
    classes = torch.from_numpy(labels)

    def fit_and_predict(train: np.ndarray, held: np.ndarray, seed: int) -> np.ndarray:
        inside = classes[train]
        if len(inside.unique()) < 2:
            return F.one_hot(inside[:1], num_classes).double().expand(len(held), -1).numpy()
        head = method.fit_features(x[train], inside, x[:0], num_classes, seed)
        with torch.no_grad():
            return head(x[held].float()).softmax(dim=1).double().numpy()

    out = out_of_fold(labels, num_classes, fit_and_predict, scheme, groups=groups)
    found = estimate(out, origins=origins)
    more = forecast(found, out, times=((len(labels) + NEXT) / len(labels),))  # type: ignore[arg-type]
    if not np.isfinite(out.probabilities).all():
        raise HandfulError("a fold gave no prediction")
    return Assessed(
        found,
        out,
        tuple(issue.position for issue in label_issues(out) or ()),
        more[0].accuracy if more else None,
        found.temperature,
    )


def as_json(found: Assessed, origins: Sequence[str], target: float | None) -> dict[str, Any]:
    """What the page shows of an estimate."""
    one = found.estimate
    why = withheld(one.figures)
    known = why not in NO_FIGURE
    shown = {
        "labels": len(origins),
        "counted": one.n,
        "accuracy": one.accuracy,
        "low": one.low,
        "high": one.high,
        "level": one.level,
        "how": one.how,
        "few": why == "few",
        "known": known,
        "said": about_right(one.figures),
        "next": NEXT,
        "next_accuracy": found.next_accuracy if known else None,
        "issues": len(found.issues),
        "target": target,
        "answers": None,
    }
    if target is not None and known:
        answers = found.answering(target, origins)
        shown["answers"] = None if answers is None else answers["share"]
    return shown


__all__ = ["AHEAD", "CANDIDATES", "Assessed", "Head", "as_json", "assess", "averaged", "choose",
           "fit_head", "map_of"]  # fmt: skip
