"""A folder of images, with class sub-folders or a label file → ImageSet.

Layouts: `class/…`, where `unlabeled/` and loose images have no label; or `train/class/…` beside
`test/class/…`. With a label file the sub-folders mean nothing, except `train/` and `test/`.
"""

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from handful.data.imageset import ImageSet, sorted_classes
from handful.data.parallel import Track
from handful.data.scan import Scan, scan, scan_file
from handful.data.store import FileStore, Skipped
from handful.data.table import Row, merged, read_table
from handful.data.values import marked, value_range
from handful.errors import HandfulError

TRAIN = {"train", "training"}
VALIDATION = {
    "val",
    "valid",
    "validation",
}  # the test part where there is no test/, else trained on
TEST = {"test", "testing"}
UNLABELED = {"unlabeled", "unlabelled"}


class Place(NamedTuple):
    """Where an image belongs: its label if known, its group if given, and its part."""

    label: str | None = None
    group: str | None = None
    test: bool = False
    reason: str = ""  # why it is left out; empty if it is not


def load_folder(
    source: str, labels: Path | None, encoding: str, follow_links: bool, track: Track
) -> ImageSet:
    """Images of a folder or of one file, where a label may be missing from every one."""
    root = Path(source).expanduser()
    if root.is_file():
        root, found = root.parent, scan_file(root)
    else:
        _check_folder(root, source)
        found = scan(root, follow_links, track)
    if not found.files:
        raise HandfulError(_nothing_found(source, found))
    names = [file.name for file in found.files]
    unknown: list[Skipped] = []
    if labels is None:
        places = places_by_folder(names)
    else:
        places, unknown = places_by_table(found, root, labels, encoding)
    return _image_set(source, root, found, places, unknown)


def places_by_folder(names: Iterable[str]) -> list[Place]:
    """The place of each image by its path alone."""
    paths = [name.split("/") for name in names]
    train, test = _parts(paths)
    return [_place(path, train, test) for path in paths]


def places_by_table(
    found: Scan, root: Path, labels: Path, encoding: str
) -> tuple[list[Place], list[Skipped]]:
    """The place of each image by the label file, and the table's files that are not there."""
    rows = read_table(labels, encoding)
    names = [file.name for file in found.files]
    known = {name: number for number, name in enumerate(names)}
    broken = {skipped.name for skipped in found.skipped}
    by_composed_name = {unicodedata.normalize("NFC", name): name for name in [*names, *broken]}
    _, test = _parts([name.split("/") for name in names])
    row_of: dict[str, Row] = {}
    unknown: list[Skipped] = []
    for row in rows:
        name = _resolved(row.file, root, labels.parent, by_composed_name)
        if name is None:
            unknown.append(
                Skipped(row.file, f"only in the label file: line {row.line} of {labels}")
            )
        elif name in row_of:
            row_of[name] = merged(labels, row_of[name], row)
        else:
            row_of[name] = row
    if not known.keys() & row_of.keys():
        raise HandfulError(
            f"none of the {len(rows)} files named in {labels} is an image in {root} (the first is "
            f"{rows[0].file!r}); paths must be relative to the folder or to the label file"
        )
    places = []
    for name in names:
        label = row_of[name].label if name in row_of else None
        group = row_of[name].group if name in row_of else None
        in_test = label is not None and "/" in name and name.split("/")[0].lower() in test
        places.append(Place(label, group, in_test))
    return places, unknown


def read_origins(source: str, labels: Path, encoding: str, names: Iterable[str]) -> dict[str, str]:
    """Image name → "random" or "chosen", for the labels of which the label file tells."""
    root = Path(source).expanduser()
    root = root.parent if root.is_file() else root
    composed = {unicodedata.normalize("NFC", name): name for name in names}
    found = {}
    for row in read_table(labels, encoding):
        name = _resolved(row.file, root, labels.parent, composed)
        if name is not None and row.label and row.origin:
            found[name] = row.origin
    return found


def _image_set(
    source: str, root: Path, found: Scan, places: list[Place], unknown: list[Skipped]
) -> ImageSet:
    left_out = [
        Skipped(file.name, place.reason)
        for file, place in zip(found.files, places, strict=True)
        if place.reason
    ]
    store = file_store(root, found, [*found.skipped, *left_out, *unknown])
    used = [row for row, place in enumerate(places) if not place.reason]
    train = np.array([row for row in used if not places[row].test], np.int64)
    test = np.array([row for row in used if places[row].test], np.int64)
    classes = sorted_classes({places[row].label for row in train} - {None})
    number = {name: index for index, name in enumerate(classes)}
    foreign = [row for row in test if places[row].label not in number]
    store.skipped += tuple(
        Skipped(store.names[row], f"no training image of its class: {places[row].label}")
        for row in foreign
    )
    test = np.setdiff1d(test, foreign)
    labels = np.array([number.get(place.label or "", -1) for place in places], np.int64)
    groups = _group_numbers([place.group for place in places])

    def part(rows: np.ndarray, test: ImageSet | None = None) -> ImageSet:
        chosen = None if groups is None else groups[rows]
        return ImageSet(store, rows, labels[rows], classes, chosen, source, test)

    return part(train, part(test) if len(test) else None)


def file_store(root: Path, found: Scan, skipped: list[Skipped]) -> FileStore:
    """A store over the readable files of a scan."""
    joined = b"".join(facts.fingerprint for facts in found.facts)
    prints = np.frombuffer(joined, np.uint8).reshape(-1, 16)
    values = [facts.values for facts in found.facts]
    deep = np.array([file is not None for file in values], bool)
    scale = value_range([file for file in values if file is not None])
    return FileStore(
        names=[file.name for file in found.files],
        fingerprints=marked(prints, deep, scale),
        sizes=np.array([(facts.height, facts.width) for facts in found.facts], np.int64),
        grey=np.array([facts.grey for facts in found.facts], bool),
        skipped=tuple(skipped),
        root=root,
        stamps=np.array([(file.bytes, file.changed) for file in found.files], np.int64),
        notes=tuple(facts.notes for facts in found.facts),
        prints=prints,
        deep=deep,
        blank=np.array([facts.blank for facts in found.facts], bool),
        value_range=scale,
    )


def _parts(paths: list[list[str]]) -> tuple[set[str], set[str]]:
    """Names of the top folders that hold the training and the test part; empty if undivided."""
    tops = {path[0].lower() for path in paths if len(path) > 1}
    if not tops & TRAIN:
        return set(), set()
    if tops & TEST:
        return TRAIN | VALIDATION, TEST
    if tops <= TRAIN | VALIDATION | UNLABELED:
        return TRAIN, VALIDATION
    return set(), set()


def _place(path: list[str], train: set[str], test: set[str]) -> Place:
    top = path[0].lower()
    if len(path) == 1 or top in UNLABELED:
        return Place()
    if not train:
        return Place(label=path[0])
    if top not in train | test:
        return Place(reason="beside train/ and test/, in neither of them")
    loose = len(path) == 2 or path[1].lower() in UNLABELED
    if top in test:
        reason = "a test image without a class folder" if loose else ""
        return Place(label=path[1], test=True, reason=reason)
    return Place() if loose else Place(label=path[1])


def _resolved(file: str, root: Path, beside: Path, names: dict[str, str]) -> str | None:
    """The image that a cell of the label file means: relative to the folder, else to the file."""
    path = file.replace("\\", "/")
    for start in (root, beside):
        relative = os.path.relpath(start / path, root)
        key = unicodedata.normalize("NFC", Path(relative).as_posix())
        if key in names:
            return names[key]
    return None


def _group_numbers(names: list[str | None]) -> np.ndarray | None:
    """Equal numbers for equal names; an image without a group is a group of its own."""
    if not any(names):
        return None
    number = {name: index for index, name in enumerate(sorted({name for name in names if name}))}
    alone = len(number)
    return np.array(
        [number[name] if name else alone + row for row, name in enumerate(names)], np.int64
    )


def _check_folder(root: Path, source: str) -> None:
    if not root.exists():
        raise HandfulError(f"no folder {source!r}; check the path")
    if not root.is_dir():
        raise HandfulError(
            f"{source} is neither a folder nor a regular file; give a folder of images"
        )
    try:
        next(root.iterdir(), None)
    except OSError as error:
        raise HandfulError(f"cannot open the folder {source}: {error.strerror}") from error


def _nothing_found(source: str, found: Scan) -> str:
    if not found.skipped:
        return f"{source} holds no image; it has {found.ignored} other files"
    first = found.skipped[0]
    return (
        f"{source} holds no image that can be read; {len(found.skipped)} left out, the first is "
        f"{first.name}: {first.reason}"
    )
