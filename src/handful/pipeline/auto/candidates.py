"""Plan the candidates of `auto`: methods that fit into the time, with input size and steps."""

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

BUDGET = 180.0  # seconds; the default budget, and the time that longer ones leave for `supervised`

# Shares of the time for the features of all images: where heads on features are ahead on other data
# sets, and where a network trained from scratch is.
_FEATURES_SHARE_FAVOURED, _FEATURES_SHARE = 0.6, 0.25
_MIN_SIZE = 96  # pixels a side for features
_MIN_SHARE_OF_STEPS = 0.05  # share of a method's own steps that folds must have
_PILOT_SECONDS = 2.0  # duration of a measurement of steps
# Seconds of self-training for each unlabelled image, all folds together, on two cores.
_SELF_TRAINING_PER_IMAGE = (FOLDS.folds + 1) * 6e-4
# A linear head on n labels takes _HEAD_SECONDS * n * min(n, _FEATURE_WIDTH) seconds on one core.
_HEAD_SECONDS, _FEATURE_WIDTH = 1e-6, 1_792
_EXPENSIVE_FROM = 480.0  # seconds that must be left for a method that trains on unlabelled images
_FINE_TUNING_SIZE = 96
_MAX_POOL, _MIN_POOL = 50_000, 1_000  # unlabelled images that a method may use
_MAX_GRAPH = 100_000  # images; the time of a graph grows with their square
_REPORTED_FROM = 1.0  # seconds beyond the budget that are worth a message


@dataclass(frozen=True)
class Candidate:
    """A method with the network, input size and training with which it is evaluated."""

    method: str
    backbone: str
    size: int
    settings: dict[str, str]
    seconds: float  # expected time of all folds and of a last fit on all labels
    plan: Plan  # `plan.steps`: steps of the last fit; None for a method on features
    fold_steps: int | None = None  # steps of the fit of a fold
    fold_seconds: float | None = None  # time limit of the fit of a fold; None: no limit

    @property
    def text(self) -> str:
        """A line of the plan: method, network, size, steps and expected time."""
        steps = f", {self.plan.steps} steps ({self.fold_steps} in folds)" if self.plan.steps else ""
        how = f"{self.backbone} at {self.size} pixels{steps}"
        return f"  {self.method} with {how}: about {duration(self.seconds)}"


def plan_candidates(
    images: ImageSet, budget: float, seed: int, inputs: InputSpec, reporter: Reporter
) -> list[Candidate]:
    """Return the candidates that fit into `budget` seconds, simple ones first.

    Args:
        inputs: as for `prepare`.

    Raises:
        HandfulError: no candidate fits.
    """
    ends = time.perf_counter() + budget
    found: list[Candidate] = []

    def left() -> float:
        return ends - time.perf_counter() - sum(candidate.seconds for candidate in found)

    # On a slow machine the method that is better on other data sets gets most of the time.
    advantage = prior_for(images)("supervised", "features").belief.mean
    share = _FEATURES_SHARE if advantage > 0 else _FEATURES_SHARE_FAVOURED
    frozen, remaining = _plan_features(images, share * budget, seed, inputs, reporter)
    found += frozen
    expensive: list[Candidate] = []
    spare = left() - BUDGET  # which `supervised` needs to show what it can
    if images.channels == 3 and advantage <= 0:
        if frozen and spare - remaining >= _EXPENSIVE_FROM:
            fixed = {"embed_size": str(frozen[0].size)}
            at = replace(inputs, size=inputs.size or _FINE_TUNING_SIZE)
            # It computes the features of the remaining images, too.
            expensive = _plan_training("fine_tuning", images, spare, seed, at, fixed, reporter)
    elif images.channels == 1 and spare >= _EXPENSIVE_FROM:
        if _MIN_POOL <= len(images.unlabeled) <= _MAX_GRAPH:
            expensive = _plan_training(
                "deep_propagation", images, spare, seed, inputs, {}, reporter
            )
    spent = sum(candidate.seconds for candidate in expensive)
    found += (
        _plan_training("supervised", images, left() - spent, seed, inputs, {}, reporter) + expensive
    )
    if not found:
        raise HandfulError(
            f"no method can be evaluated within {duration(budget)}; give a larger budget, or name "
            f"a method"
        )
    return found


def _plan_features(
    images: ImageSet, allowed: float, seed: int, inputs: InputSpec, reporter: Reporter
) -> tuple[list[Candidate], float]:
    """Plan `features` and `self_training`, which share their features, within `allowed` seconds.

    The size is the largest at which the features of the labelled and of enough unlabelled images
    fit; else the largest at which those of the labelled images fit.

    Returns:
        the candidates, and the seconds for the features of all other images at this size.
    """
    resolved, task = prepare(images, "features", inputs=inputs, track=reporter.track)
    plan = make_plan(resolved, task, seed)
    sizes = [] if inputs.size else [size for size in SIZES if _MIN_SIZE <= size < task.size]
    pool, n, found = len(images.unlabeled), len(images.labeled), None
    heads = (FOLDS.folds + 1) * _HEAD_SECONDS * n * min(n, _FEATURE_WIDTH)
    for size in (task.size, *sizes):
        at = replace(task, size=size)
        labeled = embedding_seconds(replace(at, images=at.images[images.labeled]), plan.precision)
        labeled += heads
        if labeled > allowed:
            continue
        whole = max(labeled, embedding_seconds(at, plan.precision) + heads)
        each = (whole - labeled) / pool if pool else 0.0
        used = min(pool, _MAX_POOL, int((allowed - labeled) / (each + _SELF_TRAINING_PER_IMAGE)))
        used = used if used >= min(pool, _MIN_POOL) else 0
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
    size, labeled, used, embedding, remaining = found
    candidates = [Candidate("features", "lite0", size, {}, labeled, plan)]
    if used:
        cost, settings = embedding + used * _SELF_TRAINING_PER_IMAGE, {"limit": str(used)}
        candidates.append(Candidate("self_training", "lite0", size, settings, cost, plan))
    if remaining > _REPORTED_FROM:
        reporter.say(
            f"features of the images that the choice does not need would take about "
            f"{duration(remaining)} more: they are made beyond the budget, for the predictions, if "
            f"{' or '.join(this.method for this in candidates)} is chosen"
        )
    return candidates, remaining


def _plan_training(
    method: str,
    images: ImageSet,
    left: float,
    seed: int,
    inputs: InputSpec,
    settings: dict[str, str],
    reporter: Reporter,
) -> list[Candidate]:
    """Plan a training and its folds in the seconds left; empty if folds would be too short."""
    begun = time.perf_counter()
    resolved, task = prepare(images, method, settings=settings, inputs=inputs, track=reporter.track)
    assert resolved.schedule is not None
    plan = make_plan(resolved, task, seed)
    cost = measured(resolved, task, seed, plan, min(_PILOT_SECONDS, 0.02 * max(left, 0.0)))
    plan = replace(plan, seconds_per_step=cost.step)
    left -= time.perf_counter() - begun
    full_steps, looks = resolved.schedule.steps, resolved.schedule.looks
    beside = (FOLDS.folds + 1) * cost.of(0, looks) + len(images.unlabeled) * cost.image
    spare = left - beside - (FOLDS.folds + 1) * plan.first
    steps, fold_steps = split_steps(int(spare * plan.period / plan.whole), full_steps)
    if fold_steps < max(1, _MIN_SHARE_OF_STEPS * full_steps):
        reporter.say(f"{method} and its folds would need more than the time that is left: left out")
        return []
    seconds = beside + FOLDS.folds * plan.seconds(fold_steps) + plan.seconds(steps)
    clocked = cost.clocked + looks * cost.evaluation
    limited = fold_steps < full_steps
    last, fold = (plan.seconds(n) + clocked if limited else None for n in (steps, fold_steps))
    plan = replace(plan, steps=steps, look=cost.evaluation, allowed=last)
    name = task.backbone.name
    return [Candidate(method, name, task.size, settings, seconds, plan, fold_steps, fold)]


def split_steps(total: int, full_steps: int) -> tuple[int, int]:
    """Return (steps of the last fit, steps of each fold), each at most `full_steps`.

    The last fit gets up to half of `total`, and the folds share the rest.
    """
    steps = min(full_steps, total // 2)
    return steps, min(steps, (total - steps) // FOLDS.folds)
