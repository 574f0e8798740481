"""List the entries of the cache, remove them, and keep their size within a limit.

Only files that are named like cache entries are touched. If HANDFUL_CACHE is set to a folder with
other files, such as photographs, those stay.
"""

import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from handful.data.cache import bytes_in, cache_folder, in_use, read_about

LIMIT = 20e9  # bytes: the default limit is this or SHARE of the disk, whichever is less
SHARE = 0.2
LAST = "pretrained"  # the kind that is removed last: its entries took long to make
KINDS = {
    "manifests": re.compile(r"[0-9a-f]{32}\.(npz|json)"),
    "pixels": re.compile(r"([0-9a-f]{12}-)?[0-9a-f]{32}\.npy"),
    "features": re.compile(r"[0-9a-f]{32}"),
    LAST: re.compile(r"[0-9a-f]{32}"),
}
SHARD = re.compile(r"\.?[0-9a-f]{32}\.safetensors(\.[0-9a-f]{8}\.part)?")
LEFT = re.compile(r"\.?[0-9a-f-]{32,45}(\.np[yz]|\.json)?(\.about|\.lock)?(\.[0-9a-f]{8}\.part)?")

said = logging.getLogger("handful.cache")


class Entry(NamedTuple):
    """One entry of the cache."""

    kind: str  # name of its folder
    path: Path
    bytes: int
    used: float  # seconds since 1970
    source: str  # the folder or data set that it was made from; empty if unknown
    in_use: bool  # by a running process


def entries(cache: Path | None = None) -> list[Entry]:
    """All entries, the least recently used first; those of the kind LAST come at the end."""
    cache = cache or cache_folder()
    busy = in_use(cache)
    found = []
    for kind, named in KINDS.items():
        for path in _inside(cache / kind):
            if not named.fullmatch(path.name) or path.is_symlink():
                continue
            with suppress(OSError):  # another process has removed it
                source = str(read_about(path).get("source", ""))
                here = path.relative_to(cache).as_posix() in busy
                found.append(Entry(kind, path, _bytes(path), _used(path), source, here))
    return sorted(found, key=lambda entry: (entry.kind == LAST, entry.used))


def limit(cache: Path | None = None) -> float:
    """The cache's limit in bytes: HANDFUL_CACHE_LIMIT, else 20 GB or a fifth of the disk."""
    if chosen := os.environ.get("HANDFUL_CACHE_LIMIT"):
        return bytes_in(chosen)
    cache = cache or cache_folder()
    existing = next(place for place in (cache, *cache.absolute().parents) if place.exists())
    return min(LIMIT, SHARE * shutil.disk_usage(existing).total)


def keep_within_limit() -> None:
    """Remove the least recently used entries until the cache is within its limit; log a warning.

    Entries in use by a running process stay. Downloaded data sets do not count.
    """
    allowed = limit()
    found = entries()
    total = sum(entry.bytes for entry in found)
    gone = []
    for entry in found:
        if total <= allowed:
            break
        if not entry.in_use and remove(entry.path):
            total -= entry.bytes
            gone.append(entry)
    if gone:
        stages = sum(entry.kind == LAST for entry in gone)
        among = f", of which {stages} self-supervised" if stages else ""
        said.warning(
            "the cache was larger than its limit of %s: removed what was used longest ago "
            "(entries: %d%s; %s); HANDFUL_CACHE_LIMIT sets another limit",
            amount(allowed),
            len(gone),
            among,
            amount(sum(entry.bytes for entry in gone)),
        )


def remove(path: Path) -> bool:
    """Remove an entry, its note and its lock; False if a process holds the lock or the file."""
    lock = Path(f"{path}.lock")
    try:
        with FileLock(lock, timeout=0):
            _remove(path)
            Path(f"{path}.about").unlink(missing_ok=True)
        lock.unlink(missing_ok=True)
    except (OSError, Timeout):  # such as a file that is open, on Windows
        return False
    return not path.exists()


def clear(kinds: set[str], older_than: float = 0.0) -> tuple[list[Entry], list[Entry]]:
    """Remove entries of these kinds; return those removed and those kept because they are in use.

    Args:
        kinds: keys of KINDS.
        older_than: seconds; only entries unused for longer are removed. 0 removes all.
    """
    before = time.time() - older_than
    chosen = [e for e in entries() if e.kind in kinds and (not older_than or e.used < before)]
    gone = [entry for entry in chosen if not entry.in_use and remove(entry.path)]
    for kind in kinds & KINDS.keys():
        _remove_orphans(cache_folder() / kind)
    return gone, [entry for entry in chosen if entry not in gone]


def amount(count: float) -> str:
    """A number of bytes in words, such as "12.3 GB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return (
                f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
            )
        count /= 1000
    return f"{count:.1f} TB"


def _inside(folder: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from sorted(folder.iterdir())


def size(folder: Path) -> int:
    """Bytes of all files in a folder, 0 where there is none."""
    with suppress(OSError):
        return _bytes(folder) if folder.is_dir() else 0
    return 0


def _bytes(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size
    return sum(file.lstat().st_size for file in path.rglob("*"))


def _used(path: Path) -> float:
    note = Path(f"{path}.about")
    return (note if note.exists() else path).stat().st_mtime


def _remove(path: Path) -> None:
    if not path.is_dir():
        path.unlink(missing_ok=True)
    elif path.parent.name == LAST:
        shutil.rmtree(path)
    else:
        for file in _inside(path):
            if SHARD.fullmatch(file.name):
                file.unlink(missing_ok=True)
        with suppress(OSError):  # the folder holds other files
            path.rmdir()


def _remove_orphans(folder: Path) -> None:
    """Remove locks, notes and partial files whose entry does not exist."""
    for file in _inside(folder):
        if not file.is_file() or not LEFT.fullmatch(file.name):
            continue
        entry = re.sub(r"(\.about|\.lock)?(\.[0-9a-f]{8}\.part)?$", "", file.name.lstrip("."))
        if entry == file.name or (folder / entry).exists():
            continue
        with suppress(OSError, Timeout), FileLock(folder / f"{entry}.lock", timeout=0):
            file.unlink(missing_ok=True)
        with suppress(OSError):
            (folder / f"{entry}.lock").unlink(missing_ok=True)
