"""What every method shares: the task it is given, the batches it sees, the predictor it leaves.

State of a method that is not a weight (a memory bank, an adaptive threshold, running class shares)
is its *memory*: `memory(task)` makes it, `loss` finds it in `batch.memory` and changes it in place.
The loop keeps it beside the network: it is saved with every checkpoint, and neither averaged nor
part of the predictor.

Letters in shapes: N images, K classes, C channels, S the side in pixels, D features.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from handful import backbones, devices
from handful.data.augment import Pipeline
from handful.data.imageset import ImageSet, Track, quiet
from handful.data.splits import evenly_spaced
from handful.data.values import Scale
from handful.features import features
from handful.schedule import Course, Schedule


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone by name and options, as JSON can hold it."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def make(self, channels: int, size: int) -> nn.Module:
        return backbones.make(self.name, channels, size, **self.options)


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
    fit: str = "crop"  # how: crop the longer side, pad the shorter one, or stretch
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
        return self.images.at(self.size, self.fit, self.track)

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
    def unlabeled(self) -> Tensor:
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
    course: Course = Course(1)  # how far along the training is at each step
    averaged: nn.Module | None = None  # the weight average so far: a teacher's source
    memory: Mapping[str, Tensor] = MappingProxyType(
        {}
    )  # what the method remembers, see Remembering
    pixels: Tensor | None = None  # (all, C, S, S) uint8: every image of the task

    @property
    def progress(self) -> float:
        """Share of the training that lies before this step."""
        return self.course.progress(self.step)


class Step(NamedTuple):
    loss: Tensor
    logs: dict[str, Tensor]


@runtime_checkable
class Trained(Protocol):
    """A method that trains a network: three answers, and the schedule it is best run with.

    One that does something long at the first of every so many steps of its schedule (see
    `Course.begins`) says how many in an attribute `period`, so that a plan and a budget count it.
    One whose network is another in training than in evaluation sets `looks_mislead`: what looks say
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
class Remembering(Trained, Protocol):
    """A trained method with state that is not a weight.

    `memory` makes it, by name; every random number in it comes from torch's global generator,
    which the loop has seeded. `loss` changes the tensors of `batch.memory` in place, without
    gradient, and never their shape or type.
    """

    def memory(self, task: Task) -> dict[str, Tensor]: ...


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
class Settling(Fitted, Protocol):
    """A fitted method that chooses some of its settings by the labels."""

    def settled(self, labeled: Tensor, labels: Tensor, num_classes: int, seed: int) -> Fitted: ...


Method = Trained | Fitted


def as_json(method: Method) -> dict[str, Any]:
    """{"name": ..., and every field}: what is recorded of a method."""
    return {"name": method.name, **asdict(method)}  # type: ignore[call-overload]


class Normalize(nn.Module):
    """(x - mean) / std per channel: the one place where images are normalised."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class Classifier(nn.Module):
    """Images in [0, 1] → normalised → backbone → dropout → one linear layer → logits.

    The layer has no bias where the backbone's `head_bias` is False. A fitted method may put
    another head in its place.
    """

    def __init__(
        self, backbone: nn.Module, num_classes: int, normalize: Normalize, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        bias = bool(getattr(backbone, "head_bias", True))
        width = int(backbone.width)  # type: ignore[arg-type]
        self.head: nn.Module = nn.Linear(width, num_classes, bias)

    def features(self, images: Tensor) -> Tensor:
        """(N, C, S, S) in [0, 1] → (N, D)."""
        return self.backbone(self.normalize(images))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, S, S) in [0, 1] → (N, K) logits."""
        return self.head(self.dropout(self.features(images)))


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
    if hasattr(backbone, "adapt"):
        backbone.adapt(normalize(task.some_pixels().float() / 255))
    return normalize, backbone


def classifier(task: Task, dropout: float = 0.0) -> Classifier:
    """A fresh network for the task, the only place where one with a head is put together."""
    normalize, backbone = body(task)
    return Classifier(backbone, len(task.classes), normalize, dropout)


@dataclass(eq=False)
class Predictor:
    """A trained network with all that is needed to use it on new images."""

    model: Classifier
    backbone: BackboneSpec
    classes: tuple[str, ...]
    size: int
    channels: int
    fit: str = "crop"
    precision: str = "fp32"  # what it was trained in; fp32 where the processor has no bf16
    temperature: float = 1.0  # divides the logits, so that confidence is how often it is right
    frozen: bool = False  # a head on features of a network that was not trained further
    # The scale of images of more than 8 bits; None: none were seen, so new ones use their own.
    value_range: Scale | None = None

    def __post_init__(self) -> None:
        # One layout, fresh from training or read from a file: the last bits depend on it.
        self.model.to(devices.device(), memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(self, images: ImageSet, batch: int = 256, track: Track = quiet) -> Tensor:
        """(N, D) features before the head, one row an image.

        Those of a frozen network are float16 and cached by image; those of a trained one, which
        are of no use to any other run, are not.
        """
        images = images.scaled_by(self.value_range)
        if self.frozen:
            precision = self._precision()
            return embed(images, self.model.eval(), self.size, self.fit, precision, track)
        rows = [found.cpu() for found in self._streamed(images, batch, track, "embedding")]
        width = int(self.model.backbone.width)  # type: ignore[arg-type]
        return torch.cat(rows) if rows else torch.empty(0, width)

    def of_features(self, features: Tensor) -> Tensor:
        """(N, K) float32 probabilities from (N, D) features."""
        with torch.inference_mode():
            logits = self.model.head(features.to(devices.device(), torch.float32))
            return (logits / self.temperature).softmax(dim=1).cpu()

    def predict_proba(self, images: ImageSet, batch: int = 256, track: Track = quiet) -> Tensor:
        """(N, K) float32 probabilities, one row an image; images stream through in batches.

        Features of a frozen network are cached by image: what was embedded once is known.
        """
        if self.frozen:
            return self.of_features(self.features(images, track=track))
        images = images.scaled_by(self.value_range)
        streamed = self._streamed(images, batch, track, "predicting")
        rows = [self.of_features(found) for found in streamed]
        return torch.cat(rows) if rows else torch.empty(0, len(self.classes))

    def _streamed(self, images: ImageSet, batch: int, track: Track, what: str) -> Iterator[Tensor]:
        """(batch, D) float32 features at a time."""
        self.model.eval()
        if self.size > 256:  # pixels in a batch are bounded, whatever a file says of the size
            batch = max(1, batch * 256**2 // self.size**2)
        stream = images.stream(self.size, self.fit, batch, self.channels)
        for pixels in track(stream, -(-len(images) // batch), what):
            with torch.inference_mode(), devices.autocast(self._precision()):
                found = self.model.features(pixels.to(devices.device()).float() / 255)
            yield found.float()

    def _precision(self) -> str:
        return self.precision if devices.has_bf16() else "fp32"


def embed(
    images: ImageSet, model: Classifier, size: int, fit: str, precision: str, track: Track = quiet
) -> Tensor:
    """(N, D) float16 features before the head of a classifier, from the cache where known."""
    body = copy.copy(model)
    body._modules = {**model._modules, "head": nn.Identity()}
    return features(images, body, size, fit=fit, precision=precision, track=track)
