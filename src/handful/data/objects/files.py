"""`Objects`: the images of a source that is no folder; their bytes are fetched when needed.

What is fetched becomes a temporary file for as long as it is decoded. So the decoder, with all its
guards, is the one for files: it maps a file into memory, reads it several times, and gives parts of
it to other libraries.
"""

import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from handful.data.decode import ENDINGS, Unreadable
from handful.data.objects.address import place_of, reason, retried, scheme_of, stamp_of
from handful.data.objects.readers import AddressReader, Reader
from handful.data.opened import Files
from handful.data.scan import Found

FETCHERS = 16  # threads that wait for bytes
AHEAD = 8  # images fetched ahead by each worker that decodes
UNFETCHED = "cannot be fetched"  # how the reason begins where an image could not be had


class Entry(NamedTuple):
    """Where an image is: the number of its reader, what that knows it by, and its size or -1."""

    reader: int
    key: Any
    bytes: int


class Objects(Files):
    """Images of a bucket, an archive, a table or a list, by name.

    Args:
        source: the address, whole.
    """

    def __init__(self, source: str, readers: list[Reader], entries: dict[str, Entry]) -> None:
        self._source, self.readers, self.entries = source, readers, entries

    @property
    def source(self) -> str:
        return self._source

    @property
    def identity(self) -> str:
        return self._source

    def opened(self, name: str) -> AbstractContextManager[Path]:
        return _on_disk(name, lambda: self.fetch(name))

    def each(self, names: Iterable[str]) -> Iterator[AbstractContextManager[Path]]:
        waiting: deque[tuple[str, Future[bytes]]] = deque()
        try:
            for name in names:
                waiting.append((name, _pool().submit(self.fetch, name)))
                if len(waiting) > AHEAD:
                    yield _fetched(*waiting.popleft())
            while waiting:
                yield _fetched(*waiting.popleft())
        finally:
            for _, fetching in waiting:  # the caller has stopped
                fetching.cancel()

    def change(self, name: str, stamp: tuple[int, int]) -> str:
        return ""  # to ask would be a request for each image; `fetch` compares the size

    def shown(self, name: str) -> str:
        entry = self.entries[name]
        if isinstance(self.readers[entry.reader], AddressReader):
            return str(entry.key)
        return f"{self._source.rstrip('/')}/{name}"

    def some(self, names: Iterable[str]) -> "Objects":
        """Only the images of these names."""
        return Objects(self._source, self.readers, {name: self.entries[name] for name in names})

    def fetch(self, name: str) -> bytes:
        """The bytes of an image; raises `Unreadable` where they cannot be had."""
        entry = self.entries[name]
        reader = self.readers[entry.reader]
        try:
            content = retried(lambda: reader.read(entry.key, entry.bytes))
        except Unreadable:
            raise
        except FileNotFoundError:
            raise Unreadable("vanished while the source was read") from None
        except Exception as error:  # each file system has errors of its own
            raise Unreadable(f"{UNFETCHED}: {reason(error)}") from error
        if entry.bytes not in (-1, len(content)):
            raise Unreadable("changed while it was read")
        return content

    def is_listed(self, name: str) -> bool:
        """Whether only a list names this image, so that nothing is known of it yet."""
        return isinstance(self.readers[self.entries[name].reader], AddressReader)

    def ask(self, file: Found) -> Found | str:
        """The file with its size and version, or why there is none."""
        entry = self.entries[file.name]
        try:
            place = place_of(entry.key)
            stamp = stamp_of(retried(lambda: place.system.info(place.path)))
        except FileNotFoundError:
            return "there is nothing at this address"
        except Exception as error:  # each file system has errors of its own
            return f"{UNFETCHED}: {reason(error)}"
        self.entries[file.name] = entry._replace(bytes=stamp.bytes)
        return Found(file.name, stamp.bytes, stamp.version)


def at_addresses(names: Iterable[str]) -> Objects:
    """Images at addresses, or paths on this machine; each is its own name."""
    entries = {name: Entry(0, name, -1) for name in names}
    return Objects("", [AddressReader("")], entries)


def _fetched(name: str, content: "Future[bytes]") -> AbstractContextManager[Path]:
    return _on_disk(name, content.result)


@contextmanager
def _on_disk(name: str, content: Any) -> Iterator[Path]:
    """A temporary file with what `content()` returns; of the name only a known ending is taken."""
    path = urlsplit(name).path if scheme_of(name) else name
    ending = os.path.splitext(path)[1].lower()
    found = content()
    handle, temporary = tempfile.mkstemp(ending if ending in ENDINGS else "", "handful-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(found)
        yield Path(temporary)
    finally:
        with suppress(OSError):
            os.unlink(temporary)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(FETCHERS, "handful-fetch")
