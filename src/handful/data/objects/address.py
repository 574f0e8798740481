"""Addresses that fsspec understands: open them, read them again when that fails, explain errors.

Credentials are read by fsspec and the package for a protocol, from where each of them reads them.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from handful.data.decode import Unreadable
from handful.data.scan import UNKNOWN
from handful.data.source_names import ADDRESS, redacted, redacted_within
from handful.errors import HandfulError

TRIES = 6
FIRST_WAIT = 0.25  # seconds; each further wait is twice as long: eight seconds in all
LARGEST = 2**29  # bytes of one image that are read from elsewhere
INSTALL = "pip install 'handful[remote]' has what s3://, https:// and Parquet need"
# Schemes that a list may name: what fetches a file, and nothing that runs or nests other readers.
LISTABLE = {
    "http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hf", "oss", "ftp",
    "sftp", "hdfs", "webhdfs", "memory",
}  # fmt: skip
# What file systems call the version of an object, the most telling first.
_VERSIONS = (
    "ETag", "etag", "md5Hash", "blob_id", "generation", "content_hash", "checksum",
    "LastModified", "Last-Modified", "last_modified", "mtime", "updated", "modified", "created",
)  # fmt: skip

Result = TypeVar("Result")


class Place(NamedTuple):
    """A file system of fsspec and a path in it."""

    system: Any
    path: str


class Stamp(NamedTuple):
    """Size in bytes (-1 if not told), and what tells versions apart (`UNKNOWN` if nothing)."""

    bytes: int
    version: int


def scheme_of(text: str) -> str:
    """The scheme of an address, such as "s3"; "" for what is no address."""
    found = ADDRESS.fullmatch(text)
    return found[1].lower() if found else ""


def place_of(address: str) -> Place:
    """The file system and the path of an address, or of a path on this machine."""
    from fsspec.core import url_to_fs

    if "::" in address:
        raise HandfulError(f"{redacted(address)} chains addresses; give the address of one place")
    if not scheme_of(address):
        from fsspec.implementations.local import LocalFileSystem

        return Place(LocalFileSystem(), os.path.abspath(Path(address).expanduser()))
    with explained(address):
        return Place(*url_to_fs(address))


def place_now(address: str) -> Place:
    """As `place_of`, of whose listing nothing is remembered from earlier in this process."""
    place = place_of(address)
    place.system.invalidate_cache()
    return place


@contextmanager
def explained(address: str) -> Iterator[None]:
    """Turn what a file system raises within the block into a HandfulError that says what to do."""
    shown = redacted(address)
    try:
        yield
    except HandfulError:
        raise
    except ImportError as error:
        raise HandfulError(f"{shown} needs a package: {reason(error)}; {INSTALL}") from error
    except FileNotFoundError as error:
        raise HandfulError(f"there is nothing at {shown}; check the address") from error
    except PermissionError as error:
        raise HandfulError(
            f"{shown} may not be read ({reason(error)}); credentials are those that fsspec finds "
            f"for {scheme_of(address)}://"
        ) from error
    except Exception as error:  # each file system has errors of its own
        raise HandfulError(f"cannot read {shown}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """An error in a few words on one line."""
    text = redacted_within(" ".join(str(error).split())) or type(error).__name__
    return text[:200]


def retried(read: Callable[[], Result], wait: Callable[[float], None] | None = None) -> Result:
    """`read()`, called again after a while where it fails and that may pass.

    Raises the error of the last attempt, or at once one that stays, such as a missing file.
    """
    for attempt in range(TRIES - 1):
        try:
            return read()
        except Exception as error:  # each file system has errors of its own
            if not _may_pass(error):
                raise
        (wait or time.sleep)(FIRST_WAIT * 2**attempt)
    return read()


def _may_pass(error: Exception) -> bool:
    stays = (
        FileNotFoundError,
        PermissionError,
        IsADirectoryError,
        NotADirectoryError,
        ImportError,
        MemoryError,
        HandfulError,
        Unreadable,
    )
    if isinstance(error, stays) or "Credentials" in type(error).__name__:
        return False
    status = getattr(error, "status", None)  # of HTTP
    return not (isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429))


def content(place: Place, size: int) -> bytes:
    """The bytes of an object; raises `Unreadable` if there are more than `LARGEST`.

    A web server may send more than it announced, so its answer is read up to a limit.

    Args:
        size: in bytes, -1 if it is not known.
    """
    check_size(size)
    if size > 0 and _is_s3(place):
        # s3fs would ask for the size first: with a request, or in a list of all objects that it
        # goes through for each of them. The byte after the last one shows that an object has grown.
        part: bytes = place.system.cat_file(place.path, start=0, end=size + 1)
        return part
    if not _is_web(place) and size >= 0:
        found: bytes = place.system.cat_file(place.path)
        return found
    with place.system.open(place.path, "rb", **({"size": size} if size >= 0 else {})) as file:
        parts, read = [], 0
        while part := file.read(min(2**20, LARGEST + 1 - read)):
            parts.append(part)
            read += len(part)
            check_size(read)
    return b"".join(parts)


def check_size(size: int) -> None:
    """Raise `Unreadable` for an image of more bytes than are read."""
    if size > LARGEST:
        raise Unreadable(f"larger than {LARGEST >> 20} MB")


def listed(place: Place) -> Iterator[tuple[str, Stamp]]:
    """The path and the stamp of every object below a place, in no order."""
    empty = True
    if _is_s3(place):
        for path, stamp in _listed_by_s3(place):
            empty = False
            yield path, stamp
    if empty:  # of S3: the address may be that of one object
        found: dict[str, Any] = retried(lambda: place.system.find(place.path, detail=True))
        for path, info in found.items():
            yield path, stamp_of(info)


def _listed_by_s3(place: Place) -> Iterator[tuple[str, Stamp]]:
    """`listed`, a page of a thousand after the other.

    `find` of s3fs holds all that S3 tells of all objects at once: 3 KB for each, and the memory
    that was freed stays with the process.
    """
    bucket, key, _ = place.system.split_path(place.path)
    asked = {
        "Bucket": bucket,
        "Prefix": f"{key.rstrip('/')}/" if key else "",
        **place.system.req_kw,
    }
    more: dict[str, str] = {}
    while True:
        page = retried(lambda: place.system.call_s3("list_objects_v2", **asked, **more))  # noqa: B023
        for info in page.get("Contents", ()):
            yield f"{bucket}/{info['Key']}", stamp_of({**info, "size": info["Size"]})
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


def forget_listing(place: Place) -> None:
    """Free the list of objects that s3fs keeps, a KB or two for each; `content` needs none.

    Other file systems may look into theirs before they open an object.
    """
    if _is_s3(place):
        place.system.invalidate_cache()


def _is_web(place: Place) -> bool:
    return "http" in str(place.system.protocol)


def _is_s3(place: Place) -> bool:
    return "s3" in place.system.protocol


def stamp_of(info: dict[str, Any]) -> Stamp:
    """The size and version in what a file system tells of an object."""
    told = next((info[key] for key in _VERSIONS if info.get(key) is not None), None)
    size = info.get("size")
    bytes_ = size if isinstance(size, int) and size >= 0 else -1
    if told is None:
        return Stamp(bytes_, UNKNOWN)
    digest = blake2b(f"{told}".encode(errors="surrogateescape"), digest_size=7).digest()
    return Stamp(bytes_, int.from_bytes(digest, "big"))
