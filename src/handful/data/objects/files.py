"""`Objects`: the images of a source that is no folder; their bytes are fetched when needed.

What is fetched becomes a temporary file for as long as it is decoded. So the decoder, with all its
guards, is the one for files: it maps a file into memory, reads it several times, and gives parts of
it to other libraries.
"""

import os
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

from handful.data.decode import ENDINGS, Unreadable
from handful.data.decoding import memory
from handful.data.objects.address import LARGEST, place_of, reason, retried, scheme_of, stamp_of
from handful.data.objects.readers import AddressReader, ObjectReader, Reader
from handful.data.opened import Files
from handful.data.scan import Found
from handful.data.source_names import redacted

FETCHERS = 16  # threads that wait for bytes
AHEAD = 8  # images fetched ahead by each worker that decodes
MOST_AHEAD = 2**27  # bytes fetched ahead by all workers together
USUAL = 2**24  # bytes that an image is taken to have where that is not known
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
        return redacted(self._source)

    @property
    def identity(self) -> str:
        return self._source

    def opened(self, name: str) -> AbstractContextManager[Path]:
        return _on_disk(name, lambda file: self._save(name, file))

    def _save(self, name: str, file: IO[bytes]) -> None:
        with memory.reserving(memory.budget()) as reserve:
            reserve(self._cost(name))
            file.write(self.fetch(name))

    def _cost(self, name: str) -> int:
        """The bytes of an image, as far as they are known."""
        known = self.entries[name].bytes
        return USUAL if known < 0 else min(known, LARGEST)

    def each(self, names: Iterable[str]) -> Iterator[AbstractContextManager[Path]]:
        waiting: deque[_Fetching] = deque()
        try:
            for name in names:
                waiting.append(_Fetching(self, name, self._cost(name)))
                if len(waiting) > AHEAD:
                    yield _next(waiting)
            while waiting:
                yield _next(waiting)
        finally:
            for fetching in waiting:  # the caller has stopped
                fetching.stop()

    def change(self, name: str, stamp: tuple[int, int]) -> str:
        return ""  # to ask would be a request for each image; `fetch` compares the size

    def shown(self, name: str) -> str:
        entry = self.entries[name]
        reader = self.readers[entry.reader]
        if isinstance(reader, AddressReader):
            return redacted(str(entry.key))
        if isinstance(reader, ObjectReader) and entry.key == reader.opened().path:
            return self.source  # a single object
        return f"{self.source.rstrip('/')}/{name}"

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


class _Ahead:
    """Counts the bytes that are fetched ahead."""

    def __init__(self) -> None:
        self.bytes = 0
        self._lock = threading.Lock()

    def take(self, cost: int) -> bool:
        """Whether so many bytes may be fetched ahead, too; if so they count."""
        with self._lock:
            fits = self.bytes + cost <= MOST_AHEAD
            self.bytes += cost if fits else 0
        return fits

    def give_back(self, cost: int) -> None:
        with self._lock:
            self.bytes -= cost


_ahead = _Ahead()


class _Fetching:
    """An image that is fetched ahead if there is room, else when it is wanted."""

    def __init__(self, objects: Objects, name: str, cost: int) -> None:
        self.objects, self.name, self.cost = objects, name, cost
        self.content: Future[bytes] | None = None

    def start(self) -> bool:
        """Fetch it if there is room; whether it is fetched."""
        if self.content is None and _ahead.take(self.cost):
            self.content = _pool().submit(self.objects.fetch, self.name)
        return self.content is not None

    def stop(self) -> None:
        """Let go of the bytes."""
        content, self.content = self.content, None
        if content is not None:
            content.cancel()
            content.add_done_callback(lambda _: _ahead.give_back(self.cost))

    __del__ = stop  # for a caller that never opens it

    def opened(self) -> AbstractContextManager[Path]:
        if self.content is None:
            return self.objects.opened(self.name)
        return _on_disk(self.name, self._save)

    def _save(self, file: IO[bytes]) -> None:
        assert self.content is not None
        try:
            file.write(self.content.result())
        finally:
            self.stop()


def _next(waiting: deque[_Fetching]) -> AbstractContextManager[Path]:
    """The first image; those behind it are fetched in their order, as far as there is room."""
    for fetching in waiting:
        if not fetching.start():
            break
    return waiting.popleft().opened()


@contextmanager
def _on_disk(name: str, save: Callable[[IO[bytes]], None]) -> Iterator[Path]:
    """A temporary file that `save` writes; of the name only a known ending is taken."""
    path = urlsplit(name).path if scheme_of(name) else name
    ending = os.path.splitext(path)[1].lower()
    handle, temporary = tempfile.mkstemp(ending if ending in ENDINGS else "", "handful-")
    try:
        with os.fdopen(handle, "wb") as file:
            save(file)
        yield Path(temporary)
    finally:
        with suppress(OSError):
            os.unlink(temporary)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(FETCHERS, "handful-fetch")
