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
from handful.methods.heads import subsample
from handful.methods.schedule import Schedule, ScheduleProgress
from handful.models.classifier import Classifier, Predictor, embed
from handful.progress import Say, silent
from handful.training.batches import Batches
from handful.training.failure import Collapse, FailureDetector
from handful.training.history import History
from handful.training.interrupt import graceful_stop
from handful.training.loop import Diverged, Progress, begin, train
from handful.training.monitor import Monitor, describe
from handful.training.plan import Plan, load_or_make_plan, make_plan
from handful.training.settings import Settings
from handful.training.time_limit import TimeLimit

_WORTH_SAYING = 0.05  # of the steps that a budget bought: fewer more or less are not mentioned


@dataclass(eq=False)
class TrainingResult:
    """What a training run leaves: the predictor, and how it got there."""

    predictor: Predictor
    plan: Plan
    steps: int
    images_seen: int
    seconds: float  # of training, over all sittings, looks included
    schedule_progress: ScheduleProgress = ScheduleProgress(
        0
    )  # how its steps went through the schedule
    history: list[dict[str, float]] = field(default_factory=list)
    collapse: Collapse | None = None  # what went wrong, if anything did
    remark: str | None = None  # what else there is to say of the guesses


def train_task(
    settings: Settings,
    task: Task,
    seed: int,
    folder: Path | None = None,
    planned: Plan | None = None,
    label: str = "training",
    say: Say = silent,
) -> TrainingResult:
    """Run `settings.method` on the task; with a folder, save there and go on from there.

    Args:
        folder: holds plan.json and checkpoint.safetensors while training. Whoever calls makes
            sure that it belongs to the same settings, task and seed.
        planned: a plan measured before, so that folds and the final fit do the same.
        label: what the progress bar is called.
        say: is told how semi-supervised training goes, and of a collapse.
    """
    chosen = load_or_make_plan(folder, lambda: planned or make_plan(settings, task, seed))
    if isinstance(settings.method, Trained):
        return _train(settings, task, seed, folder, chosen, label, say)
    return _fit(settings, task, seed, chosen)


def extract_features(
    method: Fitted, task: Task, precision: str, seed: int
) -> tuple[Tensor, Tensor]:
    """(n, D) of the labelled images, and (M, D) of those others that the method learns from."""
    images = task.images[feature_positions(method, task, seed)]
    known = embed(images, classifier(task), task.size, task.aspect, precision, task.track)
    n = len(task.labeled)
    return known[:n], known[n:]


def feature_positions(method: Fitted, task: Task, seed: int) -> np.ndarray:
    """Positions of the labelled images, and of those others that a fitted method learns from."""
    labeled, pool = task.images.labeled, task.images.unlabeled
    some = subsample(torch.from_numpy(pool), getattr(method, "limit", len(pool)), seed).numpy()
    return np.concatenate([labeled, some])


def _fit(settings: Settings, task: Task, seed: int, chosen: Plan) -> TrainingResult:
    assert isinstance(settings.method, Fitted)
    start = time.perf_counter()
    known, pool = extract_features(settings.method, task, chosen.precision, seed)
    labels = task.labels[task.images.labeled]
    head = settings.method.fit_features(known, labels, pool, len(task.classes), seed)
    model = classifier(task)
    model.head = head
    seconds = time.perf_counter() - start
    seen = len(known) + len(pool)
    return TrainingResult(_predictor(model, settings, task, chosen), chosen, 0, seen, seconds)


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
        task.aspect,
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
) -> TrainingResult:
    """Train the network, evaluated on the labelled and the validation images as it goes."""
    method, schedule = settings.method, settings.schedule
    assert isinstance(method, Trained) and schedule is not None
    task = _with_validation(task, schedule.validation, seed)
    looks = Monitor(task, chosen.precision)
    chance = 0.0 if getattr(method, "differs_in_evaluation", False) else looks.chance
    detector = partial(FailureDetector, chance=chance, classes=task.classes)
    trainer = Trainer(method, task, schedule, seed, chosen, folder, detector)
    state, history = trainer.state, trainer.history

    def look(step: int) -> None:
        history.record(step, looks(state.average.model))
        describe(say, history.records[-1], state.schedule_progress.last, task)

    trainer.run(look, label, say)
    if history.collapse is not None:
        say(history.collapse.text)
    elif history.remark is not None:
        say(history.remark)
    return TrainingResult(
        _predictor(state.average.model, settings, task, chosen),
        chosen,
        state.step,
        state.step * trainer.batches.images_per_step,
        history.seconds,
        state.schedule_progress,
        history.records,
        history.collapse,
        history.remark,
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
        detector: Callable[[ScheduleProgress], FailureDetector] = FailureDetector,
    ) -> None:
        self.method, self.task, self.schedule, self.planned = method, task, schedule, planned
        self.state = begin(method, task, schedule, seed)
        self.state.schedule_progress = planned.schedule_progress(schedule)
        self.history = History(self.state, folder, schedule, detector)
        self.history.resume()
        self.batches = Batches(task, method.views(task), schedule, seed)

    def run(self, look: Callable[[int], None], label: str, say: Say = silent) -> None:
        """All steps that are left, with evaluations, checkpoints and a graceful stop, in time.

        Args:
            look: evaluates and writes a line of the history; it is given the steps taken.
            label: what the progress bar is called.
        """
        state, history = self.state, self.history
        with graceful_stop() as asked_to_stop:
            if state.step == 0 and not history.records:
                look(0)
            history.start_clock()
            begun, time_limit = state.step, TimeLimit(state, self.planned)
            try:
                for progress in self.task.track(
                    self._steps(), lambda: state.schedule_progress.last - begun, label
                ):
                    history.add(progress)
                    time_limit.stepped()
                    if history.due(progress.step):
                        look(progress.step)
                        time_limit.evaluated()
                    time_limit.reschedule(history.clock(), history.evaluations_left)
                    if history.done:
                        break
                    if asked_to_stop():
                        history.save()
                        raise KeyboardInterrupt
                    history.save_sometimes()
            except Diverged as error:
                if not history.give_up(str(error)):
                    raise
        history.finish()
        if changed := self._rescheduled():
            say(changed)

    def _steps(self) -> Iterable[Progress]:
        if self.history.done:
            return ()
        return train(self.state, self.method, self.batches, self.schedule, self.planned.precision)

    def _rescheduled(self) -> str:
        """That it went faster or slower than when steps were timed, where that matters."""
        bought, last = (
            self.planned.schedule_progress(self.schedule).last,
            self.state.schedule_progress.last,
        )
        if abs(last - bought) <= _WORTH_SAYING * bought or self.state.step < last:
            return ""
        pace = "slower" if last < bought else "faster"
        return f"training went {pace} than when steps were timed: {last} steps in place of {bought}"
