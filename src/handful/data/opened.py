"""Where the files of a source are, and how to have one of them at hand as a path.

`Folder` is a folder on this machine. `handful.data.objects` has the others: buckets, archives,
lists. What decodes an image takes a path in each case, so all have the same guards.
"""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TINY = 2**13  # bytes; see `Files.are_tiny`


class Files(ABC):
    """The image files of a source, by name."""

    @property
    @abstractmethod
    def source(self) -> str:
        """The folder or the address, as it may be shown: without credentials."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """Text that is equal for equal places, however they were typed."""

    @abstractmethod
    def opened(self, name: str) -> AbstractContextManager[Path]:
        """A path of the file, within the block. The block raises `decode.Unreadable`."""

    def each(self, names: Iterable[str]) -> Iterator[AbstractContextManager[Path]]:
        """`opened` of each name, in order; those that are far away are fetched ahead."""
        return map(self.opened, names)

    def are_tiny(self, sizes: np.ndarray) -> bool:
        """Whether one thread decodes files of these sizes (N,), in bytes, sooner than several.

        Several wait for the interpreter's lock longer than tiny images take. It is False where
        threads wait for bytes from far away.
        """
        return False

    @abstractmethod
    def change(self, name: str, stamp: tuple[int, int]) -> str:
        """How a file has changed since it had this size and time, or "", as far as that is free."""

    @abstractmethod
    def shown(self, name: str) -> str:
        """The path or address of a file, for messages."""

    def manifest(self, part: str = "") -> str:
        """The name of the manifest in the cache. A part of the files has a manifest of its own."""
        text = self.identity + (f"\0{part}" if part else "")
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]


@dataclass(frozen=True)
class Folder(Files):
    """The files under a folder; names are paths relative to it."""

    root: Path

    @property
    def source(self) -> str:
        return os.path.abspath(self.root)

    @property
    def identity(self) -> str:
        return os.path.realpath(self.root)

    def opened(self, name: str) -> AbstractContextManager[Path]:
        return nullcontext(self.root / name)

    def are_tiny(self, sizes: np.ndarray) -> bool:
        return len(sizes) > 0 and bool(sizes.mean() < TINY)

    def change(self, name: str, stamp: tuple[int, int]) -> str:
        try:
            now = os.stat(self.root / name)
        except FileNotFoundError:
            return "vanished"
        except OSError as error:
            return f"cannot be read any more: {error.strerror or error}"
        same = (now.st_size, now.st_mtime_ns) == stamp
        return "" if same else "changed while it was read"

    def shown(self, name: str) -> str:
        return str(Path(self.source) / name)
