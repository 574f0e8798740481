"""The interface of methods: the task they learn, the batches they receive, and the protocols.

A method may have state that is not a weight (a memory bank, an adaptive threshold, running class
shares). `state(task)` makes it; `loss` reads it from `batch.state` and changes it in place. The
training loop saves it in every checkpoint. It is not averaged, and it is no part of the predictor.

Letters in shapes: N images, K classes, C channels, S the side in pixels, D features.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from handful import models
from handful.data.augmentation.pipelines import Pipeline
from handful.data.imageset import ImageSet
from handful.data.splits import evenly_spaced
from handful.methods.schedule import Schedule, ScheduleProgress
from handful.models.classifier import BackboneSpec, Classifier, Normalize, without_head
from handful.progress import Track, quiet


@dataclass(frozen=True, eq=False)
class Init:
    """Initial weights of a backbone, learned before without labels.

    They come with the constants that normalised the images of that training.
    """

    weights: dict[str, Tensor] = field(repr=False)  # the backbone's state_dict
    mean: tuple[float, ...]  # per channel
    std: tuple[float, ...]
    hash: str  # equal weights and constants have equal hashes


@dataclass(frozen=True, eq=False)
class Task:
    """A learning problem: images, some with a label, and the backbone to learn them with.

    A task has no test part, so no method, estimate or selection can use one.
    """

    images: ImageSet  # with label -1 where it is hidden or absent
    backbone: BackboneSpec
    size: int  # S: side in pixels that images are resized to
    aspect: str = "crop"  # crop the longer side, pad the shorter one, or stretch
    flips: bool = True  # whether mirrored images are of the same class
    validation: tuple[int, ...] = ()  # labelled positions set aside for early stopping
    init: Init | None = None  # None: the backbone's own initial weights
    shares: tuple[float, ...] | None = None  # (K,) class shares among the images, where given
    track: Track = field(default=quiet, repr=False)

    def __post_init__(self) -> None:
        if self.images.test is not None:
            raise ValueError("a task may not hold a test part; pass images[:] to leave it behind")

    @property
    def classes(self) -> tuple[str, ...]:
        return self.images.classes

    @property
    def channels(self) -> int:
        return self.images.channels

    @cached_property
    def pixels(self) -> Tensor:
        """(N, C, S, S) uint8, every image of the task."""
        return self.images.at(self.size, self.aspect, self.track)

    def pixels_at(self, positions: Tensor) -> Tensor:
        """(n, C, S, S) uint8, the images at (n,) positions; the others are not decoded for it."""
        if "pixels" in self.__dict__:
            return self.pixels[positions]
        return self.images[positions.numpy()].at(self.size, self.aspect, self.track)

    @cached_property
    def labels(self) -> Tensor:
        """(N,) int64, -1 where unknown."""
        return torch.from_numpy(np.ascontiguousarray(self.images.labels, dtype=np.int64))

    @cached_property
    def labeled(self) -> Tensor:
        """(n,) sorted positions of the labelled images, without the validation part."""
        held = set(self.validation)
        positions = [i for i in self.images.labeled.tolist() if i not in held]
        return torch.tensor(positions, dtype=torch.int64)

    @cached_property
    def counted(self) -> Tensor:
        """(n,) whether each image of `labeled` tells how common classes are: it was not chosen."""
        return torch.from_numpy(self.images[self.labeled.numpy()].counted)

    @cached_property
    def training_pool(self) -> Tensor:
        """(M,) positions of all images except validation, for learning without their labels.

        The labelled images are among them, as in the authors' code of UDA and FixMatch.
        """
        held = set(self.validation)
        return torch.tensor(
            [i for i in range(len(self.images)) if i not in held], dtype=torch.int64
        )

    def make_backbone(self, channels: int | None = None) -> nn.Module:
        """An untrained backbone for the task's images, or for images with other channels."""
        return self.backbone.make(channels or self.channels, self.size)

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel in [0, 1], over at most 10,000 images."""
        std, mean = torch.std_mean(self.some_pixels().float() / 255, dim=(0, 2, 3))
        return mean.tolist(), std.clamp_min(1e-3).tolist()

    def some_pixels(self) -> Tensor:
        """(at most 10,000, C, S, S) uint8, evenly spaced over the images."""
        return evenly_spaced(self.pixels, 10_000)


class About(NamedTuple):
    """Description of a method, which reports show and `auto` selects by.

    It is the optional class attribute `about` of a method.
    """

    what: str  # what the method does, as a clause
    strengths: str = ""
    weaknesses: str = ""
    uses_unlabeled: bool | None = None  # whether it learns from unlabelled images; None: unknown
    counterpart: str | None = None  # the method it extends, which uses labels only
    learned_weights: bool = False  # whether its network has learned weights


class Views(NamedTuple):
    """The augmentations that a method asks for."""

    labeled: str | Pipeline | None  # None: no labels are used, batch.images is empty
    unlabeled: tuple[str | Pipeline, ...] = ()
    unlabeled_ratio: int = 0  # unlabelled images for each labelled one in a batch
    pool: Tensor | None = None  # positions that those are drawn from; None: `task.training_pool`
    images: bool = True  # False: batches have positions and labels only, and no image is decoded


def _unchanged(rows: Tensor) -> Tensor:
    return rows


class Batch(NamedTuple):
    """The input of a method at one step. Images are floats in [0, 1], not normalised.

    Where several processes train together, it is the part of this process; see `Trained`.
    """

    images: Tensor  # (N, C, S, S)
    labels: Tensor  # (N,)
    unlabeled: tuple[Tensor, ...] = ()  # one (M, C, S, S) for each unlabelled view
    ids: Tensor | None = None  # (N,) positions in the task of `images`
    unlabeled_ids: Tensor | None = None  # (M,) positions in the task of `unlabeled`
    step: int = 0  # steps taken before this one
    schedule_progress: ScheduleProgress = ScheduleProgress(1)
    averaged: nn.Module | None = None  # the network with averaged weights, as a teacher
    state: Mapping[str, Tensor] = MappingProxyType({})  # of a `Stateful` method
    pixels: Tensor | None = None  # (all, C, S, S) uint8: every image of the task
    # Rows of this process's part → those of the whole batch, with gradients for all of them.
    whole: Callable[[Tensor], Tensor] = _unchanged

    @property
    def progress(self) -> float:
        """Share of the schedule before this step, in [0, 1)."""
        return self.schedule_progress.fraction(self.step)


class Step(NamedTuple):
    """The output of a method at one step."""

    loss: Tensor  # ()
    logs: dict[str, Tensor]  # () each; the history has their means


@runtime_checkable
class Trained(Protocol):
    """A method that trains a network.

    It answers which views it needs (`views`), what is trained (`build`), and the loss of a batch
    (`loss`); `schedule` is the default schedule for a task.

    What `build` returns is a `Classifier`, or has a method `classifier()` that gives one.

    Optional attributes:
        period: number of steps. A method that does long work at the first step of each period
            (see `ScheduleProgress.starts_period`) declares it, so that plans and budgets count
            that work.
        differs_in_evaluation: True where the network computes differently in training and in
            evaluation. Accuracies on training images are then no sign of a failure.
        start_share: the share of the network as `build` returns it in the one that is evaluated and
            saved; the rest is the weight average.
        first_seconds(task): seconds of work that `build` does once, if it is not in the cache.
        divisible: True where several processes may train together, each with a part of the batch:
            the mean of their losses is the loss of the whole batch. That holds for means over
            images; rows that are compared with those of other images go through `batch.whole`
            first. `loss` calls the network once and uses nothing else of it.
    """

    name: ClassVar[str]

    def schedule(self, task: Task) -> Schedule: ...
    def views(self, task: Task) -> Views: ...
    def build(self, task: Task) -> nn.Module: ...
    def loss(self, model: nn.Module, batch: Batch) -> Step: ...


@runtime_checkable
class Networked(Trained, Protocol):
    """A trained method whose default network is not `small`."""

    def network(self, channels: int, side: int) -> str:
        """The name of the default network for images of `channels` x `side` x `side`."""
        ...


@runtime_checkable
class Stateful(Trained, Protocol):
    """A trained method with state that is not a weight.

    `state` returns it at the start, tensors by name; its random numbers come from torch's global
    generator, which the loop has seeded. `loss` changes the tensors of `batch.state` in place,
    without gradient, and never their shape or type.
    """

    def state(self, task: Task) -> dict[str, Tensor]: ...


@runtime_checkable
class Advising(Trained, Protocol):
    """A trained method that knows what to try where its training fails."""

    def advice(self, schedule: Schedule) -> str:
        """Settings to try instead of those of the schedule, as typed; "" without any."""
        ...


@runtime_checkable
class Fitted(Protocol):
    """A method that fits a head on features of a frozen backbone.

    Optional attribute:
        limit: largest number of unlabelled images that it uses. Features of other images are not
            computed.
    """

    name: ClassVar[str]

    def fit_features(
        self, labeled: Tensor, labels: Tensor, unlabeled: Tensor, num_classes: int, seed: int
    ) -> nn.Module:
        """A head (·, D) → (·, K), from features (N, D), labels (N,) and features (M, D)."""
        ...


@runtime_checkable
class Aligning(Fitted, Protocol):
    """A fitted method that aligns pseudo-labels to class shares.

    `fit_features` takes the shares among the unlabelled images where the user gave them; with None
    it estimates them from its arguments, as `class_shares.estimated_shares` does. Where labels were
    chosen, `class_shares.fit_head` estimates them from the others and hands them over.
    """

    aligns: ClassVar[bool]

    def fit_features(
        self,
        labeled: Tensor,
        labels: Tensor,
        unlabeled: Tensor,
        num_classes: int,
        seed: int,
        shares: Tensor | None = None,
    ) -> nn.Module: ...


@runtime_checkable
class Tunable(Fitted, Protocol):
    """A fitted method that tunes some of its settings by cross-validation."""

    def tuned(self, labeled: Tensor, labels: Tensor, num_classes: int, seed: int) -> Fitted:
        """The method with the settings tuned on features (N, D) and labels (N,)."""
        ...


Method = Trained | Fitted


def advice_of(method: Trained, schedule: Schedule) -> str:
    """What a method says to try where its training fails; "" where it says nothing."""
    return method.advice(schedule) if isinstance(method, Advising) else ""


def as_json(method: Method) -> dict[str, Any]:
    """The record of a method: its name and its fields."""
    return {"name": method.name, **asdict(method)}  # type: ignore[call-overload]


def body(task: Task) -> tuple[Normalize, nn.Module]:
    """The normalisation and the untrained backbone of a network for the task.

    The constants of the normalisation are those of `task.init`, else the backbone's `mean` and
    `std`, else those of the task's images. A backbone with `init_from_data` then initialises
    itself from normalised images of the task.
    """
    backbone: Any = task.make_backbone()
    if task.init is not None:
        backbone.load_state_dict(task.init.weights)
        return Normalize(list(task.init.mean), list(task.init.std)), backbone
    has_constants = hasattr(backbone, "mean")
    mean, std = (backbone.mean, backbone.std) if has_constants else task.statistics()
    normalize = Normalize(list(mean), list(std))
    if hasattr(backbone, "init_from_data"):
        backbone.init_from_data(normalize(task.some_pixels().float() / 255))
    return normalize, backbone


def classifier(task: Task, dropout: float = 0.0) -> Classifier:
    """An untrained classifier for the task; every network with a head is built here."""
    normalize, backbone = body(task)
    return Classifier(backbone, len(task.classes), normalize, dropout)


def feature_network(task: Task) -> Classifier:
    """The network of a task, without a head, for features alone; it is shared, so do not train it.

    Where its weights are learned already, the last ones are kept: a fit asks for its network a
    dozen times, and each takes up to a tenth of a second to make.
    """
    init, backbone = task.init, task.backbone
    if init is None and not models.pretrained(backbone.name):
        return without_head(classifier(task))
    options = repr(sorted(backbone.options.items()))
    key = (backbone.name, options, task.channels, task.size, None if init is None else init.hash)
    found = _networks.pop(key, None) or without_head(classifier(task))
    _networks[key] = found  # the latest one comes last
    while len(_networks) > _KEPT:
        _networks.pop(next(iter(_networks)), None)
    return found


_KEPT = 2  # networks in memory
_networks: dict[tuple[str, str, int, int, str | None], Classifier] = {}
