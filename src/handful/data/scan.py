"""Scan a folder for image files and inspect each of them once.

A manifest in the cache keeps the results of `decode.inspect` by path, size and modification time.
Opening a folder again then costs one directory walk: the manifest is read in one piece, as arrays.

Letters in shapes: N files that were found, M files in a manifest.
"""

import json
import os
import stat
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL

from handful.data import decode
from handful.data.cache import VERSION, about, cache_folder, explained, locked, used
from handful.data.decode import ENDINGS, Facts, Unreadable
from handful.data.decoding.unread_formats import ending_of, why_unread
from handful.data.facts import ARRAYS, FactsTable, facts_table, joined
from handful.data.opened import Files, Folder
from handful.data.skipped import Skipped
from handful.data.thread_pool import in_order
from handful.files import beside
from handful.progress import Track, quiet

_LATEST = 2**63 - 1  # nanoseconds: a time of change that int64 holds
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


@dataclass(frozen=True, eq=False)
class FoundFiles:
    """N files, as columns: a million objects would take as long as the walk that finds them."""

    names: list[str]
    stamps: np.ndarray  # (N, 2) int64: bytes and modification time, see `Found`

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Found]:
        return map(Found, self.names, *self.stamps.T.tolist())

    def take(self, rows: np.ndarray) -> "FoundFiles":
        """The files of these rows."""
        return FoundFiles([self.names[row] for row in rows.tolist()], self.stamps[rows])


def found_files(files: Iterable[Found]) -> FoundFiles:
    """The columns of some files, in their order."""
    names, sizes, times = [], [], []
    for name, size, changed in files:
        names.append(name)
        sizes.append(size)
        times.append(min(changed, _LATEST))
    return FoundFiles(names, np.array([sizes, times], np.int64).T)


@dataclass(frozen=True)
class Scan:
    """The readable images of a folder, sorted by name, and the files that were left out."""

    files: FoundFiles
    facts: FactsTable  # of `files`
    skipped: list[Skipped]
    ignored: Counter[str]  # ending → files that are no images; hidden files are not counted


class Listing(NamedTuple):
    """The files of a folder that may be images, sorted by name; none of them is decoded."""

    files: FoundFiles
    skipped: list[Skipped]  # files that were left out
    ignored: Counter[str]  # ending → files that are no images; hidden files are not counted


def listing(root: Path, follow_links: bool) -> Listing:
    """List every file under `root` that may be an image; no file is decoded."""
    skipped: list[Skipped] = []
    ignored: Counter[str] = Counter()

    def found() -> Iterator[Found]:
        for item in _walk(root, follow_links):
            if isinstance(item, Found):
                yield item
            elif isinstance(item, Skipped):
                skipped.append(item)
            else:
                ignored[item] += 1

    files = found_files(found())
    in_order_of_names = sorted(range(len(files)), key=files.names.__getitem__)
    return Listing(files.take(np.array(in_order_of_names, np.int64)), skipped, ignored)


def scan(root: Path, follow_links: bool, track: Track) -> Scan:
    """Find and inspect every image under `root`; images that cannot be read are in `skipped`."""
    return scan_listed(Folder(root), listing(root, follow_links), track)


def scan_listed(
    files: Files,
    listed: Listing,
    track: Track,
    chosen: set[str] | None = None,
    part: str = "",
) -> Scan:
    """Inspect the listed files, or only those with the names `chosen`.

    Args:
        part: which part of the source is listed, such as "3/64"; "" if all of it is.
    """
    found, wanted = listed.files, np.ones(len(listed.files), bool)
    if chosen is not None:
        wanted[:] = [name in chosen for name in found.names]
    known, broken = _inspected(files, found, wanted, track, part)
    readable = wanted & (known.row >= 0)
    skipped = [Skipped(found.names[at], reason) for at, reason in broken.items()]
    return Scan(
        found if readable.all() else found.take(np.flatnonzero(readable)),
        known.facts.take(known.row[readable]),
        sorted([*listed.skipped, *skipped]),
        listed.ignored,
    )


def scan_file(path: Path) -> Scan:
    """Inspect one file, as `scan` does a folder that holds only this file."""
    status = path.stat()
    file = found_files([Found(path.name, status.st_size, status.st_mtime_ns)])
    with decode.guarded():
        result = _inspect(Folder(path.parent).opened(path.name))
    if isinstance(result, Facts):
        return Scan(file, facts_table([result]), [], Counter())
    return Scan(found_files([]), facts_table([]), [Skipped(path.name, result)], Counter())


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
            own_name = entry.name
            name = inside + own_name
            if own_name.startswith(".") or own_name.lower() in SYSTEM:
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
    _, dot, ending = entry.name.rpartition(".")  # os.path.splitext would take longer than the rest
    if f"{dot}{ending.lower()}" not in ENDINGS and not _looks_like_an_image(entry.path):
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


class _Known(NamedTuple):
    """What is known of N files."""

    facts: FactsTable
    row: np.ndarray  # (N,) the row of each file in `facts`, -1 where it is not known


def _inspected(
    files: Files, found: FoundFiles, wanted: np.ndarray, track: Track, part: str
) -> tuple[_Known, dict[int, str]]:
    """What is known of each file, from the manifest where possible, and why others cannot be read.

    Args:
        found: all files of the source, or of this part; what the manifest knows of them stays.
        wanted: (N,) bool, the files of which all must be known, or broken.
    """
    path = _manifest(files, part)
    known, broken = _load(path, found), dict[int, str]()
    if (known.row[wanted] < 0).any():
        with locked(path):
            known = _load(path, found)  # another process may have written it meanwhile
            unknown = np.flatnonzero(wanted & (known.row < 0))
            if len(unknown):
                new = found.take(unknown)
                threads = 1 if files.are_tiny(new.stamps[:, 0]) else 0
                looked = _look(files, new.names, track, threads)
                broken = {int(unknown[at]): reason for at, reason in looked.broken.items()}
                known = _Known(joined([known.facts, looked.facts]), known.row)
                read = np.delete(unknown, list(looked.broken))
                known.row[read] = len(known.facts) - len(read) + np.arange(len(read))
                _save(path, found, known)
                about(path, source=files.identity)
    if path.exists():
        used(path)
    return known, broken


def remembered_facts(root: Path, found: FoundFiles) -> dict[str, Facts | str]:
    """The facts of unchanged files that an earlier scan of the folder found, by name."""
    known = _load(_manifest(Folder(root)), found)
    rows = zip(found.names, known.row.tolist(), strict=True)
    return {name: known.facts.row(row) for name, row in rows if row >= 0}


def remember_facts(root: Path, found: FoundFiles, known: dict[str, Facts | str]) -> None:
    """Keep the facts of all files of a folder, so that the next scan need not decode them.

    Args:
        known: facts, or why a file cannot be read, by name.
    """
    facts = [one for name in found.names if isinstance(one := known.get(name), Facts)]
    row = np.full(len(found), -1)
    row[[isinstance(known.get(name), Facts) for name in found.names]] = np.arange(len(facts))
    path = _manifest(Folder(root))
    with locked(path):
        _save(path, found, _Known(facts_table(facts), row))
        about(path, source=os.path.realpath(root))


def inspect_files(root: Path, names: list[str]) -> dict[str, Facts | str]:
    """The facts of each file, or why it cannot be read, by name; files are decoded in parallel."""
    looked = _look(Folder(root), names, quiet)
    facts = iter(looked.facts)
    return {
        name: looked.broken[at] if at in looked.broken else next(facts)
        for at, name in enumerate(names)
    }


class _Looked(NamedTuple):
    """What was found in files."""

    facts: FactsTable  # of the readable ones, in their order
    broken: dict[int, str]  # position → why it cannot be read


def _look(files: Files, names: Sequence[str], track: Track, threads: int = 0) -> _Looked:
    def look(start: int) -> _Looked:
        results = [_inspect(file) for file in files.each(names[start : start + BATCH])]
        broken = {start + at: one for at, one in enumerate(results) if isinstance(one, str)}
        return _Looked(facts_table([one for one in results if isinstance(one, Facts)]), broken)

    starts = range(0, len(names), BATCH)
    with decode.guarded():
        parts = list(track(in_order(look, starts, threads), len(starts), "looking at files"))
    broken = {at: reason for part in parts for at, reason in part.broken.items()}
    return _Looked(joined([part.facts for part in parts]), broken)


def _inspect(file: AbstractContextManager[Path]) -> Facts | str:
    try:
        with file as path:
            return decode.inspect(path)
    except Unreadable as error:
        return str(error)


def _manifest(files: Files, part: str = "") -> Path:
    return cache_folder() / "manifests" / f"{files.manifest(part)}.npz"


def _save(path: Path, found: FoundFiles, known: _Known) -> None:
    """Write the manifest of the readable files; the others are inspected again next time."""
    readable = np.flatnonzero(known.row >= 0)
    facts = known.facts.take(known.row[readable])
    files = found.take(readable)
    about_all = {"version": _version(), "treatments": facts.treatments}
    with explained(path), beside(path) as temporary, open(temporary, "wb") as file:
        np.savez(
            file,
            about=_bytes(json.dumps(about_all)),
            # Any text can be a name: of lone surrogates, too.
            names=_bytes("".join(files.names)),
            ends=np.cumsum([*map(len, files.names)], dtype=np.int64),
            stamps=files.stamps,
            **{name: getattr(facts, name) for name in ARRAYS},
        )


def _load(path: Path, found: FoundFiles) -> _Known:
    """What the manifest knows of unchanged files; nothing if it is missing or damaged."""
    try:
        names, before, facts = _read(path)
    except (
        OSError, ValueError, KeyError, TypeError, EOFError, NotImplementedError, zipfile.BadZipFile,
    ):  # fmt: skip
        return _Known(facts_table([]), np.full(len(found), -1))
    row = np.arange(len(found))
    if found.names != names:
        at = dict(zip(names, range(len(names)), strict=True))
        row[:] = [at.get(name, -1) for name in found.names]
    if len(names):
        row[(before[row] != found.stamps).any(1)] = -1  # -1 is the last row here, and stays -1
    row[found.stamps[:, 1] == UNKNOWN] = -1
    return _Known(facts, row)


def _read(path: Path) -> tuple[list[str], np.ndarray, FactsTable]:
    """Names (M,), stamps (M, 2) and facts of a manifest; ValueError and others if damaged."""
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as manifest:
        arrays = dict(manifest)
    told = json.loads(_text(arrays.pop("about")))
    if told["version"] != _version():
        raise ValueError("of another version")
    text, ends, stamps = _text(arrays.pop("names")), arrays.pop("ends"), arrays.pop("stamps")
    ends = [0, *ends.tolist()]
    names = [text[start:end] for start, end in zip(ends, ends[1:], strict=False)]
    empty = facts_table([])
    facts = FactsTable(**arrays, treatments=tuple(map(tuple, told["treatments"])))
    for name in ARRAYS:
        given, right = getattr(facts, name), getattr(empty, name)
        if given.dtype != right.dtype or given.shape != (len(names), *right.shape[1:]):
            raise ValueError("of another shape")
    if stamps.shape != (len(names), 2) or (facts.notes >= len(facts.treatments)).any():
        raise ValueError("of another shape")
    return names, stamps, facts


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)


def _text(content: np.ndarray) -> str:
    return content.tobytes().decode("utf-8", "surrogatepass")


def _version() -> list[int | str]:
    return [VERSION, PIL.__version__]
