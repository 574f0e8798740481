"""Open the folder of a self-supervised pre-training: weights, input size and pixel scale.

It holds `backbone.safetensors` and `pretrained.json`, which is written last.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from handful.data.decoding.value_range import Scale, from_json, in_words
from handful.data.imageset import ImageSet
from handful.errors import HandfulError
from handful.files import is_finite, read_json, read_tensors
from handful.methods.base import Init
from handful.models import hash_of
from handful.models.classifier import BackboneSpec
from handful.pipeline.record_schema import PretrainedRecord, checked
from handful.pipeline.replacement import Layout, finish_replacement

RECORD, WEIGHTS, HISTORY = "pretrained.json", "backbone.safetensors", "history.jsonl"
PICTURES = "pictures"  # a folder of PNG files
_SHOWN = ("views", "channels", "painted-*", "curves", "map")
LAYOUT = Layout(RECORD, (WEIGHTS, HISTORY, *(f"{PICTURES}/{name}.png" for name in _SHOWN)))


@dataclass(frozen=True, eq=False)
class Pretrained:
    """The outcome of a self-supervised pre-training."""

    init: Init
    backbone: BackboneSpec
    size: int  # side of the training images, in pixels
    channels: int
    aspect: str  # how the images were made square
    value_range: Scale | None  # of images of more than 8 bits; None: all had 8 bits
    record: dict[str, Any]  # content of pretrained.json
    folder: Path


def drop_pictures(folder: Path) -> None:
    """Delete the pictures that a pre-training wrote to a folder, and no other file."""
    for name in LAYOUT.files(folder):
        if name.parent.name == PICTURES:
            (folder / name).unlink()


def open_pretrained(folder: Path | str) -> Pretrained:
    """Open the pre-trained backbone in a folder; HandfulError if a file is missing or damaged."""
    folder = Path(folder)
    finish_replacement(folder, LAYOUT)
    if not (folder / RECORD).exists():
        unfinished = (folder / "checkpoint" / "plan.json").exists()
        what = "holds an unfinished pre-training; start the same command again to finish it"
        raise HandfulError(
            f"{folder} {what if unfinished else 'was not left by `handful pretrain`'}"
        )
    record = checked(PretrainedRecord, read_json(folder / RECORD), folder / RECORD)
    weights, _ = read_tensors(folder / WEIGHTS)
    if not all(map(is_finite, weights.values())):
        raise HandfulError(
            f"the weights in {folder / WEIGHTS} hold values that are not finite; restore the file"
        )
    try:
        shown, spec = record["input"], record["backbone"]
        mean, std = (tuple(record["normalize"][key]) for key in ("mean", "std"))
        init = Init(weights, mean, std, weights_hash(weights, (mean, std)))
        if record["hash"] != init.hash:
            raise HandfulError(
                f"{folder / WEIGHTS} is not the file that {RECORD} was written for; restore both"
            )
        backbone = BackboneSpec(spec["name"], spec["options"])
        size, channels, aspect = (shown[key] for key in ("size", "channels", "aspect"))
        scale = from_json(shown.get("value_range"))
        return Pretrained(init, backbone, size, channels, aspect, scale, record, folder)
    except (KeyError, TypeError) as error:
        raise HandfulError(f"{folder / RECORD} is damaged ({error!r}); restore it") from None


def on_scale_of(
    images: ImageSet, folder: Path | str | None, say: Callable[[str], None]
) -> ImageSet:
    """Return the images on the pixel scale of the pre-training in `folder`, if one is given.

    `say` gets a line if the scales differ. Folders of early versions hold no scale.
    """
    if folder is None:
        return images
    learned = open_pretrained(folder)
    if "value_range" not in learned.record["input"]:
        return images
    own, theirs = images.value_range, learned.value_range
    images = images.scaled_by(theirs)
    if own != theirs:
        what = f"values of {images.source} {_in_words(own)}, those that {folder} learned from"
        taken = images.value_range
        kept = f"; the scale {in_words(taken)} is taken" if taken not in (None, own) else ""
        say(f"{what} {_in_words(theirs)}{kept}")
    return images


def _in_words(scale: Scale | None) -> str:
    return "have 8 bits" if scale is None else f"go {in_words(scale)}"


def weights_hash(weights: dict[str, Tensor], constants: Sequence[Sequence[float]]) -> str:
    """Return a hash of the weights by name and of the normalisation constants."""
    return hash_of(sorted(weights.items()), json.dumps(constants).encode())
