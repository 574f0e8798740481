"""Train a predictor from settings and a task: plan, train, evaluate, save, resume, stop early.

`train_task` serves the final fit, the folds of cross-validation and the cells of a comparison.
"""

import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from handful.data.splits import holdout
from handful.methods.base import (
    Fitted,
    Task,
    Trained,
    advice_of,
    classifier,
    feature_network,
)
from handful.methods.class_shares import fit_head
from handful.methods.heads import subsample
from handful.methods.schedule import Schedule, ScheduleProgress
from handful.models.classifier import Classifier, Predictor, embed
from handful.progress import Reporter, Say, Track, quiet, silent
from handful.training.batches import Batches
from handful.training.failure import Collapse, FailureDetector
from handful.training.history import History
from handful.training.interrupt import graceful_stop
from handful.training.loop import Diverged, Progress, begin, train
from handful.training.monitor import Monitor, describe
from handful.training.plan import Plan, load_or_make_plan, make_plan
from handful.training.process_group import ALONE, ProcessGroup
from handful.training.processes import in_processes
from handful.training.settings import Settings
from handful.training.time_limit import TimeLimit

_REPORTED_CHANGE = 0.05  # share of the planned steps: smaller changes are not reported


@dataclass(eq=False)
class TrainingResult:
    """A predictor, and how it was trained."""

    predictor: Predictor
    plan: Plan
    steps: int
    images_seen: int
    seconds: float  # of training, over all sessions, evaluations included
    schedule_progress: ScheduleProgress = ScheduleProgress(0)
    history: list[dict[str, float]] = field(default_factory=list)
    collapse: Collapse | None = None  # the failure, if there was one
    remark: str | None = None  # on suspect pseudo-labels
    members: tuple["TrainingResult", ...] = ()  # of an ensemble


def train_task(
    settings: Settings,
    task: Task,
    seed: int,
    folder: Path | None = None,
    planned: Plan | None = None,
    label: str = "training",
    say: Say = silent,
    devices: int = 1,
) -> TrainingResult:
    """Fit `settings.method` to the task.

    Args:
        folder: for plan.json and checkpoint.safetensors; a training that they describe is resumed.
            The caller ensures that they belong to these settings, this task and this seed.
        planned: a plan measured before, so that folds and the final fit have equal plans. None:
            it is measured, with several devices by all of them, each with its part of a batch.
        label: description of the progress bar.
        say: receives the state of semi-supervised training, and a failure or remark.
        devices: number of those that train a network together, a process for each.

    Raises:
        Diverged: the loss is not finite, and there are no earlier weights to restore.
        KeyboardInterrupt: the user stopped the training; the folder has a checkpoint.
    """
    if devices > 1 and folder is None:
        with tempfile.TemporaryDirectory() as scratch:
            given = (Path(scratch), planned, label, say, devices)
            return train_task(settings, task, seed, *given)
    if devices > 1 and isinstance(settings.method, Trained):
        task.pixels  # noqa: B018 (decoded before the processes read them from the cache)
        given_to_all = (settings, replace(task, track=quiet), seed, folder, planned, label)
        in_processes(devices, _train_together, *given_to_all, reporter=Reporter(task.track, say))
        say = silent
    plan = _plan(settings, task, seed, folder, planned)  # of several devices: the one they saved
    if not isinstance(settings.method, Trained):
        return _fit(settings, task, seed, plan)
    return _train(settings, task, seed, folder, plan, label, say)


def _plan(
    settings: Settings,
    task: Task,
    seed: int,
    folder: Path | None,
    planned: Plan | None,
    group: ProcessGroup = ALONE,
) -> Plan:
    """The plan in the folder, else `planned`, else a new one."""
    return load_or_make_plan(
        folder, lambda: planned or make_plan(settings, task, seed, group), group
    )


def _train_together(
    group: ProcessGroup,
    reporter: Reporter,
    settings: Settings,
    task: Task,
    seed: int,
    folder: Path,
    planned: Plan | None,
    label: str,
) -> None:
    """Plan and `_train` in one of several processes.

    The folder then has the plan, and the checkpoint of the last step.
    """
    task = replace(task, track=reporter.track)
    plan = _plan(settings, task, seed, folder, planned, group)
    _train(settings, task, seed, folder, plan, label, reporter.say, group)


def extract_features(
    method: Fitted, task: Task, precision: str, seed: int
) -> tuple[Tensor, Tensor]:
    """Features (n, D) of the labelled images and (M, D) of the unlabelled ones the method uses."""
    images = task.images[feature_positions(method, task, seed)]
    found = embed(images, feature_network(task), task.size, task.aspect, precision, task.track)
    n = len(task.labeled)
    return found[:n], found[n:]


def feature_positions(method: Fitted, task: Task, seed: int) -> np.ndarray:
    """Positions of the labelled images, then of the unlabelled ones that the method uses."""
    labeled, pool = task.images.labeled, task.images.unlabeled
    some = subsample(torch.from_numpy(pool), getattr(method, "limit", len(pool)), seed).numpy()
    return np.concatenate([labeled, some])


def _fit(settings: Settings, task: Task, seed: int, planned: Plan) -> TrainingResult:
    assert isinstance(settings.method, Fitted)
    start = time.perf_counter()
    known, pool = extract_features(settings.method, task, planned.precision, seed)
    labels, classes = task.labels[task.images.labeled], len(task.classes)
    head = fit_head(settings.method, known, labels, pool, classes, seed, task.shares, task.counted)
    model = classifier(task)
    model.head = head
    seconds = time.perf_counter() - start
    used = len(known) + len(pool)
    return TrainingResult(_predictor(model, settings, task, planned), planned, 0, used, seconds)


def _with_validation(task: Task, share: float, seed: int) -> Task:
    """The task with `share` of the labelled images, stratified by class, set aside."""
    if not share:
        return task
    images, labeled = task.images, task.images.labeled
    groups = None if images.groups is None else images.groups[labeled]
    held = labeled[holdout(images.labels[labeled], share, seed, groups)]
    return replace(task, validation=tuple(held.tolist()))


def _predictor(model: nn.Module, settings: Settings, task: Task, planned: Plan) -> Predictor:
    if plain := getattr(model, "classifier", None):
        model = plain()
    assert isinstance(model, Classifier)
    return Predictor(
        model.eval(),
        settings.backbone,
        task.classes,
        task.size,
        task.channels,
        task.aspect,
        planned.precision,
        frozen=not isinstance(settings.method, Trained),
        value_range=task.images.value_range,
    )


def _train(
    settings: Settings,
    task: Task,
    seed: int,
    folder: Path | None,
    planned: Plan,
    label: str,
    say: Say,
    group: ProcessGroup = ALONE,
) -> TrainingResult:
    """Train a network, with evaluations on the labelled and the validation images."""
    method, schedule = settings.method, settings.schedule
    assert isinstance(method, Trained) and schedule is not None
    task = _with_validation(task, schedule.validation, seed)
    monitor = Monitor(task, planned.precision)
    chance = 0.0 if getattr(method, "differs_in_evaluation", False) else monitor.chance
    advice = advice_of(method, schedule)
    detector = partial(FailureDetector, chance=chance, classes=task.classes, advice=advice)
    trainer = Trainer(method, task, schedule, seed, planned, folder, detector, group)
    state, history = trainer.state, trainer.history

    def evaluate(step: int) -> None:
        history.record(step, monitor(state.average.mixed))
        describe(say, history.records[-1], state.schedule_progress.last, task)

    trainer.run(evaluate, label, say, task.track)
    if history.collapse is not None:
        say(history.collapse.text)
    elif history.remark is not None:
        say(history.remark)
    return TrainingResult(
        _predictor(state.average.mixed, settings, task, planned),
        planned,
        state.step,
        state.step * trainer.batches.images_per_step,
        history.seconds,
        state.schedule_progress,
        history.records,
        history.collapse,
        history.remark,
    )


class Trainer:
    """Trains one network, in a fit or in self-supervised pre-training.

    It holds the state, the batches and the history, and resumes from a checkpoint in the folder.

    Args:
        folder: for checkpoints; None: nothing is saved.
        detector: makes the failure detector for a progress; the default knows no labels.
        group: the processes that train together, each with a trainer of its own.
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
        group: ProcessGroup = ALONE,
    ) -> None:
        self.method, self.task, self.schedule, self.planned = method, task, schedule, planned
        self.group = group
        self.state = begin(method, task, schedule, seed, group)
        self.state.schedule_progress = planned.schedule_progress(schedule)
        self.history = History(self.state, folder, schedule, detector)
        self.history.resume()
        self.batches = Batches(task, method.views(task), schedule, seed, group)

    def run(
        self,
        evaluate: Callable[[int], None],
        label: str = "training",
        say: Say = silent,
        track: Track = quiet,
    ) -> None:
        """Do the remaining steps, with evaluations, checkpoints, a time limit and a graceful stop.

        Args:
            evaluate: given the steps taken, adds a record to the history; called where the process
                leads.
            label: description of the progress bar.
            say: receives a remark where the time limit changed the number of steps.

        Raises:
            Diverged: the loss is not finite, and there are no earlier weights to restore.
            KeyboardInterrupt: the user stopped the training; the folder has a checkpoint.
        """
        state, history, group = self.state, self.history, self.group
        with graceful_stop() as asked_to_stop:
            if state.step == 0 and not history.records and group.leads:
                evaluate(0)
            history.start_clock()
            begun, time_limit = state.step, TimeLimit(state, self.planned)
            try:
                for progress in track(
                    self._steps(), lambda: state.schedule_progress.last - begun, label
                ):
                    history.add(progress)
                    time_limit.stepped()
                    if history.due(progress.step) and group.leads:
                        evaluate(progress.step)
                        time_limit.evaluated()
                    time_limit.reschedule(history.clock(), history.evaluations_left)
                    state.schedule_progress, done, stopped = group.agreed(
                        (
                            state.schedule_progress,
                            history.done,
                            asked_to_stop() or group.asked_to_stop(),
                        )
                    )
                    if done:
                        break
                    if stopped:
                        history.save()
                        raise KeyboardInterrupt
                    history.save_sometimes()
            except Diverged as error:
                if not group.agreed(history.give_up(str(error))):
                    raise
        if group.leads:
            history.finish()
        if changed := self._rescheduled():
            say(changed)

    def _steps(self) -> Iterable[Progress]:
        if self.group.agreed(self.history.done):
            return ()
        return train(self.state, self.method, self.batches, self.schedule, self.planned.precision)

    def _rescheduled(self) -> str:
        """A sentence where the time limit changed the number of steps noticeably; else empty."""
        bought = self.planned.schedule_progress(self.schedule).last
        last = self.state.schedule_progress.last
        if abs(last - bought) <= _REPORTED_CHANGE * bought or self.state.step < last:
            return ""
        speed = "slower" if last < bought else "faster"
        return f"training ran {speed} than measured: {last} steps instead of {bought}"
