"""Choose the number of steps that fits into a time budget, before the first step.

The costs are measured by a short training with the same settings, overhead included. Each training
is then given an allowed time, which time_limit.py enforces.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from handful.errors import HandfulError
from handful.methods.base import Task, Trained, feature_network
from handful.models.feature_cache import each_of, not_yet_known, seconds_per_image
from handful.progress import quiet
from handful.text import duration
from handful.training.history import History
from handful.training.loop import Diverged
from handful.training.monitor import Monitor
from handful.training.plan import Plan
from handful.training.process_group import ALONE, ProcessGroup
from handful.training.settings import Settings
from handful.training.trainer import Trainer, train_task

WITHOUT_ESTIMATE = '--estimate none (in Python estimate="none")'
_SHARE = 0.05  # of the budget that goes into measuring...
_SHORTEST, _LONGEST = 3.0, 30.0  # ...and its limits, in seconds
_REPEATS = 5  # timings of steps, of which the median counts
_SAMPLE = 500  # images for the timing of predictions


@dataclass(frozen=True)
class Deadline:
    """A time budget and when it started."""

    budget: float  # seconds
    begun: float  # time.perf_counter() at the start
    reserved: float = 0.0  # seconds for later phases
    heads: int = 1  # fits of a head on features in the reserved time

    @property
    def left(self) -> float:
        """Seconds from now to the end of the budget, without the reserved ones."""
        return self.begun + self.budget - self.reserved - time.perf_counter()


@dataclass(frozen=True)
class Cost:
    """Seconds that each part of a fit takes."""

    start: float  # before the first step, the first evaluation included
    step: float
    evaluation: float
    image: float  # to predict one image
    clocked: float = 0.0  # part of `start` on the training's own clock: the first evaluation

    def of(self, steps: int, evaluations: int) -> float:
        """Seconds of one training with these numbers of steps and evaluations."""
        return self.start + steps * self.step + evaluations * self.evaluation


def affordable(
    settings: Settings,
    task: Task,
    seed: int,
    planned: Plan,
    seconds: float,
    fits: int,
    predicted: int,
) -> Plan:
    """The plan with the number of steps that `seconds` allow, the time of measuring included.

    Args:
        seconds: for everything from this call to the last prediction.
        fits: trainings that share the time: the final one, and one for each fold.
        predicted: number of images that the final model predicts.

    Raises:
        HandfulError: not even one step fits.
    """
    assert settings.schedule is not None
    begun = time.perf_counter()
    cost = measured(settings, task, seed, planned, pilot_seconds(seconds))
    looks = settings.schedule.looks
    beside = fits * cost.of(0, looks) + predicted * cost.image + time.perf_counter() - begun
    planned = replace(planned, seconds_per_step=cost.step, look=cost.evaluation)
    return bought(planned, seconds, beside, cost.clocked + looks * cost.evaluation, fits)


def pilot_seconds(seconds: float) -> float:
    """Seconds of the measurement for a budget of `seconds`."""
    return min(_LONGEST, max(_SHORTEST, _SHARE * seconds))


def bought(
    planned: Plan,
    seconds: float,
    beside: float,
    clocked: float,
    fits: int = 1,
    heads: int = 1,
) -> Plan:
    """The plan with the number of steps that `seconds` allow.

    Args:
        beside: seconds of everything but the steps, over all fits.
        clocked: the part of one fit's `beside` on the training's own clock: its evaluations.
        fits: trainings that share the time.
        heads: fits of a head on features, whose time is in `beside`.

    Raises:
        HandfulError: not even one step fits.
    """
    each = (seconds - beside) / fits
    planned = replace(planned, allowed=each + clocked).within(each)
    if not planned.steps:
        least = beside + fits * planned.seconds(1)
        also = f" for {fits} trainings; {WITHOUT_ESTIMATE} needs one" if fits > 1 else ""
        if heads > 1:
            also = f", {heads} fits to features included; {WITHOUT_ESTIMATE} needs one"
        raise HandfulError(
            f"budget too short: it leaves {duration(max(0, seconds))} for training, and one step "
            f"and its overhead take about {duration(least)}{also}; give a larger --budget "
            f"(in Python budget=)"
        )
    return planned


def measured(settings: Settings, task: Task, seed: int, planned: Plan, pilot: float) -> Cost:
    """The cost of a fit without its pauses, measured by a training of about `pilot` seconds."""
    assert settings.schedule is not None
    task = replace(task, track=quiet)
    begun = time.perf_counter()
    untrained = replace(settings, schedule=replace(settings.schedule, steps=0, looks=1))
    result = train_task(untrained, task, seed, planned=planned)
    start = time.perf_counter() - begun
    step = step_seconds(settings, task, seed, planned, pilot)
    monitor, model = Monitor(task, planned.precision), result.predictor.model
    begun = time.perf_counter()
    monitor(model)
    evaluation = time.perf_counter() - begun
    some = task.images[np.arange(min(_SAMPLE, len(task.images)))]
    begun = time.perf_counter()
    result.predictor.predict_proba(some)
    image = (time.perf_counter() - begun) / len(some)
    return Cost(start, step, evaluation, image, result.seconds)


def step_seconds(
    settings: Settings,
    task: Task,
    seed: int,
    planned: Plan,
    pilot: float,
    group: ProcessGroup = ALONE,
) -> float:
    """Seconds of a step in the loop: median of five means, each over a fifth of `pilot` seconds.

    The median leaves out a burst of other work. The first step of the training is left out, and
    each mean has fewer steps than a period, since the plan has the pauses already. The schedule is
    short, and one that diverges may be stable at its full length: the steps before it count then.
    """
    method, schedule = settings.method, settings.schedule
    assert isinstance(method, Trained) and schedule is not None
    steps = max(1, round(pilot / _REPEATS / planned.seconds_per_step))
    if planned.period > 1:
        steps = min(steps, planned.period - 1)
    schedule = replace(schedule, steps=group.agreed(steps) + 1, looks=1, patience=0)
    trainer = Trainer(method, task, schedule, seed, planned, group=group)
    means = []
    for _ in range(_REPEATS):
        trainer.state.step = 1
        trainer.history = History(trainer.state, None, schedule)
        begun = time.perf_counter()
        try:
            trainer.run(partial(trainer.history.record, metrics={}))
        except Diverged:
            means.append((time.perf_counter() - begun) / max(1, trainer.state.step - 1))
            trainer = Trainer(method, task, schedule, seed, planned, group=group)
        else:
            means.append((time.perf_counter() - begun) / steps)
    return group.agreed(median(means))


def check_budget(budget: float, settings: Mapping[str, str]) -> None:
    """Raise HandfulError if the budget is not above 0, or if the settings fix the steps."""
    if not budget > 0:
        raise HandfulError(f"budget is a time in seconds above 0, got {budget}")
    steps = settings.get("steps", settings.get("schedule.steps"))
    if steps is not None:
        raise HandfulError(f"budget fixes the steps, and steps={steps} is set too; leave one out")


def embedding_seconds(task: Task, precision: str) -> float:
    """Seconds to compute those features of a fitted method that are not in the cache."""
    network = feature_network(task)
    how: Any = {"aspect": task.aspect, "precision": precision}
    seconds = 0.0
    for one in each_of(network):
        if len(new := not_yet_known(task.images, one, task.size, **how)):
            seconds += len(new) * seconds_per_image(new, one, task.size, **how)
    return seconds
