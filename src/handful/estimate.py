"""How good the saved model is on new images, judged from the labelled images alone.

The target is the accuracy of the model that is fitted on all n labels, on new images drawn like
the labelled ones. Every labelled image is predicted by models that did not see it; then two
things are put right that a plain share of right answers gets wrong: those models saw fewer labels
than the saved one, and their errors are not independent of each other. The promise is marginal:
of many draws of labels, `level` have the truth inside their interval.

A method is only known by a callable, so anything that fits and predicts can be judged.

Letters in shapes: n labelled images, K classes, R repeats.
"""

import math
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import chi2, norm

from handful.data.parallel import Track, quiet
from handful.errors import HandfulError
from handful.evaluate import Interval

# (positions to train on, positions held out, seed) -> (len(held out), K) probabilities.
FitAndPredict = Callable[[np.ndarray, np.ndarray, int], np.ndarray]

# Errors of one draw go together, because one set of labels made the models: n images tell as
# much as this share of n independent ones. Chosen by simulation, see benchmarks/LOG.md.
DEPENDENCE = 0.6
# The same where every image was predicted once: chance in that one dealing, and in the training
# of a network, is not averaged out. And how the share of wrong answers is then taken to fall, as
# this power of the number of labels: too few fits to see it. Both from development draws.
DEPENDENCE_ONCE = 0.4
USUAL_SLOPE = 0.5
# How often answers are to be right, for the thresholds below which not to answer.
SURE = (0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)
# A label is doubted if another class is this many times as likely, see benchmarks/LOG.md.
CONTRADICTED = 20
BY_HAND = "the classes look balanced by hand; if they are not as common in new images, give --prior"
FEWEST_PER_CLASS = 5  # labels of a class below which nothing is said of it alone


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


class Abstention(NamedTuple):
    """Answer only where the highest calibrated probability is at least `threshold`."""

    sure: float
    threshold: float
    share: float  # of new images that are expected to be answered
    accuracy: float  # of the answers, out of fold


class ClassEstimate(NamedTuple):
    label: int
    n: int
    recall: float
    low: float
    high: float


class LabelIssue(NamedTuple):
    """A labelled image whose label the out-of-fold predictions contradict."""

    position: int  # among the n labelled images
    label: int
    guess: int
    label_probability: float
    guess_probability: float


@dataclass(frozen=True)
class Estimate:
    """Accuracy of the saved model on new images, with an interval. None where none can be given."""

    accuracy: float | None
    low: float | None
    high: float | None
    level: float
    how: str  # what was done, and what it rests on
    n: int = 0  # labelled images that it rests on
    effective_n: float = 0.0  # independent images that would tell as much
    out_of_fold: float | None = None  # accuracy before any correction
    learning_curve: float = 0.0  # added: the saved model sees more labels than those of the folds
    selection: float = 0.0  # taken away: the best of several methods looks better than it is
    rough: bool = False  # few fits: `learning_curve` is what is usual, not what was seen
    balanced_accuracy: float | None = None  # None if a class has too few labels
    balanced_low: float | None = None
    balanced_high: float | None = None
    per_class: tuple[ClassEstimate, ...] = ()  # classes with enough labels
    temperature: float = 1.0
    abstentions: tuple[Abstention, ...] = ()  # one for each of SURE that a threshold can keep
    caveats: tuple[str, ...] = ()

    def as_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """The same as plain numbers, lists and dicts, the classes by their names."""
        return {
            **asdict(self),
            "per_class": [row._asdict() | {"label": classes[row.label]} for row in self.per_class],
            "abstentions": [row._asdict() for row in self.abstentions],
            "caveats": list(self.caveats),
        }


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
        fold_of = _deal(labels, min(folds, most), _derived(seed, folds, repeat), groups, stratified)
        for fold in range(fold_of.max() + 1):
            own_seed = _derived(seed, folds, repeat, fold)
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


def _derived(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _deal(
    labels: np.ndarray, folds: int, seed: int, groups: np.ndarray | None, stratified: bool
) -> np.ndarray:
    """(n,) fold of each image: units dealt one by one to the fold that holds fewest images.

    A unit is a group, or one image. Dealt class by class, single images make folds whose class
    counts differ by one at most.
    """
    groups = np.arange(len(labels)) if groups is None else np.asarray(groups)
    units = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    if len(units) < 2:
        raise HandfulError(
            f"an estimate needs labelled images of at least two groups, got {len(labels)} in "
            f"{len(units)}; label more images, or fit with no estimate"
        )
    folds = min(folds, len(units))
    generator = np.random.default_rng(seed)
    units = [units[index] for index in generator.permutation(len(units))]
    if stratified:
        units.sort(key=lambda unit: int(np.bincount(labels[unit]).argmax()))
    fold_of = np.empty(len(labels), np.int64)
    sizes = np.zeros(folds, np.int64)
    for unit in units:
        fold = int(sizes.argmin())
        fold_of[unit] = fold
        sizes[fold] += len(unit)
    return fold_of


def estimate(
    out: OutOfFold,
    level: float = 0.9,
    prior: Sequence[float] | None = None,
    origins: Sequence[str] | None = None,
    rivals: Sequence[OutOfFold] = (),
    prior_how: str = "as given",
) -> Estimate:
    """Turn out-of-fold predictions into an estimate of the saved model.

    Args:
        out: of the method that is saved.
        prior: (K,) shares of the classes among new images; None takes them as labelled.
        origins: (n,) how each label came about: "random" (the image was picked at random),
            "chosen" (by the tool, or for being odd) or "unknown". The chosen ones say nothing
            about images that are not chosen: they train, but do not count.
        rivals: out-of-fold predictions of the methods that `out` was preferred to on these labels.
        prior_how: how `prior` was found, for the record.
    """
    if not 0 < level < 1:
        raise HandfulError(f"level is a probability between 0 and 1, got {level}; the usual is 0.9")
    counted, caveats = countable(len(out.labels), origins)
    alone = np.bincount(out.labels)[out.labels] == 1
    if why := _impossible(counted, alone):
        return Estimate(None, None, None, level, f"no estimate: {why}", caveats=caveats)
    if alone.any():
        caveats += (f"{alone.sum()} labels are the only one of their class and count as wrong",)
    if prior is None and out.stratified:
        caveats += (BY_HAND,)

    weights = _weights(out.labels, counted, prior)
    right = out.right
    plain = float(weights @ right)
    rise = usual_rise(plain, out.share) if out.rough else learning_curve(out, weights)
    optimism = selection_optimism([out.right, *(rival.right for rival in rivals)], weights)
    shift = rise - optimism
    accuracy = min(max(plain + shift, 0.0), 1.0)
    effective = _effective_n(out, weights)
    low, high = wilson(accuracy, effective, level)

    balanced = _balanced(out, counted, shift, level)
    temperature = fit_temperature(out.probabilities[:, counted], out.labels[counted])
    return Estimate(
        accuracy=accuracy,
        low=low,
        high=high,
        level=level,
        how=_how(
            out,
            plain,
            float(right[counted].mean()),
            int(counted.sum()),
            effective,
            rise,
            optimism,
            "as labelled" if prior is None else prior_how,
        ),
        n=int(counted.sum()),
        effective_n=effective,
        out_of_fold=plain,
        learning_curve=rise,
        selection=optimism,
        rough=out.rough,
        **balanced,
        per_class=_per_class(out, counted, shift, level),
        temperature=temperature,
        abstentions=_abstentions(
            calibrated(out.probabilities[:, counted], temperature), out.labels[counted]
        ),
        caveats=caveats,
    )


def wilson(share: float, n: float, level: float) -> Interval:
    """Wilson's interval for a share seen in `n` independent images; `n` need not be whole."""
    z = norm.ppf((1 + level) / 2)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(max(float(centre - half), 0.0), min(float(centre + half), 1.0))


def effective_n(
    right: np.ndarray, weights: np.ndarray, groups: np.ndarray | None = None, repeats: int = 2
) -> float:
    """How many independent images would tell as much as these (n,) weighted ones.

    Three losses: uneven weights (Kish), images of one group being right or wrong together (the
    variance between groups over that between images), and that one set of labels made the models
    (DEPENDENCE; more of it where each image was predicted in one repeat only).
    """
    n = 1 / float(weights @ weights)
    if groups is not None:
        residual = weights * (right - weights @ right)
        together = np.bincount(np.unique(groups, return_inverse=True)[1], residual)
        apart = float(residual @ residual)
        n /= max(float(together @ together) / apart, 1.0) if apart else 1.0
    return (DEPENDENCE if repeats > 1 else DEPENDENCE_ONCE) * n


def _effective_n(out: OutOfFold, weights: np.ndarray) -> float:
    return effective_n(out.right, weights, out.groups, len(out.probabilities))


def usual_rise(accuracy: float, share: float) -> float:
    """What accuracy usually gains from `share` of the labels to all: see USUAL_SLOPE."""
    return float((1 - accuracy) * (1 - share**USUAL_SLOPE))


def learning_curve(out: OutOfFold, weights: np.ndarray) -> float:
    """What accuracy gains between the labels that the folds' models saw and all n.

    The gain from about half the labels to the folds' share is seen; from there on accuracy is
    taken to rise in proportion to the logarithm of the number of labels. A fall counts as no gain.
    """
    seen = math.log(out.share / out.half_share)
    if out.rough or seen < 0.1:  # too close together to see a slope
        return 0.0
    half = (out.halves.argmax(axis=2) == out.labels).mean(axis=0)  # (n,)
    gain = float(weights @ (out.right - half))
    return max(gain, 0.0) * math.log(1 / out.share) / seen


def selection_optimism(
    right: Sequence[np.ndarray], weights: np.ndarray, draws: int = 1000, seed: int = 0
) -> float:
    """How much better the first of several methods looks because it was chosen on these images.

    The choice is repeated on bootstrap samples of the images and judged on those left out; nothing
    is fitted again. Where choosing makes no difference this is 0.

    Args:
        right: (n,) for each method, the share of repeats in which each image is predicted rightly;
            the chosen method first.
        weights: (n,) of the images, adding up to 1.

    Source: Tsamardinos et al. 2018, "Bootstrapping the out-of-sample predictions for efficient and
    accurate cross-validation", Machine Learning 107, algorithm 4 (BBC-CV).
    """
    if len(right) == 1:
        return 0.0
    table = np.stack(right, axis=1)  # (n, M)
    n = len(table)
    times = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws)  # (draws, n)
    left_out = (times == 0) * weights
    judged = left_out.sum(axis=1) > 0  # with few images a sample may hold all that count
    times, left_out = times[judged], left_out[judged]
    held = (left_out @ table) / left_out.sum(axis=1, keepdims=True)  # (draws, M)
    winner = ((times * weights) @ table).argmax(axis=1)  # a tie goes to the chosen one
    apart = held[:, 0] - held[np.arange(len(held)), winner]
    return max(float(apart.mean()), 0.0) if len(apart) else 0.0


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that makes out-of-fold probabilities (R, n, K) most likely.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2. With few labels the most likely one
    can run away, so it is kept within a factor of ten of 1.
    """

    def loss(log_temperature: float) -> float:
        rows = calibrated(probabilities, math.exp(log_temperature))
        of_label = rows[:, np.arange(len(labels)), labels]
        return -float(np.log(np.maximum(of_label, 1e-12)).mean())

    found = minimize_scalar(loss, bounds=(-math.log(10), math.log(10)), method="bounded")
    return float(math.exp(found.x))


def calibrated(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (..., K) at another temperature: above 1 they are evened out."""
    logits = np.log(np.maximum(probabilities, 1e-12)) / temperature
    rows = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(rows / rows.sum(axis=-1, keepdims=True))


def averaged(out: OutOfFold, temperature: float) -> np.ndarray:
    """(n, K) out-of-fold probabilities at a temperature, averaged over the repeats."""
    return np.asarray(calibrated(out.probabilities, temperature).mean(axis=0))


def abstention(
    probabilities: np.ndarray, labels: np.ndarray, sure: float = 0.95
) -> Abstention | None:
    """The lowest threshold above which answers are right often enough, from (R, n, K) out of fold.

    One wrong answer more than was seen is counted, so that a threshold is not kept by luck; None
    where even the surest predictions do not reach `sure`, or are too few to tell.
    """
    if not 0 < sure < 1:
        raise HandfulError(f"abstain is a probability between 0 and 1, got {sure}; try 0.95")
    repeats, n, _ = probabilities.shape
    confidence = probabilities.max(axis=2).ravel()  # (R n,)
    wrong = (probabilities.argmax(axis=2) != labels).ravel()
    order = np.argsort(-confidence, kind="stable")
    answered = np.arange(1, len(order) + 1) / repeats  # images, as each is seen R times
    errors = np.cumsum(wrong[order]) / repeats
    kept = np.flatnonzero((errors + 1) / (answered + 1) <= 1 - sure)
    if not len(kept):
        return None
    last = int(kept[-1])
    return Abstention(
        sure=sure,
        threshold=float(confidence[order[last]]),
        share=float(answered[last]) / n,
        accuracy=1 - float(errors[last] / answered[last]),
    )


def _abstentions(probabilities: np.ndarray, labels: np.ndarray) -> tuple[Abstention, ...]:
    found = (abstention(probabilities, labels, sure) for sure in SURE)
    return tuple(row for row in found if row is not None)


def label_issues(out: OutOfFold, times: float = CONTRADICTED) -> list[LabelIssue]:
    """Labelled images whose likeliest class is `times` as likely as their label, worst first.

    Likely by calibrated out-of-fold probabilities, averaged over the repeats. With few labels this
    finds more flipped ones in a shorter list than the confident joint of arXiv:1911.00068, whose
    thresholds, one for each class, are then means over a few uncertain predictions.
    """
    temperature = fit_temperature(out.probabilities, out.labels)
    probabilities = averaged(out, temperature)
    of_label = probabilities[np.arange(len(out.labels)), out.labels]
    of_guess = probabilities.max(axis=1)
    issues = [
        LabelIssue(
            position=int(position),
            label=int(out.labels[position]),
            guess=int(probabilities[position].argmax()),
            label_probability=float(of_label[position]),
            guess_probability=float(of_guess[position]),
        )
        for position in np.flatnonzero(of_guess >= times * of_label)
    ]
    return sorted(issues, key=lambda issue: issue.label_probability / issue.guess_probability)


def check_prior(
    labels: np.ndarray, prior: Sequence[float], origins: Sequence[str] | None = None
) -> None:
    """Raise what `estimate` would about `prior`, before anything is fitted."""
    counted, _ = countable(len(labels), origins)
    if counted.any():
        _weights(labels, counted, prior)


def countable(n: int, origins: Sequence[str] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """(n,) bool: the images whose labels may count, and what is to be said about the choice."""
    kinds = np.array(["unknown"] * n if origins is None else list(origins))
    if len(kinds) != n or not set(kinds) <= {"random", "chosen", "unknown"}:
        raise HandfulError(
            f"origins needs 'random', 'chosen' or 'unknown' for each of {n} labels, got "
            f"{len(kinds)} of {sorted(set(kinds))}"
        )
    chosen = int((kinds == "chosen").sum())
    said: tuple[str, ...] = ()
    if chosen:
        said += (f"{chosen} chosen labels train but do not count: they are no sample",)
    counted = kinds != "chosen"
    if (kinds == "unknown").any():
        said += ("holds if the labelled images were picked at random",)
    return counted, said


def _impossible(counted: np.ndarray, alone: np.ndarray) -> str:
    if not counted.any():
        return "every label was chosen, none picked at random; label some images at random"
    if alone[counted].mean() > 0.5:
        return "most labels are the only one of their class; label two or more of each class"
    return ""


def _weights(labels: np.ndarray, counted: np.ndarray, prior: Sequence[float] | None) -> np.ndarray:
    """(n,) weights adding up to 1: 0 for what does not count, else even or as `prior` has it."""
    weights: np.ndarray = counted / counted.sum()
    if prior is None:
        return weights
    shares = np.asarray(prior, dtype=np.float64)
    present = np.bincount(labels[counted], minlength=len(shares)) / counted.sum()
    if len(present) != len(shares) or (shares < 0).any() or not math.isclose(shares.sum(), 1):
        raise HandfulError(
            f"prior needs a share for each of the classes, adding up to 1, got {list(prior)}"
        )
    if unseen := np.flatnonzero((shares > 0) & (present == 0)).tolist():
        raise HandfulError(
            f"prior gives a share to class {unseen[0]}, of which no random label is known; "
            f"label some images of it, or give it 0"
        )
    return np.asarray(weights * (shares / np.maximum(present, 1e-12))[labels])


def _balanced(out: OutOfFold, counted: np.ndarray, shift: float, level: float) -> dict[str, float]:
    """Balanced accuracy with its interval; nothing if a class has too few labels to say."""
    counts = np.bincount(out.labels[counted])
    if counts[counts > 0].min() < FEWEST_PER_CLASS:
        return {}
    even = _even(out.labels[counted], out.probabilities.shape[2])
    weights = _weights(out.labels, counted, even)
    accuracy = min(max(float(weights @ out.right) + shift, 0.0), 1.0)
    low, high = wilson(accuracy, _effective_n(out, weights), level)
    return {"balanced_accuracy": accuracy, "balanced_low": low, "balanced_high": high}


def _even(labels: np.ndarray, classes: int) -> list[float]:
    present = np.bincount(labels, minlength=classes) > 0
    return list(present / present.sum())


def _per_class(
    out: OutOfFold, counted: np.ndarray, shift: float, level: float
) -> tuple[ClassEstimate, ...]:
    """Recall of the classes that have enough labels, each moved by what the accuracy is moved."""
    rows = []
    for label in np.unique(out.labels[counted]):
        mine = counted & (out.labels == label)
        n = int(mine.sum())
        if n < FEWEST_PER_CLASS:
            continue
        weights = mine / n
        recall = min(max(float(weights @ out.right) + shift, 0.0), 1.0)
        low, high = wilson(recall, _effective_n(out, weights), level)
        rows.append(ClassEstimate(int(label), n, recall, low, high))
    return tuple(rows)


def _how(
    out: OutOfFold,
    plain: float,
    seen: float,
    n: int,
    effective: float,
    rise: float,
    optimism: float,
    prior_how: str,
) -> str:
    folds = f"{out.scheme.folds} {'stratified ' if out.stratified else ''}folds"
    times = "once" if out.scheme.repeats == 1 else f"{out.scheme.repeats} times"
    parts = [f"{100 * seen:.1f} % of {n} labels right out of fold ({folds}, dealt {times})"]
    if abs(plain - seen) > 5e-4:
        parts.append(f"{100 * plain:.1f} % with every class weighted by its share")
    if out.rough:
        more = f"more than the {out.share:.0%} of the labels that the folds learn from"
        parts.append(f"{100 * rise:+.1f} points as is usual for a model that learns from {more}")
    else:
        parts.append(f"{100 * rise:+.1f} points as the saved model learns from more labels")
    if optimism:
        parts.append(
            f"{-100 * optimism:+.1f} points as picking the best of several methods flatters it"
        )
    parts.append(
        f"the interval is Wilson's for {effective:.0f} independent images, fewer than the labels "
        f"because predictions out of fold depend on one another"
    )
    parts.append(f"class shares {prior_how}")
    return "; ".join(parts)
