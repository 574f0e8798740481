"""Read the bytes of one image: an object, a member of an archive, a row of a table.

A reader is made of addresses alone and opens what it needs at the first read, so it can be sent to
another process. Names in archives are names only: nothing is unpacked to a path.
"""

import bz2
import gzip
import lzma
import struct
import tempfile
import threading
import weakref
import zipfile
import zlib
from abc import ABC, abstractmethod
from typing import IO, Any

from handful.data.cache import cache_folder, explained
from handful.data.decode import Unreadable
from handful.data.objects.address import (
    INSTALL,
    LARGEST,
    Place,
    check_size,
    content,
    place_of,
    reason,
    scheme_of,
)
from handful.data.source_names import redacted
from handful.errors import HandfulError

MOST_GROUP = 2**30  # bytes of the pictures in one row group of a Parquet file
GROUPS = 2  # row groups that are kept in memory
UNPACKED = 20  # a compressed tar file holds at most so many times its size
PACKED = {
    ".tar.gz": gzip.open, ".tgz": gzip.open, ".tar.bz2": bz2.open, ".tbz2": bz2.open,
    ".tar.xz": lzma.open, ".txz": lzma.open,
}  # fmt: skip
DAMAGED = (
    zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, struct.error, EOFError,
    NotImplementedError, OverflowError, ValueError,
)  # fmt: skip


def is_damage(error: Exception) -> bool:
    """Whether what unpacks a file says that its bytes are wrong; reading again does not help."""
    named = type(error).__name__ == "ZstdError" or str(error) == "Invalid data stream"  # bz2
    return named or isinstance(error, DAMAGED)


class Reader(ABC):
    """Reads the images of one place."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._lock = threading.RLock()
        self._made: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_made")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock, self._made = threading.RLock(), None

    @abstractmethod
    def read(self, key: Any, size: int) -> bytes:
        """The bytes of an image. `key` says where it is, and size is -1 where it is not known."""

    def opened(self) -> Any:
        """What `_open` returns, made once."""
        with self._lock:
            if self._made is None:
                self._made = self._open()
            return self._made

    def _open(self) -> Any:
        return place_of(self.address)


class ObjectReader(Reader):
    """Objects below one address; a key is the path in its file system."""

    def read(self, key: str, size: int) -> bytes:
        return content(Place(self.opened().system, key), size)


class AddressReader(Reader):
    """Objects anywhere; a key is an address, or a path on this machine."""

    def read(self, key: str, size: int) -> bytes:
        return content(place_of(key), size)


class TarReader(Reader):
    """Members of a tar file; a key is the offset of the member's bytes.

    A compressed tar file cannot be read from the middle: it is unpacked as a whole into a temporary
    file without a name, which ends with the process.
    """

    def read(self, key: int, size: int) -> bytes:
        check_size(size)
        opened = self.opened()
        if isinstance(opened, Place):
            found: bytes = opened.system.cat_file(opened.path, start=key, end=key + size)
        else:
            with self._lock:
                opened.seek(key)
                found = opened.read(size)
        if len(found) < size:
            raise Unreadable("damaged: the archive ends before it")
        return found

    def file(self) -> IO[bytes]:
        """The tar file, unpacked."""
        opened = self.opened()
        if isinstance(opened, Place):
            return opened.system.open(opened.path, "rb", block_size=2**20)
        opened.seek(0)
        return opened

    def _open(self) -> Any:
        place = place_of(self.address)
        packed = packing(place.path)
        if packed is None:
            return place
        whole = _unpacked(place, packed, self.address)
        weakref.finalize(self, whole.close)
        return whole


def packing(path: str) -> Any:
    """What opens a compressed tar file of this name; None for other names."""
    return next((way for end, way in PACKED.items() if path.lower().endswith(end)), None)


class _Counted:
    """A file to read, and how many bytes were read; a web server need not tell its size."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.bytes = file, 0

    def read(self, size: int = -1) -> bytes:
        part = self.file.read(size)
        self.bytes += len(part)
        return part

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def _unpacked(place: Place, packed: Any, address: str) -> IO[bytes]:
    known = place.system.size(place.path)
    folder = cache_folder()
    with explained(folder / "unpacked"):
        folder.mkdir(parents=True, exist_ok=True)
        whole = tempfile.TemporaryFile(dir=folder)
    try:
        with place.system.open(place.path, "rb") as file, packed(read := _Counted(file)) as source:
            while part := source.read(2**20):
                whole.write(part)
                if whole.tell() > UNPACKED * int(known or read.bytes) + 2**20:
                    raise HandfulError(
                        f"{redacted(address)} unpacks to more than {UNPACKED} times its "
                        f"size; unpack it "
                        f"yourself if you trust it, and give the folder"
                    )
    except Exception as error:
        whole.close()
        if is_damage(error) and not isinstance(error, HandfulError):
            raise HandfulError(f"{redacted(address)} is damaged ({error}); get it anew") from error
        raise
    return whole


class ZipReader(Reader):
    """Members of a zip file; a key is the position in its directory."""

    def read(self, key: int, size: int) -> bytes:
        check_size(size)
        archive: zipfile.ZipFile = self.opened()
        member = archive.infolist()[key]
        try:
            with archive.open(member) as file:  # reads at most what the directory announces
                return file.read(LARGEST + 1)
        except Exception as error:
            if is_damage(error):
                raise Unreadable(f"damaged: {error}") from error
            if isinstance(error, RuntimeError):
                raise Unreadable("encrypted") from error
            raise

    def _open(self) -> zipfile.ZipFile:
        place = place_of(self.address)
        try:
            return zipfile.ZipFile(place.system.open(place.path, "rb"))
        except DAMAGED as error:
            if isinstance(error, HandfulError):
                raise
            raise HandfulError(
                f"{redacted(self.address)} is no zip file ({error}); get it anew"
            ) from error


class RowReader(Reader):
    """Pictures in a column of a Parquet file; a key is (row group, row in it).

    Images are read in their order, so a row group is read about once.
    """

    def __init__(self, address: str, column: str) -> None:
        super().__init__(address)
        self.column = column  # "image.bytes" is a part of a struct
        self._kept: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_kept": {}}

    def read(self, key: tuple[int, int], size: int) -> bytes:
        group, row = key
        with self._lock:
            if group not in self._kept:
                while len(self._kept) >= GROUPS:
                    self._kept.pop(next(iter(self._kept)))
                try:
                    self._kept[group] = self._group(group)
                except Unreadable as error:  # each of its rows would be read to fail again
                    self._kept[group] = error
            rows = self._kept[group]
        if isinstance(rows, Unreadable):
            raise Unreadable(str(rows))
        found = rows[row] if row < len(rows) else None
        if not isinstance(found, bytes):
            raise Unreadable("the row holds no bytes of an image")
        check_size(len(found))
        return found

    def _group(self, group: int) -> list[Any]:
        """The pictures of a row group, read one by one: what is written once may be in each row."""
        file = self.opened()
        about = file.metadata.row_group(group)
        held = 0
        bytes_ = sum(
            about.column(at).total_uncompressed_size
            for at in range(about.num_columns)
            if about.column(at).path_in_schema == self.column
        )
        rows: list[Any] = []
        batches = file.iter_batches(batch_size=1, row_groups=[group], columns=[self.column])
        try:
            while bytes_ <= MOST_GROUP and (batch := next(batches, None)) is not None:
                column = batch.column(0)
                rows += (column.field(0) if hasattr(column, "field") else column).to_pylist()
                held += len(rows[-1] or b"")
                bytes_ = max(bytes_, held)
        except (OSError, ValueError) as error:  # Arrow says OSError for wrong bytes, too
            if isinstance(error, ValueError) or not scheme_of(self.address):
                raise Unreadable(f"damaged: {reason(error)}") from error
            raise
        if bytes_ > MOST_GROUP:
            raise Unreadable(
                f"in a row group of more than {MOST_GROUP >> 20:,} MB; write the table with "
                f"smaller row groups"
            )
        return rows

    def _open(self) -> Any:
        return parquet_file(self.address)


def parquet_file(address: str) -> Any:
    """An opened `pyarrow.parquet.ParquetFile`; HandfulError without pyarrow or for other files."""
    try:
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise HandfulError(
            f"{redacted(address)} is Parquet, which needs pyarrow; {INSTALL}"
        ) from None
    place = place_of(address)
    try:
        return ParquetFile(place.system.open(place.path, "rb"))
    except ArrowInvalid as error:
        said = " ".join(str(error).split())
        raise HandfulError(
            f"{redacted(address)} is no Parquet file ({said[:120]}); get it anew"
        ) from error
