"""Answers for photos, from the answers for their crops, and the files that Timelapse reads.

Timelapse (https://timelapse.ucalgary.ca) reads two files. Its recognitions are MegaDetector's
format with classifications (https://lila.science/megadetector-output-format). Its CSV has the
columns File and RelativePath, which find a photo, and any others that the template has a field for.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from handful._version import __version__
from handful.csv_files import write_csv
from handful.data.boxes.crop_store import Detected
from handful.data.boxes.formats import Detection
from handful.data.boxes.options import crop_name, photo_of
from handful.output import written

FORMAT_VERSION = "1.4"
COLUMNS = ["RelativePath", "File", "Label", "Confidence", "Detections", "Remark"]
MOST_CLASSES = 5  # classes of a crop that are written, the likeliest first
LEAST_SHARE = 0.001  # a less likely class is not written
DIGITS = 5  # as MegaDetector writes
ANIMAL = {"1": "animal"}  # where a file of boxes has no categories: what Timelapse expects
NO_ANSWER, NOT_CLASSIFIED = "no answer", "not classified"


class CropAnswer(NamedTuple):
    """The answer for one crop."""

    name: str
    label: str  # "" without an answer
    confidence: float
    shares: Sequence[float]  # of the classes
    remark: str  # why it has no label


class PhotoAnswer(NamedTuple):
    """The answer for a photo: the class of the crop that is the surest.

    A photo without a label has a remark: "no detection" is the usual one, where no box of the
    photo was sure enough.
    """

    name: str
    label: str  # "" without an answer
    confidence: float | None  # of that class; None without a label
    crops: int
    remark: str  # why it has no label; "" with a label


def photo_answers(crops: Sequence[CropAnswer], detected: Detected) -> list[PhotoAnswer]:
    """The answer for every photo of the folder, in the order of their names."""
    of_photo: defaultdict[str, list[CropAnswer]] = defaultdict(list)
    for crop in crops:
        of_photo[photo_of(crop.name)].append(crop)
    cut = {photo_of(name) for name in detected.cut}
    every = {*detected.photos, *detected.failures, *detected.unnamed}
    return [
        _of_photo(name, of_photo.get(name, []), name in cut, detected) for name in sorted(every)
    ]


def _of_photo(
    name: str, crops: Sequence[CropAnswer], has_crops: bool, detected: Detected
) -> PhotoAnswer:
    if not crops:
        remark = NOT_CLASSIFIED if has_crops else detected.without_crop(name)
        return PhotoAnswer(name, "", None, 0, remark)
    answered = [crop for crop in crops if crop.label]
    if not answered:
        first = max(crops, key=lambda crop: crop.confidence)
        return PhotoAnswer(name, "", None, len(crops), first.remark or NO_ANSWER)
    best = max(answered, key=lambda crop: crop.confidence)
    return PhotoAnswer(name, best.label, best.confidence, len(crops), "")


def write_photo_csv(path: Path, answers: Sequence[PhotoAnswer]) -> None:
    """Write a row for every photo; Timelapse finds a photo by RelativePath, with backslashes."""
    rows = (_row(one) for one in answers)
    with written(path) as whole:
        write_csv(whole, COLUMNS, rows)


def _row(one: PhotoAnswer) -> list[str]:
    folder, _, file = one.name.rpartition("/")
    sure = "" if one.confidence is None else f"{one.confidence:.4f}"
    return [folder.replace("/", "\\"), file, one.label, sure, str(one.crops), one.remark]


def write_recognitions(
    path: Path, crops: Sequence[CropAnswer], classes: Sequence[str], detected: Detected
) -> None:
    """Write the boxes of all photos, with the classes of those that were classified."""
    found = recognitions(crops, classes, detected)
    with written(path) as whole:
        text = json.dumps(found, indent=1, ensure_ascii=True, allow_nan=False)
        whole.write_text(text, encoding="utf-8")


def recognitions(
    crops: Sequence[CropAnswer], classes: Sequence[str], detected: Detected
) -> dict[str, Any]:
    """The content of MegaDetector's format, version 1.4: boxes, and classes of the crops."""
    categories = detected.of.categories or ANIMAL
    of_crop = {crop.name: crop for crop in crops}
    images: list[dict[str, Any]] = []
    for name in sorted({*detected.photos, *detected.failures}):
        failed = name in detected.failures and name not in detected.photos
        if failed or name in detected.unreadable:
            why = detected.failures.get(name) or detected.unreadable[name]
            images.append({"file": name, "failure": why, "detections": None})
            continue
        boxes = [
            _detection(crop_name(name, number), one, categories, of_crop, detected)
            for number, one in enumerate(detected.photos[name], 1)
        ]
        images.append({"file": name, "detections": [box for box in boxes if box is not None]})
    now = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
    return {
        "info": {
            **detected.of.info,
            "format_version": FORMAT_VERSION,
            "classifier": f"handful {__version__}",
            "classification_completion_time": now,
        },
        "detection_categories": categories,
        "classification_categories": {str(k): name for k, name in enumerate(classes, 1)},
        "images": images,
    }


def _detection(
    name: str,
    one: Detection,
    categories: dict[str, str],
    of_crop: dict[str, CropAnswer],
    detected: Detected,
) -> dict[str, Any] | None:
    """A box, or None where its place in the photo is not known."""
    box = detected.cut.get(name)
    if box is None and (one.unused or not detected.of.relative):
        return None
    box = box or (*one.corner, *one.sides)
    left, top = (min(max(at, 0.0), 1.0) for at in box[:2])
    sides = min(max(box[2], 0.0), 1 - left), min(max(box[3], 0.0), 1 - top)
    number = next((key for key, word in categories.items() if word == one.category), None)
    found: dict[str, Any] = {
        "category": number or next(iter(categories)),
        "conf": round(float(one.confidence), DIGITS),
        "bbox": [round(float(value), DIGITS) for value in (left, top, *sides)],
    }
    crop = of_crop.get(name)
    if crop is not None and crop.label:
        order = np.argsort(-np.asarray(crop.shares), kind="stable")[:MOST_CLASSES]
        found["classifications"] = [
            [str(k + 1), round(float(crop.shares[k]), DIGITS)]
            for k in order.tolist()
            if crop.shares[k] >= LEAST_SHARE
        ]
    return found
