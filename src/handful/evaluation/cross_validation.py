"""Cross-validate on the labelled images and collect out-of-fold predictions.

A method is known only as a callable, so anything that fits and predicts can be cross-validated.

Letters in shapes: n labelled images, K classes, R repeats.
"""

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from handful import seeds
from handful.data.folds import estimate_folds
from handful.errors import HandfulError
from handful.methods.class_shares import even_counts
from handful.progress import Track, quiet

# (positions to train on, positions held out, seed) -> (len(held out), K) probabilities.
FitAndPredict = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


class Key(NamedTuple):
    """Identifies one fit of an estimate: fold `fold` of `folds`, in repeat `repeat`."""

    folds: int
    repeat: int
    fold: int


class FoldFit(NamedTuple):
    """One fit of an estimate: positions among the n labelled images to train on and to predict."""

    key: Key
    train: np.ndarray  # positions to train on
    held: np.ndarray  # positions held out, to predict
    seed: int


@dataclass(frozen=True)
class Scheme:
    """The fits of an estimate: `repeats` times `folds` fits, and `halves` times two fits."""

    folds: int = 10  # fewer where classes were balanced by hand and have fewer labels each
    repeats: int = 3
    halves: int = 3  # repeats on half the labels, which measure the learning curve

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
        """The number of fits."""
        return sum(folds for folds, _ in self.rounds)


THOROUGH = Scheme()


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Predictions for the labelled images by models that had not seen them."""

    labels: np.ndarray  # (n,)
    probabilities: np.ndarray  # (R, n, K)
    halves: np.ndarray  # (halves, n, K), by models that saw half the labels
    share: float  # of the n labels that the models of `probabilities` saw, mean
    half_share: float  # of the n labels that the models of `halves` saw, mean: at most 1/2
    scheme: Scheme
    stratified: bool
    groups: np.ndarray | None = None  # (n,)
    # (R, n) whether the models of `probabilities` saw a label of the image's class; None: always
    class_seen: np.ndarray | None = None

    @property
    def extrapolated(self) -> bool:
        """Whether the learning curve must be extrapolated: no fits on half the labels show it."""
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
    """Every fit of an estimate, in the order in which to do them.

    Folds are stratified only if the classes were balanced by hand; then each model is trained on an
    equal share of every class. With few labels, other rules are wrong by percentage points. Where
    the images were picked at random, stratified folds are optimistic: a class that is common among
    the labels by chance is common in training and in the held-out fold, but not among new images.
    Where classes were balanced, the held-out class must not be rarer in training than the others.

    Args:
        labels: (n,) class numbers.
        groups: (n,) images of one group are never split between folds.
        stratified: whether classes were balanced by hand; None decides by `balanced_by_hand`.
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
    finished: MutableMapping[Key, np.ndarray] | None = None,
    track: Track = quiet,
    stratified: bool | None = None,
) -> OutOfFold:
    """Do the fits of `scheme` and collect the predictions for the images that each held out.

    Args:
        labels: (n,) class numbers of the labelled images.
        fit_and_predict: takes positions among the n to train on, positions held out, and a seed;
            returns probabilities (held out, K). It must keep the held-out images out of its
            unlabelled pool too.
        groups: (n,) images of one group are never split between folds.
        finished: predictions by fit. Fits found here are not done again, and new ones are added as
            they finish: a mapping that is kept on disk lets a killed estimate resume.
        stratified: whether classes were balanced by hand; None decides by `balanced_by_hand`.
    """
    labels = np.asarray(labels)
    if stratified is None:
        stratified = balanced_by_hand(labels)
    finished = {} if finished is None else finished
    fits = plan_fits(labels, scheme, seed, groups, stratified)
    rows = {this: np.full((len(labels), num_classes), np.nan) for this in scheme.rounds}
    class_seen = {this: np.zeros(len(labels), bool) for this in scheme.rounds}
    for fit in track(fits, len(fits), "estimating"):
        if fit.key not in finished:
            finished[fit.key] = np.asarray(fit_and_predict(fit.train, fit.held, fit.seed))
        probabilities = finished[fit.key]
        if probabilities.shape != (len(fit.held), num_classes):
            raise ValueError(
                f"fit {fit.key} must give probabilities ({len(fit.held)}, {num_classes}), "
                f"got {probabilities.shape}"
            )
        this = fit.key.folds, fit.key.repeat
        rows[this][fit.held] = probabilities
        class_seen[this][fit.held] = np.isin(labels[fit.held], labels[fit.train])
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
        class_seen=np.stack([class_seen[this] for this in scheme.rounds[: scheme.repeats]]),
    )


def balanced_by_hand(labels: np.ndarray, origins: Sequence[str] | None = None) -> bool:
    """Whether the class counts of labels (n,) are too even for images picked at random.

    Only the labels of one origin are looked at (`of_one_origin`): labels that were added later,
    at random or by choice, would hide that the first ones were balanced. With few labels, equal
    counts come about by chance too; `class_shares.chance_of_even_counts` says how often.
    """
    return even_counts(of_one_origin(labels, origins))


def of_one_origin(labels: np.ndarray, origins: Sequence[str] | None) -> np.ndarray:
    """The labels of unknown origin or those picked at random, whichever are more.

    Chosen labels never count: they say nothing of how the others were picked.

    Args:
        labels: (n,) class numbers.
        origins: (n,) "random", "chosen" or "unknown"; None: all unknown.
    """
    labels = np.asarray(labels)
    if origins is None:
        return labels
    kinds = np.asarray(origins)
    unknown, random = labels[kinds == "unknown"], labels[kinds == "random"]
    return unknown if len(unknown) >= len(random) else random


def _same_share(labels: np.ndarray, train: np.ndarray, seed: int) -> np.ndarray:
    """Drop positions from `train` at random until it holds an equal share of every class.

    The smallest share sets the target. A class without any label in `train` (its only one is held
    out) is left out of that minimum.
    """
    total = np.bincount(labels)
    inside = np.bincount(labels[train], minlength=len(total))
    share = (inside[inside > 0] / total[inside > 0]).min()
    wanted = np.ceil(share * total - 1e-9).astype(np.int64)
    shuffled = np.random.default_rng(seed).permutation(train)
    kept = [shuffled[labels[shuffled] == label][:most] for label, most in enumerate(wanted)]
    return np.sort(np.concatenate(kept))
