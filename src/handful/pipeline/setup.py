"""Before a fit: which images, which method and which network, and whether they go together."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from handful import methods, models
from handful.data.imageset import ImageSet
from handful.data.splits import draw
from handful.errors import HandfulError
from handful.evaluation.label_shift import LABELED, UNLABELED
from handful.methods.base import Method, Networked, Task, Trained
from handful.methods.schedule import Schedule
from handful.methods.self_supervised import SelfSupervised
from handful.models.classifier import BackboneSpec, Classifier, Normalize
from handful.pipeline.configure import configure
from handful.pipeline.model_file import check_saves
from handful.pipeline.options import InputSpec
from handful.pipeline.pretrained import Pretrained, open_pretrained
from handful.pipeline.record_schema import LARGEST_SIDE
from handful.progress import Track, quiet
from handful.text import did_you_mean
from handful.training.batches import Batches
from handful.training.loop import fresh
from handful.training.settings import Settings

LARGEST_SIZE = 64  # pixels a side for networks trained from scratch; a larger image is reduced
PRETRAINED_SIZE = 224  # pixels a side for networks trained on ImageNet...
PRETRAINED_SIZE_OF_SMALL = 160  # ...and for images of LARGEST_SIZE or less, which gain no more


def hide(images: ImageSet, per_class: int, seed: int) -> ImageSet:
    """All labels hidden but `per_class` of each class, drawn by `seed`; `images.test` is kept."""
    labeled = images.labeled
    groups = None if images.groups is None else images.groups[labeled]
    return images.seen(
        labeled[draw(images.labels[labeled], per_class, seed, groups, images.classes)]
    )


def prepare(
    images: ImageSet,
    method: str | Method,
    *,
    schedule: Schedule | None = None,
    backbone: str | BackboneSpec | None = None,
    inputs: InputSpec | None = None,
    settings: Mapping[str, str] | None = None,
    init: Path | str | None = None,
    track: Track = quiet,
) -> tuple[Settings, Task]:
    """What is to be done and with what; HandfulError for whatever does not fit together.

    Args:
        init: folder of a backbone to start from, which says its own size and aspect.
    """
    inputs = inputs or InputSpec()
    made = methods.make(method) if isinstance(method, str) else method
    if init is None:
        side = inputs.size or own_size(images, BackboneSpec("small"))
        spec = own_backbone(made, backbone, images.channels, side)
        task = make_task(images, spec, inputs, track)
    else:
        if isinstance(made, SelfSupervised) or backbone is not None:
            what = f"method {made.name!r}" if backbone is None else f"backbone {backbone!r}"
            raise HandfulError(
                f"{init} holds a backbone that has learned already, and {what} asks for another; "
                f"give --init with features, mlp_head, supervised or the like, and no --backbone"
            )
        task = _started(images, open_pretrained(init), inputs, track)
    parts: dict[str, Any] = {"method": made, "backbone": _as_flipped(task)}
    if isinstance(made, Trained):
        parts["schedule"] = schedule or made.schedule(task)
    changed = configure(settings or {}, **parts)
    chosen = Settings(
        changed["method"], changed.get("schedule"), changed["backbone"], inputs.precision
    )
    return chosen, replace(task, backbone=chosen.backbone)


def _as_flipped(task: Task) -> BackboneSpec:
    """The network, without the mirror image in its features where that is of another class."""
    spec = task.backbone
    if task.flips or not models.mirrors(spec.name) or "mirrored" in spec.options:
        return spec
    return replace(spec, options={**spec.options, "mirrored": False})


def _started(images: ImageSet, start: Pretrained, inputs: InputSpec, track: Track) -> Task:
    """A task whose backbone starts from what was learned before."""
    if images.channels != start.channels:
        kinds = {1: "grey", 3: "colour"}
        raise HandfulError(
            f"{start.folder} learned from {kinds[start.channels]} images, and those of "
            f"{images.source} are {kinds[images.channels]}; pre-train on images like these"
        )
    if inputs.size not in (None, start.size):
        raise HandfulError(
            f"{start.folder} learned from images of {start.size} pixels, got size={inputs.size}; "
            f"leave it out"
        )
    learned = replace(inputs, size=start.size, aspect=start.aspect)
    task = make_task(images, start.backbone, learned, track)
    return replace(task, init=start.init)


def class_shares(
    prior: Mapping[str, float] | str | None, classes: tuple[str, ...]
) -> list[float] | None:
    """`prior` in the order of `classes`; HandfulError unless it is a share for each, 1 together.

    None where it is not given in numbers: "labels", which None is short for, or "unlabeled".
    """
    if prior in (None, LABELED, UNLABELED):
        return None
    if isinstance(prior, str) or prior is None:
        raise HandfulError(
            f"no prior {prior!r}; choose {LABELED} or {UNLABELED}, or give every class its share"
        )
    if unknown := [name for name in prior if name not in classes]:
        raise HandfulError(
            f"prior names no class {unknown[0]!r}.{did_you_mean(unknown[0], classes)} "
            f"Classes: {', '.join(classes)}"
        )
    if left_out := [name for name in classes if name not in prior]:
        raise HandfulError(
            f"prior needs a share for each of the {len(classes)} classes, {left_out[0]!r} has "
            f"none; give it 0 where no new image is of it"
        )
    total = math.fsum(prior.values())
    if not (all(share >= 0 for share in prior.values()) and abs(total - 1) <= 0.01):
        raise HandfulError(
            f"prior needs shares of 0 or more that add up to 1, got {dict(prior)}, which add up "
            f"to {total:.4g}"
        )
    return [prior[name] / total for name in classes]


def make_task(
    images: ImageSet,
    backbone: BackboneSpec,
    inputs: InputSpec | None = None,
    track: Track = quiet,
) -> Task:
    """The images without their test part, the network, and the size both meet at."""
    inputs = inputs or InputSpec()
    size, aspect, flips = inputs.size, inputs.aspect or "crop", inputs.flips
    if size is not None and not 8 <= size <= LARGEST_SIDE:
        raise HandfulError(f"size is a side in pixels, 8 to {LARGEST_SIDE}, got {size}")
    if aspect not in ("crop", "pad", "stretch"):
        raise HandfulError(f"no aspect {aspect!r}; choose one of crop, pad, stretch")
    return Task(
        images[:],
        backbone,
        size or own_size(images, backbone),
        aspect,
        images.channels == 3 if flips is None else flips,
        track=track,
    )


def own_size(images: ImageSet, backbone: BackboneSpec) -> int:
    """The side in pixels that suits images and network where none is asked for.

    A network trained from nothing sees the images at their own size, reduced to LARGEST_SIZE.
    A pre-trained one sees them as large as it was trained with, or at 160 pixels where they are
    small: beyond that it gets slower and no better (see `feature_cache.choose_size`).
    """
    longest = max(images.native_size or (LARGEST_SIZE + 1,))
    if models.pretrained(backbone.name):
        return PRETRAINED_SIZE_OF_SMALL if longest <= LARGEST_SIZE else PRETRAINED_SIZE
    return min(LARGEST_SIZE, longest)


def own_backbone(
    method: Method, name: str | BackboneSpec | None, channels: int = 3, side: int = LARGEST_SIZE
) -> BackboneSpec:
    """The network asked for, else the one that suits the method and images of `side` pixels."""
    if isinstance(name, BackboneSpec):
        return name
    if name is not None:
        models.check_name(name)
    if isinstance(method, Trained):
        own = method.network(channels, side) if isinstance(method, Networked) else "small"
        return BackboneSpec(own if name is None else name)
    chosen = "lite0" if name is None else name
    return BackboneSpec(chosen, {"stages": 3} if models.multi_stage(chosen) else {})


def check_opens(chosen: Settings, task: Task, seed: int) -> None:
    """HandfulError unless the network, once trained and saved, can be opened again.

    A head of a fitted method that is not of handful is tried on noise.
    """
    method = chosen.method
    if isinstance(method, SelfSupervised):
        return
    if isinstance(method, Trained):
        check_saves(fresh(method, task, seed), task.backbone, task.size, task.channels)
        return
    backbone: Any = task.make_backbone()
    constants = [0.0] * len(getattr(backbone, "mean", range(task.channels)))
    classes = len(task.classes)
    model = Classifier(backbone, classes, Normalize(constants, constants))
    if type(method) not in methods.METHODS.values():
        noise = torch.randn(4 * classes, int(backbone.width))
        labels = torch.arange(4 * classes) % classes
        try:
            model.head = method.fit_features(noise, labels, noise[:0], classes, seed)
        except Exception:  # noise is nothing for it; its head is then checked when it is saved
            return
    check_saves(model, task.backbone, task.size, task.channels)


def rehearse(chosen: Settings, task: Task, seed: int) -> None:
    """Raise what a wrong setting raises, before anything is written or timed."""
    if isinstance(chosen.method, SelfSupervised):
        following = methods.make(chosen.method.then)
        if isinstance(following, SelfSupervised):
            raise HandfulError(
                f"then={following.name} learns without labels, as {chosen.method.name} does; what "
                f"follows has to learn from them: features, propagation, supervised or the like"
            )
        if isinstance(following, Trained):
            fresh(following, replace(task, backbone=chosen.method.spec(task)), seed)
    if isinstance(chosen.method, Trained) and chosen.schedule is not None:
        Batches(task, chosen.method.views(task), chosen.schedule, seed)
        fresh(chosen.method, task, seed)
    elif task.init is None and not models.pretrained(chosen.backbone.name):
        raise HandfulError(
            f"{chosen.method.name} needs a network with learned weights, and backbone "
            f"{chosen.backbone.name!r} has none; use --backbone lite0 or timm:NAME, or --method "
            f"supervised"
        )
    else:
        task.make_backbone()
