"""Select a method by cross-validation and past results, within a time budget.

All candidates predict the labelled images out of fold, on common folds, so that differences are
paired. With few labels a difference is uncertain: at 40 labels its standard error is about 6
points. It is therefore combined with past results on other data sets (`past_results.prior`), as
two normal distributions.

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
from handful.pipeline.run_folder import SavedFolds
from handful.pipeline.setup import prepare
from handful.progress import Reporter, Say
from handful.seeds import Stream
from handful.text import duration
from handful.training.plan import Plan
from handful.training.settings import Settings
from handful.training.trainer import extract_features

AUTO = "auto"
SIGNIFICANT = 1.645  # standard errors of a 90 % interval

_COMPARED_IMAGES = 2_000  # labelled, and unlabelled, images at most in the test of a pool shift
_MORE_FOLDS_UP_TO = 1_000  # labelled images up to which more folds of a head cost little
# The error of a network trained from scratch falls as a power of the number of labels (beyond the
# gain of a head on features, see `estimate`) and of steps. The gain varies between data sets, from
# none to twice the expected one; its standard deviation is taken as half of it.
_MORE_LABELS, _MORE_STEPS = 0.2, 0.2
_GAIN_SPREAD = 0.5


class Evaluated(NamedTuple):
    """A candidate with its out-of-fold predictions."""

    candidate: Candidate
    settings: Settings
    task: Task
    out: OutOfFold
    saved_folds: MutableMapping[Key, np.ndarray]
    seconds: float  # of the evaluation


class Selection(NamedTuple):
    """The selected method, all evaluated candidates, and a verdict on each."""

    selected: Evaluated
    evaluated: list[Evaluated]
    verdicts: list[str]  # one for each of `evaluated`

    @property
    def others(self) -> list[OutOfFold]:
        """Out-of-fold predictions of the candidates that were not selected."""
        return [other.out for other in self.evaluated if other is not self.selected]


def paired_difference(right: np.ndarray, other: np.ndarray) -> Normal:
    """Return mean and standard error of the accuracy difference of two methods.

    One image that only one method has right is added to the variance, so that two methods which
    agree on all images are not equal with certainty. The effective number of images is reduced,
    since out-of-fold predictions depend on each other.

    Args:
        right, other: (n,) 1 where the method predicts the image rightly, else 0.
    """
    difference = right - other
    n = len(difference)
    variance = (float((difference**2).sum()) + 1) / (n + 1) - float(difference.mean()) ** 2
    return Normal(float(difference.mean()), math.sqrt(max(variance, 0.0) / (DEPENDENCE_ONCE * n)))


class Evidence(NamedTuple):
    """What the labels show of a method."""

    method: str
    right: np.ndarray  # (n,) 1 where the out-of-fold prediction is right, else 0
    gain: float = 0.0  # expected gain in accuracy of the last fit over the folds


def _gain(candidate: Candidate, right: np.ndarray) -> float:
    """Return the expected gain in accuracy of the last fit of a network over its folds.

    The last fit has more labels and steps. Heads on features gain less by more labels; the result
    is the difference to their gain.
    """
    if not candidate.fold_steps or not candidate.plan.steps:
        return 0.0
    labels, steps = 1 - 1 / FOLDS.folds, candidate.fold_steps / candidate.plan.steps
    wrong = 1 - float(right.mean())
    return wrong * (1 - labels**_MORE_LABELS * steps**_MORE_STEPS)


def _evidence(evaluated: Evaluated, counted: np.ndarray) -> Evidence:
    """Return the evidence for a candidate on the labelled images where (n,) `counted` is true."""
    right = evaluated.out.right[counted]
    return Evidence(evaluated.candidate.method, right, _gain(evaluated.candidate, right))


def expected_difference(one: Evidence, other: Evidence) -> Normal:
    """Return the expected difference in accuracy of the last fits, as the labels show it."""
    seen, gain = paired_difference(one.right, other.right), one.gain - other.gain
    return Normal(seen.mean + gain, math.hypot(seen.sd, _GAIN_SPREAD * gain))


def select_by_evidence(
    evidence: Sequence[Evidence], priors: Callable[[str, str], Prior]
) -> tuple[int, list[str]]:
    """Return the position of the selected method, and a verdict on each method.

    A method that is worse out of fold than the best one, by more than the standard error of the
    paired difference, is excluded. Among the others, the labels, the expected gain of the last fit
    and past results decide together.

    Args:
        evidence: simpler methods first, all on the same images.
        priors: (method, reference) → prior belief about their difference.
    """
    first, *others = evidence
    scores = [0.0]
    for one in others:
        prior = priors(one.method, first.method).belief
        scores.append(prior.combined(expected_difference(one, first)).mean)
    reasons = [_why_harmful(one, evidence, priors) for one in evidence]
    harmless = [one for one, reason in zip(evidence, reasons, strict=True) if not reason]
    leader = max(harmless, key=lambda one: float(one.right.mean()))
    reasons = [
        reason or _why_seen_worse(one, leader)
        for one, reason in zip(evidence, reasons, strict=True)
    ]
    allowed = [at for at, reason in enumerate(reasons) if not reason]
    best = max(allowed, key=lambda at: scores[at])
    return best, [
        "chosen" if at == best else reasons[at] or _verdict_against(evidence[at], evidence[best])
        for at in range(len(evidence))
    ]


def _why_harmful(
    one: Evidence, evidence: Sequence[Evidence], priors: Callable[[str, str], Prior]
) -> str:
    """Return why a method should not use the unlabelled images; empty where it may."""
    simpler = [other for other in evidence if other.method == methods.about(one.method).counterpart]
    if not simpler:
        return ""
    name, seen = simpler[0].method, expected_difference(one, simpler[0])
    labels = paired_difference(one.right, simpler[0].right)
    if seen.mean < -seen.sd and labels.mean <= labels.sd:
        return (
            f"left: {-100 * seen.mean:.1f} points below {name}, which needs no unlabelled images; "
            f"more than the standard error of {100 * seen.sd:.1f}"
        )
    prior = priors(one.method, name)
    if prior.belief.mean <= 0 and labels.mean <= labels.sd:
        return f"left: neither the labels nor other data sets say that it is better than {name}"
    return ""


def _why_seen_worse(one: Evidence, leader: Evidence) -> str:
    """Return why a method is excluded as worse than the leader out of fold; empty if it is not."""
    seen = paired_difference(one.right, leader.right)
    if seen.mean >= -seen.sd:
        return ""
    return (
        f"left: {-100 * seen.mean:.1f} points below {leader.method} out of fold, more than the "
        f"standard error of {100 * seen.sd:.1f}; no expected gain outweighs that"
    )


def _verdict_against(one: Evidence, best: Evidence) -> str:
    """Return how a method compares to the selected one, in points of accuracy."""
    seen, gain = expected_difference(one, best), one.gain - best.gain
    low, high = (100 * (seen.mean + side * SIGNIFICANT * seen.sd) for side in (-1, 1))
    by = f"{100 * seen.mean:+.1f} points, 90 % interval {low:+.1f} to {high:+.1f}"
    if gain:
        by += f"; {100 * gain:+.1f} of them expected of more labels and steps"
    if abs(seen.mean) <= SIGNIFICANT * seen.sd:
        return f"cannot be told apart from {best.method} by these labels ({by})"
    if seen.mean > 0:
        return f"better here ({by}), but much worse on other data sets"
    return f"worse than {best.method} ({by})"


def select_method(
    images: ImageSet,
    budget: float,
    seed: int,
    origins: Sequence[str],
    work: Path | None,
    inputs: InputSpec,
    reporter: Reporter,
) -> Selection:
    """Evaluate all candidates that fit into the budget on common folds, and select one.

    Args:
        images: without a test part.
        budget: seconds.
        origins: of the labels, as in `estimate`: chosen labels do not count.
        work: folder for the plan and the predictions of each candidate, so that an interrupted
            selection resumes; None saves nothing.
        inputs: as for `prepare`.
    """
    candidates = _read_or_make_plan(images, budget, seed, inputs, work, reporter)
    evaluated = [_evaluate(one, images, seed, inputs, work, reporter) for one in candidates]
    counted, _ = countable(len(images.labeled), origins)
    used = counted if counted.any() else np.ones_like(counted)
    evidence = [_evidence(one, used) for one in evaluated]
    shifted = _has_pool_shift(evaluated, seed, reporter.say)
    best, verdicts = select_by_evidence(evidence, prior_for(images, shifted))
    return Selection(evaluated[best], evaluated, verdicts)


def _read_or_make_plan(
    images: ImageSet,
    budget: float,
    seed: int,
    inputs: InputSpec,
    work: Path | None,
    reporter: Reporter,
) -> list[Candidate]:
    """Return the planned candidates and report them; an interrupted run reads its plan."""
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


def _evaluate(
    candidate: Candidate,
    images: ImageSet,
    seed: int,
    inputs: InputSpec,
    work: Path | None,
    reporter: Reporter,
) -> Evaluated:
    """Cross-validate a candidate; finished folds are read from `work`."""
    begun = time.perf_counter()
    steps = {"steps": str(candidate.plan.steps)} if candidate.plan.steps is not None else {}
    candidate_inputs = replace(inputs, size=candidate.size, precision=candidate.plan.precision)
    settings, task = prepare(
        images,
        candidate.method,
        backbone=candidate.backbone,
        settings=candidate.settings | steps,
        inputs=candidate_inputs,
        track=reporter.track,
    )
    folder = work / candidate.method if work is not None else None
    if folder is not None:
        folder.mkdir(exist_ok=True)
    saved_folds: MutableMapping[Key, np.ndarray] = {} if folder is None else SavedFolds(folder)
    fold_settings = settings
    if settings.schedule is not None and candidate.fold_steps is not None:
        fold_settings = replace(
            settings, schedule=replace(settings.schedule, steps=candidate.fold_steps)
        )
    planned = replace(candidate.plan, allowed=candidate.fold_seconds)
    predictor = fold_predictor(fold_settings, task, seed, planned, folder, reporter.say)
    out = predicted_out_of_fold(task, predictor, FOLDS, seed, saved_folds)
    seconds = time.perf_counter() - begun
    if folder is not None:
        seconds_file = folder / "seconds.json"
        if not seconds_file.exists():
            write_json(seconds_file, seconds)
        seconds = read_json(seconds_file)
    return Evaluated(candidate, settings, task, out, saved_folds, seconds)


def _has_pool_shift(evaluated: Sequence[Evaluated], seed: int, say: Say) -> bool:
    """Return whether the unlabelled images are unlike the labelled ones, and report it.

    Only features that a candidate has already computed are compared; else the answer is False.
    """
    for candidate in evaluated:
        if isinstance(candidate.settings.method, SelfTraining):
            images, precision = candidate.task.images, candidate.candidate.plan.precision
            known, pool = extract_features(
                candidate.settings.method, candidate.task, precision, seed
            )
            sample = seeds.generator(seed, Stream.POOL_SHIFT).permutation(len(known))[
                :_COMPARED_IMAGES
            ]
            groups = None if images.groups is None else images.groups[images.labeled[sample]]
            share = pool_shift(known[sample], subsample(pool, _COMPARED_IMAGES, seed), groups)
            if share > POOL_SHIFT:
                say(
                    f"the images without a label look unlike the labelled ones: in {share:.0%} of "
                    f"comparisons (50% by chance) the labelled image is nearer to another labelled "
                    f"one. Some may be of none of the classes. Past results on data sets without "
                    f"such images are not used"
                )
            return share > POOL_SHIFT
    return False


def with_more_folds(selected: Evaluated, seed: int) -> OutOfFold:
    """Return predictions of more folds of the selected method, if they cost little.

    The estimate becomes more precise. Else its own predictions are returned.
    """
    if selected.candidate.method != "features" or len(selected.out.labels) > _MORE_FOLDS_UP_TO:
        return selected.out
    predictor = fold_predictor(selected.settings, selected.task, seed, selected.candidate.plan)
    return predicted_out_of_fold(selected.task, predictor, THOROUGH, seed, selected.saved_folds)
