"""A linear head on frozen features.

Multinomial logistic regression in the span of the labelled features (the dual view: with fewer
images than features nothing is lost). The L2 strength is weak and fixed. It can be chosen by the
labels instead, the one with the lowest cross-entropy out of fold: on development draws no better in
the mean, from a point worse to a point better (benchmarks/LOG.md).
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.data.folds import stratified_folds
from handful.errors import HandfulError
from handful.methods.base import About
from handful.methods.heads import Coordinates, check_fit, fit_logistic, principal, standardized

STRENGTHS = (0.1, 0.03, 0.01, 0.003, 0.001, 3e-4, 1e-4, 3e-5, 1e-5)  # tried from strong to weak
TEMPERATURES = torch.logspace(-2, 2, 21, base=4)


@dataclass(frozen=True)
class Features:
    """Hyper-parameters; the strength is in units of features of mean squared length 1."""

    strength: float = 3e-4  # of the L2 penalty; 0: chosen by cross-validation
    folds: int = 5  # parts of the cross-validation; fewer where a class is rare
    standardize: bool = False  # bring every feature to standard deviation 1 first

    name: ClassVar[str] = "features"
    about: ClassVar[About] = About(
        "fits a linear head on the features of a network that stays as it is",
        "Seconds rather than minutes once the features are computed, hardly any setting "
        "to get wrong, and a thorough estimate. Hard to beat on photographs with few "
        "labels.",
        "The features stay as they are: where images look unlike photographs, or classes "
        "differ in details, more labels help it less than others. It ignores unlabelled "
        "images.",
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
        coordinates, x, targets = self._problem(labeled, labels, num_classes)
        strength = self.strength or choose_strength(x, targets, self.folds, seed)
        return coordinates.head(*fit_logistic(x, targets, strength))

    def tuned(self, labeled: Tensor, labels: Tensor, num_classes: int, seed: int) -> "Features":
        """The same with the strength that `fit_features` would choose on these images.

        For fits on parts of them: choosing again in every fold of an estimate takes many times as
        long.
        """
        if self.strength:
            return self
        _, x, targets = self._problem(labeled, labels, num_classes)
        return replace(self, strength=choose_strength(x, targets, self.folds, seed))

    def _problem(
        self, labeled: Tensor, labels: Tensor, num_classes: int
    ) -> tuple[Coordinates, Tensor, Tensor]:
        """Coordinates, what (N, D) features are in them, and one-hot targets (N, K), float64."""
        check_fit(labeled, labels, num_classes)
        labeled = labeled.double()
        coordinates = standardized(labeled) if self.standardize else principal(labeled)
        return coordinates, coordinates.of(labeled), F.one_hot(labels, num_classes).double()


def choose_strength(x: Tensor, targets: Tensor, count: int, seed: int) -> float:
    """The one of STRENGTHS whose cross-entropy out of `count` folds is lowest.

    Each strength is judged at its best temperature: weak penalties are otherwise preferred for
    being sure of themselves, not for being right.

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
