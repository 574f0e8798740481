"""The cache folder, and files that appear in it whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

VERSION = 1  # raise when the meaning of a cached file changes: older ones are then rebuilt


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
        yield
    finally:
        lock.release()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file beside its place and rename it when complete: readers never see half of it.

    To be used while `locked(path)`: what a killed process left unfinished is then overwritten.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(unfinished, "wb") as file:
                yield file
            os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk into a message that says what to do about it."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"cannot write to the cache folder {path.parent}: {error.strerror or error}; "
            f"free some space or set HANDFUL_CACHE to another folder"
        ) from error
