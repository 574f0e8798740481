"""Choosing a method: a plan that fits the time, evidence from labels, and what was known before.

Every candidate predicts the labelled images out of fold, on the same folds, so that differences
are paired. With few labels such a difference alone cannot choose: at 40 labels its spread is about
6 points. It is therefore combined with what the two methods did on other data sets
(`experience.json`, made from our own results, see `prior`), as two normal distributions are.

Letters in shapes: n labelled images, K classes.
"""

import json
import math
import time
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import mannwhitneyu
from torch import Tensor

from handful.budget import embedding_seconds, measured
from handful.data.imageset import ImageSet
from handful.estimate import (
    DEPENDENCE_ONCE,
    THOROUGH,
    Key,
    OutOfFold,
    countable,
)
from handful.features import SIZES
from handful.files import read_json, write_json
from handful.folder import Finished
from handful.learn import (
    FOLDS,
    Say,
    Settings,
    embedded,
    fold_predictor,
    make_plan,
    predicted_out_of_fold,
)
from handful.methods.base import Task
from handful.methods.heads import some_of
from handful.methods.self_training import SelfTraining
from handful.prepare import prepare
from handful.train import Plan
from handful.wording import duration

AUTO = "auto"
BUDGET = 180.0  # seconds, where none is given
# The labels-only method that a method with unlabelled images must not be worse than.
COUNTERPART = {"self_training": "features", "fine_tuning": "features"}
# Methods on the same features: what tells them apart elsewhere does so whatever the colour.
FROZEN = ("features", "self_training", "propagation")
TOLD_APART = 1.645  # standard errors: nine in ten

# Shares of the time that features of all images may take: where they lead on other data sets, and
# where a network trained from nothing does.
_FIRST, _SECOND = 0.6, 0.25
# Unlabelled images are taken for images of other kinds where `unlike` is above this, and not by
# chance. Labels balanced by hand beside an unbalanced pool make up to 0.65.
_UNLIKE, _CHANCE = 0.7, 1e-3
_SAMPLE = 2_000  # labelled and unlabelled images, at most, that are compared
_SMALLEST = 96  # pixels a side for features
_FEWEST = 0.1  # of a method's own steps that folds must be worth
_PILOT = 2.0  # seconds that a step is measured for
# Seconds of all self-trainings for each unlabelled image, on two cores.
_GUESS_OF_ALL = (FOLDS.folds + 1) * 6e-4
# Seconds of a linear head on features are so many times n * min(n, features), on one core.
_HEAD, _WIDTH = 1e-6, 1_792
_CHEAP = 1_000  # labelled images up to which more folds of a head cost little
_LEAST_FINE_TUNING = 480.0  # seconds that must be left for it
_FINE_TUNING_SIZE = 96
_LARGEST_POOL, _LEAST_POOL = 50_000, 1_000  # unlabelled images that self-training may use
_WORTH_SAYING = 1.0  # seconds

# Between data sets a difference of two methods varies; a guess that counts as one data set. What a
# single one showed is not experience yet.
_SPREAD = 0.1
_GUESSED = 1
_LEAST_SOURCES = 2
# What a network trained from nothing gains from more of something, as the power by which its wrong
# answers fall: of labels, beyond what a head on features gains (see `estimate`), and of steps.
_MORE_LABELS, _MORE_STEPS = 0.2, 0.2


@dataclass(frozen=True)
class Candidate:
    """A method with the network, the size and the training that it is tried with."""

    method: str
    backbone: str
    size: int
    settings: dict[str, str]
    seconds: float  # expected, of its folds and of a last fit on all labels
    plan: Plan  # `plan.steps`: of the last fit; None for a method that is fitted to features
    fold_steps: int | None = None  # of the fits for the folds

    @property
    def text(self) -> str:
        """What is done and how long it takes, in a line of the plan."""
        steps = f", {self.plan.steps} steps ({self.fold_steps} in folds)" if self.plan.steps else ""
        how = f"{self.backbone} at {self.size} pixels{steps}"
        return f"  {self.method} with {how}: about {duration(self.seconds)}"


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


class Normal(NamedTuple):
    """What is believed of a difference of accuracies."""

    mean: float
    sd: float

    def combined(self, other: "Normal") -> "Normal":
        """Both beliefs together, weighted by their precisions."""
        weight = other.sd**2 / (self.sd**2 + other.sd**2)
        sd = self.sd * other.sd / math.hypot(self.sd, other.sd)
        return Normal(weight * self.mean + (1 - weight) * other.mean, sd)


class Prior(NamedTuple):
    """A belief before any evidence, and how many data sets it rests on."""

    belief: Normal
    sources: int


@cache
def experience() -> list[dict[str, Any]]:
    """Rows of source, channels, per_class, method and accuracy (see benchmarks/experience.py)."""
    rows: list[dict[str, Any]] = json.loads(
        files("handful").joinpath("experience.json").read_text()
    )
    return rows


def prior(
    method: str,
    reference: str,
    channels: int,
    per_class: float,
    without: str = "",
    rows: Sequence[dict[str, Any]] | None = None,
    mixed: bool = False,
) -> Prior:
    """How much more accurate `method` is than `reference` on a new data set of that colour.

    Two methods on the same frozen features are compared whatever the colour, and where one of them
    uses unlabelled images, only on data sets whose unlabelled images are as these are.

    Of every data set the number of labels that is nearest counts: unlabelled images help where
    labels are very few, and stop helping where there are many. The mean over data sets is drawn
    to 0 as by one more in which they are equal, and the spread between them to `_SPREAD`.

    Args:
        per_class: labels per class at hand, in the mean.
        without: the data set at hand: it may not vote.
        mixed: whether the unlabelled images are unlike the labelled ones, see `unlike`.
    """
    any_colour = method in FROZEN and reference in FROZEN
    any_pool = not {method, reference} & COUNTERPART.keys()
    accuracy: dict[tuple[str, int], dict[str, float]] = {}
    for row in experience() if rows is None else rows:
        alike = any_colour or row["channels"] == channels
        alike &= any_pool or row["mixed"] == mixed
        if alike and row["source"] != without:
            cell = accuracy.setdefault((row["source"], row["per_class"]), {})
            cell[row["method"]] = row["accuracy"]
    found: dict[str, dict[float, list[float]]] = {}  # source → how far in labels → differences
    for (source, labels), cell in accuracy.items():
        if method in cell and reference in cell:
            far = round(abs(math.log(labels / per_class)), 6)
            at_distance = found.setdefault(source, {}).setdefault(far, [])
            at_distance.append(cell[method] - cell[reference])
    differences = np.array([np.mean(cells[min(cells)]) for cells in found.values()])
    if len(differences) < _LEAST_SOURCES:
        differences = differences[:0]
    k = len(differences)
    mean = float(differences.sum() / (k + _GUESSED))
    apart = float(((differences - mean) ** 2).sum()) + _GUESSED * (_SPREAD**2 + mean**2)
    variance = apart / (k + _GUESSED)
    return Prior(Normal(mean, math.sqrt(variance * (1 + 1 / (k + _GUESSED)))), k)


def _prior_for(images: ImageSet, mixed: bool = False) -> Callable[[str, str], Prior]:
    """(method, reference) → `prior` for these images."""
    per_class = max(1.0, len(images.labeled) / len(images.classes))
    source, channels = Path(images.source).name, images.channels
    return lambda method, reference: prior(
        method, reference, channels, per_class, source, mixed=mixed
    )


def unlike(labeled: Tensor, unlabeled: Tensor, groups: np.ndarray | None = None) -> float:
    """Whether the unlabelled images are of other kinds than the labelled ones.

    The share of comparisons in which a labelled image has a more similar labelled neighbour than
    an unlabelled image has: a half where both are drawn alike (Mann-Whitney). One label per class
    tells nothing: no labelled image has a neighbour of its class then.

    Args:
        labeled: (n, D) features, n of 2 or more; unlabeled: (M, D).
        groups: (n,) of the labelled images: those of one group are no neighbours.
    """
    n = len(labeled)
    both = torch.cat([labeled, unlabeled]).float()
    unit = F.normalize(both - both.mean(dim=0))
    similarity = unit @ unit[:n].T  # (n + M, n)
    own = np.arange(n) if groups is None else groups
    similarity[:n][torch.from_numpy(own[:, None] == own)] = -torch.inf
    # Each labelled image has one neighbour fewer, so each of the others does without one, too.
    rows = torch.arange(len(unlabeled))
    similarity[n + rows, rows % n] = -torch.inf
    nearest = similarity.amax(dim=1).numpy()
    found = mannwhitneyu(nearest[:n], nearest[n:], alternative="greater")
    return float(found.statistic) / (n * len(unlabeled)) if found.pvalue < _CHANCE else 0.5


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
    seen = paired(this.right, other.right)
    return seen._replace(mean=seen.mean + this.gain - other.gain)


def decide(
    evidence: Sequence[Evidence], priors: Callable[[str, str], Prior]
) -> tuple[int, list[str]]:
    """The position of the method to take, and a verdict on each.

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
    allowed = [at for at, reason in enumerate(reasons) if not reason]
    best = max(allowed, key=lambda at: scores[at])
    return best, [
        "chosen" if at == best else reasons[at] or _behind(evidence[at], evidence[best])
        for at in range(len(evidence))
    ]


def _harm(this: Evidence, evidence: Sequence[Evidence], priors: Callable[[str, str], Prior]) -> str:
    """Why unlabelled images are better left unused; nothing where they may be used."""
    simpler = [other for other in evidence if other.method == COUNTERPART.get(this.method)]
    if not simpler:
        return ""
    name, seen = simpler[0].method, compared(this, simpler[0])
    if seen.mean < -seen.sd:
        return (
            f"left: {-100 * seen.mean:.1f} points below {name}, which needs no unlabelled images; "
            f"more than the standard error of {100 * seen.sd:.1f}"
        )
    before = priors(this.method, name)
    if before.belief.mean <= 0 and seen.mean <= seen.sd:
        return f"left: neither the labels nor other data sets say that it is better than {name}"
    return ""


def _behind(this: Evidence, best: Evidence) -> str:
    seen = compared(this, best)
    by = f"{100 * seen.mean:+.1f} ± {100 * seen.sd:.1f} points"
    if abs(seen.mean) <= TOLD_APART * seen.sd:
        return f"cannot be told apart from {best.method} by these labels ({by})"
    if seen.mean > 0:
        return f"better here ({by}), but much worse on other data sets"
    return f"worse than {best.method} ({by})"


def plan_candidates(
    images: ImageSet, budget: float, seed: int, look: dict[str, Any], say: Say
) -> list[Candidate]:
    """The candidates that fit into `budget` seconds, simple ones first.

    Args:
        look: size, aspect, flips, precision and track, as for `prepare`.
    """
    ends = time.perf_counter() + budget
    found: list[Candidate] = []

    def left() -> float:
        return ends - time.perf_counter() - sum(candidate.seconds for candidate in found)

    # On a slow machine most of the time is for the one that is better on other data sets.
    known = _prior_for(images)("supervised", "features")
    share = _SECOND if known.belief.mean > 0 else _FIRST
    frozen, rest = _on_features(images, share * budget, seed, look, say)
    found += frozen
    found += _trained("supervised", images, left(), seed, look, {}, say)
    if images.channels == 3 and frozen and left() - rest >= _LEAST_FINE_TUNING:
        fixed = {"embed_size": str(frozen[0].size)}
        at = look | {"size": look["size"] or _FINE_TUNING_SIZE}
        found += _trained("fine_tuning", images, left() - rest, seed, at, fixed, say)
    if not found:
        raise ValueError(
            f"no method can be judged within {duration(budget)}; give a larger budget, or name a "
            f"method"
        )
    return found


def _on_features(
    images: ImageSet, allowed: float, seed: int, look: dict[str, Any], say: Say
) -> tuple[list[Candidate], float]:
    """`features` and `self_training`, which share them, within the seconds allowed.

    At the largest size at which features of some unlabelled images fit, too; where there is none,
    those of the labelled ones at the largest size that fits.

    Returns:
        the candidates, and seconds for the features of all other images at their size.
    """
    chosen, task = prepare(images, "features", **look)
    plan = make_plan(chosen, task, seed)
    sizes = [] if look["size"] else [size for size in SIZES if _SMALLEST <= size < task.size]
    pool, n, found = len(images.unlabeled), len(images.labeled), None
    heads = (FOLDS.folds + 1) * _HEAD * n * min(n, _WIDTH)
    for size in (task.size, *sizes):
        at = replace(task, size=size)
        labeled = embedding_seconds(replace(at, images=at.images[images.labeled]), plan.precision)
        labeled += heads
        if labeled > allowed:
            continue
        whole = max(labeled, embedding_seconds(at, plan.precision) + heads)
        each = (whole - labeled) / pool if pool else 0.0
        used = min(pool, _LARGEST_POOL, int((allowed - labeled) / (each + _GUESS_OF_ALL)))
        used = used if used >= min(pool, _LEAST_POOL) else 0
        if found is None or used:
            found = (size, labeled, used, used * each, whole - labeled - used * each)
        if used or not pool:
            break
    if found is None:
        say(
            f"features of a pre-trained network, and heads on them, would take about "
            f"{duration(labeled)}: left out"
        )
        return [], 0.0
    size, labeled, used, embedding, rest = found
    candidates = [Candidate("features", "lite0", size, {}, labeled, plan)]
    if used:
        cost, settings = embedding + used * _GUESS_OF_ALL, {"limit": str(used)}
        candidates.append(Candidate("self_training", "lite0", size, settings, cost, plan))
    if rest > _WORTH_SAYING:
        say(
            f"features of the images that the choice does not need would take about "
            f"{duration(rest)} more: they are made beyond the budget, for the predictions, if "
            f"{' or '.join(this.method for this in candidates)} is chosen"
        )
    return candidates, rest


def _trained(
    method: str,
    images: ImageSet,
    left: float,
    seed: int,
    look: dict[str, Any],
    settings: dict[str, str],
    say: Say,
) -> list[Candidate]:
    """A training and its folds in the seconds left; nothing where folds would be too short."""
    begun = time.perf_counter()
    chosen, task = prepare(images, method, settings=settings, **look)
    assert chosen.schedule is not None
    plan = make_plan(chosen, task, seed)
    cost = measured(chosen, task, seed, plan, min(_PILOT, 0.02 * max(left, 0.0)))
    left -= time.perf_counter() - begun
    own, looks = chosen.schedule.steps, chosen.schedule.looks
    beside = (FOLDS.folds + 1) * cost.of(0, looks) + len(images.unlabeled) * cost.image
    steps, fold_steps = shared_steps(int((left - beside) / cost.step), own)
    if fold_steps < max(1, _FEWEST * own):
        say(f"{method} and its folds would need more than the time that is left: left out")
        return []
    seconds = beside + (FOLDS.folds * fold_steps + steps) * cost.step
    plan = replace(plan, seconds_per_step=cost.step, steps=steps)
    return [Candidate(method, task.backbone.name, task.size, settings, seconds, plan, fold_steps)]


def shared_steps(total: int, own: int) -> tuple[int, int]:
    """(steps of the last fit, steps of each fold), each at most the method's `own` number.

    The last fit gets up to half of all steps, the folds share the rest.
    """
    steps = min(own, total // 2)
    return steps, min(steps, (total - steps) // FOLDS.folds)


def choose(
    images: ImageSet,
    budget: float,
    seed: int,
    origins: Sequence[str],
    work: Path | None,
    say: Say,
    look: dict[str, Any],
) -> Choice:
    """Try every candidate on the same folds and choose.

    Args:
        images: without a test part.
        origins: of the labels, as in `estimate`: chosen ones do not count.
        work: where the plan and what each candidate predicted are kept, so that a killed choice
            goes on; None keeps nothing.
        look: size, aspect, flips, precision and track, as for `prepare`.
    """
    candidates = _planned(images, budget, seed, look, work, say)
    tried = [_try(this, images, seed, look, work, say) for this in candidates]
    counted, _ = countable(len(images.labeled), origins)
    some = counted if counted.any() else np.ones_like(counted)
    evidence = [_evidence(this, some) for this in tried]
    mixed = _mixed(tried, seed, say)
    best, verdicts = decide(evidence, _prior_for(images, mixed))
    return Choice(tried[best], tried, verdicts)


def _planned(
    images: ImageSet,
    budget: float,
    seed: int,
    look: dict[str, Any],
    work: Path | None,
    say: Say,
) -> list[Candidate]:
    """The plan, made once and said; an interrupted run reads its own again."""
    path = work / "candidates.json" if work is not None else None
    if path is not None and path.exists():
        rows = read_json(path)
        candidates = [Candidate(**row | {"plan": Plan(**row["plan"])}) for row in rows]
    else:
        say(f"measuring what fits into {duration(budget)}")
        candidates = plan_candidates(images, budget, seed, look, say)
        if path is not None:
            write_json(path, [asdict(candidate) for candidate in candidates])
    total = sum(candidate.seconds for candidate in candidates)
    say("\n".join([f"the plan, about {duration(total)}:", *(c.text for c in candidates)]))
    return candidates


def _try(
    this: Candidate,
    images: ImageSet,
    seed: int,
    look: dict[str, Any],
    work: Path | None,
    say: Say,
) -> Tried:
    """Predict the labelled images out of fold; folds that are there already are read back."""
    begun = time.perf_counter()
    steps = {"steps": str(this.plan.steps)} if this.plan.steps is not None else {}
    at = look | {"size": this.size, "precision": this.plan.precision}
    chosen, task = prepare(
        images, this.method, backbone=this.backbone, settings=this.settings | steps, **at
    )
    folder = work / this.method if work is not None else None
    if folder is not None:
        folder.mkdir(exist_ok=True)
    finished: MutableMapping[Key, np.ndarray] = {} if folder is None else Finished(folder)
    in_folds = chosen
    if chosen.schedule is not None and this.fold_steps is not None:
        in_folds = replace(chosen, schedule=replace(chosen.schedule, steps=this.fold_steps))
    predictor = fold_predictor(in_folds, task, seed, this.plan, folder, say)
    out = predicted_out_of_fold(task, predictor, FOLDS, seed, finished)
    seconds = time.perf_counter() - begun
    if folder is not None:
        spent = folder / "seconds.json"
        if not spent.exists():
            write_json(spent, seconds)
        seconds = read_json(spent)
    return Tried(this, chosen, task, out, finished, seconds)


def _mixed(tried: Sequence[Tried], seed: int, say: Say) -> bool:
    """Whether the unlabelled images are of other kinds, where features tell; it is said.

    Features that the choice has not computed are not computed for this.
    """
    for this in tried:
        if isinstance(this.chosen.method, SelfTraining):
            images, precision = this.task.images, this.candidate.plan.precision
            known, pool = embedded(this.chosen.method, this.task, precision, seed)
            some = np.random.default_rng([seed, 10]).permutation(len(known))[:_SAMPLE]
            groups = None if images.groups is None else images.groups[images.labeled[some]]
            share = unlike(known[some], some_of(pool, _SAMPLE, seed), groups)
            if share > _UNLIKE:
                say(
                    f"the images without a label look unlike the labelled ones: in {share:.0%} of "
                    f"comparisons (50% by chance) the labelled image is nearer to another labelled "
                    f"one. Some may be of none of the classes. What such images brought on data "
                    f"sets without strangers is not counted on"
                )
            return share > _UNLIKE
    return False


def thorough(winner: Tried, seed: int) -> OutOfFold:
    """More folds of the method that was chosen, where they cost little: the estimate gains."""
    if winner.candidate.method != "features" or len(winner.out.labels) > _CHEAP:
        return winner.out
    predictor = fold_predictor(winner.chosen, winner.task, seed, winner.candidate.plan)
    return predicted_out_of_fold(winner.task, predictor, THOROUGH, seed, winner.finished)
