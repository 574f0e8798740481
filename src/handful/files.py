"""Reading and writing files that are either whole or absent, and never a pickle."""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from handful.errors import HandfulError

LOCK = ".lock"


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Write to the path given, then it is renamed to `path`; on an error nothing is left.

    Readers see the whole file or none. The name beside is new each time, so two may write at once;
    `tidy` removes what killed processes left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def tidy(folder: Path, name: str = "*") -> None:
    """Remove what killed processes left of `beside` in a folder: for one file, or for all.

    To be used where nobody else can be writing: under a lock.
    """
    for left in folder.glob(f".{name}.*.part"):
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
        (folder / LOCK).unlink(missing_ok=True)  # before the release: after it, it may be another's
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
