"""Resolve the options of a fit into method settings and a task, and validate both."""

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
from handful.methods.base import Method, Networked, Task, Trained, feature_network
from handful.methods.schedule import Schedule
from handful.methods.self_supervised import SelfSupervised
from handful.models.classifier import BackboneSpec, Classifier, Normalize
from handful.models.engine import INT8
from handful.pipeline.configure import configure
from handful.pipeline.model_file import check_saves
from handful.pipeline.options import InputSpec
from handful.pipeline.pretrained import Pretrained, open_pretrained
from handful.pipeline.record_schema import LARGEST_SIDE
from handful.progress import Track, quiet
from handful.text import did_you_mean, name_in_text
from handful.training.batches import Batches
from handful.training.loop import fresh
from handful.training.optimizers import layers_above
from handful.training.settings import Settings

LARGEST_SIZE = 64  # pixels a side for networks trained from scratch; larger images are reduced
PRETRAINED_SIZE = 224  # pixels a side for networks pre-trained on ImageNet
PRETRAINED_SIZE_OF_SMALL = 160  # the same for images of LARGEST_SIZE or less: more gains nothing


def subsample_labels(images: ImageSet, per_class: int, seed: int) -> ImageSet:
    """Return the images with `per_class` labels of each class, drawn by `seed`; others are -1.

    The test part stays as it is.
    """
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
    """Resolve method, network, schedule and input options into (Settings, Task).

    Args:
        settings: fields of method, schedule and backbone as text, by name; see `configure`.
        init: folder of a pre-trained backbone, which also fixes network, size and aspect.

    Raises:
        HandfulError: an option is unknown, or two options exclude each other.
    """
    inputs = inputs or InputSpec()
    made = methods.make(method) if isinstance(method, str) else method
    if init is None:
        side = inputs.size or default_size(images, BackboneSpec("small"))
        spec = default_backbone(made, backbone, images.channels, side)
        task = make_task(images, spec, inputs, track)
    else:
        if isinstance(made, SelfSupervised) or backbone is not None:
            what = f"method {made.name!r}" if backbone is None else f"backbone {backbone!r}"
            raise HandfulError(
                f"{init} holds a pre-trained backbone, and {what} asks for another one; use "
                f"--init with features, mlp_head, supervised or the like, and no --backbone"
            )
        task = _task_from_pretrained(images, open_pretrained(init), inputs, track)
    parts: dict[str, Any] = {"method": made, "backbone": _with_mirror_option(task)}
    if isinstance(made, Trained):
        parts["schedule"] = schedule or made.schedule(task)
    changed = configure(settings or {}, **parts)
    trains = isinstance(made, Trained)
    precision = "auto" if trains and inputs.precision == INT8 else inputs.precision
    resolved = Settings(changed["method"], changed.get("schedule"), changed["backbone"], precision)
    return resolved, replace(task, backbone=resolved.backbone)


def _with_mirror_option(task: Task) -> BackboneSpec:
    """Return the task's network, with `mirrored` off where the task does not allow flips.

    Features are otherwise averaged over an image and its mirror image.
    """
    spec = task.backbone
    if task.flips or not models.mirrors(spec.name) or "mirrored" in spec.options:
        return spec
    return replace(spec, options={**spec.options, "mirrored": False})


def _task_from_pretrained(
    images: ImageSet, pretrained: Pretrained, inputs: InputSpec, track: Track
) -> Task:
    """Return a task whose backbone starts from pre-trained weights, at their size and aspect."""
    if images.channels != pretrained.channels:
        kinds = {1: "grey", 3: "colour"}
        raise HandfulError(
            f"{pretrained.folder} learned from {kinds[pretrained.channels]} images, and those of "
            f"{images.source} are {kinds[images.channels]}; pre-train on images like these"
        )
    if inputs.size not in (None, pretrained.size):
        raise HandfulError(
            f"{pretrained.folder} learned from images of {pretrained.size} pixels, got "
            f"size={inputs.size}; leave size out"
        )
    learned = replace(inputs, size=pretrained.size, aspect=pretrained.aspect)
    task = make_task(images, pretrained.backbone, learned, track)
    return replace(task, init=pretrained.init)


def class_shares(
    prior: Mapping[str, float] | str | None, classes: tuple[str, ...]
) -> list[float] | None:
    """Return the class shares of `prior` in the order of `classes`, scaled to sum 1.

    Returns:
        None where `prior` gives no numbers: "labels" (also None) and "unlabeled".

    Raises:
        HandfulError: a share is missing, negative or of an unknown class, or their sum differs
            from 1 by more than 0.01.
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
            f"Classes: {', '.join(map(name_in_text, classes))}"
        )
    if left_out := [name for name in classes if name not in prior]:
        raise HandfulError(
            f"prior needs a share for each of the {len(classes)} classes, {left_out[0]!r} has "
            f"none; give it 0 if no new image is of this class"
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
    """Return a task: the images without their test part, the network, and the input size."""
    inputs = inputs or InputSpec()
    size, aspect, flips = inputs.size, inputs.aspect or "crop", inputs.flips
    if size is not None and not 8 <= size <= LARGEST_SIDE:
        raise HandfulError(f"size is a side in pixels, 8 to {LARGEST_SIDE}, got {size}")
    if aspect not in ("crop", "pad", "stretch"):
        raise HandfulError(f"no aspect {aspect!r}; choose one of crop, pad, stretch")
    return Task(
        images[:],
        backbone,
        size or default_size(images, backbone),
        aspect,
        images.channels == 3 if flips is None else flips,
        shares=inputs.shares,
        track=track,
    )


def default_size(images: ImageSet, backbone: BackboneSpec) -> int:
    """Return the default side in pixels at which the network sees the images.

    A network trained from scratch sees the images at their native size, at most LARGEST_SIZE. A
    pre-trained network sees them at its training size, or at 160 pixels where they are small:
    larger inputs are slower and no more accurate (see `feature_cache.choose_size`).
    """
    longest = max(images.native_size or (LARGEST_SIZE + 1,))
    if models.pretrained(backbone.name):
        return PRETRAINED_SIZE_OF_SMALL if longest <= LARGEST_SIZE else PRETRAINED_SIZE
    return min(LARGEST_SIZE, longest)


def default_backbone(
    method: Method, name: str | BackboneSpec | None, channels: int = 3, side: int = LARGEST_SIZE
) -> BackboneSpec:
    """Return the named network, or the method's default for images of `side` pixels."""
    if isinstance(name, BackboneSpec):
        return name
    if name is not None:
        models.check_name(name)
    if isinstance(method, Trained):
        own = method.network(channels, side) if isinstance(method, Networked) else "small"
        return BackboneSpec(own if name is None else name)
    network = "lite0" if name is None else name
    return BackboneSpec(network, {"stages": 3} if models.multi_stage(network) else {})


def check_opens(settings: Settings, task: Task, seed: int) -> None:
    """Raise HandfulError unless the trained network can be saved and opened again.

    The head of a fitted method that is not handful's own is made from random features first.
    """
    method = settings.method
    if isinstance(method, SelfSupervised):
        return
    if isinstance(method, Trained):
        check_saves(fresh(method, task, seed), task.backbone, task.size, task.channels)
        return
    backbone: Any = feature_network(task).backbone
    constants = [0.0] * len(getattr(backbone, "mean", range(task.channels)))
    classes = len(task.classes)
    model = Classifier(backbone, classes, Normalize(constants, constants))
    if type(method) not in methods.METHODS.values():
        own = torch.Generator().manual_seed(seed)
        noise = torch.randn(4 * classes, int(backbone.width), generator=own)
        labels = torch.arange(4 * classes) % classes
        try:
            model.head = method.fit_features(noise, labels, noise[:0], classes, seed)
        except Exception:  # it cannot learn from noise; its head is checked when it is saved
            return
    check_saves(model, task.backbone, task.size, task.channels)


def validate(settings: Settings, task: Task, seed: int) -> None:
    """Raise HandfulError for settings that do not fit together, before any file is written."""
    if isinstance(settings.method, SelfSupervised):
        following = methods.make(settings.method.then)
        if isinstance(following, SelfSupervised):
            raise HandfulError(
                f"then={following.name} learns without labels, as {settings.method.name} does; the "
                f"method that follows has to learn from labels: features, propagation, supervised "
                f"or the like"
            )
        if isinstance(following, Trained):
            fresh(following, replace(task, backbone=settings.method.spec(task)), seed)
    if isinstance(settings.method, Trained) and settings.schedule is not None:
        if settings.schedule.layer_decay != 1:
            layers_above(task.make_backbone())
        Batches(task, settings.method.views(task), settings.schedule, seed)
        fresh(settings.method, task, seed)
    elif task.init is None and not models.pretrained(settings.backbone.name):
        raise HandfulError(
            f"{settings.method.name} needs a network with learned weights, and backbone "
            f"{settings.backbone.name!r} has none; use --backbone lite0 or timm:NAME, or --method "
            f"supervised"
        )
    else:
        feature_network(task)
