"""What labels and past results say of candidates: the rules by which `auto` selects.

What is compared is what was seen: all candidates predict the same images out of fold, after
training on the same labels. A difference that the labels show clearly decides. Past results on
other data sets (`past_results.prior`) only order the trying, and decide between methods that the
labels cannot tell apart.

Letters in shapes: n labelled images, M methods.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from handful import methods
from handful.evaluation.accuracy_estimate import DEPENDENCE_ONCE, effective_n
from handful.pipeline.auto.past_results import Normal, Prior

SIGNIFICANT = 1.645  # standard errors of a 90 % interval
# Assumed standard deviation of what another network changes: those of packages were not measured.
_OTHER_NETWORK = 0.15
_GIVEN_UP = 1.28  # standard errors: a candidate that wins in fewer than 1 of 10 cases is given up

Priors = Callable[[str, str], Prior]  # (method, reference) → belief about their difference


class Evidence(NamedTuple):
    """What the labels show of a method."""

    method: str
    right: np.ndarray  # (n,) 1 where the out-of-fold prediction is right, else 0
    groups: np.ndarray | None = None  # (n,) scenes; None: each image is one
    network: str = ""  # the backbone, where an installed package brings it
    members: tuple[str, ...] = ()  # of an ensemble: the methods that answer together

    @property
    def name(self) -> str:
        """The method, with the network of a package."""
        return f"{self.method} with {self.network}" if self.network else self.method

    def at(self, some: np.ndarray) -> "Evidence":
        """Return the evidence of some of the images, at positions or where a mask is true."""
        groups = None if self.groups is None else self.groups[some]
        return self._replace(right=self.right[some], groups=groups)


def paired_difference(one: Evidence, other: Evidence) -> Normal:
    """Return mean and standard error of the accuracy difference of two methods.

    One scene that only one method has right is added to the variance, so that two methods which
    agree on all images are not equal with certainty. The effective number of images is reduced,
    since out-of-fold predictions depend on each other, and the more so for images of one scene.

    Args:
        one, other: evidence on the same images.
    """
    difference = one.right - other.right
    n = len(difference)
    independent, scene = DEPENDENCE_ONCE * n, 1.0
    if one.groups is not None:
        independent = effective_n(difference, np.full(n, 1 / n), one.groups, repeats=1)
        scene = n / len(np.unique(one.groups))
    mean_square = (float((difference**2).sum()) + scene) / (n + scene)
    variance = mean_square - float(difference.mean()) ** 2
    return Normal(float(difference.mean()), math.sqrt(max(variance, 0.0) / independent))


def best_of(evidence: Sequence[Evidence]) -> Evidence:
    """Return the method with the most images right; the first of equal ones."""
    return max(evidence, key=lambda one: float(one.right.mean()))


def cannot_win(method: str, evidence: Sequence[Evidence], priors: Priors, network: str = "") -> str:
    """Return why a method is not worth an evaluation; empty where it may win.

    It is expected to differ from a method already seen as on other data sets.

    Args:
        network: with which it would be evaluated, as in `Evidence`.
    """
    seen_of = {(one.method, one.network): one for one in evidence}
    counterpart = methods.about(method).counterpart
    alike = [(counterpart, network), ("features", network), ("features", "")]
    reference = next((seen_of[one] for one in alike if one in seen_of), None)
    if reference is None:
        return ""
    leader = best_of(evidence)
    seen = paired_difference(reference, leader)
    belief = _belief(Evidence(method, reference.right, network=network), reference, priors)
    mean, sd = belief.mean + seen.mean, math.hypot(belief.sd, seen.sd)
    if leader is reference or mean + _GIVEN_UP * sd >= 0:
        return ""
    return (
        f"is not tried: {leader.name} is {-100 * seen.mean:.0f} points ahead of {reference.name}, "
        f"and {method} seldom gains as much"
    )


def _belief(one: Evidence, reference: Evidence, priors: Priors) -> Normal:
    """What other data sets say of the difference of two methods; nothing of other networks."""
    known = Normal(0.0, 0.0)
    if one.method != reference.method:
        known = priors(one.method, reference.method).belief
    if one.network == reference.network:
        return known
    return Normal(known.mean, math.hypot(known.sd, _OTHER_NETWORK))


def hopeless(one: Evidence, others: Sequence[Evidence], folds: int) -> str:
    """Return why a method is given up after some folds; empty where it may still win.

    Args:
        one, others: evidence on the images of these folds.
        folds: how many they are.
    """
    leader = best_of(others)
    seen = paired_difference(one, leader)
    if seen.mean + _GIVEN_UP * seen.sd >= 0:
        return ""
    after = "one of its folds" if folds == 1 else f"{folds} of its folds"
    return f"is given up after {after}: {-100 * seen.mean:.0f} points below {leader.name} there"


def select_by_evidence(evidence: Sequence[Evidence], priors: Priors) -> tuple[int, list[str]]:
    """Return the position of the selected method, and a verdict on each method.

    A method that is worse out of fold than the best one, by more than the standard error of the
    paired difference, is excluded. Among the others, the labels and past results decide together.
    An ensemble takes the place of its member that would be selected, unless it is excluded so.

    Args:
        evidence: simpler methods first, an ensemble last; all on the same images.
    """
    single = _single(evidence)
    reasons = _exclusions(single, priors)
    alone = _best_allowed(single, reasons, priors)
    best = _with_ensembles(alone, evidence)
    reasons += [_why_not_together(one, evidence[alone]) for one in evidence[len(single) :]]
    return best, [
        "chosen" if at == best else reasons[at] or _verdict_against(evidence[at], evidence[best])
        for at in range(len(evidence))
    ]


def selected(evidence: Sequence[Evidence], priors: Priors) -> int:
    """Return the position of the selected method, as `select_by_evidence`."""
    single = _single(evidence)
    alone = _best_allowed(single, _exclusions(single, priors), priors)
    return _with_ensembles(alone, evidence)


def _single(evidence: Sequence[Evidence]) -> list[Evidence]:
    """The evidence of all that are no ensemble."""
    return [one for one in evidence if not one.members]


def _with_ensembles(alone: int, evidence: Sequence[Evidence]) -> int:
    """Return the position of the ensemble that takes the place of the method selected alone.

    It is the position of that method where there is none, or it is worse.
    """
    one = evidence[alone]
    for at, both in enumerate(evidence):
        if both.members and not _why_not_together(both, one):
            return at
    return alone


def _best_allowed(evidence: Sequence[Evidence], reasons: Sequence[str], priors: Priors) -> int:
    first, *others = evidence
    scores = [0.0]
    for one in others:
        belief = _belief(one, first, priors)
        scores.append(belief.combined(paired_difference(one, first)).mean)
    allowed = [at for at, reason in enumerate(reasons) if not reason]
    return max(allowed, key=lambda at: scores[at])


def _exclusions(evidence: Sequence[Evidence], priors: Priors) -> list[str]:
    """Return why each method may not be selected; empty where it may."""
    reasons = [_why_unlabeled_unused(one, evidence, priors) for one in evidence]
    leader = best_of([one for one, reason in zip(evidence, reasons, strict=True) if not reason])
    return [
        reason or _why_seen_worse(one, leader)
        for one, reason in zip(evidence, reasons, strict=True)
    ]


def _why_unlabeled_unused(one: Evidence, evidence: Sequence[Evidence], priors: Priors) -> str:
    """Return why a method should not use the unlabelled images; empty where it may."""
    counterpart = methods.about(one.method).counterpart
    alike = (counterpart, one.network)
    simpler = [other for other in evidence if (other.method, other.network) == alike]
    if not simpler:
        return ""
    seen = paired_difference(one, simpler[0])
    if priors(one.method, simpler[0].method).belief.mean <= 0 and seen.mean <= seen.sd:
        return f"no sign that it is better than {counterpart}, here or on other data sets"
    return ""


def _why_seen_worse(one: Evidence, leader: Evidence) -> str:
    """Return why a method is excluded as worse than the leader out of fold; empty if it is not."""
    seen = paired_difference(one, leader)
    if seen.mean >= -seen.sd:
        return ""
    return f"{-100 * seen.mean:.0f} points below {leader.name} on the same images"


def _why_not_together(both: Evidence, alone: Evidence) -> str:
    """Return why an ensemble does not take the place of the method selected alone, or ""."""
    if alone.method not in both.members or alone.network:
        return f"{alone.name} is not in it, and was better alone than those that are"
    return _why_seen_worse(both, alone)


def _verdict_against(one: Evidence, best: Evidence) -> str:
    """Return how a method compares to the selected one, in points of accuracy."""
    seen = paired_difference(one, best)
    margin = 100 * SIGNIFICANT * seen.sd
    if abs(100 * seen.mean) <= margin:
        return f"as good as {best.name}, within {margin:.0f} points"
    if seen.mean > 0:
        return f"{100 * seen.mean:.0f} points above {best.name} here, far below it elsewhere"
    return f"{-100 * seen.mean:.0f} points below {best.name} on the same images"
