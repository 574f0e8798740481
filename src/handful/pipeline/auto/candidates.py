"""Plan a candidate of `auto`: a method with the input size and the steps that fit into the time."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

from handful import methods, models
from handful.data.imageset import ImageSet
from handful.errors import HandfulError
from handful.methods import introduced
from handful.methods.base import Fitted, Method, Task
from handful.models.classifier import BackboneSpec
from handful.models.feature_cache import SIZES
from handful.pipeline.cross_validate import FOLDS
from handful.pipeline.options import FitOptions, InputSpec
from handful.pipeline.pool_check import POOL, has_own_temperature
from handful.pipeline.setup import prepare
from handful.progress import Reporter
from handful.text import duration
from handful.training.plan import Plan, make_plan
from handful.training.settings import Settings
from handful.training.time_budget import embedding_seconds, measured

# Methods that fit a head to the features of labelled and unlabelled images, and the seconds that
# one fit takes for each image. `propagation` is hardly ever the best of them.
HEADS_WITH_POOL = {"gaussian_mixture": 5e-4, "self_training": 6e-4}

# The folds for the estimate of such a method, if it is selected; the first of them are FOLDS.
MORE_FOLDS = replace(FOLDS, repeats=3)

_MIN_SIZE = 96  # pixels a side for features
# Networks for heads, with the seconds of one image relative to the default network at the same
# size. What takes longer is more accurate in the mean over data sets: see docs/how-to/backbone.md.
COST = {"lite0": 1.0, "lite0+lite2": 2.4}
_LEAST_SIDE = 128  # pixels; below it a more accurate network does not make up for the size
_NEARLY = 1.3  # multiple of the time up to which an option is measured
# The fits of the folds take this share of the steps of the last fit, or more. Below it, their
# accuracy says little of that of the last fit: see benchmarks/log/estimates.md.
FOLD_SHARE = 0.6
_MIN_SHARE_OF_STEPS = 0.025  # share of a method's own steps that folds must have
# Steps in folds; the first ones of fine-tuning unlearn: see benchmarks/log/transfer.md.
_MIN_STEPS = {"fine_tuning": 40}
_PILOT_SECONDS = 2.0  # duration of a measurement of steps
# A linear head on n labels takes _HEAD_SECONDS * n * min(n, _FEATURE_WIDTH) seconds on one core.
_HEAD_SECONDS, _FEATURE_WIDTH = 1e-6, 1_792
_MIN_POOL = 1_000  # unlabelled images; with fewer, all of them must fit into the time
_ENOUGH = 2_000  # unlabelled images, with which a more accurate network pays more than with all
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
    image_seconds: float = 0.0  # expected time for the features of one unlabelled image

    @property
    def package(self) -> str:
        """The backbone, where others put its weights on this machine; else empty."""
        return self.backbone if self.backbone in models.beside_ours() else ""

    @property
    def text(self) -> str:
        """A line of the plan: method, network, size, steps and expected time."""
        steps = f", {self.plan.steps} steps ({self.fold_steps} in folds)" if self.plan.steps else ""
        how = f"{self.backbone} at {self.size} pixels{steps}"
        return f"trying {self.method} with {how}: about {duration(max(self.seconds, 1.0))}"


def prepared(
    images: ImageSet,
    method: str | Method,
    options: FitOptions,
    reporter: Reporter,
    settings: Mapping[str, str] = MappingProxyType({}),
    inputs: InputSpec | None = None,
) -> tuple[Settings, Task]:
    """Return `prepare` for a method: with what the user fixed, and with a candidate's settings.

    Args:
        settings: of the candidate; those of the user win.
        inputs: of the candidate, by default those of the user.

    Raises:
        HandfulError: the method does not take what the user fixed.
    """
    return prepare(
        images,
        method,
        schedule=options.schedule,
        backbone=options.backbone,
        inputs=inputs or options.inputs,
        settings={**settings, **options.settings},
        init=options.init,
        track=reporter.track,
    )


def why_excluded(images: ImageSet, method: str, options: FitOptions, reporter: Reporter) -> str:
    """Return why a method does not go with what the user fixed; empty where it does."""
    network = options.backbone
    name = network.name if isinstance(network, BackboneSpec) else network
    if name is not None and models.pretrained(name) != methods.about(method).learned_weights:
        return f"{method} is not for backbone {name}"
    if options.init is not None and method == "fine_tuning":
        return f"{method} has weights of its own, and init is given"
    try:
        settings, _ = prepared(images, method, options, reporter)
    except HandfulError as error:
        return str(error)
    trains = options.schedule is not None or options.fixes_steps
    if trains and isinstance(settings.method, Fitted):
        return f"{method} trains no network, and steps are given"
    return ""


def plan_features(
    images: ImageSet,
    allowed: float,
    options: FitOptions,
    names: Sequence[str],
    reporter: Reporter,
    later: float = 0.0,
) -> list[Candidate]:
    """Plan heads on features, of labelled or also of unlabelled images, within `allowed` seconds.

    The size is the largest at which the features of the labelled and of enough unlabelled images
    fit; else the largest at which those of the labelled images fit. Then slower and more accurate
    networks take their turn; see `_more_accurate`.

    Args:
        names: the methods, first those that use labelled images only.
        later: seconds that the features which only predictions need may take with a slower
            network than the default one.

    Returns:
        a candidate for each of `names` that fits.
    """
    begun = time.perf_counter()
    resolved, task = prepared(images, names[0], options, reporter)
    plan = make_plan(resolved, task, options.seed)
    fixed = options.inputs.size or task.init is not None
    sizes = [] if fixed else [size for size in SIZES if _MIN_SIZE <= size < task.size]
    n = len(images.labeled)
    heads = (FOLDS.folds + 1) * _HEAD_SECONDS * n * min(n, _FEATURE_WIDTH)
    with_pool = {name: HEADS_WITH_POOL[name] for name in names if name in HEADS_WITH_POOL}
    slowest = max(with_pool.values(), default=0.0)
    # Seconds for each unlabelled image; the fit to all labels is in both parts.
    fits = (FOLDS.folds + 1) * sum(with_pool.values()) + (_last_fits(images) - 1) * slowest
    found, took = None, 0.0
    for size in (task.size, *sizes):
        one = _embedded(replace(task, size=size), plan.precision, allowed, heads, fits)
        took = one.labeled
        if one.labeled > allowed:
            continue
        if found is None or one.used:
            found = one
        if one.used or not one.pool:
            break
    if found is None:
        reporter.say(
            f"features of {task.backbone.name}, and heads on them, would take about "
            f"{duration(took)}: left out"
        )
        return []
    if (found.used or not found.pool) and options.backbone is None and not fixed:
        left = allowed - (time.perf_counter() - begun)
        found = _more_accurate(found, task.size, plan.precision, (left, later), heads, fits)
    size, labeled, used = found.task.size, found.labeled, found.used
    embedding, remaining = found.embedding, found.remaining
    network = found.task.backbone.name
    candidates = [
        Candidate(method, network, size, {}, labeled, plan)
        for method in names
        if method not in with_pool
    ]
    for method, fit in with_pool.items() if used else ():
        cost = embedding + (FOLDS.folds + 1) * used * fit
        limit = {"limit": str(used)}
        candidates.append(
            Candidate(method, network, size, limit, cost, plan, image_seconds=found.each)
        )
        embedding = 0.0  # the others share these features
    if remaining > _REPORTED_FROM:
        reporter.say(
            f"features of the images that the choice does not need would take about "
            f"{duration(remaining)} more: they are made for the predictions, beyond the budget "
            f"where it leaves no time, if a head on features is chosen"
        )
    return candidates


def seconds_after_choice(head: Candidate, images: ImageSet) -> float:
    """Seconds from the choice of a head that learns from unlabelled images to its answers.

    They are for more folds, for the fit to all labels, and for the confidence of the answers.
    """
    if head.method not in HEADS_WITH_POOL:
        return 0.0
    return _last_fits(images) * int(head.settings["limit"]) * HEADS_WITH_POOL[head.method]


def last_seconds(network: Candidate) -> float:
    """Seconds of the last training of a network, which an ensemble needs beside another one."""
    steps, fold_steps = network.plan.steps or 0, network.fold_steps or 0
    return network.seconds * steps / max(1, steps + FOLDS.folds * fold_steps)


def _last_fits(images: ImageSet) -> int:
    own = has_own_temperature(len(images.labeled), len(images.unlabeled))
    return MORE_FOLDS.fits - FOLDS.fits + 1 + FOLDS.fits * own


class _Embedded(NamedTuple):
    """What heads on the features of one network at one size take."""

    task: Task
    labeled: float  # seconds for the features of the labelled images, and for heads on them
    used: int  # unlabelled images that heads may learn from in the time
    embedding: float  # seconds for their features
    remaining: float  # seconds for the features of the other images
    pool: int  # number of unlabelled images
    each: float = 0.0  # seconds for the features of one of them


def _embedded(task: Task, precision: str, allowed: float, heads: float, fits: float) -> _Embedded:
    """Measure the features of a task, and divide `allowed` seconds.

    Args:
        heads: seconds of heads on the labelled images.
        fits: seconds of heads for each unlabelled image.
    """
    images, pool = task.images, len(task.images.unlabeled)
    labeled = heads + embedding_seconds(replace(task, images=images[images.labeled]), precision)
    if labeled > allowed:
        return _Embedded(task, labeled, 0, 0.0, math.inf, pool)
    whole = max(labeled, embedding_seconds(task, precision) + heads)
    each = (whole - labeled) / pool if pool else 0.0
    fitting = (allowed - labeled) / max(each + fits, 1e-9)
    used = min(pool, POOL, int(fitting))
    used = used if used >= min(pool, _MIN_POOL) else 0
    return _Embedded(task, labeled, used, used * each, whole - labeled - used * each, pool, each)


def _more_accurate(
    found: _Embedded,
    largest: int,
    precision: str,
    seconds: tuple[float, float],
    heads: float,
    fits: float,
) -> _Embedded:
    """Return the slowest network and size that fit, of those of COST; else `found`.

    What is slower is more accurate. What heads need must fit into their time, with as many
    unlabelled images as `found` has or _ENOUGH. The features that only predictions need must fit
    into theirs. Only networks that are installed are tried, and what is likely to take too long is
    not measured.

    Args:
        largest: side in pixels, the default one.
        seconds: for heads, and for features that only predictions need.
    """
    allowed, later = seconds
    size, name = found.task.size, found.task.backbone.name
    if name not in COST:
        return found
    options = [
        (COST[network] / COST[name] * (side / size) ** 2, network, side)
        for network in COST
        for side in SIZES
        if network != name and _LEAST_SIDE <= side <= largest and models.installed(network)
    ]
    known = found.labeled + found.embedding + found.remaining - heads  # seconds
    for factor, network, side in sorted(options, reverse=True):
        if factor <= 1 or known * factor > _NEARLY * (allowed + later):
            continue
        spec = replace(found.task.backbone, name=network)
        one = _embedded(
            replace(found.task, backbone=spec, size=side), precision, allowed, heads, fits
        )
        enough = one.used >= min(found.used, _ENOUGH) and one.labeled <= allowed
        if enough and one.remaining <= later:
            return one
    return found


def plan_training(
    method: str,
    images: ImageSet,
    allowed: float,
    options: FitOptions,
    settings: dict[str, str],
    reporter: Reporter,
    later: float = 0.0,
) -> list[Candidate]:
    """Plan a training and its folds in `allowed` seconds; empty if folds would be too short.

    Where the user fixed the number of steps, all trainings take it, however long that is.

    Args:
        later: seconds that the predictions of the unlabelled images may take beside them.
    """
    begun = time.perf_counter()
    seed = options.seed
    resolved, task = prepared(images, method, options, reporter, settings)
    assert resolved.schedule is not None
    plan = make_plan(resolved, task, seed)
    cost = measured(resolved, task, seed, plan, min(_PILOT_SECONDS, 0.02 * max(allowed, 0.0)))
    plan = replace(plan, seconds_per_step=cost.step)
    full_steps, looks = resolved.schedule.steps, resolved.schedule.looks
    each = cost.of(0, looks) + plan.first
    answers = len(images.unlabeled) * cost.image
    predictions = max(0.0, answers - later)
    beside = (FOLDS.folds + 1) * each + predictions + time.perf_counter() - begun
    total = int((allowed - beside) * plan.period / plan.whole)
    if options.fixes_steps:
        total = (FOLDS.folds + 1) * full_steps
    steps, fold_steps = split_steps(total, full_steps)
    floor = _MIN_STEPS.get(method) or max(1, int(_MIN_SHARE_OF_STEPS * full_steps))
    floor = min(floor, full_steps)
    if fold_steps < floor:
        needed = beside + (FOLDS.folds + 1 / FOLD_SHARE) * plan.seconds(floor)
        count, part = len(images.unlabeled), duration(predictions)
        answers_too = f" ({part} of them to predict {count:,} images)" if predictions else ""
        reporter.say(
            f"{method}{introduced(method, reporter)} is left out: with its folds it would need "
            f"about {duration(needed)}{answers_too}, and {duration(max(0.0, allowed))} are left; "
            f"a --budget that is {duration(needed - allowed)} longer holds it"
        )
        return []
    if later and answers > _REPORTED_FROM:
        reporter.say(
            f"if {method} is chosen, predictions for the images without a label take about "
            f"{duration(answers)} more; they are made beyond the budget if need be"
        )
    last = cost.of(0, looks) + plan.seconds(steps) + predictions
    seconds = last + FOLDS.folds * (cost.of(0, looks) + plan.seconds(fold_steps))
    clocked = cost.clocked + looks * cost.evaluation
    limited = fold_steps < full_steps
    training = FOLDS.folds * plan.seconds(fold_steps) + plan.seconds(steps)
    # Where all steps fit, the spare time is a reserve for a machine that becomes slower.
    reserve = 1.0 if limited else max(1.0, (allowed - beside) / training)
    most, fold = (
        None if options.fixes_steps else reserve * plan.seconds(n) + clocked
        for n in (steps, fold_steps)
    )
    plan = replace(
        plan, steps=steps, look=cost.evaluation, allowed=most, longer=limited, least=fold_steps
    )
    name = task.backbone.name
    return [Candidate(method, name, task.size, settings, seconds, plan, fold_steps, fold)]


def share_with(later: float, allowed: float) -> float:
    """Seconds for a training and its folds, which leave `later` seconds after the folds.

    The last fit's own time does, too, as either is needed; so it counts as left.
    """
    last = 1 / (1 + FOLDS.folds * FOLD_SHARE)  # share of the last fit
    return allowed if later <= last * allowed else max(0.0, allowed - later) / (1 - last)


def split_steps(total: int, full_steps: int) -> tuple[int, int]:
    """Return (steps of the last fit, steps of each fold), each at most `full_steps`.

    Folds have FOLD_SHARE of the steps of the last fit, or more where the last fit has `full_steps`.
    """
    steps = min(full_steps, int(total / (1 + FOLDS.folds * FOLD_SHARE)))
    return steps, min(steps, max(0, total - steps) // FOLDS.folds)
