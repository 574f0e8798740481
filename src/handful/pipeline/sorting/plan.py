"""Plan the steps that bring every image into the folder of its class; no file is changed.

Each step is planned as if all earlier ones were done. A call that follows a killed one therefore
plans the rest alike: finished copies are found by the manifest.
"""

import errno
import hashlib
import os
import stat
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Literal, NamedTuple

from handful.data.store import Skipped
from handful.errors import HandfulError
from handful.pipeline.sorting.manifest import Entry, Manifest
from handful.pipeline.sorting.names import Kind, Limits, copy_names, flat, name_key, portable
from handful.progress import Track

CHUNK = 2**20
# Errors of file systems for a name that they cannot hold.
REFUSED = {errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ}
NONBLOCKING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class LeftOut(Exception):
    """One image cannot be sorted; the message is the reason."""


class Placement(NamedTuple):
    """The place of a copy."""

    place: str  # folder/name in the target
    there: bool  # a file of equal content is there already
    numbered: bool = False  # the name has a number, since another file has the name
    shortened: bool = False  # shortened or changed, since the file system cannot hold the name


class State(NamedTuple):
    """Size, time and inode of a file, which change when it is written again."""

    bytes: int
    changed: int
    inode: int


@dataclass(frozen=True)
class Item:
    """An image to sort."""

    name: str  # relative to the source
    path: Path
    kind: Kind
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Step:
    """The action for one image, and its manifest entries before and after it."""

    item: Item
    action: Literal["copy", "move", "keep"]
    place: str  # folder/name in the target, where the copy is in the end
    old_copies: tuple[str, ...] = ()  # own copies elsewhere: the first is moved, the others removed
    entry: Entry | None = None  # after the step; None: the file is not ours
    entry_before: Entry | None = None  # before the step
    numbered: bool = False
    shortened: bool = False


@dataclass
class Plan:
    """All steps, and the manifest entries of images that are not sorted now."""

    steps: list[Step]
    left_out: list[Skipped]
    others: list[Entry]
    before: Manifest


@dataclass
class Places:
    """The state of the target: existing files, and places that steps reserve or vacate."""

    target: Path
    limits: Limits
    reserved: set[str] = field(default_factory=set)  # places of this call's images
    vacated: set[str] = field(default_factory=set)  # places that earlier steps move away from
    hashes: dict[tuple[str, State], str] = field(default_factory=dict)

    def usable(self, folder: str) -> bool:
        """Return whether files can go into `folder`: the name is free, or a folder, no link."""
        path = self.target / folder
        if not os.path.lexists(path):
            return True
        if os.path.islink(path) or not path.is_dir():
            return False
        # A junction of Windows is no link, but leads elsewhere, too.
        return os.path.samefile(os.path.dirname(os.path.realpath(path)), self.target)

    def lstat_of(self, place: str) -> os.stat_result | None:
        try:
            return os.lstat(self.target / place)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def holds(self, place: str, size: int, sha256: str) -> bool:
        """Return whether the place holds a regular file of this content, reached by no link."""
        try:
            found = self.lstat_of(place)
            if found is None or not stat.S_ISREG(found.st_mode) or found.st_size != size:
                return False
            return self.usable(place.split("/")[0]) and self._hash(place, found) == sha256
        except OSError:
            return False

    def _hash(self, place: str, found: os.stat_result) -> str:
        key = place, state(found)
        if key not in self.hashes:
            self.hashes[key] = content(self.target / place)[1]
        return self.hashes[key]

    def reserve(self, place: str) -> None:
        self.reserved.add(_key(place))

    def vacate(self, place: str) -> None:
        self.reserved.discard(_key(place))
        self.vacated.add(place)

    def release(self, place: str) -> None:
        """Undo `reserve` and `vacate`, so that the place is checked again."""
        self.reserved.discard(_key(place))
        self.vacated.discard(place)

    def place_copy(self, item: Item, folder: str, safe: bool = False) -> Placement:
        """Choose the place of an image's copy and reserve it.

        Args:
            safe: use a name that all file systems can hold.

        Raises:
            LeftOut: the file system cannot hold any form of the name.
        """
        wish = flat(item.name)
        for name in dict.fromkeys((portable(wish),) if safe else (wish, portable(wish))):
            try:
                return self._place_copy(item, folder, name)
            except OSError as error:
                if error.errno not in REFUSED:
                    raise
        raise LeftOut("the file system of the target cannot hold its name")

    def _place_copy(self, item: Item, folder: str, wish: str) -> Placement:
        limit = self.limits.file(self.target / folder)
        shortened = next(copy_names(wish, limit)) != item.name.replace("/", "_")
        for number, name in enumerate(copy_names(wish, limit), 1):
            place = f"{folder}/{name}"
            if _key(place) in self.reserved:
                continue
            there = place not in self.vacated and self.lstat_of(place) is not None
            if not there or self.holds(place, item.bytes, item.sha256):
                self.reserve(place)
                return Placement(place, there, number > 1, shortened)
        raise AssertionError("numbers do not end")


def _key(place: str) -> str:
    """Return a key that is equal for places that the usual file system takes for one."""
    return name_key(place) if os.name == "nt" or sys.platform == "darwin" else place


def state(found: os.stat_result) -> State:
    return State(found.st_size, found.st_mtime_ns, found.st_ino)


def content(path: Path) -> tuple[int, str]:
    """Return size in bytes and SHA-256 of a regular file; OSError for any other file."""
    digest, size = hashlib.sha256(), 0
    with open_regular(path) as file:
        while chunk := os.read(file.fileno(), CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


def open_regular(path: Path) -> IO[bytes]:
    """Open a regular file for reading; OSError for a pipe, without waiting for its writer."""
    descriptor = os.open(path, os.O_RDONLY | NONBLOCKING)
    file = os.fdopen(descriptor, "rb", buffering=0)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file")
    return file


def inside(path: Path, folder: Path) -> bool:
    """Return whether `path` is `folder` or lies in it, links, mounts and letter case included."""
    if not folder.exists():
        return False
    real = Path(os.path.realpath(path))
    parents = (real, *real.parents)
    return any(os.path.exists(at) and os.path.samefile(at, folder) for at in parents)


def why_unreadable(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "vanished before it was copied"
    return f"cannot be read: {(error.strerror or str(error)).lower()}"


def make_plan(
    source: Path,
    images: Sequence[tuple[str, Kind]],
    folders: dict[Kind, str],
    before: Manifest,
    places: Places,
    track: Track,
) -> Plan:
    """Plan the steps that bring each image, (name, kind), into the folder of its kind.

    Raises:
        HandfulError: a name leads out of the source.
    """
    if source.is_dir():
        _check_inside(source, [name for name, _ in images])
    own = {os.path.realpath(places.target / folder) for folder in folders.values()}
    items: list[Item] = []
    left_out: list[Skipped] = []
    for name, kind in track(images, len(images), "comparing files"):
        path = source / name if source.is_dir() else source
        try:
            if not own.isdisjoint(map(str, Path(os.path.realpath(path)).parents)):
                raise LeftOut("a link to a copy in the target")
            items.append(Item(name, path, kind, *content(path)))
        except OSError as error:
            left_out.append(Skipped(name, why_unreadable(error)))
        except LeftOut as reason:
            left_out.append(Skipped(name, str(reason)))
    root = os.path.realpath(source if source.is_dir() else source.parent)
    entries, others = _match_entries(items, root, before.files, places)
    steps = []
    for item, entry in zip(items, entries, strict=True):
        try:
            steps.append(_step(item, root, entry, folders[item.kind], places))
        except LeftOut as reason:
            left_out.append(Skipped(item.name, str(reason)))
            others += [entry] if entry else []
    return Plan(steps, left_out, others, before)


def _check_inside(source: Path, names: Sequence[str]) -> None:
    """Raise HandfulError unless each name is that of a file in the folder, links aside."""
    for name in names:
        path = source / name
        if ".." in Path(name).parts or not path.is_relative_to(source):
            raise no_file_of(source, name)


def no_file_of(source: Path, name: str) -> HandfulError:
    """The error for the name of a file that is not in the folder to sort."""
    return HandfulError(
        f"{name!r} is no file of {source}, so nothing is copied; give the folder that the "
        f"predictions are of"
    )


def _match_entries(
    items: Sequence[Item], root: str, known: Sequence[Entry], places: Places
) -> tuple[list[Entry | None], list[Entry]]:
    """Return the entry of each image's copy by an earlier call, and the entries of other images.

    An image is matched by path and content, else by name and content, since a folder may have been
    renamed or a memory card copied twice.
    """
    by_origin: defaultdict[tuple[str, str], list[Entry]] = defaultdict(list)
    by_name: defaultdict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in known:
        by_origin[entry.origin, entry.sha256].append(entry)
        by_name[flat(entry.name), entry.sha256].append(entry)
    seen: set[int] = set()

    def first_present(candidates: list[Entry]) -> Entry | None:
        for entry in candidates:
            if id(entry) not in seen:
                seen.add(id(entry))
                if found := _entry_where_present(entry, places):
                    return found
        return None

    found = [first_present(by_origin[os.path.join(root, i.name), i.sha256]) for i in items]
    found = [
        entry or first_present(by_name[flat(item.name), item.sha256])
        for item, entry in zip(items, found, strict=True)
    ]
    others = [
        e for e in known if id(e) not in seen and any(map(places.lstat_of, (e.place, *e.was)))
    ]
    return found, others


def _entry_where_present(entry: Entry, places: Places) -> Entry | None:
    """Return the entry with the places that still hold its content, reserved; None if none do."""
    there = [
        place
        for place in (entry.place, *entry.was)
        if places.holds(place, entry.bytes, entry.sha256)
    ]
    for place in there:
        places.reserve(place)
    return replace(entry, place=there[0], was=tuple(there[1:])) if there else None


def _step(item: Item, root: str, entry: Entry | None, folder: str, places: Places) -> Step:
    def ours(place: str, was: tuple[str, ...] = ()) -> Entry:
        return Entry(place, root, item.name, item.bytes, item.sha256, was)

    copies = (entry.place, *entry.was) if entry else ()
    right = next((place for place in copies if place.split("/")[0] == folder), None)
    if right is not None:
        old_copies = tuple(place for place in copies if place != right)
        for place in old_copies:
            places.vacate(place)
        return Step(item, "keep", right, old_copies, ours(right), ours(right, old_copies))
    place, there, numbered, shortened = places.place_copy(item, folder)
    for copy in copies:
        places.vacate(copy)
    if there:
        entry_before = ours(copies[0], copies[1:]) if copies else None
        return Step(item, "keep", place, copies, None, entry_before)
    action: Literal["copy", "move"] = "move" if copies else "copy"
    new = ours(place)
    return Step(item, action, place, copies, new, ours(place, copies), numbered, shortened)
