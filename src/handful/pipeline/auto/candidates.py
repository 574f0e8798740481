"""The plan of `auto`: which methods fit into the time, at what size and for how many steps."""

import time
from dataclasses import dataclass, replace

from handful.data.imageset import ImageSet
from handful.errors import HandfulError
from handful.models.feature_cache import SIZES
from handful.pipeline.auto.past_results import prior_for
from handful.pipeline.cross_validate import FOLDS
from handful.pipeline.options import InputSpec
from handful.pipeline.setup import prepare
from handful.progress import Reporter
from handful.text import duration
from handful.training.plan import Plan, make_plan
from handful.training.time_budget import embedding_seconds, measured

BUDGET = 180.0  # seconds, where none is given; what longer ones keep for `supervised`

# Shares of the time that features of all images may take: where they lead on other data sets, and
# where a network trained from nothing does.
_FIRST, _SECOND = 0.6, 0.25
_SMALLEST = 96  # pixels a side for features
_FEWEST = 0.05  # of a method's own steps that folds must be worth
_PILOT = 2.0  # seconds that a step is measured for
# Seconds of all self-trainings for each unlabelled image, on two cores.
_GUESS_OF_ALL = (FOLDS.folds + 1) * 6e-4
# Seconds of a linear head on features are so many times n * min(n, features), on one core.
_HEAD, _WIDTH = 1e-6, 1_792
_LEAST_DEAR = 480.0  # seconds that must be left for a method that trains on unlabelled images
_FINE_TUNING_SIZE = 96
_LARGEST_POOL, _LEAST_POOL = 50_000, 1_000  # unlabelled images that a method may use
_LARGEST_GRAPH = 100_000  # images; the time of a graph grows with their square
# On MNIST as accurate with it as with `small`, in a quarter of the time; pixels a side it needs.
_WORTH_SAYING = 1.0  # seconds


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
    fold_seconds: float | None = None  # that each may take; None: its steps are not limited by time

    @property
    def text(self) -> str:
        """What is done and how long it takes, in a line of the plan."""
        steps = f", {self.plan.steps} steps ({self.fold_steps} in folds)" if self.plan.steps else ""
        how = f"{self.backbone} at {self.size} pixels{steps}"
        return f"  {self.method} with {how}: about {duration(self.seconds)}"


def plan_candidates(
    images: ImageSet, budget: float, seed: int, inputs: InputSpec, reporter: Reporter
) -> list[Candidate]:
    """The candidates that fit into `budget` seconds, simple ones first.

    Args:
        inputs: as for `prepare`.
    """
    ends = time.perf_counter() + budget
    found: list[Candidate] = []

    def left() -> float:
        return ends - time.perf_counter() - sum(candidate.seconds for candidate in found)

    # On a slow machine most of the time is for the one that is better on other data sets.
    known = prior_for(images)("supervised", "features").belief.mean
    share = _SECOND if known > 0 else _FIRST
    frozen, rest = _on_features(images, share * budget, seed, inputs, reporter)
    found += frozen
    dear: list[Candidate] = []
    free = left() - BUDGET  # which `supervised` needs to show what it can
    if images.channels == 3 and known <= 0:
        if frozen and free - rest >= _LEAST_DEAR:
            fixed = {"embed_size": str(frozen[0].size)}
            at = replace(inputs, size=inputs.size or _FINE_TUNING_SIZE)
            dear = _trained(
                "fine_tuning", images, free, seed, at, fixed, reporter
            )  # embeds the rest
    elif images.channels == 1 and free >= _LEAST_DEAR:
        if _LEAST_POOL <= len(images.unlabeled) <= _LARGEST_GRAPH:
            dear = _trained("deep_propagation", images, free, seed, inputs, {}, reporter)
    spent = sum(candidate.seconds for candidate in dear)
    found += _trained("supervised", images, left() - spent, seed, inputs, {}, reporter) + dear
    if not found:
        raise HandfulError(
            f"no method can be judged within {duration(budget)}; give a larger budget, or name a "
            f"method"
        )
    return found


def _on_features(
    images: ImageSet, allowed: float, seed: int, inputs: InputSpec, reporter: Reporter
) -> tuple[list[Candidate], float]:
    """`features` and `self_training`, which share them, within the seconds allowed.

    At the largest size at which features of some unlabelled images fit, too; where there is none,
    those of the labelled ones at the largest size that fits.

    Returns:
        the candidates, and seconds for the features of all other images at their size.
    """
    chosen, task = prepare(images, "features", inputs=inputs, track=reporter.track)
    plan = make_plan(chosen, task, seed)
    sizes = [] if inputs.size else [size for size in SIZES if _SMALLEST <= size < task.size]
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
        reporter.say(
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
        reporter.say(
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
    inputs: InputSpec,
    settings: dict[str, str],
    reporter: Reporter,
) -> list[Candidate]:
    """A training and its folds in the seconds left; nothing where folds would be too short."""
    begun = time.perf_counter()
    chosen, task = prepare(images, method, settings=settings, inputs=inputs, track=reporter.track)
    assert chosen.schedule is not None
    plan = make_plan(chosen, task, seed)
    cost = measured(chosen, task, seed, plan, min(_PILOT, 0.02 * max(left, 0.0)))
    plan = replace(plan, seconds_per_step=cost.step)
    left -= time.perf_counter() - begun
    own, looks = chosen.schedule.steps, chosen.schedule.looks
    beside = (FOLDS.folds + 1) * cost.of(0, looks) + len(images.unlabeled) * cost.image
    spare = left - beside - (FOLDS.folds + 1) * plan.first
    steps, fold_steps = shared_steps(int(spare * plan.period / plan.whole), own)
    if fold_steps < max(1, _FEWEST * own):
        reporter.say(f"{method} and its folds would need more than the time that is left: left out")
        return []
    seconds = beside + FOLDS.folds * plan.seconds(fold_steps) + plan.seconds(steps)
    clocked = cost.clocked + looks * cost.evaluation
    limited = fold_steps < own
    last, fold = (plan.seconds(n) + clocked if limited else None for n in (steps, fold_steps))
    plan = replace(plan, steps=steps, look=cost.evaluation, allowed=last)
    name = task.backbone.name
    return [Candidate(method, name, task.size, settings, seconds, plan, fold_steps, fold)]


def shared_steps(total: int, own: int) -> tuple[int, int]:
    """(steps of the last fit, steps of each fold), each at most the method's `own` number.

    The last fit gets up to half of all steps, the folds share the rest.
    """
    steps = min(own, total // 2)
    return steps, min(steps, (total - steps) // FOLDS.folds)
