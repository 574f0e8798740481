"""`handful.embed`: compute the features of an image set, and save them as .npz."""

import json
from collections.abc import Sequence
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
from handful.models.engine import resolved
from handful.models.feature_cache import (
    SIZES,
    SMALL_IMAGES_BEST,
    choose_size,
    features,
    not_yet_known,
    seconds_per_image,
    small,
)
from handful.output import written
from handful.parquet_files import is_parquet, write_parquet
from handful.pipeline.configure import configure
from handful.pipeline.given import on_any_images
from handful.pipeline.setup import default_backbone, default_size
from handful.progress import QUIET, Reporter
from handful.text import duration, in_seconds


@dataclass(frozen=True, eq=False)
class Embedding:
    """Features of N images; the test part comes last."""

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
        """Return everything but the arrays and the names as plain data."""
        images, width = self.features.shape
        keys = ("classes", "weights", "size", "aspect", "view", "precision", "hash")
        shared = {key: getattr(self, key) for key in keys}
        return {"images": images, "width": width, "backbone": asdict(self.backbone), **shared}

    def save(self, path: Path | str) -> None:
        """Write one .npz file, which `numpy.load` opens without pickle; or Parquet, by the ending.

        Keys: features, labels, test, names, classes, and as single values backbone, options
        (JSON), weights, size, aspect, view, precision, hash. Parquet has the columns file, label,
        test and features (a list of D float32, the same numbers).
        """
        if is_parquet(Path(path)):
            labels = [self.classes[k] if k >= 0 else None for k in self.labels.tolist()]
            block = feature_columns(self.names, self.features, labels, self.test)
            write_parquet(Path(path), "features", [block], self.about())
            return
        arrays = (item for item in vars(self).items() if item[0] != "backbone")
        content: dict[str, Any] = {key: np.array(value) for key, value in arrays}
        content["backbone"] = np.array(self.backbone.name)
        content["options"] = np.array(json.dumps(self.backbone.options))
        with written(Path(path)) as temporary, open(temporary, "wb") as file:
            np.savez(file, **content)


def feature_columns(
    names: Sequence[str], features: np.ndarray, labels: Sequence[str | None], test: np.ndarray
) -> dict[str, Any]:
    """The columns of a Parquet file of features (N, D): float32, which more programs read."""
    return {
        "file": names,
        "label": labels,
        "test": test,
        "features": features.astype(np.float32),
    }


@on_any_images(labeled=False)
@on_the_rest
def embed(
    images: ImageSet,
    backbone: str = "lite0",
    *,
    labels: Any = None,
    boxes: Any = None,
    size: int | None = None,
    budget: float | str | None = None,
    aspect: str = "crop",
    view: str = "plain",
    precision: str = "auto",
    settings: dict[str, str] | None = None,
    progress: bool = False,
    reporter: Reporter = QUIET,
) -> Embedding:
    """Return the features of all images, test part included, from a pre-trained network.

    >>> handful.embed("photos", size=32).features.shape
    (4, 1792)

    Features are cached by image: a fit with equal network and size reads them, and an interrupted
    call resumes.

    Args:
        images: what `load` takes: a folder, a data set, pictures in memory; or what it returned.
        labels: as in `load`; they are in the result only.
        boxes: as in `load`: the features are those of the crops.
        progress: show bars and messages, in a terminal or a notebook.
        backbone: lite0, lite1, lite2, a network of an installed package, dinov2-s or timm:NAME;
            several side by side are joined by "+", as in lite0+lite2.
        size: side in pixels to which images are resized; by default the one that suits network and
            images, or the largest that fits into the budget.
        budget: seconds for all images, or text such as "10m".
        aspect: how images become square: crop, pad or stretch.
        view: plain, or flipped left to right.
        precision: int8 (lite0, lite1, lite2), fp32, bf16, or auto, the fastest one.
        settings: options of the backbone, as text: {"backbone.stages": "1"}.

    Raises:
        HandfulError: the backbone has no pre-trained weights, or size and budget are both given.
    """
    budget = in_seconds(budget) if isinstance(budget, str) else budget
    if not models.pretrained(backbone):
        raise HandfulError(
            f"backbone {backbone!r} has no learned weights, so its features tell nothing; use "
            f"lite0, lite1, lite2, dinov2-s or timm:NAME"
        )
    if budget is not None and size is not None:
        raise HandfulError("budget chooses the size, and size is given too; leave one out")
    spec = configure(settings or {}, backbone=default_backbone(Features(), backbone))["backbone"]
    precision = resolved(precision, models.has_graph(spec.name))
    selected = _select_size(images, spec, size, budget, aspect, precision)
    network = feature_network(images, spec, selected.size)
    reporter.say(f"{backbone} at {selected.size} pixels: {selected.reason}")
    parts = _parts(images)
    how: dict[str, Any] = {"aspect": aspect, "view": view, "precision": precision}
    missing = [not_yet_known(part, network, selected.size, **how) for part in parts]
    reporter.say(_announcement(missing, network, selected.size, aspect, precision))
    rows = [features(part, network, selected.size, track=reporter.track, **how) for part in parts]
    return Embedding(
        features=torch.cat(rows).numpy(),
        labels=np.concatenate([part.labels for part in parts]),
        test=np.concatenate([np.full(len(part), part is images.test) for part in parts]),
        names=tuple(name for part in parts for name in part.names),
        classes=images.classes,
        backbone=spec,
        weights=models.fingerprint(network.backbone),
        size=selected.size,
        aspect=aspect,
        view=view,
        precision=precision,
        hash=images.hash,
    )


class _Size(NamedTuple):
    size: int
    reason: str


def _parts(images: ImageSet) -> list[ImageSet]:
    return [images] if images.test is None else [images, images.test]


def _select_size(
    images: ImageSet,
    spec: BackboneSpec,
    size: int | None,
    budget: float | None,
    aspect: str,
    precision: str,
) -> _Size:
    if size is not None:
        return _Size(size, "as asked")
    if budget is None:
        reason = (
            "images this small gain nothing from more"
            if small(images)
            else "what most pre-trained networks take"
        )
        return _Size(default_size(images, spec), reason)
    share = len(images) / sum(map(len, _parts(images)))
    found, seconds = choose_size(
        images,
        lambda side: feature_network(images, spec, side),
        budget * share,
        aspect=aspect,
        precision=precision,
    )
    if seconds > budget * share:
        return _Size(found, f"the smallest; it will take more than {duration(budget)}")
    if found == (SMALL_IMAGES_BEST if small(images) else max(SIZES)):
        return _Size(found, f"the most that pays, and within {duration(budget)}")
    return _Size(found, f"the largest of {SIZES} within {duration(budget)}")


def feature_network(images: ImageSet, spec: BackboneSpec, size: int) -> Classifier:
    """Return the network that a fit would use, so that both share cached features."""
    backbone: Any = spec.make(images.channels, size)
    network = Classifier(backbone, 1, Normalize(list(backbone.mean), list(backbone.std)))
    network.head = nn.Identity()
    return network


def _announcement(
    missing: list[ImageSet], network: nn.Module, size: int, aspect: str, precision: str
) -> str:
    """Return a sentence on the number of images to embed and the expected time."""
    count = sum(map(len, missing))
    if not count:
        return "the features of all images are known"
    some = max(missing, key=len)
    seconds = count * seconds_per_image(some, network, size, aspect=aspect, precision=precision)
    return f"{count:,} images to embed, about {duration(seconds)} ({precision})"
