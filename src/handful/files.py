"""Reading and writing files that are either whole or absent, and never a pickle."""

import glob
import json
import os
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from handful.errors import HandfulError

LOCK = ".lock"
WINDOWS = os.name == "nt"
_LONGEST = 259  # characters of a path on Windows, unless long paths are enabled there
_RETRIES = 8  # of a rename on Windows: virus scanners hold a new file for a moment
_STUB = 60  # characters of a name that its temporary file has too: 255 bytes are the limit


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Write to the path given, then it is renamed to `path`; on an error nothing is left.

    Readers see the whole file or none. The name beside is new each time, so two may write at once;
    `tidy` removes what killed processes left. A link of that name is replaced by the file, so that
    nobody's run folder leads elsewhere; `handful.output` writes through links. HandfulError if
    `path` is a folder, a pipe or a device.
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
    """Rename, also over another file, and have the folder remember it through a power cut.

    Windows refuses while another program has one of the two open: after a few tries that is a
    HandfulError.
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
    """What was renamed in it stays so after a power cut, on systems that can open a folder."""
    if WINDOWS:
        return
    with suppress(OSError):  # file systems that cannot do it: the rename itself has been done
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
    """Remove what killed processes left of `beside` in a folder: for one file, or for all.

    To be used where nobody else can be writing: under a lock.
    """
    stub = name if name == "*" else glob.escape(name[:_STUB])
    for left in folder.glob(f".{stub}.*.part"):
        with suppress(OSError):  # Windows keeps what somebody has open
            left.unlink(missing_ok=True)


@contextmanager
def sole_writer(folder: Path | None) -> Iterator[None]:
    """Within, the folder exists and no other process is in here with it; HandfulError if one is.

    The lock is the operating system's: it goes with the process, however that ends.
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
        with suppress(PermissionError):  # Windows removes no open file: there, release does it
            # Before the release: after it, it may be another's.
            (folder / LOCK).unlink(missing_ok=True)
        lock.release()


def write_text(path: Path, text: str) -> None:
    """UTF-8. What is no Unicode, in the name of a file, is written as JSON escapes it."""
    with beside(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON in a file; HandfulError names the file that is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HandfulError(f"{path} is missing; is {path.parent} a run folder?") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise HandfulError(f"{path} is damaged ({error}); restore it or fit again") from None


def write_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    from safetensors.torch import save

    content = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata)
    with beside(path) as temporary:
        temporary.write_bytes(content)  # save_file would make it readable by its owner only


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata; HandfulError names the file that is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
    except FileNotFoundError:
        raise HandfulError(f"{path} is missing; is {path.parent} a run folder?") from None
    except SafetensorError as error:
        raise HandfulError(f"{path} is damaged ({error}); restore it or fit again") from None
