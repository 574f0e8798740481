"""Classifier and Predictor: a network with its normalisation, and how to predict with it.

Letters in shapes: N images, K classes, C channels, S the side in pixels, D features.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from handful import devices, models, seeds
from handful.data.decoding.value_range import Scale
from handful.data.imageset import ImageSet
from handful.models import onnx_features
from handful.models.engine import TORCH, engine_of, filled
from handful.models.ensemble import Ensemble, Trained
from handful.models.feature_cache import feature_parts, features, pass_of, trained_at_once
from handful.models.imagenet import Lite
from handful.models.joined import Joined
from handful.models.onnx_int8 import Int8Builder
from handful.progress import Track, quiet

AT_ONCE = 1_024  # images of a set whose features are float32 at a time


@dataclass(frozen=True)
class BackboneSpec:
    """Name and options of a backbone, as plain data for JSON."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def make(self, channels: int, size: int) -> nn.Module:
        """The backbone for images of `channels` x `size` x `size`; see `models.make`."""
        return models.make(self.name, channels, size, **self.options)


class Normalize(nn.Module):
    """(x - mean) / std per channel; images are normalised here only."""

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

    The layer has no bias where the backbone's `head_bias` is False. A fitted method may replace the
    layer by another head.
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
        with seeds.own_turn():
            self.head: nn.Module = nn.Linear(width, num_classes, bias)

    def each(self) -> list[nn.Module]:
        """Itself, or for networks side by side: each with its normalisation and without a head."""
        if not isinstance(self.backbone, Joined | Ensemble):
            return [self]
        found: list[nn.Module] = []
        for network in self._networks:
            one, known = copy.copy(self), cast(Any, network)
            normalize = Normalize(list(known.mean), list(known.std))
            one._modules = {
                **self._modules,
                "normalize": normalize,
                "backbone": network,
                "head": nn.Identity(),
            }
            found.append(one)
        return found

    def join(self, rows: Sequence[Tensor]) -> Tensor:
        """(N, D) of the (N, D_i) features of `each`."""
        assert isinstance(self.backbone, Joined | Ensemble)
        return self.backbone.join(rows)

    @property
    def has_graph(self) -> bool:
        """Whether ONNX Runtime may compute its features; see `engine`.

        Of an ensemble it computes those of the pre-trained networks.
        """
        frozen = [one for one in self._networks if not isinstance(one, Trained)]
        return bool(frozen) and all(isinstance(network, Lite) for network in frozen)

    @property
    def _networks(self) -> list[Any]:
        """The network, or those side by side."""
        several = isinstance(self.backbone, Joined | Ensemble)
        return list(cast(Any, self.backbone).networks) if several else [self.backbone]

    def runner(self, int8: bool = False) -> Callable[[Tensor], Tensor]:
        """Return a function: (N, C, S, S) uint8 → (N, D) float32 features, by ONNX Runtime.

        Of an ensemble, torch computes the networks that were trained on the task.
        """
        runs = [
            onnx_features.runner(network.network, *one.constants, network.stages, int8)
            for one, network in self._lites()
        ]

        def run(images: Tensor) -> Tensor:
            means = [mean for each in runs for mean in each(images)]
            with torch.inference_mode():
                return self.of_means(means, images)

        return run

    def of_means(self, means: Sequence[Tensor], images: Tensor) -> Tensor:
        """(N, D) features from the means over pixels (N, D_i) that the Lite networks give on.

        Args:
            images: (N, C, S, S) uint8, for the trained networks of an ensemble.
        """
        left, rows = list(means), []
        for network in self._networks:
            if isinstance(network, Trained):
                rows.append(network(images.float() / 255))
                continue
            rows.append(network.joined(left[: network.stages]))
            left = left[network.stages :]
        return self.join(rows) if len(rows) > 1 else rows[0]

    def widths_of_means(self) -> list[int]:
        """The widths D_i of what `of_means` takes."""
        return [width for _, network in self._lites() for width in network.last_widths]

    def layers_in_int8(
        self, names: Sequence[str], images: str, signed: bool
    ) -> list[onnx_features.Nodes]:
        """The layers of each network in int8.

        Args:
            names: of the outputs, which `of_means` takes.
            images: name of the (N, 3, S, S) uint8 input.
            signed: whether weights are int8; see `onnx_int8`.
        """
        left, made = list(names), []
        for at, (one, network) in enumerate(self._lites()):
            own, left = left[: network.stages], left[network.stages :]
            builder = Int8Builder(f"network{at}_", signed)
            how = network.network, *one.constants, own, builder, images
            made.append(onnx_features.layers(*how))
        return made

    def _lites(self) -> list[tuple["Classifier", Lite]]:
        """Each EfficientNet-Lite with its normalisation; an ensemble has others, too."""
        assert self.has_graph
        each = [cast(Classifier, one) for one in self.each()]
        return [(one, one.backbone) for one in each if isinstance(one.backbone, Lite)]

    @property
    def constants(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, (C,), of its normalisation."""
        return self.normalize.mean.flatten(), self.normalize.std.flatten()

    def features(self, images: Tensor) -> Tensor:
        """(N, C, S, S) in [0, 1] → (N, D)."""
        return self.backbone(self.normalize(images))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, S, S) in [0, 1] → (N, K) logits."""
        return self.head(self.dropout(self.features(images)))


@dataclass(eq=False)
class Predictor:
    """A trained network with everything that predictions on new images need."""

    model: Classifier
    backbone: BackboneSpec
    classes: tuple[str, ...]
    size: int
    channels: int
    aspect: str = "crop"
    precision: str = "fp32"  # of the training or the features; fp32 where a machine has no bf16
    temperature: float = 1.0  # divides the logits, for calibration
    frozen: bool = False  # whether only the head was fitted, or it is an ensemble
    # Of images with more than 8 bits; None: the training had none, so new ones use their own scale.
    value_range: Scale | None = None

    def __post_init__(self) -> None:
        # One memory layout after training and after loading, since the last bits depend on it.
        self.model.to(devices.device(), memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(self, images: ImageSet, batch: int = 256, track: Track = quiet) -> Tensor:
        """(N, D) features before the head.

        Features of a frozen network, or of an ensemble, are float16, and cached by image. Features
        of a trained network alone are float32 and not cached, since no other run can use them.

        Args:
            batch: number of images in a forward pass of a trained network.
        """
        images = images.scaled_by(self.value_range)
        if self.frozen:
            return features(
                images, without_head(self.model.eval()), self.size, **self._how, track=track
            )
        rows = list(self.stream_features(images, batch, track, "embedding"))
        width = int(self.model.backbone.width)  # type: ignore[arg-type]
        return torch.cat(rows) if rows else torch.empty(0, width)

    def feature_parts(
        self, images: ImageSet, batch: int = 256, track: Track = quiet
    ) -> Iterator[Tensor]:
        """The rows of `features`, in parts that need little memory for any number of images."""
        images = images.scaled_by(self.value_range)
        if self.frozen:
            body = without_head(self.model.eval())
            return feature_parts(images, body, self.size, **self._how, track=track)
        return self.stream_features(images, batch, track, "predicting")

    @property
    def _how(self) -> dict[str, Any]:
        """What features of a frozen network are made with, beside the size."""
        precision = self.precision_here()
        return {"aspect": self.aspect, "precision": precision, "channels": self.channels}

    def of_features(self, features: Tensor) -> Tensor:
        """(N, K) float32 probabilities from (N, D) features."""
        with torch.inference_mode():
            logits = [
                self.model.head(some.to(devices.device(), torch.float32))
                for some in features.split(AT_ONCE)
            ]
            return (torch.cat(logits) / self.temperature).softmax(dim=1).cpu()

    def predict_proba(self, images: ImageSet, batch: int = 256, track: Track = quiet) -> Tensor:
        """(N, K) float32 probabilities; images are read and predicted in batches.

        Features of a frozen network are cached by image, and read from there.
        """
        rows = [self.of_features(found) for found in self.feature_parts(images, batch, track)]
        return torch.cat(rows) if rows else torch.empty(0, len(self.classes))

    def stream_features(
        self, images: ImageSet, batch: int, track: Track, what: str
    ) -> Iterator[Tensor]:
        """Yield (batch, D) float32 features of one batch after another, on the processor."""
        self.model.eval()
        if self.size > 256:  # bounds the memory of a batch
            batch = max(1, batch * 256**2 // self.size**2)
        count = pass_of(images, trained_at_once(self.size, batch))
        stream = images.stream(self.size, self.aspect, batch, self.channels)
        for pixels in track(stream, -(-len(images) // batch), what):
            rows = []
            for some in pixels.split(count):
                whole = filled(some, count).to(devices.device()).float() / 255
                with torch.inference_mode(), devices.autocast(self.precision_here()):
                    rows.append(self.model.features(whole)[: len(some)].float().cpu())
            yield torch.cat(rows)

    def precision_here(self) -> str:
        """The number format of features on this machine: int8, bf16 or fp32."""
        return "fp32" if self.precision == "bf16" and not devices.has_bf16() else self.precision

    @property
    def learned_from_images(self) -> bool:
        """Whether a network of it was trained on the images of its run, not only a head."""
        return not self.frozen or isinstance(self.model.backbone, Ensemble)

    @property
    def engine(self) -> str:
        """What computes features here: onnxruntime or torch."""
        return engine_of(self.model, self.precision_here()) if self.frozen else TORCH


def embed(
    images: ImageSet,
    model: Classifier,
    size: int,
    aspect: str,
    precision: str,
    track: Track = quiet,
) -> Tensor:
    """(N, D) float16 features before the head of a classifier, with the cache.

    Args:
        size: side in pixels that images are resized to.
        aspect: crop, pad or stretch.
        precision: auto, int8, fp32 or bf16.
    """
    how: Any = {"aspect": aspect, "precision": precision, "track": track}
    return features(images, without_head(model), size, **how)


def without_head(model: Classifier) -> Classifier:
    """The classifier without its head."""
    body = copy.copy(model)
    body._modules = {**model._modules, "head": nn.Identity()}
    return body
