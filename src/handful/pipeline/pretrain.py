"""Self-supervised pre-training: train a backbone on images alone.

`pretrain` writes the outcome to a folder. `after_pretraining` is the pre-training of a fit: it is
cached under a key of images, method, schedule, network and seed, and so shared by all draws of
labels, folds and cells of a comparison. The key contains no label.

A folder holds the files that pretrained.py reads, `history.jsonl`, pictures, and `checkpoint/`
while it is unfinished.
"""

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from handful import methods
from handful._version import __version__
from handful.data.cache import about, cache_folder, explained, locked, used
from handful.data.cache_entries import keep_within_limit
from handful.data.decoding.value_range import in_words
from handful.data.imageset import ImageSet
from handful.data.source_names import redacted
from handful.data.vanished import on_the_rest
from handful.devices import memory_kept
from handful.errors import HandfulError
from handful.evaluation.representation import Health, collapse
from handful.files import sole_writer, write_json, write_tensors, write_text
from handful.methods.base import Method, Task, Trained, Tunable, as_json
from handful.methods.schedule import Schedule, ScheduleProgress
from handful.methods.self_supervised import SelfSupervised
from handful.models.classifier import BackboneSpec
from handful.pipeline.options import InputSpec
from handful.pipeline.pretrain_plots import PretrainPlots
from handful.pipeline.pretrained import (
    HISTORY,
    LAYOUT,
    PICTURES,
    RECORD,
    WEIGHTS,
    Pretrained,
    drop_pictures,
    open_pretrained,
    weights_hash,
)
from handful.pipeline.run_folder import (
    abandon_on_vanished,
    acquire,
    clean_up,
    finish,
    release_on_refusal,
)
from handful.pipeline.setup import prepare, validate
from handful.progress import Reporter, Say, Track, quiet, silent
from handful.text import duration
from handful.training.batches import Batches
from handful.training.history import History
from handful.training.plan import Plan, load_or_make_plan, make_plan
from handful.training.process_group import ALONE, ProcessGroup
from handful.training.processes import check_devices, check_divisible, divided, in_processes
from handful.training.settings import Settings, make_fingerprint
from handful.training.time_budget import (
    Deadline,
    bought,
    check_budget,
    embedding_seconds,
    pilot_seconds,
    step_seconds,
)
from handful.training.trainer import Trainer, feature_positions

TRAINING_SHARE = 0.25  # of a budget: for the training on labels that follows
# Fits of a head that are timed at most: the first is slow, and other processes disturb.
_TIMED_HEADS, _TIMED_HEADS_SECONDS = 5, 1.0
_VERSION = 2  # raise when the same key would give other weights


@on_the_rest
@memory_kept()
def pretrain(
    images: ImageSet,
    method: str | Method = "simclr",
    *,
    out: Path | str,
    seed: int | None = None,
    overwrite: bool = False,
    schedule: Schedule | None = None,
    backbone: str | BackboneSpec | None = None,
    size: int | None = None,
    aspect: str = "crop",
    flips: bool | None = None,
    precision: str = "auto",
    settings: dict[str, str] | None = None,
    budget: float | None = None,
    pictures: bool = True,
    devices: int = 1,
    track: Track = quiet,
    say: Say = silent,
    command: Sequence[str] = (),
) -> Pretrained:
    """Train a backbone on images without learning from their labels.

    Labels are used for two figures only: the history reports how often the nearest images of an
    image are of its class, and the map of the features is coloured by label.

    Args:
        images: a test part is set aside and not read.
        out: folder for the outcome. An unfinished pre-training there with equal images, settings
            and seed is continued, a finished one is returned; any other is refused without
            `overwrite`.
        seed: of the pre-training; by default that of the method.
        budget: seconds for the whole pre-training. Steps are timed first, and the number that
            fits is trained.
        pictures: write pictures of sample images to the folder; False for private photos.
        devices: number of GPUs of this machine that train together, or of processes where it has
            no GPU. They divide every batch, so the result is that of one, but for rounding and
            dropout; a pre-training may be continued with another number. A script that asks for
            more than one has `if __name__ == "__main__":` around its work, as Python's
            multiprocessing needs.

    The other arguments are those of `fit`.

    Raises:
        HandfulError: the method learns from labels, options do not fit together, or `out` holds
            something else.
    """
    begun = time.perf_counter()
    check_devices(devices)
    resolved, task = prepare(
        images,
        method,
        schedule=schedule,
        backbone=backbone,
        inputs=InputSpec(size, aspect, flips, precision),
        settings=settings,
        track=track,
    )
    if not isinstance(resolved.method, SelfSupervised):
        names = [name for name, kind in methods.METHODS.items() if issubclass(kind, SelfSupervised)]
        raise HandfulError(
            f"{resolved.method.name} learns from labels; pretrain takes {', '.join(names)}"
        )
    if seed is not None:
        resolved = replace(resolved, method=replace(resolved.method, seed=seed))
    if budget is not None:
        budget = float(budget)
        check_budget(budget, settings or {})
    check_divisible(resolved, devices)
    validate(resolved, task, seed=0)
    deadline = None if budget is None else Deadline(budget, begun)
    fingerprint, folder = pretraining_fingerprint(resolved, task, deadline), Path(out)
    with sole_writer(folder), abandon_on_vanished(folder, fingerprint):
        built = acquire(folder, fingerprint, overwrite, LAYOUT, say=say)
        if not pictures:
            drop_pictures(built or folder)
        if built is None:
            clean_up(folder)
            say(f"{folder} already holds this, finished")
            return open_pretrained(folder)
        if images.value_range is not None:
            scale = in_words(images.value_range)
            say(f"values of more than 8 bits are scaled {scale}; fit --init keeps this scale")
        plots = PretrainPlots(built / PICTURES, task) if pictures else None
        train_and_write(resolved, task, fingerprint, built, plots, say, command, deadline, devices)
        finish(folder, built, LAYOUT, say)
    return open_pretrained(folder)


def after_pretraining(
    resolved: Settings,
    task: Task,
    say: Say = silent,
    deadline: Deadline | None = None,
    reserve: Callable[[], Deadline] | None = None,
    pictures: bool = True,
) -> tuple[Settings, Task, Pretrained | None]:
    """Pre-train if the method is self-supervised, and return what follows it.

    Args:
        reserve: returns the deadline of the pre-training, see `deadline_with_reserve`; called
            only where the outcome is not in the cache.
        pictures: write pictures of sample images to the cache. False for private photos: pictures
            of an earlier run are then deleted too.

    Returns:
        settings of the method `then`, its task, and the outcome of the pre-training. For any
        other method: its settings and task unchanged, and None.
    """
    method = resolved.method
    if not isinstance(method, SelfSupervised):
        return resolved, task, None
    pretrained = cached_pretraining(resolved, task, say, deadline, reserve, pictures)
    following = methods.make(method.then)
    task = replace(task, backbone=pretrained.backbone, init=pretrained.init)
    schedule = following.schedule(task) if isinstance(following, Trained) else None
    return Settings(following, schedule, pretrained.backbone, resolved.precision), task, pretrained


def cached_pretraining(
    resolved: Settings,
    task: Task,
    say: Say = silent,
    deadline: Deadline | None = None,
    reserve: Callable[[], Deadline] | None = None,
    pictures: bool = True,
) -> Pretrained:
    """Return the pre-training from the cache; computed or resumed if it is not there."""
    fingerprint = pretraining_fingerprint(resolved, task, deadline)
    folder = cache_folder() / "pretrained" / fingerprint.removeprefix("sha256:")[:32]
    with locked(folder):
        if not pictures:
            shutil.rmtree(folder / PICTURES, ignore_errors=True)  # those of an earlier run
        cached = _open_cached(folder)
        if cached is not None:
            used(folder)
            failure = cached.record["collapse"]
            text = f"the backbone that {resolved.method.name} made of these images is known"
            say(f"{text}; {failure}" if failure else text)
            return cached
        if reserve is not None:
            deadline = reserve()
        unlabeled_task = replace(task, images=task.images.seen(np.empty(0, np.int64)))
        with explained(folder):
            plots = None
            if pictures:
                plots = PretrainPlots(folder / PICTURES, unlabeled_task, brief=True)
            train_and_write(resolved, unlabeled_task, fingerprint, folder, plots, say, (), deadline)
            clean_up(folder)
        source = task.images.store.source or task.images.source
        about(folder, source=source, method=resolved.method.name)
    keep_within_limit()
    return open_pretrained(folder)


def _open_cached(folder: Path) -> Pretrained | None:
    """Return the pre-training in a folder of the cache; None if it is absent or damaged."""
    if not (folder / RECORD).exists():
        return None
    try:
        return open_pretrained(folder)
    except HandfulError:
        shutil.rmtree(folder)
        return None


def pretraining_fingerprint(
    resolved: Settings, task: Task, deadline: Deadline | None = None
) -> str:
    """Return a hash of all that the pre-training depends on.

    It contains no label, class name or file name. With a deadline it contains the budget, not the
    number of steps, and the method that follows, which shares the budget.
    """
    digest = hashlib.sha256(task.images.store.fingerprints[task.images.rows].tobytes())
    described = resolved.identity(task)
    if deadline is None:
        described["method"].pop("then")
    start = task.init.hash if task.init is not None else None
    return make_fingerprint(
        _VERSION,
        digest.hexdigest(),
        described,
        task.size,
        task.aspect,
        task.flips,
        start,
        *([] if deadline is None else [deadline.budget]),
    )


def deadline_with_reserve(
    resolved: Settings, task: Task, seed: int, deadline: Deadline, fits: int, all_images: bool
) -> Deadline:
    """Return the deadline of the pre-training in a fit: time is reserved for the next method.

    A training gets `TRAINING_SHARE` of the budget. A method on features gets the time for the
    features and for `fits` heads.

    Args:
        all_images: whether features are needed of images that the heads do not learn from too.
    """
    method = resolved.method
    assert isinstance(method, SelfSupervised)
    following = methods.make(method.then)
    if isinstance(following, Trained):
        return replace(deadline, reserved=TRAINING_SHARE * deadline.budget)
    untrained = replace(task, backbone=method.spec(task), init=None)
    positions = feature_positions(following, task, seed)
    embedded_task = untrained if all_images else replace(untrained, images=task.images[positions])
    reserved = embedding_seconds(embedded_task, resolved.precision)
    width: int = untrained.make_backbone().width  # type: ignore[assignment]
    noise = torch.randn(len(positions), width, generator=torch.Generator().manual_seed(0))
    labeled_features, pool = noise[: len(task.labeled)], noise[len(task.labeled) :]
    labels, classes = task.labels[task.labeled], len(task.classes)
    begun = time.perf_counter()
    if isinstance(following, Tunable):
        following = following.tuned(labeled_features, labels, classes, seed)
        reserved += time.perf_counter() - begun
    seconds: list[float] = []
    while not seconds or len(seconds) < _TIMED_HEADS and sum(seconds) < _TIMED_HEADS_SECONDS:
        begun = time.perf_counter()
        following.fit_features(labeled_features, labels, pool, classes, seed)
        seconds.append(time.perf_counter() - begun)
    return replace(deadline, reserved=reserved + fits * median(seconds), heads=fits)


def train_and_write(
    resolved: Settings,
    task: Task,
    fingerprint: str,
    folder: Path,
    plots: PretrainPlots | None,
    say: Say,
    command: Sequence[str],
    deadline: Deadline | None,
    devices: int = 1,
) -> None:
    """Train and write the folder; an unfinished pre-training in its checkpoint/ is resumed.

    Where several devices train, their processes leave the checkpoint of the last step, and this one
    goes on from there.
    """
    method, work = resolved.method, folder / "checkpoint"
    assert isinstance(method, SelfSupervised)
    if devices > 1:
        task.pixels  # noqa: B018 (decoded before the processes read them from the cache)
        shown = None if plots is None else (plots.folder, plots.brief)
        given = (resolved, replace(task, track=quiet), work, shown, deadline)
        in_processes(devices, _train_together, *given, reporter=Reporter(task.track, say))
        say = silent
    schedule, planned, history = _plan_and_train(resolved, task, work, plots, say, deadline)
    if plots is not None:
        plots.after_training(history.state.average.model, history.records)
    model: Any = history.state.average.model
    weights = {key: value.detach().cpu() for key, value in model.backbone.state_dict().items()}
    constants = [part.flatten().tolist() for part in (model.normalize.mean, model.normalize.std)]
    parameters = sum(p.numel() for p in model.backbone.parameters())
    write_tensors(folder / WEIGHTS, weights, {"handful": __version__})
    lines = (json.dumps(line) + "\n" for line in history.records)
    write_text(folder / HISTORY, "".join(lines))
    record = {
        "handful": __version__,
        "command": [redacted(word) for word in command],
        "fingerprint": fingerprint,
        "hash": weights_hash(weights, constants),
        "method": as_json(method),
        "schedule": asdict(schedule),
        "backbone": asdict(method.spec(task)) | {"parameters": parameters},
        "input": {
            "size": task.size,
            "channels": task.channels,
            "aspect": task.aspect,
            "flips": task.flips,
            "value_range": task.images.value_range,
        },
        "normalize": {"mean": constants[0], "std": constants[1]},
        "data": {"source": task.images.source, "images": len(task.training_pool)},
        "training": {
            "steps": history.state.step,
            "turns": [list(turn) for turn in history.state.schedule_progress.reschedules],
            "precision": planned.precision,
            "threads": planned.threads,
            "seconds": round(history.seconds, 2),
            "budget": deadline.budget if deadline is not None else None,
            "devices": devices,
            "batch_per_device": schedule.batch // devices,
        },
        "health": history.records[-1],
        "collapse": _failure(method, history.records[-1], history.state.schedule_progress),
    }
    write_json(folder / RECORD, record)


def _train_together(
    group: ProcessGroup,
    reporter: Reporter,
    resolved: Settings,
    task: Task,
    work: Path,
    shown: tuple[Path, bool] | None,
    deadline: Deadline | None,
) -> None:
    """Plan and train in one of several processes.

    Args:
        shown: folder of the plots, and whether they are brief; None: there are no plots.
    """
    task = replace(task, track=reporter.track)
    plots = None
    if shown is not None and group.leads:
        folder, brief = shown
        plots = PretrainPlots(folder, task, brief)
    _plan_and_train(resolved, task, work, plots, reporter.say, deadline, group)


def _plan_and_train(
    resolved: Settings,
    task: Task,
    work: Path,
    plots: PretrainPlots | None,
    say: Say,
    deadline: Deadline | None,
    group: ProcessGroup = ALONE,
) -> tuple[Schedule, Plan, History]:
    """Plan and train all steps; the schedule, the plan and the history, which has the state."""
    method = resolved.method
    assert resolved.schedule is not None
    planned = _plan(resolved, task, work, plots, deadline, group)
    steps = resolved.schedule.steps if planned.steps is None else planned.steps
    schedule = replace(resolved.schedule, steps=steps)
    resolved = replace(resolved, schedule=schedule)
    say(
        f"{method.name} with {task.backbone.name} on {len(task.training_pool)} images, "
        f"labels unseen: {planned.taken or steps} steps{divided(schedule.batch, group.size)}, "
        f"about {duration(planned.expected(steps))} ({planned.precision})"
    )
    return schedule, planned, _train_steps(resolved, task, planned, work, plots, say, group)


def _plan(
    resolved: Settings,
    task: Task,
    work: Path,
    plots: PretrainPlots | None,
    deadline: Deadline | None,
    group: ProcessGroup,
) -> Plan:
    """Return the plan of an unfinished pre-training, or a new one with the steps that fit."""
    method, schedule = resolved.method, resolved.schedule
    assert isinstance(method, SelfSupervised) and schedule is not None
    if deadline is None:
        return load_or_make_plan(work, lambda: make_plan(resolved, task, method.seed, group), group)
    with release_on_refusal(work):
        return load_or_make_plan(
            work, lambda: _affordable_plan(resolved, task, plots, deadline, group), group
        )


def _affordable_plan(
    resolved: Settings,
    task: Task,
    plots: PretrainPlots | None,
    deadline: Deadline,
    group: ProcessGroup,
) -> Plan:
    """Return a plan with the steps that fit before the deadline beside plots and evaluations."""
    method, schedule = resolved.method, resolved.schedule
    assert isinstance(method, SelfSupervised) and schedule is not None
    task = replace(task, track=quiet)
    planned = make_plan(resolved, task, method.seed, group)
    begun = time.perf_counter()
    without_steps = replace(resolved, schedule=replace(schedule, steps=0))
    with tempfile.TemporaryDirectory() as scratch:
        plots_of_pilot = (
            PretrainPlots(Path(scratch), task, plots.brief) if plots is not None else None
        )
        pilot = _train_steps(without_steps, task, planned, None, plots_of_pilot, silent, group)
        if plots_of_pilot is not None:
            plots_of_pilot.after_training(pilot.state.average.model, pilot.records)
    overhead = time.perf_counter() - begun
    batches = Batches(task, method.views(task), schedule, method.seed)
    health = Health(task, batches.unlabeled_pipelines[0], planned.precision)
    begun = time.perf_counter()
    health(pilot.state.average.model)
    look = time.perf_counter() - begun
    looks = schedule.looks * look
    pilot_time = pilot_seconds(deadline.left)
    step = step_seconds(resolved, task, method.seed, planned, pilot_time, group)
    beside = overhead + looks + deadline.reserved
    seconds = deadline.left + deadline.reserved
    clocked = pilot.seconds + looks
    planned = replace(planned, seconds_per_step=step, look=look)
    return bought(planned, seconds, beside, clocked, heads=deadline.heads)


def _train_steps(
    resolved: Settings,
    task: Task,
    planned: Plan,
    work: Path | None,
    plots: PretrainPlots | None,
    say: Say,
    group: ProcessGroup,
) -> History:
    """Train all steps, with evaluations of the features, checkpoints and pictures."""
    method, schedule = resolved.method, resolved.schedule
    assert isinstance(method, SelfSupervised) and schedule is not None
    trainer = Trainer(method, task, schedule, method.seed, planned, work, group=group)
    state, history, batches = trainer.state, trainer.history, trainer.batches
    health = Health(task, batches.unlabeled_pipelines[0], planned.precision)

    def evaluate(step: int) -> None:
        model = state.average.model
        if plots is not None and step == 0:
            plots.before_training(model, batches[0])
        history.record(step, health(model))
        before = _failure(method, history.records[-2], state.schedule_progress) if step else None
        found = _failure(method, history.records[-1], state.schedule_progress)
        if found is not None and before is None:
            say(found)
        if plots is not None:
            plots.at_evaluation(model, step)

    trainer.run(evaluate, method.name, say, task.track)
    return history


def _failure(
    method: SelfSupervised, line: dict[str, float], progress: ScheduleProgress
) -> str | None:
    """Return a sentence on what has failed at an evaluation; None early, or if nothing has.

    The features are checked first, then the method's own figures.
    """
    if progress.is_early(line["step"]):
        return None
    return collapse(line, progress) or method.failure(line)
