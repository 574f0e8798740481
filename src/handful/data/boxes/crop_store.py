"""A store of crops: parts of photos, cut at full sharpness and cached like whole images.

Letters in shapes: N crops.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from handful.data import decode
from handful.data.boxes.formats import BoxFile, Detection
from handful.data.boxes.options import crop_name
from handful.data.decode import Facts
from handful.data.decoding.value_range import fingerprints_at, value_range
from handful.data.imageset import ImageSet
from handful.data.opened import Files
from handful.data.scan import Scan
from handful.data.skipped import Skipped
from handful.data.store import FileStore

NO_DETECTION = "no detection"  # of a photo: no box of it is sure enough
TINY = 1e-6  # pixels that a product of real numbers may be off
LEAST = 4  # pixels a side: a smaller part of a photo shows nothing


class Crop(NamedTuple):
    """A part of a photo."""

    file: str
    number: int  # of its box in the file of boxes, from 1
    facts: Facts  # of the photo
    box: tuple[int, int, int, int]  # left, top, right and bottom, in pixels of the upright photo
    relative: tuple[float, float, float, float]  # the box itself: left, top, width, height

    @property
    def name(self) -> str:
        return crop_name(self.file, self.number)


@dataclass(frozen=True)
class Detected:
    """What a file of boxes says of the photos of a folder, and which boxes are used.

    `photos` has every photo that the file names and that is in the folder. A box is used where
    `reasons` has no entry for its crop.
    """

    of: BoxFile
    photos: dict[str, list[Detection]]
    failures: dict[str, str]  # photo → why the detector found nothing in it
    unnamed: tuple[str, ...]  # photos of the folder that the file does not name
    unreadable: dict[str, str]  # photo → why it cannot be read
    cut: dict[str, tuple[float, float, float, float]]  # crop → left, top, width, height, relative
    min_confidence: float
    padding: float
    square: bool

    def as_json(self) -> dict[str, Any]:
        """How the crops were made, for the record of a run."""
        return {
            "file": str(self.of.path),
            "min_confidence": self.min_confidence,
            "padding": self.padding,
            "square": self.square,
        }

    def without_crop(self, photo: str) -> str:
        """Why a photo has no crop: NO_DETECTION, or what was detected instead."""
        if photo in self.failures and not self.photos.get(photo):
            return f"the detector failed: {self.failures[photo]}"
        if photo in self.unreadable:
            return f"cannot be read: {self.unreadable[photo]}"
        if photo not in self.photos:
            return f"not in {self.of.path.name}"
        sure = [
            one
            for one in self.photos[photo]
            if not one.unused and one.confidence >= self.min_confidence
        ]
        others = Counter(one.category for one in sure if self.of.only not in (None, one.category))
        if others:
            return "only " + ", ".join(f"{n} {name}" for name, n in sorted(others.items()))
        return "no box that can be used" if sure else NO_DETECTION


@dataclass(eq=False, kw_only=True)
class CropStore(FileStore):
    """Parts of image files; `names` are those of the crops, and `photos` those of the files."""

    photos: list[str]  # N names of the files
    boxes: np.ndarray  # (N, 4) int64 left, top, right, bottom, in pixels of the upright photo
    full: np.ndarray  # (N, 2) int64 height and width of the photo
    detected: Detected

    def file(self, row: int) -> str:
        return self.photos[row]

    def picture(self, row: int, side: int) -> np.ndarray:
        whole = self.batch(np.array([row]), side, "pad", self.channels)[0]
        return whole[0] if len(whole) == 1 else whole.transpose(1, 2, 0)

    def _read_together(self, rows: np.ndarray, size: int) -> list[list[int]]:
        """Neighbouring crops of one photo that it is reduced equally for, so pixels never change
        with the others of a batch."""
        together: list[list[int]] = []
        last: tuple[str, int] | None = None
        for place, row in enumerate(rows.tolist()):
            key = (self.photos[row], decode.crop_reduction(self.boxes[row].tolist(), size))
            if key != last:
                together.append([])
            together[-1].append(place)
            last = key
        return together

    def _read(
        self, path: Path, rows: list[int], size: int, aspect: str, channels: int
    ) -> Sequence[np.ndarray]:
        height, width = self.full[rows[0]].tolist()
        boxes = self.boxes[rows].tolist()
        return decode.read_crops(
            path, boxes, (height, width), size, aspect, channels, self.value_range
        )


def crop_store(files: Files, found: Scan, crops: list[Crop], detected: Detected) -> CropStore:
    """A store of crops of the files of a scan."""
    scale = value_range(found.facts.ranges)
    marks = np.frombuffer(b"".join(map(_fingerprint, crops)), np.uint8).reshape(-1, 16)
    deep = np.array([crop.facts.values is not None for crop in crops], bool)
    stamps = {file.name: (file.bytes, file.changed) for file in found.files}
    boxes = np.array([crop.box for crop in crops], np.int64).reshape(-1, 4)
    full = [(crop.facts.height, crop.facts.width) for crop in crops]
    return CropStore(
        names=[crop.name for crop in crops],
        fingerprints=fingerprints_at(scale, marks, deep),
        sizes=np.stack([boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]], axis=1),
        grey=np.array([crop.facts.grey for crop in crops], bool),
        skipped=(),
        other=found.ignored,
        files=files,
        stamps=np.array([stamps[crop.file] for crop in crops], np.int64).reshape(-1, 2),
        notes=tuple(crop.facts.notes for crop in crops),
        file_fingerprints=marks,
        deep=deep,
        blank=np.array([crop.facts.blank for crop in crops], bool),
        value_range=scale,
        photos=[crop.file for crop in crops],
        boxes=boxes,
        full=np.array(full, np.int64).reshape(-1, 2),
        detected=detected,
    )


def cut_out(
    file: str,
    facts: Facts,
    detections: Sequence[tuple[int, Detection]],
    size: tuple[int, int] | None,
    detected: Detected,
) -> tuple[list[Crop], list[Skipped]]:
    """The crops of a photo, and the boxes that give none.

    Args:
        detections: the boxes that are to be used, with their numbers.
        size: width and height of the photo that boxes in pixels are for; None: of this one.
    """
    crops, skipped = [], []
    wrong = "" if size is None else _other_shape(size, facts)
    for number, one in detections:
        name = crop_name(file, number)
        width, height = (1, 1) if detected.of.relative else size or (facts.width, facts.height)
        relative = _inside(
            one.corner[0] / width,
            one.corner[1] / height,
            one.sides[0] / width,
            one.sides[1] / height,
        )
        shown = relative[2] * facts.width, relative[3] * facts.height
        if wrong or min(shown) < LEAST:
            small = f"less than {LEAST} pixels of it in the photo"
            skipped.append(Skipped(name, f"no crop: {wrong or small}"))
            continue
        box = _widened(relative, facts, detected.padding, detected.square)
        crops.append(Crop(file, number, facts, box, relative))
    return crops, skipped


def _inside(
    left: float, top: float, width: float, height: float
) -> tuple[float, float, float, float]:
    """A relative box, clipped to the photo."""
    right, bottom = min(max(left + width, 0.0), 1.0), min(max(top + height, 0.0), 1.0)
    left, top = min(max(left, 0.0), 1.0), min(max(top, 0.0), 1.0)
    return left, top, max(right - left, 0.0), max(bottom - top, 0.0)


def _other_shape(size: tuple[int, int], facts: Facts) -> str:
    """Why boxes for a photo of this width and height are not for this photo; "" if they are."""
    here = facts.width / facts.height
    if abs(size[0] / size[1] / here - 1) <= 0.02:
        return ""
    return (
        f"the boxes are for {size[0]} x {size[1]} pixels, and the photo is upright "
        f"{facts.width} x {facts.height}"
    )


def _widened(
    relative: tuple[float, float, float, float], facts: Facts, padding: float, square: bool
) -> tuple[int, int, int, int]:
    """The part of the photo that is cut out for a box, in whole pixels, within the photo."""
    left, top, wide, high = (
        side * length
        for side, length in zip(relative, (facts.width, facts.height) * 2, strict=True)
    )
    middle = left + wide / 2, top + high / 2
    sides = wide * (1 + 2 * padding), high * (1 + 2 * padding)
    if square:
        sides = (max(sides), max(sides))
    (x, end_x), (y, end_y) = (
        _along(centre, side, length, square)
        for centre, side, length in zip(middle, sides, (facts.width, facts.height), strict=True)
    )
    return x, y, end_x, end_y


def _along(centre: float, side: float, length: int, moved: bool) -> tuple[int, int]:
    """Start and end of a part along one side of a photo.

    Args:
        moved: move the part into the photo, so that it keeps its length, instead of clipping it.
    """
    if not moved:
        start, end = math.floor(centre - side / 2 + TINY), math.ceil(centre + side / 2 - TINY)
        return max(0, start), min(length, end)
    whole = min(length, math.ceil(side - TINY))
    start = min(max(0, round(centre - whole / 2)), length - whole)
    return start, start + whole


def _fingerprint(crop: Crop) -> bytes:
    """16 bytes that depend on the pixels of the photo and on the part."""
    digest = hashlib.blake2b(crop.facts.fingerprint, digest_size=16)
    digest.update(np.array(crop.box, "<i8").tobytes())
    return digest.digest()


def boxes_in(images: ImageSet) -> dict[str, Any] | None:
    """How the crops of an image set were made, for the record of a run; None for whole images."""
    store = images.store
    return store.detected.as_json() if isinstance(store, CropStore) else None
