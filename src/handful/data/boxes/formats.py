"""Read files of boxes: MegaDetector's output, COCO annotations, and CSV.

MegaDetector's format: https://lila.science/megadetector-output-format, boxes [x_min, y_min, width,
height] relative to the photo. COCO: "bbox" [x, y, width, height] in pixels. A CSV has a box in each
line, in pixels, or relative where no box ends beyond 1.05; what is out of the photo is cut off.

The file may be a stranger's: sizes and counts are bounded, no path in it is opened, and a box that
is no box is kept with the reason, so that the numbers of the others do not depend on it.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from handful.csv_files import restored
from handful.data.boxes.options import MIN_CONFIDENCE
from handful.data.labels.columns import FILES, LABELS, key_of
from handful.data.labels.tables import (
    Table,
    as_text,
    check_width,
    read_csv_table,
    read_json_value,
    read_text,
)
from handful.errors import HandfulError

MOST_BOXES = 2_000_000
MOST_VALUES = 30_000_000  # values in JSON, which take some 2 GB of memory
MOST_IN_A_PHOTO = 1_000
BEYOND = 1.05  # where relative boxes may end: a detector's may reach out of the photo a little
LONGEST = 1_000  # characters of a category, and of what a file says of its detector
# Categories of detectors: they tell that something is there, and are no labels.
DETECTED = {"animal", "person", "human", "vehicle", "object", "empty", "group"}
ANIMAL = "animal"
CORNERS = (
    ("x1", "y1", "x2", "y2"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("left", "top", "right", "bottom"),
)
STARTS = (("x_min", "y_min"), ("xmin", "ymin"), ("x", "y"), ("left", "top"), ("bbox_x", "bbox_y"))
SIDES = (("width", "height"), ("w", "h"), ("bbox_width", "bbox_height"), ("bbox_w", "bbox_h"))
CONFIDENCES = ("conf", "confidence", "score", "detection_conf")


class Detection(NamedTuple):
    """A box, as a file has it."""

    corner: tuple[float, float]  # left and top, in pixels or relative to the photo
    sides: tuple[float, float]  # width and height
    confidence: float = 1.0
    category: str = ""  # the detector's
    label: str | None = None
    unused: str = ""  # why it is no box

    @property
    def finite(self) -> bool:
        return all(map(math.isfinite, (*self.corner, *self.sides)))


class Photo(NamedTuple):
    """The boxes of a photo, in the order of the file."""

    file: str
    detections: list[Detection]
    size: tuple[int, int] | None = None  # width and height that the boxes are for, in pixels
    failure: str = ""  # why the detector found nothing


@dataclass(frozen=True)
class BoxFile:
    """The content of a file of boxes."""

    path: Path
    format: str  # "MegaDetector", "COCO" or "CSV"
    photos: list[Photo]
    relative: bool  # whether boxes are relative to the photo, or in pixels
    categories: dict[str, str] = field(default_factory=dict)  # the detector's, id → name
    info: dict[str, Any] = field(default_factory=dict)  # what MegaDetector's file says of itself

    @cached_property
    def labelled(self) -> bool:
        """Whether some boxes have labels."""
        return any(one.label for photo in self.photos for one in photo.detections)

    @property
    def recommended(self) -> float:
        """The least confidence that the file recommends, else the usual one."""
        about = self.info.get("detector_metadata", {})
        return float(about.get("typical_detection_threshold", MIN_CONFIDENCE))

    @cached_property
    def only(self) -> str | None:
        """The one category that is classified: animals, where the detector tells them apart."""
        named = (name for name in self.categories.values() if name.lower() == ANIMAL)
        return next(named, None)


def read_boxes(path: Path) -> BoxFile:
    """Read a file of boxes; HandfulError if it cannot be read or is none."""
    if path.is_dir():
        raise HandfulError(f"{path} is a folder; give --boxes a file: MegaDetector, COCO or CSV")
    if not path.exists():
        raise HandfulError(f"no file {str(path)!r} for --boxes; check the path")
    text = read_text(path, "utf-8")
    if text.lstrip("\ufeff \t\r\n").startswith(("{", "[")):
        if sum(map(text.count, ",[{")) > MOST_VALUES:
            raise HandfulError(
                f"{path} has more than {MOST_VALUES:,} values; split it, or leave out boxes of low "
                f"confidence"
            )
        found = _from_json(path, read_json_value(path, text))
    else:
        found = _from_table(path, read_csv_table(path, text, _KNOWN))
    total = sum(len(photo.detections) for photo in found.photos)
    if total > MOST_BOXES:
        raise HandfulError(
            f"{path} has {total:,} boxes, and {MOST_BOXES:,} is the most; split it, or leave out "
            f"those of low confidence"
        )
    return found


def _from_json(path: Path, value: Any) -> BoxFile:
    try:
        if isinstance(value, dict) and "detection_categories" in value and "images" in value:
            return _megadetector(path, value)
        if isinstance(value, dict) and {"images", "annotations"} <= value.keys():
            return _coco(path, value)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError) as error:
        if isinstance(error, HandfulError):
            raise
        raise HandfulError(
            f"{path} is not as MegaDetector or COCO write it ({str(error)[:200]!r}); make it anew"
        ) from None
    raise HandfulError(
        f"{path} is JSON without boxes; give MegaDetector's output (images, detection_categories), "
        f"or COCO's annotations (images, annotations)"
    )


def _megadetector(path: Path, value: dict[str, Any]) -> BoxFile:
    names = {str(key): _short(name) for key, name in value["detection_categories"].items()}
    photos = []
    for number, image in enumerate(_listed(path, value["images"], "images"), 1):
        file = _file_in(path, number, image, "file")
        found, failure = image.get("detections"), image.get("failure")
        if failure or found is None:
            why = _short(failure) if isinstance(failure, str) else ""
            photos.append(Photo(file, [], failure=why or "it has no detections"))
            continue
        boxes = _listed(path, found, f"the detections of {file}")
        photos.append(Photo(file, [_detected(box, names) for box in boxes]))
    return BoxFile(path, "MegaDetector", photos, True, names, _info(value.get("info")))


def _detected(box: Any, names: dict[str, str]) -> Detection:
    if not isinstance(box, dict):
        return _no_box("not an object of JSON")
    category = names.get(str(box.get("category")))
    if category is None:
        return _no_box("a category that the file does not list")
    return _box(box.get("bbox"), box.get("conf"), category)


def _coco(path: Path, value: dict[str, Any]) -> BoxFile:
    names = {one["id"]: _short(one["name"]) for one in value.get("categories") or ()}
    boxed = [one for one in _listed(path, value["annotations"], "annotations") if "bbox" in one]
    of_image: defaultdict[Any, list[Detection]] = defaultdict(list)
    for one in boxed:
        category = names.get(one.get("category_id")) or None
        found = _box(one["bbox"], one.get("score", 1.0), "")
        of_image[one["image_id"]].append(found._replace(label=category))
    photos = []
    seen = set()
    for number, image in enumerate(_listed(path, value["images"], "images"), 1):
        file = _file_in(path, number, image, "file_name")
        if image["id"] in seen:
            raise HandfulError(
                f"{path}: image {number} has the id {str(image['id'])[:40]} of an earlier image; "
                f"give every image an id of its own"
            )
        seen.add(image["id"])
        size = (image.get("width"), image.get("height"))
        known = all(type(side) is int and 0 < side < 10**6 for side in size)
        photos.append(Photo(file, of_image[image["id"]], size if known else None))
    # One category is what was looked for, as are a detector's; several tell things apart.
    return _with_categories(BoxFile(path, "COCO", photos, False), least=2)


def _with_categories(found: BoxFile, least: int) -> BoxFile:
    """The file with its labels as categories, where they only tell that something is there.

    Args:
        least: number of different labels that tell things apart.
    """
    kinds = {one.label for photo in found.photos for one in photo.detections if one.label}
    if len(kinds) >= least and not {kind.lower() for kind in kinds} <= DETECTED:
        return found
    photos = [
        photo._replace(
            detections=[
                one._replace(category=one.label or "", label=None) for one in photo.detections
            ]
        )
        for photo in found.photos
    ]
    categories = {str(at): name for at, name in enumerate(sorted(kinds), 1)}
    return replace(found, photos=photos, categories=categories)


def _from_table(path: Path, table: Table) -> BoxFile:
    columns = [key_of(name) for name in table.columns]
    check_width(path, table)
    at = {name: columns.index(name) for name in dict.fromkeys(columns)}
    file = next((at[name] for name in FILES if name in at), None)
    corners = next((four for four in CORNERS if at.keys() >= set(four)), None)
    start = next((two for two in STARTS if at.keys() >= set(two)), None)
    sides = next((two for two in SIDES if at.keys() >= set(two)), None)
    if file is None or not (corners or (start and sides)):
        raise HandfulError(
            f"{path} needs a first line with the columns file, x_min, y_min, width, height (or x1, "
            f"y1, x2, y2), and conf and label if there are any; it starts with "
            f"{', '.join(map(repr, table.columns[:12]))[:400]}"
        )
    four = [at[name] for name in (corners or (*start, *sides))]  # type: ignore[misc]
    confidence = next((at[name] for name in CONFIDENCES if name in at), None)
    label = next((at[name] for name in LABELS if name in at and at[name] not in four), None)
    found: dict[str, list[Detection]] = {}
    for line, cells in table.records:
        cell = [cells[place].strip() if place < len(cells) else "" for place in range(len(columns))]
        if not cell[file]:
            raise HandfulError(f"{path} line {line} names no file; fill its cell or remove it")
        boxes = found.setdefault(cells[file], [])
        if not any(cell[place] for place in four):
            continue  # a photo without a box
        values = [_number(cell[place]) for place in four]
        if corners:
            values[2], values[3] = values[2] - values[0], values[3] - values[1]
        sure = 1.0 if confidence is None or not cell[confidence] else _number(cell[confidence])
        one = _box(values, sure, "")
        name = "" if label is None else restored(cell[label])[:LONGEST]
        boxes.append(one._replace(label=name or None))
    photos = [Photo(file, boxes) for file, boxes in found.items()]
    return _with_categories(BoxFile(path, "CSV", photos, _is_relative(photos)), least=1)


_COORDINATES = tuple(name for names in (*CORNERS, *STARTS, *SIDES) for name in names)
_KNOWN = {*FILES, *LABELS, *CONFIDENCES, *_COORDINATES}


def _is_relative(photos: Sequence[Photo]) -> bool:
    """Whether no box reaches clearly beyond 1: a photo of one pixel has no boxes in pixels."""
    ends = (
        max(start + side, start)
        for photo in photos
        for one in photo.detections
        if one.finite
        for start, side in zip(one.corner, one.sides, strict=True)
    )
    return max(ends, default=0.0) <= BEYOND


def _box(four: Any, confidence: Any, category: str) -> Detection:
    """A box [left, top, width, height], or the reason why it is none."""
    if not isinstance(four, list) or len(four) != 4:
        return _no_box("not four numbers", category)
    left, top, width, height = map(_number, four)
    one = Detection((left, top), (width, height), _number(confidence), category)
    if not one.finite:
        return _no_box("not four finite numbers", category)
    if not 0 <= one.confidence <= 1:
        return _no_box("its confidence is no number from 0 to 1", category)
    if width <= 0 or height <= 0:
        return one._replace(unused="it has no area")
    return one


def _no_box(reason: str, category: str = "") -> Detection:
    return Detection((math.nan, math.nan), (math.nan, math.nan), 0.0, category, unused=reason)


def _number(value: Any) -> float:
    """A number, or NaN for what is none."""
    if type(value) not in (int, float, str):
        return math.nan
    try:
        return float(value[:40] if isinstance(value, str) else value)
    except (ValueError, OverflowError):
        return math.nan


def _info(given: Any) -> dict[str, Any]:
    """What MegaDetector's file says of its detector, checked: what else it says is dropped."""
    if not isinstance(given, dict):
        return {}
    texts = ("detector", "detection_completion_time")
    info: dict[str, Any] = {
        key: _short(given[key]) for key in texts if isinstance(given.get(key), str)
    }
    about = given.get("detector_metadata")
    if isinstance(about, dict):
        kept: dict[str, Any] = {}
        if isinstance(about.get("megadetector_version"), str):
            kept["megadetector_version"] = _short(about["megadetector_version"])
        for key in ("typical_detection_threshold", "conservative_detection_threshold"):
            value = about.get(key)
            if isinstance(value, int | float) and 0 <= _number(value) <= 1:
                kept[key] = _number(value)
        info["detector_metadata"] = kept
    return info


def _listed(path: Path, value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise HandfulError(f"{path}: {what[:200]} is no list; make the file anew")
    return value


def _file_in(path: Path, number: int, image: Any, key: str) -> str:
    file = image.get(key) if isinstance(image, dict) else None
    if not isinstance(file, str) or not file.strip():
        raise HandfulError(f"{path}: image {number} has no {key!r} that is a name; make it anew")
    return as_text(file)


def _short(value: Any) -> str:
    return as_text(value)[:LONGEST]
