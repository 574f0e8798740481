"""`handful.embed`: the features of an image set, as arrays and as a file that numpy reads."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from handful import models
from handful.data.imageset import ImageSet
from handful.data.vanished import on_the_rest
from handful.errors import HandfulError
from handful.methods.linear_head import Features
from handful.models.classifier import BackboneSpec, Classifier, Normalize
from handful.models.feature_cache import (
    SIZES,
    SMALL_IMAGES_BEST,
    choose_size,
    features,
    not_yet_known,
    resolved,
    seconds_per_image,
    small,
)
from handful.output import written
from handful.pipeline.configure import configure
from handful.pipeline.setup import own_backbone, own_size
from handful.progress import QUIET, Reporter
from handful.text import duration


@dataclass(frozen=True, eq=False)
class Embedding:
    """Features of N images, the test part after the others."""

    features: np.ndarray  # (N, D) float16
    labels: np.ndarray  # (N,) int64 class numbers, -1 where unknown
    test: np.ndarray  # (N,) bool: of the test part
    names: tuple[str, ...]  # N files
    classes: tuple[str, ...]
    backbone: BackboneSpec
    weights: str  # SHA-256 over the network's weights
    size: int
    aspect: str
    view: str
    precision: str
    hash: str  # of the images outside the test part, their labels and names

    def about(self) -> dict[str, Any]:
        """Everything but the arrays and the names, as JSON can hold it."""
        images, width = self.features.shape
        keys = ("classes", "weights", "size", "aspect", "view", "precision", "hash")
        shared = {key: getattr(self, key) for key in keys}
        return {"images": images, "width": width, "backbone": asdict(self.backbone), **shared}

    def save(self, path: Path | str) -> None:
        """One .npz file, which `numpy.load` opens without pickle: arrays of numbers and of text.

        Keys: features, labels, test, names, classes, and as single values backbone, options
        (JSON), weights, size, aspect, view, precision, hash.
        """
        arrays = (item for item in vars(self).items() if item[0] != "backbone")
        content: dict[str, Any] = {key: np.array(value) for key, value in arrays}
        content["backbone"] = np.array(self.backbone.name)
        content["options"] = np.array(json.dumps(self.backbone.options))
        with written(Path(path)) as temporary, open(temporary, "wb") as file:
            np.savez(file, **content)


@on_the_rest
def embed(
    images: ImageSet,
    backbone: str = "lite0",
    *,
    size: int | None = None,
    budget: float | None = None,
    aspect: str = "crop",
    view: str = "plain",
    precision: str = "auto",
    settings: dict[str, str] | None = None,
    reporter: Reporter = QUIET,
) -> Embedding:
    """Features of all images, test part included, of a network with learned weights.

    They are kept by image, where a fit with the same network and size finds them; work that was
    stopped goes on where it was.

    Args:
        backbone: lite0, lite1, lite2 or timm:NAME.
        size: side in pixels the images are brought to; by default what suits network and images,
            or the largest that fits in the budget.
        budget: seconds for all images.
        aspect: how images become square: crop, pad or stretch.
        view: plain, or flipped left to right.
        precision: fp32, bf16, or auto: bf16 where the processor computes in it.
        settings: options of the backbone, as text: {"backbone.stages": "1"}.
    """
    if not models.pretrained(backbone):
        raise HandfulError(
            f"backbone {backbone!r} has no learned weights, so its features tell nothing; use "
            f"lite0, lite1, lite2 or timm:NAME"
        )
    if budget is not None and size is not None:
        raise HandfulError("budget chooses the size, and size is given too; leave one out")
    spec = configure(settings or {}, backbone=own_backbone(Features(), backbone))["backbone"]
    precision = resolved(precision)
    chosen = _size(images, spec, size, budget, aspect, precision)
    network = _network(images, spec, chosen.size)
    reporter.say(f"{backbone} at {chosen.size} pixels: {chosen.reason}")
    parts = _parts(images)
    how: dict[str, Any] = {"aspect": aspect, "view": view, "precision": precision}
    new = [not_yet_known(part, network, chosen.size, **how) for part in parts]
    reporter.say(_forecast(new, network, chosen.size, aspect, precision))
    rows = [features(part, network, chosen.size, track=reporter.track, **how) for part in parts]
    return Embedding(
        features=torch.cat(rows).numpy(),
        labels=np.concatenate([part.labels for part in parts]),
        test=np.concatenate([np.full(len(part), part is images.test) for part in parts]),
        names=tuple(name for part in parts for name in part.names),
        classes=images.classes,
        backbone=spec,
        weights=models.fingerprint(network.backbone),
        size=chosen.size,
        aspect=aspect,
        view=view,
        precision=precision,
        hash=images.hash,
    )


class _Choice(NamedTuple):
    size: int
    reason: str


def _parts(images: ImageSet) -> list[ImageSet]:
    return [images] if images.test is None else [images, images.test]


def _size(
    images: ImageSet,
    spec: BackboneSpec,
    size: int | None,
    budget: float | None,
    aspect: str,
    precision: str,
) -> _Choice:
    if size is not None:
        return _Choice(size, "as asked")
    if budget is None:
        reason = (
            "images this small gain nothing from more"
            if small(images)
            else "about what the network was trained with"
        )
        return _Choice(own_size(images, spec), reason)
    share = len(images) / sum(map(len, _parts(images)))
    found, seconds = choose_size(
        images,
        lambda side: _network(images, spec, side),
        budget * share,
        aspect=aspect,
        precision=precision,
    )
    if seconds > budget * share:
        return _Choice(found, f"the smallest; it will take more than {duration(budget)}")
    if found == (SMALL_IMAGES_BEST if small(images) else max(SIZES)):
        return _Choice(found, f"the most that pays, and within {duration(budget)}")
    return _Choice(found, f"the largest of {SIZES} within {duration(budget)}")


def _network(images: ImageSet, spec: BackboneSpec, size: int) -> Classifier:
    """The network that a fit would embed with, so that both find the same features."""
    backbone: Any = spec.make(images.channels, size)
    network = Classifier(backbone, 1, Normalize(list(backbone.mean), list(backbone.std)))
    network.head = nn.Identity()
    return network


def _forecast(
    new: list[ImageSet], network: nn.Module, size: int, aspect: str, precision: str
) -> str:
    """What is to be done and how long it will take, as a sentence."""
    count = sum(map(len, new))
    if not count:
        return "the features of all images are known"
    some = max(new, key=len)
    seconds = count * seconds_per_image(some, network, size, aspect=aspect, precision=precision)
    return f"{count:,} images to embed, about {duration(seconds)} ({precision})"
