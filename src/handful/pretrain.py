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
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

import handful
from handful import methods
from handful.data.cache import cache_folder, locked
from handful.data.imageset import ImageSet, Track, quiet
from handful.files import sole_writer, write_json, write_tensors, write_text
from handful.folder import claim, clear
from handful.gallery import Gallery
from handful.health import SETTLED, Health, collapse
from handful.learn import (
    Journal,
    Say,
    Settings,
    fingerprint,
    remembered_plan,
    run,
    silent,
)
from handful.methods.base import BackboneSpec, Method, Task, Trained, as_json
from handful.methods.label_free import LabelFree
from handful.prepare import prepare, rehearse
from handful.pretrained import HISTORY, RECORD, WEIGHTS, Pretrained, open_pretrained, weights_hash
from handful.schedule import Schedule
from handful.train import Batches, Plan, begin
from handful.wording import duration

PICTURES = "pictures"
_VERSION = 1  # raise when the same key would give other weights


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
        pictures: leave pictures of sample images in the folder; off for private photos.

    The other arguments are those of `fit`.
    """
    chosen, task = prepare(
        images,
        method,
        schedule=schedule,
        backbone=backbone,
        size=size,
        aspect=aspect,
        flips=flips,
        precision=precision,
        settings=settings,
        track=track,
    )
    if not isinstance(chosen.method, LabelFree):
        known = [name for name, kind in methods.METHODS.items() if issubclass(kind, LabelFree)]
        raise ValueError(
            f"{chosen.method.name} learns from labels; pretrain takes {', '.join(known)}"
        )
    if seed is not None:
        chosen = replace(chosen, method=replace(chosen.method, seed=seed))
    rehearse(chosen, task, seed=0)
    mark, folder = stage_fingerprint(chosen, task), Path(out)
    with sole_writer(folder):
        if claim(folder, mark, overwrite, RECORD, (WEIGHTS, HISTORY)):
            clear(folder)
            say(f"{folder} already holds this, finished")
            return open_pretrained(folder)
        if overwrite:
            shutil.rmtree(folder / PICTURES, ignore_errors=True)
        gallery = Gallery(folder / PICTURES, task) if pictures else None
        _make(chosen, task, mark, folder, gallery, say, command)
        clear(folder)
    return open_pretrained(folder)


def staged(chosen: Settings, task: Task, say: Say = silent) -> tuple[Settings, Task]:
    """For a label-free method: its stage from the cache or made, and the method that follows it.

    Every other method, and its task, as they are.
    """
    method = chosen.method
    if not isinstance(method, LabelFree):
        return chosen, task
    made = cached(chosen, task, say)
    following = methods.make(method.then)
    task = replace(task, backbone=made.backbone, init=made.init)
    schedule = following.schedule(task) if isinstance(following, Trained) else None
    return Settings(following, schedule, made.backbone, chosen.precision), task


def cached(chosen: Settings, task: Task, say: Say = silent) -> Pretrained:
    """The stage from the cache; made there if it is not yet, or gone on with."""
    mark = stage_fingerprint(chosen, task)
    folder = cache_folder() / "pretrained" / mark.removeprefix("sha256:")[:32]
    with locked(folder):
        if (folder / RECORD).exists():
            say(f"the backbone that {chosen.method.name} made of these images is known")
            return open_pretrained(folder)
        blind = replace(task, images=task.images.seen(np.empty(0, np.int64)))
        _make(chosen, blind, mark, folder, None, say, ())
        clear(folder)
    return open_pretrained(folder)


def stage_fingerprint(chosen: Settings, task: Task) -> str:
    """Hash of all that the stage depends on: no label, no name of a class, no file name."""
    digest = hashlib.sha256(task.images.store.fingerprints[task.images.rows].tobytes())
    described = chosen.as_json()
    described["method"].pop("then")  # what follows changes nothing here
    start = task.init.hash if task.init is not None else None
    return fingerprint(
        _VERSION, digest.hexdigest(), described, task.size, task.fit, task.flips, start
    )


def _make(
    chosen: Settings,
    task: Task,
    mark: str,
    folder: Path,
    gallery: Gallery | None,
    say: Say,
    command: Sequence[str],
) -> None:
    """Train, and write the folder; an unfinished stage in its checkpoint/ is gone on with."""
    method = chosen.method
    assert isinstance(method, LabelFree) and chosen.schedule is not None
    planned = remembered_plan(chosen, task, method.seed, folder / "checkpoint", None)
    steps = chosen.schedule.steps
    say(
        f"{method.name} with {task.backbone.name} on {len(task.unlabeled)} images, labels unseen: "
        f"{steps} steps, about {duration(planned.seconds(steps))} ({planned.precision})"
    )
    journal = _train(chosen, task, planned, folder / "checkpoint", gallery, say)
    model: Any = journal.state.average.model
    weights = {key: value.detach().cpu() for key, value in model.backbone.state_dict().items()}
    constants = [part.flatten().tolist() for part in (model.normalize.mean, model.normalize.std)]
    parameters = sum(p.numel() for p in model.backbone.parameters())
    write_tensors(folder / WEIGHTS, weights, {"handful": handful.__version__})
    lines = (json.dumps(line) + "\n" for line in journal.history)
    write_text(folder / HISTORY, "".join(lines))
    record = {
        "handful": handful.__version__,
        "command": list(command),
        "fingerprint": mark,
        "hash": weights_hash(weights, constants),
        "method": as_json(method),
        "schedule": asdict(chosen.schedule),
        "backbone": asdict(method.spec(task)) | {"parameters": parameters},
        "input": {
            "size": task.size,
            "channels": task.channels,
            "aspect": task.fit,
            "flips": task.flips,
        },
        "normalize": {"mean": constants[0], "std": constants[1]},
        "data": {"source": task.images.source, "images": len(task.unlabeled)},
        "training": {
            "steps": journal.state.step,
            "precision": planned.precision,
            "threads": planned.threads,
            "seconds": round(journal.seconds, 2),
        },
        "health": journal.history[-1],
        "collapse": _trouble(method, journal.history[-1], steps),
    }
    write_json(folder / RECORD, record)


def _train(
    chosen: Settings, task: Task, planned: Plan, work: Path, gallery: Gallery | None, say: Say
) -> Journal:
    """The steps, with looks at the health of the features, checkpoints and pictures."""
    method, schedule = chosen.method, chosen.schedule
    assert isinstance(method, LabelFree) and schedule is not None
    state = begin(method, task, schedule, method.seed)
    journal = Journal(state, work, schedule)
    journal.resume()
    batches = Batches(task, method.views(task), schedule, method.seed)
    health = Health(task, batches.of_unlabeled[0], planned.precision)

    def look(step: int) -> None:
        model = state.average.model
        if gallery is not None and step == 0:
            gallery.first(model, batches[0])
        journal.look(step, health(model))
        before = _trouble(method, journal.history[-2], schedule.steps) if step else None
        found = _trouble(method, journal.history[-1], schedule.steps)
        if found is not None and before is None:
            say(found)
        if gallery is not None:
            gallery.look(model, step)

    run(journal, method, batches, planned.precision, look, task.track, method.name)
    if gallery is not None:
        gallery.last(state.average.model, journal.history)
    return journal


def _trouble(method: LabelFree, line: dict[str, float], steps: int) -> str | None:
    """What is wrong at a look, as a sentence: by the features, else by the method's own figures."""
    if line["step"] <= SETTLED * steps:
        return None
    return collapse(line, steps) or method.trouble(line)
