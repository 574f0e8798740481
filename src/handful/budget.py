"""A budget of time: as many steps as fit into it, measured once and then fixed.

What is measured is a short training like those to come, with everything that surrounds the steps.
"""

import time
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from handful.data.imageset import quiet
from handful.features import not_yet_known, seconds_per_image
from handful.learn import Learned, Looks, Settings, learn
from handful.methods.base import Task, classifier
from handful.train import Plan
from handful.wording import duration

_SHARE = 0.03  # of the budget that goes into measuring...
_SHORTEST, _LONGEST = 2.0, 20.0  # ...and its limits, in seconds
_SAMPLE = 500  # images that predicting is timed on


@dataclass(frozen=True)
class Cost:
    """Seconds that the parts of a fit take."""

    start: float  # before the first step, the first look included
    step: float
    look: float
    image: float  # to predict one image

    def of(self, steps: int, looks: int) -> float:
        """One training."""
        return self.start + steps * self.step + looks * self.look


def affordable(
    settings: Settings, task: Task, seed: int, planned: Plan, seconds: float, fits: int
) -> Plan:
    """The plan with as many steps as all of `seconds` allow, this measurement included.

    Args:
        fits: trainings that share the time: the final one, and one for each fold of an estimate.
    """
    assert settings.schedule is not None
    begun = time.perf_counter()
    pilot = min(_LONGEST, max(_SHORTEST, _SHARE * seconds))
    cost = measured(settings, task, seed, planned, pilot)
    spent = time.perf_counter() - begun
    beside = fits * cost.of(0, settings.schedule.looks) + len(task.images.unlabeled) * cost.image
    planned = replace(planned, seconds_per_step=cost.step)
    steps = planned.steps_within((seconds - spent - beside) / fits)
    if steps < 1:
        least = spent + beside + fits * planned.seconds(1)
        also = f", and there are {fits} trainings; --estimate none needs one" if fits > 1 else ""
        raise ValueError(
            f"the budget leaves {duration(max(0, seconds))} for training, and one step needs about "
            f"{duration(least)} with all that surrounds it{also}; give a larger --budget"
        )
    return replace(planned, steps=steps)


def measured(settings: Settings, task: Task, seed: int, planned: Plan, pilot: float) -> Cost:
    """What a fit costs beside its pauses, found by a training of about `pilot` seconds."""
    learned, start = _timed(settings, task, seed, planned, steps=0)
    steps = 0 if planned.pause else max(3, round(pilot / planned.seconds_per_step))
    if steps:
        learned, whole = _timed(settings, task, seed, planned, steps)
    looks, model = Looks(task, planned.precision), learned.predictor.model
    begun = time.perf_counter()
    looks(model)
    look = time.perf_counter() - begun
    some = task.images[np.arange(min(_SAMPLE, len(task.images)))]
    begun = time.perf_counter()
    learned.predictor.predict_proba(some)
    image = (time.perf_counter() - begun) / len(some)
    # Of a method that pauses, the plan knows steps and pauses apart; a pilot would not.
    step = max(whole - start - look, 1e-6) / steps if steps else planned.seconds_per_step
    return Cost(start, step, look, image)


def _timed(
    settings: Settings, task: Task, seed: int, planned: Plan, steps: int
) -> tuple[Learned, float]:
    """A training of so many steps, and the seconds that it took."""
    assert settings.schedule is not None
    short = replace(settings.schedule, steps=steps, looks=1)
    begun = time.perf_counter()
    learned = learn(
        replace(settings, schedule=short), replace(task, track=quiet), seed, planned=planned
    )
    return learned, time.perf_counter() - begun


def embedding_seconds(task: Task, precision: str) -> float:
    """How long the features take that are not known yet, for a method that is fitted to them."""
    network = classifier(task)
    network.head = nn.Identity()
    new = not_yet_known(task.images, network, task.size, fit=task.fit, precision=precision)
    if not len(new):
        return 0.0
    return len(new) * seconds_per_image(new, network, task.size, fit=task.fit, precision=precision)
