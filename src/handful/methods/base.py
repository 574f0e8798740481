"""What every method shares: the task it is given, the batches it sees, the predictor it leaves.

State of a method that is not a weight (a memory bank, an adaptive threshold, running class shares)
is its *memory*: `state(task)` makes it, `loss` finds it in `batch.state` and changes it in place.
The loop keeps it beside the network: it is saved with every checkpoint, and neither averaged nor
part of the predictor.

Letters in shapes: N images, K classes, C channels, S the side in pixels, D features.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from handful.data.augmentation.pipelines import Pipeline
from handful.data.imageset import ImageSet
from handful.data.splits import evenly_spaced
from handful.methods.schedule import Schedule, ScheduleProgress
from handful.models.classifier import BackboneSpec, Classifier, Normalize
from handful.progress import Track, quiet


@dataclass(frozen=True, eq=False)
class Init:
    """Weights that a backbone starts from instead of random ones: learned before, without labels.

    They come with the constants that images were normalised by when they were learned.
    """

    weights: dict[str, Tensor] = field(repr=False)  # the backbone's state
    mean: tuple[float, ...]  # per channel
    std: tuple[float, ...]
    hash: str  # two starts with the same one are the same


@dataclass(frozen=True, eq=False)
class Task:
    """Images of which some are labelled, and the network they are to be learned with.

    The test part is not in here: no method, estimate or choice can reach it.
    """

    images: ImageSet  # -1 where a label is hidden or absent
    backbone: BackboneSpec
    size: int  # S: side of the square the images are brought to
    aspect: str = "crop"  # how: crop the longer side, pad the shorter one, or stretch
    flips: bool = True  # whether mirrored images are of the same class
    validation: tuple[int, ...] = ()  # labelled positions kept from training, to stop early by
    init: Init | None = None  # what the backbone starts from; None: its own first weights
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

    @cached_property
    def labels(self) -> Tensor:
        """(N,) int64, -1 where unknown."""
        return torch.from_numpy(np.ascontiguousarray(self.images.labels, dtype=np.int64))

    @cached_property
    def labeled(self) -> Tensor:
        """Positions to train on with a label: rising, without the validation part."""
        held = set(self.validation)
        kept = [i for i in self.images.labeled.tolist() if i not in held]
        return torch.tensor(kept, dtype=torch.int64)

    @cached_property
    def training_pool(self) -> Tensor:
        """Positions whose images may be looked at: all but validation. Labels are not used.

        Labelled images belong to it too, as in the authors' code of UDA and FixMatch.
        """
        held = set(self.validation)
        return torch.tensor(
            [i for i in range(len(self.images)) if i not in held], dtype=torch.int64
        )

    def make_backbone(self, channels: int | None = None) -> nn.Module:
        return self.backbone.make(channels or self.channels, self.size)

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel in [0, 1], over at most 10,000 images."""
        std, mean = torch.std_mean(self.some_pixels().float() / 255, dim=(0, 2, 3))
        return mean.tolist(), std.clamp_min(1e-3).tolist()

    def some_pixels(self) -> Tensor:
        """(10,000 at most, C, S, S) uint8, evenly spaced over the images."""
        return evenly_spaced(self.pixels, 10_000)


class About(NamedTuple):
    """What is known of a method in general. Reports show it, and `auto` selects by it.

    A method has it in its class attribute `about`, which may be left out.
    """

    what: str  # a clause: what it does
    strengths: str = ""
    weaknesses: str = ""
    uses_unlabeled: bool | None = None  # learns from images without a label too; None: not known
    counterpart: str | None = None  # the labels-only method that it must not be worse than
    learned_weights: bool = False  # its network starts from weights learned before


class Views(NamedTuple):
    """Which augmentations a method wants to see its images under."""

    labeled: str | Pipeline | None  # None: the method looks at no label; batch.images is empty
    unlabeled: tuple[str | Pipeline, ...] = ()
    unlabeled_ratio: int = 0  # unlabelled images for each labelled one in a batch


class Batch(NamedTuple):
    """What a method gets at one step. Images are float in [0, 1], not yet normalised."""

    images: Tensor  # (N, C, S, S)
    labels: Tensor  # (N,)
    unlabeled: tuple[Tensor, ...] = ()  # one (M, C, S, S) for each unlabelled view
    ids: Tensor | None = None  # (N,) positions in the task
    unlabeled_ids: Tensor | None = None  # (M,)
    step: int = 0  # steps taken before this one
    schedule_progress: ScheduleProgress = ScheduleProgress(
        1
    )  # how far along the training is at each step
    averaged: nn.Module | None = None  # the weight average so far: a teacher's source
    state: Mapping[str, Tensor] = MappingProxyType({})  # what the method remembers, see Stateful
    pixels: Tensor | None = None  # (all, C, S, S) uint8: every image of the task

    @property
    def progress(self) -> float:
        """Share of the training that lies before this step."""
        return self.schedule_progress.fraction(self.step)


class Step(NamedTuple):
    loss: Tensor
    logs: dict[str, Tensor]


@runtime_checkable
class Trained(Protocol):
    """A method that trains a network: three answers, and the schedule it is best run with.

    One that does something long at the first of every so many steps of its schedule (see
    `ScheduleProgress.begins`) says how many in an attribute `period`, so that a plan and a budget count it.
    One whose network is another in training than in evaluation sets `differs_in_evaluation`: what looks say
    of its training images is then not judged.
    """

    name: ClassVar[str]

    def schedule(self, task: Task) -> Schedule: ...
    def views(self, task: Task) -> Views: ...
    def build(self, task: Task) -> nn.Module: ...
    def loss(self, model: nn.Module, batch: Batch) -> Step: ...


@runtime_checkable
class Networked(Trained, Protocol):
    """A trained method that is best with another network than `small` where none is asked for."""

    def network(self, channels: int, side: int) -> str: ...


@runtime_checkable
class Stateful(Trained, Protocol):
    """A trained method with state that is not a weight.

    `memory` makes it, by name; every random number in it comes from torch's global generator,
    which the loop has seeded. `loss` changes the tensors of `batch.state` in place, without
    gradient, and never their shape or type.
    """

    def state(self, task: Task) -> dict[str, Tensor]: ...


@runtime_checkable
class Fitted(Protocol):
    """A method that fits a head on features of a frozen backbone.

    Of the unlabelled images at most `limit` are used where it has one; features of the others are
    not computed.
    """

    name: ClassVar[str]

    def fit_features(
        self, labeled: Tensor, labels: Tensor, unlabeled: Tensor, num_classes: int, seed: int
    ) -> nn.Module: ...


@runtime_checkable
class Tunable(Fitted, Protocol):
    """A fitted method that chooses some of its settings by the labels."""

    def tuned(self, labeled: Tensor, labels: Tensor, num_classes: int, seed: int) -> Fitted: ...


Method = Trained | Fitted


def as_json(method: Method) -> dict[str, Any]:
    """{"name": ..., and every field}: what is recorded of a method."""
    return {"name": method.name, **asdict(method)}  # type: ignore[call-overload]


def body(task: Task) -> tuple[Normalize, nn.Module]:
    """The first layer and the fresh backbone of a network for the task.

    It is normalised by the constants its weights were trained with: those of `task.init`, else
    those that the backbone names (or those of a report), else those of the task's own images. A
    backbone that has `adapt` is shown some of them, normalised, before it is trained.
    """
    backbone: Any = task.make_backbone()
    if task.init is not None:
        backbone.load_state_dict(task.init.weights)
        return Normalize(list(task.init.mean), list(task.init.std)), backbone
    named = hasattr(backbone, "mean")
    mean, std = (backbone.mean, backbone.std) if named else task.statistics()
    normalize = Normalize(list(mean), list(std))
    if hasattr(backbone, "init_from_data"):
        backbone.init_from_data(normalize(task.some_pixels().float() / 255))
    return normalize, backbone


def classifier(task: Task, dropout: float = 0.0) -> Classifier:
    """A fresh network for the task, the only place where one with a head is put together."""
    normalize, backbone = body(task)
    return Classifier(backbone, len(task.classes), normalize, dropout)
