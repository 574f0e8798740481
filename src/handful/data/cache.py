"""Locate the cache folder, lock its entries and record which of them are in use.

    manifests/   facts about the files of each folder of images
    pixels/      decoded images
    features/    features of images from a frozen network
    pretrained/  networks from self-supervised pre-training
    precisions/  the number format that was faster for a kind of training on this machine
    in-use/      one file for each running process: the entries it has used
    data/        downloaded public data sets

Beside an entry there may be NAME.about and NAME.lock. NAME.about says what the entry was made from;
its modification time is the time when the entry was last used.
"""

import atexit
import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout

from handful.data.source_names import redacted
from handful.errors import HandfulError
from handful.files import tidy, write_text

VERSION = 2  # raise it when the format of a cached file changes: older files are then rebuilt
OURS = {
    "manifests",
    "pixels",
    "features",
    "pretrained",
    "precisions",
    "in-use",
    "data",
    "matplotlib",
    "CACHEDIR.TAG",
}
TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This folder is a cache of handful: backups may leave it out. See https://bford.info/cachedir/\n"
)
SYSTEM_SAID = "set HANDFUL_CACHE to a folder for decoded images and features"


def cache_folder() -> Path:
    """The cache folder: HANDFUL_CACHE, else XDG_CACHE_HOME/handful, ~/.cache/handful or the like.

    HandfulError where the user has no home folder.
    """
    try:
        if chosen := os.environ.get("HANDFUL_CACHE"):
            return Path(chosen).expanduser()
        found = platformdirs.user_cache_path("handful", appauthor=False)
    except RuntimeError as error:  # there is no home folder
        raise HandfulError(f"no place for a cache ({error}); {SYSTEM_SAID}") from error
    if not found.is_absolute():
        raise HandfulError(f"no place for a cache (no home folder: {found}); {SYSTEM_SAID}")
    return found


def data_folder() -> Path:
    """The folder of public data sets: HANDFUL_DATA, else data/ in the cache."""
    chosen = os.environ.get("HANDFUL_DATA")
    return Path(chosen).expanduser() if chosen else cache_folder() / "data"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock for building the cache entry `path`; other processes wait for it.

    The operating system holds the lock, so it ends with a killed process. HandfulError if the cache
    cannot be written.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _tag()
        lock = FileLock(f"{path}.lock")
        lock.acquire()
    try:
        tidy(path.parent, path.name)
        yield
    finally:
        lock.release()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn OSErrors, such as a full or read-only disk, into a HandfulError that says what to do."""
    try:
        yield
    except OSError as error:
        raise HandfulError(
            f"cannot write to the cache folder {path.parent}: {error.strerror or error}; "
            f"free some space or set HANDFUL_CACHE to another folder"
        ) from error


def about(path: Path, **what: Any) -> None:
    """Record what a cache entry was made from, and that this process uses it."""
    with suppress(OSError):  # the note is optional: `handful cache` and shared image sets read it
        told = {k: redacted(v) if isinstance(v, str) else v for k, v in what.items()}
        write_text(Path(f"{path}.about"), json.dumps(told))
    used(path)


def read_about(path: Path) -> dict[str, Any]:
    """The record that `about` wrote; empty if it is missing or damaged."""
    try:
        found = json.loads(Path(f"{path}.about").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def used(path: Path) -> None:
    """Mark an entry as used now, and as in use while this process runs."""
    with suppress(OSError):  # a read-only cache needs no mark
        note = Path(f"{path}.about")
        os.utime(note if note.exists() else path)
        _session(cache_folder()).add(path)


def in_use(cache: Path) -> set[str]:
    """Entries, such as "pixels/ab….npy", that running processes have used."""
    found: set[str] = set()
    for lock in (cache / "in-use").glob("*.lock"):
        listed = lock.with_suffix(".txt")
        mine = _sessions.get((cache, os.getpid()))
        with suppress(OSError):
            if mine is None or mine.listed != listed:
                try:
                    with FileLock(lock, timeout=0):  # the process that held it has ended
                        listed.unlink(missing_ok=True)
                    lock.unlink(missing_ok=True)
                    continue
                except Timeout:
                    pass
            found.update(listed.read_text(encoding="utf-8").split())
    return found


class _Session:
    """The entries that this process has used, in a file that counts while its lock is held."""

    def __init__(self, cache: Path) -> None:
        folder = cache / "in-use"
        folder.mkdir(parents=True, exist_ok=True)
        self.cache = cache
        self.listed = folder / f"{uuid.uuid4().hex}.txt"
        self.lock = FileLock(self.listed.with_suffix(".lock"))
        self.lock.acquire()
        self.entries: set[str] = set()
        atexit.register(self.end, os.getpid())

    def add(self, path: Path) -> None:
        entry = path.relative_to(self.cache).as_posix()
        if entry not in self.entries:
            with open(self.listed, "a", encoding="utf-8") as file:
                file.write(f"{entry}\n")
            self.entries.add(entry)

    def end(self, process: int) -> None:
        if os.getpid() == process:
            with suppress(OSError):
                self.listed.unlink(missing_ok=True)
                self.lock.release()
                self.listed.with_suffix(".lock").unlink(missing_ok=True)


_sessions: dict[tuple[Path, int], _Session] = {}


def _session(cache: Path) -> _Session:
    key = cache, os.getpid()  # a forked process needs its own session
    if key not in _sessions:
        _sessions[key] = _Session(cache)
    return _sessions[key]


def _tag() -> None:
    """Write CACHEDIR.TAG, so that backups skip the cache; not beside files that are not ours."""
    cache = cache_folder()
    if not (cache / "CACHEDIR.TAG").exists() and set(os.listdir(cache)) <= OURS:
        write_text(cache / "CACHEDIR.TAG", TAG)


def bytes_in(text: str) -> float:
    """The number of bytes in "10GB", "500 MB", "2.5T" or "1000"; infinite for "none".

    HandfulError for other text.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)I?B?", text.strip().upper())
    if found is None and text.strip().lower() not in ("none", "unlimited"):
        raise HandfulError(f"{text!r} is no amount of storage; write it as 10GB or 500MB, or none")
    if found is None:
        return float("inf")
    return float(found[1]) * 1000 ** " KMGT".index(found[2] or " ")
