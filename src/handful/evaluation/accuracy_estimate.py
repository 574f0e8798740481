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
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from handful.errors import HandfulError
from handful.evaluation.calibration import Abstention, abstentions, calibrated, fit_temperature
from handful.evaluation.cross_validation import OutOfFold
from handful.evaluation.metrics import wilson

# Errors of one draw go together, because one set of labels made the models: n images tell as
# much as this share of n independent ones. Chosen by simulation, see benchmarks/LOG.md.
DEPENDENCE = 0.6
# The same where every image was predicted once: chance in that one dealing, and in the training
# of a network, is not averaged out. And how the share of wrong answers is then taken to fall, as
# this power of the number of labels: too few fits to see it. Both from development draws.
DEPENDENCE_ONCE = 0.4
USUAL_SLOPE = 0.5
BY_HAND = "the classes look balanced by hand; if they are not as common in new images, give --prior"
FEWEST_PER_CLASS = 5  # labels of a class below which nothing is said of it alone


class ClassEstimate(NamedTuple):
    label: int
    n: int
    recall: float
    low: float
    high: float


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
        abstentions=abstentions(
            calibrated(out.probabilities[:, counted], temperature), out.labels[counted]
        ),
        caveats=caveats,
    )


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
