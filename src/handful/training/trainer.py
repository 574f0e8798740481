"""From settings and a task to a predictor: plan, train, look, save, resume, stop early.

The same function serves the final fit, the folds of an estimate and the cells of a comparison.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from handful.data.splits import holdout
from handful.methods.base import Fitted, Task, Trained, classifier
from handful.methods.heads import some_of
from handful.methods.schedule import Course, Schedule
from handful.models.classifier import Classifier, Predictor, embed
from handful.progress import Say, Track, quiet, silent
from handful.training.batches import Batches
from handful.training.failure import Collapse, Judge
from handful.training.history import Journal
from handful.training.interrupt import graceful_stop
from handful.training.loop import Diverged, Progress, begin, train
from handful.training.monitor import Looks, tell
from handful.training.plan import Plan, make_plan, remembered_plan
from handful.training.settings import Settings
from handful.training.time_limit import Pace

_WORTH_SAYING = 0.05  # of the steps that a budget bought: fewer more or less are not mentioned


@dataclass(eq=False)
class Learned:
    """What a training run leaves: the predictor, and how it got there."""

    predictor: Predictor
    plan: Plan
    steps: int
    images_seen: int
    seconds: float  # of training, over all sittings, looks included
    course: Course = Course(0)  # how its steps went through the schedule
    history: list[dict[str, float]] = field(default_factory=list)
    collapse: Collapse | None = None  # what went wrong, if anything did
    remark: str | None = None  # what else there is to say of the guesses


def learn(
    settings: Settings,
    task: Task,
    seed: int,
    folder: Path | None = None,
    planned: Plan | None = None,
    label: str = "training",
    say: Say = silent,
) -> Learned:
    """Run `settings.method` on the task; with a folder, save there and go on from there.

    Args:
        folder: holds plan.json and checkpoint.safetensors while training. Whoever calls makes
            sure that it belongs to the same settings, task and seed.
        planned: a plan measured before, so that folds and the final fit do the same.
        label: what the progress bar is called.
        say: is told how semi-supervised training goes, and of a collapse.
    """
    chosen = remembered_plan(folder, lambda: planned or make_plan(settings, task, seed))
    if isinstance(settings.method, Trained):
        return _train(settings, task, seed, folder, chosen, label, say)
    return _fit(settings, task, seed, chosen)


def embedded(method: Fitted, task: Task, precision: str, seed: int) -> tuple[Tensor, Tensor]:
    """(n, D) of the labelled images, and (M, D) of those others that the method learns from."""
    images = task.images[learned_from(method, task, seed)]
    known = embed(images, classifier(task), task.size, task.fit, precision, task.track)
    n = len(task.labeled)
    return known[:n], known[n:]


def learned_from(method: Fitted, task: Task, seed: int) -> np.ndarray:
    """Positions of the labelled images, and of those others that a fitted method learns from."""
    labeled, pool = task.images.labeled, task.images.unlabeled
    some = some_of(torch.from_numpy(pool), getattr(method, "limit", len(pool)), seed).numpy()
    return np.concatenate([labeled, some])


def _fit(settings: Settings, task: Task, seed: int, chosen: Plan) -> Learned:
    assert isinstance(settings.method, Fitted)
    start = time.perf_counter()
    known, pool = embedded(settings.method, task, chosen.precision, seed)
    labels = task.labels[task.images.labeled]
    head = settings.method.fit_features(known, labels, pool, len(task.classes), seed)
    model = classifier(task)
    model.head = head
    seconds = time.perf_counter() - start
    seen = len(known) + len(pool)
    return Learned(_predictor(model, settings, task, chosen), chosen, 0, seen, seconds)


def _with_validation(task: Task, share: float, seed: int) -> Task:
    """Some labelled images are kept from training, as many of each class as its share."""
    if not share:
        return task
    images, labeled = task.images, task.images.labeled
    groups = None if images.groups is None else images.groups[labeled]
    held = labeled[holdout(images.labels[labeled], share, seed, groups)]
    return replace(task, validation=tuple(held.tolist()))


def _predictor(model: nn.Module, settings: Settings, task: Task, chosen: Plan) -> Predictor:
    assert isinstance(model, Classifier)
    return Predictor(
        model.eval(),
        settings.backbone,
        task.classes,
        task.size,
        task.channels,
        task.fit,
        chosen.precision,
        frozen=not isinstance(settings.method, Trained),
        value_range=task.images.value_range,
    )


def _train(
    settings: Settings,
    task: Task,
    seed: int,
    folder: Path | None,
    chosen: Plan,
    label: str,
    say: Say,
) -> Learned:
    """Train the network, evaluated on the labelled and the validation images as it goes."""
    method, schedule = settings.method, settings.schedule
    assert isinstance(method, Trained) and schedule is not None
    task = _with_validation(task, schedule.validation, seed)
    looks = Looks(task, chosen.precision)
    chance = 0.0 if getattr(method, "looks_mislead", False) else looks.chance
    judge = partial(Judge, chance=chance, classes=task.classes)
    trainer = Trainer(method, task, schedule, seed, chosen, folder, judge)
    state, journal = trainer.state, trainer.journal

    def look(step: int) -> None:
        journal.look(step, looks(state.average.model))
        tell(say, journal.history[-1], state.course.last, task)

    trainer.run(look, label, say, task.track)
    if journal.collapse is not None:
        say(journal.collapse.text)
    elif journal.remark is not None:
        say(journal.remark)
    return Learned(
        _predictor(state.average.model, settings, task, chosen),
        chosen,
        state.step,
        state.step * trainer.batches.images_per_step,
        journal.seconds,
        state.course,
        journal.history,
        journal.collapse,
        journal.remark,
    )


class Trainer:
    """Trains one network, for a fit as for self-supervised pre-training.

    It holds the state, the batches and the history. With a folder it saves checkpoints there, and
    goes on from the one that is there already.
    """

    def __init__(
        self,
        method: Trained,
        task: Task,
        schedule: Schedule,
        seed: int,
        planned: Plan,
        folder: Path | None = None,
        judge: Callable[[Course], Judge] = Judge,
    ) -> None:
        self.method, self.task, self.schedule, self.planned = method, task, schedule, planned
        self.state = begin(method, task, schedule, seed)
        self.state.course = planned.course(schedule)
        self.journal = Journal(self.state, folder, schedule, judge)
        self.journal.resume()
        self.batches = Batches(task, method.views(task), schedule, seed)

    def run(
        self,
        look: Callable[[int], None],
        label: str = "training",
        say: Say = silent,
        track: Track = quiet,
    ) -> None:
        """All steps that are left, with evaluations, checkpoints and a graceful stop, in time.

        Args:
            look: evaluates and writes a line of the history; it is given the steps taken.
            label: what the progress bar is called.
        """
        state, journal = self.state, self.journal
        with graceful_stop() as asked_to_stop:
            if state.step == 0 and not journal.history:
                look(0)
            journal.start_clock()
            begun, pace = state.step, Pace(state, self.planned)
            try:
                for progress in track(self._steps(), lambda: state.course.last - begun, label):
                    journal.add(progress)
                    pace.stepped()
                    if journal.due(progress.step):
                        look(progress.step)
                        pace.looked()
                    pace.turn(journal.clock(), journal.looks_left)
                    if journal.done:
                        break
                    if asked_to_stop():
                        journal.save()
                        raise KeyboardInterrupt
                    journal.save_sometimes()
            except Diverged as error:
                if not journal.give_up(str(error)):
                    raise
        journal.finish()
        if changed := self._rescheduled():
            say(changed)

    def _steps(self) -> Iterable[Progress]:
        if self.journal.done:
            return ()
        return train(self.state, self.method, self.batches, self.schedule, self.planned.precision)

    def _rescheduled(self) -> str:
        """That it went faster or slower than when steps were timed, where that matters."""
        bought, last = self.planned.course(self.schedule).last, self.state.course.last
        if abs(last - bought) <= _WORTH_SAYING * bought or self.state.step < last:
            return ""
        pace = "slower" if last < bought else "faster"
        return f"training went {pace} than when steps were timed: {last} steps in place of {bought}"
