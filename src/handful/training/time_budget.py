"""A budget of time: as many steps as fit into it, found before the first one.

What is measured is a short training like those to come, with everything that surrounds the steps.
Each training is then told how long it may take, and keeps to that (see time_limit.py).
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

import numpy as np
from torch import nn

from handful.errors import HandfulError
from handful.methods.base import Task, Trained, classifier
from handful.models.feature_cache import not_yet_known, seconds_per_image
from handful.progress import quiet
from handful.text import duration
from handful.training.history import History
from handful.training.loop import Diverged
from handful.training.monitor import Monitor
from handful.training.plan import Plan
from handful.training.settings import Settings
from handful.training.trainer import Trainer, train_task

_SHARE = 0.05  # of the budget that goes into measuring...
_SHORTEST, _LONGEST = 3.0, 30.0  # ...and its limits, in seconds
_TURNS = 5  # in which steps are timed
_SAMPLE = 500  # images that predicting is timed on


@dataclass(frozen=True)
class Deadline:
    """A budget of time and when it began to run."""

    budget: float  # seconds
    begun: float  # by the performance counter
    reserved: float = 0.0  # seconds of it that are for something else
    heads: int = 1  # fits to features that this is for

    @property
    def left(self) -> float:
        """Seconds from now, but for those that are kept."""
        return self.begun + self.budget - self.reserved - time.perf_counter()


@dataclass(frozen=True)
class Cost:
    """Seconds that the parts of a fit take."""

    start: float  # before the first step, the first look included
    step: float
    evaluation: float
    image: float  # to predict one image
    clocked: float = 0.0  # of `start`: what the clock of the training counts, the first look

    def of(self, steps: int, looks: int) -> float:
        """One training."""
        return self.start + steps * self.step + looks * self.evaluation


def affordable(
    settings: Settings,
    task: Task,
    seed: int,
    planned: Plan,
    seconds: float,
    fits: int,
    predicted: int,
) -> Plan:
    """The plan with as many steps as all of `seconds` allow, this measurement included.

    Args:
        fits: trainings that share the time: the final one, and one for each fold of an estimate.
        predicted: images that are predicted in the end.
    """
    assert settings.schedule is not None
    begun = time.perf_counter()
    cost = measured(settings, task, seed, planned, pilot_seconds(seconds))
    looks = settings.schedule.looks
    beside = fits * cost.of(0, looks) + predicted * cost.image + time.perf_counter() - begun
    planned = replace(planned, seconds_per_step=cost.step, look=cost.evaluation)
    return bought(planned, seconds, beside, cost.clocked + looks * cost.evaluation, fits)


def pilot_seconds(seconds: float) -> float:
    """How long steps are timed for a budget of `seconds`."""
    return min(_LONGEST, max(_SHORTEST, _SHARE * seconds))


def bought(
    planned: Plan,
    seconds: float,
    beside: float,
    clocked: float,
    fits: int = 1,
    heads: int = 1,
) -> Plan:
    """The plan with as many steps as `seconds` hold.

    Args:
        beside: seconds of all else, over all fits.
        clocked: those of them that the clock of one training counts with its steps: its looks.
        fits: trainings that share the time.
        heads: fits to features, counted in `beside`.

    Raises:
        HandfulError: not even one step fits.
    """
    each = (seconds - beside) / fits
    planned = replace(planned, allowed=each + clocked).within(each)
    if not planned.steps:
        least = beside + fits * planned.seconds(1)
        also = f", and there are {fits} trainings; --estimate none needs one" if fits > 1 else ""
        if heads > 1:
            also = f", {heads} fits to features among it; --estimate none needs one"
        raise HandfulError(
            f"the budget leaves {duration(max(0, seconds))} for training, and one step needs about "
            f"{duration(least)} with all that surrounds it{also}; give a larger --budget"
        )
    return planned


def measured(settings: Settings, task: Task, seed: int, planned: Plan, pilot: float) -> Cost:
    """What a fit costs beside its pauses, found by a training of about `pilot` seconds."""
    assert settings.schedule is not None
    task = replace(task, track=quiet)
    begun = time.perf_counter()
    none = replace(settings, schedule=replace(settings.schedule, steps=0, looks=1))
    result = train_task(none, task, seed, planned=planned)
    start = time.perf_counter() - begun
    step = step_seconds(settings, task, seed, planned, pilot)
    looks, model = Monitor(task, planned.precision), result.predictor.model
    begun = time.perf_counter()
    looks(model)
    look = time.perf_counter() - begun
    some = task.images[np.arange(min(_SAMPLE, len(task.images)))]
    begun = time.perf_counter()
    result.predictor.predict_proba(some)
    image = (time.perf_counter() - begun) / len(some)
    return Cost(start, step, look, image, result.seconds)


def step_seconds(settings: Settings, task: Task, seed: int, planned: Plan, pilot: float) -> float:
    """What a step takes in the loop: the middle one of five means over a fifth of `pilot` seconds.

    So a burst of other work does not count. The very first step is left out, and a mean is over
    fewer where a pause would be among them: those the plan knows. Its schedule is short, and what
    diverges in it need not do so in the long one: then the steps before count.
    """
    method, schedule = settings.method, settings.schedule
    assert isinstance(method, Trained) and schedule is not None
    steps = max(1, round(pilot / _TURNS / planned.seconds_per_step))
    if planned.period > 1:
        steps = min(steps, planned.period - 1)
    schedule = replace(schedule, steps=steps + 1, looks=1, patience=0)
    task = replace(task, track=quiet)
    trainer = Trainer(method, task, schedule, seed, planned)
    means = []
    for _ in range(_TURNS):
        trainer.state.step = 1
        trainer.history = History(trainer.state, None, schedule)
        begun = time.perf_counter()
        try:
            trainer.run(partial(trainer.history.record, metrics={}), "")
        except Diverged:
            means.append((time.perf_counter() - begun) / max(1, trainer.state.step - 1))
            trainer = Trainer(method, task, schedule, seed, planned)
        else:
            means.append((time.perf_counter() - begun) / steps)
    return median(means)


def check_budget(budget: float, settings: Mapping[str, str]) -> None:
    """HandfulError if it is no time, or if the settings fix the steps already."""
    if not budget > 0:
        raise HandfulError(f"budget is a time in seconds above 0, got {budget}")
    steps = settings.get("steps", settings.get("schedule.steps"))
    if steps is not None:
        raise HandfulError(f"budget fixes the steps, and steps={steps} is set too; leave one out")


def embedding_seconds(task: Task, precision: str) -> float:
    """How long the features take that are not known yet, for a method that is fitted to them."""
    network = classifier(task)
    network.head = nn.Identity()
    new = not_yet_known(task.images, network, task.size, aspect=task.aspect, precision=precision)
    if not len(new):
        return 0.0
    return len(new) * seconds_per_image(
        new, network, task.size, aspect=task.aspect, precision=precision
    )
