"""Find the images of a source that is no folder: `Objects`, their list and their labels.

What is in an archive or a table is listed once and kept in the cache, for as long as the archive
has the same size and version. What is below an address is listed each time: one request is enough
for a thousand objects, and tells which of them are new or have changed.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from handful.data.cache import VERSION, about, cache_folder, explained, used
from handful.data.objects import contents, readers
from handful.data.objects.address import place_now, place_of, retried, scheme_of, stamp_of
from handful.data.objects.contents import (
    LARGEST_METADATA,
    METADATA,
    Item,
    Part,
    check_metadata,
    is_container,
    metadata_labels,
)
from handful.data.objects.files import FETCHERS, Entry, Objects
from handful.data.objects.readers import AddressReader, Reader
from handful.data.opened import Files
from handful.data.scan import UNKNOWN, Found, Listing, found_files
from handful.data.skipped import Skipped
from handful.files import write_text

IMAGE_SCHEMES = ("http", "https")  # a web address that is no archive or list is one image
_READING = 2  # goes up when names or labels are read differently from an unchanged archive or list


class Contents(NamedTuple):
    """The images of a source, sorted by name, and the labels that it gives itself."""

    files: Files
    listed: Listing
    labels: dict[str, str] | None  # name → label; None if the source gives none


def is_elsewhere(source: str) -> bool:
    """Whether a source is an address, or an archive, table or list on this machine."""
    if scheme_of(source):
        return True
    return is_container(source) and Path(source).expanduser().is_file()


def find(source: str) -> Contents:
    """List the images of an address, archive, table or list; HandfulError if there is none."""
    if scheme_of(source) == "file":
        source = place_of(source).path
    if not scheme_of(source):
        source = os.path.abspath(Path(source).expanduser())
    if is_container(source):
        return _contents(source, [_kept(source)])
    place = place_now(source)
    if scheme_of(source) in IMAGE_SCHEMES:
        return _contents(source, [contents.one_object(source, place)])
    part, inside = contents.objects(source, place)
    if inside and not any(contents.is_image(item.name) for item in part.items):
        return _contents(source, [_kept(address) for address in inside])
    if len(part.items) == 1 and part.items[0].key == place.path:  # the address of one image
        part = contents.one_object(source, place)
    return _contents(source, [part])


def find_inside(folder: Path) -> Contents | None:
    """The images in the archives and tables of a folder on this machine; None without any."""
    held = containers_in(folder)
    if not held:
        return None
    return _contents(os.path.abspath(folder), [_kept(os.path.abspath(path)) for path in held])


def containers_in(folder: Path) -> list[Path]:
    """The archives and tables in a folder on this machine that hold pictures themselves."""
    paths = sorted(path for path in folder.iterdir() if is_container(path.name) and path.is_file())
    return [path for path in paths if contents.ending(path.name) not in contents.LISTS]


def folder_labels(folder: Path) -> dict[str, str] | None:
    """The labels of the metadata.csv in a folder and in the folders in it; None without any."""
    found: dict[str, str] = {}
    room = LARGEST_METADATA
    for path in sorted([*folder.glob(METADATA), *folder.glob(f"*/{METADATA}")]):
        if path.is_file():
            size = path.stat().st_size
            check_metadata(str(path), size, room)
            room -= size
            inside = path.parent.relative_to(folder).as_posix()
            text = path.read_text("utf-8-sig", "surrogateescape")
            found |= metadata_labels("" if inside == "." else inside, text, str(path))
    return found or None


def with_stamps(files: Objects, found: Iterable[Found]) -> tuple[list[Found], list[Skipped]]:
    """The files with their sizes and versions, asked for one by one where a list names them.

    Returns:
        the files that are there, and those that are not.
    """
    known: list[Found] = []
    missing: list[Skipped] = []
    found = list(found)
    asked = [file for file in found if files.is_listed(file.name)]
    with ThreadPoolExecutor(FETCHERS) as pool:
        stamps = dict(zip((f.name for f in asked), pool.map(files.ask, asked), strict=True))
    for file in found:
        stamp = stamps.get(file.name, file)
        if isinstance(stamp, str):
            missing.append(Skipped(file.name, stamp))
        else:
            known.append(stamp)
    return known, missing


def _contents(source: str, parts: list[Part]) -> Contents:
    """One source from its parts. Of names that several parts have, each begins with its part's."""
    counts = Counter(item.name for part in parts for item in part.items)
    entries: dict[str, Entry] = {}
    files: list[Found] = []
    skipped = [one for part in parts for one in part.skipped]
    labels: dict[str, str] = {}
    other: Counter[str] = Counter()
    for number, part in enumerate(parts):
        other += part.other
        for item in part.items:
            name = item.name
            if counts[name] > 1 and len(parts) > 1:
                name = f"{os.path.basename(part.reader.address.rstrip('/'))}/{name}"
            if name in entries:
                skipped.append(Skipped(name, "its name stands there twice; the first is taken"))
                continue
            entries[name] = Entry(number, item.key, item.bytes)
            files.append(Found(name, item.bytes, item.version))
            if item.label:
                labels[name] = item.label
    files.sort(key=lambda file: file.name)
    own = any(part.labeled for part in parts)
    objects = Objects(source, [part.reader for part in parts], entries)
    return Contents(
        objects, Listing(found_files(files), sorted(skipped), other), labels if own else None
    )


def _kept(address: str) -> Part:
    """What is in an archive or a table, from the cache if it has not changed."""
    place = place_now(address)
    with contents.explained(address):
        stamp = stamp_of(retried(lambda: place.system.info(place.path)))
    name = sha256(f"contents\0{address}".encode(errors="surrogateescape")).hexdigest()[:32]
    path = cache_folder() / "manifests" / f"{name}.json"
    made = [VERSION, _READING, *stamp, os.path.splitext(address)[1]]
    if stamp.version != UNKNOWN and (found := _read(path, made)) is not None:
        used(path)
        return found
    part = contents.container(address)
    if not isinstance(part.reader, AddressReader):
        # A member is as new as its archive: the version of both tells whether it has changed.
        part.items[:] = [_of_archive(item, stamp.version) for item in part.items]
    if stamp.version != UNKNOWN:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps({"made": made, **_written(part)}))
        about(path, source=address)
    return part


def _of_archive(item: Item, version: int) -> Item:
    both = UNKNOWN if version == UNKNOWN else (version ^ item.version) & (2**62 - 1)
    return item._replace(version=both)


def _written(part: Part) -> dict[str, object]:
    reader = part.reader
    column = reader.column if isinstance(reader, readers.RowReader) else None
    return {
        "reader": [type(reader).__name__, reader.address, column],
        "items": part.items,
        "skipped": part.skipped,
        "other": part.other,
        "labeled": part.labeled,
    }


def _read(path: Path, made: list[object]) -> Part | None:
    """The part that `_written` wrote; None if it is missing, damaged or of another version."""
    try:
        found = json.loads(path.read_bytes())
        if found["made"] != made:
            return None
        kind, address, column = found["reader"]
        known = {c.__name__: c for c in (readers.TarReader, readers.ZipReader, AddressReader)}
        reader: Reader
        reader = readers.RowReader(address, column) if kind == "RowReader" else known[kind](address)
        items = [Item(n, b, v, tuple(k) if isinstance(k, list) else k, label)
                 for n, b, v, k, label in found["items"]]  # fmt: skip
        skipped = [Skipped(*one) for one in found["skipped"]]
        return Part(reader, items, skipped, Counter(found["other"]), found["labeled"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
