"""Estimate the saved model's accuracy on new images from out-of-fold predictions.

The estimated quantity is the accuracy of the model that is fitted on all n labels, on new images
drawn like the labelled ones. Every labelled image is predicted by models that did not see it. The
share of right predictions is then corrected twice: the models of the folds saw fewer labels than
the saved model, and the best of several methods looks better than it is. A network whose training
was too short to learn its labels gains little from more of them: it is not taken to be better on
new images than on its own. The interval is wider
than Wilson's for n images, because the errors of one draw of labels depend on each other. Its
coverage is marginal: over many draws of labels, a share `level` of intervals hold the truth.

A method is known only as a callable, so anything that fits and predicts can be estimated.

Letters in shapes: n labelled images, K classes, R repeats.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from handful.errors import HandfulError
from handful.evaluation.calibration import (
    INDEPENDENCE,
    Abstention,
    abstentions,
    calibrated,
    temperature_of,
)
from handful.evaluation.cross_validation import OutOfFold, of_one_origin
from handful.evaluation.metrics import wilson
from handful.methods.class_shares import chance_of_even_counts
from handful.text import name_in_text, some_names

# Effective share of n: one set of labels made all models, so their errors are correlated, and n
# images tell as much as DEPENDENCE * n independent ones. Chosen by simulation, see
# benchmarks/log/estimates.md.
DEPENDENCE = 0.6
# DEPENDENCE where every image was predicted in one repeat only: chance in the one assignment to
# folds, and in the training of a network, is not averaged out. From development draws.
DEPENDENCE_ONCE = 0.4
# Power of the number of labels by which the share of wrong answers is taken to fall where no fits
# on half the labels show it. From development draws.
USUAL_SLOPE = 0.5
LEVEL = 0.9  # coverage of the intervals, unless another is asked for
# Share of the wrong answers that a gain may remove at most: a slope of few groups is steep by
# chance, and would put 98 % at 100 %.
MOST_GAIN = 0.5
# A network usually predicts at least this share of its own labels rightly; `how` says where not.
SELDOM_LESS = 0.95
GROUP_SEEN = 0.5  # groups, right or wrong as a whole, that count beside those that were seen
GUESSING = 0.05  # chance that a guessing classifier passes for better than guessing
NO_BETTER = "no better than guessing"  # begins a caveat
BY_HAND = "the classes look balanced by hand; if they are not as common in new images, give --prior"
EVEN = (
    "the classes are equally common among the labels, by hand or by chance; if not by chance, and "
    "they are not as common in new images, give --prior"
)
DRAWN_EVEN = (
    "the classes are equally common among the labels drawn at random, which chance may do; if they "
    "are not as common in new images, give --prior"
)
_RARE = (
    0.05  # chance of counts as even, in a random draw, below which classes look balanced by hand
)
SHOWN = 5  # classes with a single label that are named
FEWEST_PER_CLASS = 5  # labels of a class below which no recall is estimated for it


class Selected(NamedTuple):
    """A method that was selected among M on the labelled images, and the rule that selected it."""

    right: np.ndarray  # (M, n) share of the repeats in which each image is predicted rightly
    at: int  # row of the selected method
    rule: Callable[[np.ndarray], int]  # positions (m,) of any images → row of the selected method


class ClassEstimate(NamedTuple):
    """Estimated recall of one class, with its interval."""

    label: int  # class number
    n: int  # labelled images of the class
    recall: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """Estimated accuracy of the saved model on new images, with an interval; shares in [0, 1].

    `accuracy`, `low` and `high` are None where the labels allow no estimate; `how` says why.
    """

    accuracy: float | None
    low: float | None
    high: float | None
    level: float
    how: str  # how the accuracy was estimated, in one sentence
    n: int = 0  # labelled images that count
    effective_n: float = 0.0  # number of independent images that give an interval as wide
    out_of_fold: float | None = None  # accuracy before any correction
    # Correction added, which may be negative: the saved model sees more labels than the folds.
    learning_curve: float = 0.0
    selection: float = 0.0  # correction subtracted: the best of several methods looks too good
    confidence: float | None = None  # mean confidence without labels, which is half of `accuracy`
    guessing: bool = False  # not shown to be right more often than naming the commonest class is
    extrapolated: bool = False  # `learning_curve` follows USUAL_SLOPE: no fits on half the labels
    balanced_accuracy: float | None = None  # None if a class has too few labels
    balanced_low: float | None = None
    balanced_high: float | None = None
    per_class: tuple[ClassEstimate, ...] = ()  # classes with enough labels
    temperature: float = 1.0
    pool_temperature: float | None = None  # of answers for unlabelled images, if it is another one
    abstentions: tuple[Abstention, ...] = ()  # for those of TARGET_ACCURACIES that are shown
    caveats: tuple[str, ...] = ()
    single: tuple[int, ...] = ()  # classes whose only label counts, and counts as wrong

    @property
    def figures(self) -> dict[str, Any]:
        """What `text.withheld` and `text.about_right` read of an estimate."""
        names = ("accuracy", "low", "high", "n", "guessing")
        return {name: getattr(self, name) for name in names}

    def as_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """The estimate as plain numbers, lists and dicts, with class names for class numbers.

        `extrapolated` is called "rough" there, as saved runs have it. `single` is a caveat there,
        the first one, so that it is seen where not all are shown.
        """
        caveats = list(self.caveats)
        if self.single:
            caveats.insert(0, _single_in_words([classes[label] for label in self.single]))
        fields = asdict(self) | {
            "per_class": [row._asdict() | {"label": classes[row.label]} for row in self.per_class],
            "abstentions": [row.as_json() for row in self.abstentions],
            "caveats": caveats,
        }
        del fields["single"]
        return {"rough" if key == "extrapolated" else key: fields[key] for key in fields}


def estimate(
    out: OutOfFold,
    level: float = LEVEL,
    prior: Sequence[float] | None = None,
    origins: Sequence[str] | None = None,
    selected: Selected | None = None,
    prior_how: str = "as given",
    confidence: float | None = None,
    learned: np.ndarray | None = None,
) -> Estimate:
    """Estimate the accuracy of the saved model from out-of-fold predictions.

    Args:
        out: out-of-fold predictions of the method that is saved.
        level: coverage of the intervals, between 0 and 1.
        prior: (K,) shares of the classes among new images; None takes the labelled images' shares.
        origins: (n,) how each label came about: "random" (the image was picked at random),
            "chosen" (by the tool, or for being odd) or "unknown". Chosen images are no sample of
            new images: they train, but do not count.
        selected: how the method was selected on these labels, if several were tried.
        prior_how: how `prior` was found, for the record.
        confidence: mean calibrated confidence of the saved model on images without a label, as
            `pool_confidence.expected_accuracy` gives it. None: it is not used.
        learned: (n,) 1 where the saved model predicts the image that it learned from rightly, else
            0; NaN where nobody looked. None: it is taken to have learned all of its labels.

    Returns:
        The estimate; its `accuracy` is None where no label counts or most classes have one label.
        HandfulError for a level, prior or origins that make no sense.
    """
    if not 0 < level < 1:
        raise HandfulError(f"level is a probability between 0 and 1, got {level}; the usual is 0.9")
    counted, caveats = countable(len(out.labels), origins)
    alone = np.bincount(out.labels)[out.labels] == 1
    if why := _impossible(counted, alone):
        return Estimate(None, None, None, level, f"no estimate: {why}", caveats=caveats)
    weights = _weights(out.labels, counted, prior)
    found = _corrected(out, weights, selected, confidence, learned)
    low, high = wilson(found.accuracy, found.effective, level)
    shift = found.accuracy - found.out_of_fold
    temperature = temperature_of(out, counted)
    return Estimate(
        accuracy=found.accuracy,
        low=low,
        high=high,
        level=level,
        how=_how(out, counted, found, "as labelled" if prior is None else prior_how),
        n=int(counted.sum()),
        effective_n=found.effective,
        out_of_fold=found.out_of_fold,
        learning_curve=found.learning_curve or 0.0,
        selection=found.selection,
        confidence=found.confidence,
        guessing=found.guessing,
        extrapolated=out.extrapolated,
        **_balanced(out, counted, shift, level),
        per_class=_per_class(out, counted, shift, level),
        temperature=temperature,
        abstentions=abstentions(
            calibrated(out.probabilities[:, counted], temperature),
            out.labels[counted],
            weights[counted],
            INDEPENDENCE * found.effective / DEPENDENCE * float(weights @ weights),
        ),
        caveats=caveats + _caveats(out, prior, origins, weights, found),
        single=tuple(np.sort(out.labels[alone & counted]).tolist()),
    )


class _Corrected(NamedTuple):
    """The accuracy out of fold, its corrections, and what they come to; see `Estimate`."""

    out_of_fold: float
    learning_curve: float | None  # None where nothing is added to a model that guesses
    selection: float
    confidence: float | None
    accuracy: float
    effective: float  # independent images that tell as much
    learned: float = 1.0  # share of its own labels that the saved model predicts rightly

    @property
    def guessing(self) -> bool:
        return self.learning_curve is None


def _corrected(
    out: OutOfFold,
    weights: np.ndarray,
    selected: Selected | None,
    confidence: float | None,
    learned: np.ndarray | None,
) -> _Corrected:
    plain, effective = share_right(out, weights), _effective_n(out, weights)
    optimism = 0.0 if selected is None else selection_optimism(selected, weights, out.groups)
    most = 1.0 if learned is None else _share_learned(learned, weights)
    if not better_than_guessing(plain, effective, guessing_accuracy(out.labels, weights)):
        accuracy = max(min(plain - optimism, most), 0.0)
        return _Corrected(plain, None, optimism, None, accuracy, effective, most)
    if out.extrapolated:
        correction = usual_correction(plain, out.share, most)
    else:
        correction = min(learning_curve_correction(out, weights), MOST_GAIN * (1 - plain))
    accuracy = min(max(plain + correction - optimism, 0.0), most)
    if confidence is not None:
        accuracy = min((accuracy + confidence) / 2, most)
    return _Corrected(plain, correction, optimism, confidence, accuracy, effective, most)


def _share_learned(learned: np.ndarray, weights: np.ndarray) -> float:
    """Share of its own labels that the saved model predicts rightly, of those that were looked at.

    Args:
        learned: (n,) as in `estimate`.
        weights: (n,) adding up to 1.
    """
    looked = ~np.isnan(learned) & (weights > 0)
    return float(np.average(learned[looked], weights=weights[looked])) if looked.any() else 1.0


def _caveats(
    out: OutOfFold,
    prior: Sequence[float] | None,
    origins: Sequence[str] | None,
    weights: np.ndarray,
    found: _Corrected,
) -> tuple[str, ...]:
    """Return caveats beside those of `countable`."""
    caveats: tuple[str, ...] = ()
    if prior is None and out.stratified:
        even = chance_of_even_counts(of_one_origin(out.labels, origins))
        said = DRAWN_EVEN if _drawn_beside_chosen(origins) else BY_HAND if even < _RARE else EVEN
        caveats += (said,)
    if found.guessing:
        chance = 100 * guessing_accuracy(out.labels, weights)
        caveats += (
            f"{NO_BETTER}: naming the commonest class each time is right for "
            f"{chance:.0f} % of images, and these labels do not show that the model is right more "
            f"often",
        )
    return caveats


def _single_in_words(names: Sequence[str]) -> str:
    """What follows for classes with a single label."""
    if len(names) == 1:
        only = name_in_text(names[0])
        return f"class {only} has a single label, which counts as wrong: label more of it"
    return (
        f"classes {some_names(names, SHOWN)} have a single label each, which counts as wrong: "
        f"label more of them"
    )


def _drawn_beside_chosen(origins: Sequence[str] | None) -> bool:
    """Whether some images were chosen and all others drawn at random: nobody evened these out."""
    return set(origins or ()) == {"random", "chosen"}


def _labels_are(n: int) -> str:
    return "1 label is" if n == 1 else f"{n:,} labels are"


def effective_n(
    right: np.ndarray, weights: np.ndarray, groups: np.ndarray | None = None, repeats: int = 2
) -> float:
    """Number of independent images that tell as much as the given weighted, dependent ones.

    Three things reduce the number: uneven weights (Kish's formula); groups whose images are right
    or wrong together (see `_grouped`); and the one set of labels behind all models (DEPENDENCE, or
    DEPENDENCE_ONCE for one repeat).

    Args:
        right: (n,) share of repeats in which each image was predicted rightly.
        weights: (n,) adding up to 1.
        groups: (n,) group numbers, or None if every image is its own group.
        repeats: number of predictions of each image.
    """
    n = 1 / float(weights @ weights)
    if groups is not None:
        n /= _grouped(right, weights, np.unique(groups, return_inverse=True)[1])
    return (DEPENDENCE if repeats > 1 else DEPENDENCE_ONCE) * n


def _grouped(right: np.ndarray, weights: np.ndarray, groups: np.ndarray) -> float:
    """How many images tell as much as one independent image, 1 or more; groups (n,) count from 0.

    The variance between groups over the variance between images. Where every image is predicted
    rightly there is no variance to see, and where few are not there is little. So half a group of
    mean size that is right or wrong as a whole is added to what was seen.
    """
    residual = weights * (right - weights @ right)
    together, shares = np.bincount(groups, residual), np.bincount(groups, weights)
    usual = GROUP_SEEN / max(int(np.count_nonzero(shares)), 1)
    between = together @ together + usual * (shares @ shares)
    return max(float(between / (residual @ residual + usual * (weights @ weights))), 1.0)


def _effective_n(out: OutOfFold, weights: np.ndarray) -> float:
    # A few folds, repeated, only average out the assignment: it counts as one.
    repeats = 1 if out.extrapolated else len(out.probabilities)
    return effective_n(out.right, weights, out.groups, repeats)


def guessing_accuracy(labels: np.ndarray, weights: np.ndarray) -> float:
    """Accuracy of naming the commonest class each time, by labels (n,) and their weights (n,)."""
    return float(np.bincount(labels, weights).max())


def better_than_guessing(accuracy: float, effective: float, chance: float) -> bool:
    """Whether an accuracy on `effective` independent images is shown to be above `chance`.

    An exact one-sided binomial test: a classifier that is right with probability `chance` passes
    with a probability of at most GUESSING.
    """
    from scipy.special import betaincinv  # faster to import than scipy.stats

    right = accuracy * effective
    least = betaincinv(right, effective - right + 1, GUESSING) if right > 0 else 0.0
    return bool(least > chance)


def usual_correction(accuracy: float, share: float, learned: float = 1.0) -> float:
    """Gain of accuracy from `share` of the labels to all, by the usual slope USUAL_SLOPE.

    Only errors that a model makes beyond those on its own labels become fewer with more labels:
    a training that is too short to learn its labels would learn no more from others.

    Args:
        learned: share of its own labels that the saved model predicts rightly.
    """
    return float(max(learned - accuracy, 0.0) * (1 - share**USUAL_SLOPE))


def learning_curve_correction(out: OutOfFold, weights: np.ndarray) -> float:
    """Gain of accuracy from the labels that the folds' models saw to all n.

    The gain from half the labels to the folds' share is measured. Beyond, accuracy is taken to grow
    with the logarithm of the number of labels, at the measured rate. A measured loss is subtracted:
    to count it as 0 would add half of the noise of a flat curve to every estimate.
    """
    seen = math.log(out.share / out.half_share)
    if out.extrapolated or seen < 0.1:  # too close together to see a slope
        return 0.0
    half = (out.halves.argmax(axis=2) == out.labels).mean(axis=0)  # (n,)
    gain = float(weights @ (out.right - half))
    return gain * math.log(1 / out.share) / seen


def selection_optimism(
    selected: Selected,
    weights: np.ndarray,
    groups: np.ndarray | None = None,
    draws: int = 300,
    seed: int = 0,
) -> float:
    """Optimism of a method because it was selected on these images; 0 or more.

    The selection is repeated, by its own rule, on bootstrap samples of the images that count, and
    scored on the images that each sample leaves out; images of one group are drawn together.
    Nothing is fitted again. The optimism is 0 where the selection does not vary.

    Args:
        weights: (n,) of the images, adding up to 1; images of weight 0 do not count.
        groups: (n,) group numbers, or None if every image is its own group.
        draws: bootstrap samples.

    Source: Tsamardinos et al. 2018, "Bootstrapping the out-of-sample predictions for efficient and
    accurate cross-validation", Machine Learning 107, algorithm 4 (BBC-CV).
    """
    counted = np.flatnonzero(weights)
    group_of = counted if groups is None else groups[counted]
    names = np.unique(group_of)
    members = {name: counted[group_of == name] for name in names}
    generator = np.random.default_rng(seed)
    apart = []
    for _ in range(draws if len(selected.right) > 1 else 0):
        drawn = generator.choice(names, len(names))
        sample = np.concatenate([members[name] for name in drawn])
        left_out = np.setdiff1d(counted, sample)
        if len(left_out):  # with few images a sample may hold all of them
            winner = selected.rule(sample)
            ahead = selected.right[selected.at] - selected.right[winner]
            apart.append(float(np.average(ahead[left_out], weights=weights[left_out])))
    return max(float(np.mean(apart)), 0.0) if apart else 0.0


def seen_out_of_fold(
    out: OutOfFold, origins: Sequence[str] | None, level: float
) -> dict[str, float]:
    """`accuracy` of the labelled images that count, with `low`, `high` and `level`.

    Nothing is corrected. Where no label counts, all are used.
    """
    counted, _ = countable(len(out.labels), origins)
    weights = _weights(out.labels, counted if counted.any() else np.ones_like(counted), None)
    accuracy = share_right(out, weights)
    low, high = wilson(accuracy, _effective_n(out, weights), level)
    return {"accuracy": accuracy, "low": low, "high": high, "level": level}


def share_right(out: OutOfFold, weights: np.ndarray) -> float:
    """Share of the images that is predicted rightly, by weights (n,) that add up to 1."""
    return min(float(weights @ out.right), 1.0)  # rounding may put the sum above 1


def check_prior(
    labels: np.ndarray, prior: Sequence[float], origins: Sequence[str] | None = None
) -> None:
    """Raise the HandfulError that `estimate` would raise about `prior`, before any fit."""
    counted, _ = countable(len(labels), origins)
    if counted.any():
        _weights(labels, counted, prior)


def countable(n: int, origins: Sequence[str] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Mask (n,) of the images whose labels count, and caveats about how they were picked.

    HandfulError where `origins` has another length than n or unknown words.
    """
    kinds = np.array(["unknown"] * n if origins is None else list(origins))
    if len(kinds) != n or not set(kinds) <= {"random", "chosen", "unknown"}:
        raise HandfulError(
            f"origins needs 'random', 'chosen' or 'unknown' for each of {n} labels, got "
            f"{len(kinds)} of {sorted(set(kinds))}"
        )
    chosen = int((kinds == "chosen").sum())
    caveats: tuple[str, ...] = ()
    if chosen:
        caveats += (
            f"{_labels_are(chosen)} of images that were chosen, not drawn at random: they teach "
            f"the model but cannot measure it",
        )
    counted = kinds != "chosen"
    if (kinds == "unknown").any():
        caveats += ("this holds if the labelled images were picked at random",)
    return counted, caveats


def _impossible(counted: np.ndarray, alone: np.ndarray) -> str:
    """Why no estimate is possible, or "" where one is."""
    if not counted.any():
        return "every label was chosen, none picked at random; label some images at random"
    if alone[counted].mean() > 0.5:
        return "most labels are the only one of their class; label two or more of each class"
    return ""


def _weights(labels: np.ndarray, counted: np.ndarray, prior: Sequence[float] | None) -> np.ndarray:
    """(n,) weights adding up to 1: 0 for images that do not count, else even or as by `prior`."""
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
    """Balanced accuracy with its interval, as fields; none if a class has too few labels."""
    counts = np.bincount(out.labels[counted])
    if counts[counts > 0].min() < FEWEST_PER_CLASS:
        return {}
    even = _even(out.labels[counted], out.probabilities.shape[2])
    weights = _weights(out.labels, counted, even)
    accuracy = min(max(share_right(out, weights) + shift, 0.0), 1.0)
    low, high = wilson(accuracy, _effective_n(out, weights), level)
    return {"balanced_accuracy": accuracy, "balanced_low": low, "balanced_high": high}


def _even(labels: np.ndarray, classes: int) -> list[float]:
    present = np.bincount(labels, minlength=classes) > 0
    return list(present / present.sum())


def _per_class(
    out: OutOfFold, counted: np.ndarray, shift: float, level: float
) -> tuple[ClassEstimate, ...]:
    """Recall of the classes that have enough labels, corrected by `shift` like the accuracy."""
    rows = []
    for label in np.unique(out.labels[counted]):
        mine = counted & (out.labels == label)
        n = int(mine.sum())
        if n < FEWEST_PER_CLASS:
            continue
        weights = mine / n
        recall = min(max(share_right(out, weights) + shift, 0.0), 1.0)
        low, high = wilson(recall, _effective_n(out, weights), level)
        rows.append(ClassEstimate(int(label), n, recall, low, high))
    return tuple(rows)


def _how(out: OutOfFold, counted: np.ndarray, found: _Corrected, prior_how: str) -> str:
    """The estimate's `how`: every step from the share of right predictions to the interval."""
    seen, plain = float(out.right[counted].mean()), found.out_of_fold
    folds = f"{out.scheme.folds} {'stratified ' if out.stratified else ''}folds"
    several = out.scheme.repeats > 1
    times = f"{out.scheme.repeats} times" if several else "once"
    parts = [
        f"{100 * seen:.1f} % of {counted.sum()} labels predicted right by models that had not seen "
        f"them (out of fold: {folds}, {times}{', the mean of all' if several else ''})"
    ]
    if abs(plain - seen) > 5e-4:
        parts.append(f"{100 * plain:.1f} % with every class weighted by its share")
    if found.learning_curve is None:
        parts.append("nothing is added for more labels to a model that is no better than guessing")
    elif out.extrapolated:
        gain = 100 * found.learning_curve
        parts.append(
            f"{gain:+.1f} points, a typical gain: the final model sees all labels, the test models "
            f"only {out.share:.0%}"
        )
        if found.learned < SELDOM_LESS:
            parts.append(
                f"the saved model predicts {100 * found.learned:.1f} % of its own labels right, "
                f"since its training was short or some of them are wrong: it is not taken to be "
                f"better on new images"
            )
    else:
        gain = 100 * found.learning_curve
        parts.append(f"{gain:+.1f} points as the saved model learns from more labels")
    if found.selection:
        less = -100 * found.selection
        parts.append(f"{less:+.1f} points as the best of several methods looks too good")
    if found.confidence is not None:
        parts.append(
            f"averaged with {100 * found.confidence:.1f} %, the mean confidence of the saved model "
            f"on images without a label"
        )
    parts.append(
        f"the {counted.sum()} labels count as about {found.effective:.0f} independent ones, since "
        f"one set of labels made all models"
    )
    parts.append(f"class shares {prior_how}")
    return "; ".join(parts)
