"""Folds of the labelled images, and out-of-fold predictions for them.

A method is only known by a callable, so anything that fits and predicts can be judged.

Letters in shapes: n labelled images, K classes, R repeats.
"""

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import chi2

from handful import seeds
from handful.data.folds import estimate_folds
from handful.errors import HandfulError
from handful.progress import Track, quiet

# (positions to train on, positions held out, seed) -> (len(held out), K) probabilities.
FitAndPredict = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


class Key(NamedTuple):
    """Names one fit of an estimate: fold `fold` of `folds`, in repeat `repeat`."""

    folds: int
    repeat: int
    fold: int


class FoldFit(NamedTuple):
    """One fit of an estimate: train on some positions of the n labelled images, predict others."""

    key: Key
    train: np.ndarray
    held: np.ndarray
    seed: int


@dataclass(frozen=True)
class Scheme:
    """Which fits an estimate is made of: `repeats` times `folds`, and `halves` times two."""

    folds: int = 10  # fewer where classes were balanced by hand and have fewer labels each
    repeats: int = 3
    halves: int = 3  # fits on half the labels: they show how accuracy still rises with labels

    def __post_init__(self) -> None:
        if self.folds < 2 or self.repeats < 1 or self.halves < 0:
            raise HandfulError(
                f"an estimate needs folds >= 2, repeats >= 1 and halves >= 0, got folds="
                f"{self.folds}, repeats={self.repeats}, halves={self.halves}"
            )

    @property
    def rounds(self) -> list[tuple[int, int]]:
        """(folds, repeat) of every pass over the labelled images."""
        halves = [(2, self.repeats + repeat) for repeat in range(self.halves)]
        return [(self.folds, repeat) for repeat in range(self.repeats)] + halves

    @property
    def fits(self) -> int:
        return sum(folds for folds, _ in self.rounds)


THOROUGH = Scheme()


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Predictions for the labelled images by models that had not seen them."""

    labels: np.ndarray  # (n,)
    probabilities: np.ndarray  # (R, n, K)
    halves: np.ndarray  # (halves, n, K), by models that saw half the labels
    share: float  # of the n labels that the models of `probabilities` saw, mean
    half_share: float  # the same of `halves`: 1/2, or a little less
    scheme: Scheme
    stratified: bool
    groups: np.ndarray | None = None  # (n,)

    @property
    def rough(self) -> bool:
        """Whether no fit on half the labels shows how accuracy rises with them."""
        return not len(self.halves)

    @property
    def right(self) -> np.ndarray:
        """(n,) share of the repeats in which each image was predicted rightly."""
        hits: np.ndarray = self.probabilities.argmax(axis=2) == self.labels  # (R, n)
        return np.asarray(hits.mean(axis=0))


def plan_fits(
    labels: np.ndarray,
    scheme: Scheme = THOROUGH,
    seed: int = 0,
    groups: np.ndarray | None = None,
    stratified: bool | None = None,
) -> list[FoldFit]:
    """Every fit of an estimate, in the order they are best done.

    Folds are stratified only if the classes were balanced by hand, and then models are trained on
    the same share of every class. Anything else is off by points with few labels. If labels came
    as they came, stratified folds flatter: a class that is common among the labels by chance is
    then common in training and in the fold alike, while among new images it is not. If classes
    were balanced, a fold must not leave the class it tests rarer in training than the others.
    """
    labels = np.asarray(labels)
    if stratified is None:
        stratified = balanced_by_hand(labels)
    counts = np.bincount(labels)
    most = max(2, int(counts[counts > 0].min())) if stratified else len(labels)
    fits = []
    for folds, repeat in scheme.rounds:
        fold_of = estimate_folds(
            labels, min(folds, most), seeds.of_fold(seed, folds, repeat), groups, stratified
        )
        for fold in range(fold_of.max() + 1):
            own_seed = seeds.of_fold(seed, folds, repeat, fold)
            held = np.flatnonzero(fold_of == fold)
            train = np.flatnonzero(fold_of != fold)
            if stratified:
                train = _same_share(labels, train, own_seed)
            fits.append(FoldFit(Key(folds, repeat, fold), train, held, own_seed))
    return fits


def out_of_fold(
    labels: np.ndarray,
    num_classes: int,
    fit_and_predict: FitAndPredict,
    scheme: Scheme = THOROUGH,
    seed: int = 0,
    groups: np.ndarray | None = None,
    stratified: bool | None = None,
    finished: MutableMapping[Key, np.ndarray] | None = None,
    track: Track = quiet,
) -> OutOfFold:
    """Do the fits of `scheme` and collect what each predicts for the images it did not see.

    Args:
        labels: (n,) class numbers of the labelled images.
        fit_and_predict: gets positions among the n to train on, positions held out, and a seed;
            gives probabilities (held out, K). The held-out images must stay out of its unlabelled
            pool too.
        groups: (n,) images of one group are never split between folds.
        finished: fits found here are not done again, and new ones are put here as they finish:
            pass a mapping that is kept on disk to resume after a kill.
    """
    labels = np.asarray(labels)
    if stratified is None:
        stratified = balanced_by_hand(labels)
    finished = {} if finished is None else finished
    fits = plan_fits(labels, scheme, seed, groups, stratified)
    rows = {this: np.full((len(labels), num_classes), np.nan) for this in scheme.rounds}
    for fit in track(fits, len(fits), "estimating"):
        if fit.key not in finished:
            finished[fit.key] = np.asarray(fit_and_predict(fit.train, fit.held, fit.seed))
        probabilities = finished[fit.key]
        if probabilities.shape != (len(fit.held), num_classes):
            raise ValueError(
                f"fit {fit.key} must give probabilities ({len(fit.held)}, {num_classes}), "
                f"got {probabilities.shape}"
            )
        rows[fit.key.folds, fit.key.repeat][fit.held] = probabilities
    whole = [rows[this] for this in scheme.rounds[: scheme.repeats]]
    halves = [rows[this] for this in scheme.rounds[scheme.repeats :]]
    seen = [len(fit.train) / len(labels) for fit in fits if fit.key.repeat < scheme.repeats]
    seen_by_half = [
        len(fit.train) / len(labels) for fit in fits if fit.key.repeat >= scheme.repeats
    ]
    return OutOfFold(
        labels=labels,
        probabilities=np.stack(whole),
        halves=np.stack(halves) if halves else np.empty((0, *whole[0].shape)),
        share=float(np.mean(seen)),
        half_share=float(np.mean(seen_by_half)) if seen_by_half else 0.5,
        scheme=scheme,
        stratified=stratified,
        groups=groups,
    )


def balanced_by_hand(labels: np.ndarray) -> bool:
    """Whether the class counts are too even to have come about by picking images at random.

    Even classes have Pearson's statistic near 0; random picks exceed the bound used here 99 times
    in 100, even if all classes are equally common.
    """
    counts = np.bincount(labels)
    counts = counts[counts > 0]
    statistic = ((counts - counts.mean()) ** 2).sum() / counts.mean()
    return len(counts) > 1 and bool(statistic <= chi2.ppf(0.01, len(counts) - 1))


def _same_share(labels: np.ndarray, train: np.ndarray, seed: int) -> np.ndarray:
    """The positions `train` without the surplus of classes of which a larger share is in it.

    A class with no label in `train` (its only one is held out) is no measure for the others.
    """
    total = np.bincount(labels)
    inside = np.bincount(labels[train], minlength=len(total))
    share = (inside[inside > 0] / total[inside > 0]).min()
    wanted = np.ceil(share * total - 1e-9).astype(np.int64)
    shuffled = np.random.default_rng(seed).permutation(train)
    kept = [shuffled[labels[shuffled] == label][:most] for label, most in enumerate(wanted)]
    return np.sort(np.concatenate(kept))
