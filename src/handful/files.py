"""Write files atomically, and read JSON, text and tensors with checks; no pickles."""

import errno
import glob
import json
import math
import os
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from handful.errors import HandfulError

if TYPE_CHECKING:  # importing torch takes seconds, and `handful --help` does not need it
    from torch import Tensor

LOCK = ".lock"
LARGEST_TEXT = 64 * 2**20  # bytes; larger JSON and CSV files are refused
LARGEST_HEADER = 4 * 2**20  # bytes; safetensors files with a larger header are refused
DEEPEST = 100  # nested levels; deeper JSON is refused
MOST_VALUES = 3_000_000  # values (about 200 MB in memory); JSON files with more are refused
WINDOWS = os.name == "nt"
_LONGEST = 259  # characters of the longest path on Windows, unless long paths are enabled
_RETRIES = 8  # attempts to rename on Windows: virus scanners briefly open new files
_STUB = 60  # characters of a name in the name of its temporary file, which has 255 bytes at most


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, then rename it to `path`; on an error, remove it.

    Readers see the whole file or none. The temporary name is unique, so that two processes may
    write at once; `tidy` removes the files of killed processes. A symbolic link at `path` is
    replaced by the file, so that a run folder's links cannot lead elsewhere; `handful.output`
    writes through links. HandfulError if `path` is a folder, a pipe or a device.
    """
    _check_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:_STUB]}.{uuid.uuid4().hex[:8]}.part")
    try:
        try:
            yield temporary
        except FileNotFoundError as error:
            _explain_length(temporary, error)
            raise
        with open(temporary, "r+b") as written:  # Windows flushes only what is open for writing
            os.fsync(written.fileno())
        replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def replace(source: Path, target: Path) -> None:
    """Rename a file, also over another one, and flush the folder so that it survives a power cut.

    Windows refuses while another program has one of the two open: HandfulError after _RETRIES
    attempts.
    """
    for waited in range(_RETRIES):
        try:
            os.replace(source, target)
            break
        except PermissionError as error:
            if not WINDOWS:
                raise
            if waited == _RETRIES - 1:
                raise HandfulError(
                    f"{target} is open in another program, so that it cannot be replaced; close "
                    f"it there, then start the same command again"
                ) from error
            time.sleep(0.05 * 2**waited)
    _flush_folder(target.parent)


def _flush_folder(folder: Path) -> None:
    """Write the folder's entries to disk, on systems that can open a folder."""
    if WINDOWS:
        return
    with suppress(OSError):  # not all file systems can; the rename is done anyway
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _check_replaceable(path: Path) -> None:
    with suppress(FileNotFoundError, NotADirectoryError):
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            raise HandfulError(f"{path} is a folder where a file is to be written; move it away")
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            raise HandfulError(f"{path} is a pipe or a device and no file; give another --out")


def _explain_length(path: Path, error: OSError) -> None:
    length = len(str(path.absolute()))
    if WINDOWS and length > _LONGEST:
        raise HandfulError(
            f"{path} has {length} characters with its folders, and Windows takes {_LONGEST}; give "
            f"a shorter --out, or enable long paths in Windows"
        ) from error


def tidy(folder: Path, name: str = "*") -> None:
    """Remove temporary files that killed processes left of `beside`, for one file name or all.

    Hold a lock that excludes other writers.
    """
    stub = name if name == "*" else glob.escape(name[:_STUB])
    for left in folder.glob(f".{stub}.*.part"):
        with suppress(OSError):  # Windows does not remove open files
            left.unlink(missing_ok=True)


@contextmanager
def sole_writer(folder: Path | None) -> Iterator[None]:
    """Create and lock the folder within the block; HandfulError if another process holds the lock.

    The operating system holds the lock, so it ends with the process. None locks nothing.
    """
    if folder is None:
        yield
        return
    if folder.exists() and not folder.is_dir():
        raise HandfulError(f"{folder} is a file; give --out a folder that is new or empty")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise HandfulError(
            f"{folder} is being written by another process; wait until it has ended, or give "
            f"another --out"
        ) from None
    try:
        yield
    finally:
        with suppress(PermissionError):  # Windows removes no open file: release() removes it
            # Before the release: afterwards another process may own the file.
            (folder / LOCK).unlink(missing_ok=True)
        lock.release()


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8; what is no valid Unicode is written with backslash escapes."""
    with beside(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file; ValueError for numbers that are not finite."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def check_regular(path: Path) -> None:
    """HandfulError unless the path leads to a regular file.

    A run folder may come from anyone, and reading a pipe or a device in it might never end.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise HandfulError(f"{path} is missing; is {path.parent} a run folder?") from None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise HandfulError(f"{path} is a link to itself; restore it or fit again") from None
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe, a device or the like"
        raise HandfulError(f"{path} is {what}, not a file; restore it or fit again")


def read_bytes(path: Path, most: int = LARGEST_TEXT) -> bytes:
    """Read a regular file of at most `most` bytes; HandfulError for other files."""
    check_regular(path)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # replaced since the check above
            raise HandfulError(f"{path} is not a file; restore it or fit again")
        content = file.read(most + 1)
    if len(content) > most:
        raise HandfulError(
            f"{path} is larger than the {most >> 20} MB that handful reads; restore it or fit again"
        )
    return content


def read_text(path: Path, errors: str = "strict") -> str:
    """Read UTF-8 text from a regular file of at most LARGEST_TEXT bytes; else HandfulError."""
    try:
        return read_bytes(path).decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise HandfulError(f"{path} is damaged ({error}); restore it or fit again") from None


def read_json(path: Path) -> Any:
    """Read a JSON file, see `parse_json`; HandfulError if it is missing or damaged."""
    return parse_json(read_text(path), path)


def parse_json(text: str, path: Path) -> Any:
    """Parse JSON of bounded size and depth with finite numbers; else HandfulError with `path`.

    Duplicate keys are refused, because readers differ in which of them counts.
    """
    try:
        if sum(map(text.count, ",[{")) > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES:,} values")
        found = json.loads(text, object_pairs_hook=_unique, parse_constant=_not_a_number)
        _check_values(found)
    except (ValueError, RecursionError) as error:
        said = "too deep" if isinstance(error, RecursionError) else error
        raise HandfulError(f"{path} is damaged ({said}); restore it or fit again") from None
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:100]!r} stands twice")
    return found


def _not_a_number(name: str) -> None:
    raise ValueError(f"{name} is no number that JSON knows")


def _check_values(value: Any) -> None:
    """ValueError for numbers beyond the range of a float, or more than DEEPEST levels."""
    level = [value]
    for _ in range(DEEPEST):
        for one in level:
            if isinstance(one, float) and not math.isfinite(one):
                raise ValueError("a number is too large")
            if isinstance(one, int) and one.bit_length() > 1000:
                raise ValueError("a number is too large")
        boxes = (
            one.values() if isinstance(one, dict) else one
            for one in level
            if isinstance(one, dict | list)
        )
        level = [one for box in boxes for one in box]
        if not level:
            return
    raise ValueError(f"more than {DEEPEST} levels deep")


def write_tensors(
    path: Path, tensors: "dict[str, Tensor]", metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file; equal tensors and metadata give equal bytes."""
    content = tensor_bytes(tensors, metadata)
    with beside(path) as temporary:
        temporary.write_bytes(content)  # save_file would make the file readable by its owner only


def tensor_bytes(tensors: "dict[str, Tensor]", metadata: dict[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file, with sorted metadata, whose order is random otherwise."""
    from safetensors.torch import save

    content = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata)
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":"))
    text = header.encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def is_finite(tensor: "Tensor") -> bool:
    """Whether a tensor that was read from a file has no infinite value and no NaN.

    NumPy answers it: torch would start its threads, which cost more than all the rest of reading.
    A tensor of a type that only damaged or foreign files hold, such as float8, is not finite.
    """
    import numpy as np
    import torch

    if tensor.dtype == torch.bfloat16:  # NumPy has none
        tensor = tensor.float()
    try:
        values = tensor.detach().numpy()
    except TypeError:
        return False
    return bool(np.isfinite(values).all())


def read_tensors(
    path: Path, check: Callable[[dict[str, tuple[int, ...]], dict[str, str]], None] | None = None
) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Read tensors by name, and metadata; HandfulError if the file is missing or damaged.

    Args:
        check: called with the shapes by name and the metadata, before any tensor is read; raises
            an error if they are wrong.
    """
    from safetensors import SafetensorError, safe_open

    check_regular(path)
    with open(path, "rb") as start:
        if int.from_bytes(start.read(8), "little") > LARGEST_HEADER:
            raise HandfulError(
                f"{path} is damaged (its header is too long); restore it or fit again"
            )
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            names = list(file.keys())
            if check is not None:
                check({key: tuple(file.get_slice(key).get_shape()) for key in names}, metadata)
            return {key: file.get_tensor(key) for key in names}, metadata
    except (SafetensorError, OverflowError) as error:
        raise HandfulError(f"{path} is damaged ({error}); restore it or fit again") from None
