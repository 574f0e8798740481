"""The cache folder: where it is, and whose turn it is to write there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from handful.errors import HandfulError
from handful.files import tidy

VERSION = 2  # raise when the meaning of a cached file changes: older ones are then rebuilt


def cache_folder() -> Path:
    """Where decoded pixels and manifests are kept: HANDFUL_CACHE, else ~/.cache/handful."""
    return Path(os.environ.get("HANDFUL_CACHE") or Path.home() / ".cache" / "handful").expanduser()


def data_folder() -> Path:
    """Where the public data sets are looked for and downloaded: HANDFUL_DATA, else in the cache."""
    chosen = os.environ.get("HANDFUL_DATA")
    return Path(chosen).expanduser() if chosen else cache_folder() / "data"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the right to build `path`; another process that wants it waits, then finds it made.

    The lock is the operating system's, so a killed process leaves none behind.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{path}.lock")
        lock.acquire()
    try:
        tidy(path.parent, path.name)
        yield
    finally:
        lock.release()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk into a message that says what to do about it."""
    try:
        yield
    except OSError as error:
        raise HandfulError(
            f"cannot write to the cache folder {path.parent}: {error.strerror or error}; "
            f"free some space or set HANDFUL_CACHE to another folder"
        ) from error
