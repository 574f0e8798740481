"""Read the exports of annotation tools: Label Studio, MegaDetector, COCO and CVAT."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from handful.data.labels.tables import as_text
from handful.errors import HandfulError

EMPTY = "empty"  # the class of an image in which MegaDetector found nothing


class Labelled(NamedTuple):
    """The labels that a tool gives one image."""

    file: str
    labels: tuple[str, ...]
    unsure: str = ""  # why no label is used, if so


def known_format(value: Any) -> tuple[str, list[Labelled]] | None:
    """The tool's name and its labels, or None for JSON of no known tool.

    HandfulError for JSON that a known tool would not write.
    """
    try:
        if isinstance(value, list) and value and _is_task(value[0]):
            return "Label Studio", [_task(task) for task in value]
        if isinstance(value, dict) and "detection_categories" in value:
            return "MegaDetector", list(_detections(value))
        if isinstance(value, dict) and {"images", "annotations", "categories"} <= value.keys():
            return "COCO", list(_coco(value))
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise HandfulError(f"the JSON is not as its tool writes it ({error!r})") from None
    return None


def choices(text: str) -> tuple[str, ...]:
    """The labels in a cell: its text, or the items of a JSON list or {"choices": […]}."""
    if text.startswith(("{", "[")):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return (text,)
        found = value.get("choices") if isinstance(value, dict) else value
        if isinstance(found, list):
            return tuple(as_text(label).strip() for label in found)
    return (text,) if text else ()


def _is_task(value: Any) -> bool:
    return (
        isinstance(value, dict) and "data" in value and isinstance(value.get("annotations"), list)
    )


def _task(task: dict[str, Any]) -> Labelled:
    """The labels of all annotators in a task of Label Studio's JSON export."""
    data = {key: value for key, value in task["data"].items() if isinstance(value, str)}
    file = data.get("image") or next(iter(data.values()), "") or as_text(task.get("file_upload"))
    labels: dict[str, None] = {}
    for annotation in task["annotations"]:
        if annotation.get("was_cancelled"):
            continue
        for result in annotation.get("result", []):
            labels |= dict.fromkeys(map(as_text, result.get("value", {}).get("choices", [])))
    return Labelled(file, tuple(labels))


def _detections(value: dict[str, Any]) -> Iterator[Labelled]:
    """The categories that MegaDetector found in each image, `EMPTY`, or neither.

    An image whose best detection lies between the two thresholds has no label.
    """
    names = value["detection_categories"]
    about = (value.get("info") or {}).get("detector_metadata") or {}
    typical = float(about.get("typical_detection_threshold") or 0.2)
    least = float(about.get("conservative_detection_threshold") or 0.05)
    for image in value["images"]:
        found = image.get("detections")
        if image.get("failure") or found is None:
            yield Labelled(image["file"], (), "the detector failed")
            continue
        best: dict[str, float] = {}
        for box in found:
            name = as_text(names[box["category"]])
            best[name] = max(best.get(name, 0.0), float(box["conf"]))
        several = tuple(name for name, confidence in best.items() if confidence >= typical)
        if several:
            yield Labelled(image["file"], several)
        elif max(best.values(), default=0.0) < least:
            yield Labelled(image["file"], (EMPTY,))
        else:
            yield Labelled(image["file"], (), f"detected with less than {typical:g}")


def _coco(value: dict[str, Any]) -> Iterator[Labelled]:
    names = {category["id"]: as_text(category["name"]) for category in value["categories"]}
    labels: defaultdict[Any, dict[str, None]] = defaultdict(dict)
    for annotation in value["annotations"]:
        labels[annotation["image_id"]][names[annotation["category_id"]]] = None
    for image in value["images"]:
        yield Labelled(image["file_name"], tuple(labels[image["id"]]))


def read_cvat(path: Path, text: str) -> list[Labelled]:
    """The tags of the images in CVAT's annotations.xml.

    XML with a DOCTYPE is refused: its entities could expand without bound.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise HandfulError(f"{path} is XML with a DOCTYPE, which CVAT does not write")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise HandfulError(f"{path} cannot be read as XML: {error}") from None
    images = list(root.iter("image"))
    if not any(image.get("name") for image in images):
        raise HandfulError(f"{path} is XML without images; export 'CVAT for images' from CVAT")
    return [
        Labelled(
            image.get("name", ""),
            tuple(dict.fromkeys(tag.get("label", "") for tag in image.iter("tag"))),
        )
        for image in images
    ]
