"""Scan a folder for image files and inspect each of them once.

A manifest in the cache keeps the results of `decode.inspect` by path, size and modification time.
Opening a folder again then costs one directory walk.
"""

import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import PIL

from handful.data import decode
from handful.data.cache import VERSION, about, cache_folder, explained, locked, used
from handful.data.decode import ENDINGS, Facts, Unreadable
from handful.data.decoding.unread_formats import ending_of, why_unread
from handful.data.decoding.value_range import Values
from handful.data.opened import Files, Folder
from handful.data.skipped import Skipped
from handful.data.thread_pool import in_order
from handful.files import write_text
from handful.progress import Track, quiet

UNKNOWN = -1  # `Found.changed` of a file whose version nothing tells: it is read again each time
BATCH = 64  # files inspected by one worker at a time
SYSTEM = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "icon\r"}
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF",
              b"II+\0", b"MM\0+", *decode.RAW_HEADS)  # fmt: skip
BOXES = (b"ftypavif", b"ftypcrx")  # from the fifth byte on: AVIF, Canon's raw


class Found(NamedTuple):
    """A file that may be an image, with its size and modification time."""

    name: str  # path relative to the folder, with forward slashes
    bytes: int
    changed: int  # mtime in nanoseconds, or a hash of what else tells versions apart


@dataclass(frozen=True)
class Scan:
    """The readable images of a folder, sorted by name, and the files that were left out."""

    files: list[Found]
    facts: list[Facts]  # of `files`
    skipped: list[Skipped]
    ignored: Counter[str]  # ending → files that are no images; hidden files are not counted


class Listing(NamedTuple):
    """The files of a folder that may be images, sorted by name; none of them is decoded."""

    files: list[Found]
    skipped: list[Skipped]  # files that were left out
    ignored: Counter[str]  # ending → files that are no images; hidden files are not counted


def listing(root: Path, follow_links: bool) -> Listing:
    """List every file under `root` that may be an image; no file is decoded."""
    found: list[Found] = []
    skipped: list[Skipped] = []
    ignored: Counter[str] = Counter()
    for item in _walk(root, follow_links):
        if isinstance(item, Found):
            found.append(item)
        elif isinstance(item, Skipped):
            skipped.append(item)
        else:
            ignored[item] += 1
    found.sort(key=lambda file: file.name)
    return Listing(found, skipped, ignored)


def scan(root: Path, follow_links: bool, track: Track) -> Scan:
    """Find and inspect every image under `root`; images that cannot be read are in `skipped`."""
    return scan_listed(Folder(root), listing(root, follow_links), track)


def scan_listed(
    files: Files,
    listed: Listing,
    track: Track,
    chosen: list[Found] | None = None,
    part: str = "",
) -> Scan:
    """Inspect the listed files, or only `chosen` of them.

    Args:
        part: which part of the source is listed, such as "3/64"; "" if all of it is.
    """
    readable, facts, skipped = [], [], [*listed.skipped]
    wanted = listed.files if chosen is None else chosen
    inspected = _inspected(files, listed.files, wanted, track, part)
    for file, result in zip(wanted, inspected, strict=True):
        if isinstance(result, Facts):
            readable.append(file)
            facts.append(result)
        else:
            skipped.append(Skipped(file.name, result))
    return Scan(readable, facts, sorted(skipped), listed.ignored)


def scan_file(path: Path) -> Scan:
    """Inspect one file, as `scan` does a folder that holds only this file."""
    status = path.stat()
    file = Found(path.name, status.st_size, status.st_mtime_ns)
    with decode.guarded():
        result = _inspect(Folder(path.parent).opened(path.name))
    if isinstance(result, Facts):
        return Scan([file], [result], [], Counter())
    return Scan([], [], [Skipped(path.name, result)], Counter())


def _walk(root: Path, follow_links: bool) -> Iterator[Found | Skipped | str]:
    """Every file in the folder and below: a possible image, a skipped file, or another's ending.

    Names are plain strings: 60,000 Path objects would take longer than all the rest. The walk uses
    a stack, because trees may be deeper than Python's recursion limit. A folder's (device, inode)
    lies on the stack below its sub-folders; until it is popped it is in `above`, which finds links
    that lead back to a parent folder.
    """
    waiting: list[str | tuple[int, int]] = [""]
    above: set[tuple[int, int]] = set()
    while waiting:
        inside = waiting.pop()
        if isinstance(inside, tuple):
            above.remove(inside)
            continue
        folder = os.path.join(root, inside)
        try:
            status = os.stat(folder)
            own = (status.st_dev, status.st_ino)
            if own in above:
                yield Skipped(inside.rstrip("/"), "a link back to a folder above it")
                continue
            with os.scandir(folder) as listed:
                entries = list(listed)
        except OSError as error:
            yield Skipped(inside.rstrip("/"), f"folder cannot be opened: {error.strerror}")
            continue
        above.add(own)
        waiting.append(own)
        for entry in entries:
            name = inside + entry.name
            if entry.name.startswith(".") or entry.name.lower() in SYSTEM:
                continue
            elif entry.is_symlink() and not (follow_links or _leads_inside(root, entry.path)):
                yield Skipped(name, "a link out of the folder; --follow-links reads it")
            elif entry.is_dir():
                waiting.append(f"{name}/")
            else:
                yield _file(name, entry)


def _file(name: str, entry: os.DirEntry[str]) -> Found | Skipped | str:
    try:
        status = entry.stat()
    except OSError:
        broken = entry.is_symlink()
        return Skipped(
            name, "a link to nothing" if broken else "vanished while the folder was read"
        )
    if not stat.S_ISREG(status.st_mode):
        return Skipped(name, "not a regular file")
    ending = os.path.splitext(name)[1].lower()
    if ending not in ENDINGS and not _looks_like_an_image(entry.path):
        reason = why_unread(entry.path)
        return Skipped(name, reason) if reason else ending_of(name)
    return Found(name, status.st_size, status.st_mtime_ns)


def _looks_like_an_image(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(16)
            return head.startswith(SIGNATURES) or head[4:].startswith(BOXES)
    except OSError:
        return False


def _leads_inside(root: Path, path: str) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def _inspected(
    files: Files, found: list[Found], wanted: list[Found], track: Track, part: str
) -> Iterable[Facts | str]:
    """The facts of each wanted file, or why it cannot be read; from the manifest where possible.

    Args:
        found: all files of the source, or of this part; what the manifest knows of them stays.
    """
    path = _manifest(files, part)
    known = _load(path, found)
    if not all(file.name in known for file in wanted):
        with locked(path):
            known = _load(path, found)  # another process may have written it meanwhile
            if unknown := [file for file in wanted if file.name not in known]:
                known.update(_look(files, unknown, track))
                _save(path, found, known)
                about(path, source=files.identity)
    if path.exists():
        used(path)
    return [known[file.name] for file in wanted]


def remembered_facts(root: Path, found: list[Found]) -> dict[str, Facts | str]:
    """The facts of unchanged files that an earlier scan of the folder found, by name."""
    return _load(_manifest(Folder(root)), found)


def remember_facts(root: Path, found: list[Found], known: dict[str, Facts | str]) -> None:
    """Keep the facts of all files of a folder, so that the next scan need not decode them.

    Args:
        known: facts, or why a file cannot be read, by name.
    """
    path = _manifest(Folder(root))
    with locked(path):
        _save(path, found, known)
        about(path, source=os.path.realpath(root))


def inspect_files(root: Path, files: list[Found]) -> dict[str, Facts | str]:
    """The facts of each file, or why it cannot be read, by name; files are decoded in parallel."""
    return _look(Folder(root), files, quiet)


def _look(files: Files, found: list[Found], track: Track) -> dict[str, Facts | str]:
    def look(part: list[Found]) -> list[tuple[str, Facts | str]]:
        names = [file.name for file in part]
        return [(n, _inspect(file)) for n, file in zip(names, files.each(names), strict=True)]

    parts = [found[start : start + BATCH] for start in range(0, len(found), BATCH)]
    results = in_order(look, parts)
    with decode.guarded():
        tracked = track(results, len(parts), "looking at files")
        return {name: facts for part in tracked for name, facts in part}


def _inspect(file: AbstractContextManager[Path]) -> Facts | str:
    try:
        with file as path:
            return decode.inspect(path)
    except Unreadable as error:
        return str(error)


def _manifest(files: Files, part: str = "") -> Path:
    return cache_folder() / "manifests" / f"{files.manifest(part)}.json"


def _save(path: Path, found: list[Found], known: dict[str, Facts | str]) -> None:
    """Write the manifest of the readable files; the others are inspected again next time."""
    rows = [
        (file.name, file.bytes, file.changed, facts.height, facts.width, facts.grey,
         facts.fingerprint.hex(), facts.notes, facts.values, facts.blank)
        for file in found
        if isinstance(facts := known.get(file.name), Facts)
    ]  # fmt: skip
    with explained(path):
        write_text(path, json.dumps({"version": _version(), "files": rows}))


def _load(path: Path, found: list[Found]) -> dict[str, Facts | str]:
    """Facts of the unchanged files from the manifest; empty if it is missing or damaged."""
    try:
        manifest = json.loads(path.read_bytes())
        if manifest["version"] != _version():
            return {}
        rows = manifest["files"]
        remembered = {
            (name, bytes_, changed): Facts(
                height,
                width,
                grey,
                bytes.fromhex(fingerprint),
                tuple(notes),
                None if values is None else Values(*values),
                blank,
            )
            for (
                name,
                bytes_,
                changed,
                height,
                width,
                grey,
                fingerprint,
                notes,
                values,
                blank,
            ) in rows
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    states = (
        (file.name, (file.name, file.bytes, file.changed))
        for file in found
        if file.changed != UNKNOWN
    )
    return {name: remembered[state] for name, state in states if state in remembered}


def _version() -> list[int | str]:
    return [VERSION, PIL.__version__]
