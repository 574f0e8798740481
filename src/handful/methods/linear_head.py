"""A linear head on frozen features.

Multinomial logistic regression in the span of the labelled features, which loses nothing where
images are fewer than features. The L2 penalty is weak and fixed by default. Cross-validation can
choose it instead; on development draws that was no better on average, between one point worse and
one point better (benchmarks/log/transfer.md).
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.data.folds import stratified_folds
from handful.devices import one_thread
from handful.errors import HandfulError
from handful.methods.base import About
from handful.methods.heads import (
    SMALL,
    Coordinates,
    check_fit,
    fit_logistic,
    principal,
    standardized,
)

STRENGTHS = (0.1, 0.03, 0.01, 0.003, 0.001, 3e-4, 1e-4, 3e-5, 1e-5)  # from strong to weak
TEMPERATURES = torch.logspace(-2, 2, 21, base=4)


@dataclass(frozen=True)
class Features:
    """Multinomial logistic regression; the strength refers to features of mean squared length 1."""

    strength: float = 3e-4  # L2 penalty; 0: chosen by cross-validation
    folds: int = 5  # parts of the cross-validation; fewer where a class is rare
    standardize: bool = False  # scale each feature to standard deviation 1 first

    name: ClassVar[str] = "features"
    about: ClassVar[About] = About(
        "fits a linear head on the features of a frozen network",
        "Costs little beside the features of the labelled images, has hardly any setting to "
        "choose, and allows a thorough estimate. Hard to beat on photographs with few labels.",
        "The features do not adapt: where images are unlike photographs, or classes differ in "
        "details, more labels help it less than other methods. It ignores unlabelled images.",
        uses_unlabeled=False,
        learned_weights=True,
    )
    limit: ClassVar[int] = 0  # unlabelled images are not used

    def __post_init__(self) -> None:
        if self.strength < 0:
            raise HandfulError(f"strength is 0 (choose it) or more, got {self.strength}")
        if self.folds < 2:
            raise HandfulError(f"folds must be 2 or more, got {self.folds}")

    def fit_features(
        self, labeled: Tensor, labels: Tensor, unlabeled: Tensor, num_classes: int, seed: int
    ) -> nn.Linear:
        """The head fitted to (N, D) features and (N,) labels; unlabelled features are not used."""
        with one_thread(labeled.numel() < SMALL):
            coordinates, x, targets = self._problem(labeled, labels, num_classes)
            strength = self.strength or choose_strength(x, targets, self.folds, seed)
            return coordinates.head(*fit_logistic(x, targets, strength))

    def tuned(self, labeled: Tensor, labels: Tensor, num_classes: int, seed: int) -> "Features":
        """The method with the strength that `fit_features` would choose on these images.

        Folds of an estimate use it, since choosing in every fold takes many times as long.
        """
        if self.strength:
            return self
        with one_thread(labeled.numel() < SMALL):
            _, x, targets = self._problem(labeled, labels, num_classes)
            return replace(self, strength=choose_strength(x, targets, self.folds, seed))

    def _problem(
        self, labeled: Tensor, labels: Tensor, num_classes: int
    ) -> tuple[Coordinates, Tensor, Tensor]:
        """Coordinates of (N, D) features, and in float64 their (N, R) values and (N, K) targets."""
        check_fit(labeled, labels, num_classes)
        labeled = labeled.double()
        coordinates = standardized(labeled) if self.standardize else principal(labeled)
        return coordinates, coordinates.of(labeled), F.one_hot(labels, num_classes).double()


def choose_strength(x: Tensor, targets: Tensor, count: int, seed: int) -> float:
    """The one of STRENGTHS with the lowest out-of-fold cross-entropy over `count` folds.

    Each strength is evaluated at its best temperature; otherwise confidence would decide between
    strengths, not accuracy.

    Args:
        x: (N, R) coordinates; targets: (N, K), one-hot.
    """
    labels = targets.argmax(dim=1)
    fold = torch.from_numpy(stratified_folds(labels.numpy(), count, seed))
    logits = torch.empty(len(STRENGTHS), *targets.shape, dtype=x.dtype)  # (strengths, N, K)
    for held in fold.unique():
        inside, outside = fold != held, fold == held
        fitted = None
        for index, strength in enumerate(STRENGTHS):
            fitted = fit_logistic(x[inside], targets[inside], strength, start=fitted)
            logits[index, outside] = x[outside] @ fitted[0] + fitted[1]
    losses = torch.tensor(
        [min(F.cross_entropy(found / t, targets).item() for t in TEMPERATURES) for found in logits]
    )
    return STRENGTHS[int(losses.mul(100).round().argmin())]
