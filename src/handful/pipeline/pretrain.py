"""The label-free stage: a backbone trained on images alone, kept in a folder, then used.

`pretrain` leaves such a folder. `staged` is the stage inside of a fit: it is made once for the
same images, method, schedule, network and seed, kept in the cache, and so shared by all draws of
labels, by folds and by the cells of a comparison. Its key holds no label.

Beside what pretrained.py reads a folder holds `history.jsonl`, pictures, and `checkpoint/` while
it is unfinished.
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

from handful import devices, methods
from handful._version import __version__
from handful.data.cache import about, cache_folder, explained, locked, used
from handful.data.cache_entries import keep_within_limit
from handful.data.decoding.value_range import in_words
from handful.data.imageset import ImageSet
from handful.data.vanished import on_the_rest
from handful.errors import HandfulError
from handful.evaluation.representation import SETTLED, Health, collapse
from handful.files import sole_writer, write_json, write_tensors, write_text
from handful.methods.base import Method, Task, Trained, Tunable, as_json
from handful.methods.schedule import Schedule, ScheduleProgress
from handful.methods.self_supervised import SelfSupervised
from handful.models.classifier import BackboneSpec
from handful.pipeline.options import InputSpec
from handful.pipeline.pretrain_plots import Gallery
from handful.pipeline.pretrained import (
    HISTORY,
    PICTURES,
    RECORD,
    STAGE,
    WEIGHTS,
    Pretrained,
    drop_pictures,
    open_pretrained,
    weights_hash,
)
from handful.pipeline.run_folder import abandoning, claim, clear, releasing, settle
from handful.pipeline.setup import prepare, rehearse
from handful.progress import Say, Track, quiet, silent
from handful.text import duration
from handful.training.batches import Batches
from handful.training.history import History
from handful.training.plan import Plan, load_or_make_plan, make_plan
from handful.training.settings import Settings, fingerprint
from handful.training.time_budget import (
    Deadline,
    bought,
    check_budget,
    embedding_seconds,
    pilot_seconds,
    step_seconds,
)
from handful.training.trainer import Trainer, feature_positions

TRAINING = 0.25  # of a budget: for a training on labels that follows such a stage
_HEADS, _HEADS_SECONDS = 5, 1.0  # fits that are timed at most: the first is slow, others disturb
_VERSION = 2  # raise when the same key would give other weights


@on_the_rest
@devices.memory_kept()
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
    track: Track = quiet,
    say: Say = silent,
    command: Sequence[str] = (),
) -> Pretrained:
    """Train a backbone on images, whose labels, if they have any, are not learned from.

    Labelled images serve one purpose: the history says how often their neighbours are of the same
    class, and the map of the features is coloured by label.

    Args:
        images: a test part, if there is one, is left aside unread.
        out: folder for the outcome. An unfinished stage of the same images, settings and seed in
            there is continued; a finished one is returned; any other is refused.
        seed: of the stage; by default that of the method.
        budget: seconds for all of it. Steps are timed first, then as many are taken as fit.
        pictures: leave pictures of sample images in the folder; off for private photos.

    The other arguments are those of `fit`.
    """
    begun = time.perf_counter()
    chosen, task = prepare(
        images,
        method,
        schedule=schedule,
        backbone=backbone,
        inputs=InputSpec(size, aspect, flips, precision),
        settings=settings,
        track=track,
    )
    if not isinstance(chosen.method, SelfSupervised):
        known = [name for name, kind in methods.METHODS.items() if issubclass(kind, SelfSupervised)]
        raise HandfulError(
            f"{chosen.method.name} learns from labels; pretrain takes {', '.join(known)}"
        )
    if seed is not None:
        chosen = replace(chosen, method=replace(chosen.method, seed=seed))
    if budget is not None:
        budget = float(budget)
        check_budget(budget, settings or {})
    rehearse(chosen, task, seed=0)
    deadline = None if budget is None else Deadline(budget, begun)
    mark, folder = stage_fingerprint(chosen, task, deadline), Path(out)
    with sole_writer(folder), abandoning(folder, mark):
        built = claim(folder, mark, overwrite, STAGE, say)
        if not pictures:
            drop_pictures(built or folder)
        if built is None:
            clear(folder)
            say(f"{folder} already holds this, finished")
            return open_pretrained(folder)
        if images.value_range is not None:
            scale = in_words(images.value_range)
            say(f"values of more than 8 bits are scaled {scale}; fit --init keeps this scale")
        gallery = Gallery(built / PICTURES, task) if pictures else None
        _make(chosen, task, mark, built, gallery, say, command, deadline)
        settle(folder, built, STAGE, say)
    return open_pretrained(folder)


def staged(
    chosen: Settings,
    task: Task,
    say: Say = silent,
    deadline: Deadline | None = None,
    reserve: Callable[[], Deadline] | None = None,
    pictures: bool = True,
) -> tuple[Settings, Task, Pretrained | None]:
    """For a label-free method: what follows it, the task of that, and the stage itself.

    The stage comes from the cache, or is made. Every other method, and its task, as they are.

    Args:
        reserve: the deadline as the stage has to see it, see `reserving`; asked only where the
            stage is not known.
        pictures: leave pictures of sample images in the cache; off for private photos, and then
            those that an earlier run left there go too.
    """
    method = chosen.method
    if not isinstance(method, SelfSupervised):
        return chosen, task, None
    made = cached(chosen, task, say, deadline, reserve, pictures)
    following = methods.make(method.then)
    task = replace(task, backbone=made.backbone, init=made.init)
    schedule = following.schedule(task) if isinstance(following, Trained) else None
    return Settings(following, schedule, made.backbone, chosen.precision), task, made


def cached(
    chosen: Settings,
    task: Task,
    say: Say = silent,
    deadline: Deadline | None = None,
    reserve: Callable[[], Deadline] | None = None,
    pictures: bool = True,
) -> Pretrained:
    """The stage from the cache; made there if it is not yet, or gone on with."""
    mark = stage_fingerprint(chosen, task, deadline)
    folder = cache_folder() / "pretrained" / mark.removeprefix("sha256:")[:32]
    with locked(folder):
        if not pictures:
            shutil.rmtree(folder / PICTURES, ignore_errors=True)  # those of an earlier run
        known = _known(folder)
        if known is not None:
            used(folder)
            trouble = known.record["collapse"]
            text = f"the backbone that {chosen.method.name} made of these images is known"
            say(f"{text}; {trouble}" if trouble else text)
            return known
        if reserve is not None:
            deadline = reserve()
        blind = replace(task, images=task.images.seen(np.empty(0, np.int64)))
        with explained(folder):
            gallery = Gallery(folder / PICTURES, blind, brief=True) if pictures else None
            _make(chosen, blind, mark, folder, gallery, say, (), deadline)
            clear(folder)
        source = task.images.store.source or task.images.source
        about(folder, source=source, method=chosen.method.name)
    keep_within_limit()
    return open_pretrained(folder)


def _known(folder: Path) -> Pretrained | None:
    """The stage in a folder of the cache; None if there is none yet, or it is damaged."""
    if not (folder / RECORD).exists():
        return None
    try:
        return open_pretrained(folder)
    except HandfulError:
        shutil.rmtree(folder)
        return None


def stage_fingerprint(chosen: Settings, task: Task, deadline: Deadline | None = None) -> str:
    """Hash of all that the stage depends on: no label, no name of a class, no file name.

    With a deadline it is of the budget, not of the steps that this buys, and of the method that
    follows, which shares it.
    """
    digest = hashlib.sha256(task.images.store.fingerprints[task.images.rows].tobytes())
    described = chosen.as_json()
    if deadline is None:
        described["method"].pop("then")
    start = task.init.hash if task.init is not None else None
    return fingerprint(
        _VERSION,
        digest.hexdigest(),
        described,
        task.size,
        task.aspect,
        task.flips,
        start,
        *([] if deadline is None else [deadline.budget]),
    )


def reserving(
    chosen: Settings, task: Task, seed: int, deadline: Deadline, fits: int, all_images: bool
) -> Deadline:
    """The deadline of a fit as its label-free stage has to see it: time is kept for what follows.

    `TRAINING` of the budget for a training; for heads what the features and `fits` of them take.

    Args:
        all_images: whether features of images are wanted that the heads do not learn from.
    """
    method = chosen.method
    assert isinstance(method, SelfSupervised)
    following = methods.make(method.then)
    if isinstance(following, Trained):
        return replace(deadline, reserved=TRAINING * deadline.budget)
    untrained = replace(task, backbone=method.spec(task), init=None)
    positions = feature_positions(following, task, seed)
    some = untrained if all_images else replace(untrained, images=task.images[positions])
    kept = embedding_seconds(some, chosen.precision)
    width: int = untrained.make_backbone().width  # type: ignore[assignment]
    noise = torch.randn(len(positions), width, generator=torch.Generator().manual_seed(0))
    known, pool = noise[: len(task.labeled)], noise[len(task.labeled) :]
    labels, classes = task.labels[task.labeled], len(task.classes)
    begun = time.perf_counter()
    if isinstance(following, Tunable):
        following = following.tuned(known, labels, classes, seed)
        kept += time.perf_counter() - begun
    seconds: list[float] = []
    while not seconds or len(seconds) < _HEADS and sum(seconds) < _HEADS_SECONDS:
        begun = time.perf_counter()
        following.fit_features(known, labels, pool, classes, seed)
        seconds.append(time.perf_counter() - begun)
    return replace(deadline, reserved=kept + fits * median(seconds), heads=fits)


def _make(
    chosen: Settings,
    task: Task,
    mark: str,
    folder: Path,
    gallery: Gallery | None,
    say: Say,
    command: Sequence[str],
    deadline: Deadline | None,
) -> None:
    """Train, and write the folder; an unfinished stage in its checkpoint/ is gone on with."""
    method = chosen.method
    assert isinstance(method, SelfSupervised) and chosen.schedule is not None
    planned = _plan(chosen, task, folder / "checkpoint", gallery, deadline)
    steps = chosen.schedule.steps if planned.steps is None else planned.steps
    schedule = replace(chosen.schedule, steps=steps)
    chosen = replace(chosen, schedule=schedule)
    say(
        f"{method.name} with {task.backbone.name} on {len(task.training_pool)} images, "
        f"labels unseen: "
        f"{planned.taken or steps} steps, about {duration(planned.expected(steps))} "
        f"({planned.precision})"
    )
    history = _train(chosen, task, planned, folder / "checkpoint", gallery, say)
    model: Any = history.state.average.model
    weights = {key: value.detach().cpu() for key, value in model.backbone.state_dict().items()}
    constants = [part.flatten().tolist() for part in (model.normalize.mean, model.normalize.std)]
    parameters = sum(p.numel() for p in model.backbone.parameters())
    write_tensors(folder / WEIGHTS, weights, {"handful": __version__})
    lines = (json.dumps(line) + "\n" for line in history.records)
    write_text(folder / HISTORY, "".join(lines))
    record = {
        "handful": __version__,
        "command": list(command),
        "fingerprint": mark,
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
        },
        "health": history.records[-1],
        "collapse": _trouble(method, history.records[-1], history.state.schedule_progress),
    }
    write_json(folder / RECORD, record)


def _plan(
    chosen: Settings,
    task: Task,
    work: Path,
    gallery: Gallery | None,
    deadline: Deadline | None,
) -> Plan:
    """The plan of an unfinished stage, or one measured now, with the steps that a budget buys."""
    method, schedule = chosen.method, chosen.schedule
    assert isinstance(method, SelfSupervised) and schedule is not None
    if deadline is None:
        return load_or_make_plan(work, lambda: make_plan(chosen, task, method.seed))
    with releasing(work):
        return load_or_make_plan(work, lambda: _bought(chosen, task, gallery, deadline))


def _bought(chosen: Settings, task: Task, gallery: Gallery | None, deadline: Deadline) -> Plan:
    """A plan with as many steps as fit before the deadline, pictures and evaluations included."""
    method, schedule = chosen.method, chosen.schedule
    assert isinstance(method, SelfSupervised) and schedule is not None
    task = replace(task, track=quiet)
    planned = make_plan(chosen, task, method.seed)
    begun = time.perf_counter()
    none = replace(chosen, schedule=replace(schedule, steps=0))
    with tempfile.TemporaryDirectory() as scratch:
        drawn = Gallery(Path(scratch), task, gallery.brief) if gallery is not None else None
        untrained = _train(none, task, planned, None, drawn, silent)
    around = time.perf_counter() - begun
    batches = Batches(task, method.views(task), schedule, method.seed)
    health = Health(task, batches.unlabeled_pipelines[0], planned.precision)
    begun = time.perf_counter()
    health(untrained.state.average.model)
    look = time.perf_counter() - begun
    looks = schedule.looks * look
    step = step_seconds(chosen, task, method.seed, planned, pilot_seconds(deadline.left))
    beside = around + looks + deadline.reserved
    seconds = deadline.left + deadline.reserved
    clocked = untrained.seconds + looks
    planned = replace(planned, seconds_per_step=step, look=look)
    return bought(planned, seconds, beside, clocked, heads=deadline.heads)


def _train(
    chosen: Settings,
    task: Task,
    planned: Plan,
    work: Path | None,
    gallery: Gallery | None,
    say: Say,
) -> History:
    """The steps, with looks at the health of the features, checkpoints and pictures."""
    method, schedule = chosen.method, chosen.schedule
    assert isinstance(method, SelfSupervised) and schedule is not None
    trainer = Trainer(method, task, schedule, method.seed, planned, work)
    state, history, batches = trainer.state, trainer.history, trainer.batches
    health = Health(task, batches.unlabeled_pipelines[0], planned.precision)

    def look(step: int) -> None:
        model = state.average.model
        if gallery is not None and step == 0:
            gallery.first(model, batches[0])
        history.record(step, health(model))
        before = _trouble(method, history.records[-2], state.schedule_progress) if step else None
        found = _trouble(method, history.records[-1], state.schedule_progress)
        if found is not None and before is None:
            say(found)
        if gallery is not None:
            gallery.look(model, step)

    trainer.run(look, method.name, say)
    if gallery is not None:
        gallery.last(state.average.model, history.records)
    return history


def _trouble(
    method: SelfSupervised, line: dict[str, float], progress: ScheduleProgress
) -> str | None:
    """What is wrong at a look, as a sentence: by the features, else by the method's own figures."""
    if progress.position(int(line["step"])) <= SETTLED * progress.steps:
        return None
    return collapse(line, progress) or method.failure(line)
