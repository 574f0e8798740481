"""From settings and a task to a predictor: plan, train, look, save, resume, stop early.

The same function serves the final fit, the folds of an estimate and the cells of a comparison.
"""

import hashlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful import devices
from handful.collapse import Collapse, Judge
from handful.data.imageset import Track, quiet
from handful.data.splits import evenly_spaced, holdout
from handful.estimate import FitAndPredict, Key, OutOfFold, Scheme, out_of_fold
from handful.features import resolved
from handful.files import read_json, write_json
from handful.journal import Journal
from handful.methods.base import (
    BackboneSpec,
    Classifier,
    Fitted,
    Method,
    Predictor,
    Settling,
    Task,
    Trained,
    as_json,
    classifier,
    embed,
)
from handful.methods.heads import prior_of, some_of
from handful.pace import Pace
from handful.schedule import Course, Schedule
from handful.train import Batches, Diverged, Plan, State, begin, plan, train

Say = Callable[[str], None]
# For methods that train a network, and the same for all that `auto` tries.
FOLDS = Scheme(folds=5, repeats=1, halves=0)
_WORTH_SAYING = 0.05  # of the steps that a budget bought: fewer more or less are not mentioned
LOOK_LIMIT = 2_000  # images of a part, at most, that a look at its loss goes through


@dataclass(frozen=True)
class Settings:
    """All that determines a training run, beside its images and its seed."""

    method: Method
    schedule: Schedule | None  # None for a method that is fitted to features
    backbone: BackboneSpec
    precision: str = "auto"  # auto, fp32 or bf16

    def as_json(self) -> dict[str, Any]:
        return {
            "method": as_json(self.method),
            "schedule": asdict(self.schedule) if self.schedule else None,
            "backbone": asdict(self.backbone),
            "precision": self.precision,
        }


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


def silent(text: str) -> None: ...


def fingerprint(*parts: Any) -> str:
    """Hash of plain data: two runs with the same one are the same run."""
    text = json.dumps(parts, sort_keys=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


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
    chosen = remembered_plan(settings, task, seed, folder, planned)
    if isinstance(settings.method, Trained):
        return _train(settings, task, seed, folder, chosen, label, say)
    return _fit(settings, task, seed, chosen)


def make_plan(settings: Settings, task: Task, seed: int) -> Plan:
    """What is decided by measuring: for a trained method the precision and its speed."""
    if isinstance(settings.method, Trained):
        assert settings.schedule is not None
        return plan(settings.method, task, settings.schedule, seed, settings.precision)
    return Plan(resolved(settings.precision), torch.get_num_threads(), 0.0)


def fold_predictor(
    settings: Settings,
    task: Task,
    seed: int,
    planned: Plan,
    work: Path | None = None,
    say: Say = silent,
) -> FitAndPredict:
    """How an estimate fits on some labelled images and predicts the others.

    Positions count the labelled images of the task. Held-out images leave the unlabelled pool
    too. Features are computed, and settings that follow from the labels are chosen, once for all
    folds.
    """
    images, labeled = task.images, task.images.labeled
    if isinstance(settings.method, Trained):

        def trained(train: np.ndarray, held: np.ndarray, seed: int) -> np.ndarray:
            kept = np.ones(len(images), bool)
            kept[labeled[held]] = False
            part = replace(task, images=images[kept], validation=(), track=quiet)
            folder = work / f"fold-{seed}" if work is not None else None
            learned = learn(settings, part, seed, folder, planned)
            if learned.collapse is not None:
                say(f"in a fit for the estimate {learned.collapse.text}")
            return learned.predictor.predict_proba(images[labeled[held]]).numpy()

        return trained

    method, labels = settings.method, task.labels[labeled]
    known, pool = embedded(method, task, planned.precision, seed)
    if isinstance(method, Settling):
        method = method.settled(known, labels, len(task.classes), seed)

    def fitted(train: np.ndarray, held: np.ndarray, seed: int) -> np.ndarray:
        if len(seen := labels[train].unique()) == 1:  # a class with one label is held out
            return np.tile(np.eye(len(task.classes), dtype=np.float32)[seen], (len(held), 1))
        head = method.fit_features(known[train], labels[train], pool, len(task.classes), seed)
        with torch.inference_mode():
            return head(known[held].float()).softmax(dim=1).numpy()

    return fitted


def predicted_out_of_fold(
    task: Task,
    predictor: FitAndPredict,
    scheme: Scheme,
    seed: int,
    finished: MutableMapping[Key, np.ndarray] | None,
) -> OutOfFold:
    """Predictions for the labelled images of the task, by the folds of `scheme`.

    Args:
        finished: folds that an interrupted run finished are read back from here, not repeated.
    """
    images, labeled = task.images, task.images.labeled
    return out_of_fold(
        images.labels[labeled],
        len(task.classes),
        predictor,
        scheme,
        seed,
        None if images.groups is None else images.groups[labeled],
        finished=finished,
        track=task.track,
    )


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
    method, schedule = settings.method, settings.schedule
    assert isinstance(method, Trained) and schedule is not None
    task = _with_validation(task, schedule.validation, seed)
    state = begin(method, task, schedule, seed)
    looks = Looks(task, chosen.precision)
    chance = 0.0 if getattr(method, "looks_mislead", False) else looks.chance
    state.course = chosen.course(schedule)
    judge = partial(Judge, chance=chance, classes=task.classes)
    journal = Journal(state, folder, schedule, judge)
    journal.resume()
    batches = Batches(task, method.views(task), schedule, seed)

    def look(step: int) -> None:
        journal.look(step, looks(state.average.model))
        _tell(say, journal.history[-1], state.course.last, task)

    run(journal, method, batches, chosen, look, task.track, label)
    if changed := turned_in_words(state, chosen, schedule):
        say(changed)
    if journal.collapse is not None:
        say(journal.collapse.text)
    elif journal.remark is not None:
        say(journal.remark)
    predictor = _predictor(state.average.model, settings, task, chosen)
    seen = state.step * batches.images_per_step
    return Learned(
        predictor,
        chosen,
        state.step,
        seen,
        journal.seconds,
        state.course,
        journal.history,
        journal.collapse,
        journal.remark,
    )


def run(
    journal: Journal,
    method: Trained,
    batches: Batches,
    planned: Plan,
    look: Callable[[int], None],
    track: Track,
    label: str,
) -> None:
    """All steps that are left, with looks, checkpoints and a graceful stop, in the time allowed.

    Args:
        look: writes a line of the journal; it is given the number of steps taken.
        label: what the progress bar is called.
    """
    state, schedule = journal.state, journal.schedule
    with graceful_stop() as asked_to_stop:
        if state.step == 0 and not journal.history:
            look(0)
        journal.start_clock()
        steps = () if journal.done else train(state, method, batches, schedule, planned.precision)
        begun, pace = state.step, Pace(state, planned)
        try:
            for progress in track(steps, lambda: state.course.last - begun, label):
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


def turned_in_words(state: State, planned: Plan, schedule: Schedule) -> str:
    """That it went faster or slower than when steps were timed, where it made a difference."""
    bought, last = planned.course(schedule).last, state.course.last
    if abs(last - bought) <= _WORTH_SAYING * bought or state.step < last:
        return ""
    pace = "slower" if last < bought else "faster"
    return f"training went {pace} than when steps were timed: {last} steps in place of {bought}"


def _tell(say: Say, line: dict[str, float], steps: int, task: Task) -> None:
    """How semi-supervised training goes, at one look; of other methods nothing is said."""
    if "kept" not in line:
        return
    if "labeled" in line:
        loss = f"{line['labeled']:.3f} on labels and {line['unlabeled']:.3f} on the others"
        who = "views agree"
    else:
        loss, who = f"{line['unlabeled']:.3f} on all images", "network and graph agree"
    agreed = f"{who} on {line['agreement']:.0%}; " if "agreement" in line else ""
    say(
        f"step {line['step']} of {steps}: loss {loss}, {line['kept']:.0%} of them used; {agreed}"
        f"{_shares(line, task)}{line['train_accuracy']:.0%} of the labels right"
    )


def _shares(line: dict[str, float], task: Task) -> str:
    """How far class shares of the guesses are from those of the labels, and which one most.

    The others are in history.jsonl, unless there are many classes.
    """
    if not line["kept"]:
        return ""
    text = f"class shares {line['prior_distance']:.0%} off"
    guessed = [line.get(f"pseudo_{k}", 0.0) for k in range(len(task.classes))]
    if not sum(guessed):
        return f"{text}; "
    prior = prior_of(task.labels[task.labeled], len(task.classes)).tolist()
    most = max(range(len(guessed)), key=lambda k: abs(guessed[k] - prior[k]))
    of = f"{guessed[most]:.0%}, of the labels {prior[most]:.0%}"
    return f"{text} ({task.classes[most]}: {of}); "


def remembered_plan(
    settings: Settings, task: Task, seed: int, folder: Path | None, planned: Plan | None
) -> Plan:
    """The plan of an interrupted run if there is one, else the one given, else a measured one."""
    if folder is not None and (folder / "plan.json").exists():
        return Plan(**read_json(folder / "plan.json"))
    chosen = planned or make_plan(settings, task, seed)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "plan.json", asdict(chosen))
    return chosen


class Looks:
    """Loss and accuracy of a network on the labelled and the validation images, unaugmented.

    `chance` is the share of the commonest label among the labelled images that are looked at.
    """

    def __init__(self, task: Task, precision: str) -> None:
        parts = {
            "train": task.labeled,
            "validation": torch.tensor(task.validation, dtype=torch.int64),
        }
        device = devices.device()
        self.parts = {
            name: (task.pixels[some].to(device), task.labels[some].to(device))
            for name, positions in parts.items()
            if len(some := evenly_spaced(positions, LOOK_LIMIT))
        }
        labels = self.parts["train"][1]
        # As an accuracy is computed, digit for digit: the two are compared.
        self.chance = (labels == labels.bincount().argmax()).float().mean().item()
        self.precision = precision

    @torch.inference_mode()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        found = {}
        model.eval()
        for name, (pixels, labels) in self.parts.items():
            with devices.autocast(self.precision):
                logits = torch.cat([model(some.float() / 255) for some in pixels.split(500)])
            found[f"{name}_loss"] = F.cross_entropy(logits.float(), labels).item()
            found[f"{name}_accuracy"] = (logits.argmax(1) == labels).float().mean().item()
        return found


@contextmanager
def graceful_stop() -> Iterator[Any]:
    """Within, Ctrl-C only asks: the loop ends its step, saves and stops. A second one insists.

    Where it is ignored, as by scripts that start a job in the background, it stays ignored. SIGTERM
    does the same in the command line, which handles it (`handful.cli.failures.terminating`).
    """
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    def terminate(number: int, frame: Any) -> None:
        assert callable(outer)
        try:
            outer(number, frame)
        except KeyboardInterrupt:
            ask()

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    # Where Ctrl-C is not ignored, a handler of SIGTERM that raises has called the one set here.
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    caught = signal.SIGTERM if ignored else signal.SIGINT
    outer = signal.getsignal(caught)
    if ignored and not callable(outer):
        yield lambda: False
        return
    signal.signal(caught, terminate if ignored else ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(caught, outer)
    if asked:  # after the last step, when nobody looked any more
        raise KeyboardInterrupt
