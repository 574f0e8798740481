"""Check the output path of a command before its work starts, and write to it.

`output_target` checks a path that the user typed: it follows links, and refuses to replace a file
that handful did not write. `written` writes to it: atomically if it is a regular file, directly if
it is a pipe or a device.
"""

import csv
import errno
import json
import os
import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from handful import files
from handful.errors import HandfulError
from handful.files import beside

# Endings of pictures: no output is written to such a name, even if there is no such file.
_PICTURES = frozenset(
    ".jpg .jpeg .png .gif .bmp .tif .tiff .webp .heic .heif .avif .jp2 .dng .cr2 .nef .arw".split()
)
_RESERVED = re.compile(r"(con|prn|aux|nul|com[1-9]|lpt[1-9])", re.IGNORECASE)
_HANDLE = re.compile(r"/(?:dev/fd|proc/(?:self|\d+)/fd)/(\d+)|/dev/(stdin|stdout|stderr)")


@dataclass(frozen=True)
class Kind:
    """A kind of file that a command writes."""

    what: str  # its name in messages, such as "predictions, a CSV"
    example: str  # a file name
    ours: Callable[[Path], bool]  # whether an existing file is of this kind


def _begins(*columns: str) -> Callable[[Path], bool]:
    """A check for tables that start with these columns, even if a spreadsheet saved them."""

    def ours(path: Path) -> bool:
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
            first = file.readline(10_000)
        return any(
            tuple(cell.strip() for cell in row[: len(columns)]) == columns
            for delimiter in ",;\t"
            for row in csv.reader([first], delimiter=delimiter)
        )

    return ours


def _json_with(*keys: str) -> Callable[[Path], bool]:
    """A check for JSON objects with these keys."""

    def ours(path: Path) -> bool:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            return False
        return isinstance(found, dict) and set(keys) <= found.keys()

    return ours


def _holds(*texts: str) -> Callable[[Path], bool]:
    """A check for files with one of these texts in their first 100,000 bytes."""

    def ours(path: Path) -> bool:
        with open(path, "rb") as file:
            head = file.read(100_000)
        return any(text.encode() in head for text in texts)

    return ours


def _recognitions(path: Path) -> bool:
    """A check for recognitions that handful wrote: MegaDetector's own output is never replaced."""
    if not _json_with("info", "images", "detection_categories")(path):
        return False
    info = json.loads(path.read_text(encoding="utf-8"))["info"]
    return isinstance(info, dict) and str(info.get("classifier", "")).startswith("handful ")


PARQUET_KIND = "handful.kind"  # the key under which a Parquet file says what it is


def _parquet(kind: str, path: Path) -> bool:
    """Whether a file is Parquet that handful wrote; its footer holds the kind as plain text."""
    with open(path, "rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 8))
        end = file.read(8)
        if end[4:] != b"PAR1":
            return False
        length = int.from_bytes(end[:4], "little") + 8
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - min(length, 2**26)))
        footer = file.read(length)
    return PARQUET_KIND.encode() in footer and kind.encode() in footer


def _predictions(path: Path) -> bool:
    return _begins("file", "label", "confidence")(path) or _parquet("predictions", path)


def _features(path: Path) -> bool:
    if _parquet("features", path):
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return {"features.npy", "names.npy", "backbone.npy"} <= set(archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


PREDICTIONS = Kind("predictions, a CSV or Parquet", "predictions.csv", _predictions)
PHOTO_ANSWERS = Kind(
    "answers for photos, a CSV", "by-photo.csv", _begins("RelativePath", "File", "Label")
)
RECOGNITIONS = Kind("recognitions, JSON", "recognitions.json", _recognitions)
FEATURES = Kind("features, an .npz or Parquet", "features.npz", _features)
# The last two texts are in pages that older versions wrote.
PAGE = Kind(
    "a page, HTML",
    "report.html",
    _holds(
        '<meta name="generator" content="handful">',
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:",
        ": images</title>",
    ),
)
FINDINGS = Kind("findings, JSON", "data.json", _json_with("source", "identical", "problems"))
EVALUATION = Kind("an evaluation, JSON", "evaluation.json", _json_with("accuracy", "confusion"))
PLOT = Kind("a plot, SVG", "confusion.svg", _holds("matplotlib"))


def output_target(path: Path, kind: Kind) -> Path:
    """The path that writing to `path` affects; HandfulError if it must not be written.

    Links are followed; a link to a missing file names the file to create.
    """
    if _handle(path) is not None:
        return path
    if files.WINDOWS and _RESERVED.fullmatch(path.name.partition(".")[0].rstrip()):
        raise HandfulError(f"Windows keeps the name {path.name} for itself; try {kind.example}")
    mode = _mode(path)
    if mode is not None and stat.S_ISDIR(mode):
        raise HandfulError(
            f"{path} is a folder, and a file is to be written; try {path}/{kind.example}"
        )
    if mode is not None and not stat.S_ISREG(mode):
        return path
    if path.suffix.lower() in _PICTURES:
        raise HandfulError(
            f"{path} is the name of a picture, and what is written is {kind.what}; try "
            f"{path.with_suffix(Path(kind.example).suffix)}"
        )
    target = path.resolve() if path.is_symlink() else path
    if mode is not None and target.stat().st_size and not kind.ours(target):
        raise HandfulError(
            f"{path} exists and is not what handful writes there ({kind.what}); give another name, "
            f"or move the file away"
        )
    return target


def folder_target(folder: Path, name: str, kind: Kind) -> Path:
    """As `output_target`, for the file `name` in the folder given with --out."""
    if folder.exists() and not folder.is_dir():
        raise HandfulError(f"--out is a folder here, and {folder} is a file; give another name")
    target = output_target(folder / name, kind)
    if target.exists() and not target.is_file():
        raise HandfulError(f"{target} is a pipe or a device and no file; give another --out")
    return target


def next_folder(folder: Path) -> Path:
    """The first folder after `folder` that is not there: photos-run → photos-run-2.

    >>> next_folder(Path("not-there-run-2"))
    PosixPath('not-there-run-3')
    """
    return next(place for place in later_folders(folder) if not os.path.lexists(place))


def later_folders(folder: Path) -> Iterator[Path]:
    """The folders after `folder`, there or not: photos-run-2, photos-run-3, …"""
    name, _, number = folder.name.rpartition("-")
    known = int(number) if name and number.isdecimal() else 1
    base = name if known > 1 else folder.name
    return (folder.with_name(f"{base}-{at}") for at in count(known + 1))


def check_new_folder(folder: Path) -> None:
    """HandfulError unless a command may make this folder: nothing is there, or it is empty."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise HandfulError(f"--out is a folder to make, and {folder} is a file; give another name")
    if folder.is_dir() and any(folder.iterdir()):
        raise HandfulError(
            f"{folder} holds files, and they stay; give --out a folder that is new or empty, or "
            f"remove this one yourself"
        )
    if files.WINDOWS and _RESERVED.fullmatch(folder.name.partition(".")[0].rstrip()):
        raise HandfulError(f"Windows keeps the name {folder.name} for itself; give another --out")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that gets the name `folder` at the end; on an error, remove it.

    Others see the whole folder or none. HandfulError as `check_new_folder`.
    """
    check_new_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(".part", f".{folder.name[:60]}.", folder.parent.resolve()))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_mask())
        check_new_folder(folder)  # again: the work took a while
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _mask() -> int:
    """The permissions that this process takes from what it makes."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Yield a path to write to, whose content then goes to `path`: a file, link, pipe or device."""
    number, mode = _handle(path), _mode(path)
    if number is None and (mode is None or stat.S_ISREG(mode)):
        with beside(path.resolve() if path.is_symlink() else path) as temporary:
            yield temporary
        return
    with tempfile.TemporaryDirectory() as folder:  # some formats seek, which a pipe cannot
        whole = Path(folder) / "whole"
        yield whole
        into = open(path, "wb") if number is None else os.fdopen(os.dup(number), "wb")
        with open(whole, "rb") as source, into as target:
            shutil.copyfileobj(source, target)


def _mode(path: Path) -> int | None:
    """The file mode at a path, following links; None if there is nothing.

    HandfulError for a link that leads back to itself.
    """
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise HandfulError(
                f"{path} is a link that leads back to itself; remove it or give another --out"
            ) from None
        raise


def _handle(path: Path) -> int | None:
    """The number of the open file that a path such as /dev/stdout names, or None."""
    found = _HANDLE.fullmatch(str(path))
    if found is None:
        return None
    return int(found[1]) if found[1] else ("stdin", "stdout", "stderr").index(found[2])
