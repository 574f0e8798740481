"""Choosing a method: a plan that fits the time, evidence from labels, and what was known before.

Every candidate predicts the labelled images out of fold, on the same folds, so that differences
are paired. With few labels such a difference alone cannot choose: at 40 labels its spread is about
6 points. It is therefore combined with what the two methods did on other data sets
(`past_results.prior`, from our own results), as two normal distributions are.

Letters in shapes: n labelled images, K classes.
"""

import math
import time
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from handful import methods, seeds
from handful.data.imageset import ImageSet
from handful.evaluation.accuracy_estimate import DEPENDENCE_ONCE, countable
from handful.evaluation.cross_validation import THOROUGH, Key, OutOfFold
from handful.evaluation.novelty import POOL_SHIFT, pool_shift
from handful.files import read_json, write_json
from handful.methods.base import Task
from handful.methods.heads import subsample
from handful.methods.self_training import SelfTraining
from handful.pipeline.auto.candidates import Candidate, plan_candidates
from handful.pipeline.auto.past_results import Normal, Prior, prior_for
from handful.pipeline.cross_validate import FOLDS, fold_predictor, predicted_out_of_fold
from handful.pipeline.options import InputSpec
from handful.pipeline.run_folder import Finished
from handful.pipeline.setup import prepare
from handful.progress import Reporter, Say
from handful.seeds import Stream
from handful.text import duration
from handful.training.plan import Plan
from handful.training.settings import Settings
from handful.training.trainer import extract_features

AUTO = "auto"
TOLD_APART = 1.645  # standard errors: nine in ten

_SAMPLE = 2_000  # labelled and unlabelled images, at most, that are compared
_CHEAP = 1_000  # labelled images up to which more folds of a head cost little
# What a network trained from nothing gains from more of something, as the power by which its wrong
# answers fall: of labels, beyond what a head on features gains (see `estimate`), and of steps. From
# one data set to another the gain is anything from none to twice that; half of it is its spread.
_MORE_LABELS, _MORE_STEPS = 0.2, 0.2
_GAIN_SPREAD = 0.5


class Tried(NamedTuple):
    """A candidate and what came of it."""

    candidate: Candidate
    chosen: Settings
    task: Task
    out: OutOfFold
    finished: MutableMapping[Key, np.ndarray]
    seconds: float


class Choice(NamedTuple):
    """The method to fit on all labels, and why."""

    winner: Tried
    tried: list[Tried]
    verdicts: list[str]  # one for each of `tried`

    @property
    def rivals(self) -> list[OutOfFold]:
        return [other.out for other in self.tried if other is not self.winner]


def paired(right: np.ndarray, other: np.ndarray) -> Normal:
    """Mean and standard error of the difference of two methods on the same (n,) images.

    To the spread an image is added that only one of them has right, so that methods which agree on
    all images are not taken for equal with certainty; and images tell less than independent ones.
    """
    difference = right - other
    n = len(difference)
    variance = (float((difference**2).sum()) + 1) / (n + 1) - float(difference.mean()) ** 2
    return Normal(float(difference.mean()), math.sqrt(max(variance, 0.0) / (DEPENDENCE_ONCE * n)))


class Evidence(NamedTuple):
    """A method for the choice: its name, and the (n,) images it has right out of fold."""

    method: str
    right: np.ndarray
    gain: float = 0.0  # in accuracy, that its last fit is expected to have over its folds


def _gain(candidate: Candidate, right: np.ndarray) -> float:
    """What the last fit of a network gains by more labels and steps than its folds had.

    Heads on features gain less by more labels; what counts is the difference.
    """
    if not candidate.fold_steps or not candidate.plan.steps:
        return 0.0
    labels, steps = 1 - 1 / FOLDS.folds, candidate.fold_steps / candidate.plan.steps
    wrong = 1 - float(right.mean())
    return wrong * (1 - labels**_MORE_LABELS * steps**_MORE_STEPS)


def _evidence(tried: Tried, counted: np.ndarray) -> Evidence:
    """By the (n,) bool `counted` of the labelled images."""
    right = tried.out.right[counted]
    return Evidence(tried.candidate.method, right, _gain(tried.candidate, right))


def compared(this: Evidence, other: Evidence) -> Normal:
    """How much more accurate the last fit of `this` is than that of `other`, by the labels."""
    seen, gain = paired(this.right, other.right), this.gain - other.gain
    return Normal(seen.mean + gain, math.hypot(seen.sd, _GAIN_SPREAD * gain))


def decide(
    evidence: Sequence[Evidence], priors: Callable[[str, str], Prior]
) -> tuple[int, list[str]]:
    """The position of the method to take, and a verdict on each.

    What the labels show comes first: a method that they show to be worse than the best one out of
    fold, by more than the standard error of the difference, is not taken. Among the others decide
    the labels, what the last fit is expected to gain, and other data sets together.

    Args:
        evidence: simpler methods first; on the same images.
        priors: (method, reference) → what is believed of their difference beforehand.
    """
    first, *others = evidence
    scores = [0.0]
    for this in others:
        before = priors(this.method, first.method).belief
        scores.append(before.combined(compared(this, first)).mean)
    reasons = [_harm(this, evidence, priors) for this in evidence]
    harmless = [this for this, reason in zip(evidence, reasons, strict=True) if not reason]
    ahead = max(harmless, key=lambda this: float(this.right.mean()))
    reasons = [
        reason or _seen_worse(this, ahead) for this, reason in zip(evidence, reasons, strict=True)
    ]
    allowed = [at for at, reason in enumerate(reasons) if not reason]
    best = max(allowed, key=lambda at: scores[at])
    return best, [
        "chosen" if at == best else reasons[at] or _behind(evidence[at], evidence[best])
        for at in range(len(evidence))
    ]


def _harm(this: Evidence, evidence: Sequence[Evidence], priors: Callable[[str, str], Prior]) -> str:
    """Why unlabelled images are better left unused; nothing where they may be used."""
    simpler = [
        other for other in evidence if other.method == methods.about(this.method).counterpart
    ]
    if not simpler:
        return ""
    name, seen = simpler[0].method, compared(this, simpler[0])
    labels = paired(this.right, simpler[0].right)
    if seen.mean < -seen.sd and labels.mean <= labels.sd:
        return (
            f"left: {-100 * seen.mean:.1f} points below {name}, which needs no unlabelled images; "
            f"more than the standard error of {100 * seen.sd:.1f}"
        )
    before = priors(this.method, name)
    if before.belief.mean <= 0 and labels.mean <= labels.sd:
        return f"left: neither the labels nor other data sets say that it is better than {name}"
    return ""


def _seen_worse(this: Evidence, ahead: Evidence) -> str:
    """Why no expected gain and no experience speak for `this`; nothing where they may."""
    seen = paired(this.right, ahead.right)
    if seen.mean >= -seen.sd:
        return ""
    return (
        f"left: {-100 * seen.mean:.1f} points below {ahead.method} out of fold, more than the "
        f"standard error of {100 * seen.sd:.1f}; no expected gain outweighs that"
    )


def _behind(this: Evidence, best: Evidence) -> str:
    seen, gain = compared(this, best), this.gain - best.gain
    low, high = (100 * (seen.mean + side * TOLD_APART * seen.sd) for side in (-1, 1))
    by = f"{100 * seen.mean:+.1f} points, 90 % interval {low:+.1f} to {high:+.1f}"
    if gain:
        by += f"; {100 * gain:+.1f} of them expected of more labels and steps"
    if abs(seen.mean) <= TOLD_APART * seen.sd:
        return f"cannot be told apart from {best.method} by these labels ({by})"
    if seen.mean > 0:
        return f"better here ({by}), but much worse on other data sets"
    return f"worse than {best.method} ({by})"


def choose(
    images: ImageSet,
    budget: float,
    seed: int,
    origins: Sequence[str],
    work: Path | None,
    inputs: InputSpec,
    reporter: Reporter,
) -> Choice:
    """Try every candidate on the same folds and choose.

    Args:
        images: without a test part.
        origins: of the labels, as in `estimate`: chosen ones do not count.
        work: where the plan and what each candidate predicted are kept, so that a killed choice
            goes on; None keeps nothing.
        inputs: as for `prepare`.
    """
    candidates = _planned(images, budget, seed, inputs, work, reporter)
    tried = [_try(this, images, seed, inputs, work, reporter) for this in candidates]
    counted, _ = countable(len(images.labeled), origins)
    some = counted if counted.any() else np.ones_like(counted)
    evidence = [_evidence(this, some) for this in tried]
    pool_shifted = _pool_shifted(tried, seed, reporter.say)
    best, verdicts = decide(evidence, prior_for(images, pool_shifted))
    return Choice(tried[best], tried, verdicts)


def _planned(
    images: ImageSet,
    budget: float,
    seed: int,
    inputs: InputSpec,
    work: Path | None,
    reporter: Reporter,
) -> list[Candidate]:
    """The plan, made once and said; an interrupted run reads its own again."""
    path = work / "candidates.json" if work is not None else None
    if path is not None and path.exists():
        rows = read_json(path)
        candidates = [Candidate(**row | {"plan": Plan(**row["plan"])}) for row in rows]
    else:
        reporter.say(f"measuring what fits into {duration(budget)}")
        candidates = plan_candidates(images, budget, seed, inputs, reporter)
        if path is not None:
            write_json(path, [asdict(candidate) for candidate in candidates])
    total = sum(candidate.seconds for candidate in candidates)
    for line in (f"the plan, about {duration(total)}:", *(c.text for c in candidates)):
        reporter.say(line)
    return candidates


def _try(
    this: Candidate,
    images: ImageSet,
    seed: int,
    inputs: InputSpec,
    work: Path | None,
    reporter: Reporter,
) -> Tried:
    """Predict the labelled images out of fold; folds that are there already are read back."""
    begun = time.perf_counter()
    steps = {"steps": str(this.plan.steps)} if this.plan.steps is not None else {}
    at = replace(inputs, size=this.size, precision=this.plan.precision)
    chosen, task = prepare(
        images,
        this.method,
        backbone=this.backbone,
        settings=this.settings | steps,
        inputs=at,
        track=reporter.track,
    )
    folder = work / this.method if work is not None else None
    if folder is not None:
        folder.mkdir(exist_ok=True)
    finished: MutableMapping[Key, np.ndarray] = {} if folder is None else Finished(folder)
    in_folds = chosen
    if chosen.schedule is not None and this.fold_steps is not None:
        in_folds = replace(chosen, schedule=replace(chosen.schedule, steps=this.fold_steps))
    planned = replace(this.plan, allowed=this.fold_seconds)
    predictor = fold_predictor(in_folds, task, seed, planned, folder, reporter.say)
    out = predicted_out_of_fold(task, predictor, FOLDS, seed, finished)
    seconds = time.perf_counter() - begun
    if folder is not None:
        spent = folder / "seconds.json"
        if not spent.exists():
            write_json(spent, seconds)
        seconds = read_json(spent)
    return Tried(this, chosen, task, out, finished, seconds)


def _pool_shifted(tried: Sequence[Tried], seed: int, say: Say) -> bool:
    """Whether the unlabelled images are of other kinds, where features tell; it is said.

    Features that the choice has not computed are not computed for this.
    """
    for this in tried:
        if isinstance(this.chosen.method, SelfTraining):
            images, precision = this.task.images, this.candidate.plan.precision
            known, pool = extract_features(this.chosen.method, this.task, precision, seed)
            some = seeds.generator(seed, Stream.POOL_SHIFT).permutation(len(known))[:_SAMPLE]
            groups = None if images.groups is None else images.groups[images.labeled[some]]
            share = pool_shift(known[some], subsample(pool, _SAMPLE, seed), groups)
            if share > POOL_SHIFT:
                say(
                    f"the images without a label look unlike the labelled ones: in {share:.0%} of "
                    f"comparisons (50% by chance) the labelled image is nearer to another labelled "
                    f"one. Some may be of none of the classes. What such images brought on data "
                    f"sets without strangers is not counted on"
                )
            return share > POOL_SHIFT
    return False


def thorough(winner: Tried, seed: int) -> OutOfFold:
    """More folds of the method that was chosen, where they cost little: the estimate gains."""
    if winner.candidate.method != "features" or len(winner.out.labels) > _CHEAP:
        return winner.out
    predictor = fold_predictor(winner.chosen, winner.task, seed, winner.candidate.plan)
    return predicted_out_of_fold(winner.task, predictor, THOROUGH, seed, winner.finished)
